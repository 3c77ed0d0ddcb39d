"""Differences of subnets with their paired errors, from EPE per sample: on the same samples most of the noise cancels.

Legend: P subnets, S samples. The unit of an error is one standard error of the mean over samples.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

SIGNIFICANCE = 0.05  # two-sided


class Separation(NamedTuple):
    """How many pairs of a pool differ by more than chance among samples allows."""

    separated: int
    pairs: int


def paired_error(a: np.ndarray, b: np.ndarray) -> float:
    """The standard error of mean(a) - mean(b), EPE per sample [S] of two subnets on the same samples.

    NaN for fewer than two samples.
    """
    return float(paired_errors(np.stack([a, b]))[0, 1])


def paired_errors(epe: np.ndarray) -> np.ndarray:
    """[P, P]: the standard error of each difference of means of EPE per sample [P, S]; 0 on the diagonal."""
    epe = np.asarray(epe, np.float64)
    subnets, samples = epe.shape
    if samples < 2:
        return np.full((subnets, subnets), np.nan)
    errors = np.zeros((subnets, subnets))
    for i in range(subnets):  # row by row: the difference of variances would lose digits
        errors[i] = np.std(epe[i] - epe, axis=1, ddof=1) / np.sqrt(samples)
    return errors


def critical(samples: int) -> float:
    """How many paired standard errors a difference must exceed (Student's t, two-sided 5%)."""
    return float(student.ppf(1 - SIGNIFICANCE / 2, samples - 1)) if samples > 1 else float("inf")


def separated_pairs(epe: np.ndarray) -> Separation:
    """Of all pairs of subnets with EPE per sample [P, S], those that differ outside their paired error."""
    epe = np.asarray(epe, np.float64)
    left, right = np.triu_indices(len(epe), 1)
    means, errors = epe.mean(axis=1), paired_errors(epe)[left, right]
    apart = np.abs(means[left] - means[right]) > critical(epe.shape[1]) * errors
    return Separation(int(np.sum(apart)), len(left))


def level_with_best(epe: np.ndarray) -> np.ndarray:
    """bool [P]: the subnets that are not separated from the one with the lowest mean EPE, itself included."""
    epe = np.asarray(epe, np.float64)
    if epe.shape[1] < 2:
        return np.ones(len(epe), bool)
    best = int(np.argmin(epe.mean(axis=1)))
    gap = epe.mean(axis=1) - epe[best].mean()
    return ~(gap > critical(epe.shape[1]) * paired_errors(epe)[best])
