"""The calibration samples of an export, and the EPE of TensorFlow and of each file. Built on `Supernet`."""

from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from edgeflownas import rng
from edgeflownas.data.fc2_sample import Sample
from edgeflownas.errors import RunFailed

TENSORFLOW = "TensorFlow"
# Largest difference of the float file from TensorFlow: px, or a share of the largest component of the flow if that is
# above 10 px, because float32 has no more digits.
TOLERANCE, RELATIVE = 1e-4, 1e-5


class Measured(NamedTuple):
    """EPE in pixels of TensorFlow and of each file, by name, all on the same validation samples."""

    epe: Dict[str, float]
    zero_flow_epe: float
    num_samples: int
    difference: Dict[str, float]  # of each file: its largest difference from TensorFlow, pixels
    tolerance: float  # of the float file


def calibration_samples(samples: Sequence[Sample], seed: int, count: int) -> List[Sample]:
    """`count` of the samples, or all if there are fewer, drawn by the stream "calibration"."""
    order = rng.stream("calibration", seed).permutation(len(samples))[:count]
    return [samples[i] for i in order]


def measure(supernet: Any, runners: Dict[str, Any]) -> Measured:
    """Runs the validation samples through TensorFlow and each file. RunFailed if TensorFlow's flow is not finite."""
    code = supernet.space.arch_code
    errors: Dict[str, List[np.ndarray]] = {name: [] for name in [TENSORFLOW, *runners]}
    zero: List[np.ndarray] = []
    difference, largest = dict.fromkeys(runners, 0.0), 0.0
    for _, images, truth in supernet.read(supernet.validation):
        want = supernet.flow(code, images)
        largest = max(largest, float(np.abs(want).max()))
        errors[TENSORFLOW].append(_epe(want, truth))
        zero.append(_epe(np.zeros_like(truth), truth))
        for name, runner in runners.items():
            flow = runner.flow(images)
            difference[name] = max(difference[name], float(np.abs(flow - want).max()))
            errors[name].append(_epe(flow, truth))
    epe = {name: float(np.concatenate(parts).mean()) for name, parts in errors.items()}
    samples = np.concatenate(zero)
    if not np.isfinite(largest):
        raise RunFailed("the flow of this subnet is not finite: its weights have diverged; nothing was written")
    return Measured(epe, float(samples.mean()), len(samples), difference, max(TOLERANCE, RELATIVE * largest))


def _epe(flow: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """EPE per sample, float64 [B], of two flows [B, H, W, 2]."""
    return np.hypot(*np.moveaxis(flow.astype(np.float64) - truth, 3, 0)).mean(axis=(1, 2))
