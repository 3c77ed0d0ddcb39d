"""The checkpoint store: whole at every instant, whatever is killed, damaged or full."""
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from edgeflownas.engine.checkpoint import CheckpointStore
from edgeflownas.errors import UserError

DATA = "model.ckpt.data-00000-of-00001"
MUTATIONS = ("mkdir", "rename", "replace", "symlink", "unlink", "rmdir", "fsync")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Waiting for the disk changes nothing that a test could see; `test_all_is_on_the_disk...` checks the calls."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def model(step):
    """A writer whose files tell which step wrote them; like TensorFlow's Saver it leaves a `checkpoint` file too."""
    def write(prefix):
        for suffix in ("index", "data-00000-of-00001"):
            with open("{}.{}".format(prefix, suffix), "wb") as handle:
                handle.write("{} of {}\n".format(suffix, step).encode() * 101)
        with open(os.path.join(os.path.dirname(prefix), "checkpoint"), "w") as handle:
            handle.write("junk")
    return write


def save(store, step, best=False):
    return store.commit(model(step), {"step": step, "loss": 0.1 * step}, is_best=best)


def store_at(path, steps=(), best=()):
    store = CheckpointStore(str(path), warn=pytest.fail)
    for step in steps:
        save(store, step, best=step in best)
    return store


def steps_by_prefix(folder):
    """Which step a reader of the fixed prefixes finds: (last, best). Fails on a mix of two generations."""
    found = []
    for name in ("last", "best"):
        steps = set()
        for suffix in ("index", "data-00000-of-00001"):
            with open(os.path.join(str(folder), "supernet_{}.ckpt.{}".format(name, suffix)), "rb") as handle:
                steps.add(int(handle.readline().split()[-1]))
        assert len(steps) == 1
        found.append(steps.pop())
    return tuple(found)


def generations(folder):
    return sorted(int(name.split("-")[1]) for name in os.listdir(os.path.join(str(folder), "generations")))


def warned(folder):
    """(generation that a resume would use, the warnings it gave)."""
    warnings = []
    return CheckpointStore(str(folder), warn=warnings.append).newest_valid(), warnings


# -- the ordinary life --

def test_last_and_best_follow_the_commits_for_every_kind_of_reader(tmp_path):
    store = store_at(tmp_path)
    expected = {2: (2, 2), 3: (3, 3), 5: (5, 3), 7: (7, 3), 11: (11, 11), 13: (13, 11)}
    for step, pair in expected.items():
        generation = save(store, step, best=step in (3, 11))
        assert generation.state == {"step": step, "loss": 0.1 * step}
        assert steps_by_prefix(tmp_path) == pair
        fresh = CheckpointStore(str(tmp_path), warn=pytest.fail)
        assert tuple(fresh.load(which).state["step"] for which in ("last", "best")) == pair
        assert fresh.newest_valid() == generation
    with open(store.load("best").prefix + ".index", "rb") as handle:
        assert handle.readline() == b"index of 11\n"


def test_best_is_none_until_something_was_evaluated(tmp_path):
    store = store_at(tmp_path, [2, 3])
    assert store.load("last").best is None
    assert store.load("best").state["step"] == 3
    generation = save(store, 5, best=True)
    assert generation.best == generation.name
    assert save(store, 7).best == generation.name


def test_only_the_last_two_and_what_either_calls_best_are_kept(tmp_path):
    store = store_at(tmp_path)
    kept = {2: [2], 3: [2, 3], 5: [2, 3, 5], 7: [2, 5, 7], 11: [2, 7, 11], 13: [11, 13], 17: [11, 13, 17]}
    for step, want in kept.items():
        save(store, step, best=step in (2, 11))
        assert generations(tmp_path) == want
        assert len(os.listdir(str(tmp_path / "generations"))) == len(want)


def test_what_the_writer_left_beside_the_model_is_removed_and_all_shards_are_kept(tmp_path):
    def sharded(prefix):
        for suffix in ("index", "data-00000-of-00002", "data-00001-of-00002"):
            with open("{}.{}".format(prefix, suffix), "w") as handle:
                handle.write(suffix)

    store = store_at(tmp_path, [2])
    generation = store.commit(sharded, {"step": 3}, is_best=True)
    names = {"index", "data-00000-of-00002", "data-00001-of-00002"}
    assert set(os.listdir(generation.path)) == {"model.ckpt." + name for name in names} | {"state.json", "best"}
    for name in names:
        assert (tmp_path / ("supernet_best.ckpt." + name)).read_text() == name
        assert (tmp_path / ("supernet_last.ckpt." + name)).read_text() == name


def test_the_folder_can_be_moved(tmp_path):
    store_at(tmp_path / "a", [2, 3], best=[2])
    (tmp_path / "a").rename(tmp_path / "b")
    assert steps_by_prefix(tmp_path / "b") == (3, 2)
    assert not [link for link in tmp_path.rglob("*") if link.is_symlink() and os.path.isabs(os.readlink(str(link)))]


def test_two_commits_of_one_step_are_two_generations(tmp_path):
    store = store_at(tmp_path, [7])
    first = store.load("last").name
    assert save(store, 7).name != first
    assert save(CheckpointStore(str(tmp_path)), 7).name > first


@pytest.mark.parametrize("state", [{"step": 3, "loss": float("inf")}, {"step": 3, "counts": {1, 2}}, {"loss": 1.0}])
def test_a_state_that_cannot_be_read_back_is_refused_before_anything_is_written(tmp_path, state):
    store = store_at(tmp_path, [2])
    with pytest.raises((ValueError, TypeError, KeyError)):
        store.commit(lambda prefix: pytest.fail("wrote"), state, is_best=False)
    assert generations(tmp_path) == [2]


def test_a_state_with_integer_keys_and_tuples_comes_back_as_json_has_it(tmp_path):
    state = {"step": 3, "counts": {10: (1, 2), 9: [3]}}
    store = store_at(tmp_path)
    store.commit(model(3), state, is_best=False)
    assert store.load("last").state == {"step": 3, "counts": {"10": [1, 2], "9": [3]}}


def test_a_writer_that_wrote_no_model_is_an_error_and_changes_nothing(tmp_path):
    store = store_at(tmp_path, [2])
    with pytest.raises(ValueError, match="model.ckpt.index"):
        store.commit(lambda prefix: None, {"step": 3}, is_best=True)
    assert os.listdir(str(tmp_path / "generations")) == [store.load("last").name]


def test_all_is_on_the_disk_before_the_swap_and_the_swap_before_the_return(tmp_path, monkeypatch):
    store = store_at(tmp_path, [2])
    calls = []
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.readlink("/proc/self/fd/{}".format(handle))))
    for name in ("rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda old, new, real=real: (calls.append(("to", new)), real(old, new)))
    final = save(store, 3).path
    temporary = os.path.join(os.path.dirname(final), ".tmp-" + os.path.basename(final))
    renamed, swapped = calls.index(("to", final)), calls.index(("to", str(tmp_path / "last")))
    for name in ("model.ckpt.index", DATA, "state.json"):
        assert os.path.join(temporary, name) in calls[:renamed]
    assert calls[renamed - 1] == temporary
    assert os.path.dirname(final) in calls[renamed:swapped]
    assert str(tmp_path) in calls[swapped:]


# -- damage --

def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def zero(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def remove(path):
    path.unlink()


def make_folder(path):
    path.unlink()
    path.mkdir()


SIZE = len("data-00000-of-00001 of 5\n") * 101
MODEL_DAMAGE = [
    (truncate, "{} of {} bytes".format(SIZE - 3, SIZE)), (flip_bit, "checksum differs"),
    (empty, "0 of {} bytes".format(SIZE)), (zero, "checksum differs"),
    (lengthen, "{} of {} bytes".format(SIZE + 1, SIZE)), (remove, "No such file"),
]
STATE_DAMAGE = [
    (truncate, "not the JSON"), (empty, "holds nothing"), (zero, "holds nothing"), (remove, "No such file"),
    (make_folder, "Is a directory"),
]


@pytest.mark.parametrize("name, damage, said", [(DATA,) + case for case in MODEL_DAMAGE]
                         + [("state.json",) + case for case in STATE_DAMAGE])
def test_a_damaged_newest_generation_is_named_and_the_one_before_is_used(tmp_path, name, damage, said):
    store = store_at(tmp_path, [2, 3, 5], best=[2])
    damaged = store.load("last").path
    damage(tmp_path / damaged / name)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    generation, warnings = warned(tmp_path)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before  # looking changes nothing
    assert generation.state["step"] == 3
    assert len(warnings) == 1
    assert os.path.join(damaged, name) in warnings[0] and said in warnings[0] and generation.path in warnings[0]
    with pytest.raises(UserError, match=said) as caught:
        CheckpointStore(str(tmp_path)).load("last")
    assert "--resume" in str(caught.value)

    resumed = store_at(tmp_path)
    resumed.adopt(generation)
    assert generations(tmp_path) == [2, 3]
    assert steps_by_prefix(tmp_path) == (3, 2)
    save(resumed, 5, best=True)
    assert steps_by_prefix(tmp_path) == (5, 5)
    assert warned(tmp_path)[1] == []


def test_every_bit_of_a_state_file_matters(tmp_path):
    store = store_at(tmp_path, [2, 3])
    path = tmp_path / store.load("last").path / "state.json"
    content = path.read_bytes()
    whole = json.loads(content.decode())
    for bit in random.Random(0).sample(range(8 * len(content)), 199):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            harmless = json.loads(bytes(changed).decode("utf-8")) == whole  # a space became a tab
        except ValueError:
            harmless = False
        generation, warnings = warned(tmp_path)
        assert (generation.state["step"], len(warnings)) == ((3, 0) if harmless else (2, 1))


def test_the_damaged_index_file_is_found_too(tmp_path):
    flip_bit(tmp_path / store_at(tmp_path, [2, 3]).load("last").path / "model.ckpt.index")
    generation, warnings = warned(tmp_path)
    assert generation.state["step"] == 2 and "model.ckpt.index" in warnings[0]


def link_missing(folder):
    (folder / "last").unlink()


def link_half_renamed(folder):
    (folder / "last").rename(folder / ".last.tmp")


def link_to_nowhere(folder):
    (folder / "last").unlink()
    (folder / "last").symlink_to("generations/gen-000000099-0099")


def link_to_elsewhere(folder):
    (folder / "last").unlink()
    (folder / "last").symlink_to("../elsewhere")


def link_became_file(folder):
    (folder / "last").unlink()
    (folder / "last").write_text("generations/gen")


@pytest.mark.parametrize("damage, said", [
    (link_missing, "last is missing"), (link_half_renamed, "last is missing"), (link_to_nowhere, "is missing"),
    (link_to_elsewhere, "points to '../elsewhere'"), (link_became_file, "not a symbolic link")])
def test_without_the_link_the_newest_whole_generation_is_found_and_linked_again(tmp_path, damage, said):
    store_at(tmp_path, [2, 3, 5], best=[3])
    damage(tmp_path)
    generation, warnings = warned(tmp_path)
    assert generation.state["step"] == 5
    assert len(warnings) == 1 and said in warnings[0]
    resumed = store_at(tmp_path)
    resumed.adopt(generation)
    assert steps_by_prefix(tmp_path) == (5, 3)
    assert save(resumed, 7).best == resumed.load("best").name
    assert warned(tmp_path)[1] == []


def test_fixed_links_and_the_checkpoint_file_are_mended_by_a_resume(tmp_path):
    store_at(tmp_path, [2, 3], best=[2])
    (tmp_path / "checkpoint").write_text("")
    (tmp_path / "supernet_last.ckpt.index").unlink()
    (tmp_path / ("supernet_best.ckpt" + DATA[len("model.ckpt"):])).unlink()
    generation, warnings = warned(tmp_path)
    (tmp_path / generation.path / "best").unlink()
    assert warnings == []
    store_at(tmp_path).adopt(generation)
    assert steps_by_prefix(tmp_path) == (3, 2)
    assert (tmp_path / "checkpoint").read_text() == 'model_checkpoint_path: "supernet_last.ckpt"\n'


def test_a_copy_without_links_resumes_once_the_copied_folder_is_deleted(tmp_path):
    store_at(tmp_path / "a", [2, 3], best=[2])
    folder = tmp_path / "b"
    shutil.copytree(str(tmp_path / "a"), str(folder), symlinks=True)
    for copied in ("last", os.path.join(os.readlink(str(folder / "last")), "best")):
        target = os.path.realpath(str(folder / copied))
        (folder / copied).unlink()
        shutil.copytree(target, str(folder / copied), symlinks=True)
    generation, warnings = warned(folder)
    assert generation.state["step"] == 3 and "not a symbolic link" in warnings[0]
    for copied in ("best", "last"):
        with pytest.raises(UserError, match="delete it .*{}".format(copied)):
            store_at(folder).adopt(generation)
        where = folder if copied == "last" else folder / generation.path
        shutil.rmtree(str(where / copied))
    store_at(folder).adopt(generation)
    assert steps_by_prefix(folder) == (3, 2)


def test_a_damaged_best_is_said_and_does_not_stop_the_resume(tmp_path):
    store = store_at(tmp_path, [2, 3, 5], best=[2])
    truncate(tmp_path / store.load("best").path / DATA)
    generation, warnings = warned(tmp_path)
    assert generation.state["step"] == 5
    assert len(warnings) == 1 and "best" in warnings[0] and "bytes" in warnings[0]
    assert store.load("last") == generation
    with pytest.raises(UserError, match="best checkpoint cannot be used"):
        store.load("best")
    save(store, 7, best=True)
    assert steps_by_prefix(tmp_path) == (7, 7)


@pytest.mark.parametrize("made", [False, True])
def test_nothing_to_resume_from_is_an_error_that_says_so(tmp_path, made):
    if made:
        (tmp_path / "generations").mkdir()
    store = store_at(tmp_path)
    with pytest.raises(UserError, match="no checkpoint to resume from in .*without --resume"):
        store.newest_valid()
    with pytest.raises(UserError, match="no checkpoint in"):
        store.load("best")


def test_nothing_whole_names_everything_that_was_tried(tmp_path):
    store = store_at(tmp_path, [2, 3])
    paths = sorted((tmp_path / "generations").iterdir())
    truncate(paths[0] / DATA)
    remove(paths[1] / "state.json")
    with pytest.raises(UserError) as caught:
        store.newest_valid()
    assert str(paths[0] / DATA) in str(caught.value) and str(paths[1] / "state.json") in str(caught.value)


def test_what_may_not_be_read_is_not_taken_for_damaged(tmp_path, monkeypatch):
    store = store_at(tmp_path, [2, 3])

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os.path, "getsize", forbidden)
    with pytest.raises(UserError, match="Permission denied; mend its permissions"):
        store.newest_valid()


# -- killed, interrupted, full --

class Killed(BaseException):
    """The process is gone: no handler may do anything more."""


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
    "first": ((), (), True), "second": ((2,), (2,), False), "new best": ((2, 3, 5, 7), (2,), True),
    "no new best": ((2, 3, 5, 7), (3,), False), "never evaluated": ((2, 3, 5), (), False),
}


def calls_of_a_commit(path, history):
    steps, best, is_best = HISTORIES[history]
    store = store_at(path, steps, best)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, 10 ** 6, Killed(), for_good=True)
        save(store, 11, is_best)
    return faults.calls


def interrupted_commit(path, history, budget, error, for_good):
    """Commits step 11 with a fault. Gives the store and what readers may now see: the old pair or the new one."""
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
            with pytest.raises(UserError, match="no checkpoint to resume from"):
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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")],
                         ids=["interrupt", "full"])
@pytest.mark.parametrize("history", ["first", "new best", "no new best"])
def test_a_fault_at_any_call_leaves_the_old_state_or_the_new_no_litter_and_a_store_that_works(
        tmp_path, history, error):
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
    with pytest.raises(UserError, match="cannot save the checkpoint of step 3 in .*the one before is intact.*No space"):
        store.commit(fails, {"step": 3}, is_best=True)
    assert generations(tmp_path) == [2] and len(os.listdir(str(tmp_path / "generations"))) == 1


IN_A_PROCESS = """
import resource, sys
sys.path[:0] = {path!r}
from test_checkpoint import *
{body}
"""


def run(body):
    here = os.path.dirname(os.path.abspath(__file__))
    path = [here, os.path.dirname(os.path.dirname(here))]
    return subprocess.Popen([sys.executable, "-c", IN_A_PROCESS.format(path=path, body=body)],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)


def test_a_disk_that_takes_no_more_bytes(tmp_path):
    """A real short write (file size limit), in a process of its own."""
    process = run("""
store = store_at({0!r}, [2, 3], best=[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (1009, 1009))
try:
    save(store, 5, best=True)
except UserError as error:
    print(error)
""".format(str(tmp_path)))
    said = process.communicate(timeout=60)[0]
    assert said == ("cannot save the checkpoint of step 5 in {} (the one before is intact): File too large; "
                    "the file size limit is reached (see `ulimit -f`)\n".format(tmp_path))
    assert steps_by_prefix(tmp_path) == (3, 2)
    assert len(os.listdir(str(tmp_path / "generations"))) == 2


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.037])
def test_kill_9_while_committing(tmp_path, delay):
    process = run("""
store = store_at({0!r})
for step in range(1, 10 ** 6):
    save(store, step, best=step % 3 == 0)
    print(step, flush=True)
""".format(str(tmp_path)))
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
        for step in (2, 3, 5):
            session.run(assign, {fed: [step] * 3})
            store.commit(lambda prefix: saver.save(session, prefix, write_meta_graph=False, write_state=False),
                         {"step": step}, is_best=step == 3)
        for name, step in (("supernet_last.ckpt", 5), ("supernet_best.ckpt", 3)):
            saver.restore(session, os.path.join(folder, name))
            assert session.run(value).tolist() == [step] * 3
        assert tf.train.latest_checkpoint(folder) == os.path.join(folder, "supernet_last.ckpt")
        saver.restore(session, store.load("best").prefix)
        assert session.run(value).tolist() == [3] * 3


        def obstructed(prefix):
            os.mkdir(prefix + ".index")
            saver.save(session, prefix, write_meta_graph=False, write_state=False)

        with pytest.raises(UserError, match="cannot save the checkpoint of step 7"):
            store.commit(obstructed, {"step": 7}, is_best=False)
        assert store.load("last").state == {"step": 5}
