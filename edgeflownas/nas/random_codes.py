"""Random arch codes, for checks and for sampling the space: a pure function of the seed."""

import numpy as np

from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.rng import stream


def random_codes(seed: int, count: int, space: SearchSpace) -> np.ndarray:
    """`count` distinct codes, drawn uniformly, int32 [count, blocks].

    A larger `count` keeps the codes of a smaller one as its first. ValueError unless 1 <= count <= size of the space.
    """
    if not 1 <= count <= space.size:
        raise ValueError(f"random codes: count must be in 1..{space.size}, got {count}")
    numbers = stream("random_codes", seed).permutation(space.size)[:count]
    chosen = np.unravel_index(numbers, space.num_options)
    columns = [np.array(block.values)[column] for block, column in zip(space.blocks, chosen)]
    return np.stack(columns, axis=1).astype(np.int32)
