"""Negative controls: with the restoring of any one part of the state taken away, the comparison of `test_stops.py`
goes red."""

import signal
from unittest import mock

import pytest

from edgeflownas.data.pipeline import TrainPipeline
from edgeflownas.engine import trainer as trainer_module
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.engine.run_state import EpochSums, RunState
from edgeflownas.engine.trainer import Trainer
from edgeflownas.nas.fair_sampler import FairnessCounts
from tests.nas.nas_spaces import V1
from tests.reliability.lab import at_cycle, send
from tests.reliability.snapshot import differences, snapshot

STOP = 5  # within the second epoch, at its last cycle: one evaluation is done, the sums hold two cycles


def state_without(**values):
    """A resume whose state has these values instead of the stored ones."""
    real = RunState.from_dict.__func__
    return mock.patch.object(RunState, "from_dict", classmethod(lambda cls, *stored: _with(real(cls, *stored), values)))


def _with(state, values):
    for name, value in values.items():
        setattr(state, name, value())
    return state


def tensors_without(chosen):
    """A resume that leaves these variables at their first values."""
    real = Trainer.resume

    def resume(self, generation, state):
        real(self, generation, state)
        lost = [variable for variable in self.graph.saved if chosen(variable.name)]
        assert lost
        self.session.run(
            [variable.initializer for variable in lost],
            {
                variable.initializer.inputs[1]: [0.0] * variable.shape.as_list()[0]
                for variable in lost
                if variable.shape.ndims == 1
            },
        )

    return mock.patch.object(Trainer, "resume", resume)


def sampler_restarts():
    real, offset = trainer_module.fair_cycle, []

    def draw(seed, step, space):
        offset.append(step)
        return real(seed, step - offset[0], space)

    return mock.patch.object(trainer_module, "fair_cycle", draw)


def epoch_restarts():
    real = TrainPipeline.start_epoch
    return mock.patch.object(
        TrainPipeline, "start_epoch", lambda self, session, epoch, position=0: real(self, session, epoch, 0)
    )


def first_lr():
    real, first = trainer_module.cosine_lr, []

    def lr(step, value, total):
        first.append(step)
        return real(step - first[0], value, total)

    return mock.patch.object(trainer_module, "cosine_lr", lr)


CONTROLS = {  # what is not restored: (the fault, a part of the run in which that must show)
    "first moments": (
        lambda: tensors_without(lambda name: name.endswith("/Adam:0") and "beta" in name),
        "last tensors",
    ),
    "second moments": (
        lambda: tensors_without(lambda name: name.endswith("/Adam_1:0") and "gamma" in name),
        "last tensors",
    ),
    "moving averages": (lambda: tensors_without(lambda name: name.endswith("/moving_mean:0")), "last tensors"),
    "sums of the epoch": (lambda: state_without(sums=EpochSums), "eval_epe_history.csv"),
    "early stop": (lambda: state_without(early_stop=lambda: EarlyStop(15, 0.002)), "eval_epe_history.csv"),
    "best": (lambda: state_without(best=lambda: None), "eval_epe_history.csv"),
    "fairness counts": (lambda: state_without(fairness=lambda: FairnessCounts(V1)), "fairness_counts.json"),
    "sampler's step": (sampler_restarts, "debug_trace.jsonl"),
    "place in the epoch": (epoch_restarts, "debug_trace.jsonl"),
    "step of the learning rate": (first_lr, "train_steps.csv"),
}


@pytest.mark.parametrize("part", CONTROLS)
def test_what_is_not_restored_is_seen(lab, uninterrupted, tmp_path, part):
    fault, shows_in = CONTROLS[part]
    assert lab.run(str(tmp_path), plants=[at_cycle(STOP - 1, send(signal.SIGTERM))]).code == 143
    outcome = lab.run(str(tmp_path), "--resume", plants=[fault()])
    assert outcome.code == 0, outcome.stderr
    assert shows_in in differences(snapshot(str(tmp_path)), uninterrupted)


def test_a_step_that_is_not_restored_ends_the_run(lab, tmp_path):
    assert lab.run(str(tmp_path), plants=[at_cycle(STOP - 1, send(signal.SIGTERM))]).code == 143
    outcome = lab.run(str(tmp_path), "--resume", plants=[state_without(step=lambda: 3)])
    assert outcome.code == 1 and "the optimizer counts 6 steps" in outcome.error


def test_rows_after_the_checkpoint_that_are_not_cut_are_seen(lab, uninterrupted, tmp_path):
    """Two SIGINTs stop the run at once, so no checkpoint covers the rows of cycles 3 and 4."""
    fault = mock.patch.object(trainer_module.Records, "cut_back", lambda self, lengths: None)
    for name, plants, same in (("sound", [], True), ("faulty", [fault], False)):
        folder = str(tmp_path / name)
        assert lab.run(folder, plants=[at_cycle(STOP, send(signal.SIGINT, signal.SIGINT))]).code == 130
        assert lab.run(folder, "--resume", plants=plants).code == 0
        assert ("train_steps.csv" in differences(snapshot(folder), uninterrupted)) != same


def test_a_checkpoint_that_does_not_know_the_lengths_ends_the_run(lab, tmp_path):
    folder = str(tmp_path)
    assert lab.run(folder, plants=[at_cycle(STOP - 1, send(signal.SIGTERM))]).code == 143
    before = snapshot(folder)
    outcome = lab.run(folder, "--resume", plants=[state_without(lengths=dict)])
    assert outcome.code == 2 and "no line ends at byte 0" in outcome.error
    assert not {name for name in differences(snapshot(folder), before) if name.endswith(".csv")}
