"""Differences of subnets with their paired errors, from EPE per sample. On the same samples most of the noise cancels.

Legend: P subnets, S samples. Errors are standard errors of the mean over samples, in pixels.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

SIGNIFICANCE = 0.05  # two-sided


class Separation(NamedTuple):
    """How many pairs of a pool differ significantly, given the noise of the samples."""

    separated: int
    pairs: int


def paired_error(a: np.ndarray, b: np.ndarray) -> float:
    """The standard error of mean(a) - mean(b) for two subnets' EPE per sample [S] on the same samples.

    NaN for fewer than two samples.
    """
    return float(paired_errors(np.stack([a, b]))[0, 1])


def paired_errors(epe: np.ndarray) -> np.ndarray:
    """[P, P]: the standard error of the difference of mean EPE of every two subnets; `epe` [P, S] per sample.

    0 on the diagonal; NaN for fewer than two samples.
    """
    epe = np.asarray(epe, np.float64)
    subnets, samples = epe.shape
    if samples < 2:
        return np.full((subnets, subnets), np.nan)
    errors = np.zeros((subnets, subnets))
    for i in range(subnets):  # from the differences, because a formula with variances would lose digits
        errors[i] = np.std(epe[i] - epe, axis=1, ddof=1) / np.sqrt(samples)
    return errors


def critical(samples: int) -> float:
    """The number of paired standard errors that a significant difference exceeds (Student's t, two-sided 5%)."""
    return float(stdtrit(samples - 1, 1 - SIGNIFICANCE / 2)) if samples > 1 else float("inf")


def separated_pairs(epe: np.ndarray) -> Separation:
    """Counts the pairs of subnets that differ significantly, by paired error; `epe` [P, S] per sample."""
    epe = np.asarray(epe, np.float64)
    left, right = np.triu_indices(len(epe), 1)
    means, errors = epe.mean(axis=1), paired_errors(epe)[left, right]
    apart = is_beyond(means[left] - means[right], errors, epe.shape[1])
    return Separation(int(np.sum(apart)), len(left))


class BehindBest(NamedTuple):
    """How far each of P subnets is behind the one with the lowest mean EPE; arrays [P], px."""

    gap: np.ndarray
    error: np.ndarray  # paired; 0 for the best itself
    level: np.ndarray  # bool: not significantly behind the best; True for the best itself


def behind_best(epe: np.ndarray) -> BehindBest:
    """From EPE per sample [P, S]. With a single sample every error is NaN and all subnets are level."""
    means = np.asarray(np.mean(epe, axis=1, dtype=np.float64))
    best = int(np.argmin(means))
    gap = means - means[best]
    error = np.array([paired_error(row, epe[best]) for row in epe])  # row by row, so that a long table is not copied
    return BehindBest(gap, error, ~is_beyond(gap, error, epe.shape[1]))


def is_beyond(difference: np.ndarray, error: np.ndarray, samples: int) -> np.ndarray:
    """Whether a difference of means is significant, given its paired error; False for fewer than two samples."""
    if samples < 2:
        return np.zeros(np.shape(difference), bool)
    return np.abs(difference) > critical(samples) * np.asarray(error)
