"""The index of a FlyingChairs2 set: its training and validation samples and their files. Built on `fc2_sample`.

List files (FC2_dirnames.txt, FC2_train.txt, FC2_test.txt) or the folders train/ and val/ define the split. No sample is
left out or replaced: any mismatch is a DataError that names file, line, the expected and the found value.
"""

import hashlib
import json
import os
import re
from pathlib import PurePosixPath
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from edgeflownas import rng
from edgeflownas.data.fc2_sample import (
    FLOW,
    IMG0,
    IMG1,
    Progress,
    Sample,
    check_crop,
    is_inside,
    map_in_threads,
    probe,
    verify_all,
    verify_sample,
)
from edgeflownas.errors import DataError, UserError

__all__ = ["FC2Index", "Sample", "build_index", "verify_all", "verify_sample"]

DIRNAMES, TRAIN_LIST, VAL_LIST = "FC2_dirnames.txt", "FC2_train.txt", "FC2_test.txt"
DATASET = "FlyingChairs2"
RECORD = "dataset.json"  # written into each set by `edgeflownas.data.synthetic`
_ENTRY_NAME = re.compile(r"[0-9]{7}" + re.escape(IMG0) + r"\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


class FC2Index(NamedTuple):
    """Samples in list order. `fingerprint`: SHA-256 over split, name and frame size of every sample, without paths."""

    train: Tuple[Sample, ...]
    val: Tuple[Sample, ...]
    fingerprint: str
    source: str  # "lists", "folders", or "synthetic": made by edgeflownas.data.synthetic


def build_index(data_cfg: Any, seed: int, check: bool = True, progress: Optional[Progress] = None) -> FC2Index:
    """Finds the samples below `data_cfg.base_path`.

    With `data_cfg.holdout` > 0 the validation set is that many samples drawn from the training list by `seed`, in list
    order; the validation list is then not used. `check` compares existence, headers and file sizes of all three files
    of every sample; without it only the flow's header is read. Frames must be at least as large as the crop
    (`input_height`, `input_width`). `progress(done, total)` is called per sample. Raises UserError and its subclass
    DataError.
    """
    root = os.path.realpath(data_cfg.base_path)
    if not data_cfg.base_path or not os.path.isdir(root):
        raise UserError(
            f"data.base_path {data_cfg.base_path!r}: expected the folder of {DATASET}, found none; set --base_path"
        )
    source, train, val = _splits(root, data_cfg.list_dir, use_val=data_cfg.holdout == 0)
    if data_cfg.holdout:
        train, val = _hold_out(train, data_cfg.holdout, seed)
    for split, names in (("training", train), ("validation", val)):
        if not names:
            raise DataError(f"{root}: expected at least one {split} sample, found none")
    samples = map_in_threads(lambda name: probe(root, name, check), train + val, progress=progress)
    check_crop(samples, data_cfg.input_height, data_cfg.input_width)
    index = tuple(samples[: len(train)]), tuple(samples[len(train) :])
    return FC2Index(index[0], index[1], _fingerprint(*index), "synthetic" if _is_synthetic(root) else source)


def _is_synthetic(root: str) -> bool:
    """Whether the folder has the record of a synthetic set. Another file of that name does not count."""
    try:
        with open(os.path.join(root, RECORD), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and {"format", "train", "test", "seed"} <= set(record)


def _splits(root: str, list_dir: str, use_val: bool) -> Tuple[str, List[str], List[str]]:
    """(source, training names, validation names); the latter are empty if not used."""
    if list_dir or any(os.path.lexists(os.path.join(root, name)) for name in (DIRNAMES, TRAIN_LIST, VAL_LIST)):
        folder = list_dir or root
        names = _read_dirnames(os.path.join(folder, DIRNAMES), root)
        used: Dict[int, str] = {}
        train = _read_split(os.path.join(folder, TRAIN_LIST), names, used)
        return "lists", train, _read_split(os.path.join(folder, VAL_LIST), names, used) if use_val else []
    if not os.path.isdir(os.path.join(root, "train")):
        raise DataError(
            f"{root}: expected {DIRNAMES} or a folder train/, found neither; set --base_path to the folder {DATASET}"
        )
    return "folders", _scan(root, "train"), _scan(root, "val") if use_val else []


def _lines(path: str) -> List[Tuple[int, str]]:
    """(line number from 1, text) of each non-blank line of a list file."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [(number, line.strip()) for number, line in enumerate(file, 1)]
    except OSError as error:
        raise DataError(f"{path}: expected a list file, found: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected a list file in UTF-8, found: {error}") from None
    return [(number, text) for number, text in lines if text]


def _read_dirnames(path: str, root: str) -> List[str]:
    """Sample names like "train/0000014" in the order of FC2_dirnames.txt; blank lines do not count."""
    line_of: Dict[str, int] = {}
    folders: Dict[str, bool] = {}
    for number, entry in _lines(path):
        where = f"{path} line {number}"
        parts = PurePosixPath(entry).parts
        if ".." in parts or "\0" in entry:
            raise DataError(f"{where}: expected a path without '..', found {entry!r}")
        if not parts or not _ENTRY_NAME.match(parts[-1]):
            raise DataError(f"{where}: expected a path ending in NNNNNNN{IMG0}, found {entry!r}")
        name = "/".join(_below_dataset(parts))[: -len(IMG0)]
        if name in line_of:
            raise DataError(f"{where}: expected each sample once, found {entry!r} also in line {line_of[name]}")
        line_of[name] = number
        folder = os.path.dirname(os.path.join(root, name))
        if folder not in folders:
            folders[folder] = is_inside(os.path.realpath(folder), root)
        if not folders[folder]:
            raise DataError(
                f"{where}: expected a path below the data root {root}, found {entry!r}, which leads to "
                f"{os.path.realpath(folder)}"
            )
    return list(line_of)


def _below_dataset(parts: Sequence[str]) -> Sequence[str]:
    """The parts of a path after its last component FlyingChairs2, or else its last two."""
    parts = [part for part in parts if part.strip("/")]
    if DATASET in parts[:-1]:
        return parts[len(parts) - parts[::-1].index(DATASET) :]
    return parts[-2:]


def _read_split(path: str, names: Sequence[str], used: Dict[int, str]) -> List[str]:
    """The names that a file of indices selects. Adds them to `used` (index -> place), to find an index in two lists."""
    selected = []
    for number, text in _lines(path):
        where = f"{path} line {number}"
        if not _NUMBER.match(text):
            raise DataError(f"{where}: expected an integer from 0, found {text!r}")
        index = int(text)
        if index >= len(names):
            raise DataError(
                f"{where}: expected an index below {len(names)}, the number of entries of {DIRNAMES}, found {index}"
            )
        if index in used:
            raise DataError(f"{where}: expected each index once in one list, found {index} also in {used[index]}")
        used[index] = where
        selected.append(names[index])
    return selected


def _scan(root: str, split: str) -> List[str]:
    """Sorted sample names of a folder. One of the three files is enough, so that a missing file is noticed later."""
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise DataError(
            f"{folder}: expected a folder beside the other split, found none (data.holdout takes the "
            "validation "
            "set from train/)"
        )
    if not is_inside(os.path.realpath(folder), root):
        raise DataError(
            f"{folder}: expected a folder below the data root {root}, found a link to {os.path.realpath(folder)}"
        )
    names = set()
    for file in os.listdir(folder):
        for suffix in (IMG0, IMG1, FLOW):
            if file.endswith(suffix):
                stem = file[: -len(suffix)]
                if not _ENTRY_NAME.match(stem + IMG0):
                    raise DataError(f"{os.path.join(folder, file)}: expected a name NNNNNNN{suffix}, found {file!r}")
                names.add(f"{split}/{stem}")
    return sorted(names)


def _hold_out(names: Sequence[str], count: int, seed: int) -> Tuple[List[str], List[str]]:
    """(names left for training, `count` names drawn for validation), both in the order of `names`."""
    if not 0 < count < len(names):
        raise UserError(
            f"data.holdout: expected 0 (off) to {len(names) - 1}, leaving a sample to train on, found {count}"
        )
    held = set(rng.stream("holdout", seed).permutation(len(names))[:count].tolist())
    return (
        [name for i, name in enumerate(names) if i not in held],
        [name for i, name in enumerate(names) if i in held],
    )


def _fingerprint(train: Sequence[Sample], val: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for split, samples in (("train", train), ("val", val)):
        for sample in samples:
            digest.update(f"{split} {sample.name} {sample.height}x{sample.width}\n".encode())
    return digest.hexdigest()
