"""What a subnet must give, by the gates' NumPy network and the data files alone."""

import os
from pathlib import Path

import numpy as np

from edgeflownas.tfcompat import tf
from gates import dataset, oracles, spaces


class Network(oracles.Network):
    """The subnet of one code of either space, whatever space the gates are run on."""

    def __init__(self, weights, code, statistics=None):
        super().__init__(weights, code, statistics)
        self.space = {9: spaces.V1, 11: spaces.V2}[len(code)]
        self.chosen = dict(zip(self.space.names, map(int, code)))


def tensors(folder, which="best"):
    """{name: array} of a run's checkpoint."""
    reader = tf.train.load_checkpoint(os.path.join(folder, "checkpoints", f"supernet_{which}.ckpt"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def stored_statistics(values):
    """{batch norm: (mean, variance)} of a checkpoint's moving averages."""
    end = "/moving_mean"
    names = [name[: -len(end)] for name in values if name.endswith(end)]
    return {name: (values[name + end], values[name + "/moving_variance"]) for name in names}


def crops(data, names, height=64, width=67):
    """Centre crops: (images uint8 [N, H, W, 6], flow [N, H, W, 2])."""
    return dataset.centre_crops(Path(data), names, height, width)


def reestimated(values, code, data, names):
    """The plain mean over the samples, a batch each, of the statistics of one code."""
    noted = []
    for image in crops(data, names).images:
        network = Network(values, code)
        network.forward(image[None])
        noted.append(network.noted)
    return oracles.mean_statistics(noted)


def flow(values, code, statistics, images):
    """[B, H, W, 2] in pixels."""
    return oracles.residual_sums(Network(values, code, statistics).forward(images))[-1][..., :2]


epe = oracles.epe


def close(found, want, tolerance=2e-4):
    """float32 against float64: the difference is small beside the largest value."""
    np.testing.assert_allclose(found, want, rtol=0, atol=tolerance * max(1.0, float(np.abs(want).max())))
