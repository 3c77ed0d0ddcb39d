"""train_manifest.json, the record of a run: its fields, its writer and its reader. Built on `json_file`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Union

from edgeflownas.errors import DataError, UserError
from edgeflownas.files import atomic_write_json
from edgeflownas.run.first_version import identity_of
from edgeflownas.run.folder import MANIFEST, utc_now
from edgeflownas.run.json_file import read_json

RUNNING, COMPLETED, EARLY_STOPPED, INTERRUPTED, FAILED = STATUSES = (
    "running",
    "completed",
    "early_stopped",
    "interrupted",
    "failed",
)
# With these statuses every file agrees with the last checkpoint. A run that is running, failed or was killed may have
# rows after its last checkpoint; a resume cuts them off.
SETTLED = (COMPLETED, EARLY_STOPPED, INTERRUPTED)

# The specification's fields first (execution gates, section 6), then the rest, each with its JSON type.
FIELDS: Dict[str, type] = {
    "seed": int,
    "config_hash": str,
    "git_commit": str,
    "input_shape": list,
    "optimizer": str,
    "lr_schedule": str,
    "wd": float,
    "grad_clip": float,
    "arch_seed": int,
    "git_dirty": bool,
    "lr": float,
    "config": dict,
    "config_origins": dict,
    "versions": dict,
    "device": str,
    "dataset": dict,
    "parameter_count": int,
    "search_space": dict,
    "status": str,
    "started": str,
    "updated": str,
    "global_step": int,
    "epoch": int,
    "num_epochs": int,
    "steps_per_epoch": int,
    "total_steps": int,
    "resumes": list,
    "gates": dict,
    "command": str,
}
# `best` is null before the first evaluation. Only some runs have the fields of OPTIONAL.
BEST = "best"
OPTIONAL = (
    "initial_weights",
    "error",
    "host",
    "slurm_job",
    "resume_command",
    "unsupported_gpu_allowed",
    "ranks",  # number of ranks of the latest invocation; not in manifests of the first version
    "throughput",  # in the last epoch; only with several ranks
    "parents",  # of an extracted subnet: its sources (`handover.Parent`), the nearest first
    "installed_source",  # version and digest of an installed package, which has no commit
)
DATASET_FIELDS = {"fingerprint": str, "train": int, "val": int, "source": str, "base_path": str}
VERSION_NAMES = ("edgeflownas", "python", "numpy", "tensorflow", "platform")
RESUME_FIELDS = {"time": str, "status_before": str, "global_step": int, "changed": list, "command": str, "gates": dict}
UNSIGNED = "unsigned"  # key in `gates` beside the gates' states: whether --unsigned was given


class Manifest:
    """The manifest of the run in `folder`. Every change is atomic."""

    def __init__(self, folder: str, fields: Dict[str, Any]) -> None:
        self.path = os.path.join(folder, MANIFEST)
        self.fields = fields

    @classmethod
    def create(cls, folder: str, **fields: Any) -> Manifest:
        """Writes the manifest of a new run: status `running`, no resumes."""
        manifest = cls(folder, {})
        manifest.update(**dict(fields, status=RUNNING, started=utc_now(), resumes=[]))
        return manifest

    @classmethod
    def open(cls, folder: str) -> Manifest:
        """Reads the manifest of an existing run. UserError if the file is missing or damaged."""
        path = os.path.join(folder, MANIFEST)
        fields = read_json(path)
        if not {"status", "resumes"} <= set(fields):
            raise UserError(f"{path} is not a train manifest: it has no status")
        return cls(folder, fields)

    @staticmethod
    def exists(folder: str) -> bool:
        return os.path.exists(os.path.join(folder, MANIFEST))

    def update(self, **fields: Any) -> None:
        """Sets fields. Only a running run can change its status. ValueError for an unknown field or wrong status."""
        status, before = fields.get("status"), self.fields.get("status", RUNNING)
        if status is not None and (status not in STATUSES or before not in (RUNNING, status)):
            raise ValueError(f"status cannot go from {before!r} to {status!r}")
        unknown = set(fields) - set(FIELDS) - set(OPTIONAL) - {BEST}
        if unknown:
            raise ValueError(f"a manifest has no field {', '.join(sorted(unknown))}")
        self._write(dict(self.fields, **fields))

    def resumed(self, invocation: Dict[str, Any], **fields: Any) -> None:
        """Adds an entry with time and `invocation` to `resumes` and sets the status back to `running`.

        The manifest's own `command` stays that of the first invocation. `device` and `gates` become those of
        `invocation`. An override (unsigned, unsupported GPU) stays recorded for the whole run.
        """
        entry = dict(invocation, **fields, time=utc_now(), status_before=self.fields["status"])
        present = dict(self.fields, device=invocation["device"], gates=dict(invocation["gates"]))
        present["gates"][UNSIGNED] |= bool(self.fields.get("gates", {}).get(UNSIGNED))
        present["unsupported_gpu_allowed"] = bool(
            invocation["unsupported_gpu_allowed"] or self.fields.get("unsupported_gpu_allowed")
        )
        present.pop("error", None)  # belongs to the previous invocation; the entry has its status
        self._write(dict(present, status=RUNNING, resumes=self.fields["resumes"] + [entry]))

    def _write(self, fields: Dict[str, Any]) -> None:
        fields["updated"] = utc_now()
        atomic_write_json(self.path, fields)
        self.fields = fields


def stored_space(search_space: Any) -> Any:
    """The identity of the space in the field `search_space`. The first version wrote {block: {kind, options}} in code
    order; its identity is computed from that."""
    if not isinstance(search_space, dict) or "digest" in search_space:
        return search_space
    try:
        return identity_of([[name, block["kind"], block["options"]] for name, block in search_space.items()])
    except (KeyError, TypeError):
        return search_space


def value_at(path: Union[str, Path], fields: Dict[str, Any], name: str) -> Any:
    """The value at a dotted name. DataError names the file and the missing key."""
    value: Any = fields
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise DataError(f"{path}: key {name} is missing; is it the manifest of a supernet run?")
        value = value[key]
    return value
