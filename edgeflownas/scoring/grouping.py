"""Groups a list of codes for the fused graph, which scores several codes at once. NumPy only.

The fused graph needs codes that use every option of a block equally often. A smaller group in which no option occurs
too often is completed with filler codes, if that costs less than scoring its codes one by one.
"""

from typing import Iterator, List, NamedTuple

import numpy as np

from edgeflownas.nas.search_space import SearchSpace

FUSED = 12  # codes that go through the network at once, as many as in the default pool
MOST_FILLERS = 2  # per group; 12 fused codes cost about as much as 10.2 codes one by one (docs/performance.md)


class Group(NamedTuple):
    """`codes` int32 [P, blocks] run at once. The first ones are at `positions` of the list; the rest are fillers."""

    positions: np.ndarray
    codes: np.ndarray


def groups(codes: np.ndarray, space: SearchSpace) -> Iterator[Group]:
    """Yields each code of a list int32 [N, blocks] once: first fused groups of equal size, then single codes."""
    size = FUSED // space.num_paths * space.num_paths if space.num_paths > 1 else 1
    left = np.arange(len(codes))
    while size > 1 and len(left):
        chosen = _fitting(codes[left], size, space)
        if len(chosen) < size - MOST_FILLERS:
            break
        positions = left[chosen]
        yield Group(positions, _completed(codes[positions], size, space))
        left = np.delete(left, chosen)
    for position in left:
        yield Group(np.array([position]), codes[position : position + 1])


def _uses_per_option(space: SearchSpace, size: int) -> List[np.ndarray]:
    """Per block, how often a full group uses each option."""
    width = max(int(max(block.values)) for block in space.blocks) + 1
    per_block = []
    for block in space.blocks:
        uses = np.zeros(width, int)
        uses[list(block.values)] = size // len(block.values)
        per_block.append(uses)
    return per_block


def _fitting(codes: np.ndarray, size: int, space: SearchSpace) -> np.ndarray:
    """Positions of up to `size` codes that fit into one group.

    If the first `size` codes fill a group, these. Otherwise a greedy choice: the first code, then always the code whose
    options have the most uses left; ties go to the earlier code.
    """
    left = np.stack(_uses_per_option(space, size))  # [blocks, options]
    blocks = np.arange(codes.shape[1])
    if len(codes) >= size and _balanced(codes[:size], left):
        return np.arange(size)
    chosen: List[int] = []
    free = np.ones(len(codes), bool)
    while len(chosen) < min(size, len(codes)):
        space_left = left[blocks, codes]  # [N, blocks]
        value = np.where(free & (space_left.min(axis=1) > 0), space_left.sum(axis=1), -1)
        best = int(np.argmax(value)) if chosen else 0
        if value[best] < 0:
            break
        chosen.append(best)
        free[best] = False
        left[blocks, codes[best]] -= 1
    return np.array(chosen, int)


def _balanced(codes: np.ndarray, wanted: np.ndarray) -> bool:
    counts = [np.bincount(column, minlength=wanted.shape[1]) for column in codes.T]
    return bool(np.array_equal(np.stack(counts), wanted))


def _completed(codes: np.ndarray, size: int, space: SearchSpace) -> np.ndarray:
    """The codes, followed by fillers, so that every option is used equally often: int32 [size, blocks]."""
    columns = []
    for column, wanted in zip(codes.T, _uses_per_option(space, size)):
        lacking = wanted - np.bincount(column, minlength=len(wanted))
        columns.append(np.concatenate([column, np.repeat(np.arange(len(wanted)), lacking)]))
    return np.stack(columns, axis=1).astype(np.int32)
