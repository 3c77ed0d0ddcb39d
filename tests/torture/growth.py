"""A long run must not grow: neither the graph nor the memory of the process."""

import os
from unittest import mock

from edgeflownas.engine.trainer import Trainer
from tests.reliability import tiny
from tests.reliability.lab import Lab

GROWTH_MIB = 16.0  # allowed; one leaked batch per cycle would be hundreds


def resident_mib():
    """What the process holds in memory now."""
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2.0**20


def measure(folder, cycles, evaluations):
    """Trains `cycles` cycles with `evaluations` evaluations; gives [(operations of the graph, MiB)] after each
    evaluation."""
    data, seen, real = tiny.make_data(folder, 2 * cycles // evaluations), [], Trainer._evaluate

    def evaluate(self, stop):
        done = real(self, stop)
        seen.append((len(self.session.graph.get_operations()), resident_mib()))
        return done

    outcome = Lab(data).run(
        os.path.join(folder, "run"),
        "--unsigned",
        train__num_epochs=evaluations,
        eval__patience=10**6,
        plants=[mock.patch.object(Trainer, "_evaluate", evaluate)],
    )
    assert outcome.code == 0 and len(seen) == evaluations, outcome.stderr
    return seen


def growth(seen):
    """(operations, MiB) by which the run has grown from the end of its first quarter to its end."""
    first, last = seen[max(1, len(seen) // 4) - 1], seen[-1]
    return last[0] - first[0], last[1] - first[1]
