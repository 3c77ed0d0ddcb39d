"""Which codes go through the network together: every code once, groups that are balanced, no more fillers than pay."""

import numpy as np
import pytest

from edgeflownas.nas.random_codes import random_codes
from edgeflownas.scoring.grouping import FUSED, MOST_FILLERS, groups
from tests.nas.nas_spaces import V1, V2

SPACES = pytest.mark.parametrize("space", [V1, V2], ids=lambda space: space.name)


def scattered(space, count, seed=0):
    """Distinct codes without any balance, int32 [count, blocks]."""
    numbers = np.random.RandomState(seed).permutation(space.size)[:count]
    return np.stack(np.unravel_index(numbers, space.num_options), axis=1).astype(np.int32)


@SPACES
@pytest.mark.parametrize("count", [1, 12, 50, 211])
def test_every_code_once_and_fused_groups_use_every_option_equally_often(space, count):
    codes = scattered(space, count)
    found = list(groups(codes, space))
    assert sorted(p for group in found for p in group.positions) == list(range(count))
    for group in found:
        wanted = len(group.positions)
        assert np.array_equal(group.codes[:wanted], codes[group.positions])
        if len(group.codes) == 1:
            continue
        assert len(group.codes) == FUSED and FUSED - wanted <= MOST_FILLERS
        for column, options in zip(group.codes.T, space.num_options):
            assert np.bincount(column).tolist() == [FUSED // options] * options


@SPACES
def test_random_codes_need_no_filler(space):
    found = list(groups(random_codes(3, 50, space), space))
    assert [len(group.positions) for group in found[:4]] == [FUSED] * 4
    assert np.array_equal(np.concatenate([group.positions for group in found]), np.arange(50)), "in their order"
    assert all(len(group.codes) == len(group.positions) for group in found)


def test_most_of_a_long_list_is_fused():
    found = list(groups(scattered(V1, 500), V1))
    assert sum(len(group.positions) for group in found if len(group.codes) == FUSED) > 400


def test_codes_that_share_an_option_go_alone():
    codes = scattered(V1, 40)
    codes[:, 2] = 1
    assert [len(group.codes) for group in groups(codes, V1)] == [1] * 40


def test_a_narrowed_space_has_no_groups():
    code = (0, 1, 2, 0, 0, 1, 2, 1, 0)
    found = list(groups(np.array([code] * 12, np.int32), V1.narrowed(code)))
    assert [len(group.codes) for group in found] == [1] * 12


def test_no_code_no_group():
    assert list(groups(np.zeros((0, 9), np.int32), V1)) == []
