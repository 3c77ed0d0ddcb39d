"""What a run recorded, computed again by NumPy from its checkpoints and the data files alone.

In the small runs a batch of BN re-estimation is one sample and there are as many batches as training samples, so the
statistics of a subnet are the plain mean over all training samples' centre crops; nobody needs to be asked which.
"""

import itertools
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np

from gates import dataset, oracles, runs
from gates.dataset import Crops, DataSet

# EPE and losses in float32 against float64, relative. Measured: 1.1e-7 and 6e-7; a variance by n - 1 moves an EPE by
# 8e-6, the missing 1e-3 of sigma a loss by 5e-4.
EPE_FLOAT32, LOSS_FLOAT32 = 1e-6, 2e-6


def weights_at(prefix: str) -> Dict[str, np.ndarray]:
    """The trained variables of a checkpoint, float64."""
    return {name: value.astype(np.float64) for name, value in runs.weights_of(runs.tensors(prefix)).items()}


def epe(weights: Dict[str, np.ndarray], code: Sequence[int], batches: Sequence[np.ndarray], truth: Crops) -> float:
    """EPE of a subnet on `truth` after re-estimation over `batches` of images, pixels."""
    statistics = oracles.mean_statistics([oracles.batch_statistics(weights, code, images) for images in batches])
    return oracles.epe(oracles.predicted_flow(weights, code, statistics, truth.images), truth.flow)


def one_by_one(
    folder: Path, names: Sequence[str], height: int = runs.HEIGHT, width: int = runs.WIDTH
) -> List[np.ndarray]:
    """Each sample's centre crop as a batch of its own."""
    crops = dataset.centre_crops(folder, names, height, width).images
    return [crops[i : i + 1] for i in range(len(crops))]


def pool_epe(samples: DataSet, prefix: str, codes: Sequence[str]) -> np.ndarray:
    """EPE of each code (digits) of a small run, at a checkpoint."""
    weights, batches = weights_at(prefix), one_by_one(samples.folder, samples.train)
    truth = dataset.centre_crops(samples.folder, samples.val)
    return np.array([epe(weights, list(map(int, code)), batches, truth) for code in codes])


class Step(NamedTuple):
    """A cycle whose weights before it are kept in a checkpoint: the trace's event, its batch, and the tensors before;
    `after` are those of the next checkpoint if that is kept too."""

    event: Dict[str, Any]
    batch: Crops
    before: Dict[str, np.ndarray]
    after: Any


def kept_steps(
    data: Path, folder: Path, whole: Path, height: int = runs.HEIGHT, width: int = runs.WIDTH
) -> Iterator[Step]:
    """The cycles that began at a checkpoint kept in `folder`, as the trace of `whole` (the same training) has them."""
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


def moving_averages(step: Step) -> Dict[str, np.ndarray]:
    """Batch norm's moving averages after a cycle: nine tenths of before, a tenth of the mean over the paths that use
    the layer."""
    weights, want = runs.weights_of(step.before), {}
    noted = [oracles.batch_statistics(weights, code, step.batch.images) for code in step.event["codes"]]
    for name in [name for name in step.before if name.endswith(("/moving_mean", "/moving_variance"))]:
        layer, part = name.rsplit("/", 1)
        used = [one[layer][0 if part == "moving_mean" else 1] for one in noted if layer in one]
        old = step.before[name].astype(np.float64)
        want[name] = 0.9 * old + 0.1 * np.mean(used, axis=0) if used else old
    return want


def matchings(names: Sequence[str], size: int) -> Iterator[List[List[str]]]:
    """Every way to part samples into batches of `size`; the order of batches and within them says nothing to BN."""
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for others in itertools.combinations(rest, size - 1):
        left = [name for name in rest if name not in others]
        for more in matchings(left, size):
            yield [[first, *others]] + more
