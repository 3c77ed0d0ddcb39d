"""A value that is not finite stops the run before the weights change, and the last checkpoint stays good."""

import json
import os
from unittest import mock

import numpy as np
import pytest

from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.engine.trainer import Trainer
from tests.reliability.snapshot import differences, snapshot
from tests.reliability.tiny import STEPS_PER_EPOCH

STEP = 4


def in_batch(value, step=STEP):
    """A plant: one pixel of the flow of this step has this value."""
    real = CycleGraph.run

    def run(self, session, codes, images, flow, *rest, **named):
        if session.run(self.global_step) == step:
            flow = flow.copy()
            flow[1, 31, 37, 0] = value
        return real(self, session, codes, images, flow, *rest, **named)

    return mock.patch.object(CycleGraph, "run", run)


def in_gradient(value):
    """A plant: at step 4 one accumulated gradient has this value, while every loss is finite."""
    real = CycleGraph.apply

    def apply(self, session, lr):
        if session.run(self.global_step) == STEP:
            total = self.gradient_sums[0]
            wrong = np.full(total.shape.as_list(), value, np.float32)
            session.run(total.initializer, {total.initializer.inputs[1]: wrong})
        return real(self, session, lr)

    return mock.patch.object(CycleGraph, "apply", apply)


class Weights:
    """A plant: notes all variables right before step 4 and when the trainer closes."""

    def __init__(self):
        self.before = self.after = None

    def __call__(self):
        cycle, close = Trainer._train_cycle, Trainer.close

        def train(trainer, epoch, position):
            if trainer.state.step == STEP:
                self.before = trainer.session.run(trainer.graph.saved)
            return cycle(trainer, epoch, position)

        def end(trainer):
            self.after = trainer.session.run(trainer.graph.saved)
            return close(trainer)

        return mock.patch.multiple(Trainer, _train_cycle=train, close=end)


@pytest.mark.parametrize(
    "fault, words",
    [
        (
            in_batch(float("nan")),
            "loss is not finite",
        ),  # an infinite flow would be clipped to flow_clip like any large one
        (in_gradient(float("nan")), "gradient is not finite"),
        (in_gradient(float("-inf")), "gradient is not finite"),
    ],
    ids=["NaN in the batch", "NaN in the gradient", "infinity in the gradient"],
)
def test_not_finite_stops_before_the_weights_change(lab, uninterrupted, tmp_path, fault, words):
    weights, folder = Weights(), str(tmp_path)
    outcome = lab.run(folder, plants=[fault, weights()])
    assert outcome.code == 1
    assert all(word in outcome.error for word in (f"step {STEP}", words, "codes [[", "train/000000"))
    assert [one.tobytes() for one in weights.before] == [one.tobytes() for one in weights.after]
    with open(os.path.join(folder, "train_manifest.json"), encoding="utf-8") as handle:
        manifest = json.load(handle)
    assert manifest["status"] == "failed" and words in manifest["error"]
    assert lab.run(folder, "--resume").code == 0
    assert differences(snapshot(folder), uninterrupted) == []


def test_before_the_first_checkpoint_the_error_claims_none(lab, tmp_path):
    """The advice in the error works if followed literally."""
    early, late = str(tmp_path / "early"), str(tmp_path / "late")
    outcome = lab.run(early, plants=[in_batch(float("nan"), 1)])
    assert "there is no checkpoint yet" in outcome.error and "--resume" not in outcome.error
    assert outcome.error.endswith("or lower the learning rate with --lr")
    outcome = lab.run(late, plants=[in_batch(float("nan"))])
    assert f"the checkpoint of step {STEPS_PER_EPOCH} is good" in outcome.error
    advice = outcome.error.rsplit("with ", 1)[1].split()
    assert advice == "--lr and --resume --allow_changed train.lr".split()
    assert lab.run(late, "--resume", "--allow_changed", "train.lr", train__lr="0.25").code == 0


def test_the_error_names_codes_and_samples_of_that_very_step(lab, tmp_path):
    outcome = lab.run(str(tmp_path), plants=[in_batch(float("nan"))])
    whole = str(tmp_path / "whole")
    assert lab.run(whole).code == 0
    with open(os.path.join(whole, "debug_trace.jsonl")) as handle:
        (event,) = [event for event in map(json.loads, handle) if event["event"] == "cycle" and event["step"] == STEP]
    assert "codes {}".format(event["codes"]) in outcome.error
    assert "samples {}".format(", ".join(crop[0] for crop in event["batch"])) in outcome.error
