"""Collects the results of a study: scores of valid runs, and the reason for each other run. Built on `runs`, `scores`.

A run is valid if it is complete, undamaged and trained as planned. Only valid runs are used.
"""

from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edgeflownas.errors import UserError
from edgeflownas.run.read import read_run
from edgeflownas.scoring.fidelity import runs
from edgeflownas.scoring.fidelity.plan import ALONE, UNSEEN, Plan, PlannedRun
from edgeflownas.scoring.fidelity.scores import RunScores, read_scores


class Epochs(NamedTuple):
    """A supernet's evaluations of the study's codes: `epe` [evaluations, codes] in px, in the plan's order."""

    epoch: np.ndarray
    lr: np.ndarray
    epe: np.ndarray


class SupernetEvidence(NamedTuple):
    """A valid supernet. `epochs` is None if its evaluation pool is not the study's codes."""

    run: PlannedRun
    scores: RunScores
    epochs: Optional[Epochs]

    @property
    def name(self) -> str:
        return f"{self.run.kind}, seed {self.run.seed}"


class StandaloneScores(NamedTuple):
    """Codes trained alone at one budget: `epe` float64 [seeds, codes, samples] in px. Every seed has all `codes`."""

    budget: float
    seeds: Tuple[int, ...]
    codes: List[str]
    epe: np.ndarray

    def of(self, codes: List[str]) -> "StandaloneScores":
        """Only these codes, in their order."""
        return self._replace(codes=codes, epe=self.epe[:, [self.codes.index(code) for code in codes]])


class Evidence(NamedTuple):
    """All results of a study. `problems`: (run, reason); `alone`: by budget."""

    plan: Plan
    problems: List[Tuple[str, str]]
    supernets: List[SupernetEvidence]
    alone: Dict[float, StandaloneScores]


def gather(plan: Plan, progress: Callable[[str], None] = lambda name: None) -> Evidence:
    """Checks every run and reads the scores of the valid ones. `progress` is called with the name of each run."""
    problems: List[Tuple[str, str]] = []
    sound: Dict[str, RunScores] = {}
    for run in plan.runs:
        progress(run.name)
        reason = runs.problem(plan, run)
        if reason is None:
            try:
                sound[run.name] = read_scores(plan, run, runs.last_checkpoint(plan, run))
            except UserError as error:
                reason = str(error)
        if reason is not None:
            problems.append((run.name, reason))
    supernets = [
        SupernetEvidence(run, sound[run.name], _epochs(plan, run))
        for run in plan.runs
        if run.kind != ALONE and run.name in sound
    ]
    return Evidence(plan, problems, supernets, {budget: _alone(plan, budget, sound) for budget in plan.budgets})


def _alone(plan: Plan, budget: float, sound: Dict[str, RunScores]) -> StandaloneScores:
    own = {(run.arch_code, run.seed): run for run in plan.of_kind(ALONE) if run.budget == budget}
    seeds = tuple(sorted({seed for _, seed in own}))
    codes = [code.arch_code for code in plan.codes if all(own[code.arch_code, seed].name in sound for seed in seeds)]
    samples = plan.document["split"]["scored"]
    epe = np.zeros((len(seeds), len(codes), samples))
    for s, seed in enumerate(seeds):
        for c, code in enumerate(codes):
            epe[s, c] = sound[own[code, seed].name].epe[UNSEEN][0]
    return StandaloneScores(budget, seeds, codes, epe)


def _epochs(plan: Plan, run: PlannedRun) -> Optional[Epochs]:
    found = read_run(Path(plan.run_folder(run)))
    if found.history is None or found.subnets is None or sorted(found.subnets.codes) != sorted(plan.counted):
        return None
    order = [found.subnets.codes.index(code) for code in plan.counted]
    return Epochs(found.numbers.epoch, found.numbers.lr, found.subnets.epe[:, order])
