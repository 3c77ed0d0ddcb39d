"""Parameters and multiply-adds against the variables and the convolutions of the real graph, and the published
numbers."""

import itertools

import numpy as np
import pytest

from edgeflownas.nas.cost import subnet_cost, supernet_parameters
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import Block, SearchSpace
from edgeflownas.network.layer_table import layer_table
from tests.nas.nas_spaces import SPACES, V1, V2

MIXED = SearchSpace(
    "mixed", tuple(block._replace(options=block.options[:2]) if i % 2 else block for i, block in enumerate(V1.blocks))
)


def cost(code, height, width, channels, space=V1):
    return subnet_cost(code, layer_table(channels, space), space, height, width)


def test_the_supernet_has_the_specified_number_of_parameters():
    assert supernet_parameters(layer_table(32, V1)) == 12122016


def test_three_single_paths_need_the_multiply_adds_of_the_design():
    """11.2 GMAC for a fair cycle at 180x240; any fair cycle costs the same, as it uses each option once."""
    cycle = [cost((value,) * 9, 180, 240, 32).multiply_adds for value in range(3)]
    assert round(sum(cycle) / 1e9, 1) == 11.2
    other = [cost(code, 180, 240, 32).multiply_adds for code in ([0, 1, 2] * 3, [1, 2, 0] * 3, [2, 0, 1] * 3)]
    assert sum(cycle) == sum(other)


@pytest.mark.parametrize("position", range(9))
def test_a_deeper_block_and_a_wider_kernel_cost_more(position):
    costs = [cost(V1.baseline[:position] + (value,) + V1.baseline[position + 1 :], 101, 67, 6) for value in range(3)]
    rising = costs if V1.blocks[position].kind == "depth" else costs[::-1]
    for cheaper, dearer in zip(rising, rising[1:]):
        assert cheaper.parameters < dearer.parameters and cheaper.multiply_adds < dearer.multiply_adds


def test_wrong_codes_are_refused():
    with pytest.raises(ValueError, match="length=9 required, got 2"):
        cost("01", 64, 64, 8)


# DESIGN, section 6, for the baseline code at 180x240: (name, kernel, channels in, channels out, output height, width).
BASELINE_LAYERS = (
    ("E0", 7, 6, 32, 90, 120),
    ("E1", 5, 32, 64, 45, 60),
    ("EB0", 3, 64, 64, 45, 60),
    ("EB0", 3, 64, 64, 45, 60),
    ("Down1", 3, 64, 128, 23, 30),
    ("EB1", 3, 128, 128, 23, 30),
    ("EB1", 3, 128, 128, 23, 30),
    ("Down2", 3, 128, 256, 12, 15),
    ("DB0", 3, 256, 256, 12, 15),
    ("DB0", 3, 256, 256, 12, 15),
    ("Up1", 3, 256, 128, 23, 30),
    ("DB1", 3, 128, 128, 23, 30),
    ("DB1", 3, 128, 128, 23, 30),
    ("Up2", 3, 128, 64, 45, 60),
    ("H0Out", 7, 64, 4, 45, 60),
    ("H1", 5, 64, 32, 90, 120),
    ("H1Out", 7, 32, 4, 90, 120),
    ("H2", 7, 32, 16, 180, 240),
    ("H2Out", 7, 16, 4, 180, 240),
)


def test_the_baseline_costs_what_its_table_of_layers_gives():
    weights = [kernel * kernel * inputs * outputs for _, kernel, inputs, outputs, _, _ in BASELINE_LAYERS]
    affine = sum(2 * outputs for name, _, _, outputs, _, _ in BASELINE_LAYERS if not name.endswith("Out"))
    multiply_adds = sum(each * height * width for each, (_, _, _, _, height, width) in zip(weights, BASELINE_LAYERS))
    assert cost(V1.baseline, 180, 240, 32) == (sum(weights) + affine, multiply_adds)


@pytest.mark.parametrize("space", [V1, MIXED, V2], ids=["v1", "two and three options", "v2"])
def test_parameters_are_the_variables_that_a_subnet_depends_on(space):
    """However the graph computes them: every trained variable that the outputs of one code's graph are made of."""
    from edgeflownas.network.layers import BatchStatistics
    from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
    from edgeflownas.network.routing import Paths
    from edgeflownas.tfcompat import tf

    class FixedPath:
        """Routes one code that is known when the graph is built, so that the graph holds nothing else."""

        def __init__(self, code):
            self.code = dict(zip(space.names, code))

        def choose(self, name, paths, option, norm, inside):
            return Paths([option(self.code[name], paths.tensors[0], norm)], 0, shared=False)

        def towards(self, name, paths):
            return paths

        def in_path_order(self, paths):
            return paths.tensors

    with tf.Graph().as_default():
        net = SupernetGraph(6, space)
        assert net.variables.parameter_count == supernet_parameters(net.layers)
        sizes = {
            variable.handle.op: int(np.prod(variable.shape.as_list())) for variable in net.variables.trained.values()
        }
        for code in random_codes(11, 3, space):
            images = tf.placeholder(tf.float32, [1, 67, 101, 6])
            outputs = net.forward(images, FixedPath(code), BatchStatistics(net.variables))
            used = _ancestors([path.op for scale in outputs for path in scale]) & set(sizes)
            assert cost(code, 67, 101, 6, space).parameters == sum(sizes[op] for op in used)


def _ancestors(operations):
    """The operations, and all that they are computed from."""
    seen, left = set(), list(operations)
    while left:
        operation = left.pop()
        if operation not in seen:
            seen.add(operation)
            left += [tensor.op for tensor in operation.inputs]
    return seen


def test_random_codes_are_distinct_reproducible_and_cover_the_space():
    few, more = random_codes(5, 7, V1), random_codes(5, 50, V1)
    assert few.dtype == np.int32 and few.shape == (7, 9)
    assert np.array_equal(few, more[:7]) and not np.array_equal(few, random_codes(6, 7, V1))
    tiny = SearchSpace("tiny", (Block("A", "depth", (1, 2)), Block("B", "kernel", (7, 5, 3))))
    every = random_codes(5, 6, tiny)
    assert sorted(map(tuple, every.tolist())) == list(itertools.product(range(2), range(3)))
    for count in (0, 7):
        with pytest.raises(ValueError, match="1..6"):
            random_codes(5, count, tiny)


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_random_codes_are_whole_fair_cycles(space):
    paths, cycles = space.num_paths, min(7, space.size // space.num_paths)
    codes = random_codes(9, cycles * paths, space).reshape(cycles, paths, -1)
    for cycle in codes:
        for column, block in zip(cycle.T, space.blocks):
            assert [np.sum(column == value) for value in block.values] == [paths // len(block.values)] * len(
                block.values
            )


def test_random_codes_are_uniform():
    """Each option first in a cycle in a third of 300 seeds: a chi-squared of 2 degrees of freedom per block."""
    first = np.array([random_codes(seed, 1, V1)[0] for seed in range(300)])
    for column in first.T:
        assert np.sum((np.bincount(column, minlength=3) - 100) ** 2 / 100) < 13.8  # p = 0.001
