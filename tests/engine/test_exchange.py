"""The exchange of one process, the comparison of ranks, and what is said where Horovod cannot be used."""

import sys

import numpy as np
import pytest

from edgeflownas import config as configuration
from edgeflownas.engine.agreement import refuse_differences
from edgeflownas.engine.exchange import LOCAL, LocalExchange, connect
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import UserError


class Scripted(LocalExchange):
    """Rank 1 of three, which hear of each other what the test says."""

    rank, size = 1, 3

    def __init__(self, others):
        self._others = others

    def gather(self, values):
        return [self._others[0], values, self._others[1]]


def test_one_process_exchanges_nothing():
    tensors = [object(), object()]
    assert LOCAL.summed(tensors) is tensors
    np.testing.assert_array_equal(LOCAL.gather_rows([3, 0.1]), [[3, 0.1]])
    assert LOCAL.gather({"a": [1, None, "x"]}) == [{"a": [1, None, "x"]}]
    assert connect(configuration.load()[0]) is LOCAL


def test_texts_of_different_length_are_gathered_whole():
    """The sums over three ranks are made here, as `total` would."""

    class Third(LocalExchange):
        rank, size, sums = 2, 3, []

        def sum_over_ranks(self, values):
            matrix = np.array(values, np.float64)
            for rank, text in enumerate([b"[]", b'"abcdefghi"']):
                matrix[rank] = (
                    len(text) if matrix.shape[1] == 1 else np.pad(list(text), (0, 11 - len(text)), "constant")
                )
            return matrix

    assert Third().gather({"b": 1}) == [[], "abcdefghi", {"b": 1}]


def test_the_first_difference_is_named_with_both_values():
    facts = {"a": 1, "b": [2]}
    refuse_differences(Scripted([facts, dict(facts)]), dict(facts))
    with pytest.raises(UserError, match=r"the ranks differ in b: \[2\] on rank 0, None on rank 2"):
        refuse_differences(Scripted([facts, {"a": 1, "b": None}]), dict(facts))


def test_a_signal_of_a_shared_run_counts_once_all_know():
    stop = StopSignals()
    stop.shared = True
    stop._handle(15, None)
    assert (stop.received, stop.requested) == (15, False)
    stop.agree([0.0, 0.0])
    assert not stop.requested
    stop.agree([0.0, 10.0, 15.0])
    stop.agree([15.0, 0.0, 0.0])
    assert (stop.requested, stop.exit_code) == (True, 138)


def test_horovod_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    config, _ = configuration.load(None, {"runtime.distributed": "true", "train.micro_batch_size": 4})
    with pytest.raises(UserError, match="bash scripts/build_horovod.sh"):
        connect(config)


def test_ranks_need_micro_batches():
    with pytest.raises(UserError, match="runtime.distributed needs train.micro_batch_size"):
        configuration.load(None, {"runtime.distributed": "true"})
