"""An export's samples and figures: which training samples calibrate it, and the EPE of TensorFlow and of each file."""

from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from edgeflownas import rng
from edgeflownas.data.fc2_sample import Sample
from edgeflownas.errors import RunFailed

TENSORFLOW = "TensorFlow"
# Pixels by which the float file may differ from TensorFlow, and of the longest vector where that is beyond 10 px:
# float32 has no more digits.
TOLERANCE, RELATIVE = 1e-4, 1e-5


class Measured(NamedTuple):
    """EPE in pixels, of TensorFlow and of each file by its name, all on the same validation samples."""

    epe: Dict[str, float]
    zero_flow_epe: float
    num_samples: int
    difference: Dict[str, float]  # the largest of each file from TensorFlow, pixels
    tolerance: float  # of the float file


def calibration_samples(samples: Sequence[Sample], seed: int, count: int) -> List[Sample]:
    """`count` training samples, or all, in an order of their own stream."""
    order = rng.stream("calibration", seed).permutation(len(samples))[:count]
    return [samples[i] for i in order]


def measure(supernet: Any, runners: Dict[str, Any]) -> Measured:
    """Runs the validation samples through TensorFlow and through each file."""
    code = supernet.space.arch_code
    errors: Dict[str, List[np.ndarray]] = {name: [] for name in [TENSORFLOW, *runners]}
    zero: List[np.ndarray] = []
    difference, longest = dict.fromkeys(runners, 0.0), 0.0
    for _, images, truth in supernet.read(supernet.validation):
        want = supernet.flow(code, images)
        longest = max(longest, float(np.abs(want).max()))
        errors[TENSORFLOW].append(_epe(want, truth))
        zero.append(_epe(np.zeros_like(truth), truth))
        for name, runner in runners.items():
            flow = runner.flow(images)
            difference[name] = max(difference[name], float(np.abs(flow - want).max()))
            errors[name].append(_epe(flow, truth))
    epe = {name: float(np.concatenate(parts).mean()) for name, parts in errors.items()}
    samples = np.concatenate(zero)
    if not np.isfinite(longest):
        raise RunFailed("the flow of this subnet is not finite: its weights have diverged; nothing was written")
    return Measured(epe, float(samples.mean()), len(samples), difference, max(TOLERANCE, RELATIVE * longest))


def _epe(flow: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """float64 [B] of two [B, H, W, 2]."""
    return np.hypot(*np.moveaxis(flow.astype(np.float64) - truth, 3, 0)).mean(axis=(1, 2))
