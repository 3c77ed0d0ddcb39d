"""Tau between evaluations: only while the learning rate is above 5% of its start, and with its error."""

import numpy as np
import pytest
import scipy.stats

from edgeflownas.statistics.stability import ranking_stability


def test_only_evaluations_at_a_high_learning_rate_count():
    epe = np.random.RandomState(0).rand(5, 8)
    found = ranking_stability(epe, np.array([1.0, 0.5, 0.06, 0.05, 0.0]), 1.0, 0)
    assert found.counted.tolist() == [True, True, True, False, False]
    wanted = [scipy.stats.kendalltau(epe[i], epe[i + 1])[0] for i in (0, 1)]
    np.testing.assert_allclose(found.tau, wanted)
    assert found.mean == pytest.approx(np.mean(wanted))
    assert found.interval.low < found.mean < found.interval.high


def test_a_ranking_that_stands_still_has_tau_1_and_one_evaluation_none():
    epe = np.tile(np.arange(6.0), (3, 1))
    found = ranking_stability(epe, np.ones(3), 1.0, 0)
    assert found.mean == 1.0 and found.interval.contains(1.0)
    assert np.isnan(ranking_stability(epe, np.array([1.0, 0.01, 0.01]), 1.0, 0).mean)
