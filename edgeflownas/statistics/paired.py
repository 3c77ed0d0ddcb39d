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
    apart = is_beyond(means[left] - means[right], errors, epe.shape[1])
    return Separation(int(np.sum(apart)), len(left))


class BehindBest(NamedTuple):
    """How far each of P subnets is behind the one with the lowest mean EPE; arrays [P], px."""

    gap: np.ndarray
    error: np.ndarray  # paired; 0 for the best itself
    level: np.ndarray  # bool: not behind by more than chance among the samples allows; the best itself included


def behind_best(epe: np.ndarray) -> BehindBest:
    """Of EPE per sample [P, S]. With a single sample there is no error (NaN), and all are level."""
    means = np.asarray(np.mean(epe, axis=1, dtype=np.float64))
    best = int(np.argmin(means))
    gap = means - means[best]
    error = np.array([paired_error(row, epe[best]) for row in epe])  # by row: a long table is not copied
    return BehindBest(gap, error, ~is_beyond(gap, error, epe.shape[1]))


def is_beyond(difference: np.ndarray, error: np.ndarray, samples: int) -> np.ndarray:
    """Whether a difference of means is outside its paired error over so many samples; False without an error."""
    if samples < 2:
        return np.zeros(np.shape(difference), bool)
    return np.abs(difference) > critical(samples) * np.asarray(error)
