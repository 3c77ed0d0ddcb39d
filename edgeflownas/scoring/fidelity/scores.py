"""The file of a scored run, `scores/NAME.npz`: EPE per sample of each code, and what it was measured with.

For each set of samples it has the arrays `samples_SET` (EPE per sample, float32 [codes, samples], px) and `zero_SET`
(EPE of zero flow, px). The others are `codes`, `belongs_to` (JSON: plan, run, checkpoint) and `digest` (SHA-256 of all
other arrays).
"""

import hashlib
import json
import os
import zipfile
import zlib
from typing import Any, Dict, List, NamedTuple

import numpy as np

from edgeflownas.errors import DataError
from edgeflownas.files import os_errors
from edgeflownas.run.checkpoint import Generation
from edgeflownas.scoring.fidelity.plan import HOLDOUT, SCORED, STRICT, UNIFORM, UNSEEN, Plan, PlannedRun


class RunScores(NamedTuple):
    """The scores of one run. `epe[set]`: float32 [codes, samples] in px; `zero[set]`: the EPE of zero flow in px."""

    codes: List[str]
    epe: Dict[str, np.ndarray]
    zero: Dict[str, float]


def score_path(plan: Plan, run: PlannedRun) -> str:
    return os.path.join(plan.folder, SCORED, f"{run.name}.npz")


def codes_of(plan: Plan, run: PlannedRun) -> List[str]:
    """The codes that a run scores: its own code if it trained one alone, else all codes of the study."""
    return [run.arch_code] if run.arch_code else [code.arch_code for code in plan.codes]


def sets_of(plan: Plan, run: PlannedRun) -> List[str]:
    """The sets of samples that a run is scored on."""
    held = plan.config.data.holdout and run.kind in (STRICT, UNIFORM)
    return [UNSEEN, HOLDOUT] if held else [UNSEEN]


def belongs_to(plan: Plan, run: PlannedRun, generation: Generation) -> Dict[str, Any]:
    """What determines the scores besides the codes."""
    return {"plan": plan.digest, "run": run.name, "checkpoint": generation.sha256}


def _digest(arrays: Dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode("ascii"))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_scores(plan: Plan, run: PlannedRun, scores: RunScores, generation: Generation) -> None:
    """Writes or replaces the file atomically. Raises UserError if it cannot be written."""
    arrays: Dict[str, Any] = {
        "codes": np.array(scores.codes),
        "belongs_to": np.array(json.dumps(belongs_to(plan, run, generation))),
    }
    arrays.update({f"samples_{name}": epe for name, epe in scores.epe.items()})
    arrays.update({f"zero_{name}": np.array(zero) for name, zero in scores.zero.items()})
    path = score_path(plan, run)
    temporary = path + f".tmp-{os.getpid()}"
    with os_errors(f"write {path}"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as handle:
            np.savez_compressed(handle, digest=np.array(_digest(arrays)), **arrays)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)


def read_scores(plan: Plan, run: PlannedRun, generation: Generation) -> RunScores:
    """The scores of a run's checkpoint. Raises DataError if missing, damaged, or of another plan or checkpoint."""
    path = score_path(plan, run)
    if not os.path.exists(path):
        raise DataError("not scored")
    try:
        with zipfile.ZipFile(path):  # fails cleanly; NumPy 1.18 would leave a half-initialized object
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"scores damaged: {str(error)[:120]}") from error
    digest = str(arrays.pop("digest", ""))
    if digest != _digest(arrays):
        raise DataError("scores damaged: their content does not match their digest")
    if json.loads(str(arrays["belongs_to"])) != belongs_to(plan, run, generation):
        raise DataError("scored from another checkpoint or for another plan")
    names = sets_of(plan, run)
    scores = RunScores(
        [str(code) for code in arrays["codes"]],
        {name: arrays[f"samples_{name}"] for name in names},
        {name: float(arrays[f"zero_{name}"]) for name in names},
    )
    wanted = codes_of(plan, run)
    if scores.codes != wanted or scores.epe[UNSEEN].shape != (len(wanted), plan.document["split"]["scored"]):
        raise DataError(f"scores: expected {len(wanted)} codes on {plan.document['split']['scored']} samples")
    return scores
