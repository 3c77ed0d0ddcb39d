"""Paired errors, separated pairs: by hand, and right as often as they say."""

import numpy as np
import pytest
import scipy.stats

from edgeflownas.statistics import paired


def test_the_paired_error_is_that_of_the_paired_t_test():
    rng = np.random.RandomState(0)
    a, b = rng.rand(17), rng.rand(17)
    wanted = (a.mean() - b.mean()) / scipy.stats.ttest_rel(a, b)[0]
    assert paired.paired_error(a, b) == pytest.approx(abs(wanted))


def test_errors_of_all_pairs():
    epe = np.random.RandomState(1).rand(4, 9) + 1000.0  # a large common level must not cost digits
    errors = paired.paired_errors(epe)
    for i in range(4):
        for j in range(4):
            assert errors[i, j] == pytest.approx(np.std(epe[i] - epe[j], ddof=1) / 3, abs=1e-12)


def test_a_difference_counts_when_a_paired_t_test_says_so():
    rng = np.random.RandomState(2)
    epe = rng.rand(6, 30) + 0.1 * np.arange(6)[:, None]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    wanted = sum(scipy.stats.ttest_rel(epe[i], epe[j])[1] < 0.05 for i, j in pairs)
    assert 0 < wanted < len(pairs)
    assert paired.separated_pairs(epe) == (wanted, len(pairs))


def test_equal_subnets_are_separated_in_five_percent_of_draws():
    rng = np.random.RandomState(3)
    found = [paired.separated_pairs(rng.rand(1, 20) * 9 + rng.randn(2, 20)).separated for _ in range(2000)]
    assert 0.035 <= np.mean(found) <= 0.065


def test_behind_best():
    epe = np.array([[1.0, 2, 3, 4], [1.1, 2.1, 3.1, 4.1], [0.5, 2.9, 2.2, 5.0]])
    epe[1] += [0.001, -0.001, 0.001, -0.001]
    found = paired.behind_best(epe)
    assert found.level.tolist() == [True, False, True]
    assert found.gap == pytest.approx([0.0, 0.1, 0.15]) and found.error[0] == 0
    assert found.error[2] == pytest.approx(scipy.stats.sem(epe[2] - epe[0]))


def test_one_sample_separates_nothing():
    assert np.isnan(paired.paired_error(np.ones(1), np.zeros(1)))
    assert paired.separated_pairs(np.array([[1.0], [2.0]])) == (0, 1)
    assert paired.behind_best(np.array([[1.0], [2.0]])).level.all()
