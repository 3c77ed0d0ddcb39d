"""The network's layers as data: one table for the variables, the forward pass and the cost of a subnet.

Each layer reads the result of another layer. If the search space has a block with the layer's name, the layer has that
block's options; otherwise it is fixed. Built on the search space, without TensorFlow.
"""

from typing import Dict, List, NamedTuple, Optional, Tuple

from edgeflownas.errors import UserError
from edgeflownas.nas.search_space import DEPTH, KERNEL, Block, SearchSpace

SCOPE = "supernet"
IMAGES = "images"
IMAGE_CHANNELS, OUT_CHANNELS = 6, 4
SMALLEST = 64  # pixels, smallest height and width of an image
RESIDUAL_KERNEL = 3  # both convolutions of a residual block


class Conv(NamedTuple):
    """A convolution without bias, SAME padding. `name` is its variable scope."""

    name: str
    kernel: int
    inputs: int
    outputs: int
    dilation: int = 1


class Place(NamedTuple):
    """A row of the table: a layer whose result has 1/2**`stage` of the input's size and `outputs` channels.

    It reads the result of `source`; if their stages differ, it has stride 2 or upsamples. `kernel` is its kernel size
    if the space has no block of that name; None = the space must have one. `kind` is the kind required of the block.
    """

    name: str
    source: str
    stage: int
    outputs: int
    kind: str
    kernel: Optional[int] = None


class Layer(NamedTuple):
    """A place in the network for one space. `block` is its choice block, None for a fixed layer."""

    place: Place
    inputs: int
    source_stage: int
    block: Optional[Block]

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def values(self) -> Tuple[int, ...]:
        """The code values that select this layer's options; (0,) for a fixed layer."""
        return self.block.values if self.block else (0,)

    @property
    def stride(self) -> int:
        return 2 if self.place.stage > self.source_stage else 1

    @property
    def upsampled(self) -> bool:
        return self.place.stage < self.source_stage

    @property
    def norm(self) -> str:
        """Scope of the batch norm after the layer, which its options share; empty if there is none."""
        follows = self.place.kind == KERNEL and self.name not in OUTPUTS
        return f"{SCOPE}/{self.name}/bn" if follows else ""

    def convolutions(self, value: int) -> List[Conv]:
        """The convolutions of an option, in order."""
        width = self.place.outputs
        if self.place.kind == DEPTH:
            scopes = self.residual_scopes(value)
            return [Conv(f"{scope}/conv{i}", RESIDUAL_KERNEL, width, width) for scope in scopes for i in (1, 2)]
        if self.block is None:
            return [Conv(f"{SCOPE}/{self.name}/conv", self.place.kernel or 0, self.inputs, width)]
        sizes = self.block.convolutions(value)
        option = "_".join(f"k{size}" + (f"d{rate}" if rate > 1 else "") for size, rate in sizes)
        numbers = [""] if len(sizes) == 1 else [str(i + 1) for i in range(len(sizes))]
        return [
            Conv(f"{SCOPE}/{self.name}/{option}/conv{number}", size, width if i else self.inputs, width, rate)
            for i, (number, (size, rate)) in enumerate(zip(numbers, sizes))
        ]

    def norms(self, value: int) -> List[str]:
        """Scopes of the batch norms inside an option: after each convolution, except after a kernel block's last."""
        scopes = [conv.name.replace("/conv", "/bn") for conv in self.convolutions(value)]
        return scopes if self.place.kind == DEPTH else scopes[:-1]

    def norms_inside(self) -> List[str]:
        """Scopes of the batch norms inside all options."""
        return [norm for value in self.values for norm in self.norms(value)]

    def residual_scopes(self, value: int) -> List[str]:
        """Variable scopes of the residual blocks of one option of a depth block, in order."""
        depth = self.block.options[value] if self.block else 0
        return [f"{SCOPE}/{self.name}/deep{depth}/block{i + 1}" for i in range(int(depth))]  # type: ignore


def places(c: int) -> Tuple[Place, ...]:
    """The table for `c` = `network.init_channels`: widths c / 2 to 8 c, outputs 4. Source: EdgeFlowNet-bilinear."""
    return (
        Place("E0", IMAGES, 1, c, KERNEL, 7),
        Place("E1", "E0", 2, 2 * c, KERNEL, 5),
        Place("EB0", "E1", 2, 2 * c, DEPTH),
        Place("Down1", "EB0", 3, 4 * c, KERNEL, 3),
        Place("EB1", "Down1", 3, 4 * c, DEPTH),
        Place("Down2", "EB1", 4, 8 * c, KERNEL, 3),
        Place("DB0", "Down2", 4, 8 * c, DEPTH),
        Place("Up1", "DB0", 3, 4 * c, KERNEL, 3),
        Place("DB1", "Up1", 3, 4 * c, DEPTH),
        Place("Up2", "DB1", 2, 2 * c, KERNEL, 3),
        Place("H0Out", "Up2", 2, OUT_CHANNELS, KERNEL),
        Place("H1", "Up2", 1, c, KERNEL),
        Place("H1Out", "H1", 1, OUT_CHANNELS, KERNEL),
        Place("H2", "H1", 0, c // 2, KERNEL),
        Place("H2Out", "H2", 0, OUT_CHANNELS, KERNEL),
    )


OUTPUTS = ("H0Out", "H1Out", "H2Out")  # from coarse to fine


def layer_table(init_channels: int, space: SearchSpace) -> Tuple[Layer, ...]:
    """All layers of the network for this space, in execution order.

    UserError if the space has a block that the network does not have, lacks a block that the network needs, or has a
    block with the wrong kind, the name of another block, no options or the same option twice.
    """
    table = places(init_channels)
    _check_blocks(space, [place.name for place in table])
    blocks: Dict[str, Block] = {block.name: block for block in space.blocks}
    width, stage = {IMAGES: IMAGE_CHANNELS}, {IMAGES: 0}
    layers = []
    for place in table:
        inputs, block = width[place.source], blocks.get(place.name)
        if block is None and place.kernel is None:
            raise UserError(f"search space {space.name}: the network visits {place.name}, but there is no such block")
        if block is not None and block.kind != place.kind:
            raise UserError(
                f"search space {space.name}: block {block.name}: the network has a {place.kind} choice there, "
                f"found the kind {block.kind!r}"
            )
        layers.append(Layer(place, inputs, stage[place.source], block))
        width[place.name], stage[place.name] = place.outputs, place.stage
    return tuple(layers)


def _check_blocks(space: SearchSpace, visited: List[str]) -> None:
    """UserError for an unknown block, two blocks of one name, no options, or two options that would share weights."""
    where = f"search space {space.name}"
    for block in space.blocks:
        labels = [block.label(value) for value in range(len(block.options))]
        repeated = [label for label in labels if labels.count(label) > 1]
        if block.name not in visited:
            raise UserError(f"{where}: the network never visits block {block.name}")
        if space.names.count(block.name) > 1:
            raise UserError(f"{where}: there are two blocks {block.name}")
        if not labels:
            raise UserError(f"{where}: block {block.name} has no options")
        if repeated:
            raise UserError(f"{where}: block {block.name} has the option {repeated[0]} twice")
