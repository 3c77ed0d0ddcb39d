"""The doctor's look at several processes: with ranks that say what a test wants, and without Horovod."""

import sys

import numpy as np
import pytest

from edgeflownas import config as configuration
from edgeflownas import doctor
from edgeflownas.command_line import parse_train
from edgeflownas.diagnosis import ranks
from edgeflownas.engine import exchange
from edgeflownas.errors import UserError
from edgeflownas.tfcompat import tf

FLOATS = 1500


class Three(exchange.LocalExchange):
    """Rank `rank` of three; the others say what this one says, but for `others`; a sum is off by `wrong`."""

    def __init__(self, rank=0, others=(), wrong=0.0):
        self.rank, self.size = rank, 3
        self.others, self.wrong, self.closed = dict(others), wrong, False

    def gather(self, values):
        return [values, dict(values, **self.others), values]

    def sum_over_ranks(self, values):
        return np.asarray([6.0 + self.wrong])

    def close(self):
        self.closed = True


@pytest.fixture
def found(tiny_data, tmp_path, monkeypatch):
    """`found(joined)`: the findings where Horovod connects so, as "level what: found; advice"."""
    monkeypatch.setattr(ranks, "supernet_parameters", lambda layers: FLOATS)

    def findings(joined, built_for=tf.__version__, distributed=True):
        monkeypatch.setattr(exchange, "connect", lambda config: joined)
        monkeypatch.setattr(exchange, "build", lambda: exchange.Build("0.28.1", built_for, ["Gloo", "MPI"]))
        values = {"data.base_path": tiny_data, "train.batch_size": 6, "train.micro_batch_size": 1}
        values.update({"runtime.distributed": distributed, "runtime.output_dir": str(tmp_path)})
        examined = doctor.Examined(configuration.load(None, values)[0], False, parse_train([])[2])
        lines = [f"{each.level} {each.what}: {each.found}; {each.advice}" for each in ranks.check_ranks(examined)]
        assert not lines or examined.rank == joined.rank
        return lines

    return findings


def test_nothing_is_said_of_ranks_that_nobody_wants(found):
    assert found(Three(), distributed=False) == []


def test_ranks_that_agree(found):
    joined = Three(rank=2)
    build, agreement, seconds = found(joined)
    assert build == f"ok Horovod: 0.28.1, built for TensorFlow {tf.__version__}, with Gloo, MPI; "
    assert agreement.startswith("ok ranks: 3 ranks meet and agree in edgeflownas, python, numpy, tensorflow, source")
    assert "configuration, data" in agreement
    assert seconds.startswith("ok exchange: 0.0") and "0.0 M floats in 150 tensors" in seconds
    assert joined.closed


def test_what_is_timed_is_summed():
    """TensorFlow leaves out an operation without side effects whose result nobody reads."""
    summed = []

    class Counting(exchange.LocalExchange):
        def summed(self, tensors):
            counted = [tf.py_func(lambda x: summed.append(1) or x, [x], tf.float32, stateful=False) for x in tensors]
            for tensor, original in zip(counted, tensors):
                tensor.set_shape(original.shape)
            return counted

    assert len(ranks.exchange_seconds(Counting(), FLOATS, 2)) == 2
    assert len(summed) == 3 * ranks.TENSORS


def test_ranks_that_differ_are_named(found):
    lines = found(Three(others={"source": "older", "data": "elsewhere"}))
    assert [line.split(";")[0].split(": rank 0")[0] for line in lines[1:3]] == [
        "FAIL ranks: they differ in data", "FAIL ranks: they differ in source",
    ]  # fmt: skip
    assert "rank 1: elsewhere" in lines[1]


def test_a_sum_that_is_wrong_fails(found):
    (line,) = found(Three(wrong=1.0))[1:]
    assert line.startswith("FAIL ranks: 3 ranks meet, but a sum over them is wrong") and "build_horovod.sh" in line


def test_a_build_for_another_tensorflow_fails(found):
    line = found(Three(), built_for="1.14.0")[0]
    assert line.startswith("FAIL Horovod: ") and "built for TensorFlow 1.14.0" in line
    assert f"but TensorFlow {tf.__version__} is installed; build it" in line


@pytest.mark.parametrize(
    "program, words",
    [
        (
            "echo '[1]<stderr>:error: no network'; echo more; exit 1",
            "two local ranks failed: [1]<stderr>:error: no net",
        ),
        ("exit 0", "two local ranks failed: they say nothing"),
    ],
)
def test_two_local_ranks_that_fail(found, tmp_path, monkeypatch, program, words):
    launcher = tmp_path / "horovodrun"
    launcher.write_text("#!/bin/sh\n" + program + "\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(ranks, "launcher", lambda: str(launcher))
    _, named, failed = found(exchange.LocalExchange())
    assert named == f"ok launcher: {launcher}; " and failed.startswith("FAIL ranks: " + words)


def test_no_launcher_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no horovodrun"):
        ranks.launcher()
    (tmp_path / "horovodrun").write_text("")
    assert ranks.launcher() == str(tmp_path / "horovodrun")


def test_without_horovod_the_doctor_says_how_to_build_it(tiny_data, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "horovod"] + ["horovod"]:
        monkeypatch.setitem(sys.modules, name, None)
    values = {"runtime.distributed": True, "train.micro_batch_size": 1, "data.base_path": tiny_data}
    examined = doctor.Examined(configuration.load(None, values)[0], False, parse_train([])[2])
    (finding,) = ranks.check_ranks(examined)
    assert finding.level == "FAIL" and "bash scripts/build_horovod.sh" in finding.found


def test_the_other_ranks_leave_the_rest_to_the_first(monkeypatch, capsys, tiny_data):
    """They look at their own TensorFlow and at the ranks, and are silent about what all share."""

    def joins(examined):
        examined.rank = 1
        return iter(())

    monkeypatch.setattr(doctor, "OF_EACH_RANK", (joins,))
    monkeypatch.setattr(doctor, "CHECKS", (joins, doctor.check_data))
    assert doctor.main(["--base_path", tiny_data, "--gpu_device", "-1"]) == 0
    assert capsys.readouterr().out == ""
