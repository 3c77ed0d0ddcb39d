"""The network's own convolutions, and the time this TensorFlow takes for each of them alone."""

import collections
import contextlib
import time
from typing import Any, Callable, Dict, NamedTuple, Sequence, Tuple

import numpy as np

from benchmarks.subjects import SPACE
from edgeflownas.config import Config
from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.network.layers import eigen_kernels
from edgeflownas.tfcompat import tf

_KINDS = {"Conv2D": "forward", "Conv2DBackpropInput": "input gradient", "Conv2DBackpropFilter": "filter gradient"}


class Convolution(NamedTuple):
    """One kind of convolution of a graph, NHWC, SAME padding."""

    kind: str
    image: Tuple[int, ...]  # [B, H, W, inputs]
    kernel: Tuple[int, ...]  # [k, k, inputs, outputs]
    result: Tuple[int, ...]  # [B, H / stride, W / stride, outputs]

    @property
    def flops(self) -> int:
        """Two per multiplication."""
        return 2 * int(np.prod(self.kernel)) * self.result[0] * self.result[1] * self.result[2]

    @property
    def stride(self) -> int:
        """Rows of the image per row of the result."""
        return -(-self.image[1] // self.result[1])


def convolutions(graph: Any) -> "collections.Counter":
    """How often each kind of convolution occurs in a graph."""
    found: "collections.Counter" = collections.Counter()
    for op in graph.get_operations():
        if op.type in _KINDS:
            inputs = [tuple(tensor.shape.as_list()) for tensor in op.inputs]
            output = tuple(op.outputs[0].shape.as_list())
            operands = {
                "Conv2D": inputs[:2] + [output],
                "Conv2DBackpropInput": [output] + inputs[1:],
                "Conv2DBackpropFilter": [inputs[0], output, inputs[-1]],
            }[op.type]
            found[Convolution(_KINDS[op.type], *operands)] += 1
    return found


def cycle_convolutions(config: Config) -> "collections.Counter":
    """Those of one fused cycle, without the gradient of the images, which no run asks for."""
    with tf.Graph().as_default() as graph:
        CycleGraph(config, SPACE)
        found = convolutions(graph)
    return collections.Counter(
        {kind: count for kind, count in found.items() if not (kind.kind == "input gradient" and kind.image[3] == 6)}
    )


class IsolatedConvolutions:
    """Each of these convolutions as an operation of its own, by the kernels that TensorFlow picks and by those we ask
    for."""

    def __init__(self, kinds: Sequence[Convolution]) -> None:
        self.kinds = kinds
        self._tensors: Dict[Tuple[int, ...], Any] = {}
        self._operations = []
        for choice in (contextlib.nullcontext(), eigen_kernels()):
            with choice:
                self._operations.append([self._operation(kind) for kind in kinds])
        self._nothing = tf.no_op()

    def ready(self, session: Any, counts: Sequence[int]) -> Callable[[int], Dict[str, Any]]:
        """A unit that tells how long a cycle's convolutions take: each kind's best time so far times its count."""
        session.run([tensor.initializer for tensor in self._tensors.values()])
        best = [float("inf")] * len(self.kinds)

        def unit(t: int) -> Dict[str, Any]:
            nothing = min(_seconds(session, self._nothing) for _ in range(10))
            for operations in self._operations:
                for i, operation in enumerate(operations):
                    best[i] = min(best[i], _seconds(session, operation) - nothing)
            return {
                "alone": sum(count * time for count, time in zip(counts, best)),
                "flops": sum(count * kind.flops for count, kind in zip(counts, self.kinds)),
            }

        return unit

    def _operation(self, kind: Convolution) -> Any:
        strides = [1, kind.stride, kind.stride, 1]
        if kind.kind == "forward":
            made = tf.nn.conv2d(self._tensor(kind.image), self._tensor(kind.kernel), strides=strides, padding="SAME")
        elif kind.kind == "input gradient":
            made = tf.nn.conv2d_backprop_input(
                kind.image, self._tensor(kind.kernel), self._tensor(kind.result), strides=strides, padding="SAME"
            )
        else:
            made = tf.nn.conv2d_backprop_filter(
                self._tensor(kind.image), kind.kernel, self._tensor(kind.result), strides=strides, padding="SAME"
            )
        return made.op

    def _tensor(self, shape: Tuple[int, ...]) -> Any:
        if shape not in self._tensors:
            self._tensors[shape] = tf.Variable(tf.random_normal(shape))
        return self._tensors[shape]


def _seconds(session: Any, operation: Any) -> float:
    start = time.perf_counter()
    session.run(operation)
    return time.perf_counter() - start
