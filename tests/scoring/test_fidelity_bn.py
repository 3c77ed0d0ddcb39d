"""Ranks against the number of BN batches: counted by hand, and measured on a real graph."""

import numpy as np
import pytest

from edgeflownas.errors import UserError
from edgeflownas.scoring.fidelity import bn, command


def test_changes_of_the_ranking_are_counted():
    rng = np.random.RandomState(0)
    noise = 1e-3 * rng.rand(4, 50)
    reference = np.array([[1.0], [2.0], [3.0], [4.0]]) + noise
    moved = np.array([[3.5], [2.0], [3.0], [4.0]]) + noise  # the first one is third now
    level = reference.copy()
    level[[0, 1]] = level[[1, 0]]
    level[0] = level[1] + 0.1 * rng.randn(50)  # behind or before the second by chance
    rows = bn.compare([8, 32, 128], [moved, level, reference])
    assert rows[2] == bn.Row(128, pytest.approx(reference.mean()), 0.0, 1.0, 0, 0, 0)
    assert (rows[0].largest_rank_change, rows[0].swapped, rows[0].swapped_outside) == (2, 2, 2)
    assert rows[0].tau == pytest.approx((4 - 2) / 6) and rows[0].largest_change == pytest.approx(2.5, abs=1e-6)
    assert rows[1].swapped_outside == 0
    assert "128" in bn.words(rows).splitlines()[-1]


def test_one_command_gives_the_table(original_run, capsys):
    words = ["bn", original_run.folder, "--batches", "3,1,2", "--gpu_device", "-1"]
    assert command.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert lines[-1].split()[2:] == ["0.0000", "1.00", "0", "0", "0"]
    assert float(lines[1].split()[2]) > 0


def test_wrong_numbers_are_refused():
    for wrong in ("8", "0,8", "a,b"):
        with pytest.raises(UserError, match="--batches: expected at least two whole numbers"):
            command.main(["bn", "somewhere", "--batches", wrong])
