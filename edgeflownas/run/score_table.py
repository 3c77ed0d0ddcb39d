"""The score table of `supernet_eval`: a CSV file of scored subnets, a JSON file and a file of EPE per sample.

The JSON names the checkpoint, settings and data of the rows. The samples are float32, little-endian, [rows, samples];
paired errors are computed from them. CSV and JSON are replaced atomically, so a killed call keeps its finished rows and
the next call continues. Samples are written before their rows; samples without a row are cut off at the next call. A
table that the first version began keeps its header. Built on `rows` and `tables`.
"""

import json
import os
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

import filelock
import numpy as np

from edgeflownas.errors import DataError, UserError
from edgeflownas.files import atomic_write_json, atomic_write_text, os_errors
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space
from edgeflownas.run.json_file import read_json
from edgeflownas.run.rows import ScoreRow, cells, columns, csv_line, real
from edgeflownas.run.tables import read_table

_SAMPLE = np.dtype("<f4")
_OWN = frozenset(ScoreRow._fields)
ADVICE = "name another file with --output, or move this one and its .json away"


class ScoreTable:
    """Locks the table for this process and holds its rows: `with ScoreTable(path, belongs_to, space) as table:`.

    `belongs_to` is plain JSON: checkpoint, settings and data. `space` is the search space of the codes.
    UserError if the file is not such a table, is damaged or has another `belongs_to`, or if another process holds it.
    """

    def __init__(self, path: str, belongs_to: Dict[str, Any], space: SearchSpace) -> None:
        stem, extension = os.path.splitext(path)
        if extension != ".csv":
            raise UserError(f"--output {path}: expected a name that ends in .csv")
        self.path, self.sidecar, self.plot, self._samples = path, stem + ".json", stem + ".png", stem + ".epe"
        self.rows: List[ScoreRow] = []
        self._codes: Set[str] = set()  # of the rows
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
        return arch_code in self._codes

    def add(self, results: Sequence[Any]) -> None:
        """Adds results (the fields of `ScoreRow` without rank and space, and `epe_samples` [samples]), ranks all rows
        again and writes the table. UserError for disk errors."""
        if not self.rows or os.path.exists(self._samples):
            with os_errors(f"write {self._samples}"), open(self._samples, "ab") as handle:
                handle.truncate(sum(row.num_samples for row in self.rows) * _SAMPLE.itemsize)
                handle.write(b"".join(result.epe_samples.astype(_SAMPLE).tobytes() for result in results))
        fields = [{name: value for name, value in result._asdict().items() if name in _OWN} for result in results]
        rows = self.rows + [ScoreRow(rank=0, space=self._space.label, **values) for values in fields]
        # Rounded before the ranking, so that the ranks agree with the numbers in the file.
        rows = [row._replace(epe=float(real(row.epe)), zero_flow_epe=float(real(row.zero_flow_epe))) for row in rows]
        order = sorted(range(len(rows)), key=lambda i: rows[i].epe)
        rank = {i: position for position, i in enumerate(order, 1)}
        self.rows = [row._replace(rank=rank[i]) for i, row in enumerate(rows)]
        self._codes.update(row.arch_code for row in rows)
        atomic_write_text(self.path, "".join(self._lines()))

    def ranked(self) -> List[ScoreRow]:
        """All rows, the best first."""
        return sorted(self.rows, key=lambda row: row.rank)

    def samples(self) -> Optional[np.ndarray]:
        """EPE per sample, float32 [rows, samples], in the order of `rows`; None if none were recorded."""
        if not self.rows or not os.path.exists(self._samples):
            return None
        with os_errors(f"read {self._samples}"):
            return np.memmap(self._samples, _SAMPLE, "r", shape=(len(self.rows), self.rows[0].num_samples))

    def _lines(self) -> Iterator[str]:
        yield csv_line(self._columns)
        for row in self.rows:
            yield csv_line(cells(row)[: len(self._columns)])  # a table of the first version lacks the last columns

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
        self._codes = {row.arch_code for row in rows}
        self._check_samples()

    def _check_samples(self) -> None:
        """Cuts off samples without a row. UserError unless every row's EPE is the mean of its samples."""
        if not os.path.exists(self._samples):
            return
        wanted = sum(row.num_samples for row in self.rows) * _SAMPLE.itemsize
        if os.path.getsize(self._samples) < wanted or len({row.num_samples for row in self.rows}) > 1:
            raise UserError(f"{self._samples}: damaged: shorter than the rows of {self.path}; {ADVICE}")
        with os_errors(f"write {self._samples}"):
            os.truncate(self._samples, wanted)
        samples = self.samples()
        if samples is None:
            return
        means = np.mean(samples, axis=1, dtype=np.float64)
        if not np.allclose(means, [row.epe for row in self.rows], rtol=1e-6, atol=0):
            raise UserError(f"{self._samples}: damaged: its means are not the EPE of {self.path}; {ADVICE}")

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
