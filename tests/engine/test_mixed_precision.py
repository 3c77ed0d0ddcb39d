"""Mixed precision, as far as a CPU can test it: the loss scale is exact and keeps values that float16 would lose.

TensorFlow rewrites graphs to float16 only on a GPU; here `half` casts the convolutions as the rewrite would.
"""

import numpy as np
import pytest

from edgeflownas import config as configuration
from edgeflownas.engine import loss_scale
from edgeflownas.engine.loss_scale import LossScale
from edgeflownas.engine.session import session_config
from edgeflownas.errors import GradientNotFinite, UserError
from edgeflownas.network import MultiScaleResNet_supernet as supernet
from edgeflownas.tfcompat import tf
from tests.engine.test_cycle import CODES, batch, make


def gradients(graph, session, scale=1.0):
    """The accumulated gradient of the first batch as the optimizer gets it, before decay and clip."""
    graph.initialize(session, 3)
    graph.run(session, CODES, *batch(), lr=0.0, loss_scale=scale)
    return [value / np.float32(scale) for value in session.run(graph.gradient_sums)]


@pytest.fixture(scope="module")
def plain():
    return make()


@pytest.fixture(scope="module")
def scaled():
    return make(**{"train.amp": True})


def test_switches_are_off_unless_asked_for_and_reach_tensorflow():
    def options(**changes):
        values = {name.replace("__", "."): value for name, value in changes.items()}
        return session_config(configuration.load(None, values)[0]).graph_options

    assert options().ByteSize() == 0
    assert options(train__amp=True).rewrite_options.auto_mixed_precision == 1  # RewriterConfig.ON
    assert options(runtime__xla=True).optimizer_options.global_jit_level == tf.OptimizerOptions.ON_1


def test_mixed_precision_is_training_maths_and_xla_is_not():
    hashes = [
        configuration.config_hash(configuration.load(None, values)[0])
        for values in ({}, {"train.amp": True}, {"runtime.xla": True})
    ]
    assert hashes[0] != hashes[1] and hashes[0] == hashes[2]


def test_xla_is_refused_in_deterministic_mode():
    with pytest.raises(UserError, match="runtime.deterministic and runtime.xla: .* leave one of them out"):
        configuration.load(None, {"runtime.deterministic": True, "runtime.xla": True})


def test_the_scale_leaves_the_gradients_what_they_are(plain, scaled):
    """Not bit for bit: TensorFlow may order constant factors otherwise in the graph that has a scale."""
    for name, want, got in zip(plain[0].net.variables.trained, gradients(*plain), gradients(*scaled, scale=2.0**15)):
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want), name


@pytest.mark.parametrize("scale", [2.0**15, loss_scale.HIGHEST])
def test_a_power_of_two_changes_no_bit_of_losses_and_weights(scaled, scale):
    graph, session = scaled
    results, saved = [], []
    for value in (1.0, scale):
        graph.initialize(session, 3)
        results.append([graph.run(session, CODES, *batch(step), lr=1e-3, loss_scale=value) for step in range(2)])
        saved.append(session.run(graph.saved))
    assert results[0] == results[1]
    for variable, one, other in zip(graph.saved, *saved):
        np.testing.assert_array_equal(one, other, err_msg=variable.name)


def half(x, kernel, stride=1, dilation=1):
    """A convolution in float16 between float32 tensors."""
    x, kernel = tf.cast(x, tf.float16), tf.cast(tf.convert_to_tensor(kernel), tf.float16)
    return tf.cast(tf.nn.conv2d(x, kernel, strides=[1, stride, stride, 1], padding="SAME"), tf.float32)


@pytest.fixture(scope="module")
def halved():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supernet, "conv2d", half)
        return make(**{"train.amp": True})


def test_the_scale_decides_what_float16_loses(halved):
    """This batch's gradients fit into float16 without a scale; a scale far below 1 simulates tiny gradients."""

    def distance(scale):
        pairs = zip(gradients(*halved, scale=scale), want)
        return np.sqrt(
            sum(np.sum((one - other) ** 2.0) for one, other in pairs) / sum(np.sum(value**2.0) for value in want)
        )

    want = gradients(*halved, scale=1.0)
    assert distance(2.0**8) < 0.02
    assert distance(2.0**-24) > 0.9


def test_a_gradient_that_overflows_float16_leaves_the_weights_alone(halved):
    graph, session = halved
    graph.initialize(session, 3)
    before = session.run(graph.saved)
    with pytest.raises(GradientNotFinite):
        graph.run(session, CODES, *batch(), lr=1e-3, loss_scale=2.0**40)
    for variable, old, new in zip(graph.saved, before, session.run(graph.saved)):
        np.testing.assert_array_equal(old, new, err_msg=variable.name)


def test_the_scale_halves_down_to_one_and_doubles_after_many_cycles_that_fitted():
    scale = LossScale(4.0, 7)
    assert scale.halve() and scale == LossScale(2.0, 0)
    assert scale.halve() and scale == LossScale(1.0, 0)
    assert not scale.halve() and scale == LossScale(1.0, 0)
    for _ in range(loss_scale.GROW_AFTER - 1):
        scale.count_finite()
    assert scale == LossScale(1.0, loss_scale.GROW_AFTER - 1)
    scale.count_finite()
    assert scale == LossScale(2.0, 0)
    full = LossScale(loss_scale.HIGHEST, loss_scale.GROW_AFTER - 1)
    full.count_finite()
    assert full.value == loss_scale.HIGHEST
