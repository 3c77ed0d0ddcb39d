"""The run folder: the names of its files, its lock, and the archiving of an earlier run in the same folder.

No other package knows these names (`tests/run/test_one_place.py`). Built on `filelock`.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fnmatch
import os
import socket
from typing import List, Optional

import filelock

from edgeflownas.config import Config, RuntimeConfig
from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json, fsync_path, os_errors
from edgeflownas.run.json_file import parse_object

CHECKPOINTS = "checkpoints"  # a folder
MANIFEST = "train_manifest.json"
CONFIG = "config.yaml"
HISTORY = "eval_epe_history.csv"
PER_ARCH = "eval_epe_per_arch.csv"
STEPS = "train_steps.csv"
TIMING = "timing.csv"
FAIRNESS = "fairness_counts.json"
SAMPLES = "eval_samples.npz"
EPE_SAMPLES = "eval_epe_samples.npz"
REPORT = "supernet_training_report.md"
REPORT_HTML = "supernet_training_report.html"
REPORT_IMAGES = "report"  # a folder
LOG = "train.log"  # of the only process, or of rank 0
TRACE = "debug_trace.jsonl"
EVENTS = "tensorboard"  # a folder
SCORES = "subnet_scores.csv"  # written by supernet_eval
EXPORTED = "exported"  # a folder: written by export, for a run of one subnet
FLOAT_MODEL, INT8_MODEL, EXPORT_RECORD = "float.tflite", "int8.tflite", "export.json"  # files in EXPORTED

LOCK = ".lock"
HOLDER = ".lock.holder"
PREVIOUS = "previous"


def log_name(rank: object) -> str:
    """The name of a rank's log file; a pattern for "*"."""
    return LOG if rank == 0 else f"train.rank{rank}.log"


def pool_name(size: object) -> str:
    """The file name of an evaluation pool of `size` subnets."""
    return f"eval_pool_{size}.json"


def scores_name(stored: bool, other: str) -> str:
    """The file name of the score table for these BN statistics and data (`other`: another set's fingerprint or "")."""
    stem, extension = os.path.splitext(SCORES)
    return stem + ("_stored" if stored else "") + (f"_other_{other[:12]}" if other else "") + extension


# Patterns of a run's files. Checkpoints are moved first, so that a half-moved run has none to resume from.
RUN_FILES = (
    CHECKPOINTS,
    MANIFEST,
    CONFIG,
    pool_name("*"),
    HISTORY,
    PER_ARCH,
    STEPS,
    TIMING,
    FAIRNESS,
    SAMPLES,
    EPE_SAMPLES,
    REPORT,
    REPORT_HTML,
    REPORT_IMAGES,
    LOG,
    log_name("*"),
    TRACE,
    EVENTS,
    *(os.path.splitext(scores_name(stored, other))[0] + ".*" for stored in (False, True) for other in ("", "*")),
    EXPORTED,
)


def utc_now() -> str:
    """The time as the manifest writes it: 2026-02-16T09:30:00Z."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_folder(config: Config) -> str:
    """The folder of a run. UserError if the experiment has the name of a file or folder of the run folder."""
    name = config.runtime.experiment_name
    if name == PREVIOUS or any(fnmatch.fnmatch(name, pattern) for pattern in RUN_FILES):
        raise UserError(f"--experiment_name {name!r} is the name of something that a run writes; choose another")
    return os.path.join(config.runtime.output_dir, config.runtime.experiment_name).rstrip("/")


def find_run(name: str) -> str:
    """The run folder for a folder, a manifest's path or an experiment's name. UserError if there is none."""
    if os.path.basename(name) == MANIFEST:
        return os.path.dirname(name) or "."
    runs = RuntimeConfig().output_dir
    plain = os.path.basename(name) == name
    for folder in [name] + [os.path.join(runs, name)] * plain:
        if os.path.isdir(folder):
            return folder
    if os.path.exists(name):
        raise UserError(f"{name}: expected a run folder, found a file")
    raise UserError(
        f"{name}: expected a run folder, "
        + (f"or an experiment in {runs}, found neither" if plain else "found nothing")
    )


class RunLock:
    """Locks a run's folder: `with RunLock(folder):`. The system releases the lock whenever the process ends.

    UserError, before any file is changed, if another run holds the lock or the folder is not writable. A folder that
    was created for the lock and is otherwise empty at the end is removed with it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._made: List[str] = []
        self._lock = filelock.FileLock(os.path.join(folder, LOCK), timeout=0)

    def acquire(self) -> None:
        no_flock = (NotImplementedError,)  # raised on some network file systems; filelock's message says why
        with os_errors(f"write to the run folder {self.folder}", no_flock):
            self._made = _missing(self.folder)
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
        with contextlib.suppress(OSError):  # the file is only information
            os.unlink(os.path.join(self.folder, HOLDER))
        if self._made and os.listdir(self.folder) == [LOCK]:
            with contextlib.suppress(OSError):  # still locked, so no other run uses the folder
                os.unlink(os.path.join(self.folder, LOCK))
                for folder in self._made:
                    os.rmdir(folder)
        self._lock.release()

    def _holder(self) -> str:
        try:
            with open(os.path.join(self.folder, HOLDER), "rb") as handle:
                return " (process {pid} on {host}, since {since})".format(**parse_object(handle.read()))
        except (OSError, ValueError, KeyError):
            return ""  # not written yet, or not readable

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def archive_previous(folder: str) -> Optional[str]:
    """Moves the files of a run (`RUN_FILES`) to `previous/<UTC time>/`. Returns that path, None if there are none.

    All other files stay, other experiments too. If it raises UserError, nothing was moved.
    """
    names = [name for pattern in RUN_FILES for name in fnmatch.filter(sorted(_list(folder)), pattern)]
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


def _missing(folder: str) -> List[str]:
    """The folders that `os.makedirs` would create, the deepest first."""
    missing, path = [], os.path.abspath(folder)
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _list(folder: str) -> List[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _new_folder(parent: str) -> str:
    """Creates a folder named by the UTC time, with -2, -3... appended if that name is taken. Returns its path."""
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
