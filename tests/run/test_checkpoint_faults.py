"""The checkpoint store when a commit is killed, is interrupted or meets a full disk, at every point."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
from store_helpers import generations, model, save, steps_by_prefix, store_at, warned

from edgeflownas.errors import UserError
from edgeflownas.run.checkpoint import CheckpointStore

MUTATIONS = ("mkdir", "rename", "replace", "symlink", "unlink", "rmdir", "fsync")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Disables fsync, whose effect these tests cannot see."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Killed(BaseException):
    """Simulates the end of the process: no handler may change the disk any more."""


class Faults:
    """Lets the first `budget` calls that change the disk through, and raises `error` at the next."""

    def __init__(self, monkeypatch, budget, error, for_good):
        self.calls = 0
        for name in MUTATIONS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), budget, error, for_good))

    def _wrap(self, real, budget, error, for_good):
        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == budget + 1 or (for_good and self.calls > budget):
                raise error
            return real(*args, **kwargs)

        return call


HISTORIES = {  # steps committed before, best among them; then step 11 is committed, as best or not
    "first": ((), (), True),
    "second": ((2,), (2,), False),
    "new best": ((2, 3, 5, 7), (2,), True),
    "no new best": ((2, 3, 5, 7), (3,), False),
    "never evaluated": ((2, 3, 5), (), False),
}


def calls_of_a_commit(path, history):
    steps, best, is_best = HISTORIES[history]
    store = store_at(path, steps, best)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, 10**6, Killed(), for_good=True)
        save(store, 11, is_best)
    return faults.calls


def interrupted_commit(path, history, budget, error, for_good):
    """Commits step 11 with a fault. Gives the store, the old pair, the new one and what was raised."""
    steps, best, is_best = HISTORIES[history]
    store = CheckpointStore(str(path), warn=lambda line: None)
    for step in steps:
        save(store, step, step in best)
    old = steps_by_prefix(path) if steps else None
    new = (11, old[1] if best and not is_best else 11)
    raised = None
    with pytest.MonkeyPatch.context() as patch:
        Faults(patch, budget, error, for_good)
        try:
            save(store, 11, is_best)
        except (Killed, KeyboardInterrupt, UserError) as caught:
            raised = caught
    return store, old, new, raised


@pytest.mark.parametrize("history", HISTORIES)
def test_killed_at_any_call_of_a_commit_the_store_is_the_old_one_or_the_new_one(tmp_path, history):
    calls = calls_of_a_commit(tmp_path / "count", history)
    assert calls >= 12
    seen = set()
    for budget in range(calls):
        folder = tmp_path / str(budget)
        _, old, new, _ = interrupted_commit(folder, history, budget, Killed(), for_good=True)
        store = CheckpointStore(str(folder), warn=lambda line: None)
        linked = os.path.islink(str(folder / "last"))
        if not linked and not generations_whole(folder):
            with pytest.raises(UserError, match="no checkpoint to go on from"):
                store.newest_valid()
            seen.add(None)
            assert old is None
            continue
        generation = store.newest_valid()
        if linked:  # readers of the fixed names need no resume
            assert steps_by_prefix(folder) in (old, new)
            assert generation.state["step"] == steps_by_prefix(folder)[0]
            assert store.load("best").state["step"] == steps_by_prefix(folder)[1]
        store.adopt(generation)
        pair = steps_by_prefix(folder)
        assert pair in (old, new)
        seen.add(pair)
        save(store, 13)
        assert not [name for name in os.listdir(str(folder / "generations")) if name.startswith(".")]
        assert warned(folder)[0].state["step"] == 13 and warned(folder)[1] == []
    assert seen == {old, new}


def generations_whole(folder):
    path = folder / "generations"
    return path.is_dir() and any(name.startswith("gen-") for name in os.listdir(str(path)))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=["interrupt", "full"]
)
@pytest.mark.parametrize("history", ["first", "new best", "no new best"])
def test_a_fault_at_any_call_leaves_the_old_state_or_the_new_no_litter_and_a_store_that_works(tmp_path, history, error):
    for budget in range(calls_of_a_commit(tmp_path / "count", history)):
        folder = tmp_path / str(budget)
        store, old, new, raised = interrupted_commit(folder, history, budget, error, for_good=False)
        if isinstance(error, OSError) and raised is not None:
            assert isinstance(raised, UserError) and "No space left" in str(raised)
        linked = os.path.islink(str(folder / "last"))
        pair = steps_by_prefix(folder) if linked else None
        assert pair in (old, new)
        assert raised is not None or pair == new
        final = save(store, 13)
        assert steps_by_prefix(folder) == (13, 13 if pair is None else pair[1])
        assert final.best == (None if pair is None else store.load("best").name)
        assert not [name for name in os.listdir(str(folder / "generations")) if name.startswith(".")]
        assert len(generations(folder)) <= 4


def test_the_writers_own_errors_can_be_named(tmp_path):
    class OpError(Exception):
        pass

    def fails(prefix):
        model(3)(prefix)
        raise OpError("model.ckpt.data;\n No space left on device")

    store = CheckpointStore(str(tmp_path), write_errors=(OpError,))
    save(store, 2)
    with pytest.raises(UserError, match="checkpoint of step 3 .*No space left on device; free"):
        store.commit(fails, {"step": 3}, is_best=True)
    assert generations(tmp_path) == [2] and len(os.listdir(str(tmp_path / "generations"))) == 1


IN_A_PROCESS = """
import resource, sys
sys.path[:0] = {path!r}
from edgeflownas.errors import UserError
from store_helpers import *
{body}
"""


def run(body):
    here = os.path.dirname(os.path.abspath(__file__))
    path = [here, os.path.dirname(os.path.dirname(here))]
    return subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS.format(path=path, body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )


def test_a_disk_that_takes_no_more_bytes(tmp_path):
    """A real short write (file size limit), in a separate process."""
    process = run(f"""
store = store_at({str(tmp_path)!r}, [2, 3], best=[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (1009, 1009))
try:
    save(store, 5, best=True)
except UserError as error:
    print(error)
""")
    said = process.communicate(timeout=60)[0]
    assert said == (
        f"cannot save the checkpoint of step 5 in {tmp_path} (the one before is intact): File too large; "
        "the file size limit is reached (see `ulimit -f`)\n"
    )
    assert steps_by_prefix(tmp_path) == (3, 2)
    assert len(os.listdir(str(tmp_path / "generations"))) == 2


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.037])
def test_kill_9_while_committing(tmp_path, delay):
    process = run(f"""
store = store_at({str(tmp_path)!r})
for step in range(1, 10 ** 6):
    save(store, step, best=step % 3 == 0)
    print(step, flush=True)
""")
    try:
        for _ in range(7):
            process.stdout.readline()
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
    committed = int((process.communicate(timeout=60)[0].split() or ["7"])[-1])
    last, best = steps_by_prefix(tmp_path)
    assert last in (committed, committed + 1)
    assert best == last - last % 3
    assert warned(tmp_path)[0].state["step"] == last and warned(tmp_path)[1] == []


def test_a_plain_tensorflow_saver_restores_both_prefixes(tmp_path):
    from edgeflownas.tfcompat import tf

    folder = str(tmp_path / "checkpoints")
    with tf.Graph().as_default(), tf.Session() as session:
        value = tf.get_variable("v", shape=[3], dtype=tf.float32)
        fed = tf.placeholder(tf.float32, [3])
        assign, saver = value.assign(fed), tf.train.Saver()
        store = CheckpointStore(folder, write_errors=(tf.errors.OpError,))

        def write(prefix):
            saver.save(session, prefix, write_meta_graph=False, write_state=False)

        for step in (2, 3, 5):
            session.run(assign, {fed: [step] * 3})
            store.commit(write, {"step": step}, is_best=step == 3)
        for name, step in (("supernet_last.ckpt", 5), ("supernet_best.ckpt", 3)):
            saver.restore(session, os.path.join(folder, name))
            assert session.run(value).tolist() == [step] * 3
        assert tf.train.latest_checkpoint(folder) == os.path.join(folder, "supernet_last.ckpt")
        saver.restore(session, store.load("best").prefix)
        assert session.run(value).tolist() == [3] * 3

        def obstructed(prefix):
            os.mkdir(prefix + ".index")
            write(prefix)

        with pytest.raises(UserError, match="cannot save the checkpoint of step 7"):
            store.commit(obstructed, {"step": 7}, is_best=False)
        assert store.load("last").state == {"step": 5}
