"""What a hand-over records: the origin of an extracted subnet (in its manifest), and an export (beside its files).

Field names are the keys of the JSON. EPE and flow in pixels, sizes in bytes.
"""

from typing import Any, Dict, List, NamedTuple, Optional


class Parent(NamedTuple):
    """An entry of `parents` in the manifest of an extracted subnet: where its weights come from, and the proof."""

    run: str  # folder, absolute
    checkpoint: str  # "best" or "last"
    generation: str
    sha256: Dict[str, str]  # of the generation's files
    space: Dict[str, str]  # identity
    arch_code: str  # digits
    epoch: int
    global_step: int
    bn_recal_batches: int  # over which the stored statistics were re-estimated
    difference: List[float]  # per output, coarse to fine: the largest from the supernet's path
    tolerance: List[float]
    samples: List[str]  # the validation samples on which the two were compared


class Quantised(NamedTuple):
    """An input or output of a TFLite file; real = scale * (stored - zero_point)."""

    type: str
    shape: List[int]
    scale: float  # 0: not quantised
    zero_point: int


class ModelFile(NamedTuple):
    """One TFLite file."""

    file: str
    sha256: str
    size: int
    input: Dict[str, Any]  # Quantised
    output: Dict[str, Any]
    operators: Dict[str, int]  # name -> how often
    tensor_types: List[str]
    weights: int  # bytes of all constants: what must lie in flash
    largest_activation: int  # bytes of one tensor: the network runs in no less SRAM, unless it is cut into stripes
    largest_activation_shape: List[int]
    epe: float


class Export(NamedTuple):
    """export.json."""

    space: Dict[str, str]
    arch_code: str
    checkpoint: Dict[str, Any]  # generation, epoch, step, sha256 of its files
    dataset: str  # fingerprint
    input_size: List[int]  # height, width
    parameters: int
    multiply_adds: int
    epe: float  # of TensorFlow, by the stored statistics
    zero_flow_epe: float
    num_samples: int  # validation samples, the same for every EPE here
    largest_difference: float  # of the float file from TensorFlow
    tolerance: float
    float_model: Dict[str, Any]  # ModelFile
    int8_model: Optional[Dict[str, Any]]
    calibration: List[Dict[str, str]]  # name, and the SHA-256 of both frames, of each training sample
    vela: Optional[Dict[str, Any]]
    versions: Dict[str, str]
