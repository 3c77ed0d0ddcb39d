"""A run whose folder has a name that other programs would read as a pattern."""

import subprocess
import sys

import pytest

from edgeflownas.scoring import supernet_eval
from tests.reliability import tiny
from tests.reliability.snapshot import differences, snapshot


@pytest.mark.parametrize("name", ["sweep [lr=1e-3] *?", "back\\slash"])
def test_a_run_in_any_folder_trains_resumes_and_is_evaluated(lab, uninterrupted, tmp_path, capsys, name):
    folder = str(tmp_path / name)
    assert lab.run(folder, "--max_steps", "4").code == 0
    assert lab.run(folder, "--resume", report=True).code == 0
    assert differences(snapshot(folder), uninterrupted) == []
    assert supernet_eval.main(["--output_dir", folder, "--codes", "000001000"]) == 0
    assert "000001000  EPE" in capsys.readouterr().out


def test_an_experiment_of_such_a_name_gives_its_weights_to_another(lab, tmp_path):
    """Runs in a separate process, because the lab's graph cannot have a second saver."""
    assert lab.run(str(tmp_path), "--experiment_name", "lr[1e-3]", "--max_steps", "1").code == 0
    command = [sys.executable, "-m", "edgeflownas.train_supernet"] + tiny.flags(lab.data, tmp_path)
    command += ["--experiment_name", "b", "--load_checkpoint", "--resume_experiment_name", "lr[1e-3]"]
    done = subprocess.run(command + ["--max_steps", "1"], cwd=tiny.ROOT, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
