"""eval_epe_samples.npz: the best evaluation is kept, and errors name the damage."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgeflownas.errors import DataError, UserError
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import get_space
from edgeflownas.run.epe_samples import read_epe_samples, write_epe_samples

SPACE = get_space("edgeflownet_v1")
POOL = build_pool(1, 3, SPACE)
NAMES = ["val/0000001", "val/0000002"]


def epe(level):
    return (level + np.arange(6).reshape(3, 2)).astype(np.float32)


def write(folder, epoch, best_epoch, names=NAMES):
    write_epe_samples(str(folder), epoch, best_epoch, POOL, epe(epoch)[:, : len(names)], names, SPACE)
    return read_epe_samples(Path(str(folder)), SPACE)


def test_the_best_evaluation_stays_until_a_better_one_comes(tmp_path):
    assert read_epe_samples(tmp_path, SPACE) is None
    for epoch, best_epoch in ((1, 1), (2, 1), (3, 1), (4, 4)):
        found = write(tmp_path, epoch, best_epoch)
        assert (found.last_epoch, found.best_epoch, found.names) == (epoch, best_epoch, NAMES)
        np.testing.assert_array_equal(found.last, epe(epoch))
        np.testing.assert_array_equal(found.best, epe(best_epoch))
        np.testing.assert_array_equal(found.codes, POOL)
    assert [path.name for path in tmp_path.iterdir()] == ["eval_epe_samples.npz"]


def test_a_best_evaluation_that_is_lost_is_none_and_never_another_one(tmp_path):
    write(tmp_path, 5, 5)  # killed ahead of the commit; resumed, epoch 3 is the best again
    found = write(tmp_path, 5, 3)
    assert found.best_epoch == 0 and found.best.shape == (0, 2)
    write(tmp_path, 6, 6)
    assert write(tmp_path, 7, 6, NAMES[:1]).best_epoch == 0  # a resume that scores fewer samples
    (tmp_path / "eval_epe_samples.npz").write_bytes(b"damaged")
    assert write(tmp_path, 8, 6).best_epoch == 0


def test_damage_is_named(tmp_path):
    write(tmp_path, 1, 1)
    path = tmp_path / "eval_epe_samples.npz"
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"\x93NUMPY"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="eval_epe_samples.npz: cannot be read"):
            read_epe_samples(tmp_path, SPACE)


@pytest.mark.parametrize("name, wrong", [("codes", POOL[:2]), ("best", epe(1)[:2]), ("names", np.array(["one"]))])
def test_wrong_shapes_are_named(tmp_path, name, wrong):
    write(tmp_path, 1, 1)
    path = tmp_path / "eval_epe_samples.npz"
    with np.load(str(path)) as archive:
        good = dict(archive)
    np.savez(str(path), **dict(good, **{name: wrong}))
    with pytest.raises(DataError, match=f": {name}: expected"):
        read_epe_samples(tmp_path, SPACE)


def test_another_space_is_refused(tmp_path):
    write(tmp_path, 1, 1)
    path = tmp_path / "eval_epe_samples.npz"
    with np.load(str(path)) as archive:
        good = dict(archive)
    np.savez(str(path), **dict(good, space=json.dumps(get_space("edgeflownet_v2").identity())))
    with pytest.raises(UserError, match="is of the search space edgeflownet_v2:"):
        read_epe_samples(tmp_path, SPACE)


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    write(tmp_path, 1, 1)
    monkeypatch.setattr("os.replace", _full)
    with pytest.raises(UserError, match="eval_epe_samples.npz: No space left on device; free some space and --resume"):
        write(tmp_path, 2, 1)
    monkeypatch.undo()
    assert read_epe_samples(tmp_path, SPACE).last_epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["eval_epe_samples.npz"]


def _full(*_):
    raise OSError(28, "No space left on device")
