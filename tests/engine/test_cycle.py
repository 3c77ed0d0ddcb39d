"""One training cycle against NumPy and against the single-path network."""

import numpy as np
import pytest

from edgeflownas import config as configuration
from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.errors import RunFailed
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.tfcompat import tf
from gates import oracles

HEIGHT, WIDTH, BATCH = 65, 71, 4
CODES = np.array([[0, 1, 2, 0, 1, 2, 0, 1, 2], [1, 2, 0, 2, 0, 1, 1, 2, 0], [2, 0, 1, 1, 2, 0, 2, 0, 1]], np.int32)


def make(**changes):
    settings = {
        "train.batch_size": BATCH,
        "network.init_channels": 4,
        "data.input_height": HEIGHT,
        "data.input_width": WIDTH,
    }
    settings.update(changes)
    config, _ = configuration.load(None, settings)
    with tf.Graph().as_default():
        graph = CycleGraph(config, space_of(config.network))
        session = tf.Session()
        graph.initialize(session, 3)
    return graph, session


def batch(seed=0):
    draw = np.random.RandomState(seed)
    return (
        draw.randint(0, 256, (BATCH, HEIGHT, WIDTH, 6)).astype(np.uint8),
        draw.normal(0, 9, (BATCH, HEIGHT, WIDTH, 2)).astype(np.float32),
    )


def named(graph, session, variables):
    return session.run(dict(zip(graph.net.variables.trained, variables)))


@pytest.fixture(scope="module")
def fused():
    return make()


@pytest.fixture(scope="module")
def sequential():
    return make(**{"train.cycle_mode": "sequential"})


def test_fused_gradient_is_the_mean_of_three_single_paths(fused, sequential):
    """Every variable; the three single paths are run and averaged here, one graph run each."""
    images, flow = batch()
    graph, session = fused
    graph.initialize(session, 3)
    got = session.run(graph.gradients, {graph.images: images, graph.flow: flow, graph.codes: CODES})
    single, single_session = sequential
    single.initialize(single_session, 3)
    parts = [
        single_session.run(single.gradients, {single.images: images, single.flow: flow, single.codes: [code]})
        for code in CODES
    ]
    for name, fused_gradient, *of_paths in zip(graph.net.variables.trained, got, *parts):
        # `sequential` divides each piece's gradient by the number of pieces.
        want = np.sum(np.stack(of_paths), axis=0, dtype=np.float64)
        assert np.linalg.norm(fused_gradient - want) <= 1e-4 * np.linalg.norm(want) + 1e-9, name
        assert np.linalg.norm(want) > 0, name


def test_micro_batches_average_to_the_batch_when_norms_agree(sequential):
    """A batch of two equal halves: BN sees the same statistics in a half as in the whole."""
    graph, session = sequential
    pieces, pieces_session = make(**{"train.micro_batch_size": 2})
    images, flow = [np.concatenate([part[:2], part[:2]]) for part in batch()]
    results = []
    for one, one_session in ((graph, session), (pieces, pieces_session)):
        # With some first weights a channel hardly varies, and batch norm then makes much of how a processor rounds:
        # of the seeds 1 to 8 the norms differ by 1e-2 at most, of this one by 2e-6.
        one.initialize(one_session, 7)
        results.append(one.run(one_session, CODES, images, flow, 1e-3))
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5)
    assert results[0].grad_norm_before == pytest.approx(results[1].grad_norm_before, rel=1e-3)
    assert [(result.forward, result.backward) for result in results] == [(3, 3), (3, 3)]


@pytest.mark.parametrize("grad_clip", [5.0, 1e4])
def test_two_steps_are_numpy_s_adam_with_decay_and_clip(fused, grad_clip):
    graph, session = make(**{"train.grad_clip": grad_clip, "train.wd": 0.01})
    weights = named(graph, session, graph.trained)
    first = {name: np.zeros(value.shape) for name, value in weights.items()}
    second = dict(first)
    for step, lr in enumerate((1e-3, 7e-4)):
        images, flow = batch(step)
        result = graph.run(session, CODES, images, flow, lr)
        gradients = named(graph, session, graph.gradient_sums)
        want = oracles.adam_step(weights, gradients, first, second, step, lr, wd=0.01, clip=grad_clip)
        got = named(graph, session, graph.trained)
        for name in weights:
            np.testing.assert_allclose(got[name], want.weights[name], rtol=0, atol=2e-2 * lr, err_msg=name)
            moved = np.abs(want.weights[name] - weights[name]).max()
            assert np.abs(got[name] - want.weights[name]).max() <= 0.02 * moved, name
        assert result.grad_norm_before == pytest.approx(want.norm_before, rel=1e-4)
        assert result.grad_norm_after == pytest.approx(want.norm_after, rel=1e-4)
        assert result.grad_norm_after <= grad_clip
        assert result.global_step == step + 1
        decay = 0.01 * sum(
            0.5 * np.sum(value.astype(np.float64) ** 2) for name, value in weights.items() if name.endswith("/kernel")
        )
        assert result.l2_loss == pytest.approx(decay, rel=1e-5)
        weights, first, second = got, want.first, want.second


def test_moving_averages_move_once_towards_the_mean_of_the_paths(fused):
    graph, session = fused
    graph.initialize(session, 3)
    images, flow = batch(2)
    weights = named(graph, session, graph.trained)
    noted = []
    for code in CODES:
        plain = oracles.Network(weights, code)
        plain.forward(images)
        noted.append(plain.noted)
    graph.run(session, CODES, images, flow, 1e-3)
    for name in ("supernet/E0/bn", "supernet/Up1/bn", "supernet/H2/bn", "supernet/EB1/deep2/block1/bn2"):
        for part, start in ((0, 0.0), (1, 1.0)):
            values = [statistics[name][part] for statistics in noted if name in statistics]
            got = session.run(graph.net.variables.moving[name + ("/moving_mean", "/moving_variance")[part]])
            np.testing.assert_allclose(
                got, 0.9 * start + 0.1 * np.mean(values, axis=0), rtol=2e-3, atol=1e-4, err_msg=name
            )


def test_uniform_paths_train_what_they_use_and_leave_other_averages_alone():
    graph, session = make(**{"train.supernet_mode": "uniform"})
    codes = np.array([[0] * 9, [0] * 9, [1] * 9], np.int32)
    before = session.run(dict(graph.net.variables.moving))
    result = graph.run(session, codes, *batch(), lr=1e-3)
    after = session.run(dict(graph.net.variables.moving))
    for name, value in before.items():
        changed = not np.array_equal(value, after[name])
        assert changed == ("deep3" not in name), name
    assert result.path_losses[0] == pytest.approx(result.path_losses[1], rel=1e-6)
    assert (result.forward, result.backward) == (3, 3)


@pytest.mark.parametrize("what", ["flow", "weight"])
def test_what_is_not_finite_stops_before_the_weights_change(what):
    graph, session = make(**{"data.flow_clip": 0})
    images, flow = batch()
    graph.run(session, CODES, images, flow, 1e-3)
    if what == "flow":
        flow = flow.copy()
        flow[1, 2, 3, 0] = np.nan
    before = session.run(graph.saved)
    if what == "flow":
        with pytest.raises(RunFailed, match="loss is not finite"):
            graph.run(session, CODES, images, flow, 1e-3)
    else:
        graph.clear(session)
        graph.gradient_sums[0].load(np.full(graph.trained[0].shape.as_list(), np.inf, np.float32), session)
        with pytest.raises(RunFailed, match="gradient is not finite"):
            graph.apply(session, 1e-3)
    for variable, old, new in zip(graph.saved, before, session.run(graph.saved)):
        np.testing.assert_array_equal(old, new, err_msg=variable.name)


def test_digests_say_that_all_paths_saw_the_same_batch(sequential):
    graph, session = sequential
    graph.initialize(session, 3)
    images, flow = batch()
    seen = graph.run(session, CODES, images, flow, 1e-3, digest=True).batches_seen
    other = graph.run(session, CODES, images, flow + 1, 1e-3, digest=True).batches_seen
    assert len(set(seen)) == 1 and len(seen) == 3 and seen[0] and set(seen) != set(other)
