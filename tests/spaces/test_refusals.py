"""Weights and codes of another space are refused, each way, in one line that names both, and nothing is written."""

import glob
import json
import os
import shutil

import pytest

from edgeflownas import report
from edgeflownas.errors import UserError
from edgeflownas.nas.supernet_eval import main as supernet_eval
from tests.nas.nas_spaces import V1, V2
from tests.reliability.lab import Lab
from tests.spaces.commands import FAST, command, contents

NAMES = {"edgeflownet_v1": V1, "edgeflownet_v2": V2}
WAYS = [("edgeflownet_v1", "edgeflownet_v2"), ("edgeflownet_v2", "edgeflownet_v1")]
ways = pytest.mark.parametrize("mine, theirs", WAYS, ids=["v1 by v2", "v2 by v1"])


@pytest.fixture
def runs(v1_run, v2_run, tmp_path):
    """Copies of both runs: {space's name: folder}."""
    for name, run in (("edgeflownet_v1", v1_run), ("edgeflownet_v2", v2_run)):
        shutil.copytree(run, str(tmp_path / name), symlinks=True)
    return {name: str(tmp_path / name) for name in NAMES}


@pytest.fixture(scope="module")
def lab(data):
    return Lab(data)


def refused(main, argv):
    with pytest.raises(UserError) as caught:
        main([str(word) for word in argv])
    message = str(caught.value)
    assert "\n" not in message
    return message


def names_both(message, found, expected):
    return f"is of the search space {NAMES[found].label}, expected {NAMES[expected].label}: " in message


def flags(folder, *words):
    return ["--output_dir", folder, "--gpu_device", "-1"] + list(words)


@ways
def test_resume(lab, runs, mine, theirs):
    before = contents(*runs.values())
    for words in ([], ["--allow_changed", "network.space"]):
        outcome = lab.run(runs[mine], "--resume", *words, network__space=theirs, **FAST)
        assert outcome.code == 2 and names_both(outcome.error, mine, theirs)
    assert contents(*runs.values()) == before


@ways
def test_load_checkpoint(lab, runs, tmp_path, mine, theirs):
    before = contents(*runs.values())
    words = ["--load_checkpoint", "--resume_experiment_name", mine]
    outcome = lab.run(str(tmp_path), *words, network__space=theirs, runtime__experiment_name="new", **FAST)
    assert outcome.code == 2 and names_both(outcome.error, mine, theirs)
    assert contents(*runs.values()) == before and not contents(tmp_path / "new")


@ways
def test_settings_of_an_evaluation(runs, mine, theirs):
    before = contents(*runs.values())
    message = refused(supernet_eval, flags(runs[mine], "--space", theirs))
    assert f"network.space was '{mine}', is '{theirs}'" in message
    assert contents(*runs.values()) == before


@pytest.mark.parametrize(
    "mine, code, said",
    [
        ("edgeflownet_v1", "00000000000", "length=9 required, got 11"),
        ("edgeflownet_v2", "000000000", "length=11 required, got 9"),
    ],
)
def test_codes_of_an_evaluation(runs, mine, code, said):
    before = contents(*runs.values())
    assert said in refused(supernet_eval, flags(runs[mine], "--codes", code))
    assert contents(*runs.values()) == before


@ways
def test_the_score_table_of_another_space(runs, tmp_path, mine, theirs):
    table, code = str(tmp_path / "scores.csv"), "0" * len(NAMES[mine].blocks)
    assert supernet_eval(flags(runs[mine], "--codes", code, "--output", table)) == 0
    before = contents(tmp_path)
    other = "0" * len(NAMES[theirs].blocks)
    message = refused(supernet_eval, flags(runs[theirs], "--codes", other, "--output", table))
    assert names_both(message, mine, theirs)
    assert contents(tmp_path) == before


def test_the_score_table_of_another_digest(runs, tmp_path):
    table = str(tmp_path / "scores.csv")
    assert supernet_eval(flags(runs["edgeflownet_v1"], "--codes", "000000000", "--output", table)) == 0
    sidecar = tmp_path / "scores.json"
    sidecar.write_text(sidecar.read_text().replace(V1.digest, V2.digest))
    before = contents(tmp_path)
    message = refused(supernet_eval, flags(runs["edgeflownet_v1"], "--codes", "000000001", "--output", table))
    assert f"edgeflownet_v1:{V2.digest[:12]}, expected {V1.label}" in message
    assert contents(tmp_path) == before


@ways
def test_the_api(runs, mine, theirs):
    from edgeflownas.api import Supernet

    before = contents(*runs.values())
    with pytest.raises(UserError, match=f"network.space was '{mine}', is '{theirs}'"):
        Supernet.load(runs[mine], settings={"network.space": theirs})
    assert contents(*runs.values()) == before


@ways
def test_a_pool_file_of_another_space(lab, runs, mine, theirs):
    own, other = [glob.glob(os.path.join(runs[space], "eval_pool_*.json"))[0] for space in (mine, theirs)]
    shutil.copy(other, own)
    before = contents(*runs.values())
    message = refused(supernet_eval, flags(runs[mine]))
    assert names_both(message, theirs, mine)
    assert contents(*runs.values()) == before
    message = refused_check(runs[mine])
    assert names_both(message, theirs, mine)


@ways
def test_a_manifest_of_another_space(runs, capsys, mine, theirs):
    path = os.path.join(runs[mine], "train_manifest.json")
    with open(path) as handle:
        manifest = json.load(handle)
    manifest["search_space"] = NAMES[theirs].as_record()
    with open(path, "w") as handle:
        json.dump(manifest, handle)
    assert names_both(refused_check(runs[mine]), theirs, mine)
    before = contents(*runs.values())
    assert names_both(refused(report.main, [runs[mine]]), theirs, mine)
    assert contents(*runs.values()) == before


def refused_check(folder):
    """What check_manifest says of a run that it does not accept."""
    done = command("nas.check_manifest", "--path", os.path.join(folder, "train_manifest.json"))
    assert done.returncode == 1, done.stderr
    return done.stdout


@ways
def test_the_comparison_of_runs(runs, tmp_path, mine, theirs):
    before = contents(*runs.values())
    message = refused(report.main, [runs[mine], runs[theirs], "--output", tmp_path / "comparison"])
    assert (
        f"{runs[theirs]} is of the search space {NAMES[theirs].label}, {runs[mine]} of {NAMES[mine].label}: " in message
    )
    assert contents(*runs.values()) == before and not os.path.exists(str(tmp_path / "comparison"))


# ---- one code and the whole space


@pytest.mark.parametrize("words", [[], ["--allow_changed", "network.arch_code,eval.pool_size"]], ids=["", "allowed"])
def test_a_resume_never_narrows_or_widens(lab, v1_run, alone_run, tmp_path, words):
    for run, code, pool in ((v1_run, "000022222", 1), (alone_run, "", 6), (alone_run, "000022221", 1)):
        folder = str(tmp_path / (os.path.basename(os.path.dirname(run)) + code))
        shutil.copytree(run, folder, symlinks=True)
        before = contents(folder)
        outcome = lab.run(folder, "--resume", *words, network__arch_code=code, **dict(FAST, eval__pool_size=pool))
        assert outcome.code == 2
        assert "the stored weights fit no other network: network.arch_code was " in outcome.error
        assert contents(folder) == before


def test_weights_of_the_whole_space_do_not_start_one_code(lab, runs, tmp_path):
    words = ["--load_checkpoint", "--resume_experiment_name", "edgeflownet_v1"]
    narrow = dict(FAST, network__arch_code="000022222", eval__pool_size=1, runtime__experiment_name="new")
    outcome = lab.run(str(tmp_path), *words, **narrow)
    assert outcome.code == 2 and "network.arch_code empty, this run has " in outcome.error
    assert "network.arch_code 000022222" in outcome.error and not contents(tmp_path / "new")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"network__arch_code": "000022222"}, "set --eval_pool_size 1"),
        ({"network__arch_code": "00002222", "eval__pool_size": 1}, "length=9 required, got 8"),
        ({"network__arch_code": "000022223", "eval__pool_size": 1}, "value must be in {0,1,2}, position 8"),
        ({"network__space": "edgeflownet_v3"}, "did you mean edgeflownet_v"),
        ({"network__space": "edgeflownet_v2", "eval__pool_size": 3}, "expected a positive multiple of 6"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_once(lab, tmp_path, changes, said):
    outcome = lab.run(str(tmp_path / "run"), **dict(FAST, **changes))
    assert outcome.code == 2 and said in outcome.error
    assert not os.path.exists(str(tmp_path / "run"))
