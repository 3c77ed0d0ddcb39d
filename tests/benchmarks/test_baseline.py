"""The masked supernet of the benchmarks computes the same loss and gradients as ours, so the comparison is fair."""

import numpy as np

from benchmarks.baseline import MaskedSupernet
from benchmarks.subjects import SPACE
from benchmarks.worker import random_batch
from edgeflownas.config import load
from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.tfcompat import tf

CONFIG = load(
    None, {"network.init_channels": 4, "data.input_height": 67, "data.input_width": 93, "train.batch_size": 2}
)[0]


def test_loss_and_gradients_are_those_of_the_masked_supernet():
    codes = fair_cycle(42, 7, SPACE)
    images, flow = random_batch(CONFIG, 2)
    with tf.Graph().as_default(), tf.Session() as session:
        masked = MaskedSupernet(CONFIG)
        masked.initialize(session, 5)
        losses = masked.run(session, codes, images, flow, 0.0)
        want = session.run(masked.mean)
    with tf.Graph().as_default(), tf.Session() as session:
        ours = CycleGraph(CONFIG, SPACE)
        ours.initialize(session, 5)
        result = ours.run(session, codes, images, flow, 0.0)
        sums, kernels = session.run([ours.gradient_sums, ours.net.variables.kernels])
    decayed = {id(variable): value for variable, value in zip(ours.net.variables.kernels, kernels)}
    np.testing.assert_allclose(np.ravel(losses), result.path_losses, rtol=1e-5)
    for variable, got, expected in zip(ours.trained, sums, want):
        if id(variable) in decayed:
            got = got + CONFIG.train.wd * decayed[id(variable)]
        # TensorFlow 1.15 sums gradients of 6,231 pixels in another order; the difference of the norms is 6.4e-5 there.
        assert np.linalg.norm(got - expected) <= 1e-3 * np.linalg.norm(expected) + 1e-9, variable.name
