"""The pool's file: its content, and that it is refused if it is edited, of another space or not a pool."""

import json
import os

import numpy as np
import pytest

from edgeflownas.errors import UserError
from edgeflownas.nas.eval_pool import build_pool, pool_design
from edgeflownas.nas.search_space import FIRST_VERSION
from edgeflownas.run import pool as pool_file
from edgeflownas.run.pool import load_pool, save_pool
from tests.nas.nas_spaces import MIXED, V1, V2

ADVICE = "put the run's own file back, or start a new run"
# What the first version wrote for seed 42: EB1 and DB0 take three of their nine option pairs.
FIRST_VERSIONS_POOL = """201011121 122200200 010122012 210220001 101111110 022002222
                         201110121 022001002 110222210 110012100 201220222 022101011""".split()
REVERSED = V1._replace(blocks=V1.blocks[:4] + tuple(b._replace(options=b.options[::-1]) for b in V1.blocks[4:]))


@pytest.fixture
def path(tmp_path):
    """A saved pool of seed 42."""
    save_pool(str(tmp_path / "pool.json"), build_pool(42, 12, V1), 42, V1)
    return tmp_path / "pool.json"


def first_versions_file():
    return {
        "format": 1,
        "seed": 42,
        "size": 12,
        "codes": [",".join(code) for code in FIRST_VERSIONS_POOL],
        "search_space": [{"name": b.name, "kind": b.kind, "options": list(b.options)} for b in V1.blocks],
    }


def change(path, changing, sign=False):
    document = json.loads(path.read_text(encoding="utf-8"))
    changing(document)
    if sign:
        del document["digest"]
        document["digest"] = pool_file._digest(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def refusal(path, size=12, space=V1):
    with pytest.raises(UserError) as caught:
        load_pool(str(path), size, space)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < len(str(path)) + 500
    return message.replace(str(path), "PATH")


@pytest.mark.parametrize("space", [V1, V2, MIXED], ids=["v1", "v2", "mixed"])
def test_a_saved_pool_is_reused(tmp_path, space):
    path, pool = tmp_path / "pool.json", build_pool(7, 12, space)
    save_pool(str(path), pool, 7, space)
    loaded = load_pool(str(path), 12, space)
    assert loaded.dtype == np.int32 and np.array_equal(loaded, pool)
    assert os.listdir(str(tmp_path)) == ["pool.json"]


def test_the_file_holds_the_space_the_design_and_its_digest(path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    pool = build_pool(42, 12, V1)
    assert list(stored) == ["format", "seed", "size", "space", "design", "codes", "digest"]
    assert (stored["format"], stored["seed"], stored["size"]) == (2, 42, 12)
    assert stored["space"]["name"] == "edgeflownet_v1" and stored["space"]["digest"] == V1.digest
    assert stored["space"]["blocks"][4] == {"name": "H0Out", "kind": "kernel", "options": ["7x7", "5x5", "3x3"]}
    assert stored["design"] == pool_design(pool, V1)._asdict()
    assert stored["codes"] == [",".join(map(str, code)) for code in pool]


def test_the_pool_of_one_code_is_reused(tmp_path):
    space = V1.narrowed((0, 0, 0, 0, 2, 2, 2, 2, 2))
    save_pool(str(tmp_path / "pool.json"), build_pool(42, 1, space), 42, space)
    assert load_pool(str(tmp_path / "pool.json"), 1, space).tolist() == [[0, 0, 0, 0, 2, 2, 2, 2, 2]]
    # The space is the same, but of three options one is used.
    assert refusal(tmp_path / "pool.json", 1, V1).startswith("PATH: expected each option of EB0 equally often")


def test_the_first_version_s_pool_is_reused(tmp_path):
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(first_versions_file()), encoding="utf-8")
    assert ["".join(map(str, code)) for code in load_pool(str(path), 12, V1)] == FIRST_VERSIONS_POOL


def test_the_first_version_s_space_is_today_s_v1():
    """A table that changed under the same name would give old codes another meaning."""
    assert V1.identity() == FIRST_VERSION


@pytest.mark.parametrize(
    "changing",
    [
        lambda d: d["search_space"][4]["options"].reverse(),
        lambda d: d.update(search_space=d["search_space"][::-1]),
        lambda d: d["search_space"][0].update(name="EB9"),
    ],
    ids=["options", "order", "name"],
)
def test_a_first_version_s_pool_of_another_table_is_refused(tmp_path, changing):
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(first_versions_file()), encoding="utf-8")
    change(path, changing)
    assert f"expected {V1.label}" in refusal(path)


@pytest.mark.parametrize(
    "other", [V2, MIXED, REVERSED, V1._replace(name="other")], ids=["v2", "mixed", "digest", "name"]
)
def test_the_pool_of_another_space_is_refused_both_ways(path, other):
    assert f"PATH is of the search space {V1.label}, expected {other.label}: " in refusal(path, space=other)
    save_pool(str(path), build_pool(42, 12, other), 42, other)
    assert f"PATH is of the search space {other.label}, expected {V1.label}: " in refusal(path)


def test_the_pool_of_another_size_is_refused(path):
    assert refusal(path, size=15).startswith("PATH: expected 15 codes, found [")


@pytest.mark.parametrize(
    "changing",
    [
        lambda d: d.update(seed=43),
        lambda d: d["codes"].__setitem__(11, "0,2,2,1,0,1,0,1,2"),
        lambda d: d["codes"].reverse(),
        lambda d: d["design"].update(largest_v=0.0),
        lambda d: d["space"]["blocks"].reverse(),
        lambda d: d.update(digest="0" * 64),
    ],
)
def test_a_changed_file_is_refused(path, changing):
    change(path, changing)
    assert refusal(path) == f"PATH: its content does not match its digest; {ADVICE}"


@pytest.mark.parametrize(
    "changing, said",
    [
        (lambda d: d.update(codes=d["codes"][:-1]), "expected 12 codes, found ["),
        (lambda d: d.update(codes=None), "expected 12 codes, found null"),
        (lambda d: d.update(size=12.0), "expected 12 codes"),
        (lambda d: d["codes"].__setitem__(3, "0,2,2,1,0,1,0,1,3"), "arch code: value must be in {0,1,2}, position 8"),
        (lambda d: d["codes"].__setitem__(3, d["codes"][4]), "expected distinct codes, found one twice"),
        (lambda d: d["codes"].__setitem__(3, "2,2,2,2,2,2,2,2,2"), "expected each option of EB0 equally often"),
        (lambda d: d.update(space=None), f"is of the search space {V1.label}"),
        (lambda d: d.update(space={"name": 1, "digest": "x"}), "expected the name and digest of a search space"),
    ],
)
def test_what_is_no_pool_is_refused_even_if_it_is_signed(path, changing, said):
    change(path, changing, sign=True)
    if said.startswith("is of"):  # None reads as the first version's space, which this one is
        load_pool(str(path), 12, V1)
        said = f"{said}, expected {V2.label}"
        assert said in refusal(path, space=V2)
    else:
        assert said in refusal(path)


@pytest.mark.parametrize(
    "changing, found",
    [
        (lambda d: d.pop("codes"), '["format", "seed", "size", "space", "design", "digest"]'),
        (lambda d: d.update(more=1), '["format", "seed", "size", "space", "design", "codes", "digest", "more"]'),
        (lambda d: d.clear(), "[]"),
    ],
)
def test_missing_or_unknown_keys_are_named(path, changing, found):
    change(path, changing)
    keys = "format, seed, size, space, design, codes, digest"
    assert refusal(path) == f"PATH: not a pool file: expected the keys {keys}, found {found}"


def test_a_file_cut_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1, 2]", b"null", b"[" * 10**5])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    path = tmp_path / "pool.json"
    path.write_bytes(content)
    assert refusal(path).endswith(ADVICE)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "No such file or directory" in refusal(tmp_path / "none.json")
    assert "Is a directory" in refusal(tmp_path)


def test_saving_refuses_a_wrong_code_and_an_unwritable_place(tmp_path):
    pool = build_pool(42, 12, V1)
    with pytest.raises(UserError, match="cannot write"):
        save_pool(str(tmp_path / "none" / "pool.json"), pool, 42, V1)
    pool[5, 8] = 3
    with pytest.raises(ValueError, match=r"position 8 \(block H2Out\), found 3 \(int32\)"):
        save_pool(str(tmp_path / "pool.json"), pool, 42, V1)
    assert os.listdir(str(tmp_path)) == []
