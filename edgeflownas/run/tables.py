"""Strict reader of the CSV files of a run folder: checked numbers beside the recorded text, kept to the last
digit."""

import csv
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import numpy as np

from edgeflownas.errors import DataError

TEXT, INT, REAL = "text", "int", "real"
_PARSERS = {INT: int, REAL: float}
_NAMES = {INT: "a whole number", REAL: "a number"}


class Table(NamedTuple):
    """`texts[column]` is what the file says, `numbers[column]` an int64 or float64 array of the same length.

    `cut` is True if the file ended in the middle of a line; that line, which its writer never finished, is
    left out.
    """

    texts: Dict[str, List[str]]
    numbers: Dict[str, np.ndarray]
    cut: bool

    @property
    def rows(self) -> int:
        return len(next(iter(self.texts.values())))

    def last(self, column: str) -> str:
        return self.texts[column][-1]

    def head(self, rows: int) -> "Table":
        """The first `rows` rows."""
        return Table(
            {name: column[:rows] for name, column in self.texts.items()},
            {name: column[:rows] for name, column in self.numbers.items()},
            self.cut,
        )


def read_table(path: Path, kinds: Dict[str, str]) -> Table:
    """The CSV file whose header is exactly the keys of `kinds`, each TEXT, INT or REAL.

    DataError if the file is missing, not text, has another header, or a line with a cell too many, too few or
    wrong.
    """
    lines, cut = _read_lines(path)
    cells = list(csv.reader(lines))
    names = list(kinds)
    if not cells or cells[0] != names:
        raise DataError(
            "{}: expected the header {}, found {}".format(
                path, ",".join(names), repr(lines[0][:200]) if lines else "an empty file"
            )
        )
    for number, row in enumerate(cells[1:], start=2):
        if len(row) != len(names):
            raise DataError(f"{path}: line {number}: expected {len(names)} cells, found {len(row)}")
    columns = list(zip(*cells[1:])) or [()] * len(names)
    texts = {name: list(column) for name, column in zip(names, columns)}
    numbers = {name: _numbers(path, name, texts[name], kind) for name, kind in kinds.items() if kind != TEXT}
    return Table(texts, numbers, cut)


def check_rising(path: Path, column: str, values: np.ndarray) -> None:
    """DataError unless every value is greater than the one before it."""
    wrong = np.nonzero(np.diff(values) <= 0)[0]
    if len(wrong):
        row = int(wrong[0]) + 1
        raise DataError(f"{path}: line {row + 2}: expected {column} above {values[row - 1]}, found {values[row]}")


def _read_lines(path: Path) -> "tuple[List[str], bool]":
    try:
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected a CSV file of plain ASCII, found the byte 0x{error.object[error.start]:02x} "
            f"at offset {error.start}"
        ) from error
    lines = text.splitlines()
    cut = bool(lines) and not text.endswith("\n")
    return (lines[:-1] if cut and len(lines) > 1 else lines), cut


def _numbers(path: Path, name: str, column: Sequence[str], kind: str) -> np.ndarray:
    parse = _PARSERS[kind]
    try:
        return np.array([parse(cell) for cell in column], np.int64 if kind == INT else np.float64)
    except (ValueError, OverflowError):
        raise _wrong_cell(path, name, column, kind) from None


def _wrong_cell(path: Path, name: str, column: Sequence[str], kind: str) -> DataError:
    for number, cell in enumerate(column, start=2):
        try:
            np.int64(int(cell)) if kind == INT else float(cell)
        except (ValueError, OverflowError):
            return DataError(f"{path}: line {number}: column {name}: expected {_NAMES[kind]}, found {cell[:80]!r}")
    return DataError(f"{path}: column {name}: expected {_NAMES[kind]} everywhere")
