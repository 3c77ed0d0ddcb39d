"""Representative data faults through the real command line. The full table is in tests/data."""

import glob
import os
import struct

import pytest

from edgeflownas.engine.trainer import Trainer
from tests.reliability.lab import at_cycle, in_evaluation
from tests.reliability.snapshot import differences, snapshot


class Damaged:
    """Context, and action of a plant: a file of the data set is changed until the end of the context."""

    def __init__(self, path, change):
        self.path, self._change = path, change

    def __enter__(self):
        with open(self.path, "rb") as handle:
            self._sound = handle.read()
        return self

    def __call__(self, _trainer=None):
        os.unlink(self.path)
        content = self._change(self._sound)
        if content is not None:
            self._write(content)

    def __exit__(self, *unused):
        self._write(self._sound)

    def _write(self, content):
        with open(self.path, "wb") as handle:
            handle.write(content)


def nan(content):
    return content[:-4] + struct.pack("<f", float("nan"))


def flip(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 16]) + content[len(content) // 2 + 1 :]


def files(data, suffix):
    """All of a kind: training samples are the first six, validation samples the last three."""
    return sorted(glob.glob(os.path.join(data, "train", "*" + suffix)))


@pytest.mark.parametrize(
    "suffix, change, found",
    [
        ("-flow_01.flo", nan, "nan"),
        ("-img_1.png", flip, "CRC"),
        ("-img_0.png", lambda content: None, "No such file"),
        ("-flow_01.flo", lambda content: content[:-8], "found"),
    ],
    ids=["NaN", "flipped bit", "missing", "cut"],
)
@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_file_that_goes_bad_ends_the_run_by_name(lab, uninterrupted, tmp_path, suffix, change, found, where):
    with Damaged(files(lab.data, suffix)[2 if where == "training" else -1], change) as damage:
        plant = at_cycle(0, damage) if where == "training" else at_cycle(5, damage)
        outcome = lab.run(str(tmp_path), plants=[plant])
        assert outcome.code == 2
        assert damage.path + ": expected" in outcome.error and found in outcome.error
    if where == "evaluation":
        assert lab.run(str(tmp_path), "--resume").code == 0
        assert differences(snapshot(str(tmp_path)), uninterrupted) == []


def test_a_header_fault_is_found_before_the_graph_is_built(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "__init__", lambda *_: pytest.fail("the graph was built"))
    with Damaged(files(lab.data, "-flow_01.flo")[-1], lambda content: content[:-8]) as damage:
        damage()
        outcome = lab.run(str(tmp_path))
    assert outcome.code == 2 and damage.path + ": expected" in outcome.error


def test_verify_data_finds_what_headers_do_not_show(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "__init__", lambda *_: pytest.fail("the graph was built"))
    with Damaged(files(lab.data, "-img_1.png")[3], flip) as damage:
        damage()
        outcome = lab.run(str(tmp_path), "--verify_data")
    assert outcome.code == 2 and damage.path + ": expected" in outcome.error and "CRC" in outcome.error


def test_a_file_that_goes_bad_in_the_middle_of_an_evaluation(lab, uninterrupted, tmp_path):
    """The next evaluation reads it."""
    with Damaged(files(lab.data, "-flow_01.flo")[-2], nan) as damage:
        outcome = lab.run(str(tmp_path), plants=[in_evaluation(1, damage)])
        assert outcome.code == 2 and damage.path in outcome.error
    assert lab.run(str(tmp_path), "--resume").code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []
