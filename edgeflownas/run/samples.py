"""Strict reader of `eval_samples.npz`: what the best and the worst subnet saw and predicted."""

import zipfile
import zlib
from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np

from edgeflownas.errors import DataError
from edgeflownas.nas.search_space import SearchSpace


class Samples(NamedTuple):
    """Validation samples after the evaluation of `epoch`; subnet 0 is the pool's best, 1 its worst."""

    images: np.ndarray  # uint8 [K, H, W, 6]
    flow: np.ndarray  # float32 [K, H, W, 2], pixels
    prediction: np.ndarray  # float32 [2, K, H, W, 2], pixels
    codes: np.ndarray  # int32 [2, blocks]
    epe: np.ndarray  # float32 [2]
    epoch: int
    names: List[str]


def read_samples(folder: Path, space: SearchSpace) -> Optional[Samples]:
    """The samples of a run folder; None if it has no such file, DataError if the file is damaged."""
    path = folder / "eval_samples.npz"
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(str(path)):  # fails cleanly, where NumPy 1.18 leaves a half-made object behind
            pass
        with np.load(str(path), allow_pickle=False) as archive:
            values = {name: archive[name] for name in Samples._fields}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read: {str(error)[:160]}; it is written anew at the next evaluation"
        ) from error
    count, height, width = values["flow"].shape[:3] if values["flow"].ndim == 4 else (0, 0, 0)
    shapes = {
        "images": (count, height, width, 6),
        "flow": (count, height, width, 2),
        "prediction": (2, count, height, width, 2),
        "codes": (2, len(space.blocks)),
        "epe": (2,),
        "epoch": (),
        "names": (count,),
    }
    kinds = {"images": "u", "codes": "i", "epoch": "i", "names": "U"}
    for name, shape in shapes.items():
        found = values[name]
        if found.shape != shape or found.dtype.kind != kinds.get(name, "f") or not count:
            raise DataError(f"{path}: {name}: expected {shape}, found {found.dtype} {found.shape}")
    return Samples(
        values["images"],
        values["flow"],
        values["prediction"],
        values["codes"],
        values["epe"],
        int(values["epoch"]),
        [str(name) for name in values["names"]],
    )
