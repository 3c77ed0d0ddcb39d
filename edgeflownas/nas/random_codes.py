"""Arch codes drawn at random, for checks and for sampling the space: a pure function of the seed.

They come as whole fair cycles, so that every P of them (P = `space.num_paths`) use each option of a block equally
often: a sample is balanced, and a few cycles go through the network at once. A step that moves every block on to the
next of its options, or to the one before, takes each code through a fair cycle; so every code is in just one of them.
"""

from typing import List

import numpy as np

from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.rng import stream


def random_codes(seed: int, count: int, space: SearchSpace) -> np.ndarray:
    """`count` distinct codes, int32 [count, blocks], each uniformly drawn; a larger `count` continues a smaller one.

    Raises ValueError unless 1 <= count <= the size of the space.
    """
    if not 1 <= count <= space.size:
        raise ValueError(f"random codes: count must be in 1..{space.size}, got {count}")
    draw = stream("random_codes", seed)
    steps = [(1, options - 1)[int(draw.randint(2))] for options in space.num_options]
    cycles = np.stack(_walks(steps, space), axis=1)  # [subnets, P]: a row for the cycle of every subnet
    order = draw.permutation(space.size)
    _, first = np.unique(cycles.min(axis=1)[order], return_index=True)
    numbers = cycles[order[np.sort(first)]].ravel()[:count]
    chosen = np.unravel_index(numbers, space.num_options)
    columns = [np.array(block.values)[column] for block, column in zip(space.blocks, chosen)]
    return np.stack(columns, axis=1).astype(np.int32)


def _walks(steps: List[int], space: SearchSpace) -> List[np.ndarray]:
    """The number of the subnet that each subnet comes to after 0, 1, ... P - 1 steps, P arrays [subnets]."""
    places = np.unravel_index(np.arange(space.size), space.num_options)
    walks = []
    for t in range(space.num_paths):
        moved = [(place + t * step) % n for place, step, n in zip(places, steps, space.num_options)]
        walks.append(np.ravel_multi_index(moved, space.num_options))
    return walks
