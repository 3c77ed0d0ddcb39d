"""Decides from the recorded EPEs whether the supernet has learned, for the training log and the report's verdict.

A supernet has learned no flow if its mean EPE is not clearly below the EPE of an all-zero flow on the same samples.
"""

import math
from typing import Sequence

COLLAPSED_RATIO = 0.95  # best mean EPE at or above this share of the zero-flow EPE: no flow has been learned
LEARNED_RATIO = 0.80  # at or below it: clearly better than no flow
MIN_EVALUATIONS = 5  # fewer cannot show a collapse
LAST_EVALUATIONS = 3  # if all of these are at the zero-flow level, the supernet collapsed after it had learned

UNKNOWN, COLLAPSED, COLLAPSED_LATE, WEAK, LEARNED = "unknown", "collapsed", "collapsed late", "weak", "learned"


def ratio(mean_epe: float, zero_flow: float) -> float:
    """Mean EPE as a share of the zero-flow EPE; infinite if either is not a positive finite number."""
    if not (math.isfinite(mean_epe) and math.isfinite(zero_flow) and zero_flow > 0):
        return math.inf
    return mean_epe / zero_flow


def level(mean_epe: Sequence[float], zero_flow: Sequence[float]) -> str:
    """The level of learning, one of the constants above. Each argument has one EPE in pixels per evaluation."""
    ratios = [ratio(mean, zero) for mean, zero in zip(mean_epe, zero_flow)]
    if not ratios:
        return UNKNOWN
    if min(ratios) >= COLLAPSED_RATIO:
        return COLLAPSED if len(ratios) >= MIN_EVALUATIONS else UNKNOWN
    if len(ratios) > LAST_EVALUATIONS and min(ratios[-LAST_EVALUATIONS:]) >= COLLAPSED_RATIO:
        return COLLAPSED_LATE
    return LEARNED if min(ratios) <= LEARNED_RATIO else WEAK


def collapse(level_: str, last_mean: str) -> str:
    """The message on a collapse, for log and report; empty for any other level. `last_mean` as recorded."""
    if level_ == COLLAPSED:
        return (
            f"the best mean EPE is not below {COLLAPSED_RATIO:g} of the zero-flow EPE: the supernet has learned no flow"
        )
    if level_ == COLLAPSED_LATE:
        return (
            f"the last {LAST_EVALUATIONS} evaluations are back at the level of zero flow (last {last_mean} px), "
            "`supernet_best` is from before"
        )
    return ""
