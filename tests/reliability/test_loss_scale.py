"""Mixed precision's loss scale: a gradient that overflows costs no cycle, and a resume goes on with the scale
exactly."""

import os
import signal
from unittest import mock

import pytest

from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.errors import GradientNotFinite
from edgeflownas.run.checkpoint import CheckpointStore
from tests.reliability.lab import Lab, at_cycle, send
from tests.reliability.snapshot import differences, snapshot

FITS = 2.0**12


@pytest.fixture(scope="module")
def amp_lab(data):
    """Runs with --amp, which is another graph."""
    return Lab(data)


def overflowing():
    """A plant: from step 2 on, gradients overflow unless the scale is 2^12 or less (a CPU computes in float32)."""
    real = CycleGraph.run

    def run(self, session, codes, images, flow, lr, digest, scale, signal):
        if session.run(self.global_step) >= 2 and scale > FITS:
            raise GradientNotFinite("the gradient is not finite")
        return real(self, session, codes, images, flow, lr, digest, scale, signal)

    return mock.patch.object(CycleGraph, "run", run)


def last_scale(folder):
    return CheckpointStore(os.path.join(folder, "checkpoints")).load("last").state["loss_scale"]


@pytest.fixture(scope="module")
def calm(amp_lab, tmp_path_factory):
    """The snapshot of a run in which nothing overflowed."""
    folder = str(tmp_path_factory.mktemp("calm"))
    assert amp_lab.run(folder, "--amp").code == 0
    assert last_scale(folder) == {"value": 2.0**15, "fitted": 9}
    return snapshot(folder)


def test_an_overflow_costs_no_cycle_and_changes_no_bit(amp_lab, calm, tmp_path):
    """A CPU computes in float32, which is exact under the scale."""
    folder = str(tmp_path)
    outcome = amp_lab.run(folder, "--amp", plants=[overflowing()])
    assert outcome.code == 0, outcome.stderr
    assert "step 2: the gradient overflowed; again with loss scale 4096" in outcome.stderr
    assert "TensorFlow sees no GPU: --amp" in outcome.stderr
    assert last_scale(folder) == {"value": FITS, "fitted": 7}
    assert differences(snapshot(folder), calm) == ["best state: loss_scale", "last state: loss_scale"]


def test_a_resume_goes_on_with_the_scale(amp_lab, tmp_path):
    whole, stopped = str(tmp_path / "whole"), str(tmp_path / "stopped")
    assert amp_lab.run(whole, "--amp", plants=[overflowing()]).code == 0
    assert amp_lab.run(stopped, "--amp", plants=[overflowing(), at_cycle(4, send(signal.SIGTERM))]).code == 143
    assert last_scale(stopped) == {"value": FITS, "fitted": 3}
    resumed = amp_lab.run(stopped, "--amp", "--resume", plants=[overflowing()])
    assert resumed.code == 0 and "overflowed" not in resumed.stderr
    assert differences(snapshot(stopped), snapshot(whole)) == []


def test_a_gradient_that_no_scale_helps_stops_the_run(amp_lab, tmp_path):
    never = mock.patch.object(
        CycleGraph, "apply", mock.Mock(side_effect=GradientNotFinite("the gradient is not finite"))
    )
    outcome = amp_lab.run(str(tmp_path), "--amp", plants=[never])
    assert outcome.code == 1 and "step 0: the gradient is not finite; codes [[" in outcome.error
    assert "again with loss scale 1\n" in outcome.stderr


def test_mixed_precision_may_begin_in_the_middle_of_a_run_if_accepted(lab, amp_lab, tmp_path):
    folder = str(tmp_path)
    assert lab.run(folder, plants=[at_cycle(3, send(signal.SIGTERM))]).code == 143
    outcome = amp_lab.run(folder, "--amp", "--resume")
    assert outcome.code == 2 and "train.amp was False, is True" in outcome.error
    assert amp_lab.run(folder, "--amp", "--resume", "--allow_changed", "train.amp").code == 0
    assert last_scale(folder) == {"value": 2.0**15, "fitted": 5}
