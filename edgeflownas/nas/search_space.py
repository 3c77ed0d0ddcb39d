"""The search space as data: one table that codec, sampler, pool, network, manifest and documents read.

Source: the supernet training plan, section 4. To change the space, change `SPACE` (and, for a new block, where the
network
calls it): nothing else knows how many blocks there are or how many options a block has.
"""

import math
from typing import Any, Dict, NamedTuple, Tuple


class Block(NamedTuple):
    """One choice block. `options[i]` is what the value `i` of an arch code selects: the number of residual blocks of a
    `depth` block, the kernel size in pixels of a `kernel` block."""

    name: str
    kind: str
    options: Tuple[int, ...]

    def label(self, value: int) -> str:
        """`Deep2` or `5x5`."""
        option = self.options[value]
        return f"Deep{option}" if self.kind == "depth" else f"{option}x{option}"


class SearchSpace(NamedTuple):
    """An ordered tuple of choice blocks; position `i` of an arch code belongs to `blocks[i]`."""

    blocks: Tuple[Block, ...]

    @property
    def names(self) -> Tuple[str, ...]:
        return tuple(block.name for block in self.blocks)

    @property
    def num_options(self) -> Tuple[int, ...]:
        """Options per block, in code order."""
        return tuple(len(block.options) for block in self.blocks)

    @property
    def num_paths(self) -> int:
        """Paths of one fair cycle: the least number in which every block can use each of its options equally often."""
        paths = 1
        for options in self.num_options:
            paths = paths * options // math.gcd(paths, options)
        return paths

    @property
    def size(self) -> int:
        """Number of subnets."""
        size = 1
        for options in self.num_options:
            size *= options
        return size

    def position(self, name: str) -> int:
        """Position of a block in an arch code."""
        return self.names.index(name)

    def as_dict(self) -> Dict[str, Any]:
        """For the manifest and for checking a stored space against this one."""
        return {block.name: {"kind": block.kind, "options": list(block.options)} for block in self.blocks}


_DEPTHS = (1, 2, 3)
_KERNELS = (7, 5, 3)

SPACE = SearchSpace(
    (
        Block("EB0", "depth", _DEPTHS),
        Block("EB1", "depth", _DEPTHS),
        Block("DB0", "depth", _DEPTHS),
        Block("DB1", "depth", _DEPTHS),
        Block("H0Out", "kernel", _KERNELS),
        Block("H1", "kernel", _KERNELS),
        Block("H1Out", "kernel", _KERNELS),
        Block("H2", "kernel", _KERNELS),
        Block("H2Out", "kernel", _KERNELS),
    )
)

# EdgeFlowNet-bilinear as published: one residual block everywhere, 7x7 heads but for a 5x5 in H1.
BASELINE_CODE = (0, 0, 0, 0, 0, 1, 0, 0, 0)
