"""Scores trained runs of a study: `python -m edgeflownas.scoring.fidelity.score FOLDER RUN...`.

Built on `scoring.supernet`, which needs TensorFlow. It takes each run's last checkpoint and scores each code alone,
after BN recalibration, on the sets of samples that `scores.sets_of` names.
"""

import sys
from functools import partial
from typing import Any, List, Optional, Sequence

from edgeflownas.device import choose_device
from edgeflownas.errors import UserError, run_cli
from edgeflownas.scoring.fidelity.plan import HOLDOUT, Plan, PlannedRun, names_digest, read_plan, unseen_samples
from edgeflownas.scoring.fidelity.runs import last_checkpoint
from edgeflownas.scoring.fidelity.scores import RunScores, codes_of, sets_of, write_scores


def score_run(plan: Plan, run: PlannedRun) -> None:
    """Scores a trained run and writes its file. Raises UserError: other data than planned, damaged checkpoint."""
    from edgeflownas.scoring.supernet import Supernet

    generation = last_checkpoint(plan, run)
    epe, zero = {}, {}
    for name in sets_of(plan, run):
        with Supernet.load(plan.run_folder(run), "last", choose=partial(_samples, plan, name)) as loaded:
            scores = loaded.score_alone(codes_of(plan, run))
        epe[name], zero[name] = scores.epe_samples, scores.zero_flow_epe
    write_scores(plan, run, RunScores(codes_of(plan, run), epe, zero), generation)


def _samples(plan: Plan, name: str, config: Any, index: Any) -> Sequence[Any]:
    if name == HOLDOUT:
        return list(index.val)
    samples = unseen_samples(config, index)
    if names_digest([sample.name for sample in samples]) != plan.document["split"]["scored_digest"]:
        raise UserError(f"{config.data.base_path}: its validation samples are not the planned ones; put them back")
    return samples


def main(argv: Optional[List[str]] = None) -> int:
    """Scores the named runs."""
    words = list(sys.argv[1:] if argv is None else argv)
    plan = read_plan(words[0])
    choose_device(plan.config.runtime.gpu_device, plan.config.runtime.deterministic)
    for run in [one for one in plan.runs if one.name in words[1:]]:
        score_run(plan, run)
    return 0


if __name__ == "__main__":
    run_cli(main)
