"""Agreement of two rankings: Kendall's tau-b, Spearman's rho, a permutation test, and the regret of the top codes.

Legend: N codes; EPE in pixels, lower is better. Lower must also be better in scores that are compared with EPE.
Sources: Kendall (1945) for tau-b; Good (2005) for the exact and the sampled permutation test, which count the observed
order among the permutations.
"""

import itertools
from typing import Iterator, Optional

import numpy as np

from edgeflownas.rng import stream

EXACT_UP_TO = 8  # codes; up to this number all orders (at most 40,320) are enumerated, above it orders are sampled
SAMPLED_ORDERS = 10000
_CELLS = 1 << 22  # largest number of array cells in one piece of a calculation


def kendall_tau_b(x: np.ndarray, y: np.ndarray, y_tie: float = 0.0) -> np.ndarray:
    """Tau-b over the last axis of `x` and `y` [..., N], with broadcasting. NaN where either is constant.

    Two entries of `y` that differ by no more than `y_tie` count as tied.
    """
    left, right = np.triu_indices(np.shape(x)[-1], 1)
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    x_sign = np.sign(x[..., left] - x[..., right])
    y_gap = y[..., left] - y[..., right]
    y_sign = np.where(np.abs(y_gap) <= y_tie, 0.0, np.sign(y_gap))
    size = np.sqrt(np.sum(x_sign**2, -1) * np.sum(y_sign**2, -1))
    return _divided(np.sum(x_sign * y_sign, -1), size)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rho over the last axis of two arrays [..., N] of the same shape; ties get their mean rank."""
    from scipy.stats import rankdata  # here, because its import takes longer than everything else of a report

    ranks = [np.apply_along_axis(rankdata, -1, np.asarray(values, np.float64)) for values in (x, y)]
    x_rank, y_rank = [rank - rank.mean(-1, keepdims=True) for rank in ranks]
    size = np.sqrt(np.sum(x_rank**2, -1) * np.sum(y_rank**2, -1))
    return _divided(np.sum(x_rank * y_rank, -1), size)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def permutation_p(x: np.ndarray, y: np.ndarray, seed: int, sampled: int = SAMPLED_ORDERS) -> float:
    """The two-sided p: the share of orders of `y` whose tau-b with `x` is at least as far from 0 as the observed one.

    Exact up to `EXACT_UP_TO` codes; for more, over `sampled` random orders and the observed one. NaN if tau is NaN.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    observed = abs(float(kendall_tau_b(x, y)))
    if not np.isfinite(observed):
        return float("nan")
    if len(x) <= EXACT_UP_TO:
        orders = np.array(list(itertools.permutations(range(len(x)))))
        return float(np.mean(_at_least(x, y, orders, observed)))
    orders = np.argsort(stream("permutation", seed).random_sample((sampled, len(x))), axis=1)
    return float((1 + np.sum(_at_least(x, y, orders, observed))) / (1 + sampled))


def _at_least(x: np.ndarray, y: np.ndarray, orders: np.ndarray, observed: float) -> np.ndarray:
    parts = [np.abs(kendall_tau_b(x, y[piece])) for piece in pieces(orders, len(x) ** 2)]
    return np.concatenate(parts) >= observed - 1e-12


def pieces(rows: np.ndarray, cells_per_row: int) -> Iterator[np.ndarray]:
    """Yields a few of `rows` at a time, so that an array with `cells_per_row` cells for each row stays small."""
    step = max(1, _CELLS // max(1, cells_per_row))
    for first in range(0, len(rows), step):
        yield rows[first : first + step]


def regret(predicted: np.ndarray, truth: np.ndarray, top: int) -> float:
    """The loss, in the unit of `truth`, of taking the best of the `top` codes that `predicted` ranks first.

    Among codes tied in `predicted`, the worse ones count as first, so that ties never look like knowledge.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    first = np.lexsort((-truth, predicted))[:top]
    return float(truth[first].min() - truth.min())


def mean_tau_of_pairs(rows: np.ndarray) -> Optional[float]:
    """The mean tau-b over all pairs of rankings `rows` [R, N]; None for fewer than two rows."""
    taus = [float(kendall_tau_b(a, b)) for a, b in itertools.combinations(rows, 2)]
    return float(np.mean(taus)) if taus else None
