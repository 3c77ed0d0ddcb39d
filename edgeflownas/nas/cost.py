"""What a subnet costs: trained parameters and multiply-adds, counted from the layer table without building a graph.

Only convolutions count as multiply-adds: one per kernel weight and output pixel. Batch norm, which folds into them on
a device, upsampling and additions do not. Parameters are kernels and the two affine values of each batch norm. The
layers are handed in (`network.layer_table`); a test compares every count with the variables of the real graph.
"""

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Sequence

from edgeflownas.nas.arch_codec import parse
from edgeflownas.nas.search_space import SearchSpace

if TYPE_CHECKING:
    from edgeflownas.network.layer_table import Layer


class Cost(NamedTuple):
    """Of one subnet or option; `multiply_adds` of one image pair of the size asked for."""

    parameters: int
    multiply_adds: int


def subnet_cost(code: Any, layers: Sequence["Layer"], space: SearchSpace, height: int, width: int) -> Cost:
    """What the subnet `code` costs for inputs of `height` x `width` pixels. Raises ValueError for a wrong code."""
    chosen = dict(zip(space.names, parse(code, space)))
    costs = [option_costs(layer, height, width)[chosen.get(layer.name, 0)] for layer in layers]
    return Cost(sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs))


def option_costs(layer: "Layer", height: int, width: int) -> Dict[int, Cost]:
    """{value: cost} of each option that can stand at a layer, the batch norm behind it included."""
    pixels = _ceil(height, layer.place.stage) * _ceil(width, layer.place.stage)
    shared = [layer.norm] if layer.norm else []
    return {
        value: Cost(
            _weights(layer, value) + _affine(layer, layer.norms(value) + shared), _weights(layer, value) * pixels
        )
        for value in layer.values
    }


def supernet_parameters(layers: Sequence["Layer"]) -> int:
    """Trained parameters of all options together."""
    total = 0
    for layer in layers:
        shared = [layer.norm] if layer.norm else []
        total += sum(_weights(layer, value) for value in layer.values) + _affine(layer, layer.norms_inside() + shared)
    return total


def _weights(layer: "Layer", value: int) -> int:
    return sum(conv.kernel**2 * conv.inputs * conv.outputs for conv in layer.convolutions(value))


def _affine(layer: "Layer", norms: List[str]) -> int:
    """Gamma and beta of these batch norms, which all have the layer's channels."""
    return 2 * layer.place.outputs * len(norms)


def _ceil(size: int, stage: int) -> int:
    return -(-size // 2**stage)
