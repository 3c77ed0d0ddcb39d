"""Checks the disk: room for a run, and the file system operations that the trainer relies on. Part of the doctor."""

import contextlib
import os
import shutil
import tempfile
from typing import Callable, Iterator, Tuple

import filelock

from edgeflownas.diagnosis.finding import FAIL, OK, WARN, Examined, Finding
from edgeflownas.files import fsync_path, swap_link, write_text
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.network.layer_table import layer_table

CHECKPOINTS = 4  # the last two, the best, and the one being written
TENSORS = 3  # weights and Adam's two moments, float32
# Bytes that a run adds. Per step: a row of the steps' table and its share of TensorBoard's scalars; with debug_trace a
# line, and its part per sample. Per epoch: two pictures for TensorBoard. Rounded up.
STEP_BYTES, TRACE_BYTES, TRACE_SAMPLE_BYTES, EPOCH_BYTES = 120, 1500, 35, 300000


def check_space(examined: Examined) -> Iterator[Finding]:
    train = examined.config.train
    network = examined.config.network
    checkpoint = supernet_parameters(layer_table(network.init_channels, space_of(network))) * TENSORS * 4
    trace = TRACE_BYTES + TRACE_SAMPLE_BYTES * train.batch_size if examined.config.runtime.debug_trace else 0
    epoch = EPOCH_BYTES + (examined.train_samples // train.batch_size) * (STEP_BYTES + trace)
    need = CHECKPOINTS * checkpoint + train.num_epochs * epoch
    free = shutil.disk_usage(examined.output_dir).free
    found = f"{free / 1e9:.1f} GB free in {examined.output_dir}, a run needs about {need / 1e9:.2f} GB"
    level = OK if free > 2 * need else WARN if free > need else FAIL
    yield Finding(level, "disk space", found, "" if level == OK else "free some space or choose another --output_dir")


def check_file_system(examined: Examined) -> Iterator[Finding]:
    """Tries, on the disk of the run, what atomic files, checkpoints and the lock rely on."""
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix=".doctor-", dir=examined.output_dir)
        for name, attempt in _ATTEMPTS:
            try:
                attempt(folder)
            except (OSError, NotImplementedError, filelock.Timeout) as error:
                yield Finding(FAIL, "file system", f"{name} fails in {examined.output_dir}: {error}",
                              "choose an --output_dir on another file system")  # fmt: skip
                return
        yield Finding(
            OK, "file system", "{} work in {}".format(", ".join(name for name, _ in _ATTEMPTS), examined.output_dir)
        )
    except OSError as error:
        found = f"{examined.output_dir} cannot be written: {error.strerror or error}"
        yield Finding(FAIL, "file system", found, "choose another --output_dir or correct its permissions")
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _try_replace(folder: str) -> None:
    path = os.path.join(folder, "file")
    for text in ("old", "new"):
        write_text(path + ".tmp", text)
        os.replace(path + ".tmp", path)
        fsync_path(folder)
    with open(path, encoding="utf-8") as handle:
        if handle.read() != "new":
            raise OSError("the old content came back")


def _try_symlink(folder: str) -> None:
    for target in ("file", "."):
        swap_link(target, os.path.join(folder, "link"))
        if os.readlink(os.path.join(folder, "link")) != target:
            raise OSError("the link leads elsewhere")


def _try_lock(folder: str) -> None:
    path = os.path.join(folder, "lock")
    with filelock.FileLock(path, timeout=0):
        with contextlib.suppress(filelock.Timeout):
            filelock.FileLock(path, timeout=0).acquire()
            raise OSError("two locks were given at once")


_ATTEMPTS: Tuple[Tuple[str, Callable[[str], None]], ...] = (
    ("write, fsync and rename", _try_replace), ("symlink", _try_symlink), ("flock", _try_lock),
)  # fmt: skip
