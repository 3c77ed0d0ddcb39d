"""The network's own convolutions, and the time this TensorFlow takes for each of them alone."""
import collections
import time
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from edgeflownas.config import Config
from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.network.layers import convolution_gradients
from edgeflownas.tfcompat import tf

_KINDS = {"Conv2D": "forward", "Conv2DBackpropInput": "input gradient", "Conv2DBackpropFilter": "filter gradient"}


class Convolution(NamedTuple):
    """One kind of convolution of a graph, NHWC, SAME padding."""
    kind: str
    image: Tuple[int, ...]    # [B, H, W, inputs]
    kernel: Tuple[int, ...]   # [k, k, inputs, outputs]
    result: Tuple[int, ...]   # [B, H / stride, W / stride, outputs]

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
            operands = {"Conv2D": inputs[:2] + [output], "Conv2DBackpropInput": [output] + inputs[1:],
                        "Conv2DBackpropFilter": [inputs[0], output, inputs[-1]]}[op.type]
            found[Convolution(_KINDS[op.type], *operands)] += 1
    return found


def cycle_convolutions(config: Config) -> "collections.Counter":
    """Those of one fused cycle's graph; E0's input gradient is among them, although no run asks for it."""
    with tf.Graph().as_default() as graph:
        CycleGraph(config)
        return convolutions(graph)


def time_alone(convolution: Convolution, session_config: Any, repeats: int, clock: Any = time.perf_counter) -> float:
    """Seconds of one such convolution, nothing else running: the best of `repeats`."""
    with tf.Graph().as_default(), convolution_gradients():
        image, kernel, result = [tf.Variable(tf.random_normal(shape)) for shape in convolution[1:]]
        strides = [1, convolution.stride, convolution.stride, 1]
        if convolution.kind == "forward":
            out = tf.nn.conv2d(image, kernel, strides=strides, padding="SAME")
        elif convolution.kind == "input gradient":
            out = tf.nn.conv2d_backprop_input(convolution.image, kernel, result, strides=strides, padding="SAME")
        else:
            out = tf.nn.conv2d_backprop_filter(image, convolution.kernel, result, strides=strides, padding="SAME")
        seconds: List[float] = []
        with tf.Session(config=session_config) as session:
            session.run(tf.global_variables_initializer())
            session.run(out.op)
            for _ in range(repeats):
                start = clock()
                session.run(out.op)
                seconds.append(clock() - start)
    return min(seconds)
