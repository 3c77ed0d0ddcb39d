"""The shared file helpers: atomic replacement and one-line errors."""

import errno
import os

import pytest

from edgeflownas import files
from edgeflownas.errors import UserError

FULL = "No space left on device; free some space on that disk and try again"


def test_atomic_write_replaces_the_text_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "counts.json"
    files.atomic_write_json(str(path), {"b": [1, 2], "a": "é"})
    files.atomic_write_json(str(path), {"b": [3], "a": 0.5})
    assert path.read_text(encoding="utf-8") == '{\n  "b": [\n    3\n  ],\n  "a": 0.5\n}\n'
    assert os.listdir(str(tmp_path)) == ["counts.json"]


def test_a_value_that_is_not_strict_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.atomic_write_json(str(path), 1)
    with pytest.raises(ValueError):
        files.atomic_write_json(str(path), {"loss": float("nan")})
    assert path.read_text() == "1\n"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    files.atomic_write_text(str(path), "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError) as caught:
        files.atomic_write_text(str(path), "new")
    assert str(caught.value) == f"cannot write {path}: {FULL}"
    assert path.read_text() == "old"
    assert os.listdir(str(tmp_path)) == ["a.txt"]


def test_a_missing_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot write .*No such file or directory"):
        files.atomic_write_text(str(tmp_path / "no" / "a.txt"), "x")


def test_os_errors_lets_other_errors_pass_and_takes_those_it_is_told_to():
    with pytest.raises(KeyError), files.os_errors("save"):
        raise KeyError("x")
    with pytest.raises(UserError, match="cannot save: ") as caught, files.os_errors("save", (KeyError,)):
        raise KeyError("disk\nfull")
    assert "\n" not in str(caught.value)


def test_a_cause_hidden_in_a_long_text_is_found():
    with pytest.raises(UserError) as caught, files.os_errors("save", (KeyError,)):
        raise KeyError("Graph execution error:\n  node save; No space left on device\n  stack trace")
    assert str(caught.value) == "cannot save: " + FULL
    with pytest.raises(UserError) as caught, files.os_errors("save", (LookupError,)):
        raise LookupError("first line\nstack trace")
    assert str(caught.value) == "cannot save: first line; check the disk and the path"


def test_swap_link_replaces_a_link_and_a_leftover_but_never_a_folder(tmp_path):
    link = tmp_path / "last"
    (tmp_path / ".last.tmp").symlink_to("half-done")
    files.swap_link("one", str(link))
    files.swap_link("two", str(link))
    assert os.readlink(str(link)) == "two"
    assert os.listdir(str(tmp_path)) == ["last"]
    (tmp_path / "copied").mkdir()
    with pytest.raises(IsADirectoryError, match="delete it"):
        files.swap_link("one", str(tmp_path / "copied"))


def test_sha256_of_reads_all_pieces(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(b"a" * ((1 << 20) + 7))
    whole = files.sha256_of(str(path))
    path.write_bytes(b"a" * ((1 << 20) + 6) + b"b")
    assert whole != files.sha256_of(str(path))
    path.write_bytes(b"abc")
    assert files.sha256_of(str(path)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
