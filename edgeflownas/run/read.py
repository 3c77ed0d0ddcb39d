"""Reads a run folder: manifest, histories, fairness counts and samples, checked against each other. On `tables`.

Files that a run writes only at its first evaluation may be absent before it. A file that is missing or damaged raises
a `DataError` that names it. An unfinished last line or last evaluation is left out and noted.
"""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.errors import DataError, UserError
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.fair_sampler import FairnessCounts
from edgeflownas.nas.search_space import SearchSpace, require_same_space
from edgeflownas.run import folder as names
from edgeflownas.run.fairness import FairnessRecord, read_fairness
from edgeflownas.run.json_file import read_json
from edgeflownas.run.manifest import stored_space, value_at
from edgeflownas.run.rows import EvaluationRow, StepRow, SubnetRow, TimingRow
from edgeflownas.run.samples import Samples, read_samples
from edgeflownas.run.tables import Columns, check_rising, read_table


class Subnets(NamedTuple):
    """The pool of P subnets over E evaluations: `codes` P strings of digits; `epe` float64 [E, P] in px, `texts` [E][P]
    the same as recorded; `rank` int64 [E, P], 1 = best."""

    codes: List[str]
    epe: np.ndarray
    rank: np.ndarray
    texts: List[List[str]]


class Run(NamedTuple):
    """All data of a run folder. Tables are None before their first row. `notes`: what was left out, and why."""

    folder: Path
    manifest: Dict[str, Any]
    space: SearchSpace
    history: Optional[Columns]
    subnets: Optional[Subnets]
    steps: Optional[Columns]
    timing: Optional[Columns]
    fairness: Optional[FairnessRecord]
    samples: Optional[Samples]
    notes: Tuple[str, ...]

    def get(self, path: str) -> Any:
        """A value of the manifest by its dotted path, for example `config.train.lr`."""
        return value_at(self.folder / names.MANIFEST, self.manifest, path)

    @property
    def alone(self) -> bool:
        """Whether the run trains a single subnet instead of a supernet."""
        return self.space.arch_code is not None

    @property
    def pool_size(self) -> int:
        return int(self.get("config.eval.pool_size"))

    @property
    def last(self) -> EvaluationRow:
        """The last evaluation, with the exact texts of the CSV file."""
        assert self.history is not None
        return self.history.row(-1)

    @property
    def numbers(self) -> Any:
        """The columns of the history as arrays; empty before the first evaluation."""
        if self.history is not None:
            return self.history.numbers
        return EvaluationRow(*[np.zeros(0) for _ in EvaluationRow._fields])  # type: ignore[arg-type]


def read_run(folder: Path) -> Run:
    """Reads and checks a run folder. UserError or DataError name the file (see the module's docstring)."""
    if not folder.is_dir():
        raise UserError(
            "{}: expected a run folder, found {}".format(folder, "a file" if folder.exists() else "nothing")
        )
    manifest = read_json(folder / names.MANIFEST, "expected the folder of a supernet run")
    notes: List[str] = []
    run = Run(folder, manifest, _space(folder, manifest), None, None, None, None, None, None, ())
    pool = run.pool_size
    history = _optional(folder / names.HISTORY, EvaluationRow, notes, pool_size=pool)
    subnet_rows = _optional(folder / names.PER_ARCH, SubnetRow, notes, needed=history is not None)
    if history is not None:
        check_rising(history.path, history.names.epoch, history.numbers.epoch)
        assert subnet_rows is not None
        history, subnet_rows = _common(history, subnet_rows, pool, notes)
    timing = _optional(folder / names.TIMING, TimingRow, notes)
    if timing is not None:
        check_rising(timing.path, timing.names.epoch, timing.numbers.epoch)
    return run._replace(
        history=history,
        steps=_read_steps(folder, history, notes),
        subnets=None if history is None else _subnets(run, history, subnet_rows),
        timing=timing,
        fairness=_read_fairness(folder, run.space, needed=history is not None),
        samples=read_samples(folder, run.space),
        notes=tuple(notes),
    )


def _optional(
    path: Path, row_type: Type[Any], notes: List[str], needed: bool = False, pool_size: int = 0
) -> Optional[Columns]:
    """Reads a table and checks its numbers. None before its first row. An unfinished last line is added to `notes`."""
    if not path.exists() and not needed:
        return None
    table = read_table(path, row_type, pool_size, finite=False, allow_cut=True).check()
    if table.cut:
        notes.append(
            f"`{path.name}` ends in the middle of a line, which is left out: its writer was stopped there or is at "
            "work."
        )
    if needed and not len(table):
        raise DataError(f"{path}: expected the rows of an evaluation, found only a header")
    return table if len(table) else None


def _common(history: Columns, subnets: Columns, pool: int, notes: List[str]) -> Tuple[Optional[Columns], Columns]:
    """Both tables, cut to the evaluations that are complete in both. Only the newest one may be incomplete."""
    evaluations, rows = len(history), len(subnets)
    full = min(evaluations, rows // pool)
    if evaluations - full > 1 or rows - full * pool > pool:
        raise DataError(
            f"{subnets.path}: expected {pool} rows for each of the {evaluations} evaluations of {names.HISTORY}, "
            f"found {rows} rows"
        )
    if evaluations > full or rows > full * pool:
        notes.append(
            f"The newest evaluation is only in one of `{names.HISTORY}` and `{names.PER_ARCH}` in full; it is left out."
        )
    return (history.head(full) if full else None), subnets.head(full * pool)


def _subnets(run: Run, history: Columns, rows: Optional[Columns]) -> Subnets:
    assert rows is not None
    path, shape = Path(rows.path), (len(history), run.pool_size)
    epochs = rows.numbers.epoch.reshape(shape)
    wrong = np.nonzero((epochs != history.numbers.epoch[:, None]).any(axis=1))[0]
    if len(wrong):
        raise DataError(
            "{}: expected {} rows of epoch {}, found epochs {}".format(
                path, shape[1], history.texts.epoch[wrong[0]], sorted(set(epochs[wrong[0]].tolist()))
            )
        )
    other = set(rows.texts.space) - {run.space.label}
    if other:
        raise DataError(f"{path}: expected codes of the search space {run.space.label}, found {other.pop()}")
    codes = np.array(rows.texts.arch_code).reshape(shape)
    order = np.argsort(codes, axis=1)  # the pool is the same in every evaluation, but its order may differ
    codes = np.take_along_axis(codes, order, 1)
    if (codes != codes[0]).any() or len(set(codes[0])) != shape[1]:
        raise DataError(f"{path}: expected the same {shape[1]} different subnets in each evaluation")
    for code in codes[0].tolist():
        _check_code(path, code, run.space)
    texts = np.array(rows.texts.epe, object).reshape(shape)
    return Subnets(
        [str(code) for code in codes[0]],
        np.take_along_axis(rows.numbers.epe.reshape(shape), order, 1),
        np.take_along_axis(rows.numbers.rank.reshape(shape), order, 1),
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


def _read_steps(folder: Path, history: Optional[Columns], notes: List[str]) -> Optional[Columns]:
    path = folder / names.STEPS
    steps = _optional(path, StepRow, notes, needed=history is not None)
    if steps is None:
        return None
    wrong = np.nonzero(steps.numbers.step != np.arange(len(steps)))[0]
    if len(wrong):
        line = int(wrong[0])
        raise DataError(f"{path}: line {line + 2}: expected step {line}, found {steps.texts.step[line]}")
    if history is not None and history.numbers.global_step[-1] > len(steps):
        raise DataError(
            f"{path}: expected a row for each of the {history.texts.global_step[-1]} steps before the last "
            f"evaluation, found {len(steps)}"
        )
    return steps


def _space(folder: Path, manifest: Dict[str, Any]) -> SearchSpace:
    """The search space of the run. UserError if this version has no such space, or another one of that name."""
    path = folder / names.MANIFEST
    config = configuration.from_dict(value_at(path, manifest, "config"), str(path))
    space = space_of(config.network)
    require_same_space(stored_space(value_at(path, manifest, "search_space")), space, str(path))
    return space


def _read_fairness(folder: Path, space: SearchSpace, needed: bool) -> Optional[FairnessRecord]:
    path = folder / names.FAIRNESS
    if not path.exists() and not needed:
        return None
    record = read_fairness(folder)
    require_same_space(record.space, space, str(path))
    try:
        FairnessCounts.from_dict(record.counts, space)
    except ValueError as error:
        raise DataError(
            f"{path}: expected a count for each option of {', '.join(space.names)}, found otherwise: {error}"
        ) from error
    return record


def run_name(run: Run) -> str:
    """The experiment's name, or the folder's name if it has none."""
    return str(run.get("config.runtime.experiment_name") or run.folder.resolve().name)
