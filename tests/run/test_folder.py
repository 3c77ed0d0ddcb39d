"""The run folder: its lock, and the archiving of an earlier run."""

import errno
import json
import os
import signal

import pytest
from other_process import child

from edgeflownas.errors import UserError
from edgeflownas.run.folder import RunLock, archive_previous

# -- lock --


def test_a_second_run_on_the_folder_is_refused_and_told_who_holds_it(tmp_path):
    folder = str(tmp_path / "run")
    holder = child("lock = RunLock(sys.argv[1]); lock.acquire()", folder)
    try:
        assert holder.stdout.readline() == "ready\n"
        for _ in range(2):  # being refused does not lose the holder's name
            with pytest.raises(UserError) as caught:
                RunLock(folder).acquire()
            RunLock(folder).release()  # of what it does not hold: nothing
            who = f"process {holder.pid} on {os.uname()[1]}"
            assert f"another run holds {folder} ({who}" in str(caught.value)
    finally:
        holder.communicate()
    with RunLock(folder):
        pass


def test_a_killed_run_frees_the_folder(tmp_path):
    holder = child("lock = RunLock(sys.argv[1]); lock.acquire()", str(tmp_path))
    assert holder.stdout.readline() == "ready\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with RunLock(str(tmp_path)):
        assert json.loads((tmp_path / ".lock.holder").read_text())["pid"] == os.getpid()


def test_the_lock_is_released_for_the_next_run_and_leaves_no_name_behind(tmp_path):
    for _ in range(2):
        with RunLock(str(tmp_path)):
            pass
        assert set(os.listdir(str(tmp_path))) <= {".lock"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the run folder .*/file/run: Not a directory"):
        RunLock(str(tmp_path / "file" / "run")).acquire()


@pytest.mark.parametrize("made", ["run", ""])
def test_a_folder_without_permission_is_refused_untouched(tmp_path, made):
    """Runs in a process without root's rights, because root may write anywhere."""
    os.chmod(str(tmp_path), 0o555)
    if made:
        (tmp_path / "run").mkdir(mode=0o555)
    refused = child(
        """
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
try:
    RunLock("run").acquire()
except UserError as error:
    print(error)
""",
        str(tmp_path),
    )
    try:
        out, err = refused.communicate(timeout=60)
    finally:
        os.chmod(str(tmp_path), 0o755)
    assert err == ""
    assert out.startswith("cannot write to the run folder run: Permission denied; choose a folder that")
    assert os.listdir(str(tmp_path)) == ([made] if made else [])
    assert not made or os.listdir(str(tmp_path / made)) == []


# -- archive --

MADE = (
    "eval_pool_12.json",
    "eval_epe_history.csv",
    "eval_epe_per_arch.csv",
    "train_steps.csv",
    "timing.csv",
    "fairness_counts.json",
    "train_manifest.json",
    "supernet_training_report.md",
    "eval_samples.npz",
    "eval_epe_samples.npz",
    "train.log",
    "debug_trace.jsonl",
    "checkpoints/last",
    "report/epe.png",
    "tensorboard/events",
    "subnet_scores.csv",
)
NOT_OURS = ("experiment_b/train.log", "previous/old/train.log", ".lock", "fair_sampler_check.json", "notes")


def fill(folder, names, text):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_previous_run_is_moved_whole_and_nothing_else_is(tmp_path):
    fill(tmp_path, MADE, "first")
    fill(tmp_path, NOT_OURS, "mine")
    first = archive_previous(str(tmp_path))
    assert os.path.dirname(first) == str(tmp_path / "previous")
    assert files_of(tmp_path / first) == set(MADE)
    fill(tmp_path, MADE, "second")
    second = archive_previous(str(tmp_path))
    assert second != first
    assert files_of(tmp_path) == set(NOT_OURS) | {
        os.path.join(os.path.relpath(path, str(tmp_path)), name) for path in (first, second) for name in MADE
    }
    assert {(tmp_path / first / name).read_text() for name in MADE} == {"first"}
    assert {(tmp_path / second / name).read_text() for name in MADE} == {"second"}


def test_nothing_to_archive_makes_no_folder(tmp_path):
    fill(tmp_path, ["fair_sampler_check.json", ".lock"], "")
    assert archive_previous(str(tmp_path)) is None
    assert archive_previous(str(tmp_path / "new")) is None
    assert set(os.listdir(str(tmp_path))) == {"fair_sampler_check.json", ".lock"}


@pytest.mark.parametrize("fails_at", range(4))
def test_a_move_that_fails_is_undone(tmp_path, monkeypatch, fails_at):
    made = ("checkpoints/last", "train.log", "timing.csv", "report/epe.png")
    fill(tmp_path, made, "x")
    rename, calls = os.rename, []

    def sometimes(old, new):
        calls.append(old)
        if len(calls) == fails_at + 1:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(old, new)

    monkeypatch.setattr(os, "rename", sometimes)
    with pytest.raises(UserError, match="cannot move the previous run out of .*nothing was moved.*device"):
        archive_previous(str(tmp_path))
    assert calls[0].endswith("checkpoints")
    assert files_of(tmp_path) == set(made)
    assert os.listdir(str(tmp_path / "previous")) == []
