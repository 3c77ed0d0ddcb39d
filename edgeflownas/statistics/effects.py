"""Effects of a block's options on EPE: linear models over the options of the blocks, with confidence intervals.

With enough codes, one least-squares model has all blocks and separates an option's effect from those of other blocks.
Twelve codes are too few for that, because nine blocks of three options have 19 coefficients. Then each block has its
own model. The other blocks are part of its error, so the intervals are wide.
"""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95  # for all pairs of options of one block together (Bonferroni)
MIN_RESIDUALS = 8  # degrees of freedom that the joint model must leave for its error


class Effect(NamedTuple):
    """The difference of options `a` and `b` of one block: EPE of `a` minus EPE of `b` in pixels, and its interval."""

    block: int
    a: int
    b: int
    difference: float
    low: float
    high: float


class BlockEffects(NamedTuple):
    """`joint`: whether one model has all blocks. `effects`: every pair of options of every block that has a choice.

    `better[block]` is the option significantly better than every other one of its block; None if there is none.
    """

    joint: bool
    effects: List[Effect]
    better: List[Optional[int]]  # by block


def block_effects(codes: np.ndarray, epe: np.ndarray) -> BlockEffects:
    """Fits `epe` [N] in pixels over the options in `codes` int [N, blocks]. Compares only options that occur.

    ValueError for fewer than three codes, or if `epe` has another length.
    """
    codes, epe = np.asarray(codes, int), np.asarray(epe, np.float64)
    if len(codes) < 3 or len(codes) != len(epe):
        raise ValueError(f"block_effects: expected at least 3 codes and an EPE for each, got {len(codes)}, {len(epe)}")
    blocks = list(range(codes.shape[1]))
    joint = _design(codes, blocks)
    fits = np.linalg.matrix_rank(joint) == joint.shape[1] and len(codes) - joint.shape[1] >= MIN_RESIDUALS
    effects: List[Effect] = []
    for group in [blocks] if fits else [[block] for block in blocks]:
        effects += _fit(codes, epe, group)
    return BlockEffects(bool(fits), effects, [_better(codes, effects, block) for block in blocks])


def _options(codes: np.ndarray, block: int) -> np.ndarray:
    return np.unique(codes[:, block])


def _design(codes: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """The design matrix: a column of ones, and for each block a column for every option but the first."""
    columns = [np.ones(len(codes))]
    for block in blocks:
        columns += [(codes[:, block] == option).astype(np.float64) for option in _options(codes, block)[1:]]
    return np.stack(columns, axis=1)


def _fit(codes: np.ndarray, epe: np.ndarray, blocks: Sequence[int]) -> List[Effect]:
    """Fits least squares over these blocks. Returns the differences of their options."""
    design = _design(codes, blocks)
    freedom = len(epe) - design.shape[1]
    coefficients = np.linalg.lstsq(design, epe, rcond=None)[0]
    residuals = epe - design @ coefficients
    covariance = np.linalg.pinv(design.T @ design) * (residuals @ residuals / freedom if freedom > 0 else np.nan)
    effects, at = [], 1
    for block in blocks:
        options = _options(codes, block)
        columns = [-1] + list(range(at, at + len(options) - 1))  # the first option has no column: its effect is 0
        at += len(options) - 1
        pairs = [(i, j) for i in range(len(options)) for j in range(i + 1, len(options))]
        for i, j in pairs:
            contrast = np.zeros(design.shape[1])
            contrast[[c for c in (columns[i],) if c >= 0]] += 1
            contrast[[c for c in (columns[j],) if c >= 0]] -= 1
            difference = float(contrast @ coefficients)
            reach = _reach(float(contrast @ covariance @ contrast), freedom, len(pairs))
            effects.append(
                Effect(block, int(options[i]), int(options[j]), difference, difference - reach, difference + reach)
            )
    return effects


def _reach(variance: float, freedom: int, pairs: int) -> float:
    """Half the width of an interval; infinite if the model leaves no degrees of freedom for the error."""
    if freedom <= 0:
        return float("inf")
    return float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / pairs) * np.sqrt(max(variance, 0.0)))


def _better(codes: np.ndarray, effects: Sequence[Effect], block: int) -> Optional[int]:
    """The option of `block` whose intervals of the differences to all others are wholly below 0; None if none."""
    own = [effect for effect in effects if effect.block == block]
    options = _options(codes, block)
    for option in options:
        wins = sum((e.a == option and e.high < 0) or (e.b == option and e.low > 0) for e in own)
        if len(options) > 1 and wins == len(options) - 1:
            return int(option)
    return None
