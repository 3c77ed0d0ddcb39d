"""What a run leaves in its folder: lock, archive, tables."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import edgeflownas
from edgeflownas.engine import artifacts
from edgeflownas.errors import UserError
from edgeflownas.run.artifacts import JsonLines, RunLock, Table, read_table, real

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(edgeflownas.__file__)))
COLUMNS = ("step", "lr", "code")


def child(body, *arguments):
    """A second process; it prints, then waits for its input to end."""
    code = f"""
import os, sys
from edgeflownas.run.artifacts import RunLock, Table
from edgeflownas.errors import UserError
{body}
print("ready", flush=True)
sys.stdin.read()
"""
    return subprocess.Popen(
        [sys.executable, "-c", code] + list(arguments),
        cwd=ROOT,
        universal_newlines=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


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
    """In a process without root's powers: root may write anywhere."""
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
    first = artifacts.archive_previous(str(tmp_path))
    assert os.path.dirname(first) == str(tmp_path / "previous")
    assert files_of(tmp_path / first) == set(MADE)
    fill(tmp_path, MADE, "second")
    second = artifacts.archive_previous(str(tmp_path))
    assert second != first
    assert files_of(tmp_path) == set(NOT_OURS) | {
        os.path.join(os.path.relpath(path, str(tmp_path)), name) for path in (first, second) for name in MADE
    }
    assert {(tmp_path / first / name).read_text() for name in MADE} == {"first"}
    assert {(tmp_path / second / name).read_text() for name in MADE} == {"second"}


def test_nothing_to_archive_makes_no_folder(tmp_path):
    fill(tmp_path, ["fair_sampler_check.json", ".lock"], "")
    assert artifacts.archive_previous(str(tmp_path)) is None
    assert artifacts.archive_previous(str(tmp_path / "new")) is None
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
        artifacts.archive_previous(str(tmp_path))
    assert calls[0].endswith("checkpoints")
    assert files_of(tmp_path) == set(made)
    assert os.listdir(str(tmp_path / "previous")) == []


# -- tables --


def row(step):
    return {"step": step, "lr": 1e-4 * step, "code": "012"}


def test_a_table_is_plain_csv_with_one_header_and_float32_reals(tmp_path):
    path = str(tmp_path / "t.csv")
    table = Table(path, COLUMNS)
    table.append({"code": "012001210", "step": np.int64(7), "lr": 0.1})
    table.append({"step": 8, "lr": np.float64(1) / 3, "code": "x"})
    with open(path, "rb") as handle:  # still open for writing: every row is with the system at once
        assert handle.read() == b"step,lr,code\n7,0.1,012001210\n8,0.33333334,x\n"
    table.close()
    again = Table(path, COLUMNS)
    again.append({"step": 9, "lr": float("nan"), "code": ""})
    again.close()
    assert read_table(path, COLUMNS) == [
        {"step": "7", "lr": "0.1", "code": "012001210"},
        {"step": "8", "lr": "0.33333334", "code": "x"},
        {"step": "9", "lr": "nan", "code": ""},
    ]


def test_real_is_the_shortest_text_that_gives_the_float32_back():
    values = np.random.RandomState(3).standard_normal(61) * 10.0 ** np.arange(-30, 31)
    for value in list(values.astype(np.float32)) + [1e-4, 1 / 3, 16777216.0, 1e16, 0.0]:
        assert np.float32(real(value)) == np.float32(value)
    for value, text in [(0.1, "0.1"), (np.float32(0.1), "0.1"), (1, "1.0"), (1e-5, "1e-05")]:
        assert real(value) == text


@pytest.mark.parametrize(
    "bad", [{"step": 1}, dict(row(1), extra=1), dict(row(1), code="0,1"), dict(row(1), code="a\nb")]
)
def test_a_row_that_would_not_read_back_is_refused(tmp_path, bad):
    table = Table(str(tmp_path / "t.csv"), COLUMNS)
    with pytest.raises(ValueError):
        table.append(bad)
    table.append(row(2))
    table.close()
    assert len(read_table(table.path)) == 1


def test_a_length_that_a_checkpoint_relies_on_is_on_the_disk_first(tmp_path, monkeypatch):
    table, flushed = Table(str(tmp_path / "t.csv"), COLUMNS), []
    table.append(row(1))
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    assert table.length() == os.path.getsize(table.path)
    assert flushed == [table.path]
    table.close()


def test_a_resume_cuts_back_to_the_saved_length_and_goes_on(tmp_path):
    path = tmp_path / "t.csv"
    table = Table(str(path), COLUMNS)
    empty = table.length()
    assert path.read_bytes() == b"step,lr,code\n" and empty == 13
    for step in range(5):
        table.append(row(step))
        if step == 2:
            saved = table.length()
    whole = path.read_bytes()
    table.close()
    with path.open("ab") as handle:
        handle.write(b"5,0.00")  # killed in the middle of a row
    resumed = Table(str(path), COLUMNS)
    for _ in range(2):  # and once more, as after a kill during the resume
        resumed.cut_back(saved)
        assert [r["step"] for r in read_table(str(path), COLUMNS)] == ["0", "1", "2"]
    for step in (3, 4):
        resumed.append(row(step))
    assert path.read_bytes() == whole
    resumed.cut_back(empty)
    resumed.append(row(0))
    resumed.close()
    assert len(read_table(str(path))) == 1


CONTENT = b"step,lr,code\n0,0.0,012\n1,0.1,012\n"


@pytest.mark.parametrize(
    "damage, length, said",
    [
        (lambda path: path.write_bytes(CONTENT[:-4]), len(CONTENT), "has 29 bytes, want the 33"),
        (lambda path: path.unlink(), len(CONTENT), "No such file"),
        (lambda path: path.write_bytes(b""), len(CONTENT), "has 0 bytes"),
        (lambda path: path.write_bytes(CONTENT.replace(b"lr", b"mu")), len(CONTENT), "header is 'step,mu,code"),
        (lambda path: path.write_bytes(CONTENT + b"2,0.2,012\n"), len(CONTENT) + 2, "no line ends at byte 35"),
        (lambda path: None, 5, "no line ends at byte 5"),
    ],
)
def test_a_file_that_is_not_the_one_the_checkpoint_knows_is_refused_untouched(tmp_path, damage, length, said):
    path = tmp_path / "t.csv"
    path.write_bytes(CONTENT)
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(UserError, match=said) as caught:
        Table(str(path), COLUMNS).cut_back(length)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("content", [b"step,lr\n1,2\n", CONTENT + b"2,0.", b"step,l"])
def test_rows_are_never_added_to_another_table_or_after_half_a_row(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="move"):
        Table(str(path), COLUMNS).append(row(1))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "empty"),
        (CONTENT[:-1], "last line cut"),
        (b"a,b\n1,2\n", "columns are a,b, want step"),
        (CONTENT + b"2,0.2\n", "line 4"),
        (CONTENT + b"2,0.2,0,1\n", "line 4"),
        (CONTENT + b"\n", "line 4"),
        (CONTENT + CONTENT, "line 4: got 'step,lr,code'"),
        (CONTENT + b"2,\0\0\0,012\n", "line 4"),
    ],
)
def test_a_damaged_table_is_refused_by_the_reader(tmp_path, content, said):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_table(str(path), COLUMNS)


def test_json_lines_grow_and_are_cut_back_like_tables(tmp_path):
    path = tmp_path / "trace.jsonl"
    lines = JsonLines(str(path))
    assert lines.length() == 0
    lines.append({"step": 0, "event": "forward"})
    saved = lines.length()
    lines.append({"step": 1, "event": "forward"})
    lines.cut_back(saved)
    lines.append({"step": 1, "event": "backward"})
    lines.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 0, "event": "forward"},
        {"step": 1, "event": "backward"},
    ]
    with pytest.raises(UserError, match="want the 999"):
        lines.cut_back(999)


@pytest.mark.parametrize("limit", [7, 1009])
def test_a_full_disk_leaves_whole_rows_and_says_which_file(tmp_path, limit):
    """A real short write, the file size being limited in another process. 7 bytes: not even the header."""
    path = tmp_path / "t.csv"
    full = child(f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
table = Table({str(path)!r}, ("step", "text"))
try:
    for step in range(100):
        table.append({{"step": step, "text": "x" * 23}})
except UserError as error:
    print(error)
""")
    out, err = full.communicate(timeout=60)
    assert err == ""
    assert out.startswith(f"cannot write {path}: File too large")
    if limit == 7:
        assert path.read_bytes() == b""
    else:  # the header's 10 bytes, 10 rows of 26, 27 rows of 27: one more would need 1026
        assert len(read_table(str(path), ("step", "text"))) == 37


def test_no_tensorflow_is_imported():
    code = "import sys, edgeflownas.run.checkpoint, edgeflownas.run.artifacts\nprint('tensorflow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) == b"False\n"
