"""The rules of the verdict on a run: pure functions of the recorded numbers, and their thresholds.

`learning.level` compares the supernet with an all-zero flow, `trend` says whether it still improves, and `headline`
combines the two. Built on `engine.learning`.
"""

import math
from typing import List, NamedTuple, Sequence, Tuple

from edgeflownas.engine.learning import COLLAPSED, COLLAPSED_LATE, MIN_EVALUATIONS, UNKNOWN, WEAK
from edgeflownas.nas.search_space import SearchSpace

TREND_WINDOW = 8  # evaluations to which the trend line is fitted
PATIENCE_SHARE = 2 / 3  # plateaued if this share of early stop's patience is used
SATURATED_SHARE = 0.99  # saturated if the gradient is clipped in this share of the steps
HEAVY_SHARE = 0.5  # heavy if it is clipped in this share
INPUT_WAIT_SHARE = 0.2  # if more of the training time is spent waiting for data, the readers are too slow
STABLE_TAU = 0.7  # the ranking is stable if the tau of consecutive evaluations is at least this

IMPROVING, PLATEAUED = "improving", "plateaued"


class Headline(NamedTuple):
    """`word` is the verdict in a few words, `tone` one of good, fair, bad, open."""

    word: str
    tone: str


def slope(values: Sequence[float]) -> float:
    """The least-squares slope: the change from one value to the next. NaN if a value is not finite."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    return sum((i - middle) * (value - mean) for i, value in enumerate(values)) / sum(
        (i - middle) ** 2 for i in range(len(values))
    )


def trend(mean_epe: Sequence[float], wait: int, patience: int, min_delta: float) -> str:
    """PLATEAUED if early stop's patience is mostly used, or if the line through the last evaluations falls by at most
    `min_delta` per evaluation; else IMPROVING. UNKNOWN for fewer than `MIN_EVALUATIONS`."""
    if len(mean_epe) < MIN_EVALUATIONS:
        return UNKNOWN
    if wait >= PATIENCE_SHARE * patience or not -slope(mean_epe[-TREND_WINDOW:]) > min_delta:
        return PLATEAUED
    return IMPROVING


def headline(level_: str, trend_: str) -> Headline:
    """The verdict in a few words."""
    if level_ in (COLLAPSED, COLLAPSED_LATE):
        return Headline("Collapsed" if level_ == COLLAPSED else "Collapsed after it had learned", "bad")
    if level_ == UNKNOWN:
        return Headline("Too early to say", "open")
    if level_ == WEAK:
        return (
            Headline("Plateaued near zero flow", "bad")
            if trend_ == PLATEAUED
            else Headline("Too early to say: only a little below zero flow", "open")
        )
    return {
        PLATEAUED: Headline("Learned and plateaued", "good"),
        IMPROVING: Headline("Learned, still improving", "good"),
        UNKNOWN: Headline("Learned so far", "good"),
    }[trend_]


def clipping(share: float) -> Tuple[str, str]:
    """(word, tone) for the share of steps whose gradient was clipped."""
    if share >= SATURATED_SHARE:
        return "saturated", "fair"
    if share >= HEAVY_SHARE:
        return "heavy", "fair"
    return ("occasional", "good") if share > 0 else ("never touched", "good")


def fairness(mode: str, largest_gap: int) -> Tuple[str, str]:
    """(sentence, tone) for the largest fairness gap recorded."""
    if mode != "strict_fairness":
        return (f"mode `{mode}`: options are drawn independently, a gap is expected (largest {largest_gap})", "fair")
    if largest_gap == 0:
        return ("strict: every option of every block was trained equally often (gap 0 at each evaluation)", "good")
    return f"**broken**: strict fairness promises a gap of 0, the largest recorded is {largest_gap}", "bad"


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-a of two scores of the same items: (concordant - discordant) / pairs. NaN for fewer than two."""
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    if not pairs:
        return math.nan
    return sum(_sign(a[i] - a[j]) * _sign(b[i] - b[j]) for i, j in pairs) / len(pairs)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


class OptionScore(NamedTuple):
    """EPE of the pool's subnets that use one option: mean, lowest, highest; `texts`: the latter two as recorded."""

    block: str
    label: str
    users: int
    mean: float
    low: float
    high: float
    texts: Tuple[str, str]


def option_scores(
    space: SearchSpace, codes: Sequence[str], epe: Sequence[float], texts: Sequence[str]
) -> List[OptionScore]:
    """One score for each option that occurs in the pool, in code order. `epe` in pixels, one per code."""
    scores = []
    for position, block in enumerate(space.blocks):
        for value in block.values:
            users = sorted((epe[i], texts[i]) for i, code in enumerate(codes) if code[position] == str(value))
            if users:
                scores.append(
                    OptionScore(
                        block.name,
                        block.label(value),
                        len(users),
                        sum(user[0] for user in users) / len(users),
                        users[0][0],
                        users[-1][0],
                        (users[0][1], users[-1][1]),
                    )
                )
    return scores
