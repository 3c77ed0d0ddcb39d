"""A full disk, a read-only folder and a second run: one line, exit 2, and what was committed stays good."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from unittest import mock

import filelock
import pytest

from edgeflownas.engine.trainer import Trainer
from tests.reliability import tiny
from tests.reliability.lab import at_cycle, in_evaluation, send
from tests.reliability.snapshot import differences, snapshot
from tests.reliability.test_signals import contents


@pytest.fixture
def mounted(tmp_path):
    """mounted(options): a small file system of its own, as a folder."""
    with contextlib.ExitStack() as stack:

        def mount(options):
            folder = str(tmp_path / "mounted")
            os.makedirs(folder)
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], stderr=subprocess.PIPE)
            if done.returncode:
                pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "-l", folder], check=True)
            return folder

        yield mount


class Full:
    """An action of a plant: fills a small disk to its last byte; `free` gives it back."""

    def __init__(self, folder):
        self._path = os.path.join(folder, "something else")

    def __call__(self, _trainer=None):
        with open(self._path, "wb", buffering=0) as handle, contextlib.suppress(OSError):
            while True:
                handle.write(b"x" * 4096)

    def free(self):
        os.unlink(self._path)


def in_commit(step, action):
    """A plant: `action` right before the checkpoint of this step."""
    real = Trainer.commit

    def commit(self, is_best):
        if self.state.step == step:
            action(self)
        real(self, is_best)

    return mock.patch.object(Trainer, "commit", commit)


@pytest.mark.parametrize(
    "where, when, step",
    [(in_commit, 6, "3"), (at_cycle, 4, "3"), (in_evaluation, 2, "6")],
    ids=["commit", "row of a cycle", "rows of an evaluation"],
)
def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing_committed(
    lab, uninterrupted, mounted, where, when, step
):
    folder = mounted("size=12m")
    full = Full(folder)
    outcome = lab.run(folder + "/run", plants=[where(when, full)])
    assert outcome.code == 2, outcome.stderr
    assert "No space left on device" in outcome.error
    full.free()
    assert snapshot(folder + "/run")["last state: step"] == step
    outcome = lab.run(folder + "/run", "--resume")
    assert outcome.code == 0, outcome.stderr
    wrong = differences(snapshot(folder + "/run"), uninterrupted)
    assert [part for part in wrong if part != "manifest: dataset"] == []


def test_a_report_that_finds_no_space_does_not_end_the_run(lab, uninterrupted, mounted):
    from edgeflownas import train_supernet

    folder = mounted("size=12m")
    full, real = Full(folder), train_supernet._report

    def report(run_folder):
        full()
        real(run_folder)
        full.free()

    with mock.patch.object(train_supernet, "_report", report):
        outcome = lab.run(folder + "/run", report=True)
    assert outcome.code == 0 and "no report" in outcome.stderr and "edgeflownas.report" in outcome.stderr
    assert differences(snapshot(folder + "/run"), uninterrupted) == []


def test_a_file_size_limit_ends_the_run_in_one_line(lab, uninterrupted, tmp_path):
    """The same by RLIMIT_FSIZE, which needs no mount: the checkpoint does not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(_trainer):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100000, hard))

    try:
        outcome = lab.run(str(tmp_path), plants=[in_commit(6, limit)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.code == 2 and "save the checkpoint of step 6" in outcome.error and "File too large" in outcome.error
    assert lab.run(str(tmp_path), "--resume").code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []


def test_a_read_only_file_system_is_one_line(lab, mounted):
    folder = mounted("size=1m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    outcome = lab.run(folder + "/run")
    assert outcome.code == 2 and folder in outcome.error and "ead-only file system" in outcome.error


def test_a_folder_without_permission_is_one_line(lab, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere, so permission bits refuse nothing")
    os.mkdir(str(tmp_path / "theirs"), 0o500)
    outcome = lab.run(str(tmp_path / "theirs" / "run"))
    assert outcome.code == 2 and "Permission denied" in outcome.error


@pytest.mark.parametrize("words", [[], ["--resume"]], ids=["fresh", "resume"])
def test_a_second_run_on_the_folder_is_refused_before_anything_is_touched(lab, uninterrupted, tmp_path, words):
    folder = str(tmp_path)
    assert lab.run(folder, plants=[at_cycle(3, send(signal.SIGTERM))]).code == 143
    before = contents(folder)
    with filelock.FileLock(os.path.join(folder, ".lock")):
        outcome = lab.run(folder, *words)
    assert outcome.code == 2 and f"another run holds {folder}" in outcome.error
    assert contents(folder) == before
    assert lab.run(folder, "--resume").code == 0
    assert differences(snapshot(folder), uninterrupted) == []


def test_the_lock_of_a_killed_process_does_not_block(lab, tmp_path):
    hold = (
        "import os, signal\nfrom edgeflownas.run.folder import RunLock\n"
        f"RunLock({str(tmp_path)!r}).acquire()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.call([sys.executable, "-c", hold], cwd=tiny.ROOT) == -signal.SIGKILL
    with open(str(tmp_path / ".lock.holder")) as handle:
        assert json.load(handle)["pid"] > 0
    assert lab.run(str(tmp_path), "--max_steps", "1").code == 0
