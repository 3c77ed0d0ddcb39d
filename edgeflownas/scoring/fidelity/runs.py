"""How far each run of a study is, and whether its results may be used. Reads run folders; changes nothing."""

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
    """The run's last checkpoint, its files verified. UserError: missing or damaged."""
    return _store(plan, run).load("last")


def stage(plan: Plan, run: PlannedRun) -> str:
    """FRESH: nothing to go on from; STOPPED: a resume goes on; TRAINED: to the end.

    UserError if the folder holds a run of another configuration: it is not this study's to go on with.
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
    """Why the run's results may not be used: not done, interrupted, changed, damaged. None if they may."""
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
