"""The usual way to write this supernet, as the yardstick: every option computed, one kept by a one-hot mask.

Three accumulating runs, one per path, then one apply. Written for edgeflownet_v1 with plain TensorFlow operations and
nothing of the package but its variables, so that it is an independent oracle of loss and gradients as well.
"""

from typing import Any, List

import numpy as np

from benchmarks.subjects import SPACE
from edgeflownas.config import Config
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph, stage_sizes
from edgeflownas.tfcompat import tf


class MaskedSupernet:
    """`run` trains one cycle, path after path, at the same weights; `score` scores codes, one after the other."""

    def __init__(self, config: Config, scoring: bool = False) -> None:
        train, height, width = config.train, config.data.input_height, config.data.input_width
        self.variables = SupernetGraph(config.network.init_channels, SPACE).variables
        self.images = tf.placeholder(tf.uint8, [train.batch_size, height, width, 6])
        self.flow = tf.placeholder(tf.float32, [train.batch_size, height, width, 2])
        self.code = tf.placeholder(tf.int32, [len(SPACE.blocks)])
        self.lr = tf.placeholder(tf.float32, [])
        self.averages: List[Any] = []
        self.training = True
        images, sizes = tf.cast(self.images, tf.float32) / 127.5 - 1.0, stage_sizes(height, width)
        self.loss, _ = multiscale_loss(self.forward(images, sizes), tf.clip_by_value(self.flow, -50.0, 50.0))
        weights = list(self.variables.trained.values())
        decay = train.wd * tf.add_n([tf.nn.l2_loss(kernel) for kernel in self.variables.kernels])
        gradients = tf.gradients(self.loss + decay, weights)
        self.sums = [tf.Variable(tf.zeros(weight.shape), trainable=False) for weight in weights]
        self.zero = tf.group(*[total.initializer for total in self.sums])
        self.accumulate = tf.group(
            *[total.assign_add(value, read_value=False) for total, value in zip(self.sums, gradients)]
        )
        self.mean = [total / SPACE.num_paths for total in self.sums]
        clipped, _ = tf.clip_by_global_norm(self.mean, train.grad_clip)
        self.adam = tf.train.AdamOptimizer(self.lr)
        self.apply = self.adam.apply_gradients(zip(clipped, weights))
        if scoring:
            self.training = False
            _, prediction = multiscale_loss(self.forward(images, sizes), self.flow)
            self.epe = tf.reduce_mean(tf.norm(prediction - self.flow, axis=3))

    def run(self, session: Any, codes: np.ndarray, images: np.ndarray, flow: np.ndarray, lr: float) -> List[float]:
        """Losses of the paths, weight decay not included."""
        session.run(self.zero)
        losses = [
            session.run(
                [self.loss, self.accumulate, self.averages], {self.code: code, self.images: images, self.flow: flow}
            )[0]
            for code in codes
        ]
        session.run(self.apply, {self.lr: lr})
        return losses

    def score(self, session: Any, codes: np.ndarray, bn_batches: List[Any], batches: List[Any]) -> List[float]:
        """EPE of each code after new moving averages, one code after the other."""
        scores = []
        for code in codes:
            for images, _ in bn_batches:
                session.run(self.averages, {self.code: code, self.images: images})
            scores.append(
                float(
                    np.mean(
                        [
                            session.run(self.epe, {self.code: code, self.images: images, self.flow: flow})
                            for images, flow in batches
                        ]
                    )
                )
            )
        return scores

    def initialize(self, session: Any, seed: int) -> None:
        """The same first weights as the supernet's."""
        self.variables.initialize(session, seed)
        session.run([variable.initializer for variable in self.sums + self.adam.variables()])

    def forward(self, x: Any, size: Any) -> List[Any]:
        """The three outputs, from coarse to fine."""
        x = self.layer("E0", x, 2)
        x = self.depth("EB0", self.layer("E1", x, 2))
        x = self.depth("EB1", self.layer("Down1", x, 2))
        x = self.depth("DB0", self.layer("Down2", x, 2))
        x = self.depth("DB1", self.layer("Up1", up(x, size[3])))
        x = self.layer("Up2", up(x, size[2]))
        h1 = tf.nn.relu(self.norm("H1/bn", self.head("H1", up(x, size[1]))))
        h2 = tf.nn.relu(self.norm("H2/bn", self.head("H2", up(h1, size[0]))))
        return [self.head("H0Out", x), self.head("H1Out", h1), self.head("H2Out", h2)]

    def conv(self, name: str, x: Any, stride: int = 1) -> Any:
        """A convolution by its name."""
        return tf.nn.conv2d(
            x, self.variables.trained["supernet/" + name + "/kernel"], strides=[1, stride, stride, 1], padding="SAME"
        )

    def norm(self, name: str, x: Any) -> Any:
        """Batch norm: in training by the batch's statistics, which move the averages; in scoring by the averages."""
        gamma, beta = [self.variables.trained[f"supernet/{name}/{part}"] for part in ("gamma", "beta")]
        if not self.training:
            moving = [self.variables.moving[f"supernet/{name}/moving_{part}"] for part in ("mean", "variance")]
            return tf.nn.fused_batch_norm(x, gamma, beta, *moving, epsilon=1e-5, is_training=False)[0]
        y, mean, variance = tf.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-5)
        for part, value in (("moving_mean", mean), ("moving_variance", variance)):
            moving = self.variables.moving[f"supernet/{name}/{part}"]
            self.averages.append(moving.assign_sub(0.1 * (moving - value), read_value=False))
        return y

    def layer(self, name: str, x: Any, stride: int = 1) -> Any:
        """conv, BN, ReLU."""
        return tf.nn.relu(self.norm(name + "/bn", self.conv(name + "/conv", x, stride)))

    def masked(self, name: str, options: List[Any]) -> Any:
        """All options times the one-hot code, summed."""
        mask = tf.one_hot(self.code[SPACE.position(name)], len(options))
        return tf.add_n([mask[i] * option for i, option in enumerate(options)])

    def depth(self, name: str, x: Any) -> Any:
        """Choice of one, two or three residual blocks."""

        def option(depth: int) -> Any:
            y = x
            for i in range(depth):
                scope = f"{name}/deep{depth}/block{i + 1}"
                z = tf.nn.relu(self.norm(scope + "/bn1", self.conv(scope + "/conv1", y)))
                y = tf.nn.relu(y + self.norm(scope + "/bn2", self.conv(scope + "/conv2", z)))
            return y

        return self.masked(name, [option(depth) for depth in (1, 2, 3)])

    def head(self, name: str, x: Any) -> Any:
        """Choice of a 7x7, 5x5 or 3x3 convolution."""
        return self.masked(name, [self.conv(f"{name}/k{k}/conv", x) for k in (7, 5, 3)])


def up(x: Any, size: Any) -> Any:
    """Bilinear x2, cropped to `size`."""
    h, w = x.shape.as_list()[1:3]
    return tf.image.resize_bilinear(x, [2 * h, 2 * w])[:, : size[0], : size[1]]


def multiscale_loss(outputs: List[Any], flow: Any) -> Any:
    """(loss, flow at full resolution)."""
    total, sums = 0.0, None
    for weight, out in zip((0.125, 0.25, 0.5), outputs):
        size = out.shape.as_list()[1:3]
        sums = out if sums is None else up(sums, size) + out
        target = tf.image.resize_bilinear(flow, size)
        error, u = tf.abs(sums[..., :2] - target), sums[..., 2:]
        sigma = tf.maximum(tf.nn.softplus(u + 1e-3), 1e-3)
        total += weight * (tf.reduce_mean(error) + tf.reduce_mean(error / sigma) + tf.reduce_mean(tf.nn.softplus(u)))
    return total, sums[..., :2]
