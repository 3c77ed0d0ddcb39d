"""The chi-square test for the sampler, by its closed forms."""

import math

import numpy as np


def tail(x: float, degrees: int) -> float:
    """P(X > x) of a chi-square variable X with `degrees` degrees of freedom."""
    if degrees % 2:
        term, total = math.sqrt(2 * x / math.pi) * math.exp(-x / 2), math.erfc(math.sqrt(x / 2))
    else:
        term, total = math.exp(-x / 2), 0.0
    for k in range(2 + degrees % 2, degrees + 2, 2):
        total += term
        term *= x / k
    return total


def p_value(counts: np.ndarray) -> float:
    """The probability of counts at least as uneven as these if all cells are equally likely."""
    flat = np.asarray(counts, np.float64).ravel()
    expected = flat.sum() / flat.size
    return tail(float(np.sum((flat - expected) ** 2) / expected), flat.size - 1)
