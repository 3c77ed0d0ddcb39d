"""The evaluation pool: the few fixed subnets that are scored after every epoch, chosen to separate the blocks' effects.

The pool is a nearly orthogonal design. Every option of every block occurs equally often, and no code occurs twice.
Exchanges of options keep the confounding of the blocks low: if two blocks always had the same pairs of options, their
effects on the EPE could not be told apart. The confounding of two blocks is Cramer's V of their option pairs over the
pool: 0 if all pairs occur equally often, 1 if one block's option determines the other's. Built on `rng`.
"""

import itertools
from typing import Iterator, NamedTuple

import numpy as np

from edgeflownas.errors import UserError
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.rng import stream

# An exchange must lower the sum by more than this. Otherwise rounding could make the search endless.
_LEAST_GAIN = 1e-9


class Design(NamedTuple):
    """How well a pool separates the blocks, over all pairs of blocks with more than one option."""

    largest_v: float  # Cramer's V of the most confounded pair
    sum_of_squared_v: float
    option_pairs: int  # pairs of one option each from two blocks
    missing_pairs: int  # option pairs that no code of the pool has


def build_pool(seed: int, size: int, space: SearchSpace) -> np.ndarray:
    """The pool of `seed`, int32 [size, blocks]: distinct codes, every option of every block equally often.

    A pure function. Draws several balanced tables from the "pool" stream. In each table, exchanges entries of a column
    as long as the sum of squared Cramer's V falls. The result with the lowest largest V, then the lowest sum, is the
    pool. UserError: `size` is no positive multiple of a cycle's paths, is above 1 for one subnet, or no pool is found.
    """
    paths = space.num_paths
    if space.arch_code and size > 1:
        raise UserError(
            f"eval.pool_size: network.arch_code leaves one subnet, found a pool of {size}; set --eval_pool_size 1"
        )
    if size < 1 or size % paths:
        raise UserError(
            f"eval.pool_size: expected a positive multiple of {paths}, the paths of a fair cycle, found {size}"
        )
    ends = (_exchange(_balanced_table(seed, start, size, space), space) for start in range(_starts(size)))
    found = [table for table in ends if not _repeats(table)] if size <= space.size else []
    if not found:
        raise UserError(
            f"eval.pool_size: there are no {size} distinct codes with equally many of each option among the "
            f"{space.size} subnets of {space.name}; choose a smaller pool"
        )
    pools = [np.stack([np.array(b.values)[table[:, i]] for i, b in enumerate(space.blocks)], axis=1) for table in found]
    # Rounded, so that the last bits do not decide. The first of equal pools is taken.
    designs = [pool_design(pool, space) for pool in pools]
    order = [(round(design.largest_v, 9), round(design.sum_of_squared_v, 9)) for design in designs]
    return pools[order.index(min(order))].astype(np.int32)


def pool_design(pool: np.ndarray, space: SearchSpace) -> Design:
    """The design figures of a pool [size, blocks] that uses every option of a block equally often."""
    table = np.stack([np.searchsorted(block.values, pool[:, b]) for b, block in enumerate(space.blocks)], axis=1)
    squares, pairs, missing = [0.0], 0, 0
    for counts in _contingencies(table, space):
        squares.append(_squared_v(counts, len(table)))
        pairs += counts.size
        missing += int(np.sum(counts == 0))
    return Design(float(np.sqrt(max(squares))), float(sum(squares)), pairs, missing)


def _starts(size: int) -> int:
    """The number of tables to start from. A larger pool takes longer per table, and any table gives a good one."""
    return min(24, max(1, 288 // size))


def _balanced_table(seed: int, start: int, size: int, space: SearchSpace) -> np.ndarray:
    """int64 [size, blocks] of indices into each block's values; every column is balanced and in random order."""
    rng = stream("pool", seed, start)
    return np.stack([rng.permutation(size) % options for options in space.num_options], axis=1)


def _exchange(table: np.ndarray, space: SearchSpace) -> np.ndarray:
    """Exchanges entries within columns until no exchange lowers (repeated codes, sum of squared V)."""
    table, improved = table.copy(), True
    while improved:
        improved = False
        for column in range(table.shape[1]):
            while _exchange_in(table, column, space):
                improved = True
    return table


def _exchange_in(table: np.ndarray, column: int, space: SearchSpace) -> bool:
    """Makes the best exchange of two entries of a column. Returns False if none improves the table."""
    gains, repeats = _gains(table, column, space), _repeats(table)
    for flat in np.argsort(gains, axis=None, kind="stable"):
        i, j = np.unravel_index(flat, gains.shape)
        if not repeats and not gains[i, j] < -_LEAST_GAIN:
            return False
        if table[i, column] == table[j, column]:
            continue
        table[[i, j], column] = table[[j, i], column]
        left = _repeats(table)
        if left < repeats or (left == repeats and gains[i, j] < -_LEAST_GAIN):
            return True
        table[[i, j], column] = table[[j, i], column]
    return False


def _gains(table: np.ndarray, column: int, space: SearchSpace) -> np.ndarray:
    """[i, j]: the change of the sum of squared V if rows i and j exchange their entries in a column."""
    size, own = table.shape[0], table[:, column]
    total = np.zeros((size, size))
    for other in range(table.shape[1]):
        options = space.num_options[column], space.num_options[other]
        if other == column or min(options) < 2:
            continue
        theirs = table[:, other]
        counts = np.zeros(options, int)
        np.add.at(counts, (own, theirs), 1)
        # With balanced columns V^2 is a sum of squared counts, up to constants. An exchange changes four counts by one.
        seen = counts[:, theirs]  # [own options, size]
        at = seen[own]  # [i, j] = counts[own of i, theirs of j]
        diagonal = np.diag(at)
        change = 2 * (at + at.T - diagonal[:, None] - diagonal[None, :]) + 4
        change[theirs[:, None] == theirs[None, :]] = 0
        total += change * (options[0] * options[1] / (size**2 * (min(options) - 1.0)))
    total[own[:, None] == own[None, :]] = 0.0
    return total


def _contingencies(table: np.ndarray, space: SearchSpace) -> Iterator[np.ndarray]:
    """How often each pair of options occurs, for each pair of blocks with more than one option."""
    for a, b in itertools.combinations(range(table.shape[1]), 2):
        options = space.num_options[a], space.num_options[b]
        if min(options) > 1:
            counts = np.zeros(options, int)
            np.add.at(counts, (table[:, a], table[:, b]), 1)
            yield counts


def _squared_v(counts: np.ndarray, size: int) -> float:
    """Squared Cramer's V of a table of counts with balanced margins."""
    expected = size / counts.size
    return float(np.sum((counts - expected) ** 2) / expected / size / (min(counts.shape) - 1))


def _repeats(table: np.ndarray) -> int:
    """Number of rows that repeat an earlier row."""
    return len(table) - len({row.tobytes() for row in table})
