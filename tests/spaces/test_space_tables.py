"""Other tables in a copy of the package: a new space needs a few lines in one file; a changed one reads no old run."""

import csv
import difflib
import os
import shutil

import pytest

from tests.nas.nas_spaces import V1
from tests.reliability import tiny
from tests.spaces.commands import FAST, command, contents, good, train

TABLE = os.path.join("edgeflownas", "nas", "search_space.py")
END = "SPACES: Dict[str, SearchSpace] = {space.name: space for space in (_V1, _V2)}"
THIRD = """_V3 = SearchSpace(
    "edgeflownet_v3",
    (_V1.blocks[0], Block("Down1", KERNEL, (3, 5, 7))) + _V1.blocks[1:],
)

SPACES: Dict[str, SearchSpace] = {space.name: space for space in (_V1, _V2, _V3)}"""


def copy_of_the_package(folder, old, new):
    """The package with one piece of the table's file replaced."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(os.path.join(tiny.ROOT, "edgeflownas"), str(folder / "edgeflownas"), ignore=ignored)
    path = folder / TABLE
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def third(tmp_path_factory):
    return copy_of_the_package(tmp_path_factory.mktemp("third"), END, THIRD)


def test_a_third_space_takes_one_file_and_few_lines(third):
    changed = []
    for where, _, names in os.walk(os.path.join(third, "edgeflownas")):
        for name in names:
            path = os.path.join(where, name)
            original = os.path.join(tiny.ROOT, os.path.relpath(path, third))
            with open(path, "rb") as one, open(original, "rb") as other:
                if one.read() != other.read():
                    changed.append(os.path.relpath(path, third))
    assert changed == [TABLE]
    lines = difflib.unified_diff(END.splitlines(), THIRD.splitlines(), n=0, lineterm="")
    assert sum(line[0] in "+-" and line[:3] not in ("+++", "---") for line in lines) < 15


def test_a_third_space_trains_resumes_evaluates_reports_and_is_checked(third, data, tmp_path):
    folder, settings = (
        str(tmp_path / "run"),
        {"network__space": "edgeflownet_v3", "package": third, "eval__pool_size": 3},
    )
    train(data, folder, "--max_epochs", "1", **settings)
    train(data, folder, "--resume", **settings)
    manifest = os.path.join(folder, "train_manifest.json")
    good(command("nas.check_manifest", "--path", manifest, package=third))
    output = str(tmp_path / "scores.csv")
    flags = ["--output_dir", folder, "--gpu_device", "-1", "--codes", "0000000000,0100000000", "--output", output]
    good(command("nas.supernet_eval", *flags, package=third))
    with open(output, newline="") as handle:
        first, second = csv.DictReader(handle)
    # Down1 with 8 channels at 2 channels of the first layer: 5x5 instead of 3x3 from 4 channels.
    assert int(second["parameters"]) - int(first["parameters"]) == (25 - 9) * 4 * 8
    assert first["epe"] != second["epe"]
    good(command("report", folder, package=third))
    with open(os.path.join(folder, "supernet_training_report.md"), encoding="utf-8") as handle:
        text = handle.read()
    assert "edgeflownet_v3" in text and "Down1" in text


HEADS = "tuple(Block(name, KERNEL, _KERNELS) for name in _HEADS)"


@pytest.fixture(scope="module")
def reversed_heads(tmp_path_factory):
    changed = HEADS.replace("_KERNELS)", "_KERNELS[::-1])")
    return copy_of_the_package(tmp_path_factory.mktemp("reversed"), HEADS, changed)


@pytest.mark.parametrize(
    "module, words",
    [
        ("nas.supernet_eval", ["--gpu_device", "-1", "--codes", "000000000", "--output_dir", "RUN"]),
        ("report", ["RUN"]),
        ("train_supernet", ["RESUME"]),
    ],
    ids=["eval", "report", "resume"],
)
def test_a_run_whose_heads_were_the_other_way_round_is_not_read(reversed_heads, v1_run, data, tmp_path, module, words):
    """The code would name another subnet: the fault that digests are there for."""
    folder = str(tmp_path / "run")
    shutil.copytree(v1_run, folder, symlinks=True)
    before = contents(folder)
    if words == ["RESUME"]:
        words = tiny.flags(data, folder, **FAST) + ["--resume"]
    done = command(module, *[folder if word == "RUN" else word for word in words], package=reversed_heads)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ")
    assert f"is of the search space {V1.label}, expected edgeflownet_v1:" in line
    assert contents(folder) == before


def test_check_manifest_does_not_accept_a_run_whose_heads_were_the_other_way_round(reversed_heads, v1_run):
    done = command("nas.check_manifest", "--path", os.path.join(v1_run, "train_manifest.json"), package=reversed_heads)
    assert done.returncode == 1 and f"is of the search space {V1.label}, expected edgeflownet_v1:" in done.stdout
