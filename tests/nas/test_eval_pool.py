"""The evaluation pool: distinct codes, every option equally often, and a file that is trusted only if it is exact."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nas_spaces import MIXED, SINGLE

from edgeflownas.errors import UserError
from edgeflownas.nas import eval_pool
from edgeflownas.nas.eval_pool import build_pool, load_pool, save_pool
from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.nas.search_space import SPACE, Block, SearchSpace

# Recorded on both stacks.
POOL_OF_42 = """201011121 122200200 010122012 210220001 101111110 022002222
                201110121 022001002 110222210 110012100 201220222 022101011""".split()


@given(seed=st.integers(0, 2**32 - 1), cycles=st.integers(1, 8))
def test_a_pool_has_distinct_codes_and_uses_every_option_equally_often(seed, cycles):
    pool = build_pool(seed, 3 * cycles)
    assert pool.shape == (3 * cycles, 9) and pool.dtype == np.int32
    assert len({tuple(code) for code in pool}) == 3 * cycles
    for column in pool.T:
        assert np.bincount(column, minlength=3).tolist() == [cycles] * 3


def test_the_recorded_pool():
    pool = build_pool(42, 12)
    assert ["".join(map(str, code)) for code in pool] == POOL_OF_42
    want = [fair_cycle(42, draw, purpose="pool") for draw in range(4)]
    assert np.array_equal(pool, np.concatenate(want))
    assert not np.array_equal(pool[:3], fair_cycle(42, 0))


@given(seed=st.integers(0, 2**32 - 1))
def test_a_larger_pool_begins_with_the_smaller_one(seed):
    assert np.array_equal(build_pool(seed, 24)[:12], build_pool(seed, 12))


def test_a_pool_of_a_mixed_space():
    for seed in range(20):
        pool = build_pool(seed, 12, MIXED)
        assert pool.shape == (12, 5) and len({tuple(code) for code in pool}) == 12
        for column, options in zip(pool.T, MIXED.num_options):
            assert np.bincount(column).tolist() == [12 // options] * options


TWO_BLOCKS = SearchSpace((Block("A", "depth", (1, 2, 3)), Block("B", "kernel", (7, 5, 3))))


def test_a_cycle_that_repeats_a_code_is_passed_over():
    # All nine codes of the space: most cycles repeat one.
    skipped = 0
    for seed in range(20):
        pool = build_pool(seed, 9, TWO_BLOCKS)
        assert sorted(map(tuple, pool)) == [(a, b) for a in range(3) for b in range(3)]
        draws = [fair_cycle(seed, draw, TWO_BLOCKS, "pool").tolist() for draw in range(200)]
        used = [draws.index(pool[i : i + 3].tolist()) for i in (0, 3, 6)]
        assert used == sorted(used) and used[0] == 0
        skipped += used[2] > 2
    assert skipped > 0


def test_a_cycle_that_repeats_its_own_code_is_passed_over():
    # 3 and 2 options: the six codes exist, but most cycles of six paths hold some of them twice.
    space = SearchSpace((Block("A", "depth", (1, 2, 3)), Block("B", "kernel", (5, 3))))
    assert sorted(map(tuple, build_pool(42, 6, space))) == [(a, b) for a in range(3) for b in range(2)]


@pytest.mark.parametrize("size", [-3, 0, 1, 2, 4, 10, 13])
def test_a_size_that_is_no_multiple_of_a_cycle_is_refused(size):
    with pytest.raises(UserError) as caught:
        build_pool(42, size)
    assert str(caught.value) == (
        f"eval.pool_size: expected a positive multiple of 3, the paths of a fair cycle, found {size}"
    )


def test_more_codes_than_the_space_has_are_refused():
    assert build_pool(42, 3, SINGLE).shape == (3, 1)
    assert build_pool(42, 1, SearchSpace((Block("Fixed", "depth", (2,)),))).tolist() == [[0]]
    for size in (6, 3 * 10**15):
        with pytest.raises(UserError) as caught:
            build_pool(42, size, SINGLE)
        assert str(caught.value) == (
            f"eval.pool_size: the fair cycles of this space of 3 subnets give no {size} "
            "distinct codes; choose a smaller pool"
        )


# ---- the file


def test_a_saved_pool_is_reused(tmp_path):
    path = str(tmp_path / "eval_pool_12.json")
    pool = build_pool(42, 12)
    save_pool(path, pool, 42)
    loaded = load_pool(path, 42, 12)
    assert loaded.dtype == np.int32 and np.array_equal(loaded, pool)
    assert os.listdir(str(tmp_path)) == ["eval_pool_12.json"]
    with open(path, encoding="utf-8") as handle:
        stored = json.load(handle)
    assert stored == {
        "format": 1,
        "seed": 42,
        "size": 12,
        "codes": [",".join(code) for code in POOL_OF_42],
        "search_space": [{"name": b.name, "kind": b.kind, "options": list(b.options)} for b in SPACE.blocks],
    }


def test_a_pool_of_a_mixed_space_is_reused(tmp_path):
    path = str(tmp_path / "pool.json")
    save_pool(path, build_pool(7, 12, MIXED), 7, MIXED)
    assert np.array_equal(load_pool(path, 7, 12, MIXED), build_pool(7, 12, MIXED))
    with pytest.raises(UserError, match="not the pool of this run: expected search_space .*EB0"):
        load_pool(path, 7, 12)


def refusal(path, seed=42, size=12):
    with pytest.raises(UserError) as caught:
        load_pool(str(path), seed, size)
    message = str(caught.value)
    assert str(path) in message and len(message) < len(str(path)) + 1000
    return message.replace(str(path), "PATH")


ADVICE = "resume with the settings that made it, or move the file away"


@pytest.mark.parametrize(
    "seed, size, message",
    [
        (41, 12, f"PATH: not the pool of this run: expected seed 41, found 42; {ADVICE}"),
        (42, 15, f"PATH: not the pool of this run: expected size 15, found 12; {ADVICE}"),
    ],
)
def test_the_pool_of_another_seed_or_size_is_refused(tmp_path, seed, size, message):
    path = tmp_path / "pool.json"
    save_pool(str(path), build_pool(42, 12), 42)
    assert refusal(path, seed, size) == message


def swap(codes):
    return [codes[1], codes[0]] + codes[2:]


@pytest.mark.parametrize(
    "change, key",
    [
        (lambda d: d.update(seed=42.0), "seed"),
        (lambda d: d.update(seed="42"), "seed"),
        (lambda d: d.update(format=True), "format"),
        (lambda d: d.update(format=2), "format"),
        (lambda d: d.update(codes=swap(d["codes"])), "codes"),
        (lambda d: d.update(codes=d["codes"][:-1]), "codes"),
        (lambda d: d["codes"].__setitem__(11, "0,2,2,1,0,1,0,1,2"), "codes"),
        (lambda d: d.update(codes=None), "codes"),
        (lambda d: d.update(search_space=d["search_space"][::-1]), "search_space"),
        (lambda d: d["search_space"][4]["options"].reverse(), "search_space"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, key):
    path = tmp_path / "pool.json"
    save_pool(str(path), build_pool(42, 12), 42)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    assert refusal(path).startswith(f"PATH: not the pool of this run: expected {key} ")


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda d: d.pop("codes"), '["format", "seed", "size", "search_space"]'),
        (lambda d: d.update(more=1), '["format", "seed", "size", "search_space", "codes", "more"]'),
        (lambda d: d.clear(), "[]"),
    ],
)
def test_missing_or_unknown_keys_are_named(tmp_path, change, found):
    path = tmp_path / "pool.json"
    save_pool(str(path), build_pool(42, 12), 42)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    keys = '["format", "seed", "size", "search_space", "codes"]'
    assert refusal(path) == f"PATH: not a pool file: expected the keys {keys}, found {found}; {ADVICE}"


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "pool.json"
    save_pool(str(path), build_pool(42, 12), 42)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 37):
        path.write_bytes(whole[:length])
        assert refusal(path).startswith("PATH: damaged JSON: ")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"[1, 2]", "expected an object, found list"),
        (b"null", "expected an object, found NoneType"),
        (b"[" * 10**5, "recursion"),
    ],
    ids=["empty", "binary", "list", "null", "nested"],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content, message):
    path = tmp_path / "pool.json"
    path.write_bytes(content)
    found = refusal(path)
    assert found.startswith("PATH: damaged JSON: ") and message in found and found.endswith(ADVICE)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "none.json") == "cannot read the evaluation pool PATH: No such file or directory"
    assert refusal(tmp_path) == "cannot read the evaluation pool PATH: Is a directory"


def test_saving_refuses_a_wrong_code_and_an_unwritable_place(tmp_path):
    pool = build_pool(42, 12)
    with pytest.raises(UserError, match="cannot write"):
        save_pool(str(tmp_path / "none" / "pool.json"), pool, 42)
    pool[5, 8] = 3
    with pytest.raises(ValueError, match=r"position 8 \(block H2Out\), found 3 \(int32\)"):
        save_pool(str(tmp_path / "pool.json"), pool, 42)
    assert os.listdir(str(tmp_path)) == []


def test_the_search_for_distinct_codes_ends(monkeypatch):
    draws = []

    def always_the_same(seed, t, space, purpose):
        draws.append(t)
        return fair_cycle(seed, 0, space, purpose)

    monkeypatch.setattr(eval_pool, "fair_cycle", always_the_same)
    with pytest.raises(UserError, match="give no 6 distinct codes"):
        build_pool(42, 6)
    assert draws == list(range(2000))
