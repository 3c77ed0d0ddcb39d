"""A few real SIGKILLs, a real process without the lab's shortcuts, and the aim's own tests. A hundred kills:
tests.torture."""

import os
import subprocess
import sys

import pytest

from tests.reliability import tiny
from tests.reliability.snapshot import snapshot
from tests.torture import kills


def test_killed_processes_are_resumed_to_the_same_bytes(tmp_path_factory):
    data = tiny.make_data(tmp_path_factory.mktemp("kills"), 12)
    tally = kills.torture(data, 4, 20240229)
    assert sum(tally.values()) - tally["runs"] == 4


def test_the_lab_computes_what_a_process_of_its_own_computes(data, uninterrupted, tmp_path):
    command = [sys.executable, "-m", "edgeflownas.train_supernet"] + tiny.flags(data, tmp_path)
    done = subprocess.run(command, cwd=tiny.ROOT, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(str(tmp_path / "supernet_training_report.md"))
    alone = snapshot(str(tmp_path))
    assert {part: alone[part] for part in uninterrupted} == uninterrupted


@pytest.mark.parametrize(
    "step, leaves, where",
    [(4, [".tmp-gen-000000005-0009"], kills.COMMIT), (4, ["gen-000000005-0009"], kills.COMMIT), (4, [], kills.START)],
)
def test_where_a_kill_fell_is_read_from_what_it_left(lab, tmp_path, step, leaves, where):
    assert lab.run(str(tmp_path), "--max_steps", str(step)).code == 0
    for name in leaves:
        os.mkdir(str(tmp_path / "checkpoints" / "generations" / name))
    assert kills.where_it_fell(str(tmp_path)) == where


@pytest.mark.parametrize("table, where", [("eval_epe_per_arch.csv", kills.ROWS), ("train_steps.csv", kills.CYCLES)])
def test_rows_without_a_commit_tell_where_a_kill_fell(lab, tmp_path, table, where):
    assert lab.run(str(tmp_path), "--max_steps", "4").code == 0
    with open(str(tmp_path / table), "a") as handle:
        handle.write("a row\n")
    assert kills.where_it_fell(str(tmp_path)) == where
