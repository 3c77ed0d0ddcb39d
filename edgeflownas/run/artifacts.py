"""What a run leaves in its folder beside the checkpoints: lock, archive of older runs, tables, manifest."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fnmatch
import io
import json
import os
import platform
import socket
import subprocess
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import filelock
import numpy as np

import edgeflownas
from edgeflownas.config import Config
from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json, fsync_path, os_errors

LOCK = ".lock"
HOLDER = ".lock.holder"
PREVIOUS = "previous"

# What one run makes, as patterns; checkpoints first, so that nobody takes a half-moved run for a whole one.
RUN_ARTIFACTS = (
    "checkpoints",
    "train_manifest.json",
    "eval_pool_*.json",
    "eval_epe_history.csv",
    "eval_epe_per_arch.csv",
    "train_steps.csv",
    "timing.csv",
    "fairness_counts.json",
    "eval_samples.npz",
    "supernet_training_report.md",
    "supernet_training_report.html",
    "report",
    "train.log",
    "debug_trace.jsonl",
    "tensorboard",
    "subnet_scores.*",  # the last: what supernet_eval makes of the run
)


def utc_now() -> str:
    """The time as the manifest writes it: 2026-02-16T09:30:00Z."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_folder(config: Config) -> str:
    """Where a run keeps its files. UserError for a name that an unnamed run beside it uses for a file of its own."""
    name = config.runtime.experiment_name
    if name == PREVIOUS or any(fnmatch.fnmatch(name, pattern) for pattern in RUN_ARTIFACTS):
        raise UserError(f"--experiment_name {name!r} is the name of something that a run writes; choose another")
    return os.path.join(config.runtime.output_dir, config.runtime.experiment_name).rstrip("/")


class RunLock:
    """Holds a run's folder: `with RunLock(folder):`. The system frees it when the process dies, in any way.

    UserError, before anything is touched, if another run holds the folder or it cannot be written.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = filelock.FileLock(os.path.join(folder, LOCK), timeout=0)

    def acquire(self) -> None:
        no_flock = (NotImplementedError,)  # some network file systems; filelock says what is missing
        with os_errors(f"write to the run folder {self.folder}", no_flock):
            os.makedirs(self.folder, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise UserError(
                    f"another run holds {self.folder}{self._holder()}; wait for it, stop it, or choose another "
                    "--experiment_name"
                ) from None
        atomic_write_json(
            os.path.join(self.folder, HOLDER), {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}
        )

    def release(self) -> None:
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):  # it is only there to be read
            os.unlink(os.path.join(self.folder, HOLDER))
        self._lock.release()

    def _holder(self) -> str:
        try:
            with open(os.path.join(self.folder, HOLDER), encoding="utf-8") as handle:
                return " (process {pid} on {host}, since {since})".format(**json.load(handle))
        except (OSError, ValueError, KeyError, TypeError):
            return ""  # it has not written it yet

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def archive_previous(folder: str) -> Optional[str]:
    """Moves what a run made (`RUN_ARTIFACTS`) to `previous/<UTC time>/`; gives that path, None if nothing.

    Whatever else is in the folder, other experiments included, stays. UserError: then nothing was moved.
    """
    names = [name for pattern in RUN_ARTIFACTS for name in fnmatch.filter(sorted(_list(folder)), pattern)]
    if not names:
        return None
    with os_errors(f"move the previous run out of {folder} (nothing was moved)"):
        target = _new_folder(os.path.join(folder, PREVIOUS))
        moved: List[str] = []
        try:
            for name in names:
                os.rename(os.path.join(folder, name), os.path.join(target, name))
                moved.append(name)
            fsync_path(target)
            fsync_path(folder)
        except BaseException:
            for name in moved:
                os.rename(os.path.join(target, name), os.path.join(folder, name))
            os.rmdir(target)
            raise
    return target


def _list(folder: str) -> List[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _new_folder(parent: str) -> str:
    """A new folder named by the time; -2, -3... if this second has one."""
    os.makedirs(parent, exist_ok=True)
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    number = 1
    while True:
        path = os.path.join(parent, stamp if number == 1 else f"{stamp}-{number}")
        try:
            os.mkdir(path)
            return path
        except FileExistsError:
            number += 1


def real(value: Union[float, np.floating]) -> str:
    """How every recorded real is written: the shortest text of the float32, so that all files agree."""
    return str(np.float32(value))


class _Growing:
    """A text file that grows by lines; `length` and `cut_back` let a resume start where it was saved."""

    def __init__(self, path: str, header: str) -> None:
        self.path = path
        self._header = header.encode("utf-8")
        self._handle: Optional[io.FileIO] = None

    def length(self) -> int:
        """Its length in bytes, once all of that is on the disk: what a checkpoint may rely on."""
        with os_errors(f"write {self.path}"):
            handle = self._open()
            os.fsync(handle.fileno())
            return os.fstat(handle.fileno()).st_size

    def cut_back(self, length: int) -> None:
        """Removes what was written after `length()` gave `length`. UserError if it cannot be that file."""
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
                    _write_line(handle, self._header)
                else:
                    self._check(handle, size)
                on_error.pop_all()
            self._handle = handle
        return self._handle

    def _check(self, handle: Any, length: int) -> None:
        """The first `length` bytes start with the header and end with a line's end."""
        handle.seek(0)
        found = handle.read(len(self._header))
        if found != self._header:
            texts = [content.decode("utf-8", "replace").strip() for content in (found, self._header)]
            raise UserError("{}: its header is {!r}, want {!r}; move it away".format(self.path, *texts))
        handle.seek(max(length - 1, 0))
        if length < len(self._header) or (length and handle.read(1) != b"\n"):
            raise UserError(f"{self.path}: no line ends at byte {length}; move the file away")


def _write_line(handle: io.FileIO, line: bytes) -> None:
    """Hands a line to the system, the whole of it or nothing."""
    before = os.fstat(handle.fileno()).st_size
    try:
        while line:  # once, except on a disk that is nearly full: the second call says so
            line = line[handle.write(line) or 0 :]
    except BaseException:
        os.ftruncate(handle.fileno(), before)
        raise


class Table(_Growing):
    """An append-only CSV with one header line. The file appears with the first row or `length()`."""

    def __init__(self, path: str, columns: Sequence[str]) -> None:
        super().__init__(path, _csv_line(columns))
        self.columns = tuple(columns)

    def append(self, row: Dict[str, Any]) -> None:
        """Writes one row and hands it to the system; reals as `real` has them. UserError: disk full."""
        if set(row) != set(self.columns):
            raise ValueError(f"{self.path}: got {sorted(row)}, want {sorted(self.columns)}")
        self._append(_csv_line([_cell(row[column]) for column in self.columns]))


class JsonLines(_Growing):
    """An append-only file of one JSON object per line."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "")

    def append(self, row: Dict[str, Any]) -> None:
        """Writes one line and hands it to the system. UserError if the disk is full."""
        self._append(json.dumps(row) + "\n")


def _cell(value: Any) -> str:
    return real(value) if isinstance(value, (float, np.floating)) else str(value)


def _csv_line(cells: Sequence[str]) -> str:
    line = ",".join(cells)
    if line.count(",") != len(cells) - 1 or set(line) & set('"\r\n'):
        raise ValueError(f"a cell must not hold a comma, a quote or a line's end: {cells!r}")
    return line + "\n"


def read_table(path: str, columns: Optional[Sequence[str]] = None) -> List[Dict[str, str]]:
    """The rows of a `Table`, as text. UserError: missing, other columns, a row cut or too long."""
    with os_errors(f"read {path}"), open(path, "rb") as handle:
        text = handle.read().decode("utf-8", "replace")
    if not text.endswith("\n"):
        raise UserError("{}: {}, want a table".format(path, "last line cut" if text else "empty"))
    header, *rows = [line.split(",") for line in text[:-1].split("\n")]
    if columns is not None and header != list(columns):
        raise UserError("{}: its columns are {}, want {}".format(path, ",".join(header), ",".join(columns)))
    for number, cells in enumerate(rows, 2):
        if len(cells) != len(header) or cells == header or "\0" in "".join(cells):
            raise UserError(
                "{}, line {}: got {!r}, want {} values".format(path, number, ",".join(cells)[:80], len(header))
            )
    return [dict(zip(header, cells)) for cells in rows]


def write_fairness_counts(path: str, supernet_mode: str, cycles: int, counts: Dict[str, List[int]], gap: int) -> None:
    """Writes fairness_counts.json: how often each option of each block was trained."""
    atomic_write_json(path, {"supernet_mode": supernet_mode, "cycles": cycles, "fairness_gap": gap, "counts": counts})


class Manifest:
    """train_manifest.json: what was run, on what, and how it ended. Every change is atomic."""

    STATUSES = ("running", "completed", "early_stopped", "interrupted", "failed")

    def __init__(self, path: str, fields: Dict[str, Any]) -> None:
        self.path = path
        self.fields = fields

    @classmethod
    def create(cls, path: str, **fields: Any) -> "Manifest":
        """A new run: status `running`, no resumes."""
        manifest = cls(path, {})
        manifest.update(**dict(fields, status="running", started=utc_now(), resumes=[]))
        return manifest

    @classmethod
    def open(cls, path: str) -> "Manifest":
        """An existing run. UserError if the file is missing or damaged."""
        with os_errors(f"read the manifest {path}"), open(path, "rb") as handle:
            content = handle.read()
        try:
            fields = json.loads(content.decode("utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged, not JSON: {error}") from error
        if not isinstance(fields, dict) or not {"status", "resumes"} <= set(fields):
            raise UserError(f"{path} is not a train manifest: it has no status")
        return cls(path, fields)

    def update(self, **fields: Any) -> None:
        """Sets fields. Only a running run can end; `resumed` makes it run again."""
        status, before = fields.get("status"), self.fields.get("status", "running")
        if status is not None and (status not in self.STATUSES or before not in ("running", status)):
            raise ValueError(f"status cannot go from {before!r} to {status!r}")
        self._write(dict(self.fields, **fields))

    def resumed(self, **fields: Any) -> None:
        """Adds an entry to `resumes` (with its time) and sets the status back to `running`."""
        entry = dict(fields, time=utc_now(), status_before=self.fields["status"])
        self._write(dict(self.fields, status="running", resumes=self.fields["resumes"] + [entry]))

    def _write(self, fields: Dict[str, Any]) -> None:
        fields["updated"] = utc_now()
        atomic_write_json(self.path, fields)
        self.fields = fields


def git_state(root: str) -> Tuple[str, Optional[bool]]:
    """The commit that holds `root` and whether files under it differ from it (untracked ones count).

    ("unknown", None) where that cannot be said: no git, no commit, or `root` is not under version control.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        tracked = _git(root, "ls-files", "--", ".")  # installed, it may lie in another's checkout
        dirty = bool(_git(root, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None
    return (commit, dirty) if tracked else ("unknown", None)


def _git(root: str, *arguments: str) -> str:
    # GIT_DIR and its like are set inside git's own hooks and would name another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", root] + list(arguments),
        env=environment,
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return done.stdout.decode("utf-8", "replace").strip()


def versions(tensorflow: str) -> Dict[str, str]:
    """Versions for the manifest; TensorFlow's is handed in, because this module does not import it."""
    return {
        "edgeflownas": edgeflownas.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tensorflow": tensorflow,
        "platform": platform.platform(),
    }
