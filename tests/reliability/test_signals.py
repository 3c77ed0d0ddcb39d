"""Signals outside the cycles: before training nothing is changed; a second Ctrl-C stops at once and loses no
commit."""

import os
import signal
from unittest import mock

import pytest

from edgeflownas import train_supernet
from edgeflownas.data import fc2_index
from edgeflownas.engine import trainer as trainer_module
from edgeflownas.engine.trainer import Trainer
from tests.reliability.lab import at_cycle, in_evaluation, send
from tests.reliability.snapshot import differences, snapshot


def in_data_check(*numbers):
    real = fc2_index.probe

    def probe(*arguments):
        os.kill(os.getpid(), numbers[0])
        return real(*arguments)

    return mock.patch.object(fc2_index, "probe", probe)


def in_graph_build(*numbers):
    real = Trainer.__init__

    def build(self, *arguments):
        send(*numbers)(None)
        real(self, *arguments)

    return mock.patch.object(Trainer, "__init__", build)


def contents(folder):
    """{path: bytes} of everything but the lock."""
    return {
        os.path.join(where, name): open(os.path.join(where, name), "rb").read()
        for where, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".lock")
    }


@pytest.mark.parametrize("plant", [in_data_check, in_graph_build])
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["fresh", "resume"])
def test_ahead_of_training_nothing_is_touched(lab, uninterrupted, tmp_path, plant, resume):
    folder = str(tmp_path)
    assert lab.run(folder, "--max_steps", "4").code == 0
    before = contents(folder)
    outcome = lab.run(folder, *resume, plants=[plant(signal.SIGTERM)])
    assert (outcome.code, outcome.error) == (
        143,
        "error: stopped by SIGTERM before training began; nothing was changed",
    )
    assert contents(folder) == before
    assert lab.run(folder, "--resume").code == 0
    assert differences(snapshot(folder), uninterrupted) == []


def test_a_second_interrupt_ahead_of_training_is_one_line(lab, tmp_path):
    outcome = lab.run(str(tmp_path), plants=[in_graph_build(signal.SIGINT, signal.SIGINT)])
    assert (outcome.code, outcome.stderr) == (130, "stopped\n")


@pytest.mark.parametrize("where, when, step", [(at_cycle, 4, 3), (in_evaluation, 2, 6)])
def test_a_second_interrupt_stops_at_once_and_loses_nothing_committed(lab, uninterrupted, tmp_path, where, when, step):
    outcome = lab.run(str(tmp_path), plants=[where(when, send(signal.SIGINT, signal.SIGINT))])
    assert outcome.code == 130 and "stopped at once" in outcome.stderr and "Traceback" not in outcome.stderr
    assert f"stopped at once; the checkpoint of step {step} is good" in outcome.stderr
    assert snapshot(str(tmp_path))["last state: step"] == str(step)  # the last whole epoch's
    assert lab.run(str(tmp_path), "--resume").code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []


@pytest.mark.parametrize("when", [4, 8])
def test_a_signal_in_a_commit_waits_for_its_end(lab, uninterrupted, tmp_path, when):
    real = Trainer.commit

    def commit(self, is_best):
        if self.state.step == when:
            os.kill(os.getpid(), signal.SIGUSR1)
        real(self, is_best)

    plants = [mock.patch.object(trainer_module.Trainer, "commit", commit)]
    outcome = lab.run(str(tmp_path), runtime__save_every_steps=2, plants=plants)
    assert outcome.code == 138 and f"after step {when}, committed" in outcome.stderr
    assert lab.run(str(tmp_path), "--resume").code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []


def test_the_exit_code_is_the_signals_even_after_the_last_step(lab, tmp_path):
    real = train_supernet.log.info
    seen = []

    def info(text, *values):
        if text.startswith("epoch") and values[0] == 3 and not seen:
            seen.append(os.kill(os.getpid(), signal.SIGTERM))
        real(text, *values)

    assert lab.run(str(tmp_path), plants=[mock.patch.object(train_supernet.log, "info", info)]).code == 143
    outcome = lab.run(str(tmp_path), "--resume")
    assert outcome.code == 0 and "nothing to do" in outcome.stderr
