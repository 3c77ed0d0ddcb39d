"""The number of ranks changes no bit: two compute what one does, over stops and resumes; four agree to rounding."""

import csv
import os

import numpy as np
import pytest

from tests.distributed.crew import Crew, left
from tests.reliability.snapshot import differences

SMALL_RATE = ("--set", "train.lr=1e-4")


def test_two_ranks_leave_the_bits_of_one(two, reference, tmp_path):
    """Three epochs with their evaluations; the last round of each has a batch for one rank only."""
    ended = two.run(tmp_path)
    assert ended.codes == [0, 0], ended
    assert ended.outcomes[1][0].stderr == "", "only rank 0 speaks"
    assert differences(left(tmp_path), reference) == []


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_run_goes_on_with_another_number_of_ranks(one, two, reference, tmp_path, step):
    """Stopped within and at the end of an epoch; with one, two, and one rank again."""
    assert one.run(tmp_path, "--max_steps", str(step)).codes == [0]
    assert two.run(tmp_path, "--resume", "--max_steps", str(step + 3)).codes == [0, 0]
    assert one.run(tmp_path, "--resume").codes == [0]
    assert differences(left(tmp_path), reference) == []


@pytest.mark.parametrize("setting", ["train.cycle_mode=sequential", "train.supernet_mode=uniform"])
def test_paths_one_by_one_leave_the_same_bits(data, tmp_path, setting):
    """Over a resume, with an evaluation, ended by early stop."""
    folders = []
    for ranks in (1, 2):
        crew, folder = Crew(data, ranks, "--set", setting, "--set", "eval.patience=1"), tmp_path / str(ranks)
        ended = crew.runs([crew.one(folder, "--max_steps", "2"), crew.one(folder, "--resume")])
        crew.close()
        assert ended.codes == [0] * ranks, ended
        assert "early_stopped after epoch 2, step 6" in ended.outcomes[0][1].stderr
        folders.append(folder)
    assert differences(*map(left, folders)) == []


def test_four_ranks_agree_with_one_to_rounding(one_of_four, four, tmp_path):
    """One step; then the other goes on with it, to the same rows. There are fewer validation batches than ranks."""
    names = ("one", "four")
    for name, crew in zip(names, (one_of_four, four)):
        ended = crew.run(tmp_path / name, *SMALL_RATE, "--max_steps", "1")
        assert set(ended.codes) == {0}, ended
    one, four_ = [_moments(tmp_path / name) for name in names]
    assert len(one) > 100
    for name in one:
        assert np.linalg.norm(four_[name] - one[name]) <= 1e-6 * max(np.linalg.norm(one[name]), 1e-3), name
    for name, crew in zip(names, (four, one_of_four)):
        assert set(crew.run(tmp_path / name, *SMALL_RATE, "--resume").codes) == {0}
    for table, close in (("train_steps.csv", 1e-5), ("eval_epe_history.csv", 1e-2)):
        rows = [_rows(tmp_path / name / table) for name in names]
        assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
        # Of the first cycle, and of the evaluation after it.
        np.testing.assert_allclose(*[np.array(row[1][2:], float) for row in rows], rtol=close)


def _moments(folder):
    """Adam's first moments after the first step: a tenth of the clipped gradient."""
    from edgeflownas.tfcompat import tf

    reader = tf.train.load_checkpoint(os.path.join(str(folder), "checkpoints", "supernet_last.ckpt"))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("/Adam")]
    return {name: reader.get_tensor(name).astype(np.float64) for name in names}


def _rows(path):
    with open(str(path), newline="") as handle:
        return list(csv.reader(handle))
