"""The synthetic FC2: exact flow, FC2-like magnitudes, the same bytes everywhere, never a half-made set."""

import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mini_fc2 import data_cfg
from PIL import Image

from edgeflownas.data import scene, synthetic
from edgeflownas.data.fc2_index import build_index, verify_all
from edgeflownas.data.flow_io import read_flo
from edgeflownas.errors import UserError

HEIGHT, WIDTH = 96, 127


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "set"
    assert synthetic.make_dataset(str(root), train=3, test=2, seed=11, height=HEIGHT, width=WIDTH)
    return root


def _files(root):
    return {
        os.path.relpath(os.path.join(folder, name), str(root)): open(os.path.join(folder, name), "rb").read()
        for folder, _, names in os.walk(str(root))
        for name in names
    }


def _grow(mask):
    """Pixels of a mask and all of their neighbours."""
    padded = np.pad(mask, 1, mode="constant")
    return np.any([padded[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)], axis=0)


def _warped_error(drawn):
    """Absolute errors [N, 3] of frame 1 warped back, where both frames show the same layer, away from its edges."""
    height, width = drawn.layer0.shape
    y, x = np.mgrid[:height, :width]
    x1, y1 = x + drawn.flow[..., 0].astype(float), y + drawn.flow[..., 1].astype(float)
    left, top = np.floor(x1).astype(int), np.floor(y1).astype(int)
    seen = (left >= 0) & (top >= 0) & (left < width - 1) & (top < height - 1)
    left, top = np.clip(left, 0, width - 2), np.clip(top, 0, height - 2)
    fx, fy = (x1 - left)[..., None], (y1 - top)[..., None]
    frame = drawn.frame1.astype(float)
    back = (1 - fy) * ((1 - fx) * frame[top, left] + fx * frame[top, left + 1]) + fy * (
        (1 - fx) * frame[top + 1, left] + fx * frame[top + 1, left + 1]
    )
    for layers, at in ((drawn.layer0, (y, x)), (drawn.layer1, (top, left)), (drawn.layer1, (top + 1, left + 1))):
        edge = np.zeros_like(layers, bool)
        edge[:, 1:] |= layers[:, 1:] != layers[:, :-1]
        edge[1:] |= layers[1:] != layers[:-1]
        seen &= ~_grow(_grow(edge))[at] & (layers[at] == drawn.layer0)
    return np.abs(back - drawn.frame0)[seen], seen


@pytest.mark.parametrize("number", range(6))
def test_flow_is_exact(number):
    drawn = scene.draw(3, number, 192, 257)
    errors, seen = _warped_error(drawn)
    assert seen.mean() > 0.25 or np.abs(drawn.flow).max() > 50
    # Rounding of two frames to whole gray levels and twice linear sampling are all that is left.
    assert errors.mean() < 0.8 and errors.max() < 8, (errors.mean(), errors.max())
    moved = drawn._replace(flow=drawn.flow + np.float32(1.0))
    assert _warped_error(moved)[0].mean() > 3 * errors.mean()  # A pixel off would be noticed.


def test_scenes_have_occlusions_shapes_and_both_kinds_of_edges():
    drawn = [scene.draw(3, number, 192, 257) for number in range(6)]
    assert all(len(np.unique(one.layer0)) >= 4 for one in drawn)
    assert all(0.3 < (one.layer0 == 0).mean() < 0.95 for one in drawn)
    scenes = [scene._draw_layers(np.random.RandomState(number), 0.5, 192, 257, None) for number in range(6)]
    layers = [layer for layers in scenes for layer in layers[1:]]
    assert {layer.softness for layer in layers} == {0.0, scene.SOFT_EDGE}
    assert all(one.frame0.std() > 15 for one in drawn)


def test_textures_have_equal_contrast_at_every_scale():
    """Like photographs: means of neighbouring squares of 32 px must not differ much more than those of 8 px."""
    for number in range(6):
        texture = scene._texture(np.random.RandomState(number)).reshape(scene.TEXTURE, scene.TEXTURE, 3)
        fine, coarse = [_difference_of_neighbours(texture, side) for side in (8, 32)]
        assert 0.7 * fine < coarse < 1.5 * fine, (number, fine, coarse)
        assert texture.std(axis=(0, 1)).min() > 35  # Gray levels, of each colour.


def _difference_of_neighbours(texture, side):
    count = scene.TEXTURE // side
    means = texture.reshape(count, side, count, side, 3).mean(axis=(1, 3))
    return np.abs(means - np.roll(means, 1, axis=1)).mean()


def test_magnitudes_are_like_those_of_fc2(monkeypatch):
    """Mean about 9 px, median about 3, a tail beyond 50. Textures have no part in the flow and are left out."""
    monkeypatch.setattr(scene, "_sample", lambda texture, x, y: np.zeros(x.shape + (3,), np.float32))
    lengths = []
    for number in range(40):
        flow = scene.draw(1, number, 384, 512).flow[::8, ::8]
        lengths.append(np.sqrt((flow**2).sum(axis=2)).ravel())
    lengths = np.concatenate(lengths)
    assert 6.5 < lengths.mean() < 12 and 2.2 < np.median(lengths) < 4
    assert 0.01 < (lengths > 50).mean() < 0.08


def test_same_bytes_everywhere():
    """The expected digest is a literal, so that every machine, NumPy and TensorFlow must draw the same sample."""
    digest = hashlib.sha256()
    for array in scene.draw(7, 5, HEIGHT, WIDTH):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest() == "0a4d96804a62a3f90f7125c72e3cbbcb762944ec69aa9e928ccbfa0b19b00d1a"


def test_another_seed_or_number_is_another_sample():
    frames = {scene.draw(seed, number, 64, 64).frame0.tobytes() for seed in (1, 2) for number in (0, 1)}
    assert len(frames) == 4


def test_a_set_is_a_good_fc2(made):
    assert sorted(os.listdir(str(made))) == [
        "FC2_dirnames.txt",
        "FC2_test.txt",
        "FC2_train.txt",
        "dataset.json",
        "train",
    ]
    index = build_index(data_cfg(made), 1)
    assert [s.name for s in index.train] == [f"train/{n:07d}" for n in range(3)] and len(index.val) == 2
    assert index.source == "synthetic" and (index.train[0].height, index.train[0].width) == (HEIGHT, WIDTH)
    verify_all(index.train + index.val)
    drawn = scene.draw(11, 1, HEIGHT, WIDTH)
    assert np.array_equal(np.array(Image.open(index.train[1].img0)), drawn.frame0)
    assert np.array_equal(np.array(Image.open(index.train[1].img1)), drawn.frame1)
    assert np.array_equal(read_flo(index.train[1].flow), drawn.flow)


def test_processes_have_no_influence_on_the_bytes(made, tmp_path):
    synthetic.make_dataset(str(tmp_path), train=3, test=2, seed=11, height=HEIGHT, width=WIDTH, workers=2)
    assert _files(tmp_path) == _files(made)


def test_a_finished_set_is_left_alone(made, capsys):
    before = {path: os.stat(str(made / path)).st_mtime_ns for path in _files(made)}
    arguments = ["--out", str(made), "--train", "3", "--test", "2", "--seed", "11", "--height", "96", "--width", "127"]
    assert synthetic.main(arguments) == 0
    assert "already there" in capsys.readouterr().out
    assert {path: os.stat(str(made / path)).st_mtime_ns for path in _files(made)} == before


@pytest.mark.parametrize("changed", [{"train": 4}, {"test": 1}, {"seed": 12}, {"height": 97}, {"width": 128}])
def test_another_set_in_the_folder_is_refused(made, changed):
    before, parameters = _files(made), dict(train=3, test=2, seed=11, height=HEIGHT, width=WIDTH)
    with pytest.raises(UserError, match="expected an empty folder or the set"):
        synthetic.make_dataset(str(made), **dict(parameters, **changed))
    assert _files(made) == before


def test_a_half_made_set_is_never_taken_for_a_whole_one(tmp_path, monkeypatch):
    out, write, left = tmp_path / "set", synthetic.write_flo, [2]

    def full_disk(path, flow):
        left[0] -= 1
        if not left[0]:
            raise OSError("no space left")
        write(path, flow)

    monkeypatch.setattr(synthetic, "write_flo", full_disk)
    parameters = dict(train=2, test=1, seed=1, height=32, width=48)
    with pytest.raises(OSError, match="no space"):
        synthetic.make_dataset(str(out), **parameters)
    monkeypatch.undo()
    with pytest.raises(UserError, match="files without dataset.json: a set that was interrupted.*remove it"):
        synthetic.make_dataset(str(out), **parameters)


def test_a_finished_set_that_lost_a_file_is_refused(tmp_path):
    parameters = dict(train=1, test=1, seed=1, height=32, width=48)
    assert synthetic.make_dataset(str(tmp_path / "set"), **parameters)
    os.remove(str(tmp_path / "set" / "train" / "0000001-img_1.png"))
    with pytest.raises(UserError, match="0000001-img_1.png: expected a file of the finished set, found none"):
        synthetic.make_dataset(str(tmp_path / "set"), **parameters)


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(UserError, match="expected an empty folder"):
        synthetic.make_dataset(str(tmp_path), train=1, test=1, seed=1)
    with pytest.raises(UserError, match="expected a folder, found a file"):
        synthetic.make_dataset(str(tmp_path / "thesis.tex"), train=1, test=1, seed=1)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="dataset.json: expected JSON"):
        synthetic.make_dataset(str(tmp_path), train=1, test=1, seed=1)
    assert sorted(os.listdir(str(tmp_path))) == ["dataset.json", "thesis.tex"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"train": 0}, "--train"),
        ({"test": -1}, "--test"),
        ({"train": 10**7}, "10000000 in all"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"height": 15}, "--height"),
        ({"width": 0}, "--width"),
    ],
)
def test_wrong_parameters_are_named_before_anything_is_written(tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        synthetic.make_dataset(str(tmp_path / "set"), **dict(dict(train=1, test=1, seed=1), **wrong))
    assert not (tmp_path / "set").exists()


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "edgeflownas.data.synthetic", "--out", str(tmp_path / "set"), "--train", "1"]
    run = partial(
        subprocess.run,
        cwd=str(Path(__file__).parents[2]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    done = run(command + ["--test", "1", "--seed", "1", "--height", "32", "--width", "48"])
    assert done.returncode == 0 and "1 training and 1 validation samples of 48x32 written" in done.stdout, done.stderr
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["seed"] == 1
    again = run(command + ["--test", "2", "--seed", "1"])
    assert again.returncode == 2 and again.stderr.startswith("error: ") and again.stderr.count("\n") == 1


def test_max_shift_spreads_the_shifts_evenly():
    random = np.random.RandomState(0)
    lengths = [np.hypot(*scene._shift(random, rank, 4.0)) for rank in (0.0, 0.25, 0.5, 0.75)]
    assert lengths == pytest.approx([0.0, 1.0, 2.0, 3.0])
    flow = np.concatenate([scene.draw(3, number, 96, 128, 4.0).flow.ravel() for number in range(8)])
    assert 4.0 < np.abs(flow).max() < 14.0  # Background, shape, and what rotation and zoom add.


def test_max_shift_is_part_of_the_set(tmp_path):
    out = str(tmp_path / "set")
    assert synthetic.make_dataset(out, train=1, test=0, seed=1, height=HEIGHT, width=WIDTH, max_shift=4.0)
    assert not synthetic.make_dataset(out, train=1, test=0, seed=1, height=HEIGHT, width=WIDTH, max_shift=4.0)
    with pytest.raises(UserError, match="expected an empty folder or the set"):
        synthetic.make_dataset(out, train=1, test=0, seed=1, height=HEIGHT, width=WIDTH)
    with pytest.raises(UserError, match="--max_shift"):
        synthetic.make_dataset(out, train=1, test=0, seed=1, max_shift=0.0)
