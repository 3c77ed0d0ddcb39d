"""Differences of subnets with their paired errors, from EPE per sample. On the same samples most of the noise cancels.

Legend: P subnets, S samples. Errors are standard errors of the mean over samples, in pixels.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

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
    """[P, P]: the standard error of the difference of each two subnets' mean EPE; `epe` [P, S] per sample.

    0 on the diagonal; NaN for fewer than two samples.
    """
    epe = np.asarray(epe, np.float64)
    subnets, samples = epe.shape
    if samples < 2:
        return np.full((subnets, subnets), np.nan)
    errors = np.zeros((subnets, subnets))
    for i in range(subnets):  # from the differences themselves: a formula with variances would lose digits
        errors[i] = np.std(epe[i] - epe, axis=1, ddof=1) / np.sqrt(samples)
    return errors


def critical(samples: int) -> float:
    """The number of paired standard errors that a significant difference exceeds (Student's t, two-sided 5%)."""
    return float(student.ppf(1 - SIGNIFICANCE / 2, samples - 1)) if samples > 1 else float("inf")


def separated_pairs(epe: np.ndarray) -> Separation:
    """Counts the pairs of subnets, EPE per sample [P, S], that differ significantly by their paired error."""
    epe = np.asarray(epe, np.float64)
    left, right = np.triu_indices(len(epe), 1)
    means, errors = epe.mean(axis=1), paired_errors(epe)[left, right]
    apart = np.abs(means[left] - means[right]) > critical(epe.shape[1]) * errors
    return Separation(int(np.sum(apart)), len(left))


def level_with_best(epe: np.ndarray) -> np.ndarray:
    """bool [P]: the subnets not significantly different from that with the lowest mean EPE, itself included."""
    epe = np.asarray(epe, np.float64)
    if epe.shape[1] < 2:
        return np.ones(len(epe), bool)
    best = int(np.argmin(epe.mean(axis=1)))
    gap = epe.mean(axis=1) - epe[best].mean()
    return ~(gap > critical(epe.shape[1]) * paired_errors(epe)[best])
