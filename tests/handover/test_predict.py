"""The flow of the user's own pictures: the evaluation's where both see the same, and NumPy's everywhere."""

import os

import numpy as np
import pytest
from PIL import Image

from edgeflownas.api import Supernet
from edgeflownas.data.flow_io import read_flo
from edgeflownas.data.synthetic import make_dataset
from edgeflownas.errors import UserError
from edgeflownas.handover.predict import main
from edgeflownas.scoring.frames import paired
from gates import dataset
from tests.handover import oracle

VALIDATION = [f"train/{number:07d}" for number in range(7, 10)]
SMALL = {"edgeflownet_v1": "000022222", "edgeflownet_v2": "21000000000"}  # the least that an output sees
# Pixels: half a kernel, times the stride, of every layer of those codes on the way, and two cells of each upsampling.
REACH = 3 + 4 + 8 + 4 + 16 + 8 + 32 + 16 + 8 + 16 + 8 + 4 + 4 + 2 + 2 + 1 + 1


def frames_of(data, name):
    pair, _ = dataset.read_pair(oracle.Path(data), name)
    return pair[..., :3].copy(), pair[..., 3:].copy()


@pytest.fixture(scope="module")
def supernet(whole_run):
    with Supernet.load(whole_run.folder) as loaded:
        yield loaded


def test_a_pair_of_the_runs_own_size_has_the_evaluations_flow(supernet, whole_run):
    code = SMALL[supernet.space.name]
    images = oracle.crops(whole_run.data, VALIDATION).images
    for image, want in zip(images, supernet.flow(code, images)):
        found = supernet.predict(code, image[..., :3], image[..., 3:])
        assert found.shape == (64, 67, 2) and found.dtype == np.float32
        oracle.close(found, want, 1e-5)


def test_an_odd_size_equals_numpy_on_the_padded_pair(supernet, whole_run):
    """71x97 becomes 80x99: 64 and 80, 67 and 99 leave the same remainder by 16."""
    code = SMALL[supernet.space.name]
    frame0, frame1 = frames_of(whole_run.data, VALIDATION[1])
    values = oracle.tensors(whole_run.folder)
    padded = np.pad(np.concatenate([frame0, frame1], axis=2), [(0, 9), (0, 2), (0, 0)], mode="edge")
    statistics = oracle.reestimated(values, code, whole_run.data, [f"train/{number:07d}" for number in range(7)])
    want = oracle.flow(values, code, statistics, padded[None])[0, :71, :97]
    oracle.close(supernet.predict(code, frame0, frame1), want)


def test_a_large_pair_equals_the_evaluations_flow_of_a_crop_where_no_border_is_seen(tmp_path, whole_run):
    """A crop of 320x323, 16 pixels from the top and left, as an evaluation cuts it."""
    height, width = 353, 357
    make_dataset(str(tmp_path / "fc2"), 1, 1, 3, height=height, width=width)
    frame0, frame1 = frames_of(str(tmp_path / "fc2"), "train/0000001")
    with Supernet.load(whole_run.folder) as supernet:
        code = SMALL[supernet.space.name]
        crop = np.concatenate([frame0, frame1], axis=2)[None, 16:336, 16:339]
        want = supernet.flow(code, crop)[0]
        found = supernet.predict(code, frame0, frame1)
    assert found.shape == (height, width, 2)
    inner = (slice(REACH, 320 - REACH), slice(REACH, 323 - REACH))
    part = found[16:336, 16:339]
    assert want[inner].size > 3000
    oracle.close(part[inner], want[inner], 1e-5)
    assert np.abs(part - want).max() > 1e-3, "near its borders a crop does not see what lies beyond"


@pytest.mark.parametrize("words", [[], ["--statistics", "stored"]])
def test_the_command_writes_flow_and_pictures(extracted, whole_run, tmp_path, capsys, words):
    folder, code = extracted
    frame0, frame1 = frames_of(whole_run.data, VALIDATION[0])
    paths = [str(tmp_path / "a first.ppm"), str(tmp_path / "second.png")]
    Image.fromarray(frame0).save(paths[0])
    Image.fromarray(frame1).save(paths[1])
    out = tmp_path / "out"
    assert main([folder, code] + paths + ["--out", str(out), "--gpu_device", "-1"] + words) == 0
    values = oracle.tensors(folder)
    padded = paired(frame0, frame1, 64, 67)
    want = oracle.flow(values, code, oracle.stored_statistics(values), padded[None])[0, :71, :97]
    oracle.close(read_flo(str(out / "a first.flo"), (97, 71)), want)
    for suffix in ("_flow", "_overlay"):
        with Image.open(str(out / f"a first{suffix}.png")) as picture:
            assert picture.width > 97 + 110 and picture.height > 71 and len(set(picture.convert("L").getdata())) > 20
    assert "97x71" in capsys.readouterr().out
    with pytest.raises(UserError, match="first.flo exists; name another --out"):
        main([folder, code] + paths + ["--out", str(out), "--gpu_device", "-1"])


def test_many_pairs_and_no_data_set(extracted, whole_run, tmp_path):
    """With the stored statistics the run's data may be gone; sizes may differ from pair to pair."""
    folder, code = extracted
    lines = ["# two files per line"]
    for number, size in enumerate([(71, 97), (64, 67)]):
        names = []
        for frame, pixels in enumerate(frames_of(whole_run.data, VALIDATION[number])):
            names.append(str(tmp_path / f"{number} {frame}.png"))
            Image.fromarray(pixels[: size[0], : size[1]]).save(names[-1])
        lines.append('"{}" "{}"'.format(*names))
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    words = [folder, code, "--pairs", str(tmp_path / "pairs.txt"), "--out", str(tmp_path / "out"), "--gpu_device", "-1"]
    words += ["--statistics", "stored", "--base_path", str(tmp_path / "gone")]
    assert main(words) == 0
    assert read_flo(str(tmp_path / "out" / "0000_0 0.flo")).shape == (71, 97, 2)
    assert read_flo(str(tmp_path / "out" / "0001_1 0.flo")).shape == (64, 67, 2)
    assert len(os.listdir(str(tmp_path / "out"))) == 6


@pytest.mark.parametrize(
    "frame0, frame1, message",
    [
        ((63, 97, 3), (63, 97, 3), "at least 64x64 pixels, found 97x63"),
        ((97, 63, 3), (97, 63, 3), "at least 64x64 pixels, found 63x97"),
        ((71, 97, 3), (97, 71, 3), "of one size, found 97x71 and 71x97"),
        ((71, 97), (71, 97), r"expected an array of uint8 RGB pixels, \[H, W, 3\], found uint8 \(71, 97\)"),
    ],
)
def test_frames_that_do_not_fit(frame0, frame1, message):
    with pytest.raises(UserError, match=message):
        paired(np.zeros(frame0, np.uint8), np.zeros(frame1, np.uint8), 64, 67)


def test_float_frames_are_refused():
    with pytest.raises(UserError, match="found float64"):
        paired(np.zeros((71, 97, 3)), np.zeros((71, 97, 3)), 64, 67)


@pytest.mark.parametrize(
    "lines, message",
    [("a.png\n", "line 1: expected two files, found 1"), ("# none\n", "found none"), ("'a b\n", "line 1: No closing")],
)
def test_a_wrong_list_of_pairs(tmp_path, lines, message):
    (tmp_path / "pairs.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        main(["run", "000000000", "--pairs", str(tmp_path / "pairs.txt"), "--out", str(tmp_path)])


def test_not_two_images(tmp_path):
    with pytest.raises(UserError, match="expected FRAME0 and FRAME1, or --pairs FILE, found 1"):
        main(["run", "000000000", "a.png", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="leave FRAME0 and FRAME1 out"):
        main(["run", "000000000", "a.png", "b.png", "--pairs", "p.txt", "--out", str(tmp_path)])


def test_the_example_of_the_manual_runs(whole_run, tmp_path):
    """`Supernet.predict` as the manual shows it."""
    frame0, frame1 = frames_of(whole_run.data, VALIDATION[2])
    with Supernet.load(whole_run.folder) as supernet:
        flow = supernet.predict(SMALL[supernet.space.name], frame0, frame1)
        assert flow.shape == frame0.shape[:2] + (2,)
        with pytest.raises(ValueError, match="length"):
            supernet.predict("0", frame0, frame1)
