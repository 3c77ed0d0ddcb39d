"""The rules of the verdict, each at and beside its threshold."""

import itertools
import math

import numpy as np
import pytest

from edgeflownas.engine import learning
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import Block, SearchSpace, get_space
from edgeflownas.reporting import verdict

SPACE = get_space("edgeflownet_v1")


@pytest.mark.parametrize(
    "means, wait, expected",
    [
        ([5, 4, 3, 2], 0, learning.UNKNOWN),
        ([5, 4, 3, 2, 1], 0, verdict.IMPROVING),
        ([5, 4, 3, 2, 1], 9, verdict.IMPROVING),
        ([5, 4, 3, 2, 1], 10, verdict.PLATEAUED),
        ([5, 5, 5, 5, 5], 4, verdict.PLATEAUED),
        ([1, 2, 3, 4, 5], 4, verdict.PLATEAUED),
        ([3 - 0.0021 * i for i in range(20)], 0, verdict.IMPROVING),
        ([3 - 0.0019 * i for i in range(20)], 0, verdict.PLATEAUED),
        ([9, 8, 7, 6, 5, 4] + [3] * 8, 7, verdict.PLATEAUED),
        ([9, 8, 7, 6, 5, math.nan], 1, verdict.PLATEAUED),
    ],
)
def test_trend(means, wait, expected):
    assert verdict.trend(means, wait, patience=15, min_delta=0.002) == expected


def test_every_level_and_trend_has_a_headline():
    levels = (learning.UNKNOWN, learning.COLLAPSED, learning.COLLAPSED_LATE, learning.WEAK, learning.LEARNED)
    trends = (learning.UNKNOWN, verdict.IMPROVING, verdict.PLATEAUED)
    words = {pair: verdict.headline(*pair).word for pair in itertools.product(levels, trends)}
    assert len(set(words.values())) == 8
    assert verdict.headline(learning.WEAK, verdict.PLATEAUED) == ("Plateaued near zero flow", "bad")


@pytest.mark.parametrize(
    "share, word",
    [(0.0, "never touched"), (0.3, "occasional"), (0.5, "heavy"), (0.99, "saturated"), (1.0, "saturated")],
)
def test_clipping(share, word):
    assert verdict.clipping(share)[0] == word


def test_fairness_of_a_broken_promise_is_bad_and_of_uniform_mode_is_expected():
    assert verdict.fairness("strict_fairness", 0)[1] == "good"
    assert verdict.fairness("strict_fairness", 1)[1] == "bad"
    assert verdict.fairness("uniform", 17) == (
        "mode `uniform`: options are drawn independently, a gap is expected (largest 17)",
        "fair",
    )


def test_slope_is_the_least_squares_line():
    values = np.random.RandomState(5).rand(11)
    assert verdict.slope(values.tolist()) == pytest.approx(np.polyfit(range(11), values, 1)[0])


def test_kendall_tau():
    assert verdict.kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert verdict.kendall_tau([1, 2, 3], [30, 20, 10]) == -1
    assert verdict.kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)  # one of six pairs is swapped
    assert verdict.kendall_tau([1, 1], [1, 2]) == 0
    assert math.isnan(verdict.kendall_tau([1], [1]))


def test_option_scores_average_the_subnets_that_use_the_option():
    codes = ["".join(map(str, code)) for code in build_pool(1, 12, SPACE)]
    epe = np.random.RandomState(2).rand(12)
    scores = verdict.option_scores(SPACE, codes, epe.tolist(), [f"<{value}>" for value in epe])
    assert [(score.block, score.label) for score in scores] == [
        (block.name, block.label(i)) for block in SPACE.blocks for i in range(3)
    ]
    score = scores[SPACE.position("H1") * 3 + 2]
    mine = [value for code, value in zip(codes, epe) if code[SPACE.position("H1")] == "2"]
    assert (score.label, score.users) == ("3x3", 4)
    assert score.mean == pytest.approx(np.mean(mine))
    assert (score.low, score.high, score.texts) == (min(mine), max(mine), (f"<{min(mine)}>", f"<{max(mine)}>"))


def test_option_scores_of_a_space_with_blocks_of_two_and_three_options():
    space = SearchSpace("small", (Block("A", "depth", (1, 2)), Block("B", "kernel", (7, 5, 3))))
    scores = verdict.option_scores(space, ["00", "11", "02"], [1.0, 2.0, 4.0], ["1.0", "2.0", "4.0"])
    assert [(score.label, score.users, score.mean) for score in scores] == [
        ("Deep1", 2, 2.5),
        ("Deep2", 1, 2.0),
        ("7x7", 1, 1.0),
        ("5x5", 1, 2.0),
        ("3x3", 1, 4.0),
    ]
