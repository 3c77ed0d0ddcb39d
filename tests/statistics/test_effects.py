"""Effects of options: planted effects are found, intervals cover, and false claims are as rare as promised."""

import itertools

import numpy as np
import pytest

from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import get_space
from edgeflownas.statistics.effects import block_effects

SPACE = get_space("edgeflownet_v1")
PLANTED = np.random.RandomState(4).rand(9, 3)


def planted(codes, noise, rng):
    return PLANTED[np.arange(9), codes].sum(axis=1) + noise * rng.randn(len(codes))


def test_enough_codes_recover_every_effect_free_of_the_other_blocks():
    codes = random_codes(0, 60, SPACE)
    found = block_effects(codes, planted(codes, 0.0, np.random.RandomState(0)))
    assert found.joint and len(found.effects) == 27
    for effect in found.effects:
        assert effect.difference == pytest.approx(PLANTED[effect.block, effect.a] - PLANTED[effect.block, effect.b])
    assert found.better == PLANTED.argmin(axis=1).tolist()


def test_the_pool_of_twelve_gets_a_model_for_each_block():
    """Without noise, the difference of two options is that of the raw means of their four codes."""
    codes = build_pool(42, 12, SPACE)
    epe = planted(codes, 0.0, np.random.RandomState(0))
    found = block_effects(codes, epe)
    assert not found.joint and len(found.effects) == 27
    for effect in found.effects:
        means = [epe[codes[:, effect.block] == option].mean() for option in (effect.a, effect.b)]
        assert effect.difference == pytest.approx(means[0] - means[1])


@pytest.mark.parametrize("codes", [build_pool(42, 12, SPACE), random_codes(1, 40, SPACE)], ids=["pool", "random 40"])
def test_equal_options_are_rarely_called_better(codes):
    """All intervals of a block hold together in 95% of draws (Bonferroni: at least): at most 5% name a better one."""
    rng = np.random.RandomState(5)
    found = [block_effects(codes, rng.randn(len(codes))) for _ in range(300)]
    named = np.mean([[option is not None for option in each.better] for each in found])
    wrong = np.mean([not effect.low <= 0 <= effect.high for each in found for effect in each.effects])
    assert named <= 0.05 and 0.008 <= wrong <= 0.026, (named, wrong)  # 5% over three pairs


def test_intervals_cover_a_planted_difference():
    codes, rng, covered = random_codes(2, 45, SPACE), np.random.RandomState(6), []
    for _ in range(300):
        for effect in block_effects(codes, planted(codes, 0.3, rng)).effects:
            true = PLANTED[effect.block, effect.a] - PLANTED[effect.block, effect.b]
            covered.append(effect.low <= true <= effect.high)
    assert 0.972 <= np.mean(covered) <= 0.994, np.mean(covered)  # 1 - 5%/3


def test_blocks_without_a_choice_have_no_effect():
    codes = np.array(list(itertools.product((0, 1), (2,), (0, 1))) * 4)
    found = block_effects(codes, codes[:, 0] * 2.0 + np.tile([0.0, 0.1], 8))
    assert {effect.block for effect in found.effects} == {0, 2}
    assert found.better[:2] == [0, None]


def test_three_codes_say_nothing():
    found = block_effects(np.array([[0], [1], [2]]), np.array([1.0, 2.0, 3.0]))
    assert all(np.isinf(effect.low) and np.isinf(effect.high) for effect in found.effects) and found.better == [None]
    with pytest.raises(ValueError, match="at least 3 codes"):
        block_effects(np.array([[0], [1]]), np.array([1.0, 2.0]))
