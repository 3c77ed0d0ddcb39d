"""Parameters and multiply-adds against the variables and the convolutions of the real graph, and the published numbers."""

import itertools

import numpy as np
import pytest

from edgeflownas.nas.complexity import subnet_cost, supernet_parameters
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import BASELINE_CODE, SPACE, Block, SearchSpace

MIXED = SearchSpace(
    tuple(block._replace(options=block.options[:2]) if i % 2 else block for i, block in enumerate(SPACE.blocks))
)


def test_the_supernet_has_the_specified_number_of_parameters():
    assert supernet_parameters(32) == 12122016


def test_three_single_paths_need_the_multiply_adds_of_the_design():
    """11.2 GMAC for a fair cycle at 180x240; any fair cycle costs the same, as it uses each option once."""
    cycle = [subnet_cost((value,) * 9, 180, 240, 32).multiply_adds for value in range(3)]
    assert round(sum(cycle) / 1e9, 1) == 11.2
    other = [subnet_cost(code, 180, 240, 32).multiply_adds for code in ([0, 1, 2] * 3, [1, 2, 0] * 3, [2, 0, 1] * 3)]
    assert sum(cycle) == sum(other)


@pytest.mark.parametrize("position", range(9))
def test_a_deeper_block_and_a_wider_kernel_cost_more(position):
    costs = [subnet_cost(BASELINE_CODE[:position] + (value,) + BASELINE_CODE[position + 1 :], 101, 67, 6) for value in range(3)]
    rising = costs if SPACE.blocks[position].kind == "depth" else costs[::-1]
    for cheaper, dearer in zip(rising, rising[1:]):
        assert cheaper.parameters < dearer.parameters and cheaper.multiply_adds < dearer.multiply_adds


def test_wrong_codes_are_refused():
    with pytest.raises(ValueError, match="length=9 required, got 2"):
        subnet_cost("01", 64, 64, 8)


@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["three options", "two and three options"])
def test_counts_are_those_of_the_graph(space):
    """Variables by name, and the multiply-adds of every convolution of one subnet's graph."""
    from edgeflownas.network.layers import BatchStatistics
    from edgeflownas.network.MultiScaleResNet_supernet import Supernet
    from edgeflownas.network.routing import Paths
    from edgeflownas.tfcompat import tf

    class FixedPath:
        """Routes one code that is known when the graph is built, so that the graph holds nothing else."""

        def __init__(self, code):
            self.code = code

        def choose(self, name, paths, option, norm, inside):
            return Paths([option(self.code[space.position(name)], paths.tensors[0], norm)], space.position(name))

        def in_path_order(self, paths):
            return paths.tensors

    for code in random_codes(11, 3, space):
        with tf.Graph().as_default() as graph:
            net = Supernet(6, space)
            assert net.variables.parameter_count == supernet_parameters(6, space)
            before = set(graph.get_operations())
            outputs = net.forward(tf.placeholder(tf.float32, [1, 67, 101, 6]), FixedPath(code), BatchStatistics(net.variables))
            convolutions = [op for op in graph.get_operations() if op.type == "Conv2D" and op not in before]
            assert len(outputs) == 3
        multiply_adds = parameters = 0
        for op in convolutions:
            weights = int(np.prod(op.inputs[1].shape.as_list()))
            parameters += weights
            multiply_adds += weights * int(np.prod(op.outputs[0].shape.as_list()[1:3]))
        norms = [op for op in graph.get_operations() if op.type == "FusedBatchNormV3" and op not in before]
        parameters += sum(2 * op.outputs[0].shape.as_list()[3] for op in norms)
        assert subnet_cost(code, 67, 101, 6, space) == (parameters, multiply_adds)


def test_random_codes_are_distinct_reproducible_and_cover_the_space():
    few, more = random_codes(5, 7), random_codes(5, 50)
    assert few.dtype == np.int32 and few.shape == (7, 9)
    assert np.array_equal(few, more[:7]) and not np.array_equal(few, random_codes(6, 7))
    tiny = SearchSpace((Block("A", "depth", (1, 2)), Block("B", "kernel", (7, 5, 3))))
    every = random_codes(5, 6, tiny)
    assert sorted(map(tuple, every.tolist())) == list(itertools.product(range(2), range(3)))
    for count in (0, 7):
        with pytest.raises(ValueError, match="1..6"):
            random_codes(5, count, tiny)
