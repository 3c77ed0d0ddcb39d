"""The operations of the supernet: variables by name, convolution, batch norm, bilinear x2 upsampling.

Dimension letters: B samples, H and W pixels, C channels. All feature maps are NHWC float32. Built on TensorFlow.
"""

import contextlib
import zlib
from collections import OrderedDict
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from edgeflownas.network.layer_table import Conv
from edgeflownas.rng import stream
from edgeflownas.tfcompat import tf

BN_EPSILON = 1e-5


class Variables:
    """All variables of a network by name; they are the same for every code.

    `trained` are kernels, gammas and betas; `kernels` lists the kernels; `moving` are batch norm's moving averages.
    """

    def __init__(self, convs: List[Conv], norms: "OrderedDict[str, int]") -> None:
        self.norms = norms  # name of a batch norm -> channels
        self.trained: "OrderedDict[str, tf.Variable]" = OrderedDict()
        self.moving: "OrderedDict[str, tf.Variable]" = OrderedDict()
        self.kernels: List[tf.Variable] = []
        self._glorot: Dict[str, Tuple[int, ...]] = {}
        for conv in convs:
            shape = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
            name = conv.name + "/kernel"
            self._glorot[name] = shape
            # Initial kernels come from NumPy (`initial_values`), so that they have the same bits on every TensorFlow.
            self.trained[name] = tf.Variable(tf.placeholder(tf.float32, shape), name=name, use_resource=True)
            self.kernels.append(self.trained[name])
        for norm, channels in norms.items():
            for table, part, value in (
                (self.trained, "gamma", 1.0),
                (self.trained, "beta", 0.0),
                (self.moving, "moving_mean", 0.0),
                (self.moving, "moving_variance", 1.0),
            ):
                name = f"{norm}/{part}"
                table[name] = tf.Variable(
                    tf.fill([channels], value), name=name, use_resource=True, trainable=table is self.trained
                )

    def initial_values(self, seed: int) -> Dict[str, np.ndarray]:
        """Glorot-uniform kernels by name. Each has its own stream, so that a new layer changes no other kernel."""
        values = {}
        for name, (height, width, inputs, outputs) in self._glorot.items():
            limit = np.sqrt(6.0 / (height * width * (inputs + outputs)))
            draw = stream("init", seed, zlib.crc32(name.encode("ascii")))
            values[name] = draw.uniform(-limit, limit, (height, width, inputs, outputs)).astype(np.float32)
        return values

    def initialize(self, session: tf.Session, seed: int) -> None:
        """Sets every variable to its initial value."""
        values = self.initial_values(seed)
        feed = {self.trained[name].initial_value: value for name, value in values.items()}
        session.run([variable.initializer for variable in self.all()], feed)

    def all(self) -> List[tf.Variable]:
        """Trained variables and moving averages."""
        return list(self.trained.values()) + list(self.moving.values())

    def read(self) -> Dict[str, tf.Tensor]:
        """The values of the trained variables, each read once; for graphs without gradients."""
        return {name: variable.read_value() for name, variable in self.trained.items()}

    @property
    def parameter_count(self) -> int:
        """Number of trained scalars."""
        return int(sum(np.prod(variable.shape.as_list()) for variable in self.trained.values()))


def conv2d(x: tf.Tensor, kernel: Any, stride: int = 1, dilation: int = 1) -> tf.Tensor:
    """[B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), outputs], SAME padding. Dilation needs stride 1."""
    if dilation > 1:
        return _dilated(x, kernel, dilation)
    return _convolve(x, kernel, stride, "SAME")


def _convolve(x: tf.Tensor, kernel: Any, stride: int, padding: str) -> tf.Tensor:
    with tf.get_default_graph().gradient_override_map({"Conv2D": "EigenConv2D"} if _prefers_eigen() else {}):
        return tf.nn.conv2d(x, kernel, strides=[1, stride, stride, 1], padding=padding)


def _dilated(x: tf.Tensor, kernel: Any, rate: int) -> tf.Tensor:
    """A dilated convolution, computed as a plain one on every `rate`-th pixel, because TensorFlow has no gradient of
    dilated convolutions on a CPU."""
    height, width = x.shape.as_list()[1:3]
    margin = rate * (kernel.shape.as_list()[0] - 1) // 2
    surplus = [-(size + 2 * margin) % rate for size in (height, width)]
    spread = tf.space_to_batch_nd(x, [rate, rate], [[margin, margin + extra] for extra in surplus])
    return tf.batch_to_space_nd(_convolve(spread, kernel, 1, "VALID"), [rate, rate], [[0, extra] for extra in surplus])


def _prefers_eigen() -> bool:
    return tf.__version__.startswith("1.") and not tf.config.experimental.list_physical_devices("GPU")


@contextlib.contextmanager
def eigen_kernels() -> Iterator[None]:
    """A context in which gradients of convolutions use Eigen's kernels. Acts on TensorFlow 1.15 without a GPU only.

    The default kernels first write out every patch. On large images with few channels this takes 4 to 9 times as long
    and as much memory as all tensors kept for the gradients.
    """
    kinds = ("Conv2DBackpropInput", "Conv2DBackpropFilter") if _prefers_eigen() else ()
    with tf.get_default_graph()._kernel_label_map(dict.fromkeys(kinds, "eigen_tensor")):
        yield


@tf.RegisterGradient("EigenConv2D")
def _eigen_gradient(op: tf.Operation, dy: tf.Tensor) -> List[tf.Tensor]:
    # The kernels are chosen here and not around `tf.gradients`, because a branch of a conditional has its own graph.
    x, kernel = op.inputs
    same = {"strides": op.get_attr("strides"), "padding": op.get_attr("padding")}
    with eigen_kernels():
        return [
            tf.nn.conv2d_backprop_input(tf.shape(x), kernel, dy, **same),
            tf.nn.conv2d_backprop_filter(x, tf.shape(kernel), dy, **same),
        ]


def upsample(x: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Bilinear x2, cropped at the bottom and right: [B, h, w, C] -> [B, height, width, C].

    `align_corners` and `half_pixel_centers` are off, the form that edge NPUs run natively. `height` is 2h or 2h-1,
    `width` 2w or 2w-1, else ValueError.
    """
    h, w = x.shape.as_list()[1:3]
    if not (2 * h - 1 <= height <= 2 * h and 2 * w - 1 <= width <= 2 * w):
        raise ValueError(f"upsample: {h}x{w} cannot become {height}x{width}")

    @tf.custom_gradient
    def grow(x: tf.Tensor):  # type: ignore
        def gradient(dy: tf.Tensor) -> tf.Tensor:
            dy = tf.pad(dy, [[0, 0], [0, 2 * h - height], [0, 2 * w - width], [0, 0]])
            return _halve(_halve(dy, axis=1), axis=2)

        y = tf.image.resize_bilinear(x, [2 * h, 2 * w], align_corners=False, half_pixel_centers=False)
        return tf.slice(y, [0, 0, 0, 0], [-1, height, width, -1]), gradient

    return grow(x)


def _halve(dy: tf.Tensor, axis: int) -> tf.Tensor:
    """The gradient of linear x2 along one axis, length 2n -> n; TensorFlow's own gradient is a loop on one thread.

    Forward: y[2i] = x[i] and y[2i+1] = (x[i] + x[i+1]) / 2, with x[n-1] in place of x[n].
    """
    shape = dy.shape.as_list()
    n = shape[axis] // 2
    even, odd = tf.unstack(tf.reshape(dy, [-1] + shape[1:axis] + [n, 2] + shape[axis + 1 :]), axis=axis + 1)
    own = 0.5 * odd
    inner, last_but_one, last = tf.split(own, [n - 2, 1, 1], axis=axis)
    before = tf.concat([tf.zeros_like(last), inner, last_but_one + last], axis=axis)
    return even + own + before


class BatchStatistics:
    """Batch norm with the current batch's statistics. Notes them in the order in which the layers are applied.

    `noted[name]` lists (mean [C], biased variance [C], used) for each application of the layer. `used` is 1.0 if the
    layer ran, 0.0 if the code skipped it. `parameters` are the trained variables by name, or their values.
    """

    def __init__(self, variables: Variables, parameters: Optional[Dict[str, Any]] = None) -> None:
        self.variables, self.parameters = variables, parameters or variables.trained
        self.noted: "OrderedDict[str, List[Tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]" = OrderedDict()
        self._biased: Dict[Tuple[int, ...], tf.Tensor] = {}  # (H, W, C) -> the factor that makes a variance biased
        self._used = tf.ones([])

    def __call__(self, name: str, x: tf.Tensor) -> tf.Tensor:
        gamma, beta = self.parameters[name + "/gamma"], self.parameters[name + "/beta"]
        # The raw operation, because its wrapper changes an epsilon of 1e-5 to 1.001e-5.
        out = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=BN_EPSILON, is_training=True
        )
        self.note(name, out.batch_mean, out.batch_variance * self._biased_by(x), self._used)
        return out.y

    def _biased_by(self, x: tf.Tensor) -> tf.Tensor:
        """(n-1)/n for the n values per channel of `x`: the operation's variance is n/(n-1) times what it normalises
        with."""
        shape = tuple(x.shape.as_list()[1:])
        if shape not in self._biased:
            count = tf.cast(tf.size(x), tf.float32) / shape[-1]
            self._biased[shape] = (count - 1.0) / count
        return self._biased[shape]

    def note(self, name: str, mean: tf.Tensor, variance: tf.Tensor, used: tf.Tensor) -> None:
        """Notes one application of a layer."""
        self.noted.setdefault(name, []).append((mean, variance, used))

    def unused(self, name: str) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The entry to note for a layer that the code skipped."""
        zeros = tf.zeros([self.variables.norms[name]])
        return zeros, zeros, tf.zeros([])

    def flat(self) -> tf.Tensor:
        """All means and variances of all applications as one vector, for `StoredStatistics`."""
        return tf.concat(
            [part for uses in self.noted.values() for mean, variance, _ in uses for part in (mean, variance)], axis=0
        )

    def applications(self) -> "OrderedDict[str, int]":
        """How often each layer is applied; the layout of `flat`."""
        return OrderedDict((name, len(uses)) for name, uses in self.noted.items())


class StoredStatistics:
    """Batch norm with a vector in the layout of `BatchStatistics.flat` for the same paths. Serves one forward pass."""

    def __init__(
        self,
        variables: Variables,
        vector: tf.Tensor,
        applications: "OrderedDict[str, int]",
        parameters: Optional[Dict[str, Any]] = None,
    ) -> None:
        self.variables, self.parameters = variables, parameters or variables.trained
        self._left: Dict[str, List[Tuple[tf.Tensor, tf.Tensor]]] = {}
        sizes = [variables.norms[name] for name, times in applications.items() for _ in range(2 * times)]
        parts = iter(tf.split(vector, sizes))
        for name, times in applications.items():
            self._left[name] = [(next(parts), next(parts)) for _ in range(times)]

    def __call__(self, name: str, x: tf.Tensor) -> tf.Tensor:
        mean, variance = self._left[name].pop(0)
        gamma, beta = self.parameters[name + "/gamma"], self.parameters[name + "/beta"]
        scale = gamma * tf.rsqrt(variance + BN_EPSILON)
        return x * scale + (beta - mean * scale)
