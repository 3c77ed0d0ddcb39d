"""No failure in the report stops training; one line says how to write the report later."""

import os
import subprocess
import sys
from unittest import mock

import pytest

from edgeflownas.reporting import write
from tests.reliability import tiny
from tests.reliability.snapshot import differences, snapshot


class Own(Exception):
    """An exception type of an unknown library."""


@pytest.mark.parametrize(
    "error", [ValueError("bad\nbackend"), Own("x"), MemoryError(), AssertionError("y"), RecursionError()]
)
def test_no_failure_of_the_report_stops_training(lab, uninterrupted, tmp_path, error):
    def fail(folder):
        raise error

    outcome = lab.run(str(tmp_path), report=True, plants=[mock.patch.object(write, "write_report", fail)])
    assert outcome.code == 0 and "Traceback" not in outcome.stderr
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("no report")]
    assert len(lines) == tiny.EPOCHS + 1
    assert type(error).__name__ in lines[0] and f"python -m edgeflownas.report {tmp_path}" in lines[0]
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []
    assert "Traceback" in (tmp_path / "train.log").read_text()


def test_a_backend_that_is_not_there_breaks_nothing(data, tmp_path):
    command = [sys.executable, "-m", "edgeflownas.train_supernet"] + tiny.flags(data, tmp_path) + ["--max_epochs", "1"]
    report = [sys.executable, "-m", "edgeflownas.report", str(tmp_path)]
    notebooks = "module://matplotlib_inline.backend_inline"
    for words, backend in ((command, notebooks), (report, notebooks), (report, "Qt4Agg")):
        environment = dict(os.environ, MPLBACKEND=backend)
        done = subprocess.run(words, cwd=tiny.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 0 and b"no report" not in done.stderr, done.stderr
    assert os.path.exists(str(tmp_path / "supernet_training_report.md"))
