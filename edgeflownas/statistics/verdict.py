"""The verdict on a ranking, by rules fixed before anything was trained (docs/manual.md).

strong  there are at least two supernet seeds, and in each of them: the lower bound of tau is above 0.5, tau is higher
        than every control's, and the top-3 regret is at most 2 sd
weak    not strong, but in every supernet seed tau is positive and its permutation p is below 0.05
void    the codes' spread is below 4 sd or unknown, or a supernet has not learned or is missing: an inconclusive study
none    none of these: in a valid study, tau is not positive or its p is 0.05 or above for at least one supernet seed;
        it does not show that the ranking is better than chance, nor that it is not
The spread of the codes and the sd of a seed are standard deviations of the same quantity, the EPE of stand-alone runs.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

STRONG, WEAK, NONE, VOID = "strong", "weak", "none", "void"
LOWER_BOUND = 0.5
P_LIMIT = 0.05
REGRET_SDS = 2.0
SPREAD_SDS = 4.0
SUPERNET_SEEDS = 2  # at least this many for "strong"


class SupernetFacts(NamedTuple):
    """One strict supernet compared with stand-alone training. `controls`: name and tau (or |tau|) of each control."""

    name: str
    learned: bool
    tau: float
    low: float  # of the interval over codes
    p: float
    top3_regret: float  # px
    controls: Dict[str, float]


class Verdict(NamedTuple):
    """The verdict's word and its reasons, each (whether the condition holds, sentence)."""

    word: str
    reasons: List[Tuple[bool, str]]


def seed_sd(alone: np.ndarray) -> float:
    """The standard deviation of stand-alone EPE over seeds, px, pooled over the codes of `alone` [seeds, codes].

    NaN for a single seed.
    """
    alone = np.asarray(alone, np.float64)
    if len(alone) < 2:
        return float("nan")
    return float(np.sqrt(np.mean(np.var(alone, axis=0, ddof=1))))


def code_spread(alone: np.ndarray) -> float:
    """The standard deviation over codes of the mean EPE of `alone` [seeds, codes], px. NaN for a single code."""
    means = np.asarray(alone, np.float64).mean(axis=0)
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def verdict(alone: np.ndarray, supernets: Sequence[SupernetFacts]) -> Verdict:
    """The verdict on the supernets that ranked these codes; `alone` [seeds, codes] are the stand-alone EPEs in px."""
    sd, spread = seed_sd(alone), code_spread(alone)
    fair = [
        (
            bool(spread >= SPREAD_SDS * sd),
            f"the codes' spread is {spread:.4f} px, {_times(spread, sd)} the sd of a seed, {sd:.4f} px "
            f"(at least {SPREAD_SDS:g} times)",
        ),
        (bool(supernets) and all(one.learned for one in supernets), _learned(supernets)),
    ]
    if not all(holds for holds, _ in fair):
        return Verdict(VOID, fair)
    strong = _strong(supernets, sd)
    weak = [
        (
            one.tau > 0 and one.p < P_LIMIT,
            f"{one.name}: tau {one.tau:.2f}, permutation p {one.p:.3f} (tau positive, p below {P_LIMIT:g})",
        )
        for one in supernets
    ]
    if all(holds for holds, _ in strong):
        return Verdict(STRONG, fair + strong)
    return Verdict(WEAK if all(holds for holds, _ in weak) else NONE, fair + strong + weak)


def _strong(supernets: Sequence[SupernetFacts], sd: float) -> List[Tuple[bool, str]]:
    reasons = [
        (len(supernets) >= SUPERNET_SEEDS, f"{len(supernets)} seeds of the strict supernet (at least {SUPERNET_SEEDS})")
    ]
    for one in supernets:
        rivals = ", ".join(f"{name} {tau:.2f}" for name, tau in one.controls.items())
        reasons += [
            (one.low > LOWER_BOUND, f"{one.name}: lower bound of tau {one.low:.2f} (above {LOWER_BOUND:g})"),
            (
                bool(one.controls) and all(one.tau > tau for tau in one.controls.values()),
                f"{one.name}: tau {one.tau:.2f} (ahead of every control: {rivals or 'none was run'})",
            ),
            (
                one.top3_regret <= REGRET_SDS * sd,
                f"{one.name}: top-3 regret {one.top3_regret:.4f} px, {_times(one.top3_regret, sd)} sd "
                f"(within {REGRET_SDS:g})",
            ),
        ]
    return reasons


def _times(value: float, sd: float) -> str:
    return f"{value / sd:.1f}" if sd > 0 else "not a number of"


def _learned(supernets: Sequence[SupernetFacts]) -> str:
    if not supernets:
        return "there is no strict supernet"
    failed = [one.name for one in supernets if not one.learned]
    return f"not learned: {', '.join(failed)}" if failed else "every strict supernet has learned"
