"""Stability of a pool's ranking from one evaluation to the next, while the learning rate is still high.

When the cosine schedule has brought the learning rate near zero, the weights hardly change, and neither does any
ranking. A tau of 1 between the last evaluations then says nothing. So an evaluation counts only if its learning rate is
above `LR_SHARE` of the start's.
"""

from typing import NamedTuple

import numpy as np

from edgeflownas.statistics.intervals import NO_INTERVAL, Interval, over_codes
from edgeflownas.statistics.ranks import kendall_tau_b

LR_SHARE = 0.05  # of the learning rate at the start
RESAMPLES = 300  # few, because a report is written after every evaluation


class Stability(NamedTuple):
    """`tau[i]` is tau-b between counted evaluations i and i + 1; `mean` and `interval` are of their mean."""

    counted: np.ndarray  # bool [E]: the evaluations that count
    tau: np.ndarray
    mean: float
    interval: Interval  # over codes; NaN if fewer than two evaluations count


def ranking_stability(epe: np.ndarray, lr: np.ndarray, start_lr: float, seed: int) -> Stability:
    """The stability of the ranking by `epe` [E, P] of P subnets at E evaluations; `lr` [E]: the learning rates."""
    counted = np.asarray(lr, np.float64) > LR_SHARE * start_lr
    used = np.asarray(epe, np.float64)[counted]
    if len(used) < 2:
        return Stability(counted, np.zeros(0), float("nan"), NO_INTERVAL)

    def mean_tau(chosen: np.ndarray) -> np.ndarray:
        taus = [kendall_tau_b(before[chosen], after[chosen]) for before, after in zip(used[:-1], used[1:])]
        return np.mean(taus, axis=0)

    tau = kendall_tau_b(used[:-1], used[1:])
    return Stability(counted, tau, float(tau.mean()), over_codes(mean_tau, used.shape[1], seed, RESAMPLES))
