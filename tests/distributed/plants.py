"""What happens to one rank in the middle of a run, by name: each gives a patch for `Lab.run`."""

import errno
import os
import signal
import threading
import time
from unittest import mock

from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.engine.exchange import HorovodExchange
from edgeflownas.run.checkpoint import CheckpointStore
from tests.reliability import lab


def signal_at_cycle(step, number):
    return lab.at_cycle(step, lab.send(number))


def signal_in_evaluation(epoch, number):
    return lab.in_evaluation(epoch, lab.send(number))


def stall_at_cycle(step, seconds):
    return lab.at_cycle(step, lambda trainer: time.sleep(seconds))


def kill_in_exchange(number):
    """Killed while the n-th exchange runs."""
    real, calls = HorovodExchange.run, []

    def run(self, *arguments):
        calls.append(None)
        if len(calls) == number:
            threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGKILL)).start()
            time.sleep(0.001)
        return real(self, *arguments)

    return mock.patch.object(HorovodExchange, "run", run)


def kill_in_commit(number):
    """Killed in the n-th commit, when the model's files are written and the link is not swapped."""
    return _in_commit(number, lambda: os.kill(os.getpid(), signal.SIGKILL))


def full_disk(number):
    """The disk is full at the n-th commit."""

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return _in_commit(number, fail)


def _in_commit(number, action):
    real, calls = CheckpointStore._point_to, []

    def point_to(self, generation):
        calls.append(None)
        if len(calls) == number:
            action()
        return real(self, generation)

    return mock.patch.object(CheckpointStore, "_point_to", point_to)


def nan_at_cycle(step):
    """This rank's losses of the cycle are NaN."""
    real, calls = CycleGraph._accumulate_all, []

    def accumulate(self, *arguments):
        losses, backward, seen = real(self, *arguments)
        calls.append(None)
        if len(calls) == step + 1:
            losses = [[float("nan") for _ in path] for path in losses]
        return losses, backward, seen

    return mock.patch.object(CycleGraph, "_accumulate_all", accumulate)
