"""Crash-safe checkpoints: one folder per generation; the atomic swap of one symbolic link commits a new one.

    checkpoints/
      generations/gen-<step>-<serial>/model.ckpt.{index,data-00000-of-00001}, state.json
                                      best -> . or ../gen-<step>-<serial>    best as of this generation
      last -> generations/gen-<step>-<serial>                the commit point, for last and best together
      supernet_last.ckpt.index -> last/model.ckpt.index      this link and the next ones never change
      supernet_best.ckpt.index -> last/best/model.ckpt.index (likewise the data files)

A plain `tf.train.Saver` can restore the prefixes `supernet_last.ckpt` and `supernet_best.ckpt`. This module does not
import TensorFlow: the caller passes `commit` a function that writes the model's files. Built on `files`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Type

from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_text, fsync_path, os_errors, sha256_of, swap_link, write_text
from edgeflownas.run.folder import CHECKPOINTS
from edgeflownas.run.json_file import parse_object

_NEWEST = "last"  # the link to the newest generation
MODEL = "model.ckpt"
LAST, BEST = "supernet_last.ckpt", "supernet_best.ckpt"
STATE = "state.json"
_NAME = re.compile(r"gen-\d{9,}-(\d{4,})$")
_TEMPORARY = ".tmp-"


class Damaged(UserError):
    """A generation is damaged and must not be used. The message names the file and the damage."""


class Generation(NamedTuple):
    """One committed checkpoint."""

    path: str  # its folder
    state: Dict[str, Any]  # the state given to `commit`, after a round trip through JSON
    best: Optional[str]  # name of the best generation so far; None: nothing evaluated yet
    files: Dict[str, Any]  # file name -> {"size": bytes, "sha256": hex}

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def prefix(self) -> str:
        """The path prefix for `tf.train.Saver.restore`."""
        return os.path.join(self.path, MODEL)

    @property
    def sha256(self) -> Dict[str, str]:
        """{file name: hex}, for records that name the checkpoint."""
        return {name: stored["sha256"] for name, stored in self.files.items()}


def _serial(name: str) -> int:
    match = _NAME.match(name)
    return int(match.group(1)) if match else -1


def _digest(record: Dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode("utf-8")).hexdigest()


def link_name(which: str, file: str) -> str:
    """The name of the link in `checkpoints/` to a file of the "last" or the "best" model."""
    return {"last": LAST, "best": BEST}[which] + file[len(MODEL) :]


def has_checkpoint(run_folder: str) -> bool:
    """Whether the run in that folder has committed a checkpoint, damaged or not."""
    return os.path.lexists(os.path.join(run_folder, CHECKPOINTS, _NEWEST))


class CheckpointStore:
    """The folder `checkpoints/` of one run, for one writer (`folder.RunLock`). The constructor changes nothing on disk.

    `warn` gets one line for the user when a damaged generation is skipped. `write_errors`: the exceptions besides
    `OSError` with which the writer given to `commit` reports a full disk (`tf.errors.OpError`).
    """

    def __init__(
        self,
        folder: str,
        warn: Callable[[str], None] = logging.getLogger(__name__).warning,
        write_errors: Tuple[Type[BaseException], ...] = (),
    ) -> None:
        self.folder = folder
        self._generations = os.path.join(folder, "generations")
        self._last = os.path.join(folder, _NEWEST)
        self._warn = warn
        self._write_errors = write_errors
        self._current: Optional[Generation] = None

    @property
    def committed(self) -> bool:
        """Whether there is a last generation, damaged or not."""
        return os.path.islink(self._last)

    # -- writing --

    def commit(self, write_model: Callable[[str], None], state: Dict[str, Any], is_best: bool) -> Generation:
        """Writes a new generation and makes it the last one, and the best if `is_best`; then removes old ones.

        `write_model(prefix)` writes the model's files, in any number of shards. `state` is strict JSON with
        an int "step". UserError if it cannot be written to the disk; the last checkpoint is then intact.
        """
        state = json.loads(json.dumps(state, allow_nan=False))  # as `load` will return it; fails early if not JSON
        doing = "save the checkpoint of step {} in {} (the one before is intact)"
        with os_errors(doing.format(state["step"], self.folder), self._write_errors):
            if self._current is None and self._names():
                self.adopt(self.load("last"))
            os.makedirs(self._generations, exist_ok=True)
            serial = 1 + max([_serial(name) for name in self._names()] + [0])
            name = "gen-{:09d}-{:04d}".format(state["step"], serial)
            try:
                generation = self._write(name, write_model, state, is_best)
                self._point_to(generation)
            except BaseException:
                self._discard(name)
                self._current = None  # the next commit reads it from the disk again
                raise
        self._collect(generation)
        return generation

    def adopt(self, generation: Generation) -> None:
        """Makes the result of `newest_valid` the last generation. Repairs links; removes newer ones and leftovers."""
        with os_errors(f"repair the checkpoints in {self.folder}"):
            self._link_best(generation.path, generation.best)
            self._point_to(generation)
        self._collect(generation)

    def _write(self, name: str, write_model: Callable[[str], None], state: Dict[str, Any], is_best: bool) -> Generation:
        temporary = os.path.join(self._generations, _TEMPORARY + name)
        if os.path.lexists(temporary):
            shutil.rmtree(temporary)
        os.mkdir(temporary)
        write_model(os.path.join(temporary, MODEL))
        best = name if is_best else self._current.best if self._current else None
        record = {"generation": name, "best": best, "state": state, "files": _take_stock(temporary)}
        record["digest"] = _digest(record)
        self._link_best(temporary, None if is_best else best)
        write_text(os.path.join(temporary, STATE), json.dumps(record, indent=1) + "\n")
        fsync_path(temporary)
        os.rename(temporary, os.path.join(self._generations, name))
        fsync_path(self._generations)
        return self._read(name)

    def _point_to(self, generation: Generation) -> None:
        for file in generation.files:
            for which, folder in (("last", "last"), ("best", "last/best")):
                self._keep_link(f"{folder}/{file}", os.path.join(self.folder, link_name(which, file)))
        # For tf.train.latest_checkpoint. Like the links, this file never changes.
        listing = os.path.join(self.folder, "checkpoint")
        text = f'model_checkpoint_path: "{LAST}"\n'
        if not os.path.isfile(listing) or os.path.getsize(listing) != len(text):
            atomic_write_text(listing, text)
        self._keep_link("generations/" + generation.name, self._last)
        self._current = generation

    def _link_best(self, path: str, best: Optional[str]) -> None:
        here = best is None or best == os.path.basename(path)
        self._keep_link("." if here else f"../{best}", os.path.join(path, "best"))

    @staticmethod
    def _keep_link(target: str, link: str) -> None:
        if not os.path.islink(link) or os.readlink(link) != target:
            swap_link(target, link)

    def _discard(self, name: str) -> None:
        """Removes what a failed commit left behind, unless `last` already points to the new generation."""
        if os.path.islink(self._last) and os.path.basename(os.readlink(self._last)) == name:
            return
        for leftover in (_TEMPORARY + name, name):
            shutil.rmtree(os.path.join(self._generations, leftover), ignore_errors=True)

    def _collect(self, current: Generation) -> None:
        """Removes all generations but `current`, the newest of an earlier step, and the best ones of these two.

        "Of an earlier step" because an epoch is committed twice, after training and after its evaluation, with the same
        tensors. If a removal fails, only disk space is lost.
        """
        keep = {current.name, current.best}
        try:
            step = current.name.rsplit("-", 1)[0]
            older = [name for name in self._names() if _serial(name) < _serial(current.name)]
            older = [name for name in older if name.rsplit("-", 1)[0] != step][:1]
            for name in older:
                with contextlib.suppress(Damaged):  # a damaged one is no fallback, so its best need not be kept
                    keep.add(self._read(name).best)
            keep.update(older)
            for name in os.listdir(self._generations):
                if name.startswith(_TEMPORARY) or (_NAME.match(name) and name not in keep):
                    shutil.rmtree(os.path.join(self._generations, name))
        except OSError as error:
            self._warn(f"cannot remove an old checkpoint: {error}")

    # -- reading --

    def load(self, which: str) -> Generation:
        """The "last" or "best" generation, verified. UserError if it is missing or damaged; there is no fallback."""
        if which not in ("last", "best"):
            raise ValueError(f"which must be 'last' or 'best', got {which!r}")
        if not self._names():
            raise UserError(f"no checkpoint in {self.folder}: train first, or name another run")
        try:
            last = self._read(self._linked())
            return self._verified(last.best if which == "best" and last.best else last.name)
        except Damaged as error:
            raise UserError(
                f"the {which} checkpoint cannot be used: {error}; `--resume` continues the run from the "
                "newest one that is whole"
            ) from error

    def newest_valid(self, advice: str = "start afresh without --resume") -> Generation:
        """The last generation if it is intact, else the newest intact one before it, else a later one. Warns of damage.

        Changes nothing on the disk; `adopt` does that once the resume is certain. UserError with `advice` if no
        generation is intact.
        """
        problems: List[str] = []
        names = self._names()
        try:
            last = self._linked()
            # A generation newer than `last` was never committed, so it is tried after the older ones.
            names.sort(key=lambda name: (_serial(name) > _serial(last), -_serial(name)))
            names = names if last in names else [last] + names
        except Damaged as error:
            problems.append(str(error))
        for name in names:
            try:
                generation = self._verified(name)
            except Damaged as error:
                problems.append(str(error))
                continue
            if problems:
                self._warn("checkpoint damaged: {}; using {}".format("; ".join(problems), generation.path))
            self._check_best(generation)
            return generation
        raise UserError("no checkpoint to go on from in {}: {}; {}".format(self.folder, "; ".join(problems), advice))

    def _check_best(self, generation: Generation) -> None:
        if generation.best not in (None, generation.name):
            try:
                self._verified(str(generation.best))
            except Damaged as error:
                self._warn(
                    f"the best checkpoint is damaged: {error}; training can go on, but {BEST} "
                    "cannot be used until an evaluation beats it"
                )

    def _names(self) -> List[str]:
        """All generations, newest first."""
        if not os.path.isdir(self._generations):
            return []
        return sorted(filter(_NAME.match, os.listdir(self._generations)), key=_serial, reverse=True)

    def _linked(self) -> str:
        """Name of the generation that `last` points to."""
        try:
            target = os.readlink(self._last)
        except FileNotFoundError:
            raise Damaged(f"the link {self._last} is missing") from None
        except OSError:
            raise Damaged(f"{self._last} is not a symbolic link") from None
        folder, name = os.path.split(target)
        if folder != "generations" or not _NAME.match(name):
            raise Damaged(f"{self._last} points to {target!r}, want generations/gen-...")
        return name

    def _read(self, name: str) -> Generation:
        """A generation as its state file describes it; does not check the model's files."""
        folder = os.path.join(self._generations, name)
        path = os.path.join(folder, STATE)
        if not os.path.isdir(folder):
            raise Damaged(f"{folder} is missing")
        with _reading(path), open(path, "rb") as handle:
            content = handle.read()
        if not content.strip(b"\0"):
            raise Damaged(f"{path} holds nothing ({len(content)} zero bytes)")
        try:
            record = parse_object(content)
            intact = record.pop("digest") == _digest(record) and record["generation"] == name
        except (ValueError, KeyError):
            raise Damaged(f"{path} is not the JSON of a checkpoint") from None
        if not intact:
            raise Damaged(f"{path}: its content does not match its digest")
        return Generation(folder, record["state"], record["best"], record["files"])

    def _verified(self, name: str) -> Generation:
        """Reads a generation and checks the sizes and checksums of its files. Raises `Damaged`."""
        generation = self._read(name)
        for file, want in generation.files.items():
            path = os.path.join(generation.path, file)
            with _reading(path):
                size = os.path.getsize(path)
                if size != want["size"]:
                    raise Damaged("{} has {} of {} bytes".format(path, size, want["size"]))
                if sha256_of(path) != want["sha256"]:
                    raise Damaged(f"{path} has the right size but its checksum differs")
        return generation


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns a read error into `Damaged`, but missing permission into a UserError, because the user can fix that."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; fix its permissions") from error
    except OSError as error:
        raise Damaged(f"{path}: {error.strerror}") from error


def _take_stock(folder: str) -> Dict[str, Any]:
    """Flushes the model's files to the disk, removes all other files, and returns sizes and checksums."""
    files = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith(MODEL + "."):
            fsync_path(path)
            files[name] = {"size": os.path.getsize(path), "sha256": sha256_of(path)}
        else:
            os.unlink(path)
    if MODEL + ".index" not in files or len(files) < 2:
        raise ValueError(f"write_model left {list(files)}, want {MODEL}.index and {MODEL}.data-*")
    return files
