"""Memory and graph of a run are after many cycles and evaluations what they were early on. The long version: tests.torture."""
import gc

import numpy as np

from edgeflownas.engine.trainer import Trainer
from tests.reliability.lab import at_cycle
from tests.torture.growth import GROWTH_MIB, growth, measure

LEAKED = []


def test_a_run_does_not_grow(tmp_path):
    operations, mib = growth(measure(str(tmp_path), 240, 8))
    assert operations == 0
    assert mib < GROWTH_MIB


def test_the_measure_sees_a_leak(tmp_path, monkeypatch):
    """Four mebibytes per cycle, kept: more than what an earlier test may have left free."""
    real = Trainer._train_cycle

    def leaky(self, epoch, position):
        LEAKED.append(np.ones(2 ** 19))
        real(self, epoch, position)
    monkeypatch.setattr(Trainer, "_train_cycle", leaky)
    try:
        assert growth(measure(str(tmp_path), 64, 4))[1] > GROWTH_MIB
    finally:
        del LEAKED[:]
        gc.collect()


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
