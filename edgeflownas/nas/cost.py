"""What a subnet costs: trained parameters and multiply-adds, counted from its layers without building a
graph.

Only convolutions are counted as multiply-adds (one multiply-add per kernel weight and output pixel); batch
norm, which folds into them on a device, upsampling and additions are not. Parameters are kernels and the two
affine values of a batch norm. The widths are those of the network; a test compares every count with the
variables of the real graph.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from edgeflownas.nas.arch_codec import parse
from edgeflownas.nas.search_space import SPACE, Block, SearchSpace

OUT_CHANNELS = 4
RESIDUAL_KERNEL = 3  # both convolutions of a residual block


class Cost(NamedTuple):
    """Of one subnet; `multiply_adds` of one image pair of the size asked for."""

    parameters: int
    multiply_adds: int


class Place(NamedTuple):
    """A fixed layer (`kernel` pixels wide) or a choice block (`kernel` None), working at 1/2**`stage` of the
    input's size."""

    name: str
    inputs: int
    outputs: int
    stage: int
    kernel: Optional[int] = None


def places(init_channels: int) -> List[Place]:
    """Every layer and choice block of the network, in order; C = `init_channels`."""
    c = init_channels
    return [
        Place("E0", 6, c, 1, 7),
        Place("E1", c, 2 * c, 2, 5),
        Place("EB0", 2 * c, 2 * c, 2),
        Place("Down1", 2 * c, 4 * c, 3, 3),
        Place("EB1", 4 * c, 4 * c, 3),
        Place("Down2", 4 * c, 8 * c, 4, 3),
        Place("DB0", 8 * c, 8 * c, 4),
        Place("Up1", 8 * c, 4 * c, 3, 3),
        Place("DB1", 4 * c, 4 * c, 3),
        Place("Up2", 4 * c, 2 * c, 2, 3),
        Place("H0Out", 2 * c, OUT_CHANNELS, 2),
        Place("H1", 2 * c, c, 1),
        Place("H1Out", c, OUT_CHANNELS, 1),
        Place("H2", c, c // 2, 0),
        Place("H2Out", c // 2, OUT_CHANNELS, 0),
    ]


def subnet_cost(code: Any, height: int, width: int, init_channels: int, space: SearchSpace = SPACE) -> Cost:
    """What the subnet `code` costs for inputs of `height` x `width` pixels. Raises ValueError for a wrong
    code."""
    chosen = dict(zip(space.names, parse(code, space)))
    costs = [option_costs(place, height, width, space)[chosen.get(place.name, 0)] for place in places(init_channels)]
    return Cost(sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs))


def option_costs(place: Place, height: int, width: int, space: SearchSpace = SPACE) -> List[Cost]:
    """What each option of a choice block costs, or a fixed layer as its only one, with the batch norm behind it, for
    network inputs of `height` x `width` pixels."""
    blocks = _blocks(space)
    pixels = _ceil(height, place.stage) * _ceil(width, place.stage)
    costs = []
    for value in _options(place, blocks):
        kernels = _kernels(place, blocks, value)
        weights = _weights(place, kernels)
        costs.append(Cost(weights + _affine(place, blocks, len(kernels)), weights * pixels))
    return costs


def supernet_parameters(init_channels: int, space: SearchSpace = SPACE) -> int:
    """Trained parameters of all options together."""
    blocks = _blocks(space)
    total = 0
    for place in places(init_channels):
        kernels = [kernel for value in _options(place, blocks) for kernel in _kernels(place, blocks, value)]
        total += _weights(place, kernels) + _affine(place, blocks, len(kernels))
    return total


def _blocks(space: SearchSpace) -> Dict[str, Block]:
    return {block.name: block for block in space.blocks}


def _options(place: Place, blocks: Dict[str, Block]) -> range:
    """Values of a code that there are to choose from; a fixed layer has one."""
    return range(len(blocks[place.name].options) if place.name in blocks else 1)


def _kernels(place: Place, blocks: Dict[str, Block], value: int) -> List[int]:
    """Sizes of the convolutions that run there, one after the other; `value` is the block's option."""
    if place.kernel is not None:
        return [place.kernel]
    block = blocks[place.name]
    return [RESIDUAL_KERNEL] * (2 * block.options[value]) if block.kind == "depth" else [block.options[value]]


def _weights(place: Place, kernels: Sequence[int]) -> int:
    # The convolutions of a residual block keep the width, so one pair of widths does for all of them.
    return sum(kernel * kernel for kernel in kernels) * place.inputs * place.outputs


def _affine(place: Place, blocks: Dict[str, Block], convolutions: int) -> int:
    """Gamma and beta: one batch norm per convolution of a depth block, one shared by a kernel block's
    options, none at the outputs."""
    if place.outputs == OUT_CHANNELS and place.name.endswith("Out"):
        return 0
    depth = place.name in blocks and blocks[place.name].kind == "depth"
    return 2 * place.outputs * (convolutions if depth else 1)


def _ceil(size: int, stage: int) -> int:
    return -(-size // 2**stage)
