"""The records of a hand-over: an extracted subnet's origin (in its manifest) and an export (beside its files).

Field names are the keys of the JSON. EPE and flow in pixels, sizes in bytes.
"""

from typing import Any, Dict, List, NamedTuple, Optional


class Parent(NamedTuple):
    """An entry of `parents` in the manifest of an extracted subnet: the source of its weights, and the comparison."""

    run: str  # absolute path of the run folder
    checkpoint: str  # "best" or "last"
    generation: str
    sha256: Dict[str, str]  # of the generation's files
    space: Dict[str, str]  # name and digest
    arch_code: str  # digits
    epoch: int
    global_step: int
    bn_recal_batches: int  # batches of the recalibration that gave the stored BN statistics
    difference: List[float]  # per output, coarse to fine: largest absolute difference from the supernet's path
    tolerance: List[float]  # per output
    samples: List[str]  # the validation samples on which the two were compared


class Quantised(NamedTuple):
    """The input or output of a TFLite file; real = scale * (stored - zero_point)."""

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
    operators: Dict[str, int]  # name -> number of uses
    tensor_types: List[str]
    weights: int  # bytes of all constants, which must fit in flash
    largest_activation: int  # bytes of one tensor; a lower bound of the SRAM, unless layers are computed in stripes
    largest_activation_shape: List[int]
    epe: float


class Export(NamedTuple):
    """The content of export.json."""

    space: Dict[str, str]
    arch_code: str
    checkpoint: Dict[str, Any]  # generation, epoch, global_step, sha256 of its files
    dataset: str  # fingerprint
    input_size: List[int]  # height, width
    parameters: int
    multiply_adds: int
    epe: float  # of TensorFlow, with the stored BN statistics
    zero_flow_epe: float
    num_samples: int  # validation samples of every EPE here
    largest_difference: float  # of the float file's flow from TensorFlow's
    tolerance: float
    float_model: Dict[str, Any]  # ModelFile
    int8_model: Optional[Dict[str, Any]]
    calibration: List[Dict[str, str]]  # per training sample: name, SHA-256 of both frames
    vela: Optional[Dict[str, Any]]
    versions: Dict[str, str]
