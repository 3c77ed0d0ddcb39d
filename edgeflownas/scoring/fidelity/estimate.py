"""Estimates the training time of a study from a few real steps of up to three of its runs, in a separate process.

`python -m edgeflownas.scoring.fidelity.estimate FOLDER STEPS` prints JSON {run name: [seconds per step, per
evaluation]}. Only one stand-alone run is measured; the time of other codes is scaled by their multiply-adds.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional, Tuple

from edgeflownas.device import choose_device
from edgeflownas.errors import UserError, run_cli
from edgeflownas.nas.fair_sampler import fair_cycle, uniform_paths
from edgeflownas.scoring.fidelity.plan import ALONE, STRICT, UNIFORM, Plan, PlannedRun, read_plan, write_plan

_WARM_UP = 2  # steps that are not measured


def measured(plan: Plan) -> List[PlannedRun]:
    """One run of each kind; of the stand-alone runs, the one with median multiply-adds."""
    costs = {code.arch_code: code.multiply_adds for code in plan.codes}
    alone = sorted(plan.of_kind(ALONE), key=lambda run: (costs[run.arch_code], run.name))
    kinds = [plan.of_kind(STRICT)[:1], plan.of_kind(UNIFORM)[:1], alone[len(alone) // 2 :][:1]]
    return [run for kind in kinds for run in kind]


def estimate(plan: Plan, steps: int) -> Dict[str, Any]:
    """Seconds per step and per evaluation, and the training hours of all runs for one worker on an idle machine.

    Raises UserError if the measuring process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_plan(plan._replace(folder=folder), None)
        command = [sys.executable, "-m", "edgeflownas.scoring.fidelity.estimate", folder, str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UserError(f"cannot measure a step: {lines[-1] if lines else 'no message'}; or plan with --steps 0")
    seconds = json.loads(done.stdout.splitlines()[-1])
    return {"steps": steps, "seconds": seconds, "hours": round(_hours(plan, seconds), 3)}


def _hours(plan: Plan, seconds: Dict[str, Tuple[float, float]]) -> float:
    costs = {code.arch_code: code.multiply_adds for code in plan.codes}
    by_kind = {run.kind: (run, seconds[run.name]) for run in measured(plan)}
    steps_per_epoch = plan.document["split"]["training"] // plan.config.train.batch_size
    total = 0.0
    for run in plan.runs:
        like, (step, evaluation) = by_kind[run.kind]
        scale = costs[run.arch_code] / costs[like.arch_code] if run.kind == ALONE else 1.0
        total += run.num_epochs * (steps_per_epoch * step + evaluation) * scale
    return total / 3600


def _measure(plan: Plan, run: PlannedRun, steps: int, folder: str) -> Tuple[float, float]:
    """(seconds per step, seconds per evaluation) of a real trainer, which writes into `folder`."""
    from edgeflownas.data.fc2_index import build_index
    from edgeflownas.engine.trainer import Limits, Trainer

    config = plan.run_config(run)
    os.makedirs(folder)
    trainer = Trainer(config, folder, build_index(config.data, config.train.seed), Limits())
    try:
        trainer.start(None)
        for number in range(_WARM_UP + steps):
            if number == _WARM_UP:
                began = time.monotonic()
            _step(trainer, config, number)
        step = (time.monotonic() - began) / steps
        trainer.score_pool()  # the first one warms up
        began = time.monotonic()
        trainer.score_pool()
        return step, time.monotonic() - began
    finally:
        trainer.close()


def _step(trainer: Any, config: Any, number: int) -> None:
    """Reads and trains one cycle of a run, without recording it."""
    epoch, position = divmod(number, trainer.steps_per_epoch)
    if position == 0:
        trainer.pipeline.start_epoch(trainer.session, epoch, 0)
    draw = fair_cycle if config.train.supernet_mode == "strict_fairness" else uniform_paths
    codes = draw(config.train.arch_seed, number, trainer.space)
    images, flow = trainer.session.run([trainer.pipeline.images, trainer.pipeline.flow])
    trainer.graph.run(trainer.session, codes, images, flow, config.train.lr, False)


def main(argv: Optional[List[str]] = None) -> int:
    """Measures the runs and prints the JSON. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    plan, steps = read_plan(words[0]), int(words[1])
    choose_device(plan.config.runtime.gpu_device, plan.config.runtime.deterministic)
    found = {run.name: _measure(plan, run, steps, os.path.join(words[0], run.name)) for run in measured(plan)}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    run_cli(main)
