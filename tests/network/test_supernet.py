"""The supernet against a plain NumPy network, on small odd sizes."""

import numpy as np
import pytest

from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.network.layers import BatchStatistics, StoredStatistics
from edgeflownas.network.losses import accumulate_residuals, end_point_error, multiscale_loss, target_pyramid
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph, stage_sizes
from edgeflownas.network.routing import FairPaths, SinglePath
from edgeflownas.tfcompat import tf
from gates import oracles
from tests.nas.nas_spaces import V1

HEIGHT, WIDTH, BATCH = 67, 83, 2
# Blocks of three and of two options: six paths in a cycle.
TWO_KERNELS = SearchSpace(
    "two kernels", tuple(b._replace(options=b.options[:2]) if b.kind == "kernel" else b for b in V1.blocks)
)
FAIR = np.array([[0, 1, 2, 0, 1, 2, 0, 1, 2], [1, 2, 0, 2, 0, 1, 1, 2, 0], [2, 0, 1, 1, 2, 0, 2, 0, 1]], np.int32)


def batch(seed, height=HEIGHT, width=WIDTH, size=BATCH):
    draw = np.random.RandomState(seed)
    return (
        draw.randint(0, 256, (size, height, width, 6)).astype(np.uint8),
        draw.normal(0, 9, (size, height, width, 2)).astype(np.float32),
    )


class Fixture:
    """A narrow supernet with both routes in one graph."""

    def __init__(self):
        with tf.Graph().as_default():
            self.net = SupernetGraph(4, V1)
            self.images = tf.placeholder(tf.uint8, [BATCH, HEIGHT, WIDTH, 6])
            self.fair_codes = tf.placeholder(tf.int32, [3, 9])
            self.code = tf.placeholder(tf.int32, [1, 9])
            scaled = tf.cast(self.images, tf.float32) / 127.5 - 1
            self.fair_norm, self.single_norm = [BatchStatistics(self.net.variables) for _ in range(2)]
            self.fair = self.net.forward(scaled, FairPaths(self.fair_codes, V1), self.fair_norm)
            self.single = self.net.forward(scaled, SinglePath(self.code, V1), self.single_norm)
            self.single_vector = self.single_norm.flat()
            self.statistics = tf.placeholder(tf.float32, self.single_vector.shape)
            stored = StoredStatistics(self.net.variables, self.statistics, self.single_norm.applications())
            self.scored = self.net.forward(scaled, SinglePath(self.code, V1), stored)
            self.session = tf.Session()
            self.net.variables.initialize(self.session, 5)
            self._randomise_affine()

    def _randomise_affine(self):
        draw = np.random.RandomState(8)
        for name, variable in self.net.variables.trained.items():
            if not name.endswith("/kernel"):
                variable.load(draw.uniform(0.5, 1.5, variable.shape.as_list()), self.session)

    def weights(self):
        return self.session.run(dict(self.net.variables.trained))


@pytest.fixture(scope="module")
def made():
    return Fixture()


@pytest.mark.parametrize("code", [V1.baseline, (2, 1, 0, 2, 1, 2, 0, 2, 1)], ids=str)
def test_single_path_is_the_plain_network(made, code):
    images, _ = batch(1)
    outputs = made.session.run(made.single, {made.images: images, made.code: [code]})
    expected = oracles.Network(made.weights(), code).forward(images)
    for got, want in zip(outputs, expected):
        assert got[0].shape == want.shape
        np.testing.assert_allclose(got[0], want, rtol=2e-4, atol=2e-4 * np.abs(want).max())


def test_each_fused_path_is_the_single_path_of_its_code(made):
    images, _ = batch(2)
    fused = made.session.run(made.fair, {made.images: images, made.fair_codes: FAIR})
    for path, code in enumerate(FAIR):
        single = made.session.run(made.single, {made.images: images, made.code: [code]})
        for scale in range(3):
            np.testing.assert_allclose(
                fused[scale][path], single[scale][0], rtol=1e-4, atol=1e-4 * np.abs(single[scale][0]).max()
            )


def test_only_the_options_that_a_code_chooses_matter(made):
    images, _ = batch(3)
    code = (0, 1, 2, 0, 1, 2, 0, 1, 2)
    feed = {made.images: images, made.code: [code]}
    before = made.session.run(made.single, feed)
    chosen = set()
    for block, value in zip(V1.blocks, code):
        option = block.options[value]
        chosen.add("supernet/{}/{}{}/".format(block.name, "deep" if block.kind == "depth" else "k", option))
    for name, variable in made.net.variables.trained.items():
        fixed = name.split("/")[1] not in V1.names or name.split("/")[2] == "bn"
        used = fixed or any(name.startswith(prefix) for prefix in chosen)
        if used and not name.endswith(("conv1/kernel", "conv/kernel")):
            continue  # a shift before a batch norm may cancel: kernels are enough to show influence
        kept = made.session.run(variable)
        changed = kept + np.random.RandomState(4).normal(0, 0.3, kept.shape)
        variable.load(changed, made.session)
        after = made.session.run(made.single, feed)
        variable.load(kept, made.session)
        differs = any(not np.array_equal(a[0], b[0]) for a, b in zip(before, after))
        assert differs == used, name


def test_statistics_of_a_batch_are_those_of_the_plain_network(made):
    images, _ = batch(5)
    code = (1, 2, 0, 1, 0, 2, 1, 0, 2)
    vector = made.session.run(made.single_vector, {made.images: images, made.code: [code]})
    plain = oracles.Network(made.weights(), code)
    plain.forward(images)
    position = 0
    for name in made.single_norm.applications():
        channels = made.net.variables.norms[name]
        for part in (0, 1):
            got = vector[position : position + channels]
            position += channels
            want = plain.noted[name][part] if name in plain.noted else np.zeros(channels)
            np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4, err_msg=name)
    assert position == len(vector)


def test_scoring_uses_the_statistics_it_is_given(made):
    images, _ = batch(6)
    code = (1, 0, 2, 2, 0, 1, 1, 2, 0)
    estimated, _ = batch(7)
    vector = made.session.run(made.single_vector, {made.images: estimated, made.code: [code]})
    got = made.session.run(made.scored, {made.images: images, made.code: [code], made.statistics: vector})
    plain = oracles.Network(made.weights(), code)
    plain.forward(estimated)
    want = oracles.Network(made.weights(), code, plain.noted).forward(images)
    for a, b in zip(got, want):
        np.testing.assert_allclose(a[0], b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


@pytest.mark.parametrize("height,width", [(64, 64), (65, 79), (66, 94), (71, 83), (180, 240)])
def test_outputs_have_the_encoder_s_sizes(height, width):
    with tf.Graph().as_default():
        net = SupernetGraph(2, V1)
        images = tf.placeholder(tf.float32, [None, height, width, 6])
        outputs = net.forward(images, SinglePath(tf.placeholder(tf.int32, [1, 9]), V1), BatchStatistics(net.variables))
        want = [stage_sizes(height, width)[i] for i in (2, 1, 0)]
        assert [tuple(out[0].shape.as_list()[1:]) for out in outputs] == [size + (4,) for size in want]


def test_images_of_another_shape_are_refused():
    with tf.Graph().as_default():
        net = SupernetGraph(2, V1)
        for shape in ([1, 63, 96, 6], [1, 96, 96, 3], [1, None, 96, 6]):
            with pytest.raises(ValueError, match="images: got"):
                net.forward(
                    tf.placeholder(tf.float32, shape),
                    FairPaths(tf.zeros([3, 9], tf.int32), V1),
                    BatchStatistics(net.variables),
                )


def test_parameters_of_the_full_network():
    with tf.Graph().as_default():
        assert SupernetGraph(32, V1).variables.parameter_count == 12122016


def test_initial_weights_do_not_depend_on_other_layers():
    with tf.Graph().as_default():
        small = SupernetGraph(4, V1).variables.initial_values(3)
    with tf.Graph().as_default():
        mixed = SupernetGraph(4, TWO_KERNELS).variables.initial_values(3)
    assert set(mixed) < set(small)
    for name, value in mixed.items():
        np.testing.assert_array_equal(value, small[name])


def test_a_space_of_three_and_two_options_runs_fused():
    draw = np.random.RandomState(0)
    codes = np.stack([draw.permutation(np.arange(6) % options) for options in TWO_KERNELS.num_options], axis=1)
    images, _ = batch(9)
    with tf.Graph().as_default(), tf.Session() as session:
        net = SupernetGraph(4, TWO_KERNELS)
        fed = tf.cast(tf.constant(images), tf.float32) / 127.5 - 1
        fair = net.forward(fed, FairPaths(tf.constant(codes, tf.int32), TWO_KERNELS), BatchStatistics(net.variables))
        net.variables.initialize(session, 1)
        outputs, weights = session.run([fair, dict(net.variables.trained)])
    for path, code in enumerate(codes):
        want = oracles.Network(weights, code).forward(images)
        np.testing.assert_allclose(outputs[2][path], want[2], rtol=1e-3, atol=1e-3 * np.abs(want[2]).max())


@pytest.mark.parametrize("kind,clip", [("linear_softplus", 50.0), ("l1", 0.0), ("linear_softplus", 7.0)])
def test_loss_and_epe_are_numpy_s(kind, clip):
    draw = np.random.RandomState(11)
    flow = draw.normal(0, 25, (3, 67, 83, 2)).astype(np.float32)
    outputs = [draw.normal(0, 3, (3,) + stage_sizes(67, 83)[i] + (4,)).astype(np.float32) for i in (2, 1, 0)]
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = [tf.constant(out) for out in outputs]
        targets = target_pyramid(tf.constant(flow), [out.shape[1:3] for out in outputs], clip)
        got_loss = session.run(multiscale_loss(tensors, targets, kind))
        prediction = accumulate_residuals(tensors)[-1][..., :2]
        got_epe, got_prediction = session.run([end_point_error(prediction, tf.constant(flow)), prediction])
    assert got_loss == pytest.approx(oracles.loss(outputs, flow, clip, kind), rel=1e-5)
    np.testing.assert_allclose(got_prediction, oracles.residual_sums(outputs)[-1][..., :2], rtol=1e-4, atol=1e-4)
    assert got_epe.shape == (3,)
    assert got_epe.mean() == pytest.approx(oracles.epe(oracles.residual_sums(outputs)[-1][..., :2], flow), rel=1e-5)
