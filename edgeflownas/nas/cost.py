"""The cost of a subnet: trained parameters and multiply-adds, counted from the layer table without building a graph.

Multiply-adds are those of convolutions, one per kernel weight and output pixel. Upsampling and additions do not count,
nor does batch norm, which is folded into the convolutions on a device. Parameters are kernels and the gamma and beta of
each batch norm channel. The caller passes the layers (`network.layer_table`); tests compare with the graph's variables.
"""

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Sequence

from edgeflownas.nas.arch_codec import parse
from edgeflownas.nas.search_space import SearchSpace

if TYPE_CHECKING:
    from edgeflownas.network.layer_table import Layer


class Cost(NamedTuple):
    """The cost of one subnet or option; `multiply_adds` are those of one image pair of the given size."""

    parameters: int
    multiply_adds: int


def subnet_cost(code: Any, layers: Sequence["Layer"], space: SearchSpace, height: int, width: int) -> Cost:
    """The cost of the subnet `code` for inputs of `height` x `width` pixels. Raises ValueError for a wrong code."""
    chosen = dict(zip(space.names, parse(code, space)))
    costs = [option_costs(layer, height, width)[chosen.get(layer.name, 0)] for layer in layers]
    return Cost(sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs))


def option_costs(layer: "Layer", height: int, width: int) -> Dict[int, Cost]:
    """{value: cost} of each option of a layer. Each cost includes the batch norm after the layer, which they share."""
    pixels = _ceil(height, layer.place.stage) * _ceil(width, layer.place.stage)
    shared = [layer.norm] if layer.norm else []
    return {
        value: Cost(
            _weights(layer, value) + _affine(layer, layer.norms(value) + shared), _weights(layer, value) * pixels
        )
        for value in layer.values
    }


def supernet_parameters(layers: Sequence["Layer"]) -> int:
    """The number of trained parameters of all options together."""
    total = 0
    for layer in layers:
        shared = [layer.norm] if layer.norm else []
        total += sum(_weights(layer, value) for value in layer.values) + _affine(layer, layer.norms_inside() + shared)
    return total


def _weights(layer: "Layer", value: int) -> int:
    return sum(conv.kernel**2 * conv.inputs * conv.outputs for conv in layer.convolutions(value))


def _affine(layer: "Layer", norms: List[str]) -> int:
    """The number of gammas and betas of these batch norms; each has the layer's channels."""
    return 2 * layer.place.outputs * len(norms)


def _ceil(size: int, stage: int) -> int:
    return -(-size // 2**stage)
