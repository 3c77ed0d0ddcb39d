"""fairness_counts.json: how often each option of each block was trained. Built on `json_file`."""

import os
from pathlib import Path
from typing import Any, Dict, NamedTuple, Union

from edgeflownas.errors import DataError
from edgeflownas.files import atomic_write_json
from edgeflownas.nas.search_space import FIRST_VERSION
from edgeflownas.run.folder import FAIRNESS
from edgeflownas.run.json_file import read_json


class FairnessRecord(NamedTuple):
    """The file's fields."""

    supernet_mode: str
    cycles: int
    fairness_gap: int  # largest minus smallest count, over all blocks
    counts: Dict[str, Any]  # block: [times trained, per option]
    space: Dict[str, Any]  # the search space of the blocks, by name and digest


def write_fairness(folder: str, record: FairnessRecord) -> None:
    """Writes the file atomically. UserError if it cannot be written."""
    atomic_write_json(os.path.join(folder, FAIRNESS), dict(record._asdict()))


def read_fairness(folder: Union[str, Path]) -> FairnessRecord:
    """Reads the file's fields. DataError if it is missing, damaged or incomplete. Does not check the numbers."""
    path = os.path.join(str(folder), FAIRNESS)
    stored = dict({"space": FIRST_VERSION}, **read_json(path))
    missing = [name for name in FairnessRecord._fields if name not in stored]
    if missing:
        raise DataError(f"{path}: expected {', '.join(FairnessRecord._fields)}, found no {', '.join(missing)}")
    if not isinstance(stored["counts"], dict):
        raise DataError(f"{path}: counts: expected an object with a list per block, found {stored['counts']!r:.80}")
    return FairnessRecord(*(stored[name] for name in FairnessRecord._fields))
