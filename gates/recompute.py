"""Recomputes in NumPy what a run recorded, only from its checkpoints and the data files.

In the small runs, BN re-estimation uses as many batches of one sample as there are training samples. So a subnet's
statistics are the plain average over the centre crops of all training samples, whatever the run's choice of batches.
"""

import itertools
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from gates import dataset, oracles, runs
from gates.dataset import Crops, DataSet

# Relative tolerances of EPE and losses, float32 against float64. Measured differences: 1.1e-7 and 6e-7. For comparison,
# a variance with n - 1 changes an EPE by 8e-6, and sigma without its 1e-3 changes a loss by 5e-4.
EPE_FLOAT32, LOSS_FLOAT32 = 1e-6, 2e-6


def weights_at(prefix: str) -> Dict[str, np.ndarray]:
    """The trained variables of a checkpoint, float64."""
    return {name: value.astype(np.float64) for name, value in runs.weights_of(runs.tensors(prefix)).items()}


def epe(weights: Dict[str, np.ndarray], code: Sequence[int], batches: Sequence[np.ndarray], truth: Crops) -> float:
    """EPE in pixels of a subnet on `truth`, after BN re-estimation over `batches` of images."""
    statistics = oracles.mean_statistics([oracles.batch_statistics(weights, code, images) for images in batches])
    return oracles.epe(oracles.predicted_flow(weights, code, statistics, truth.images), truth.flow)


STUDENT = 4.302652729911275  # the two-sided 5% point of Student's t with two degrees of freedom, for three samples


def behind_the_best(path: Path) -> Tuple[Dict[str, str], int]:
    """({code: what the report must say of its distance to the best subnet}, number of pairs that differ
    significantly), from a run's EPE per sample; with the errors of paired differences."""
    stored = np.load(str(path), allow_pickle=False)
    codes, last = ["".join(map(str, code)) for code in stored["codes"].tolist()], stored["last"].astype(np.float64)
    samples = last.shape[1]
    assert samples == runs.VALIDATION == 3
    apart = last[:, np.newaxis] - last[np.newaxis]  # [P, P, S]
    gap, error = apart.mean(axis=2), apart.std(axis=2, ddof=1) / np.sqrt(samples)
    beyond, best = np.abs(gap) > STUDENT * error, int(np.argmin(last.mean(axis=1)))
    said = {
        code: f"~{gap[i, best]:.4f} +- ~{error[i, best]:.4f}" + ("" if beyond[i, best] else ", tied with the best")
        for i, code in enumerate(codes)
    }
    return dict(said, **{codes[best]: "best"}), int(np.sum(beyond)) // 2


def one_by_one(
    folder: Path, names: Sequence[str], height: int = runs.HEIGHT, width: int = runs.WIDTH
) -> List[np.ndarray]:
    """The samples' centre crops, each as a batch of one."""
    crops = dataset.centre_crops(folder, names, height, width).images
    return [crops[i : i + 1] for i in range(len(crops))]


def pool_epe(samples: DataSet, prefix: str, codes: Sequence[str]) -> np.ndarray:
    """EPE in pixels of each code (digits) at a checkpoint of a small run."""
    weights, batches = weights_at(prefix), one_by_one(samples.folder, samples.train)
    truth = dataset.centre_crops(samples.folder, samples.val)
    return np.array([epe(weights, list(map(int, code)), batches, truth) for code in codes])


class Step(NamedTuple):
    """A cycle that starts from a kept checkpoint: the trace's event, its batch, and the tensors `before`. `after`: the
    tensors of the next step's checkpoint, or None if it is not kept."""

    event: Dict[str, Any]
    batch: Crops
    before: Dict[str, np.ndarray]
    after: Any


def kept_steps(
    data: Path, folder: Path, whole: Path, height: int = runs.HEIGHT, width: int = runs.WIDTH
) -> Iterator[Step]:
    """Yields the cycles that start from a checkpoint kept in `folder`, with events from the trace of `whole` (the same
    training)."""
    events = {event["step"]: event for event in runs.trace(whole, "cycle")}
    kept = {state["step"]: runs.tensors(prefix) for state, prefix in runs.generations(folder)}
    for step, before in sorted(kept.items()):
        if step in events:
            batch = dataset.read_crops(data, events[step]["batch"], height, width)
            yield Step(events[step], batch, before, kept.get(step + 1))


def path_losses(step: Step, piece: int = 0, **how: Any) -> List[float]:
    """The loss of each path of a cycle."""
    weights = runs.weights_of(step.before)
    return [oracles.path_loss(weights, code, *step.batch, piece=piece, **how) for code in step.event["codes"]]


def decay_term(weights: Dict[str, np.ndarray], wd: float) -> float:
    """`wd` times the sum of l2_loss over the kernels."""
    kernels = [value.astype(np.float64) for name, value in weights.items() if name.endswith("/kernel")]
    return float(wd * sum(0.5 * np.sum(value**2) for value in kernels))


def moving_averages(step: Step, piece: int = 0) -> Dict[str, np.ndarray]:
    """Batch norm's moving averages after a cycle in pieces of `piece` samples (0: the whole batch): 0.9 times the old
    ones plus 0.1 times the mean over the pieces of the paths that use the layer. Without such a path, the old array
    itself."""
    weights, want, images = runs.weights_of(step.before), {}, step.batch.images
    size = piece or len(images)
    pieces = [images[start : start + size] for start in range(0, len(images), size)]
    noted = [oracles.batch_statistics(weights, code, part) for code in step.event["codes"] for part in pieces]
    for name in [name for name in step.before if name.endswith(("/moving_mean", "/moving_variance"))]:
        layer, part = name.rsplit("/", 1)
        used = [one[layer][0 if part == "moving_mean" else 1] for one in noted if layer in one]
        old = step.before[name]
        want[name] = 0.9 * old.astype(np.float64) + 0.1 * np.mean(used, axis=0) if used else old
    return want


def matchings(names: Sequence[str], size: int) -> Iterator[List[List[str]]]:
    """Yields every way to divide samples into batches of `size`, regardless of order, which does not affect BN."""
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for others in itertools.combinations(rest, size - 1):
        left = [name for name in rest if name not in others]
        for more in matchings(left, size):
            yield [[first, *others]] + more
