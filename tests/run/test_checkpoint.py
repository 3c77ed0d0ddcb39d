"""The checkpoint store: what readers find, what is kept, and every kind of damage."""

import errno
import json
import os
import random
import shutil

import pytest
from store_helpers import DATA, generations, model, save, steps_by_prefix, store_at, warned

from edgeflownas.errors import UserError
from edgeflownas.run.checkpoint import CheckpointStore


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Disables fsync, whose effect these tests cannot see; one test below checks the calls."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


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
            with open(f"{prefix}.{suffix}", "w") as handle:
                handle.write(suffix)

    store = store_at(tmp_path, [2])
    generation = store.commit(sharded, {"step": 3}, is_best=True)
    names = {"index", "data-00000-of-00002", "data-00001-of-00002"}
    written = {"model.ckpt." + name for name in names}
    assert set(os.listdir(generation.path)) == written | {"state.json", "best"}
    for name in names:
        assert (tmp_path / ("supernet_best.ckpt." + name)).read_text() == name
        assert (tmp_path / ("supernet_last.ckpt." + name)).read_text() == name


def test_the_folder_can_be_moved(tmp_path):
    store_at(tmp_path / "a", [2, 3], best=[2])
    (tmp_path / "a").rename(tmp_path / "b")
    assert steps_by_prefix(tmp_path / "b") == (3, 2)
    links = [os.readlink(str(path)) for path in tmp_path.rglob("*") if path.is_symlink()]
    assert links and not any(os.path.isabs(link) for link in links)


def test_two_commits_of_one_step_are_two_generations(tmp_path):
    store = store_at(tmp_path, [7])
    first = store.load("last").name
    assert save(store, 7).name != first
    assert save(CheckpointStore(str(tmp_path)), 7).name > first


@pytest.mark.parametrize(
    "state",
    [{"step": 3, "loss": float("inf")}, {"step": 3, "counts": {1, 2}}, {"loss": 1.0}],
    ids=["infinity", "set", "no step"],
)
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

    def fsync(handle):
        calls.append(os.readlink(f"/proc/self/fd/{handle}"))

    monkeypatch.setattr(os, "fsync", fsync)
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
    (truncate, f"{SIZE - 3} of {SIZE} bytes"),
    (flip_bit, "checksum differs"),
    (empty, f"0 of {SIZE} bytes"),
    (zero, "checksum differs"),
    (lengthen, f"{SIZE + 1} of {SIZE} bytes"),
    (remove, "No such file"),
]
STATE_DAMAGE = [
    (truncate, "not the JSON"),
    (empty, "holds nothing"),
    (zero, "holds nothing"),
    (remove, "No such file"),
    (make_folder, "Is a directory"),
]


@pytest.mark.parametrize(
    "name, damage, said",
    [(DATA,) + case for case in MODEL_DAMAGE]
    + [("state.json",) + case for case in STATE_DAMAGE]
    + [("model.ckpt.index", flip_bit, "checksum differs")],
)
def test_a_damaged_newest_generation_is_named_and_the_one_before_is_used(tmp_path, name, damage, said):
    store = store_at(tmp_path, [2, 3, 5], best=[2])
    damaged = store.load("last").path
    damage(tmp_path / damaged / name)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    generation, warnings = warned(tmp_path)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before  # looking changes nothing
    assert generation.state["step"] == 3
    assert len(warnings) == 1
    for part in (os.path.join(damaged, name), said, generation.path):
        assert part in warnings[0]
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


@pytest.mark.parametrize(
    "damage, said",
    [
        (link_missing, "last is missing"),
        (link_half_renamed, "last is missing"),
        (link_to_nowhere, "-0099 is missing"),
        (link_to_elsewhere, "points to '../elsewhere'"),
        (link_became_file, "not a symbolic link"),
    ],
)
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
    (tmp_path / ("supernet_best.ckpt" + DATA[len("model.ckpt") :])).unlink()
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
        with pytest.raises(UserError, match=f"delete it .*{copied}"):
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


def test_the_best_is_kept_though_the_generation_before_is_damaged(tmp_path):
    store_at(tmp_path, [2, 3, 5], best=[2])
    previous = sorted((tmp_path / "generations").iterdir())[1]
    remove(previous / "state.json")
    generation, _ = warned(tmp_path)
    store_at(tmp_path).adopt(generation)
    assert steps_by_prefix(tmp_path) == (5, 2)


def test_a_generation_that_was_never_committed_is_not_the_one_before(tmp_path):
    store_at(tmp_path, [2, 3])
    committed = os.readlink(str(tmp_path / "last"))
    store_at(tmp_path, [5])
    (tmp_path / "last").unlink()
    (tmp_path / "last").symlink_to(committed)  # as if killed just before the swap
    save(store_at(tmp_path), 7)
    assert generations(tmp_path) == [3, 7]


@pytest.mark.parametrize("made", [False, True])
def test_nothing_to_resume_from_is_an_error_that_says_so(tmp_path, made):
    if made:
        (tmp_path / "generations").mkdir()
    store = store_at(tmp_path)
    with pytest.raises(UserError, match="no checkpoint to go on from in .*without --resume"):
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
    with pytest.raises(UserError, match="Permission denied; fix its permissions"):
        store.newest_valid()


def test_the_same_step_committed_again_replaces_its_first_commit(tmp_path):
    """A trainer commits a step before and after an evaluation; the fallback stays a checkpoint of another step."""
    store_at(tmp_path, (3, 6, 6), best=(3,))
    assert sorted(os.listdir(str(tmp_path / "generations"))) == ["gen-000000003-0001", "gen-000000006-0003"]
    store_at(tmp_path, (7, 7), best=(7,))
    assert generations(tmp_path) == [3, 6, 7]  # 3 is the best as of 6
