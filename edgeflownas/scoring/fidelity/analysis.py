"""Computes the numbers of a fidelity report from the evidence. Built on `edgeflownas.statistics`; touches no file."""

from typing import Dict, List, NamedTuple, Optional

import numpy as np

from edgeflownas.engine.learning import COLLAPSED_RATIO, ratio
from edgeflownas.scoring.fidelity.evidence import Evidence, StandaloneScores, SupernetEvidence
from edgeflownas.scoring.fidelity.plan import HOLDOUT, STRICT, UNIFORM, UNSEEN, Plan, PlannedCode
from edgeflownas.scoring.fidelity.study import MIN_CODES
from edgeflownas.statistics.intervals import Interval, over_codes, over_samples, tau_over_codes
from edgeflownas.statistics.paired import Separation, separated_pairs
from edgeflownas.statistics.ranks import kendall_tau_b, mean_tau_of_pairs, permutation_p, regret, spearman
from edgeflownas.statistics.verdict import SupernetFacts, Verdict, code_spread, seed_sd, verdict

COSTS = dict(zip(PlannedCode._fields[1:3], ("parameters", "multiply-adds")))  # field: name


class Agreement(NamedTuple):
    """One ranking compared with stand-alone training. Regrets in px; `tau_ties` treats gaps up to `tie_gap` as ties."""

    name: str
    kind: str
    tau: float
    tau_codes: Interval
    tau_samples: Optional[Interval]  # None for a cost, which has no samples
    rho: float
    rho_codes: Interval
    rho_samples: Optional[Interval]
    p: float
    tau_ties: float
    regret1: float
    regret3: float


class AtBudget(NamedTuple):
    """All results at one stand-alone budget. `alone` has the codes of the statistic that every seed has."""

    alone: StandaloneScores
    truth: np.ndarray  # [codes] mean EPE over the seeds
    sd: float  # px, of stand-alone EPE over seeds
    spread: float  # px, sd over codes of `truth`
    ceiling: Optional[float]  # mean tau between stand-alone seeds
    resolved: Separation  # pairs of codes that differ by more than 2 sqrt(2) sd
    strict: List[Agreement]
    uniform: List[Agreement]
    costs: List[Agreement]
    gain: Optional[Interval]  # mean tau of the strict supernets minus that of the uniform ones, over codes
    verdict: Verdict


class Pair(NamedTuple):
    """Tau-b between two rankings of the same codes."""

    name: str
    tau: float
    codes: Interval
    samples: Optional[Interval]  # None if the rankings are on different samples


def tie_gap(sd: float) -> float:
    """The EPE gap that two stand-alone runs exceed by their seeds alone in about 5% of pairs; `sd` over seeds, px."""
    return 2 * np.sqrt(2) * sd


def epe_of(supernet: SupernetEvidence, codes: List[str], samples: str = UNSEEN) -> np.ndarray:
    """float64 [codes, samples]: a supernet's EPE of these codes."""
    rows = [supernet.scores.codes.index(code) for code in codes]
    return supernet.scores.epe[samples][rows].astype(np.float64)


def at_budget(evidence: Evidence, budget: float) -> Optional[AtBudget]:
    """The comparison at one budget; None while fewer than three codes have all their seeds."""
    plan = evidence.plan
    found = evidence.alone[budget]
    alone = found.of([code for code in plan.counted if code in found.codes])
    if len(alone.codes) < MIN_CODES:
        return None
    means = alone.epe.mean(axis=2)
    sd = seed_sd(means)
    groups = {
        kind: [_supernet(plan, alone, one, sd) for one in evidence.supernets if one.run.kind == kind]
        for kind in (STRICT, UNIFORM)
    }
    costs = [_cost(plan, alone, field, sd) for field in COSTS]
    rivals = {one.name: abs(one.tau) for one in costs}
    rivals.update({one.name: one.tau for one in groups[UNIFORM]})
    facts = [
        SupernetFacts(one.name, _learned(evidence, one.name), one.tau, one.tau_codes.low, one.p, one.regret3, rivals)
        for one in groups[STRICT]
    ]
    truth = means.mean(axis=0)
    left, right = np.triu_indices(len(truth), 1)
    return AtBudget(
        alone,
        truth,
        sd,
        code_spread(means),
        mean_tau_of_pairs(means),
        Separation(int(np.sum(np.abs(truth[left] - truth[right]) > tie_gap(sd))), len(left)),
        groups[STRICT],
        groups[UNIFORM],
        costs,
        _gain(evidence, alone, truth),
        verdict(means, facts),
    )


def _seed(plan: Plan) -> int:
    return int(plan.document["statistics"]["seed"])


def _supernet(plan: Plan, alone: StandaloneScores, supernet: SupernetEvidence, sd: float) -> Agreement:
    x, y = epe_of(supernet, alone.codes), alone.epe.mean(axis=0)
    found = _agreement(plan, supernet.name, supernet.run.kind, x.mean(axis=1), y.mean(axis=1), sd)
    return found._replace(
        tau_samples=over_samples(kendall_tau_b, x, y, _seed(plan)),
        rho_samples=over_samples(spearman, x, y, _seed(plan)),
    )


def _cost(plan: Plan, alone: StandaloneScores, field: str, sd: float) -> Agreement:
    """A ranking by cost alone: the most expensive code is first."""
    costs = {code.arch_code: float(getattr(code, field)) for code in plan.codes}
    x = -np.array([costs[code] for code in alone.codes])
    return _agreement(plan, COSTS[field], "cost", x, alone.epe.mean(axis=(0, 2)), sd)


def _agreement(plan: Plan, name: str, kind: str, x: np.ndarray, y: np.ndarray, sd: float) -> Agreement:
    seed = _seed(plan)
    return Agreement(
        name,
        kind,
        float(kendall_tau_b(x, y)),
        tau_over_codes(x, y, seed),
        None,
        float(spearman(x, y)),
        over_codes(lambda chosen: spearman(x[chosen], y[chosen]), len(x), seed),
        None,
        permutation_p(x, y, seed),
        float(kendall_tau_b(x, y, tie_gap(sd))),
        regret(x, y, 1),
        regret(x, y, 3),
    )


def _learned(evidence: Evidence, name: str) -> bool:
    """Whether a supernet's mean EPE over the codes of the statistic is clearly below that of zero flow."""
    (supernet,) = [one for one in evidence.supernets if one.name == name]
    mean = float(epe_of(supernet, evidence.plan.counted).mean())
    return ratio(mean, supernet.scores.zero[UNSEEN]) < COLLAPSED_RATIO


def _gain(evidence: Evidence, alone: StandaloneScores, truth: np.ndarray) -> Optional[Interval]:
    means: Dict[str, List[np.ndarray]] = {STRICT: [], UNIFORM: []}
    for supernet in evidence.supernets:
        means[supernet.run.kind].append(epe_of(supernet, alone.codes).mean(axis=1))
    if not means[STRICT] or not means[UNIFORM]:
        return None

    def gain(chosen: np.ndarray) -> np.ndarray:
        taus = {kind: np.mean([kendall_tau_b(x[chosen], truth[chosen]) for x in means[kind]], axis=0) for kind in means}
        return taus[STRICT] - taus[UNIFORM]

    return over_codes(gain, len(truth), _seed(evidence.plan))


def seed_pairs(evidence: Evidence) -> List[Pair]:
    """Rank agreement of supernets of one kind, for every pair of seeds."""
    plan, pairs = evidence.plan, []
    for i, one in enumerate(evidence.supernets):
        for other in evidence.supernets[i + 1 :]:
            if one.run.kind == other.run.kind:
                x, y = epe_of(one, plan.counted), epe_of(other, plan.counted)
                name = f"{one.run.kind}, seeds {one.run.seed} and {other.run.seed}"
                pairs.append(_pair(plan, name, x, y, over_samples(kendall_tau_b, x, y, _seed(plan))))
    return pairs


def holdout_pairs(evidence: Evidence) -> List[Pair]:
    """Rank agreement of each supernet between FC2_test and its holdout."""
    plan = evidence.plan
    return [
        _pair(plan, one.name, epe_of(one, plan.counted), epe_of(one, plan.counted, HOLDOUT), None)
        for one in evidence.supernets
        if HOLDOUT in one.scores.epe
    ]


def _pair(plan: Plan, name: str, x: np.ndarray, y: np.ndarray, samples: Optional[Interval]) -> Pair:
    x, y = x.mean(axis=1), y.mean(axis=1)
    return Pair(name, float(kendall_tau_b(x, y)), tau_over_codes(x, y, _seed(plan)), samples)


def separation(evidence: Evidence, supernet: SupernetEvidence) -> Separation:
    """How many pairs of codes a supernet's EPEs separate beyond their paired error."""
    return separated_pairs(epe_of(supernet, evidence.plan.counted))
