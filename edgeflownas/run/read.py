"""Reader of a run folder: manifest, histories, fairness counts and samples, checked against each other.

Files that a run writes only at its first evaluation may be absent before it; a file that should be there and
is not, or that is damaged, is a `DataError` that names it. What a killed writer left unfinished at the very
end is left out and noted.
"""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.errors import DataError, UserError
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space
from edgeflownas.run.samples import Samples, read_samples
from edgeflownas.run.tables import INT, REAL, TEXT, Table, check_rising, read_table

_STEPS = {
    "step": INT,
    "epoch": INT,
    "lr": REAL,
    "loss": REAL,
    "l2_loss": REAL,
    "grad_norm_before": REAL,
    "grad_norm_after": REAL,
}
_TIMING = {
    "epoch": INT,
    "global_step": INT,
    "train_seconds": REAL,
    "eval_seconds": REAL,
    "cycles_per_second": REAL,
    "input_wait_share": REAL,
}
_SUBNETS = {
    "epoch": INT,
    "global_step": INT,
    "arch_code": TEXT,
    "epe": REAL,
    "rank": INT,
    "bn_recal_batches": INT,
    "num_samples": INT,
}


def _history_kinds(pool_size: int) -> Dict[str, str]:
    return {
        "epoch": INT,
        "global_step": INT,
        f"mean_epe_{pool_size}": REAL,
        f"std_epe_{pool_size}": REAL,
        "fairness_gap": INT,
        "zero_flow_epe": REAL,
        f"best_mean_epe_{pool_size}": REAL,
        "best_epoch": INT,
        "early_stop_wait": INT,
        "train_loss": REAL,
        "lr": REAL,
        "grad_norm_before_mean": REAL,
        "grad_norm_after_max": REAL,
        "clip_share": REAL,
        "bn_recal_batches": INT,
        "num_samples": INT,
    }


class Subnets(NamedTuple):
    """The pool over E evaluations: `codes` P texts of digits; `epe` float64 [E, P] and `texts` [E][P] as
    recorded;
    `rank` int64 [E, P], 1 = best."""

    codes: List[str]
    epe: np.ndarray
    rank: np.ndarray
    texts: List[List[str]]


class Run(NamedTuple):
    """Everything the report needs. Tables are None before their first row; `notes` says what was left out and
    why."""

    folder: Path
    manifest: Dict[str, Any]
    space: SearchSpace
    history: Optional[Table]
    subnets: Optional[Subnets]
    steps: Optional[Table]
    timing: Optional[Table]
    fairness: Optional[Dict[str, Any]]
    samples: Optional[Samples]
    notes: Tuple[str, ...]

    def get(self, path: str) -> Any:
        """A value of the manifest by its dotted path, `config.train.lr` say."""
        return manifest_value(self.folder / "train_manifest.json", self.manifest, path)

    @property
    def pool_size(self) -> int:
        return int(self.get("config.eval.pool_size"))

    def column(self, name: str) -> str:
        """The name of a history column; those of the pool end in its size."""
        return f"{name}_{self.pool_size}" if name in ("mean_epe", "std_epe", "best_mean_epe") else name

    def recorded(self, name: str, row: int = -1) -> str:
        """The text of a history cell, exactly as the CSV file has it."""
        assert self.history is not None
        return self.history.texts[self.column(name)][row]

    def numbers(self, name: str) -> np.ndarray:
        """A history column as numbers; empty before the first evaluation."""
        return self.history.numbers[self.column(name)] if self.history else np.zeros(0)


def manifest_value(path: Path, manifest: Dict[str, Any], name: str) -> Any:
    """The value at a dotted path; DataError names the file and the key that is missing."""
    value: Any = manifest
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise DataError(f"{path}: key {name} is missing; is it the manifest of a supernet run?")
        value = value[key]
    return value


def read_run(folder: Path) -> Run:
    """Reads and checks a run folder. UserError or DataError, which name the file, as the module says."""
    if not folder.is_dir():
        raise UserError(
            "{}: expected a run folder, found {}".format(folder, "a file" if folder.exists() else "nothing")
        )
    manifest = _read_json(folder / "train_manifest.json")
    notes: List[str] = []
    run = Run(folder, manifest, _space(folder, manifest), None, None, None, None, None, None, ())
    history = _optional(folder / "eval_epe_history.csv", _history_kinds(run.pool_size), notes)
    subnet_rows = _optional(folder / "eval_epe_per_arch.csv", _SUBNETS, notes, needed=history is not None)
    if history is not None and subnet_rows is not None:
        history, subnet_rows = _common(folder, history, subnet_rows, run.pool_size, notes)
    steps = _read_steps(folder, history, notes)
    return run._replace(
        history=history,
        steps=steps,
        subnets=None if history is None else _subnets(run, history, subnet_rows),
        timing=_optional(folder / "timing.csv", _TIMING, notes),
        fairness=_read_fairness(folder, run.space, needed=history is not None),
        samples=read_samples(folder, run.space),
        notes=tuple(notes),
    )


def _optional(path: Path, kinds: Dict[str, str], notes: List[str], needed: bool = False) -> Optional[Table]:
    if not path.exists() and not needed:
        return None
    table = read_table(path, kinds)
    if table.cut:
        notes.append(
            f"`{path.name}` ends in the middle of a line, which is left out: its writer was stopped there or is at "
            "work."
        )
    if kinds is not _SUBNETS and kinds is not _STEPS:
        check_rising(path, "epoch", table.numbers["epoch"])
    if needed and not table.rows:
        raise DataError(f"{path}: expected the rows of an evaluation, found only a header")
    return table if table.rows else None


def _common(folder: Path, history: Table, subnets: Table, pool: int, notes: List[str]) -> Tuple[Optional[Table], Table]:
    """Both tables cut to the evaluations that both have in full; only the newest one may be half written."""
    full = min(history.rows, subnets.rows // pool)
    if history.rows - full > 1 or subnets.rows - full * pool > pool:
        raise DataError(
            "{}: expected {} rows for each of the {} evaluations of eval_epe_history.csv, found {} rows".format(
                folder / "eval_epe_per_arch.csv", pool, history.rows, subnets.rows
            )
        )
    if history.rows > full or subnets.rows > full * pool:
        notes.append(
            "The newest evaluation is only in one of `eval_epe_history.csv` and `eval_epe_per_arch.csv` in "
            "full; "
            "it is left out."
        )
    return (history.head(full) if full else None), subnets.head(full * pool)


def _subnets(run: Run, history: Table, rows: Optional[Table]) -> Subnets:
    assert rows is not None
    path, shape = run.folder / "eval_epe_per_arch.csv", (history.rows, run.pool_size)
    epochs = rows.numbers["epoch"].reshape(shape)
    wrong = np.nonzero((epochs != history.numbers["epoch"][:, None]).any(axis=1))[0]
    if len(wrong):
        raise DataError(
            "{}: expected {} rows of epoch {}, found epochs {}".format(
                path, shape[1], history.texts["epoch"][wrong[0]], sorted(set(epochs[wrong[0]].tolist()))
            )
        )
    codes = np.array(rows.texts["arch_code"]).reshape(shape)
    order = np.argsort(codes, axis=1)  # the pool never changes, its order in the file may
    codes = np.take_along_axis(codes, order, 1)
    if (codes != codes[0]).any() or len(set(codes[0])) != shape[1]:
        raise DataError(f"{path}: expected the same {shape[1]} different subnets in each evaluation")
    for code in codes[0].tolist():
        _check_code(path, code, run.space)
    texts = np.array(rows.texts["epe"], object).reshape(shape)
    return Subnets(
        [str(code) for code in codes[0]],
        np.take_along_axis(rows.numbers["epe"].reshape(shape), order, 1),
        np.take_along_axis(rows.numbers["rank"].reshape(shape), order, 1),
        np.take_along_axis(texts, order, 1).tolist(),
    )


def _check_code(path: Path, code: str, space: SearchSpace) -> None:
    allowed = [{str(value) for value in block.values} for block in space.blocks]
    good = len(code) == len(allowed) and all(digit in values for digit, values in zip(code, allowed))
    if not good:
        raise DataError(
            f"{path}: expected an arch code of {len(space.blocks)} digits, each below its block's number of "
            f"options, found {code!r}"
        )


def _read_steps(folder: Path, history: Optional[Table], notes: List[str]) -> Optional[Table]:
    path = folder / "train_steps.csv"
    steps = _optional(path, _STEPS, notes, needed=history is not None)
    if steps is None:
        return None
    wrong = np.nonzero(steps.numbers["step"] != np.arange(steps.rows))[0]
    if len(wrong):
        raise DataError(
            "{}: line {}: expected step {}, found {}".format(
                path, wrong[0] + 2, wrong[0], steps.texts["step"][wrong[0]]
            )
        )
    if history is not None and history.numbers["global_step"][-1] > steps.rows:
        raise DataError(
            "{}: expected a row for each of the {} steps before the last evaluation, found {}".format(
                path, history.last("global_step"), steps.rows
            )
        )
    return steps


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}; expected the folder of a supernet run"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _space(folder: Path, manifest: Dict[str, Any]) -> SearchSpace:
    """The space the run was trained on. UserError if it is not one of today's."""
    path = folder / "train_manifest.json"
    config = configuration.from_dict(manifest_value(path, manifest, "config"), str(path))
    space, stored = space_of(config.network), manifest_value(path, manifest, "search_space")
    named = isinstance(stored, dict) and "digest" in stored  # the first version recorded only the table
    require_same_space(stored if named else FIRST_VERSION, space, str(path))
    return space


def _read_fairness(folder: Path, space: SearchSpace, needed: bool) -> Optional[Dict[str, Any]]:
    path = folder / "fairness_counts.json"
    if not path.exists() and not needed:
        return None
    record = _read_json(path)
    counts = record.get("counts")
    good = (
        isinstance(counts, dict)
        and set(counts) == set(space.names)
        and all(
            isinstance(counts[block.name], list)
            and len(counts[block.name]) == len(block.values)
            and all(type(count) is int for count in counts[block.name])
            for block in space.blocks
        )
    )
    if not good or not {"supernet_mode", "cycles", "fairness_gap"} <= set(record):
        raise DataError(
            "{}: expected supernet_mode, cycles, fairness_gap and a count for each option of {}".format(
                path, ", ".join(space.names)
            )
        )
    return record


def run_name(run: Run) -> str:
    """The experiment's name, or the folder's."""
    return str(run.get("config.runtime.experiment_name") or run.folder.resolve().name)
