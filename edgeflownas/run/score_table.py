"""The table that `supernet_eval` writes: a CSV of scored subnets, and beside it a JSON file that says what
the rows belong to.

Both are replaced whole, never half: a stop or a kill leaves the rows that were done, and the next call goes
on from them.
"""

import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import filelock

from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json, atomic_write_text, os_errors
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space
from edgeflownas.run.artifacts import read_table, real

COLUMNS = (
    "arch_code",
    "epe",
    "rank",
    "parameters",
    "multiply_adds",
    "zero_flow_epe",
    "bn_recal_batches",
    "num_samples",
)
ADVICE = "name another file with --output, or move this one and its .json away"


class Row(NamedTuple):
    """One scored subnet; reals as they are recorded, so rounded to float32."""

    arch_code: str
    epe: float
    rank: int  # among the rows of the table, 1 = lowest EPE
    parameters: int
    multiply_adds: int
    zero_flow_epe: float
    bn_recal_batches: int
    num_samples: int


class ScoreTable:
    """`with ScoreTable(path, belongs_to) as table:`; holds the file for one process and knows the rows it
    has.

    `belongs_to` is plain JSON: checkpoint, settings and data. UserError if the file exists and has other
    rows than those, is not such a table, or is held by another process.
    """

    def __init__(self, path: str, belongs_to: Dict[str, Any], space: SearchSpace) -> None:
        stem, extension = os.path.splitext(path)
        if extension != ".csv":
            raise UserError(f"--output {path}: expected a name that ends in .csv")
        self.path, self.sidecar, self.plot = path, stem + ".json", stem + ".png"
        self.rows: List[Row] = []
        self._belongs_to, self._space = json.loads(json.dumps(belongs_to)), space
        folder, name = os.path.split(path)
        self._lock = filelock.FileLock(os.path.join(folder, f".{name}.lock"), timeout=0)

    def __enter__(self) -> "ScoreTable":
        with os_errors(f"write {self.path}"):
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise UserError(
                    f"{self.path} is being written by another process; wait for it, or name another --output"
                ) from None
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __contains__(self, arch_code: str) -> bool:
        return any(row.arch_code == arch_code for row in self.rows)

    def add(self, results: Sequence[Any]) -> None:
        """Adds results (fields as `Row`, but no rank) and writes the table with all ranks brought up to
        date."""
        rows = self.rows + [Row(rank=0, **result._asdict()) for result in results]
        # Rounded before they are ranked, so that the ranks are those of the numbers in the file.
        rows = [row._replace(epe=float(real(row.epe)), zero_flow_epe=float(real(row.zero_flow_epe))) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: rows[i].epe)
        rank = {i: position for position, i in enumerate(order, 1)}
        self.rows = [row._replace(rank=rank[i]) for i, row in enumerate(rows)]
        atomic_write_text(self.path, "".join(self._lines()))

    def ranked(self) -> List[Row]:
        """All rows, the best first."""
        return sorted(self.rows, key=lambda row: row.rank)

    def _lines(self) -> Iterator[str]:
        yield ",".join(COLUMNS) + "\n"
        for row in self.rows:
            yield ",".join(real(value) if isinstance(value, float) else str(value) for value in row) + "\n"

    def _open(self) -> None:
        if os.path.lexists(self.sidecar):
            self._compare()
        elif os.path.lexists(self.path):
            raise UserError(
                f"{self.path} was not written by supernet_eval: there is no {os.path.basename(self.sidecar)} beside "
                f"it; {ADVICE}"
            )
        else:
            atomic_write_json(self.sidecar, self._belongs_to)
        if os.path.lexists(self.path):
            self.rows = [self._row(cells) for cells in read_table(self.path, COLUMNS)]

    def _compare(self) -> None:
        with os_errors(f"read {self.sidecar}"), open(self.sidecar, "rb") as handle:
            content = handle.read()
        try:
            found = json.loads(content.decode("utf-8"))
        except ValueError:
            found = None
        if isinstance(found, dict):
            found.setdefault("space", FIRST_VERSION)  # the first version's tables name none
        if not isinstance(found, dict) or set(found) != set(self._belongs_to):
            raise UserError(f"{self.sidecar} was not written by supernet_eval; {ADVICE}")
        require_same_space(found["space"], self._space, self.path)
        if found == self._belongs_to:
            return
        there, now = _flat(found), _flat(self._belongs_to)
        differing = [key for key in sorted(set(there) | set(now)) if there.get(key) != now.get(key)]
        # The step says more than a checksum, if it differs at all.
        shown = [key for key in differing if "sha256" not in key] or differing
        words = "; ".join(f"{key} {there.get(key)} there, {now.get(key)} now" for key in shown)
        raise UserError(f"the rows of {self.path} belong to something else: {words}; {ADVICE}")

    def _row(self, cells: Dict[str, str]) -> Row:
        try:
            row = Row(**{name: Row.__annotations__[name](cells[name]) for name in COLUMNS})
            if to_digits(row.arch_code, self._space) != row.arch_code:
                raise ValueError(row.arch_code)
        except ValueError as error:
            raise UserError(f"{self.path}: damaged: {error}; {ADVICE}") from error
        return row


def _flat(value: Any, name: str = "") -> Dict[str, Any]:
    """{"checkpoint.epoch": 3, ...}"""
    if not isinstance(value, dict):
        return {name: value}
    parts = [_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}
