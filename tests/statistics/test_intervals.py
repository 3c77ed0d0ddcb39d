"""Bootstrap intervals: deterministic, correct in simple cases, and with the promised coverage.

The coverage tests draw 2,000 studies with a known truth. Twelve codes of a bivariate normal with correlation r have the
true tau 2/pi asin(r) (Kendall and Gibbons 1990).
"""

import numpy as np
import pytest

from edgeflownas.statistics.intervals import Interval, over_codes, over_samples, percentile_interval, tau_over_codes
from edgeflownas.statistics.ranks import kendall_tau_b

STUDIES, CODES, RESAMPLES = 2000, 12, 300


def correlated(rng, r, shape):
    x, noise = rng.randn(*shape), rng.randn(*shape)
    return x, r * x + np.sqrt(1 - r**2) * noise


def test_the_seed_decides_and_nothing_else():
    x, y = correlated(np.random.RandomState(0), 0.7, (CODES,))
    assert tau_over_codes(x, y, 5) == tau_over_codes(x, y, 5)
    assert tau_over_codes(x, y, 5) != tau_over_codes(x, y, 6)


def test_the_interval_is_the_middle_of_the_draws():
    draws = np.append(np.arange(101.0), np.nan)
    interval = percentile_interval(draws, 0.9)
    assert (interval.low, interval.high) == (pytest.approx(5.0), pytest.approx(95.0))
    assert np.isnan(percentile_interval(np.array([np.nan])).low)
    assert Interval(0.0, 1.0).contains(1.0) and not Interval(0.0, 1.0).contains(1.1)


def test_an_interval_over_codes_is_that_of_a_bootstrap_written_out():
    x, y = correlated(np.random.RandomState(1), 0.5, (CODES,))
    chosen = np.random.RandomState([5, 10]).randint(0, CODES, (50, CODES))
    taus = [float(kendall_tau_b(x[rows], y[rows])) for rows in chosen]
    interval = tau_over_codes(x, y, 5, resamples=50)
    np.testing.assert_allclose((interval.low, interval.high), np.percentile(taus, [5, 95]), atol=1e-8)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8, 0.95])
def test_intervals_over_codes_cover_the_true_tau(r):
    """Nominal 90%, 5% on either side."""
    true, rng = 2 / np.pi * np.arcsin(r), np.random.RandomState(7)
    found = [tau_over_codes(*correlated(rng, r, (CODES,)), seed, RESAMPLES) for seed in range(STUDIES)]
    covered = np.mean([interval.contains(true) for interval in found])
    too_high = np.mean([interval.low > true for interval in found])
    assert 0.88 <= covered <= 0.96, covered
    assert too_high <= 0.075, too_high  # the side on which the verdict "strong" rests


def test_intervals_of_a_gain_cover_the_true_gain():
    """Two scores of one truth, with correlations 0.9 and 0.6 to it."""
    true = 2 / np.pi * (np.arcsin(0.9) - np.arcsin(0.6))
    rng, covered = np.random.RandomState(9), []
    for seed in range(STUDIES):
        y = rng.randn(CODES)
        x, control = [r * y + np.sqrt(1 - r**2) * rng.randn(CODES) for r in (0.9, 0.6)]

        def gain(chosen, x=x, control=control, y=y):
            return kendall_tau_b(x[chosen], y[chosen]) - kendall_tau_b(control[chosen], y[chosen])

        covered.append(over_codes(gain, CODES, seed, RESAMPLES).contains(true))
    assert 0.88 <= np.mean(covered) <= 0.97, np.mean(covered)


@pytest.mark.parametrize("gap", [0.05, 0.3])
def test_intervals_over_samples_cover_the_mean_tau_of_sets_of_that_size(gap):
    """The gaps between codes are below (0.05) and above (0.3) a mean's paired error, which is 0.1."""
    rng, covered, size = np.random.RandomState(11), [], 60
    for seed in range(STUDIES):
        codes = gap * rng.randn(CODES, 1)
        predicted = codes + gap * 0.5 * rng.randn(CODES, 1)
        noise = np.sqrt(size) * 0.07
        hard = 3 * rng.rand(1, size)
        seen = [scores + hard + noise * rng.randn(CODES, size) for scores in (predicted, codes)]
        # The mean over new sets, of which only the codes' means matter.
        new = [scores.T + 0.07 * rng.randn(100, CODES) for scores in (predicted, codes)]
        mean = float(np.mean(kendall_tau_b(new[0], new[1])))
        covered.append(over_samples(kendall_tau_b, seen[0], seen[1], seed, 200).contains(mean))
    assert 0.88 <= np.mean(covered) <= 0.985, np.mean(covered)


def test_samples_are_drawn_together():
    """A difficulty that all codes share does not change the ranking, however large it is."""
    rng = np.random.RandomState(2)
    epe = np.arange(6.0)[:, None] + 100 * rng.rand(1, 40)
    interval = over_samples(kendall_tau_b, epe, epe, 0, 200)
    assert interval.low == pytest.approx(1.0) and interval.high == pytest.approx(1.0)
