"""What a run's records say after resumes that were stopped, killed or refused: nothing twice, nothing lost, nothing
written by a resume that was refused."""

import json
import os
import signal

import pytest

from tests.reliability.lab import at_cycle, send
from tests.reliability.test_resume_rules import manifest
from tests.reliability.test_signals import contents


def stop_after(lab, folder, step, *words, **settings):
    assert lab.run(folder, "--max_steps", str(step), *words, **settings).code == 0


def traced(folder):
    with open(os.path.join(folder, "debug_trace.jsonl")) as lines:
        return [line["step"] for line in map(json.loads, lines) if line["event"] == "cycle"]


class Killed(BaseException):
    """Ends a run without its final writes, as SIGKILL does."""


def die(*_):
    raise Killed


def kill_at(lab, folder, step, *words, **settings):
    with pytest.raises(Killed):
        lab.run(folder, *words, plants=[at_cycle(step, die)], **settings)


def test_a_trace_that_began_after_the_checkpoint_has_no_cycle_twice(lab, tmp_path):
    folder = str(tmp_path)
    stop_after(lab, folder, 2, runtime__debug_trace="false")
    kill_at(lab, folder, 3, "--resume")
    assert traced(folder)[0] == 2
    assert lab.run(folder, "--resume").code == 0
    assert traced(folder) == list(range(2, 9))


def test_an_invocation_without_a_trace_cuts_the_trace_back(lab, tmp_path):
    folder = str(tmp_path)
    stop_after(lab, folder, 1)
    kill_at(lab, folder, 2, "--resume")
    stop_after(lab, folder, 3, "--resume", runtime__debug_trace="false")
    assert traced(folder) == [0]
    assert lab.run(folder, "--resume").code == 0
    assert traced(folder) == [0] + list(range(3, 9))


def test_a_resume_refused_at_the_pool_writes_nothing(lab, tmp_path):
    folder = str(tmp_path)
    stop_after(lab, folder, 4)
    (tmp_path / "eval_pool_3.json").unlink()
    before = contents(folder)
    outcome = lab.run(folder, "--resume", "--set", "runtime.num_workers=2")
    assert outcome.code == 2 and "eval_pool_3.json" in outcome.error
    assert contents(folder) == before


def test_overrides_and_the_first_command_stay_on_record(lab, tmp_path):
    folder = str(tmp_path)
    stop_after(lab, folder, 2, "--unsigned", "--allow_unsupported_gpu")
    stop_after(lab, folder, 4, "--resume")
    found = manifest(folder)
    assert found["gates"]["unsigned"] is True and found["unsupported_gpu_allowed"] is True
    assert "--max_steps 2" in found["command"] and "--resume" not in found["command"]
    resume = found["resumes"][-1]
    assert resume["gates"]["unsigned"] is False and resume["unsupported_gpu_allowed"] is False
    assert "--resume" in resume["command"] and resume["device"] == found["device"]


def test_a_run_stopped_at_once_does_not_say_that_all_was_committed(lab, tmp_path):
    folder = str(tmp_path)

    def twice(trainer):
        send(signal.SIGINT)(trainer)
        send(signal.SIGINT)(trainer)

    outcome = lab.run(folder, plants=[at_cycle(4, twice)])
    assert outcome.code == 130
    found = manifest(folder)
    assert found["status"] == "failed" and found["error"].startswith("stopped at once; the checkpoint of step 3")
    assert lab.run(folder, "--resume").code == 0
    assert "error" not in manifest(folder) and manifest(folder)["status"] == "completed"


def test_a_start_that_fails_leaves_no_run_that_seems_to_go_on(lab, tmp_path, monkeypatch):
    from edgeflownas.engine import trainer
    from edgeflownas.errors import UserError

    def full(*_):
        raise UserError("write eval_pool_3.json: no space left on device")

    monkeypatch.setattr(trainer, "save_pool", full)
    assert lab.run(str(tmp_path)).code == 2
    assert not (tmp_path / "train_manifest.json").exists()
