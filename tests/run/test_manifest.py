"""The manifest of a run and what goes into it: git state, versions, fairness counts."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import edgeflownas
from edgeflownas.engine import artifacts
from edgeflownas.errors import UserError
from edgeflownas.run.artifacts import Manifest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(edgeflownas.__file__)))


def test_the_manifest_tells_the_runs_life(tmp_path):
    path = str(tmp_path / "train_manifest.json")
    manifest = Manifest.create(path, seed=42, config={"train": {"lr": 1e-4}})
    manifest.update(status="interrupted", global_step=7)
    again = Manifest.open(path)
    again.resumed(step=7, changed=["runtime.num_workers"])
    again.update(status="completed", global_step=11)
    with open(path) as handle:
        written = json.load(handle)
    assert written == again.fields
    assert written["seed"] == 42 and written["config"] == {"train": {"lr": 1e-4}}
    assert (written["status"], written["global_step"]) == ("completed", 11)
    assert [(r["step"], r["status_before"]) for r in written["resumes"]] == [(7, "interrupted")]
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
    manifest = Manifest.create(str(tmp_path / "m.json"))
    manifest.update(status=before)
    if allowed:
        manifest.update(status=after)
        return
    with pytest.raises(ValueError, match=f"status cannot go from '{before}' to '{after}'"):
        manifest.update(status=after, extra=1)
    assert Manifest.open(manifest.path).fields["status"] == before and "extra" not in manifest.fields


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "No such file"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "not a train manifest"),
        (b"{}", "not a train manifest"),
    ],
)
def test_a_damaged_manifest_is_a_user_error(tmp_path, content, said):
    path = tmp_path / "m.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        Manifest.open(str(path))


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
        assert artifacts.git_state(str(package)) == ("unknown", None)  # no commit yet
        (package / "a.py").write_text("1")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", "one")
    commit, dirty = artifacts.git_state(str(package))
    assert len(commit) == 40 and int(commit, 16) >= 0 and dirty is False
    (tmp_path / "notes").write_text("elsewhere")
    assert artifacts.git_state(str(package)) == (commit, False)
    (package / "b.py").write_text("untracked")
    assert artifacts.git_state(str(package)) == (commit, True)
    (package / "b.py").unlink()
    (package / "a.py").write_text("2")
    assert artifacts.git_state(str(package)) == (commit, True)


def test_git_state_is_unknown_without_a_checkout_or_without_git(tmp_path, monkeypatch):
    assert artifacts.git_state(str(tmp_path)) == ("unknown", None)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "a.py").write_text("1")
    assert artifacts.git_state(str(installed)) == ("unknown", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert artifacts.git_state(ROOT) == ("unknown", None)


def test_versions_name_what_the_run_used():
    found = artifacts.versions(tensorflow="1.15.5")
    assert found["tensorflow"] == "1.15.5" and found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(isinstance(text, str) and text for text in found.values())


def test_fairness_counts_are_written(tmp_path):
    path = tmp_path / "fairness_counts.json"
    artifacts.write_fairness_counts(str(path), "strict_fairness", 7, {"EB0": [7, 7, 7]}, 0)
    assert json.loads(path.read_text()) == {
        "supernet_mode": "strict_fairness",
        "cycles": 7,
        "counts": {"EB0": [7, 7, 7]},
        "fairness_gap": 0,
    }
