"""Bootstrap intervals of tau: over codes (other subnets might have been chosen) and over validation samples.

Percentile intervals (Efron 1979). Chosen by measurement: over 12 codes of a bivariate normal they cover a true tau of
0 to 0.87 in 91 to 98% of draws at a nominal 90%, and their lower end, on which the verdict rests, lies above it in 1 to
6%. The interval of the Fisher transform with its textbook error covers only 73 to 87% there once tau is above 0.5.
"""

from typing import Callable, NamedTuple

import numpy as np

from edgeflownas.rng import stream
from edgeflownas.statistics.ranks import kendall_tau_b, pieces

CONFIDENCE = 0.90
RESAMPLES = 2000
MIN_CODES = 6
_ROUNDING = 1e-9  # a tau of 12 codes has few values; the ends must not miss one of them by a last bit


class Interval(NamedTuple):
    """A two-sided interval; `high` is not below `low`. NaN if there was nothing to estimate."""

    low: float
    high: float

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


NO_INTERVAL = Interval(float("nan"), float("nan"))


def percentile_interval(draws: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The middle `confidence` of the finite draws."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return NO_INTERVAL
    low, high = np.percentile(draws, [50 * (1 - confidence), 50 * (1 + confidence)])
    return Interval(float(low) - _ROUNDING, float(high) + _ROUNDING)


def over_codes(
    statistic: Callable[[np.ndarray], np.ndarray], codes: int, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The interval of `statistic(chosen)`, of codes drawn with replacement; `chosen` is int [draws, codes].

    NaN below `MIN_CODES` codes: drawn again and again, so few codes mostly repeat each other.
    """
    if codes < MIN_CODES:
        return NO_INTERVAL
    chosen = stream("bootstrap_codes", seed).randint(0, codes, (resamples, codes))
    return percentile_interval(np.concatenate([statistic(piece) for piece in pieces(chosen, codes**2)]))


def tau_over_codes(x: np.ndarray, y: np.ndarray, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The interval of tau-b of two scores [N], were other codes chosen."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return over_codes(lambda chosen: kendall_tau_b(x[chosen], y[chosen]), len(x), seed, resamples)


def over_samples(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """The interval of `statistic` (tau-b, say) of two mean EPEs, for its mean over validation sets of S samples.

    `x` and `y` [N, S] are on the same samples, which are drawn together. For tau it covers that mean in 90 to 97% of
    draws. It is no interval for the tau of endless samples: the noise of S samples lowers tau, and no resampling takes
    that back.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    samples = x.shape[1]
    rng = stream("bootstrap_samples", seed)
    # How often each sample is drawn, so that resampled means are one product of matrices.
    counts = rng.multinomial(samples, np.full(samples, 1.0 / samples), resamples) / samples
    return percentile_interval(statistic(counts @ x.T, counts @ y.T))
