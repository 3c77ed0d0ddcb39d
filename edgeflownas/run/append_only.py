"""Append-only files of a run. They grow by whole lines; a resume cuts them back to the length in its checkpoint.

Built on `rows`: a table's columns are the fields of its row type.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import Any, BinaryIO, Dict, Optional, Sequence, Type, Union

from edgeflownas.errors import UserError
from edgeflownas.files import os_errors
from edgeflownas.run.rows import ADDED, cells, columns, csv_line, first_version


class AppendOnlyFile:
    """A text file that grows by lines. It starts with one of `headers`; a new file gets the first of them."""

    def __init__(self, path: str, headers: Sequence[str]) -> None:
        self.path = path
        self._headers = [header.encode("utf-8") for header in headers]
        self._handle: Optional[io.FileIO] = None
        self._header = self._headers[0]  # replaced by the header on the disk when the file is opened

    def length(self) -> int:
        """Flushes the file to the disk and returns its length in bytes, for a checkpoint to note."""
        with os_errors(f"write {self.path}"):
            handle = self._open()
            os.fsync(handle.fileno())
            return os.fstat(handle.fileno()).st_size

    def cut_back(self, length: int) -> None:
        """Truncates the file to a `length` that `length()` returned earlier. UserError if it does not fit the file."""
        self.close()
        with os_errors(f"resume {self.path}"), open(self.path, "r+b") as handle:
            size = handle.seek(0, os.SEEK_END)
            if size < length:
                raise UserError(
                    f"cannot resume: {self.path} has {size} bytes, want the {length} that the checkpoint knows of; "
                    "put the whole file back"
                )
            self._check(handle, length)
            handle.truncate(length)
            os.fsync(handle.fileno())

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _append(self, line: str) -> None:
        with os_errors(f"write {self.path}"):
            _write_line(self._open(), line.encode("utf-8"))

    def _open(self) -> io.FileIO:
        if self._handle is None:
            with contextlib.ExitStack() as on_error:
                handle = on_error.enter_context(io.FileIO(self.path, "a+"))
                size = os.fstat(handle.fileno()).st_size
                if size == 0:
                    self._header = self._headers[0]
                    _write_line(handle, self._header)
                else:
                    self._check(handle, size)
                on_error.pop_all()
            self._handle = handle
        return self._handle

    def _check(self, handle: Union[BinaryIO, io.FileIO], length: int) -> None:
        """UserError unless the first `length` bytes start with a known header and end with a newline."""
        handle.seek(0)
        start = handle.read(max(map(len, self._headers))) or b""
        known = [header for header in self._headers if start.startswith(header)]
        if not known:
            found, want = [text.decode("utf-8", "replace").strip() for text in (start, self._headers[0])]
            raise UserError(f"{self.path}: its header is {found!r}, want {want!r}; move it away")
        self._header = known[0]
        handle.seek(max(length - 1, 0))
        if length < len(self._header) or (length and handle.read(1) != b"\n"):
            raise UserError(f"{self.path}: no line ends at byte {length}; move the file away")


def _write_line(handle: io.FileIO, line: bytes) -> None:
    """Writes a whole line, or leaves the file as it was and raises."""
    before = os.fstat(handle.fileno()).st_size
    try:
        while line:  # a nearly full disk takes a part first; the next call then raises the error
            line = line[handle.write(line) or 0 :]
    except BaseException:
        os.ftruncate(handle.fileno(), before)
        raise


class TableWriter(AppendOnlyFile):
    """An append-only CSV file of rows of one type. The first `append` or `length` creates the file.

    A file begun by the first version keeps its header, without the columns added since.
    """

    def __init__(self, path: str, row_type: Type[Any], pool_size: int = 0) -> None:
        self.columns = columns(row_type, pool_size)
        headers = list(dict.fromkeys([self.columns, first_version(self.columns)]))
        super().__init__(path, [csv_line(header) for header in headers])
        self._row_type = row_type

    def append(self, row: Any) -> None:
        """Writes one row, without fsync, reals by `rows.real`. UserError: disk. ValueError: a wrong type."""
        if type(row) is not self._row_type:
            raise ValueError(f"{self.path}: got a {type(row).__name__}, want a {self._row_type.__name__}")
        line = csv_line(cells(row))
        with os_errors(f"write {self.path}"):
            self._open()
        if self._header != self._headers[0]:
            line = csv_line(self._as_the_first_version(row))
        self._append(line)

    def named(self, row: Any) -> Dict[str, Any]:
        """The values of a row by the names of their columns."""
        return dict(zip(self.columns, row))

    def _as_the_first_version(self, row: Any) -> Sequence[str]:
        texts = dict(zip(self.columns, cells(row)))
        for name, meant in ADDED.items():
            if name in texts and texts.pop(name) != meant:
                raise UserError(f"{self.path}: a file of the first version holds {name} {meant} only; move it away")
        return list(texts.values())


class JsonLines(AppendOnlyFile):
    """An append-only file of one JSON object per line."""

    def __init__(self, path: str) -> None:
        super().__init__(path, [""])

    def append(self, line: Dict[str, Any]) -> None:
        """Writes one line, without fsync. UserError if the disk is full."""
        self._append(json.dumps(line) + "\n")
