"""Rank correlation and permutation p against scipy and against counting by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats

from edgeflownas.statistics import ranks


def draws(count, codes, levels):
    """Pairs of scores with many ties (few `levels`) or none."""
    rng = np.random.RandomState(3)
    for _ in range(count):
        yield rng.randint(0, levels, codes).astype(float), rng.randint(0, levels, codes).astype(float)


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_tau_and_spearman_agree_with_scipy(levels):
    for x, y in draws(50, 11, levels):
        wanted = scipy.stats.kendalltau(x, y)[0], scipy.stats.spearmanr(x, y)[0]
        np.testing.assert_allclose((ranks.kendall_tau_b(x, y), ranks.spearman(x, y)), wanted, rtol=1e-12, atol=1e-12)


def test_tau_of_many_rankings_at_once_is_that_of_each():
    rng = np.random.RandomState(0)
    x, y = rng.rand(5, 7), rng.rand(5, 7)
    together = ranks.kendall_tau_b(x, y)
    assert together.shape == (5,)
    np.testing.assert_allclose(together, [scipy.stats.kendalltau(a, b)[0] for a, b in zip(x, y)])
    np.testing.assert_allclose(ranks.spearman(x, y), [scipy.stats.spearmanr(a, b)[0] for a, b in zip(x, y)])


def test_a_constant_ranking_has_no_tau():
    assert np.isnan(ranks.kendall_tau_b([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert np.isnan(ranks.spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert np.isnan(ranks.permutation_p(np.ones(3), np.arange(3.0), 0))


def test_gaps_within_the_tolerance_are_ties():
    """Pairs of y: 0.5 apart (tied), 2.5 and 3 apart (not); x has all three in order."""
    tau = ranks.kendall_tau_b([1, 2, 3], [0.0, 0.5, 3.0], y_tie=1.0)
    assert tau == pytest.approx(2 / np.sqrt(3 * 2))
    assert ranks.kendall_tau_b([1, 2, 3], [0.0, 0.5, 3.0], y_tie=0.5) == tau  # exactly the tolerance is a tie
    assert ranks.kendall_tau_b([1, 2, 3], [0.0, 0.5, 3.0], y_tie=0.4) == 1.0


@pytest.mark.parametrize("codes", [4, 6])
def test_the_exact_p_counts_every_order(codes):
    for x, y in draws(10, codes, 5):
        observed = scipy.stats.kendalltau(x, y)[0]
        if np.isnan(observed):
            continue
        taus = [scipy.stats.kendalltau(x, order)[0] for order in itertools.permutations(y)]
        assert ranks.permutation_p(x, y, 0) == pytest.approx(np.mean(np.abs(taus) >= abs(observed) - 1e-9))


def test_the_exact_p_is_scipys_exact_p():
    x, y = np.arange(7.0), np.array([0.0, 1, 3, 2, 4, 6, 5])
    assert ranks.permutation_p(x, y, 0) == pytest.approx(scipy.stats.kendalltau(x, y, method="exact")[1])


def test_the_sampled_p_is_near_scipys_exact_p_and_repeats():
    rng = np.random.RandomState(5)
    x = np.arange(12.0)
    for y in (rng.permutation(12), np.array([0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 11, 10])):
        p = ranks.permutation_p(x, y, 1)
        exact = scipy.stats.kendalltau(x, y, method="exact")[1]
        assert abs(p - exact) < 4 * np.sqrt(exact * (1 - exact) / ranks.SAMPLED_ORDERS) + 1 / ranks.SAMPLED_ORDERS
        assert p == ranks.permutation_p(x, y, 1)
        assert p > 0  # the observed order is one of the orders


def test_twelve_codes_have_their_five_percent_point_at_tau_045():
    """With twelve codes the two-sided 5% point of chance is about 0.45."""
    y = np.arange(12.0)
    rng = np.random.RandomState(0)
    taus = ranks.kendall_tau_b(np.stack([rng.permutation(12) for _ in range(20000)]), y)
    assert 0.42 <= np.percentile(np.abs(taus), 95) <= 0.46


def test_regret_takes_the_best_of_the_top_and_distrusts_ties():
    truth = np.array([2.0, 1.0, 1.5, 3.0])
    predicted = np.array([1.0, 4.0, 2.0, 3.0])
    assert ranks.regret(predicted, truth, 1) == 1.0
    assert ranks.regret(predicted, truth, 2) == 0.5
    assert ranks.regret(predicted, truth, 4) == 0.0
    assert ranks.regret(np.zeros(4), truth, 1) == 2.0


def test_mean_tau_of_pairs():
    rows = np.array([[1.0, 2, 3], [1, 2, 3], [3, 2, 1]])
    assert ranks.mean_tau_of_pairs(rows) == pytest.approx((1 - 1 - 1) / 3)
    assert ranks.mean_tau_of_pairs(rows[:1]) is None


def test_pieces_cover_everything_once():
    rows = np.arange(10)
    assert np.concatenate(list(ranks.pieces(rows, 1 << 21))).tolist() == rows.tolist()
    assert len(list(ranks.pieces(rows, 1 << 21))) == 5
