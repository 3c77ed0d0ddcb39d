"""The gates' own tables of the search spaces: blocks, options, variables, written from the design (sections 4 and 6).

Nothing here comes from the package, so that the gates notice a changed table there. `pytest gates --space NAME` chooses
the space under test; an environment variable passes it to every process of a run.
"""

import itertools
import math
import os
from collections import OrderedDict
from typing import Any, List, NamedTuple, Tuple

import numpy as np

VARIABLE = "EDGEFLOWNAS_GATE_SPACE"
DEFAULT = "edgeflownet_v1"
DEPTHS = (1, 2, 3)  # residual blocks

Convolutions = Tuple[Tuple[int, int], ...]  # (kernel size, dilation) of each convolution in a row


class Block(NamedTuple):
    """A choice block. An option is a number of residual blocks ("depth") or a row of convolutions ("kernel")."""

    name: str
    kind: str
    options: Tuple[Any, ...]

    @property
    def labels(self) -> List[str]:
        """The options' labels in the package's tables."""
        if self.kind == "depth":
            return [f"Deep{depth}" for depth in self.options]
        return [" ".join(f"{k}x{k}" + (f"/{d}" if d > 1 else "") for k, d in option) for option in self.options]

    def scope(self, value: int) -> str:
        """The part of a variable's name that belongs to an option: `deep2`, `k5`, `k3_k3d2`."""
        if self.kind == "depth":
            return f"deep{self.options[value]}"
        return "_".join(f"k{k}" + (f"d{d}" if d > 1 else "") for k, d in self.options[value])


class Space(NamedTuple):
    """Blocks in the order of an arch code. `sequence`: SHA-256 of cycles 0..299 of seed 42; `digest`: the space's
    digest in files."""

    name: str
    blocks: Tuple[Block, ...]
    baseline: Tuple[int, ...]
    parameters: int  # trained scalars at 32 channels
    sequence: str
    digest: str

    @property
    def names(self) -> List[str]:
        return [block.name for block in self.blocks]

    @property
    def counts(self) -> List[int]:
        """Options per block."""
        return [len(block.options) for block in self.blocks]

    @property
    def paths(self) -> int:
        """Paths of a fair cycle: the least common multiple of the blocks' numbers of options."""
        paths = 1
        for count in self.counts:
            paths = paths * count // math.gcd(paths, count)
        return paths

    @property
    def size(self) -> int:
        return int(np.prod(self.counts))

    def block(self, name: str) -> Any:
        """The block of that name, or None."""
        return next((block for block in self.blocks if block.name == name), None)

    def fair_codes(self, shift: int = 0) -> np.ndarray:
        """Codes of a fair cycle, int32 [paths, blocks]: each option equally often, with a shifted order per block."""
        columns = [(np.arange(self.paths) + position + shift) % count for position, count in enumerate(self.counts)]
        return np.stack(columns, axis=1).astype(np.int32)

    def fair(self, codes: Any) -> bool:
        """Whether the codes use each option of every block equally often."""
        columns = list(zip(*codes))
        return len(columns) == len(self.blocks) and all(
            sorted(column) == sorted(list(range(count)) * (self.paths // count))
            for column, count in zip(columns, self.counts)
        )

    def every_code(self) -> Any:
        return itertools.product(*[range(count) for count in self.counts])


def _depth(*names: str) -> Tuple[Block, ...]:
    return tuple(Block(name, "depth", DEPTHS) for name in names)


def _kernel(sizes: Tuple[int, ...], *names: str) -> Tuple[Block, ...]:
    return tuple(Block(name, "kernel", tuple(((size, 1),) for size in sizes)) for name in names)


_HEADS = ("H0Out", "H1", "H1Out", "H2", "H2Out")
V1 = Space(
    "edgeflownet_v1",
    _depth("EB0", "EB1", "DB0", "DB1") + _kernel((7, 5, 3), *_HEADS),
    (0, 0, 0, 0, 0, 1, 0, 0, 0),
    12122016,
    "59168872541a2c9e636d7d075fde6009f3e42a0a6cc4b86a863235ecb556fe18",
    "a2918d5c18716a45e4bc8affc02074b129ce2ed6abe3c05d1ed16144b14019f5",
)
V2 = Space(
    "edgeflownet_v2",
    _kernel((7, 5, 3), "E0")
    + (Block("E1", "kernel", (((5, 1),), ((3, 1),), ((3, 1), (3, 2)))),)
    + _depth("EB0", "EB1", "DB0", "DB1")
    + _kernel((3, 5), *_HEADS),
    (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1),  # no published network: E0 7x7, E1 5x5, Deep1, heads 5x5
    12055008,
    "dc0effc2bfce3b76446d1fe6d9856032eb38483d1c13335b631c09a1a4bbd376",
    "440015a7c3e8e8365fed775dd61330c516b6109eace88b3b59fca92d90bef7b7",
)
SPACES = {space.name: space for space in (V1, V2)}


def chosen() -> Space:
    """The space under test."""
    return SPACES[os.environ.get(VARIABLE) or DEFAULT]


def flag() -> str:
    """The flag that selects the space under test; empty for the default space, as in the specification's commands."""
    return "" if chosen().name == DEFAULT else f" --space {chosen().name}"


# ---- the network's layers (design, section 6): (place, kernel if the space has no block there, input channels, output
# channels). Channels are in units of `init_channels`; 0 stands for the six of the input, -1 for the four of an output.

_LAYERS = (
    ("E0", 7, 0, 1),
    ("E1", 5, 1, 2),
    ("EB0", None, 2, 2),
    ("Down1", 3, 2, 4),
    ("EB1", None, 4, 4),
    ("Down2", 3, 4, 8),
    ("DB0", None, 8, 8),
    ("Up1", 3, 8, 4),
    ("DB1", None, 4, 4),
    ("Up2", 3, 4, 2),
    ("H0Out", None, 2, -1),
    ("H1", None, 2, 1),
    ("H1Out", None, 1, -1),
    ("H2", None, 1, 0.5),
    ("H2Out", None, 0.5, -1),
)


def places_without_a_fixed_layer() -> List[str]:
    """The places of the network where every space must have a block."""
    return [place for place, kernel, _, _ in _LAYERS if kernel is None]


def expected_variables(space: Space, channels: int = 32) -> "OrderedDict[str, Tuple[int, ...]]":
    """{name: shape} of every variable of the supernet, including moving averages."""
    shapes: "OrderedDict[str, Tuple[int, ...]]" = OrderedDict()

    def norm(name: str, width: int) -> None:
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"supernet/{name}/{part}"] = (width,)

    for place, kernel, source, target in _LAYERS:
        inputs = 6 if source == 0 else int(source * channels)
        outputs = 4 if target == -1 else int(target * channels)
        block = space.block(place)
        if block is None:
            shapes[f"supernet/{place}/conv/kernel"] = (kernel, kernel, inputs, outputs)
        elif block.kind == "depth":
            for value, depth in enumerate(block.options):
                for number, i in itertools.product(range(1, depth + 1), (1, 2)):
                    name = f"{place}/{block.scope(value)}/block{number}"
                    shapes[f"supernet/{name}/conv{i}/kernel"] = (3, 3, outputs, outputs)
                    norm(f"{name}/bn{i}", outputs)
            continue
        else:
            for value, option in enumerate(block.options):
                for number, (size, _) in enumerate(option, 1):
                    name = f"{place}/{block.scope(value)}/conv{number if len(option) > 1 else ''}"
                    width = inputs if number == 1 else outputs
                    shapes[f"supernet/{name}/kernel"] = (size, size, width, outputs)
                    if number < len(option):
                        norm(f"{place}/{block.scope(value)}/bn{number}", outputs)
        if not place.endswith("Out"):
            norm(place + "/bn", outputs)
    return shapes


def trained_scalars(space: Space, channels: int = 32) -> int:
    """The number of trained scalars of the supernet."""
    shapes = expected_variables(space, channels).items()
    return int(sum(np.prod(shape) for name, shape in shapes if not name.split("/")[-1].startswith("moving")))
