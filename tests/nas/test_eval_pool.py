"""The evaluation pool: distinct codes, every option equally often, and blocks confounded as little as exchanges
reach."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeflownas.errors import UserError
from edgeflownas.nas import eval_pool
from edgeflownas.nas.eval_pool import build_pool, pool_design
from edgeflownas.nas.search_space import Block, SearchSpace
from tests.nas.nas_spaces import MIXED, SINGLE, V1, V2, random_spaces

# Recorded on both stacks; a change of any of them changes what new runs score.
POOL_OF_42 = """221101011 200221002 100012111 010101120 202011220 021212122
                111000022 022022000 120200210 001120201 212210101 112122212""".split()
V2_POOL_OF_42 = """21002110001 21101201100 12220001001 11021011010 00110111000 02101210011
                   11110100111 00021000101 22220210110 20212000010 02002101110 10212211101""".split()

few = settings(max_examples=25)  # a pool of a dozen codes takes half a second
SEEDS = st.integers(0, 2**32 - 1)


def digits(pool):
    return ["".join(map(str, code)) for code in pool]


def squared_v(one, other):
    """Cramer's V of two columns, squared, as a textbook has it: chi-square over size and smaller margin."""
    rows, columns = sorted(set(one)), sorted(set(other))
    if min(len(rows), len(columns)) < 2:
        return 0.0
    chi_square = 0.0
    for a in rows:
        for b in columns:
            expected = np.mean(one == a) * np.sum(other == b)
            chi_square += (np.sum((one == a) & (other == b)) - expected) ** 2 / expected
    return chi_square / len(one) / (min(len(rows), len(columns)) - 1)


def sum_of_squared_v(table):
    blocks = range(table.shape[1])
    return sum(squared_v(table[:, a], table[:, b]) for a in blocks for b in blocks if a < b)


def check_pool(pool, size, space):
    assert pool.shape == (size, len(space.blocks)) and pool.dtype == np.int32
    assert len({tuple(code) for code in pool}) == size
    for column, block in zip(pool.T, space.blocks):
        uses = [int(np.sum(column == value)) for value in block.values]
        assert uses == [size // len(block.values)] * len(block.values)


@few
@given(seed=SEEDS, space=random_spaces(most_blocks=8), cycles=st.integers(1, 3))
def test_a_pool_of_any_space_is_balanced_distinct_and_a_pure_function(seed, space, cycles):
    size = cycles * space.num_paths
    assume(size <= min(space.size, 24))
    pool = build_pool(seed, size, space)
    check_pool(pool, size, space)
    assert np.array_equal(pool, build_pool(seed, size, space))


@few
@given(seed=SEEDS, space=random_spaces(most_blocks=8))
def test_exchanges_never_confound_blocks_more_unless_they_part_equal_codes(seed, space):
    size = space.num_paths
    assume(size <= space.size)
    for start in range(2):
        table = eval_pool._balanced_table(seed, start, size, space)
        end = eval_pool._exchange(table, space)
        for column in range(table.shape[1]):
            assert sorted(end[:, column]) == sorted(table[:, column]), "an exchange keeps a column's entries"
        assert eval_pool._repeats(end) <= eval_pool._repeats(table)
        if eval_pool._repeats(table) == 0:
            assert sum_of_squared_v(end) <= sum_of_squared_v(table) + 1e-9


@pytest.mark.parametrize("space", [V1, V2, MIXED], ids=["v1", "v2", "mixed"])
def test_the_sum_is_below_that_of_all_start_tables(space):
    for seed in (0, 42):
        starts = [eval_pool._balanced_table(seed, start, 12, space) for start in range(24)]
        pool = build_pool(seed, 12, space)
        assert sum_of_squared_v(pool) < min(map(sum_of_squared_v, starts))


@few
@given(seed=SEEDS, space=random_spaces(most_blocks=4), column=st.integers(0, 3))
def test_the_gain_of_an_exchange_is_what_the_textbook_gives(seed, space, column):
    """Makes every exchange of two entries of a column and measures its gain."""
    size = min(2 * space.num_paths, 12) // space.num_paths * space.num_paths
    table, column = eval_pool._balanced_table(seed, 0, size, space), column % len(space.blocks)
    gains, before = eval_pool._gains(table, column, space), sum_of_squared_v(table)
    for i in range(size):
        for j in range(size):
            exchanged = table.copy()
            exchanged[[i, j], column] = exchanged[[j, i], column]
            assert gains[i, j] == pytest.approx(sum_of_squared_v(exchanged) - before, abs=1e-9)


@pytest.mark.parametrize("space", [V1, V2], ids=["v1", "v2"])
def test_at_the_end_no_exchange_helps(space):
    pool = build_pool(3, 12, space)
    for column in range(len(space.blocks)):
        gains = eval_pool._gains(pool, column, space)
        for i, j in np.argwhere(gains < -1e-9):
            exchanged = pool.copy()
            exchanged[[i, j], column] = exchanged[[j, i], column]
            assert eval_pool._repeats(exchanged), "the one reason to leave a better exchange out"


def test_the_recorded_pools():
    assert digits(build_pool(42, 12, V1)) == POOL_OF_42
    pool = build_pool(42, 12, V2)
    check_pool(pool, 12, V2)
    assert digits(pool) == V2_POOL_OF_42


@pytest.mark.parametrize("seed", [0, 1, 42, 1234, 2**32 - 1])
def test_a_pool_of_twelve_separates_the_blocks(seed):
    design = pool_design(build_pool(seed, 12, V1), V1)
    assert design.largest_v <= 0.5 and design.sum_of_squared_v <= 3.5
    assert design.option_pairs == 324 and design.missing_pairs <= 19


def test_design_figures_are_the_textbook_s():
    pool = build_pool(7, 12, V2)
    pairs = [(a, b) for a in range(11) for b in range(11) if a < b]
    design = pool_design(pool, V2)
    assert design.largest_v == pytest.approx(max(squared_v(pool[:, a], pool[:, b]) for a, b in pairs) ** 0.5)
    assert design.sum_of_squared_v == pytest.approx(sum_of_squared_v(pool))
    there = sum(len({(code[a], code[b]) for code in pool}) for a, b in pairs)
    assert (design.option_pairs, design.missing_pairs) == (355, 355 - there)


def test_two_blocks_that_follow_each_other_are_wholly_confounded():
    space = SearchSpace("two", MIXED.blocks[0:1] + MIXED.blocks[2:3])
    assert pool_design(np.array([[0, 1], [1, 2], [2, 0]], np.int32), space) == (1.0, 1.0, 9, 6)
    every = np.array([(a, b) for a in range(3) for b in range(3)], np.int32)
    assert pool_design(every, space) == (0.0, 0.0, 9, 0)


@pytest.mark.parametrize("options", [(3, 3), (3, 2), (4, 2), (2, 2, 2), (4, 1, 3)], ids=str)
def test_all_codes_of_a_space_are_a_pool(options):
    space = SearchSpace("small", tuple(Block(f"B{i}", "depth", tuple(range(n))) for i, n in enumerate(options)))
    for seed in range(5):
        check_pool(build_pool(seed, space.size, space), space.size, space)


def test_a_pool_takes_no_time():
    """Well under a second on a quiet machine; processor time, because others may use it too."""
    for size in (12, 24, 48, 120):
        started = time.process_time()
        build_pool(42, size, V1)
        assert time.process_time() - started < 2.5


def test_the_pool_of_one_code_is_that_code():
    code = (0, 0, 0, 0, 2, 2, 2, 2, 2)
    assert build_pool(42, 1, V1.narrowed(code)).tolist() == [list(code)]
    assert pool_design(np.array([code]), V1.narrowed(code)) == (0.0, 0.0, 0, 0)


@pytest.mark.parametrize("size", [-3, 0, 1, 2, 4, 10, 13])
def test_a_size_that_is_no_multiple_of_a_cycle_is_refused(size):
    with pytest.raises(UserError) as caught:
        build_pool(42, size, V1)
    assert str(caught.value) == (
        f"eval.pool_size: expected a positive multiple of 3, the paths of a fair cycle, found {size}"
    )


def test_more_codes_than_the_space_has_are_refused():
    assert build_pool(42, 3, SINGLE).shape == (3, 1)
    for size in (6, 3 * 10**15):
        with pytest.raises(UserError) as caught:
            build_pool(42, size, SINGLE)
        assert str(caught.value) == (
            f"eval.pool_size: there are no {size} distinct codes with equally many of each option among the "
            "3 subnets of single; choose a smaller pool"
        )
