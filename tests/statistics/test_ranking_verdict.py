"""The verdict's words on studies with a known truth, and at the edge of every rule (docs/manual.md)."""

import numpy as np
import pytest

from edgeflownas.statistics.intervals import tau_over_codes
from edgeflownas.statistics.ranks import kendall_tau_b, permutation_p, regret
from edgeflownas.statistics.verdict import SupernetFacts, code_spread, seed_sd, verdict

# Seed sd 0.01 exactly (pairs 0.01 * sqrt 2 apart), codes' spread far above 4 of it.
MEANS = np.linspace(1.0, 2.0, 12)
ALONE = np.stack([MEANS - 0.01 / np.sqrt(2), MEANS + 0.01 / np.sqrt(2)])
GOOD = SupernetFacts("strict, seed 1", True, 0.8, 0.6, 0.001, 0.01, {"parameters": 0.3, "uniform": 0.5})


def word(*supernets, alone=ALONE):
    return verdict(alone, supernets).word


def test_the_sds():
    assert seed_sd(ALONE) == pytest.approx(0.01)
    assert code_spread(ALONE) == pytest.approx(np.std(MEANS, ddof=1))
    assert np.isnan(seed_sd(ALONE[:1]))


def test_strong_needs_everything_in_both_seeds():
    assert word(GOOD, GOOD) == "strong"
    assert word(GOOD) == "weak"  # one seed
    for change in ({"low": 0.5}, {"controls": {"uniform": 0.8}}, {"controls": {}}, {"top3_regret": 0.0201}):
        assert word(GOOD, GOOD._replace(**change)) == "weak", change


def test_weak_needs_a_positive_tau_that_chance_rarely_reaches_in_every_seed():
    poor = GOOD._replace(low=0.1)
    assert word(poor, poor._replace(p=0.049)) == "weak"
    assert word(poor, poor._replace(p=0.05)) == "none"
    assert word(poor, poor._replace(tau=-0.8)) == "none"  # inverted, and significantly so


def test_void_whatever_tau_says():
    assert word(GOOD, GOOD._replace(learned=False)) == "void"
    assert word(alone=ALONE) == "void"
    assert word(GOOD, GOOD, alone=ALONE[:1]) == "void"  # the noise is unknown
    shrunk = ALONE.mean(0) * 0.1 + ALONE - ALONE.mean(0)
    assert code_spread(shrunk) < 4 * seed_sd(shrunk) and word(GOOD, GOOD, alone=shrunk) == "void"


def test_every_reason_says_what_was_found_and_what_was_wanted():
    result = verdict(ALONE, [GOOD, GOOD._replace(name="strict, seed 2", low=0.31)])
    failed = [text for holds, text in result.reasons if not holds]
    assert failed == ["strict, seed 2: lower bound of tau 0.31 (above 0.5)"]


def simulated(rng, spread, seed_noise, supernet_noise, bias=0.0):
    """A study of 12 codes: three stand-alone seeds, two strict supernets. `bias`: share of the truth inverted."""
    truth = spread * rng.randn(12)
    alone = 2 + truth + seed_noise * rng.randn(3, 12)
    costs = rng.randn(12)
    y, facts = alone.mean(0), []
    for seed in (1, 2):
        x = (1 - 2 * bias) * truth + supernet_noise * rng.randn(12)
        tau = float(kendall_tau_b(x, y))
        facts.append(
            SupernetFacts(
                f"strict, seed {seed}", True, tau, tau_over_codes(x, y, seed, 300).low, permutation_p(x, y, seed, 400),
                regret(x, y, 3), {"parameters": abs(float(kendall_tau_b(costs, y)))}))  # fmt: skip
    return verdict(alone, facts).word


@pytest.mark.parametrize(
    "wanted, study",
    [
        ("strong", {"spread": 0.1, "seed_noise": 0.01, "supernet_noise": 0.015}),
        ("weak", {"spread": 0.1, "seed_noise": 0.01, "supernet_noise": 0.07}),
        ("none", {"spread": 0.1, "seed_noise": 0.01, "supernet_noise": 10.0}),
        ("none", {"spread": 0.1, "seed_noise": 0.01, "supernet_noise": 0.02, "bias": 1.0}),
        ("void", {"spread": 0.02, "seed_noise": 0.02, "supernet_noise": 0.001}),
    ],
)
def test_the_words_come_out_right_on_simulated_studies(wanted, study):
    rng = np.random.RandomState(8)
    words = [simulated(rng, **study) for _ in range(60)]
    assert np.mean([each == wanted for each in words]) >= 0.6, words


def test_chance_is_almost_never_called_weak_and_never_strong():
    rng = np.random.RandomState(10)
    words = [simulated(rng, 0.1, 0.01, 1e6) for _ in range(300)]
    assert "strong" not in words and words.count("weak") <= 3  # 2.5% a seed, and both must have it
