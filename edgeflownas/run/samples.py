"""eval_samples.npz: inputs and predictions of the best and the worst subnet at the last evaluation. On `npz_file`."""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space
from edgeflownas.run.folder import SAMPLES
from edgeflownas.run.npz_file import parse_space, read_npz, require_arrays, write_npz


class Samples(NamedTuple):
    """K validation samples at the evaluation of `epoch`; subnet 0 is the best of the pool there, 1 the worst."""

    images: np.ndarray  # uint8 [K, H, W, 6]
    flow: np.ndarray  # float32 [K, H, W, 2], pixels
    prediction: np.ndarray  # float32 [2, K, H, W, 2], pixels
    codes: np.ndarray  # int32 [2, blocks]
    epe: np.ndarray  # float32 [2], pixels, mean over all scored samples
    epoch: int
    names: List[str]
    space: Dict[str, Any]  # search space of the codes, by name and digest; files of the first version have none


def write_samples(folder: str, samples: Samples) -> None:
    """Replaces the file. UserError if it cannot be written; the old one then stays."""
    write_npz(folder, SAMPLES, dict(samples._asdict(), space=json.dumps(samples.space)))


def read_samples(folder: Path, space: SearchSpace) -> Optional[Samples]:
    """Reads the samples of a run folder. None if there is no such file, DataError if it is damaged."""
    path = folder / SAMPLES
    if not path.exists():
        return None
    absent = {"space": np.array(json.dumps(FIRST_VERSION))}
    found: Any = Samples(**read_npz(path, Samples._fields, absent))
    _check(path, found, len(space.blocks))
    stored_space = parse_space(path, found.space)
    require_same_space(stored_space, space, str(path))
    return found._replace(epoch=int(found.epoch), names=[str(name) for name in found.names], space=stored_space)


def _check(path: Path, found: Any, blocks: int) -> None:
    """DataError unless every array has the expected shape and kind."""
    count, height, width = found.flow.shape[:3] if found.flow.ndim == 4 else (0, 0, 0)
    count = max(count, 1)  # a file without samples is an error
    wanted = {
        "images": ((count, height, width, 6), "u"),
        "flow": ((count, height, width, 2), "f"),
        "prediction": ((2, count, height, width, 2), "f"),
        "codes": ((2, blocks), "i"),
        "epe": ((2,), "f"),
        "epoch": ((), "i"),
        "names": ((count,), "U"),
        "space": ((), "U"),
    }
    require_arrays(path, found._asdict(), wanted)
