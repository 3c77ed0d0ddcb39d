"""Where a run's numbers come from: the commit that was used and the versions of everything below it."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Dict, Optional, Tuple

import numpy as np

import edgeflownas


def git_state(root: str) -> Tuple[str, Optional[bool]]:
    """The commit that holds `root` and whether files under it differ from it (untracked ones count).

    ("unknown", None) where that cannot be said: no git, no commit, or `root` is not under version control.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        tracked = _git(root, "ls-files", "--", ".")  # installed, it may lie in another's checkout
        dirty = bool(_git(root, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None
    return (commit, dirty) if tracked else ("unknown", None)


def _git(root: str, *arguments: str) -> str:
    # GIT_DIR and its like are set inside git's own hooks and would name another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", root] + list(arguments),
        env=environment,
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return done.stdout.decode("utf-8", "replace").strip()


def versions(tensorflow: str) -> Dict[str, str]:
    """Versions for the manifest; TensorFlow's is handed in, because this module does not import it."""
    return {
        "edgeflownas": edgeflownas.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tensorflow": tensorflow,
        "platform": platform.platform(),
    }
