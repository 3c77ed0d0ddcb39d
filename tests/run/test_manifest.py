"""The manifest of a run, what goes into it (git state, versions), and the fairness counts."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import edgeflownas
from edgeflownas.errors import UserError
from edgeflownas.nas.search_space import FIRST_VERSION, get_space
from edgeflownas.run import provenance
from edgeflownas.run.fairness import FairnessRecord, read_fairness, write_fairness
from edgeflownas.run.manifest import Manifest, stored_space

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(edgeflownas.__file__)))


def test_the_manifest_tells_the_runs_life(tmp_path):
    path = str(tmp_path / "train_manifest.json")
    manifest = Manifest.create(
        str(tmp_path), seed=42, config={"train": {"lr": 1e-4}}, command="a", device="CPU", gates={"unsigned": True}
    )
    manifest.update(status="interrupted", global_step=7)
    again = Manifest.open(str(tmp_path))
    gates = {"gate3": "missing", "unsigned": False}
    invocation = {"command": "b", "device": "GPU", "gates": gates, "unsupported_gpu_allowed": False}
    again.resumed(invocation, step=7, changed=["runtime.num_workers"])
    again.update(status="completed", global_step=11)
    with open(path) as handle:
        written = json.load(handle)
    assert written == again.fields
    assert written["seed"] == 42 and written["config"] == {"train": {"lr": 1e-4}}
    assert (written["status"], written["global_step"]) == ("completed", 11)
    assert [(r["step"], r["status_before"]) for r in written["resumes"]] == [(7, "interrupted")]
    assert (written["command"], written["device"]) == ("a", "GPU")
    assert written["gates"] == {"gate3": "missing", "unsigned": True} and gates["unsigned"] is False
    for time in (written["started"], written["updated"], written["resumes"][0]["time"]):
        assert len(time) == 20 and time.endswith("Z")


@pytest.mark.parametrize(
    "before, after, allowed",
    [
        ("running", "failed", True),
        ("running", "early_stopped", True),
        ("completed", "completed", True),
        ("completed", "interrupted", False),
        ("failed", "completed", False),
        ("running", "done", False),
    ],
)
def test_only_a_running_run_can_end(tmp_path, before, after, allowed):
    manifest = Manifest.create(str(tmp_path))
    manifest.update(status=before)
    if allowed:
        manifest.update(status=after)
        return
    with pytest.raises(ValueError, match=f"status cannot go from '{before}' to '{after}'"):
        manifest.update(status=after, epoch=1)
    assert Manifest.open(str(tmp_path)).fields["status"] == before and "epoch" not in manifest.fields


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "No such file"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "expected a JSON object, found list"),
        (b'{"status": "running", "resumes": [], "lr": NaN}', "damaged, not JSON: NaN is not a value of JSON"),
        (b"{}", "not a train manifest"),
    ],
)
def test_a_damaged_manifest_is_a_user_error(tmp_path, content, said):
    path = tmp_path / "train_manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        Manifest.open(str(tmp_path))


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"] + list(arguments),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_git_state_tells_commit_and_changes_under_the_root_only(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as inside a hook of another repository
    with monkeypatch.context() as clean:
        clean.delenv("GIT_DIR")
        git(tmp_path, "init", "-q")
        package = tmp_path / "package"
        package.mkdir()
        assert provenance.git_state(str(package)) == ("unknown", None)  # no commit yet
        (package / "a.py").write_text("1")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", "one")
    commit, dirty = provenance.git_state(str(package))
    assert len(commit) == 40 and int(commit, 16) >= 0 and dirty is False
    (tmp_path / "notes").write_text("elsewhere")
    assert provenance.git_state(str(package)) == (commit, False)
    (package / "b.py").write_text("untracked")
    assert provenance.git_state(str(package)) == (commit, True)
    (package / "b.py").unlink()
    (package / "a.py").write_text("2")
    assert provenance.git_state(str(package)) == (commit, True)


def test_git_state_is_unknown_without_a_checkout_or_without_git(tmp_path, monkeypatch):
    assert provenance.git_state(str(tmp_path)) == ("unknown", None)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "a.py").write_text("1")
    assert provenance.git_state(str(installed)) == ("unknown", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(ROOT) == ("unknown", None)


def test_versions_name_what_the_run_used():
    found = provenance.versions(tensorflow="1.15.5")
    assert found["tensorflow"] == "1.15.5" and found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(isinstance(text, str) and text for text in found.values())


def test_a_field_that_no_reader_knows_is_not_written(tmp_path):
    manifest = Manifest.create(str(tmp_path))
    with pytest.raises(ValueError, match="a manifest has no field learning_rate"):
        manifest.update(learning_rate=0.1)
    assert "learning_rate" not in Manifest.open(str(tmp_path)).fields


def test_the_first_versions_table_of_blocks_is_its_search_space():
    space = get_space("edgeflownet_v1")
    table = {block.name: {"kind": block.kind, "options": list(block.options)} for block in space.blocks}
    assert stored_space(table) == FIRST_VERSION == space.identity()
    table["EB0"]["options"] = [2, 1, 3]
    assert stored_space(table) != FIRST_VERSION
    assert stored_space(space.as_record()) == space.as_record()


COUNTS = FairnessRecord("strict_fairness", 7, 0, {"EB0": [7, 7, 7]}, FIRST_VERSION)


def test_fairness_counts_are_written_and_read(tmp_path):
    write_fairness(str(tmp_path), COUNTS)
    path = tmp_path / "fairness_counts.json"
    assert json.loads(path.read_text()) == {
        "supernet_mode": "strict_fairness",
        "cycles": 7,
        "counts": {"EB0": [7, 7, 7]},
        "fairness_gap": 0,
        "space": FIRST_VERSION,
    }
    assert read_fairness(tmp_path) == COUNTS
    stored = json.loads(path.read_text())
    del stored["space"]  # as the first version wrote it
    path.write_text(json.dumps(stored))
    assert read_fairness(tmp_path) == COUNTS


@pytest.mark.parametrize(
    "content, said",
    [
        ('{"supernet_mode": "uniform"}', "found no cycles, fairness_gap, counts"),
        ('{"supernet_mode": "", "cycles": 1, "fairness_gap": 0, "counts": null}', "counts: expected an object"),
        ("[]", "expected a JSON object"),
    ],
)
def test_damaged_fairness_counts_are_named(tmp_path, content, said):
    (tmp_path / "fairness_counts.json").write_text(content)
    with pytest.raises(UserError, match=f"fairness_counts.json: .*{said}"):
        read_fairness(tmp_path)
