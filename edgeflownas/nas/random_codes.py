"""Arch codes drawn at random, for checks and for sampling the space: a pure function of the seed. Built on `rng`.

They come in fair cycles of P = `space.num_paths` codes, which use each option of a block equally often. So a sample is
balanced, and whole cycles go through the network at once. The cycles partition the space: a step moves every block to
its next or its previous option (drawn once per block), and P steps lead from a code through its cycle back to itself.
"""

from typing import List

import numpy as np

from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.rng import stream


def random_codes(seed: int, count: int, space: SearchSpace) -> np.ndarray:
    """`count` distinct codes, int32 [count, blocks], each uniformly distributed. The last cycle may be cut off.

    The first codes of a larger `count` are those of a smaller one. ValueError unless 1 <= count <= size of the space.
    """
    if not 1 <= count <= space.size:
        raise ValueError(f"random codes: count must be in 1..{space.size}, got {count}")
    draw = stream("random_codes", seed)
    steps = [(1, options - 1)[int(draw.randint(2))] for options in space.num_options]
    cycles = np.stack(_walks(steps, space), axis=1)  # [subnets, P]: the cycle of every subnet
    order = draw.permutation(space.size)
    _, first = np.unique(cycles.min(axis=1)[order], return_index=True)
    numbers = cycles[order[np.sort(first)]].ravel()[:count]
    chosen = np.unravel_index(numbers, space.num_options)
    columns = [np.array(block.values)[column] for block, column in zip(space.blocks, chosen)]
    return np.stack(columns, axis=1).astype(np.int32)


def _walks(steps: List[int], space: SearchSpace) -> List[np.ndarray]:
    """P arrays [subnets]: the number of the subnet that each subnet reaches after 0, 1, ... P - 1 steps."""
    places = np.unravel_index(np.arange(space.size), space.num_options)
    walks = []
    for t in range(space.num_paths):
        moved = [(place + t * step) % n for place, step, n in zip(places, steps, space.num_options)]
        walks.append(np.ravel_multi_index(moved, space.num_options))
    return walks
