"""The file of the evaluation pool, `eval_pool_12.json`: the codes that a run scores.

A resume reads the pool from here, so a later version that would choose another pool changes nothing. The file holds the
search space and a digest of its content. Built on the codec.
"""

import hashlib
import json
from typing import Any, Dict

import numpy as np

from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json
from edgeflownas.nas.arch_codec import parse, to_text
from edgeflownas.nas.eval_pool import pool_design
from edgeflownas.nas.search_space import SearchSpace, require_same_space
from edgeflownas.run.first_version import identity_of
from edgeflownas.run.json_file import read_json

_FORMAT = 2
_KEYS = ("format", "seed", "size", "space", "design", "codes", "digest")
_FIRST_KEYS = ("format", "seed", "size", "search_space", "codes")  # of the first version, format 1
_ADVICE = "put the run's own file back, or start a new run"


def save_pool(path: str, pool: np.ndarray, seed: int, space: SearchSpace) -> None:
    """Writes a pool as JSON, atomically. ValueError for a wrong code, UserError if it cannot be written."""
    codes = [to_text(code, space) for code in pool]
    document = {
        "format": _FORMAT,
        "seed": seed,
        "size": len(pool),
        "space": space.as_record(),
        "design": pool_design(pool, space)._asdict(),
        "codes": codes,
    }
    atomic_write_json(path, dict(document, digest=_digest(document)))


def load_pool(path: str, size: int, space: SearchSpace) -> np.ndarray:
    """Reads the pool in `path`, int32 [size, blocks]; accepts files of the first version too.

    UserError if the file is missing, damaged or edited, is of another space or size, has a code twice, or does not use
    a block's options equally often.
    """
    stored = read_json(path, _ADVICE)
    if set(stored) not in (set(_KEYS), set(_FIRST_KEYS)):
        raise UserError(f"{path}: not a pool file: expected the keys {', '.join(_KEYS)}, found {_shown(list(stored))}")
    require_same_space(_identity(stored), space, path)
    if "digest" in stored and stored["digest"] != _digest({key: stored[key] for key in stored if key != "digest"}):
        raise UserError(f"{path}: its content does not match its digest; {_ADVICE}")
    codes = stored["codes"]
    if not isinstance(codes, list) or len(codes) != size or type(stored["size"]) is not int or stored["size"] != size:
        raise UserError(f"{path}: expected {size} codes, found {_shown(codes)}; {_ADVICE}")
    try:
        pool = np.array([parse(code, space) for code in codes], np.int32)
    except ValueError as error:
        raise UserError(f"{path}: {error}; {_ADVICE}") from error
    _check_balance(path, pool, space)
    return pool


def _check_balance(path: str, pool: np.ndarray, space: SearchSpace) -> None:
    if len(np.unique(pool, axis=0)) != len(pool):
        raise UserError(f"{path}: expected distinct codes, found one twice; {_ADVICE}")
    for block, column in zip(space.blocks, pool.T):
        counts = [int(np.sum(column == value)) for value in block.values]
        if len(set(counts)) != 1:
            raise UserError(f"{path}: expected each option of {block.name} equally often, found {counts}; {_ADVICE}")


def _identity(stored: Dict[str, Any]) -> Any:
    """The stored search space. For a file of the first version: that version's space and the digest of its table."""
    if "space" in stored:
        return stored["space"]
    try:
        return identity_of([[block["name"], block["kind"], block["options"]] for block in stored["search_space"]])
    except (KeyError, TypeError):
        return {}


def _digest(document: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8")).hexdigest()


def _shown(value: Any) -> str:
    return json.dumps(value)[:200]
