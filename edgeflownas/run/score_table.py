"""The table that `supernet_eval` writes: a CSV file of scored subnets, and a JSON file beside it with the checkpoint,
settings and data of the rows.

Both are replaced atomically. After a stop or a kill the finished rows are there, and the next call continues from
them. A table begun by the first version keeps its header.
"""

import json
import os
from typing import Any, Dict, Iterator, List, Sequence

import filelock

from edgeflownas.errors import DataError, UserError
from edgeflownas.files import atomic_write_json, atomic_write_text, os_errors
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space
from edgeflownas.run.json_file import read_json
from edgeflownas.run.rows import ScoreRow, cells, columns, csv_line, real
from edgeflownas.run.tables import read_table

ADVICE = "name another file with --output, or move this one and its .json away"


class ScoreTable:
    """Locks the table for this process and holds its rows: `with ScoreTable(path, belongs_to, space) as table:`.

    `belongs_to` is plain JSON: checkpoint, settings and data. `space` is the search space of the codes.
    UserError if the file exists but is no such table or has another `belongs_to`, or if another process holds it.
    """

    def __init__(self, path: str, belongs_to: Dict[str, Any], space: SearchSpace) -> None:
        stem, extension = os.path.splitext(path)
        if extension != ".csv":
            raise UserError(f"--output {path}: expected a name that ends in .csv")
        self.path, self.sidecar, self.plot = path, stem + ".json", stem + ".png"
        self.rows: List[ScoreRow] = []
        self._space, self._columns = space, columns(ScoreRow)
        self._belongs_to = json.loads(json.dumps(belongs_to))
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
        """Adds results (fields of `ScoreRow` without rank and space), ranks all rows again and writes the table."""
        rows = self.rows + [ScoreRow(rank=0, space=self._space.label, **result._asdict()) for result in results]
        # Rounded before ranking, so that the ranks agree with the numbers in the file.
        rows = [row._replace(epe=float(real(row.epe)), zero_flow_epe=float(real(row.zero_flow_epe))) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: rows[i].epe)
        rank = {i: position for position, i in enumerate(order, 1)}
        self.rows = [row._replace(rank=rank[i]) for i, row in enumerate(rows)]
        atomic_write_text(self.path, "".join(self._lines()))

    def ranked(self) -> List[ScoreRow]:
        """All rows, the best first."""
        return sorted(self.rows, key=lambda row: row.rank)

    def _lines(self) -> Iterator[str]:
        yield csv_line(self._columns)
        for row in self.rows:
            yield csv_line(cells(row)[: len(self._columns)])  # columns that the first version lacks are the last ones

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
            self._read()

    def _read(self) -> None:
        try:
            table = read_table(self.path, ScoreRow)
            rows = table.values()
            for row in rows:
                if to_digits(row.arch_code, self._space) != row.arch_code:
                    raise ValueError(row.arch_code)
        except (DataError, ValueError) as error:
            raise UserError(f"{self.path}: damaged: {error}; {ADVICE}") from error
        other = [row.space for row in rows if row.space != self._space.label]
        if other:
            raise UserError(f"{self.path}: damaged: codes of the search space {other[0]}, not {self._space.label}")
        self.rows, self._columns = rows, table.header

    def _compare(self) -> None:
        try:
            found = read_json(self.sidecar)
        except DataError as error:
            raise UserError(f"{self.sidecar} was not written by supernet_eval: {error}; {ADVICE}") from error
        require_same_space(found.setdefault("space", FIRST_VERSION), self._space, self.path)
        if found == self._belongs_to:
            return
        if set(found) != set(self._belongs_to):
            raise UserError(f"{self.sidecar} was not written by supernet_eval; {ADVICE}")
        there, now = _flat(found), _flat(self._belongs_to)
        differing = [key for key in sorted(set(there) | set(now)) if there.get(key) != now.get(key)]
        # A differing step tells more than a checksum, so checksums are shown only if nothing else differs.
        shown = [key for key in differing if "sha256" not in key] or differing
        words = "; ".join(f"{key} {there.get(key)} there, {now.get(key)} now" for key in shown)
        raise UserError(f"the rows of {self.path} belong to something else: {words}; {ADVICE}")


def _flat(value: Any, name: str = "") -> Dict[str, Any]:
    """Flattens nested dicts: {"checkpoint.epoch": 3, ...}."""
    if not isinstance(value, dict):
        return {name: value}
    parts = [_flat(inner, f"{name}.{key}" if name else key) for key, inner in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}
