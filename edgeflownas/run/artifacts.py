"""The former home of `git_state` and `versions`, for the one module outside the package that still looks here."""

from edgeflownas.run.provenance import git_state, versions

__all__ = ["git_state", "versions"]
