"""The state on disk in the middle of an evaluation: a power cut there loses the evaluation, but no training."""

import shutil
from unittest import mock

import pytest

from edgeflownas.checks.check_manifest import run_checks
from edgeflownas.engine.trainer import Trainer
from tests.reliability.lab import in_evaluation
from tests.reliability.snapshot import differences, snapshot
from tests.reliability.tiny import EPOCHS, STEPS_PER_EPOCH


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_power_cut_during_an_evaluation_loses_no_training(lab, uninterrupted, tmp_path, epoch):
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")

    def copy(trainer):
        shutil.copytree(whole, cut, symlinks=True)

    assert lab.run(whole, plants=[in_evaluation(epoch, copy)]).code == 0
    assert differences(snapshot(whole), uninterrupted) == []
    failed = [outcome for outcome in run_checks(cut + "/train_manifest.json") if not outcome.passed]
    # The lab writes no report and knows no commit.
    assert {outcome.name for outcome in failed} == {"manifest: git commit", "manifest: fields", "folder: files"}
    trained, real = [], Trainer._train_cycle

    def train(self, *arguments):
        trained.append(self.state.step)
        real(self, *arguments)

    assert lab.run(cut, "--resume", plants=[mock.patch.object(Trainer, "_train_cycle", train)]).code == 0
    assert trained == list(range(epoch * STEPS_PER_EPOCH, EPOCHS * STEPS_PER_EPOCH))
    assert differences(snapshot(cut), uninterrupted) == []
