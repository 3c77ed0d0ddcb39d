"""The evaluation pool: the fixed subnets that every epoch scores, and the file that shows they stay so.

A pool is made of fair cycles of a random stream of its own, so that every option of every block is scored
equally often: the 12 codes of the default use each of the three options exactly four times.
"""

import json
from typing import Any, Dict, List, Set

import numpy as np

from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json
from edgeflownas.nas.arch_codec import to_text
from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.nas.search_space import SPACE, SearchSpace

_FORMAT = 1
_DRAWS_PER_CYCLE = 1000  # a repeated code is rare unless the pool is about as large as the space
_ADVICE = "resume with the settings that made it, or move the file away"


def build_pool(seed: int, size: int, space: SearchSpace = SPACE) -> np.ndarray:
    """The pool of `seed`, int32 [size, blocks]: distinct codes, every option of every block equally often.

    Cycles 0, 1, ... of the "pool" stream, in order; one that repeats a code is passed over. Raises UserError
    if `size` is not a positive multiple of the paths of a cycle, or more than the space can give.
    """
    paths = space.num_paths
    if size < 1 or size % paths:
        raise UserError(
            f"eval.pool_size: expected a positive multiple of {paths}, the paths of a fair cycle, found {size}"
        )
    cycles: List[np.ndarray] = []
    seen: Set[bytes] = set()
    draws = _DRAWS_PER_CYCLE * (size // paths) if size <= space.size else 0
    for draw in range(draws):
        codes = fair_cycle(seed, draw, space, purpose="pool")
        fresh = {code.tobytes() for code in codes} - seen
        if len(fresh) == paths:
            seen |= fresh
            cycles.append(codes)
        if len(seen) == size:
            return np.concatenate(cycles)
    raise UserError(
        f"eval.pool_size: the fair cycles of this space of {space.size} subnets give no {size} "
        "distinct codes; choose a smaller pool"
    )


def save_pool(path: str, pool: np.ndarray, seed: int, space: SearchSpace = SPACE) -> None:
    """Writes a pool as JSON, atomically. ValueError for a wrong code, UserError if the disk refuses."""
    atomic_write_json(path, _document(pool, seed, space))


def load_pool(path: str, seed: int, size: int, space: SearchSpace = SPACE) -> np.ndarray:
    """The pool in `path`, int32 [size, blocks].

    Raises UserError if the file is missing, damaged, or not exactly what `build_pool(seed, size, space)`
    gives.
    """
    pool = build_pool(seed, size, space)
    stored = _read(path)
    expected = _document(pool, seed, space)
    if set(stored) != set(expected):
        raise UserError(
            f"{path}: not a pool file: expected the keys {json.dumps(list(expected))}, "
            f"found {json.dumps(list(stored)):.200}; {_ADVICE}"
        )
    for key, value in expected.items():
        want = json.dumps(value)
        if stored[key] != want:
            raise UserError(
                f"{path}: not the pool of this run: expected {key} {want:.300}, found {stored[key]:.300}; {_ADVICE}"
            )
    return pool


def _document(pool: np.ndarray, seed: int, space: SearchSpace) -> Dict[str, Any]:
    # The blocks are a list, since a JSON object promises no order and the order is what a code means.
    blocks = [dict(block._asdict(), options=list(block.options)) for block in space.blocks]
    codes = [to_text(code, space) for code in pool]
    return {"format": _FORMAT, "seed": seed, "size": len(codes), "search_space": blocks, "codes": codes}


def _read(path: str) -> Dict[str, str]:
    """{key: its value as JSON text}; as text, since 1 == True == 1.0 in Python."""
    try:
        with open(path, encoding="utf-8") as handle:
            stored = json.load(handle)
        if not isinstance(stored, dict):
            raise ValueError(f"expected an object, found {type(stored).__name__}")
        return {key: json.dumps(value) for key, value in stored.items()}
    except OSError as error:
        raise UserError(f"cannot read the evaluation pool {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
        raise UserError(f"{path}: damaged JSON: {str(error):.100}; {_ADVICE}") from error
