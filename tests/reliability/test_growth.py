"""Memory and graph of a run do not grow over many cycles and evaluations. The long version:
tests.torture.

Each measurement has a process of its own: in one that has run tests before, a leak can hide in memory they left free.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from edgeflownas.engine.trainer import Trainer
from tests.reliability.lab import at_cycle
from tests.torture.growth import GROWTH_MIB, growth, measure


def measure_with_leak(folder, cycles, evaluations):
    """The same with four mebibytes kept per cycle."""
    real, kept = Trainer._train_cycle, []

    def leaky(self, epoch, position):
        kept.append(np.ones(2**19))
        real(self, epoch, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_cycle", leaky)
        return measure(folder, cycles, evaluations)


def in_new_process(function, *args):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def test_a_run_does_not_grow(tmp_path):
    operations, mib = growth(in_new_process(measure, str(tmp_path), 240, 8))
    assert operations == 0
    assert mib < GROWTH_MIB


def test_the_measure_sees_a_leak(tmp_path):
    assert growth(in_new_process(measure_with_leak, str(tmp_path), 64, 4))[1] > 8 * GROWTH_MIB


def test_nothing_can_be_added_to_the_graph_of_a_run(lab, tmp_path):
    outcome = []

    def add(trainer):
        with trainer.session.graph.as_default():
            from edgeflownas.tfcompat import tf

            try:
                tf.constant(1.0)
            except RuntimeError as error:
                outcome.append(str(error))

    assert lab.run(str(tmp_path), "--max_steps", "1", plants=[at_cycle(0, add)]).code == 0
    assert len(outcome) == 1 and "finalized" in outcome[0]
