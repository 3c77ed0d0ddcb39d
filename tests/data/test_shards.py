"""Shards of training batches and of evaluations are disjoint and complete, whatever the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflownas.data.shards import WHOLE, Shard

SMALL = st.integers(1, 9)


@given(ranks=SMALL, part=SMALL, batches=st.integers(0, 7), seed=st.randoms(use_true_random=False))
def test_the_parts_of_every_batch_are_the_batch(ranks, part, batches, seed):
    batch = ranks * part
    items = seed.sample(range(10**6), batches * batch)
    shares = [Shard(rank, ranks).of_batches(items, batch) for rank in range(ranks)]
    assert [len(share) for share in shares] == [batches * part] * ranks
    for number in range(batches):
        parts = [share[number * part : (number + 1) * part] for share in shares]
        assert sum(parts, []) == items[number * batch : (number + 1) * batch]


@given(ranks=SMALL, batches=st.integers(1, 30))
def test_every_batch_of_an_evaluation_is_read_once_in_as_many_rounds(ranks, batches):
    """Also with fewer batches than ranks."""
    rounds = [Shard(rank, ranks).rounds(batches) for rank in range(ranks)]
    assert {len(turns) for turns in rounds} == {-(-batches // ranks)}
    read = [batch for turns in zip(*rounds) for batch in turns]
    assert read[:batches] == list(range(batches))
    assert read[batches:] == [None] * (len(read) - batches)


def test_one_process_reads_everything():
    assert WHOLE.of_batches([3, 1, 2, 0], 2) == [3, 1, 2, 0]
    assert WHOLE.rounds(3) == [0, 1, 2]


def test_a_batch_without_equal_parts_is_refused():
    with pytest.raises(ValueError, match="no 2 equal parts"):
        Shard(0, 2).of_batches([1, 2, 3], 3)
