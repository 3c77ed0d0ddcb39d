"""edgeflownet_v2's network against plain NumPy, on odd sizes; its names and parameters written out by hand."""

import numpy as np
import pytest

from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.network.layers import BatchStatistics, StoredStatistics
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.network.routing import FairPaths, SinglePath
from edgeflownas.tfcompat import tf
from tests.nas.nas_spaces import V2
from tests.network.v2_oracle import V2Network, dilated

HEIGHT, WIDTH, BATCH = 67, 83, 2  # E1 works on 17x21: odd, so that a dilated convolution's padding shows
IMAGES = np.random.RandomState(1).randint(0, 256, (BATCH, HEIGHT, WIDTH, 6)).astype(np.uint8)
CODES = {"5x5": (0, 0, 0, 1, 2, 0, 0, 1, 0, 1, 0), "3x3": (1, 1, 2, 0, 1, 1, 1, 0, 1, 0, 1),
         "3x3 3x3/2": (2, 2, 1, 2, 0, 2, 0, 0, 1, 1, 0)}  # fmt: skip


class Fixture:
    """A narrow supernet with both routes in one graph, all affine values random."""

    def __init__(self):
        with tf.Graph().as_default():
            self.net = SupernetGraph(4, V2)
            self.images = tf.placeholder(tf.uint8, [BATCH, HEIGHT, WIDTH, 6])
            self.codes = tf.placeholder(tf.int32, [6, 11])
            self.code = tf.placeholder(tf.int32, [1, 11])
            scaled = tf.cast(self.images, tf.float32) / 127.5 - 1
            norm = BatchStatistics(self.net.variables)
            self.fused = self.net.forward(scaled, FairPaths(self.codes, V2), BatchStatistics(self.net.variables))
            self.single = self.net.forward(scaled, SinglePath(self.code, V2), norm)
            self.vector = norm.flat()
            self.statistics = tf.placeholder(tf.float32, self.vector.shape)
            stored = StoredStatistics(self.net.variables, self.statistics, norm.applications())
            self.scored = self.net.forward(scaled, SinglePath(self.code, V2), stored)
            self.session = tf.Session()
            self.net.variables.initialize(self.session, 5)
            draw = np.random.RandomState(8)
            for name, variable in self.net.variables.trained.items():
                if not name.endswith("/kernel"):
                    variable.load(draw.uniform(0.5, 1.5, variable.shape.as_list()), self.session)
            self.weights = self.session.run(dict(self.net.variables.trained))


@pytest.fixture(scope="module")
def made():
    return Fixture()


def assert_close(got, want):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=5e-4, atol=5e-4 * np.abs(want).max())


@pytest.mark.parametrize("code", CODES.values(), ids=list(CODES))
def test_a_single_path_is_the_plain_network(made, code):
    outputs = made.session.run(made.single, {made.images: IMAGES, made.code: [code]})
    for got, want in zip(outputs, V2Network(made.weights, code).forward(IMAGES)):
        assert_close(got[0], want)


def test_each_fused_path_is_the_plain_network_of_its_code(made):
    codes = fair_cycle(42, 1, V2)
    fused = made.session.run(made.fused, {made.images: IMAGES, made.codes: codes})
    for path, code in enumerate(codes):
        for got, want in zip(fused, V2Network(made.weights, code).forward(IMAGES)):
            assert_close(got[path], want)


def test_scoring_uses_the_statistics_it_is_given_inside_a_two_convolution_option_too(made):
    code = CODES["3x3 3x3/2"]
    estimated = np.random.RandomState(2).randint(0, 200, IMAGES.shape).astype(np.uint8)
    vector = made.session.run(made.vector, {made.images: estimated, made.code: [code]})
    got = made.session.run(made.scored, {made.images: IMAGES, made.code: [code], made.statistics: vector})
    plain = V2Network(made.weights, code)
    plain.forward(estimated)
    assert "supernet/E1/k3_k3d2/bn1" in plain.noted
    for a, b in zip(got, V2Network(made.weights, code, plain.noted).forward(IMAGES)):
        np.testing.assert_allclose(a[0], b, rtol=2e-3, atol=2e-3 * np.abs(b).max())


def test_a_dilated_kernel_is_the_plain_one_with_zeros_between():
    kernel = np.arange(9.0).reshape(3, 3, 1, 1) + 1
    wide = dilated(kernel, 2)[:, :, 0, 0]
    assert wide.shape == (5, 5) and wide[0].tolist() == [1, 0, 2, 0, 3] and not wide[1].any() and wide[4, 4] == 9


def residual_names(block):
    return [
        f"supernet/{block}/deep{depth}/block{i}/{part}"
        for depth in (1, 2, 3)
        for i in range(1, depth + 1)
        for conv in (1, 2)
        for part in (f"conv{conv}/kernel", f"bn{conv}/gamma", f"bn{conv}/beta")
    ]


def test_names_of_the_trained_variables():
    """A contract: checkpoints live for months."""
    want = [f"supernet/E0/k{k}/conv/kernel" for k in (7, 5, 3)]
    want += [f"supernet/E1/{option}/kernel" for option in ("k5/conv", "k3/conv", "k3_k3d2/conv1", "k3_k3d2/conv2")]
    want += [f"supernet/E1/k3_k3d2/bn1/{part}" for part in ("gamma", "beta")]
    want += [f"supernet/{layer}/conv/kernel" for layer in ("Down1", "Down2", "Up1", "Up2")]
    want += [name for block in ("EB0", "EB1", "DB0", "DB1") for name in residual_names(block)]
    want += [f"supernet/{head}/k{k}/conv/kernel" for head in ("H0Out", "H1", "H1Out", "H2", "H2Out") for k in (3, 5)]
    normed = ("E0", "E1", "Down1", "Down2", "Up1", "Up2", "H1", "H2")
    want += [f"supernet/{layer}/bn/{part}" for layer in normed for part in ("gamma", "beta")]
    with tf.Graph().as_default():
        variables = SupernetGraph(2, V2).variables
        assert sorted(variables.trained) == sorted(want)
        assert [variable.op.name for variable in variables.trained.values()] == list(variables.trained)


def test_parameters_of_the_full_network():
    """12,055,008 at 32 channels: kernels by hand, and two values per channel for each batch norm."""
    e0 = (49 + 25 + 9) * 6 * 32 + 2 * 32
    e1 = (25 + 9 + 9) * 32 * 64 + 9 * 64 * 64 + 2 * 64 + 2 * 64
    deep = sum(6 * (2 * 9 * c * c + 2 * 2 * c) for c in (64, 128, 256, 128))  # 1 + 2 + 3 residual blocks each
    scaling = 9 * (64 * 128 + 128 * 256 + 256 * 128 + 128 * 64) + 2 * (128 + 256 + 128 + 64)
    heads = (9 + 25) * (64 * 4 + 64 * 32 + 32 * 4 + 32 * 16 + 16 * 4) + 2 * 32 + 2 * 16
    assert e0 + e1 + deep + scaling + heads == 12055008
    with tf.Graph().as_default():
        assert SupernetGraph(32, V2).variables.parameter_count == 12055008
