"""The origin of a run, for its manifest: configuration file, commit, machine and versions. Built on git."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from typing import Any, Dict, Optional, Tuple

import numpy as np
import yaml

import edgeflownas
from edgeflownas import signoff
from edgeflownas.config import Config, to_dict
from edgeflownas.files import atomic_write_text
from edgeflownas.run.folder import CONFIG


def write_config(folder: str, config: Config) -> str:
    """Writes the whole configuration to a YAML file that `--config` accepts. Returns its path."""
    path = os.path.join(folder, CONFIG)
    text = yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True, width=1000)
    atomic_write_text(path, "# The whole configuration of the run in this folder, for --config.\n" + text)
    return path


def machine() -> Dict[str, Any]:
    """The host's name, and the SLURM job (JOB_TASK in a job array), None without SLURM."""
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "host": socket.gethostname(),
        "slurm_job": f"{job}_{task}" if job and task else os.environ.get("SLURM_JOB_ID"),
    }


def source() -> Tuple[Dict[str, Any], str]:
    """(manifest fields that identify the source code, a warning or "").

    A checkout has a commit. For an installed package the version and the digest of its files are recorded instead.
    """
    root = str(signoff.project_root())
    commit, dirty = git_state(root)
    fields: Dict[str, Any] = {"git_commit": commit, "git_dirty": dirty}
    if commit != "unknown":
        return fields, ""
    if os.path.exists(os.path.join(root, ".git")):
        return fields, f"git does not tell the commit of {root}: {_why_not(root)}"
    digest = signoff.fingerprint(signoff.source_files(signoff.project_root()))
    fields["installed_source"] = {"version": edgeflownas.__version__, "digest": digest}
    return fields, (
        "not a git checkout: the manifest names the version and the digest of the source that trains, but no commit, "
        "and the gates cannot be run"
    )


def _why_not(root: str) -> str:
    """Git's error message, and the remedy if it is known."""
    try:
        _git(root, "rev-parse", "HEAD")
    except FileNotFoundError:
        return "there is no git; install it"
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
        owner = "git config --global --add safe.directory " + root
        return "; ".join(said + ([owner] if said and "ownership" in said[0] else []))
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return "it has no commit with these files"


def git_state(root: str) -> Tuple[str, Optional[bool]]:
    """The commit checked out at `root`, and whether files under `root` differ from it (untracked files count).

    ("unknown", None) if there is no git, no commit, or `root` is not under version control.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        tracked = _git(root, "ls-files", "--", ".")  # empty if the package is installed inside another checkout
        dirty = bool(_git(root, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None
    return (commit, dirty) if tracked else ("unknown", None)


def _git(root: str, *arguments: str) -> str:
    # Inside git hooks, GIT_DIR and similar variables are set and would name another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", root] + list(arguments),
        env=environment,
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return done.stdout.decode("utf-8", "replace").strip()


def versions(tensorflow: str) -> Dict[str, str]:
    """Versions for the manifest. The caller passes TensorFlow's, because this module does not import it."""
    return {
        "edgeflownas": edgeflownas.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tensorflow": tensorflow,
        "platform": platform.platform(),
    }
