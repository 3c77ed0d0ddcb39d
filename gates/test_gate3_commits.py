"""Gate 3, commits of checkpoints: the process ends ahead of any change that a commit makes in its folder.

The commits run in this process on small files, without TensorFlow. The reader of the folder is the gates' own.
"""

import itertools
import json
import os
from unittest import mock

from gates.asserts import assert_equal, assert_true, clause
from gates.gate3_runs import damage

CHANGES = ("mkdir", "rename", "replace", "symlink", "unlink", "rmdir")
# Commits as (step, best so far). An epoch is committed twice: after training, and after its evaluation.
HISTORIES = (
    [(1, False)],
    [(1, True), (2, False), (3, True)],
    [(4, False), (4, True)],
    [(3, True), (4, False), (4, True)],
    [(3, True), (4, False), (4, False)],
    [(3, False), (4, False), (5, False)],
)


class Ended(BaseException):
    """The process has ended: no later call changes the disk."""


class Changes:
    """`with Changes(budget) as changes:` lets the first `budget` changes through; every later one raises `Ended`."""

    def __init__(self, budget):
        self._budget, self.count = budget, 0
        self._patches = [mock.patch.object(os, name, self._limited(getattr(os, name))) for name in CHANGES]
        self._patches.append(mock.patch.object(os, "fsync", lambda handle: None))  # slow, and not seen here

    def _limited(self, real):
        def call(*arguments, **named):
            self.count += 1
            if self.count > self._budget:
                raise Ended
            return real(*arguments, **named)

        return call

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_):
        for patch in self._patches:
            patch.stop()


def commit(store, number, step, best):
    """Commits files that tell the commit's number."""

    def write(prefix):
        for suffix in ("index", "data-00000-of-00001"):
            with open(f"{prefix}.{suffix}.part", "w") as file:
                file.write(f"{number} {suffix}\n" * 50)
            os.replace(f"{prefix}.{suffix}.part", f"{prefix}.{suffix}")

    store.commit(write, {"step": step, "number": number}, is_best=best)


def found(folder, which):
    """The number of the commit to which all files of "last" or "best" belong; the state's too. Else what is wrong."""
    numbers = set()
    for suffix in ("index", "data-00000-of-00001"):
        path = folder / f"supernet_{which}.ckpt.{suffix}"
        if not path.exists():
            return f"no {path.name}"
        lines = path.read_text().splitlines()
        numbers |= {line.split()[0] for line in lines} if len(lines) == 50 else {"cut"}
    state = folder / "last" / ("best" if which == "best" else ".") / "state.json"
    numbers.add(str(json.loads(state.read_text())["state"]["number"]))
    return ", ".join(sorted(numbers))


def pair(history):
    """The numbers of last and best after the commits of `history`; best is last as long as nothing is the best."""
    best = [number for number, (_, is_best) in enumerate(history) if is_best]
    return str(len(history) - 1), str(best[-1] if best else len(history) - 1)


def replayed(folder, history):
    """A store after these commits."""
    store = opened(folder)
    for number, (step, best) in enumerate(history):
        commit(store, number, step, best)
    return store


def opened(folder):
    from edgeflownas.run.checkpoint import CheckpointStore

    return CheckpointStore(str(folder), warn=lambda line: None)


@clause("G3.42d")
def test_a_kill_at_any_change_of_a_commit_leaves_last_and_best_whole(tmp_path):
    """After the kill both are those before the commit or those after it. A resume finds one of these pairs, and its
    next commit is whole."""
    for number, history in enumerate(HISTORIES):
        pairs = [pair(history[:-1]), pair(history)] if len(history) > 1 else [pair(history)]
        seen = set()
        for budget in itertools.count():
            folder = tmp_path / f"{number}-{budget}"
            with Changes(10**6):
                store = replayed(folder, history[:-1])
            ended = killed(store, budget, len(history) - 1, history[-1])
            if not (folder / "last").is_symlink() and len(history) == 1:
                continue  # nothing was committed
            got = found(folder, "last"), found(folder, "best")
            where = {"history": history, "changes made": budget}
            assert_true(what="last and best", ok=got in pairs, got=got, want=f"one of {pairs}", **where)
            seen.add(got)
            if not ended:
                break
            with Changes(10**6):
                store = opened(folder)
                store.adopt(store.newest_valid())
                last, best = found(folder, "last"), found(folder, "best")
                got = last, best
                assert_true(what="after a resume", ok=got in pairs, got=got, want=f"one of {pairs}", **where)
                commit(store, 99, 9, False)
            got = found(folder, "last"), found(folder, "best")
            has_best = any(is_best for _, is_best in history[: int(last) + 1])
            assert_equal(what="after the next commit", got=got, want=("99", best if has_best else "99"), **where)
        assert_equal(what="pairs seen", got=seen, want=set(pairs), history=history)
        assert_true(what="changes in a commit", ok=budget > 6, got=budget, want="more than 6", history=history)


def killed(store, budget, number, last):
    """Commits, with an end of the process after `budget` changes. Whether it ended."""
    with Changes(budget):
        try:
            commit(store, number, *last)
        except Ended:
            return True
    return False


@clause("G3.42e")
def test_the_fallback_of_a_damaged_newest_checkpoint_has_its_best(tmp_path):
    """With the newest checkpoint damaged, the last of the step before it is used, and the best as of that one."""
    for number, history in enumerate(HISTORIES):
        earlier = [commit for commit in history if commit[0] < history[-1][0]]
        if not earlier:
            continue
        folder = tmp_path / str(number)
        with Changes(10**6):
            store = replayed(folder, history)
            damage((folder / "last" / "model.ckpt.index").resolve())
            store = opened(folder)
            store.adopt(store.newest_valid())
        got = found(folder, "last"), found(folder, "best")
        assert_equal(what="last and best", got=got, want=pair(earlier), history=history)
