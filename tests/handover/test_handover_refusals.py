"""A damaged or foreign run, a wrong code, a picture that is too small: one line each, before anything is written."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from edgeflownas.api import Supernet
from edgeflownas.errors import run_cli
from edgeflownas.handover import export, extract, predict
from edgeflownas.run.checkpoint import CheckpointStore

CPU = ["--gpu_device", "-1"]


def refused(main, words, capsys):
    """The one line of a command that ends with 2."""
    with pytest.raises(SystemExit) as ended:
        run_cli(main, words)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ")
    return line


def commands(folder, code, tmp_path):
    """Every hand-over of this run, as command lines."""
    out, frames = str(tmp_path / "out"), []
    for number in (0, 1):
        frames.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.zeros((64, 67, 3), np.uint8)).save(frames[-1])
    return [
        (extract.main, [folder, code, out] + CPU),
        (predict.main, [folder, code] + frames + ["--out", out] + CPU),
        (export.main, [folder] + CPU),
    ]


def test_a_damaged_run(tiny_run, tmp_path, capsys):
    os.truncate(tiny_run.store.load("best").prefix + ".data-00000-of-00001", 100)
    for main, words in commands(tiny_run.folder, "000000000", tmp_path):
        assert "has 100 of" in refused(main, words, capsys)
    assert not (tmp_path / "out").exists()


def test_a_foreign_run(tiny_run, tmp_path, capsys):
    """One of another space of the same name; a folder that is no run; one that is not there."""
    state = dict(tiny_run.store.load("best").state, space={"name": "edgeflownet_v1", "digest": "0" * 64})
    prefix = tiny_run.store.load("best").prefix

    def copy(target):
        for name in os.listdir(os.path.dirname(prefix)):
            if name.startswith("model.ckpt"):
                shutil.copy(os.path.join(os.path.dirname(prefix), name), os.path.dirname(target))

    CheckpointStore(os.path.join(tiny_run.folder, "checkpoints")).commit(copy, dict(state, step=9), True)
    for main, words in commands(tiny_run.folder, "000000000", tmp_path):
        assert "edgeflownet_v1:000000000000, expected edgeflownet_v1:" in refused(main, words, capsys)
    (tmp_path / "empty").mkdir()
    for main, words in commands(str(tmp_path / "empty"), "000000000", tmp_path):
        assert "no checkpoint in" in refused(main, words, capsys)
    for main, words in commands(str(tmp_path / "none"), "000000000", tmp_path):
        assert "expected a run folder, found nothing" in refused(main, words, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("code, message", [("00000000", "length=9 required, got 8"), ("000000003", "position 8")])
def test_a_wrong_code(tiny_run, tmp_path, capsys, code, message):
    for main, words in commands(tiny_run.folder, code, tmp_path)[:2]:
        line = refused(main, words, capsys)
        assert "CODE: " in line and message in line


def test_another_code_than_the_extracted_one(extracted, tmp_path, capsys):
    folder, code = extracted
    other = ("1" if code[0] == "0" else "0") + code[1:]
    line = refused(extract.main, [folder, other, str(tmp_path / "out")] + CPU, capsys)
    assert "value must be in {" + code[0] + "}, position 0" in line


def test_a_picture_of_63_pixels(tiny_run, tmp_path, capsys):
    frames = [str(tmp_path / f"{number}.png") for number in (0, 1)]
    for frame in frames:
        Image.fromarray(np.zeros((63, 80, 3), np.uint8)).save(frame)
    line = refused(
        predict.main, [tiny_run.folder, "000000000"] + frames + ["--out", str(tmp_path / "out")] + CPU, capsys
    )
    assert "0.png" in line and "expected frames of at least 64x64 pixels, found 80x63" in line
    assert not (tmp_path / "out").exists()


def test_a_damaged_picture(tiny_run, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = [
        tiny_run.folder,
        "000000000",
        str(tmp_path / "a.png"),
        str(tmp_path / "a.png"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert "a.png: expected a PNG, JPEG or PPM picture" in refused(predict.main, words + CPU, capsys)


def test_the_data_of_another_run(tiny_run, tmp_path, capsys):
    """Extraction re-estimates statistics on the run's own training samples, and on no others."""
    other = str(tmp_path / "other")
    shutil.copytree(tiny_run.data, other)
    with open(os.path.join(other, "FC2_test.txt"), "w") as handle:
        handle.write("8\n9\n")
    words = [tiny_run.folder, "000000000", str(tmp_path / "out"), "--base_path", other]
    assert "was trained on other samples" in refused(extract.main, words + CPU, capsys)
    with Supernet.load(tiny_run.folder, settings={"data.base_path": other}, other_data=True) as supernet:
        assert len(supernet.validation) == 2
