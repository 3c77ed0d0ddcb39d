"""Atomic writing of files, and disk errors as one line for the user. Built on `os.replace` and `os.fsync`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from typing import Any, Iterator, Tuple, Type

from edgeflownas.errors import UserError

_HINTS = {
    errno.ENOSPC: "free some space on that disk and try again",
    errno.EDQUOT: "your disk quota is used up: free some space and try again",
    errno.EFBIG: "the file size limit is reached (see `ulimit -f`)",
    errno.EACCES: "choose a folder that you may write to, or fix its permissions",
    errno.EPERM: "choose a folder that you may write to, or fix its permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
}


@contextlib.contextmanager
def os_errors(doing: str, also: Tuple[Type[BaseException], ...] = ()) -> Iterator[None]:
    """Turns an `OSError` (or one of `also`) into `UserError("cannot <doing>: <why>; <what to do>")`."""
    try:
        yield
    except (OSError,) + also as error:
        why, hint = _why(error)
        named = getattr(error, "filename", None)
        if named and str(named) not in doing:
            why = f"{why} ({named})"
        raise UserError(f"cannot {doing}: {why}; {hint}") from error


def _why(error: BaseException) -> Tuple[str, str]:
    """(what went wrong, what to do). TensorFlow's errors have no errno, only a long text."""
    for code, hint in _HINTS.items():
        if code == getattr(error, "errno", None) or os.strerror(code) in str(error):
            return os.strerror(code), hint
    lines = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__), "check the disk and the path"


def fsync_path(path: str) -> None:
    """Flushes a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems raise it for folders
            raise
    finally:
        os.close(handle)


def write_text(path: str, text: str) -> None:
    """Writes UTF-8 and flushes it to the disk. Not atomic: only for files that nothing reads yet."""
    with open(path, "w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def atomic_write_text(path: str, text: str) -> None:
    """Replaces `path` atomically: readers find the old or the new text, even after a crash. Disk errors: UserError."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.tmp-{os.getpid()}")
    with os_errors(f"write {path}"):
        try:
            write_text(temporary, text)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        fsync_path(folder)


def atomic_write_json(path: str, value: Any) -> None:
    """Writes indented, strict JSON with `atomic_write_text`. ValueError for NaN or infinity."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def appearing(place: str, replace: bool = False) -> Iterator[str]:
    """A temporary folder that becomes `place` at the end, or is deleted after an error. Disk errors: UserError.

    With `replace`, an existing folder `place` is deleted first.
    """
    parent, name = os.path.split(os.path.abspath(place))
    folder = os.path.join(parent, f".{name}.tmp-{os.getpid()}")
    with os_errors(f"make the folder {place}"):
        os.makedirs(folder)
        try:
            yield folder
            if replace:
                shutil.rmtree(place, ignore_errors=True)
            os.rename(folder, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def swap_link(target: str, link: str) -> None:
    """Points the symbolic link `link` to `target` (relative to the link's folder), atomically. Raises OSError."""
    if os.path.isdir(link) and not os.path.islink(link):
        raise OSError(errno.EISDIR, "a folder stands where a link belongs: delete it", link)
    folder, name = os.path.split(os.path.abspath(link))
    temporary = os.path.join(folder, f".{name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # left over from a run that was killed here
    os.symlink(target, temporary)
    os.replace(temporary, link)
    fsync_path(folder)


def sha256_of(path: str) -> str:
    """The file's SHA-256 in hex; reads the file in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for piece in iter(lambda: handle.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
