"""eval_epe_samples.npz: the EPE of each subnet of the pool on each validation sample, at the last and the best
evaluation. The report computes paired errors from it. Built on `npz_file`."""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from edgeflownas.errors import DataError
from edgeflownas.nas.search_space import SearchSpace, require_same_space
from edgeflownas.run.folder import EPE_SAMPLES
from edgeflownas.run.npz_file import parse_space, read_npz, require_arrays, write_npz


class EpeSamples(NamedTuple):
    """`last` and `best` are float32 [subnets, samples] in px. If the best evaluation is not in the file, `best_epoch`
    is 0 and `best` has no rows: after a resume from a checkpoint older than the file, or if the file was damaged."""

    codes: np.ndarray  # int32 [subnets, blocks]
    last: np.ndarray
    last_epoch: int
    best: np.ndarray
    best_epoch: int
    names: List[str]  # of the samples
    space: Dict[str, Any]  # search space of the codes, by name and digest


def write_epe_samples(
    folder: str, epoch: int, best_epoch: int, codes: np.ndarray, epe: np.ndarray, names: List[str], space: SearchSpace
) -> None:
    """Replaces the file with the evaluation of `epoch`. Keeps the best one of the old file if `epoch` is not the best.

    UserError if the file cannot be written; the old one then stays.
    """
    best = epe if best_epoch == epoch else _kept_best(Path(folder), best_epoch, epe.shape, space)
    values = EpeSamples(codes, epe, epoch, best, best_epoch if len(best) else 0, names, space.identity())
    write_npz(folder, EPE_SAMPLES, dict(values._asdict(), space=json.dumps(values.space)))


def _kept_best(folder: Path, best_epoch: int, shape: Any, space: SearchSpace) -> np.ndarray:
    try:
        found = read_epe_samples(folder, space)
    except DataError:  # damaged: the best evaluation is lost; the file is replaced
        found = None
    fits = found is not None and found.best_epoch == best_epoch and found.best.shape == shape
    return found.best if found is not None and fits else np.zeros((0, shape[1]), np.float32)


def read_epe_samples(folder: Path, space: SearchSpace) -> Optional[EpeSamples]:
    """Reads the file of a run folder. None if there is none (older versions wrote none), DataError if damaged."""
    path = folder / EPE_SAMPLES
    if not path.exists():
        return None
    found: Any = EpeSamples(**read_npz(path, EpeSamples._fields))
    identity = parse_space(path, found.space)
    require_same_space(identity, space, str(path))
    _check(path, found, len(space.blocks))
    return found._replace(
        last_epoch=int(found.last_epoch),
        best_epoch=int(found.best_epoch),
        names=[str(name) for name in found.names],
        space=identity,
    )


def _check(path: Path, found: Any, blocks: int) -> None:
    """DataError unless every array has the expected shape and kind."""
    subnets, samples = found.last.shape if found.last.ndim == 2 else (0, 0)
    samples = max(samples, 1)  # a file without samples is an error
    wanted = {
        "codes": ((subnets, blocks), "i"),
        "last": ((subnets, samples), "f"),
        "last_epoch": ((), "i"),
        "best": ((subnets if found.best_epoch.any() else 0, samples), "f"),
        "best_epoch": ((), "i"),
        "names": ((samples,), "U"),
    }
    require_arrays(path, found._asdict(), wanted)
