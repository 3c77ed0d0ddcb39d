"""Tells how far each run of a study is, and whether its results may be used. Only reads run folders.

Built on `run.manifest`, `run.checkpoint` and `checks.check_manifest`.
"""

import os
from typing import List, Optional

from edgeflownas import config as configuration
from edgeflownas.checks.check_manifest import run_checks
from edgeflownas.errors import UserError
from edgeflownas.run.checkpoint import CheckpointStore, Generation
from edgeflownas.run.folder import CHECKPOINTS
from edgeflownas.run.manifest import COMPLETED, Manifest
from edgeflownas.scoring.fidelity.plan import Plan, PlannedRun

FRESH, STOPPED, TRAINED = "fresh", "stopped", "trained"


def _store(plan: Plan, run: PlannedRun) -> CheckpointStore:
    return CheckpointStore(os.path.join(plan.run_folder(run), CHECKPOINTS), warn=lambda line: None)


def last_checkpoint(plan: Plan, run: PlannedRun) -> Generation:
    """The run's last checkpoint, with verified files. Raises UserError if it is missing or damaged."""
    return _store(plan, run).load("last")


def stage(plan: Plan, run: PlannedRun) -> str:
    """FRESH: nothing to resume. STOPPED: a resume continues it. TRAINED: complete.

    Raises UserError if the folder holds a run with another configuration, which this study must not continue.
    """
    if not Manifest.exists(plan.run_folder(run)):
        return FRESH
    manifest = Manifest.open(plan.run_folder(run))
    changed = _changed(plan, run, manifest)
    if changed:
        raise UserError(f"{plan.run_folder(run)}: {changed}; move this folder away to have the run made anew")
    try:
        _store(plan, run).newest_valid()
    except UserError:
        return FRESH
    return TRAINED if manifest.fields["status"] == COMPLETED else STOPPED


def _changed(plan: Plan, run: PlannedRun, manifest: Manifest) -> Optional[str]:
    """How the run's training maths differ from the plan; None if they do not."""
    if manifest.fields.get("config_hash") != run.config_hash:
        try:
            found = configuration.from_dict(manifest.fields.get("config"), manifest.path)
        except UserError as error:
            return f"its configuration is not the planned one: {error}"
        keys = configuration.diff(found, plan.run_config(run))
        return f"not trained as planned: {', '.join(keys) or 'config_hash'} differs"
    keys = [key for entry in manifest.fields["resumes"] for key in entry.get("changed", [])]
    return f"a resume changed {', '.join(keys)}" if keys else None


def problem(plan: Plan, run: PlannedRun) -> Optional[str]:
    """Why the run's results may not be used: not started, interrupted, changed or damaged. None if they may."""
    if not Manifest.exists(plan.run_folder(run)):
        return "not started"
    try:
        manifest = Manifest.open(plan.run_folder(run))
        changed = _changed(plan, run, manifest)
    except UserError as error:
        return f"damaged: {error}"
    if changed:
        return changed
    fields = manifest.fields
    if fields["status"] != COMPLETED:
        return (
            f"interrupted: status {fields['status']}, step {fields.get('global_step')} of {fields.get('total_steps')}"
        )
    failed: List[str] = [f"{one.name}: {one.text}" for one in run_checks(manifest.path) if not one.passed]
    return f"damaged: {failed[0]}" if failed else None
