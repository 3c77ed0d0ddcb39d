"""Writes the run folder's NumPy archives (npz) atomically, and reads them without pickle. Built on NumPy."""

import contextlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from edgeflownas.errors import DataError, UserError
from edgeflownas.run.json_file import parse_object


def write_npz(folder: str, name: str, values: Dict[str, Any]) -> None:
    """Replaces the archive `name` in `folder`. UserError if it cannot be written; the old one then stays."""
    path, temporary = os.path.join(folder, name), os.path.join(folder, f".{name}.tmp.npz")
    try:
        np.savez_compressed(temporary, **values)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise UserError(f"cannot write {path}: {error.strerror or error}; free some space and --resume") from error


def read_npz(path: Path, names: Sequence[str], absent: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    """Reads the named arrays. `absent`: values for those that older files lack. DataError if damaged or incomplete."""
    try:
        with zipfile.ZipFile(str(path)):  # fails cleanly; np.load of NumPy 1.18 would leave a half-made object behind
            pass
        with np.load(str(path), allow_pickle=False) as archive:
            stored = dict(absent or {}, **archive)
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error) from error


def require_arrays(path: Path, found: Dict[str, Any], wanted: Dict[str, Tuple[Tuple[int, ...], str]]) -> None:
    """DataError unless each array has its shape and dtype kind (NumPy's letter) in `wanted`."""
    for name, (shape, kind) in wanted.items():
        array = found[name]
        if array.shape != shape or array.dtype.kind != kind:
            raise DataError(f"{path}: {name}: expected {shape}, found {array.dtype} {array.shape}")


def parse_space(path: Path, text: Any) -> Dict[str, Any]:
    """The search space of an archive, {"name", "digest"}, from its JSON text. DataError if it is damaged."""
    try:
        return parse_object(str(text).encode("utf-8"))
    except ValueError as error:
        raise unreadable(path, ValueError(f"space: {error}")) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error to raise for an archive that cannot be read."""
    return DataError(f"{path}: cannot be read: {str(error)[:160]}; it is written anew at the next evaluation")
