"""Runs the real command line many times in one process and builds the graph once, so that a run takes a second.

Everything of `train_supernet.main` and of `Trainer` runs as it is; only the constructors of graph and session give
what they
gave the first time. Before every run each variable is filled with NaN, so a value that is not restored cannot be lucky.
"""

import contextlib
import io
import logging
import os
import signal
from typing import NamedTuple
from unittest import mock

import numpy as np

from edgeflownas import train_supernet
from edgeflownas.engine import trainer as trainer_module
from edgeflownas.engine.trainer import Trainer
from edgeflownas.errors import run_cli
from tests.reliability import tiny

UNKNOWN_SOURCE = {"git_commit": "unknown", "git_dirty": None}
GRAPH_PARTS = ("train_pipeline", "evaluation_pipelines", "CycleGraph", "Scorer")


class Outcome(NamedTuple):
    """How one invocation ended."""

    code: int
    stderr: str

    @property
    def error(self):
        """The one line of a user error."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in self.stderr, self.stderr
        return lines[0]


class _Remembered:
    """A constructor whose n-th call in a run returns the same object as its n-th call in the first run."""

    def __init__(self, make):
        self.make, self.made, self.calls = make, [], 0

    def __call__(self, *args, **kwargs):
        if self.calls == len(self.made):
            self.made.append(self.make(*args, **kwargs))
        self.calls += 1
        return self.made[self.calls - 1]


class _TensorFlow:
    """TensorFlow, except the three names with which a trainer makes its graph and session."""

    def __init__(self, tf):
        self._tf = tf
        self.Session = _Remembered(self._session)
        self.reset_default_graph = _Remembered(tf.reset_default_graph)
        self.train = mock.Mock(wraps=tf.train, Saver=_Remembered(tf.train.Saver))

    def __getattr__(self, name):
        return getattr(self._tf, name)

    def _session(self, **kwargs):
        session = self._tf.Session(**kwargs)
        session.close = lambda: None  # the next run uses it
        return session


class Lab:
    """One graph for many runs of the tiny configuration on one data set."""

    def __init__(self, data):
        self.data = data
        self.tf = _TensorFlow(trainer_module.tf)
        self.parts = {name: _Remembered(getattr(trainer_module, name)) for name in GRAPH_PARTS}

    def run(self, output_dir, *words, plants=(), report=False, **changes):
        """`python -m edgeflownas.train_supernet` with the tiny flags, `words` and changed keys. Gives the `Outcome`."""
        argv = tiny.flags(self.data, output_dir, **changes) + list(words)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.patched())
            if not report:
                stack.enter_context(mock.patch.object(train_supernet, "_report", lambda folder: None))
            # What takes long and is the same every time.
            stack.enter_context(mock.patch("edgeflownas.run.provenance.source", lambda: (UNKNOWN_SOURCE, "")))
            stack.enter_context(mock.patch("edgeflownas.tfcompat.device_names", lambda: "CPU"))
            self._forget()
            for plant in plants:
                stack.enter_context(plant)
            return _outcome(argv)

    @contextlib.contextmanager
    def patched(self):
        """A context in which trainers share graph and session."""
        with contextlib.ExitStack() as stack:
            for name, part in dict(self.parts, tf=self.tf).items():
                stack.enter_context(mock.patch.object(trainer_module, name, part))
            yield

    def _forget(self):
        """Sets every variable of the session to NaN, integers to -1, and resets the counted calls."""
        remembered = list(self.parts.values()) + [self.tf.Session, self.tf.reset_default_graph, self.tf.train.Saver]
        for part in remembered:
            part.calls = 0
        if not self.tf.Session.made:
            return
        session = self.tf.Session.made[0]
        variables = self.parts["CycleGraph"].made[0].saved
        values = {
            variable.initializer.inputs[1]: np.full(
                variable.shape.as_list(), _garbage(variable), variable.dtype.as_numpy_dtype
            )
            for variable in variables
        }
        session.run([variable.initializer for variable in variables], values)


def _garbage(variable):
    return float("nan") if variable.dtype.is_floating else -1


def _outcome(argv):
    stderr, logger = io.StringIO(), logging.getLogger("edgeflownas")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    logger.propagate = False  # pytest listens at the root, and then Python's own way of showing a warning rests
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            run_cli(train_supernet.main, argv)
    except SystemExit as ended:
        code = ended.code
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
    assert before == {number: signal.getsignal(number) for number in before}, "a run leaves its signal handlers behind"
    return Outcome(code, stderr.getvalue())


# -- what happens in the middle of a run --


def at_cycle(step, action):
    """A plant: `action(trainer)` right before the cycle of this step."""
    real = Trainer._train_cycle

    def planted(self, epoch, position):
        if self.state.step == step:
            action(self)
        return real(self, epoch, position)

    return mock.patch.object(Trainer, "_train_cycle", planted)


def in_evaluation(epoch, action):
    """A plant: `action(trainer)` after the first validation batch of the evaluation of this epoch, counted from 1."""
    real = Trainer.score_pool

    def planted(self, stop=lambda: False):
        def evaluated(batches):
            if batches == 1 and self.state.evaluations + 1 == epoch:
                action(self)

        with mock.patch.object(self.progress, "evaluated", evaluated):
            return real(self, stop)

    return mock.patch.object(Trainer, "score_pool", planted)


def send(*numbers):
    """An action that sends these signals to this process."""

    def action(_trainer):
        for number in numbers:
            os.kill(os.getpid(), number)

    return action
