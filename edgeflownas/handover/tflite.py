"""Makes TFLite files of one subnet, runs them and describes their content. Built on TensorFlow 2's converter.

    images [1, H, W, 6] in [-1, 1]  ->  the subnet, BN with its moving averages  ->  flow [1, H, W, 2] in pixels

The converter folds batch norm into the convolutions; the list of operators proves it. Only training needs the
uncertainty channels of the three outputs, so their kernels are left out.
"""

import collections
import hashlib
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

import numpy as np

from edgeflownas.config import Config
from edgeflownas.errors import RunFailed
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.network.layer_table import IMAGE_CHANNELS, OUTPUTS
from edgeflownas.network.layers import StoredStatistics
from edgeflownas.network.losses import accumulate_residuals
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.network.routing import SinglePath
from edgeflownas.run.handover import ModelFile, Quantised
from edgeflownas.tfcompat import hushed, restore, tf, tflite_interpreter, tflite_schema

OPERATORS = (
    "ADD",
    "CONV_2D",
    "RESIZE_BILINEAR",
    "SLICE",
)  # allowed in a file, because compilers for microcontrollers support them
FLOAT_TYPES, INT8_TYPES = ("FLOAT32", "INT32"), ("INT32", "INT8")  # int32: biases of int8 convolutions, sizes
ITEM_BYTES = {"FLOAT32": 4, "INT32": 4, "INT8": 1}
FLOW_CHANNELS = 2
HALF_WAY = 1e-3  # of a stored step; values this close below half-way count as half-way


def convert(config: Config, space: SearchSpace, prefix: str, calibration: Iterable[np.ndarray] = ()) -> bytes:
    """The TFLite file of the checkpoint `prefix` of a narrowed space: int8 with `calibration` (float images
    [1, H, W, 6] in [-1, 1]), else float."""
    data, samples = config.data, list(calibration)
    with tf.Graph().as_default(), tf.Session() as session:
        net = SupernetGraph(config.network.init_channels, space)
        saver = tf.train.Saver(net.variables.all())
        images = tf.placeholder(tf.float32, [1, data.input_height, data.input_width, IMAGE_CHANNELS], "images")
        flow = tf.identity(_flow(net, images), "flow")
        restore(saver, session, prefix)
        with hushed():
            converter = tf.lite.TFLiteConverter.from_session(session, [images], [flow])
            if samples:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([sample] for sample in samples)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = converter.inference_output_type = tf.int8
            return bytes(converter.convert())


def _flow(net: SupernetGraph, images: Any) -> Any:
    """The network's flow [1, H, W, 2]. Cuts the uncertainty channels off the output kernels in `net`."""
    variables, (code,) = net.variables, [net.space.arch_code]
    for layer in net.layers:
        if layer.name in OUTPUTS:
            for conv in layer.convolutions(layer.values[0])[-1:]:
                variables.trained[f"{conv.name}/kernel"] = variables.trained[f"{conv.name}/kernel"][..., :FLOW_CHANNELS]
    moving = [
        variables.moving[f"{norm}/{part}"] for norm in variables.norms for part in ("moving_mean", "moving_variance")
    ]
    once = collections.OrderedDict((norm, 1) for norm in variables.norms)
    route = SinglePath(tf.constant([code], tf.int32), net.space)
    outputs = net.forward(images, route, StoredStatistics(variables, tf.concat(moving, axis=0), once))
    return accumulate_residuals([paths[0] for paths in outputs])[-1]


class Runner:
    """Runs a TFLite file on images."""

    def __init__(self, content: bytes) -> None:
        with hushed():
            self._interpreter = tflite_interpreter(content)
        (self._input,), (self._output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def flow(self, images: np.ndarray) -> np.ndarray:
        """uint8 [B, H, W, 6] -> float32 [B, H, W, 2] in pixels, one image pair at a time."""
        return np.stack([self._one(image) for image in scaled(images)])

    def _one(self, image: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], _quantise(image[None], self._input))
        self._interpreter.invoke()
        return _real(self._interpreter.get_tensor(self._output["index"])[0], self._output)


def scaled(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [-1, 1], like `engine.cycle.scale_images`."""
    return images.astype(np.float32) * np.float32(1.0 / 127.5) - np.float32(1.0)


def _quantise(values: np.ndarray, details: Dict[str, Any]) -> np.ndarray:
    """The nearest stored value; half-way goes up. Values for a float file stay as they are.

    At the usual scale, 2/255, every pixel lies half-way between two stored values. Each goes up, even if float32 puts
    it a little lower, so stored = pixel - 128. Rounding to even would give neighbouring pixels the same value.
    """
    scale, zero_point = details["quantization"]
    if not scale:
        return values
    limits = np.iinfo(details["dtype"])
    stored = np.floor(values / scale + 0.5 + HALF_WAY) + zero_point
    return np.clip(stored, limits.min, limits.max).astype(details["dtype"])


def _real(values: np.ndarray, details: Dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale) if scale else values


class _Tensor(NamedTuple):
    type: str
    shape: List[int]
    size: int  # bytes
    constant: bool


def describe(file: str, content: bytes, epe: float, types: Tuple[str, ...]) -> ModelFile:
    """The content of a TFLite file. RunFailed for an operator not in `OPERATORS` or a tensor type not in `types`."""
    schema = tflite_schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    operators = collections.Counter(_operator(schema, model.operatorCodes[op.opcodeIndex]) for op in graph.operators)
    tensors = [_tensor(schema, model, tensor) for tensor in graph.tensors]
    found = sorted({tensor.type for tensor in tensors})
    for what, names, allowed in (("operators", sorted(operators), OPERATORS), ("tensor types", found, types)):
        others = [name for name in names if name not in allowed]
        if others:
            raise RunFailed(
                f"{file}: its {what} are {', '.join(names)}, want no others than {', '.join(allowed)}: this version of "
                f"TensorFlow ({tf.__version__}) converts {', '.join(others)} differently; export with the locked one"
            )
    largest = max((tensor for tensor in tensors if not tensor.constant), key=lambda tensor: tensor.size)
    ends = [_end(graph.tensors[index], tensors[index]) for index in (graph.inputs[0], graph.outputs[0])]
    return ModelFile(
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        input=ends[0]._asdict(),
        output=ends[1]._asdict(),
        operators=dict(sorted(operators.items())),
        tensor_types=found,
        weights=sum(tensor.size for tensor in tensors if tensor.constant),
        largest_activation=largest.size,
        largest_activation_shape=largest.shape,
        epe=epe,
    )


def _operator(schema: Any, code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # files hold small numbers in the old field
    return _name_of(schema.BuiltinOperator, number)


def _tensor(schema: Any, model: Any, tensor: Any) -> _Tensor:
    kind, shape = _name_of(schema.TensorType, tensor.type), [int(side) for side in tensor.shape]
    data = model.buffers[tensor.buffer].data
    constant = data is not None and len(data) > 0
    size = len(data) if constant else int(np.prod(shape)) * ITEM_BYTES.get(kind, 0)
    return _Tensor(kind, shape, size, constant)


def _end(stored: Any, tensor: _Tensor) -> Quantised:
    quantised = stored.quantization
    if quantised is None or quantised.scale is None or not len(quantised.scale):
        return Quantised(tensor.type, tensor.shape, 0.0, 0)
    return Quantised(tensor.type, tensor.shape, float(quantised.scale[0]), int(quantised.zeroPoint[0]))


def _name_of(enumeration: Any, number: int) -> str:
    names = [name for name, value in vars(enumeration).items() if value == number and not name.startswith("_")]
    return names[0] if names else f"number {number}"
