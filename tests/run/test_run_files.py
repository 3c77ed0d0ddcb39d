"""The reader of a run folder: what it reads, what it leaves out, and the error for each kind of damage."""

import json
import re

import numpy as np
import pytest
from pretended_run import write_long_run

from edgeflownas.errors import DataError, UserError
from edgeflownas.nas.search_space import FIRST_VERSION, get_space
from edgeflownas.run.read import read_run

TABLES = ("eval_epe_history.csv", "eval_epe_per_arch.csv", "train_steps.csv", "timing.csv")


@pytest.fixture
def folder(tmp_path):
    return write_long_run(tmp_path / "run", epochs=3, extra_steps=2)


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def edit_line(path, number, change):
    """Replaces line `number` (1 = header) by `change` of its cells."""
    lines = path.read_text().split("\n")
    lines[number - 1] = ",".join(change(lines[number - 1].split(",")))
    path.write_text("\n".join(lines))


def error(folder):
    with pytest.raises(DataError) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_what_was_written(folder):
    run = read_run(folder)
    assert (len(run.history), len(run.steps), len(run.timing)) == (3, 23, 3)
    lines = (folder / "eval_epe_per_arch.csv").read_text().splitlines()[1:]
    for line in lines:
        epoch, _, code, epe, rank = line.split(",")[:5]
        subnet = run.subnets.codes.index(code)
        assert run.subnets.texts[int(epoch) - 1][subnet] == epe
        assert run.subnets.epe[int(epoch) - 1, subnet] == float(epe)
        assert run.subnets.rank[int(epoch) - 1, subnet] == int(rank)
    assert len(lines) == 36
    assert not run.notes


def test_the_order_of_the_subnets_in_the_file_does_not_matter(folder):
    before = read_run(folder).subnets
    path = folder / "eval_epe_per_arch.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header] + lines[:12][::-1] + lines[12:]) + "\n")
    after = read_run(folder).subnets
    assert (before.codes, before.texts) == (after.codes, after.texts)


def test_before_the_first_step_only_the_manifest_is_needed(tmp_path):
    folder = write_long_run(tmp_path / "run", epochs=0)
    assert not (folder / "train_steps.csv").exists()
    run = read_run(folder)
    assert (run.history, run.subnets, run.steps, run.timing, run.fairness, run.samples) == (None,) * 6


@pytest.mark.parametrize(
    "name", ["train_manifest.json", "train_steps.csv", "eval_epe_per_arch.csv", "fairness_counts.json"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"{folder / name}: cannot be read: No such file or directory" in error(folder)


@pytest.mark.parametrize("name", ["timing.csv", "eval_samples.npz"])
def test_files_the_verdict_does_not_rest_on_may_be_absent(folder, name):
    (folder / name).unlink()
    run = read_run(folder)
    assert (run.timing is None) == (name == "timing.csv")
    assert (run.samples is None) == (name == "eval_samples.npz")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="expected a run folder, found nothing"):
        read_run(tmp_path / "typo")


@pytest.mark.parametrize("name", TABLES)
def test_damaged_tables(folder, name):
    path = folder / name
    whole = path.read_text()
    damages = {
        "an empty file": "",
        r"expected the header .*, found 'apples'": "apples\n" + whole.split("\n", 1)[1],
        r"line 3: expected \d+ cells, found \d+": "\n".join(
            line + ",7" if i == 2 else line for i, line in enumerate(whole.split("\n"))
        ),
        r"line 2: column \w+: expected a (whole )?number, found '0.1x'": whole.split("\n")[0]
        + "\n"
        + ",".join(["0.1x"] * len(whole.split("\n")[0].split(",")))
        + "\n",
        "plain ASCII, found the byte 0xc3": whole + "\u00e9",
    }
    for message, damaged in damages.items():
        path.write_text(damaged, encoding="utf-8")
        found = error(folder)
        assert found.startswith(str(path)) and re.search(message, found), (message, found)


@pytest.mark.parametrize(
    "name, line, column, value, message",
    [
        ("train_steps.csv", 6, 0, "5", "line 6: expected step 4, found 5"),
        ("train_steps.csv", 3, 1, "1.0", "line 3: column epoch: expected a whole number, found '1.0'"),
        ("eval_epe_history.csv", 3, 0, "1", "line 3: expected epoch above 1, found 1"),
        ("eval_epe_history.csv", 4, 1, "24", "expected a row for each of the 24 steps"),
        ("eval_epe_per_arch.csv", 15, 0, "3", "expected 12 rows of epoch 2, found epochs [2, 3]"),
        ("eval_epe_per_arch.csv", 15, 2, "012012010", "expected the same 12 different subnets in each evaluation"),
        ("timing.csv", 2, 1, "99999999999999999999", "line 2: column global_step: expected a whole number"),
    ],
)
def test_wrong_cells(folder, name, line, column, value, message):
    edit_line(folder / name, line, lambda cells: cells[:column] + [value] + cells[column + 1 :])
    assert message in error(folder)


def test_codes_of_another_space_are_noticed(folder):
    path = folder / "eval_epe_per_arch.csv"
    code = path.read_text().splitlines()[1].split(",")[2]
    edit(path, code, "3" + code[1:], count=-1)
    assert f"found '3{code[1:]}'" in error(folder)


def test_a_half_written_last_line_is_left_out_and_noted(folder):
    path = folder / "train_steps.csv"
    path.write_text(path.read_text()[:-9])
    run = read_run(folder)
    assert len(run.steps) == 22
    assert "`train_steps.csv` ends in the middle of a line" in run.notes[0]


@pytest.mark.parametrize("name, rows", [("eval_epe_per_arch.csv", 5), ("eval_epe_history.csv", 1)])
def test_a_half_written_last_evaluation_is_left_out_and_noted(folder, name, rows):
    path = folder / name
    path.write_text("".join(path.read_text().splitlines(True)[:-rows]))
    run = read_run(folder)
    assert len(run.history) == 2 and run.subnets.epe.shape == (2, 12)
    assert "it is left out" in run.notes[0]


def test_two_missing_evaluations_are_damage(folder):
    path = folder / "eval_epe_per_arch.csv"
    path.write_text("".join(path.read_text().splitlines(True)[:-24]))
    assert "expected 12 rows for each of the 3 evaluations" in error(folder)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "damaged, not JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"seed": 42}', "key config is missing"),
        ("{" * 100000, "damaged, not JSON"),
    ],
)
def test_a_damaged_manifest(folder, text, message):
    (folder / "train_manifest.json").write_text(text)
    found = error(folder)
    assert found.startswith(str(folder / "train_manifest.json")) and message in found


def test_a_missing_manifest_key_is_named(folder):
    path = folder / "train_manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["config"]["eval"]["pool_size"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="train_manifest.json: key eval.pool_size is missing"):
        read_run(folder)


@pytest.mark.parametrize("counts", [{}, {"EB0": [1, 1, 1]}, None])
def test_damaged_fairness_counts(folder, counts):
    path = folder / "fairness_counts.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), counts=counts)))
    assert "expected" in error(folder) and "counts" in error(folder) and str(path) in error(folder)


def test_damaged_samples(folder):
    path = folder / "eval_samples.npz"
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    for damaged in (b"", data[:100], data[: len(data) // 2], bytes(flipped), b"\x93NUMPY"):
        path.write_bytes(damaged)
        assert error(folder).startswith(f"{path}: cannot be read: ")


def test_samples_of_the_wrong_shape_or_type(folder):
    path = folder / "eval_samples.npz"
    with np.load(str(path)) as archive:
        good = dict(archive)
    for name, wrong in (
        ("flow", good["flow"][..., :1]),
        ("prediction", good["prediction"][:, :2]),
        ("images", good["images"].astype(np.float32)),
        ("codes", good["codes"][:, :8]),
    ):
        np.savez(str(path), **dict(good, **{name: wrong}))
        assert f"{path}: {name if name != 'flow' else ''}" in error(folder)


def test_samples_of_another_space_are_refused(folder):
    path = folder / "eval_samples.npz"
    with np.load(str(path)) as archive:
        good = dict(archive)
    other = json.dumps(get_space("edgeflownet_v2").identity())
    np.savez(str(path), **dict(good, space=other))
    with pytest.raises(UserError, match="eval_samples.npz is of the search space edgeflownet_v2:"):
        read_run(folder)
    np.savez(str(path), **dict(good, space="edgeflownet_v1"))
    assert f"{path}: cannot be read: space: " in error(folder)
    del good["space"]  # as the first version wrote it
    np.savez(str(path), **good)
    assert read_run(folder).samples.space == FIRST_VERSION


def test_a_pickled_sample_file_is_refused(folder):
    np.savez(str(folder / "eval_samples.npz"), images=np.array([{}], object))
    assert "cannot be read" in error(folder)
