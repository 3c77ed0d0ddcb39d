"""A whole study without training: pretended runs, and scores with a known truth."""

import os

import numpy as np
import yaml

from edgeflownas.data.synthetic import make_dataset
from edgeflownas.scoring.fidelity.plan import ALONE, STRICT, UNIFORM, UNSEEN, make_plan, write_plan
from edgeflownas.scoring.fidelity.runs import last_checkpoint
from edgeflownas.scoring.fidelity.scores import RunScores, codes_of, sets_of, write_scores
from edgeflownas.scoring.fidelity.study import read_study
from tests.pretended_run import write_run

VALIDATION = 16  # half of them is scored
STUDY = """\
output: {folder}/study
settings:
  data.base_path: {data}
  data.input_height: 67
  data.input_width: 83
  network.init_channels: 6
  train.batch_size: 5
  train.num_epochs: 2
  eval.pool_size: 6
alone_seeds: [1, 2]
strict_seeds: [42, 43]
uniform_seeds: [42]
budgets: [1, 2]
"""


def make_data(folder):
    """A data set whose index fits `STUDY`; gives its folder."""
    make_dataset(os.path.join(str(folder), "fc2"), 7, VALIDATION, 1, height=71, width=89)
    return os.path.join(str(folder), "fc2")


def write_study(folder, data, more=None, **lines):
    """The study file, with other values of whole keys (as YAML) and `more` settings; gives its path."""
    document = yaml.safe_load(STUDY.format(folder=folder, data=data))
    document.update({key: yaml.safe_load(value) for key, value in lines.items()})
    if more:
        document["settings"].update(more)
    path = os.path.join(str(folder), "study.yaml")
    with open(path, "w") as handle:
        yaml.safe_dump(document, handle)
    return path


def planned(path):
    """The plan of a study file, written down."""
    return write_plan(make_plan(read_study(path)), None)


def pretend(plan, run, **details):
    """The folder of one planned run, as the trainer would have left it."""
    settings = plan.settings(run)
    write_run(
        plan.run_folder(run),
        **dict(
            {
                "epochs": run.num_epochs,
                "num_epochs": run.num_epochs,
                "steps_per_epoch": 1,
                "mode": settings["train.supernet_mode"],
                "arch_seed": settings["train.arch_seed"],
                "val": settings["eval.num_samples"] or VALIDATION,
                "overrides": settings,
            },
            **details,
        ),
    )


class Truth:
    """Simulated EPEs. `supernet_noise` and `uniform_noise` px are between a supernet's EPE of a code
    and its EPE alone."""

    def __init__(self, codes, spread=0.2, seed_noise=0.01, supernet_noise=0.01, uniform_noise=0.5, zero=9.0):
        rng = np.random.RandomState(2)
        self.level = dict(zip(codes, 3 + spread * np.linspace(-1, 1, len(codes))[rng.permutation(len(codes))]))
        self.seed_noise, self.supernet_noise, self.zero = seed_noise, supernet_noise, zero
        self.uniform_noise = uniform_noise
        self.hard = rng.rand(VALIDATION)  # of the samples, for every code alike

    def scores(self, plan, run):
        number = [one.name for one in plan.runs].index(run.name)
        rng = np.random.RandomState([3, number])
        noise = {ALONE: self.seed_noise, STRICT: self.supernet_noise, UNIFORM: self.uniform_noise}[run.kind]
        epe, codes = {}, codes_of(plan, run)
        levels = [self.level[code] + noise * rng.randn() for code in codes]
        for name in sets_of(plan, run):
            count = plan.document["split"]["scored"] if name == UNSEEN else plan.config.data.holdout
            hard = self.hard[:count] - self.hard[:count].mean()
            samples = np.array(levels)[:, None] + hard + 1e-4 * rng.randn(len(codes), count)
            epe[name] = samples.astype(np.float32)
        return RunScores(codes, epe, dict.fromkeys(epe, self.zero))


def pretend_all(plan, truth):
    """Every run of the plan, trained and scored."""
    for run in plan.runs:
        pretend(plan, run)
        score(plan, run, truth)


def score(plan, run, truth):
    write_scores(plan, run, truth.scores(plan, run), last_checkpoint(plan, run))
