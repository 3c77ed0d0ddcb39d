"""The search spaces as data: one table per space, read by codec, sampler, pool, network, cost and documents.

An arch code has one integer per block: the index of the block's option. The meaning of a code never changes, so every
file with codes or weights also holds the name and digest of its space, and readers refuse files of another space. To
add a space, add a table here: no other module knows the number of blocks or their options.
Sources: the supernet training plan, section 4 (`edgeflownet_v1`).
"""

import difflib
import hashlib
import json
import math
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from edgeflownas.errors import UserError

DEPTH, KERNEL = "depth", "kernel"
# An option of a depth block is its number of residual blocks. An option of a kernel block is the size of its
# convolution, or a tuple of (size, dilation) per convolution if it has several.
Option = Union[int, Tuple[Tuple[int, int], ...]]


class Block(NamedTuple):
    """One choice block. The value `i` of an arch code selects `options[i]`.

    `only` narrows the block to one value. Values keep their meaning.
    """

    name: str
    kind: str
    options: Tuple[Option, ...]
    only: Optional[int] = None

    @property
    def values(self) -> Tuple[int, ...]:
        """The values that a code may have for this block."""
        return tuple(range(len(self.options))) if self.only is None else (self.only,)

    def convolutions(self, value: int) -> Tuple[Tuple[int, int], ...]:
        """(size, dilation) of each convolution of an option; for kernel blocks only."""
        option = self.options[value]
        return ((option, 1),) if isinstance(option, int) else option

    def label(self, value: int) -> str:
        """`Deep2`, `5x5`, or `3x3 3x3/2` (the second one dilated by 2)."""
        if self.kind == DEPTH:
            return f"Deep{self.options[value]}"
        words = [f"{size}x{size}" + (f"/{rate}" if rate > 1 else "") for size, rate in self.convolutions(value)]
        return " ".join(words)


class SearchSpace(NamedTuple):
    """A named, ordered tuple of choice blocks; position `i` of an arch code belongs to `blocks[i]`.

    `baseline` is the code of EdgeFlowNet-bilinear as published, if the space contains it.
    """

    name: str
    blocks: Tuple[Block, ...]
    baseline: Optional[Tuple[int, ...]] = None

    @property
    def names(self) -> Tuple[str, ...]:
        return tuple(block.name for block in self.blocks)

    @property
    def num_options(self) -> Tuple[int, ...]:
        """Selectable options per block, in code order."""
        return tuple(len(block.values) for block in self.blocks)

    @property
    def num_paths(self) -> int:
        """Paths of one fair cycle: the least common multiple of the blocks' numbers of options."""
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

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names, kinds and options in order. Narrowing does not change it."""
        table = [[block.name, block.kind, block.options] for block in self.blocks]
        return hashlib.sha256(json.dumps(table).encode("ascii")).hexdigest()

    @property
    def label(self) -> str:
        """Name and the beginning of the digest: `edgeflownet_v1:0123456789ab`."""
        return label_of(self.identity())

    @property
    def arch_code(self) -> Optional[Tuple[int, ...]]:
        """The only code of a narrowed space; None for a full space."""
        narrowed = all(block.only is not None for block in self.blocks)
        return tuple(block.values[0] for block in self.blocks) if narrowed else None

    def narrowed(self, code: Tuple[int, ...]) -> "SearchSpace":
        """The space narrowed to this code, which `arch_codec.parse` must have checked."""
        return self._replace(blocks=tuple(block._replace(only=value) for block, value in zip(self.blocks, code)))

    def position(self, name: str) -> int:
        """Position of a block in an arch code."""
        return self.names.index(name)

    def identity(self) -> Dict[str, str]:
        """{"name", "digest"}, as stored in files with codes or weights."""
        return {"name": self.name, "digest": self.digest}

    def as_record(self) -> Dict[str, Any]:
        """The identity and the table as plain JSON, for files that people read."""
        blocks = [
            {
                "name": block.name,
                "kind": block.kind,
                "options": [block.label(value) for value in range(len(block.options))],
            }
            for block in self.blocks
        ]
        return dict(self.identity(), blocks=blocks)


_DEPTHS = (1, 2, 3)
_KERNELS = (7, 5, 3)
_HEADS = ("H0Out", "H1", "H1Out", "H2", "H2Out")

_V1 = SearchSpace(
    "edgeflownet_v1",
    tuple(Block(name, DEPTH, _DEPTHS) for name in ("EB0", "EB1", "DB0", "DB1"))
    + tuple(Block(name, KERNEL, _KERNELS) for name in _HEADS),
    baseline=(0, 0, 0, 0, 0, 1, 0, 0, 0),
)

_V2 = SearchSpace(
    "edgeflownet_v2",
    (Block("E0", KERNEL, _KERNELS), Block("E1", KERNEL, (5, 3, ((3, 1), (3, 2)))))
    + tuple(Block(name, DEPTH, _DEPTHS) for name in ("EB0", "EB1", "DB0", "DB1"))
    + tuple(Block(name, KERNEL, (3, 5)) for name in _HEADS),
)

SPACES: Dict[str, SearchSpace] = {space.name: space for space in (_V1, _V2)}
# The space of files of the first version, which do not name it. A constant, so that a changed table is noticed.
FIRST_VERSION = {"name": "edgeflownet_v1", "digest": "a2918d5c18716a45e4bc8affc02074b129ce2ed6abe3c05d1ed16144b14019f5"}


def get_space(name: str) -> SearchSpace:
    """The space of that name. UserError with the nearest name if there is none."""
    if name not in SPACES:
        nearest = difflib.get_close_matches(name, list(SPACES), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(SPACES)}"
        raise UserError(f"network.space: there is no search space {name!r}; {hint}")
    return SPACES[name]


def label_of(identity: Dict[str, str]) -> str:
    """`SearchSpace.label` of a stored identity."""
    return f"{identity['name']}:{identity['digest'][:12]}"


def require_same_space(stored: Any, space: SearchSpace, what: str) -> None:
    """UserError, naming both spaces, unless `stored` is the identity of `space` (None: of `FIRST_VERSION`)."""
    found = FIRST_VERSION if stored is None else stored
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in FIRST_VERSION):
        raise UserError(f"{what}: expected the name and digest of a search space, found {str(stored)[:80]}")
    if {key: found[key] for key in FIRST_VERSION} != space.identity():
        raise UserError(
            f"{what} is of the search space {label_of(found)}, expected {space.label}: its codes and weights mean "
            "something else here; choose its space with network.space, or the version of edgeflownas that wrote it"
        )
