"""Reads the CSV files of a run folder, column by column: recorded texts and checked numbers.

Built on `rows`: each column is an attribute, named after a field of the table's row type.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Sequence, Tuple, Type, Union

import numpy as np

from edgeflownas.errors import DataError
from edgeflownas.run.rows import ADDED, columns, first_version, kinds

_REFUSED = '"\r\0'  # `rows.csv_line` never writes these


class WrongCell(DataError):
    """A cell has the wrong type for its column. `line` counts from 1; line 1 is the header."""

    def __init__(self, path: str, line: int, column: str, found: str, wanted: str) -> None:
        super().__init__(f"{path}: line {line}: column {column}: expected {wanted}, found {found[:80]!r}")
        self.path, self.line, self.column, self.found, self.wanted = path, line, column, found, wanted


class Columns:
    """A table read from a file, column by column.

    header          the column names in the file
    names, texts    row tuples: per field, the name of its column in the file, and the texts of that column
    numbers         each column of numbers as an int64 or float64 array, checked on first access
    cut             True if the file ended in the middle of a line; that line is left out
    """

    def __init__(self, path: str, header: Sequence[str], names: Any, texts: Any, finite: bool, cut: bool) -> None:
        self.path, self.header, self.names, self.texts, self.cut = path, tuple(header), names, texts, cut
        self._finite = finite
        self.numbers: Any = _Numbers(self)

    def __len__(self) -> int:
        return len(self.texts[0])

    def row(self, number: int) -> Any:
        """One row, as texts; -1 is the last."""
        return self.texts._make(column[number] for column in self.texts)

    def values(self) -> List[Any]:
        """The rows, with numbers as Python numbers."""
        parsed = [
            texts if kind is str else getattr(self.numbers, name).tolist()
            for name, texts, kind in zip(self.texts._fields, self.texts, kinds(type(self.texts)))
        ]
        return [self.texts._make(row) for row in zip(*parsed)]

    def head(self, count: int) -> Columns:
        """The first `count` rows."""
        texts = self.texts._make(column[:count] for column in self.texts)
        return Columns(self.path, self.header, self.names, texts, self._finite, self.cut)

    def check(self) -> Columns:
        """Checks every number now. WrongCell for the first cell that is not one."""
        for field, kind in zip(self.texts._fields, kinds(type(self.texts))):
            if kind is not str:
                getattr(self.numbers, field)
        return self

    def _parse(self, field: str) -> np.ndarray:
        kind = type(self.texts).__annotations__[field]
        texts = getattr(self.texts, field)
        try:
            numbers = np.array([kind(text) for text in texts], np.int64 if kind is int else np.float64)
        except (ValueError, OverflowError):
            raise self._first_wrong(field, kind) from None
        if self._finite and not np.isfinite(numbers).all():
            raise self._first_wrong(field, kind)
        return numbers

    def _first_wrong(self, field: str, kind: type) -> WrongCell:
        wanted = "a whole number" if kind is int else "a finite number" if self._finite else "a number"
        for line, text in enumerate(getattr(self.texts, field), start=2):
            try:
                good = np.isfinite(np.int64(int(text)) if kind is int else float(text)) or not self._finite
            except (ValueError, OverflowError):
                good = False
            if not good:
                return WrongCell(self.path, line, getattr(self.names, field), text, wanted)
        raise AssertionError(f"{self.path}: every cell of {field} is {wanted}")


class _Numbers:
    """The columns of numbers, each parsed on first access."""

    def __init__(self, table: Columns) -> None:
        self._table = table

    def __getattr__(self, field: str) -> np.ndarray:
        if type(self._table.texts).__annotations__.get(field) not in (int, float):
            raise AttributeError(f"{self._table.path} has no column of numbers {field}")
        numbers = self._table._parse(field)
        setattr(self, field, numbers)
        return numbers


def read_table(
    path: Union[str, Path], row_type: Type[Any], pool_size: int = 0, finite: bool = True, allow_cut: bool = False
) -> Columns:
    """Reads a table of `row_type`; fills in the columns that the first version did not write.

    DataError if the file is missing, is not plain ASCII, has another header, or has a line with too many or too few
    cells. Numbers are checked later, on access to `Columns.numbers`; NaN and infinities are errors if `finite`. An
    unfinished last line is an error unless `allow_cut`.
    """
    names = columns(row_type, pool_size)
    lines, cut = _lines(Path(path))
    if cut and not allow_cut:
        raise DataError(f"{path}: it ends in the middle of a line")
    header = lines[0].split(",") if lines else []
    if header not in (list(names), list(first_version(names))):
        found = repr(lines[0][:200]) if lines else "an empty file"
        raise DataError(f"{path}: expected the header {','.join(names)}, found {found}")
    rows = [line.split(",") for line in lines[1:]]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}: line {number}: expected {len(header)} cells, found {len(row)}")
        if row == header:
            raise DataError(f"{path}: line {number}: expected a row, found the header again")
    found_columns = dict(zip(header, [list(column) for column in zip(*rows)] or [[] for _ in header]))
    texts = [found_columns[name] if name in found_columns else [ADDED[name]] * len(rows) for name in names]
    return Columns(str(path), header, row_type(*names), row_type(*texts), finite, cut)


def check_rising(path: Union[str, Path], column: str, values: np.ndarray) -> None:
    """DataError unless every value is greater than the one before it."""
    wrong = np.nonzero(np.diff(values) <= 0)[0]
    if len(wrong):
        row = int(wrong[0]) + 1
        raise DataError(f"{path}: line {row + 2}: expected {column} above {values[row - 1]}, found {values[row]}")


def _lines(path: Path) -> Tuple[Sequence[str], bool]:
    """(lines, whether the last line is unfinished). An unfinished line is left out, unless it is the header."""
    try:
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected a CSV file of plain ASCII, found the byte 0x{error.object[error.start]:02x} "
            f"at offset {error.start}"
        ) from error
    for letter in _REFUSED:
        if letter in text:
            line = text[: text.index(letter)].count("\n") + 1
            raise DataError(f"{path}: line {line}: expected plain cells, found {letter!r}")
    *lines, rest = text.split("\n")
    if rest and not lines:
        lines = [rest]
    return lines, bool(rest)
