"""The supernet under gate 2: one graph and one session for all its clauses, and the specification's table of
variables."""

from collections import OrderedDict

import numpy as np

from edgeflownas.nas.search_space import SPACE
from edgeflownas.network.layers import BatchStatistics
from edgeflownas.network.MultiScaleResNet_supernet import Supernet
from edgeflownas.network.routing import SinglePath
from edgeflownas.tfcompat import tf

BATCH = 2


def images(seed, height, width):
    """uint8 [2, H, W, 6]."""
    return np.random.RandomState(seed).randint(0, 256, (BATCH, height, width, 6)).astype(np.uint8)


class Subnets:
    """Single subnets of one supernet at several input sizes; batch norm's gamma and beta are random, so that they
    count."""

    def __init__(self, init_channels, sizes):
        with tf.Graph().as_default():
            self.net = Supernet(init_channels)
            self.code = tf.placeholder(tf.int32, [1, 9])
            self._images = {size: tf.placeholder(tf.uint8, (BATCH,) + size + (6,)) for size in sizes}
            self._outputs = {size: self._forward(fed) for size, fed in self._images.items()}
            self.session = tf.Session()
            self.net.variables.initialize(self.session, 5)
            self._randomise_affine()

    def _forward(self, fed):
        norm = BatchStatistics(self.net.variables)
        return self.net.forward(tf.cast(fed, tf.float32) / 127.5 - 1, SinglePath(self.code, SPACE), norm)

    def _randomise_affine(self):
        draw = np.random.RandomState(8)
        affine = [variable for name, variable in self.net.variables.trained.items() if not name.endswith("/kernel")]
        feed = {variable.initial_value: draw.uniform(0.5, 1.5, variable.shape.as_list()) for variable in affine}
        self.session.run([variable.initializer for variable in affine], feed)

    def run(self, code, pixels):
        """The three outputs [B, h, w, 4] of one code, from coarse to fine."""
        size = pixels.shape[1:3]
        return [
            paths[0] for paths in self.session.run(self._outputs[size], {self._images[size]: pixels, self.code: [code]})
        ]

    def weights(self):
        """{name: array} of every trained variable."""
        return self.session.run(dict(self.net.variables.trained))


def expected_variables(channels=32):
    """{name: shape} of every variable of the supernet, from the design's table of layers (section 6) and nothing
    else."""
    c, shapes = channels, OrderedDict()

    def convolution(name, size, inputs, outputs):
        shapes[f"supernet/{name}/kernel"] = (size, size, inputs, outputs)

    def norm(name, width):
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"supernet/{name}/{part}"] = (width,)

    for name, size, inputs, outputs in (
        ("E0", 7, 6, c),
        ("E1", 5, c, 2 * c),
        ("Down1", 3, 2 * c, 4 * c),
        ("Down2", 3, 4 * c, 8 * c),
        ("Up1", 3, 8 * c, 4 * c),
        ("Up2", 3, 4 * c, 2 * c),
    ):
        convolution(name + "/conv", size, inputs, outputs)
        norm(name + "/bn", outputs)
    for name, width in (("EB0", 2 * c), ("EB1", 4 * c), ("DB0", 8 * c), ("DB1", 4 * c)):
        for depth in (1, 2, 3):
            for block in range(1, depth + 1):
                for i in (1, 2):
                    convolution(f"{name}/deep{depth}/block{block}/conv{i}", 3, width, width)
                    norm(f"{name}/deep{depth}/block{block}/bn{i}", width)
    for name, inputs, outputs in (
        ("H0Out", 2 * c, 4),
        ("H1", 2 * c, c),
        ("H1Out", c, 4),
        ("H2", c, c // 2),
        ("H2Out", c // 2, 4),
    ):
        for size in (7, 5, 3):
            convolution(f"{name}/k{size}/conv", size, inputs, outputs)
        if not name.endswith("Out"):
            norm(name + "/bn", outputs)
    return shapes
