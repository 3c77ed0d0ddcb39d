"""A cycle of edgeflownet_v2 and of one code alone, against the single-path network and against NumPy."""

import numpy as np
import pytest

from edgeflownas.nas.fair_sampler import fair_cycle
from gates import oracles
from tests.engine.test_cycle import batch, make, named
from tests.nas.nas_spaces import V1, V2
from tests.network.v2_oracle import V2Network

CODE = (0, 0, 0, 0, 2, 2, 2, 2, 2)
ALONE = {"network.arch_code": "000022222", "eval.pool_size": 1}


def gradients_of(graph, session, codes):
    """{variable: gradient of the mean loss of these paths}; undoes the division by the number of a cycle's pieces."""
    images, flow = batch()
    values = session.run(graph.gradients, {graph.images: images, graph.flow: flow, graph.codes: codes})
    return {name: value * graph.pieces for name, value in zip(graph.net.variables.trained, values)}


@pytest.fixture(scope="module")
def v2():
    return make(**{"network.space": "edgeflownet_v2"})


def test_the_fused_gradient_of_v2_is_the_mean_of_its_six_single_paths(v2):
    graph, session = v2
    single, single_session = make(**{"network.space": "edgeflownet_v2", "train.cycle_mode": "sequential"})
    assert (graph.fused, graph.paths_per_piece, graph.pieces) == (True, 6, 1)
    assert (single.fused, single.paths_per_piece, single.pieces) == (False, 1, 6)
    codes = fair_cycle(42, 3, V2)
    got = gradients_of(graph, session, codes)
    parts = [gradients_of(single, single_session, [code]) for code in codes]
    assert list(got) == list(graph.net.variables.trained)
    for name, fused_gradient in got.items():
        want = np.mean([part[name] for part in parts], axis=0, dtype=np.float64)
        assert np.linalg.norm(want) > 0, name
        assert np.linalg.norm(fused_gradient - want) <= 1e-4 * np.linalg.norm(want) + 1e-9, name


def test_the_losses_of_v2_are_the_plain_network_s(v2):
    graph, session = v2
    graph.initialize(session, 3)
    images, flow = batch()
    weights, codes = named(graph, session, graph.trained), fair_cycle(42, 5, V2)
    result = graph.run(session, codes, images, flow, 0.0)
    want = [oracles.loss(V2Network(weights, code).forward(images), flow) for code in codes]
    np.testing.assert_allclose(result.path_losses, want, rtol=1e-4)
    assert len(set(np.round(want, 3))) == 6 and len(result.path_losses) == 6


@pytest.fixture(scope="module")
def alone():
    return make(**ALONE)


@pytest.fixture(scope="module")
def whole():
    """The supernet of v1, one path per run."""
    return make(**{"train.cycle_mode": "sequential"})


def test_one_code_alone_has_its_own_part_of_the_supernet_s_variables(alone, whole):
    (one, one_session), (all_, all_session) = alone, whole
    one.initialize(one_session, 3)
    all_.initialize(all_session, 3)
    own, shared = [graph.net.variables for graph in (one, all_)]
    for table in ("trained", "moving"):
        mine, theirs = getattr(own, table), getattr(shared, table)
        assert set(mine) < set(theirs)
        for name, variable in mine.items():
            np.testing.assert_array_equal(one_session.run(variable), all_session.run(theirs[name]), err_msg=name)
    options = {name.split("/")[2] for name in own.trained if name.split("/")[1] in V1.names}
    assert options == {"deep1", "k3", "bn"} and one.paths_per_piece == one.pieces == 1


def test_parameters_of_one_code_alone():
    graph, _ = make(**dict(ALONE, **{"network.init_channels": 8}))
    assert graph.net.variables.parameter_count == 170216


@pytest.mark.parametrize("mode", ["fused", "sequential"])
def test_a_step_of_one_code_alone_is_adam_on_the_supernet_s_single_path_gradient(alone, whole, mode):
    graph, session = alone if mode == "fused" else make(**dict(ALONE, **{"train.cycle_mode": mode}))
    supernet, supernet_session = whole
    graph.initialize(session, 3)
    supernet.initialize(supernet_session, 3)
    images, flow = batch()
    weights = named(graph, session, graph.trained)
    of_path = gradients_of(supernet, supernet_session, [CODE])
    gradients = {name: of_path[name] for name in weights}
    assert all(not value.any() for name, value in of_path.items() if name not in weights)
    nothing = {name: np.zeros(value.shape) for name, value in weights.items()}
    want = oracles.adam_step(weights, gradients, nothing, dict(nothing), 0, 1e-3)
    result = graph.run(session, [CODE], images, flow, 1e-3)
    got = named(graph, session, graph.trained)
    for name in weights:
        assert np.abs(got[name] - want.weights[name]).max() <= 0.02 * 1e-3, name
    assert result.grad_norm_before == pytest.approx(want.norm_before, rel=1e-4)
    assert result.loss == pytest.approx(oracles.loss(oracles.Network(weights, CODE).forward(images), flow), rel=1e-4)
    assert result.path_losses == [result.loss]


def test_fused_and_sequential_agree_on_one_code_alone(alone):
    results, ends = [], []
    for graph, session in (alone, make(**dict(ALONE, **{"train.cycle_mode": "sequential"}))):
        graph.initialize(session, 3)
        results.append([graph.run(session, [CODE], *batch(step), lr=1e-3) for step in range(2)])
        ends.append(session.run(graph.saved))
    for one, other in zip(*results):
        assert one.loss == pytest.approx(other.loss, rel=1e-5) and one.global_step == other.global_step
    for one, other in zip(*ends):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
