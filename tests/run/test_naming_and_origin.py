"""How command lines name a run, what its lock leaves behind, and what is recorded about its origin."""

import os
import re
import subprocess

import pytest

from edgeflownas import config as configuration
from edgeflownas import signoff
from edgeflownas.errors import UserError
from edgeflownas.run import provenance
from edgeflownas.run.folder import CONFIG, RunLock, archive_previous, find_run


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "name, want",
    [
        ("outputs/supernet/a", "outputs/supernet/a"),
        ("a", "outputs/supernet/a"),
        ("outputs/supernet/a/train_manifest.json", "outputs/supernet/a"),
        ("train_manifest.json", "."),
        ("both", "both"),  # the folder is meant first
        (".", "."),
    ],
)
def test_a_run_is_named_by_folder_manifest_or_experiment(here, name, want):
    for folder in ("outputs/supernet/a", "outputs/supernet/both", "both"):
        (here / folder).mkdir(parents=True)
    assert find_run(name) == want


@pytest.mark.parametrize(
    "name, said",
    [("b", "or an experiment in outputs/supernet, found neither"), ("x/b", "found nothing"), ("file", "found a file")],
)
def test_a_run_that_is_not_there_is_said(here, name, said):
    (here / "file").write_text("")
    with pytest.raises(UserError, match=said):
        find_run(name)


def test_a_lock_leaves_no_folder_that_it_made(here):
    with RunLock("new/run"):
        assert os.path.isdir("new/run")
    assert os.listdir(str(here)) == []


def test_a_lock_leaves_what_others_made(here):
    (here / "old").mkdir()
    with RunLock("old/run"):
        (here / "old" / "run" / "kept").write_text("")
    with RunLock("old"):
        pass
    assert (here / "old" / "run" / "kept").exists()


def test_the_configuration_of_a_run_is_one_that_config_accepts(here):
    values = {
        "train.lr": 3e-7,
        "data.base_path": "/data/a: b #c",
        "runtime.experiment_name": "0123",
        "eval.min_delta": 0.5,
    }
    config, _ = configuration.load(None, values)
    assert configuration.load(provenance.write_config(".", config))[0] == config
    assert archive_previous(".") and not os.path.exists(CONFIG)


@pytest.mark.parametrize(
    "environment, job",
    [({}, None), ({"SLURM_JOB_ID": "7"}, "7"),
     ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3")],
)  # fmt: skip
def test_host_and_job_are_recorded(monkeypatch, environment, job):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert provenance.machine() == {"host": os.uname().nodename, "slurm_job": job}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A separate project folder."""
    (tmp_path / "edgeflownas").mkdir()
    (tmp_path / "edgeflownas" / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(signoff, "project_root", lambda: tmp_path)
    return tmp_path


def git(root, *words):
    subprocess.run(["git", "-C", str(root)] + list(words), check=True, stdout=subprocess.DEVNULL)


def test_a_checkout_has_its_commit(root):
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    fields, warning = provenance.source()
    assert re.fullmatch("[0-9a-f]{40}", fields["git_commit"]) and fields["git_dirty"] is False and warning == ""


def test_a_checkout_of_another_user_is_said_with_the_remedy(root, monkeypatch):
    """There, git's rev-parse fails with this message."""
    git(root, "init", "-q")
    monkeypatch.setenv("PATH", str(root / "bin"))
    (root / "bin").mkdir()
    (root / "bin" / "git").write_text(
        "#!/bin/sh\necho \"fatal: detected dubious ownership in repository at '$2'\" >&2\nexit 128\n"
    )
    (root / "bin" / "git").chmod(0o755)
    fields, warning = provenance.source()
    assert fields == {"git_commit": "unknown", "git_dirty": None}
    assert "dubious ownership" in warning and warning.endswith(f"git config --global --add safe.directory {root}")


def test_an_installed_package_has_version_and_digest(root):
    fields, warning = provenance.source()
    assert fields["git_commit"] == "unknown" and "not a git checkout" in warning
    assert fields["installed_source"]["digest"] == signoff.fingerprint(signoff.source_files(root))


def test_gates_of_an_installed_package_are_not_advised(root):
    with pytest.raises(UserError, match="cannot be run in an installed package; train from a checkout"):
        signoff.require_gate(3, root)
