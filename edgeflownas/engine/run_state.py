"""The state of a run besides its tensors. A checkpoint stores it, so that a resumed run equals an uninterrupted one.

It counts cycles and evaluations from the trainer's measurements. Needs no TensorFlow.
"""

import dataclasses
from typing import Any, Dict, List, Optional

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.engine.loss_scale import LossScale
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.fair_sampler import FairnessCounts
from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space
from edgeflownas.run.rows import Best, EvaluationRow, StepRow

DATASET_KEY = "data.fingerprint"  # stands for the samples in `--allow_changed`, like a configuration key


@dataclasses.dataclass
class EpochSums:
    """Running sums over the cycles of the current epoch."""

    cycles: int = 0
    loss: float = 0.0
    grad_norm_before: float = 0.0
    grad_norm_after_max: float = 0.0
    clipped: int = 0
    last_lr: float = 0.0


@dataclasses.dataclass
class RunState:
    """The state of a run. `dataset` is the fingerprint of its data set."""

    config: Config
    dataset: str
    steps_per_epoch: int
    step: int = 0  # cycles trained, the optimizer's global step
    evaluations: int = 0  # epochs evaluated
    sums: EpochSums = dataclasses.field(default_factory=EpochSums)
    loss_scale: LossScale = dataclasses.field(default_factory=LossScale)  # used with train.amp only
    best: Optional[Best] = None  # lowest mean EPE so far
    lengths: Dict[str, int] = dataclasses.field(default_factory=dict)  # bytes of each append-only file
    space: SearchSpace = dataclasses.field(init=False)
    early_stop: EarlyStop = dataclasses.field(init=False)
    fairness: FairnessCounts = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.space = space_of(self.config.network)
        self.early_stop = EarlyStop(self.config.eval.patience, self.config.eval.min_delta)
        self.fairness = FairnessCounts(self.space)

    @property
    def early_stopped(self) -> bool:
        return self.early_stop.stopped

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule."""
        return self.config.train.num_epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether the schedule is complete or early stop has ended it. A resume then trains nothing."""
        return self.early_stopped or (
            self.step >= self.total_steps and self.evaluations >= self.config.train.num_epochs
        )

    @property
    def evaluation_due(self) -> bool:
        """Whether an epoch has been trained and not yet evaluated."""
        return self.step == (self.evaluations + 1) * self.steps_per_epoch

    def add_cycle(self, codes: np.ndarray, row: StepRow) -> None:
        """Counts a trained cycle: its `codes` [P, blocks] and its `row`."""
        sums = self.sums
        self.fairness.add(codes)
        sums.cycles += 1
        sums.loss += row.loss
        sums.grad_norm_before += row.grad_norm_before
        sums.grad_norm_after_max = max(sums.grad_norm_after_max, row.grad_norm_after)
        sums.clipped += row.grad_norm_before > self.config.train.grad_clip
        sums.last_lr = row.lr
        self.step += 1

    def add_evaluation(self, epe: np.ndarray, zero_flow_epe: float, num_samples: int, bn_batches: int) -> EvaluationRow:
        """Counts an evaluation and returns its row; `epe` [subnets] in pixels. Updates `is_best`."""
        mean, sums = float(np.float32(epe.mean())), self.sums
        self.evaluations += 1
        if self.best is None or mean < self.best.mean_epe:
            self.best = Best(self.evaluations, self.step, mean)
        self.early_stop.update(mean)
        self.sums = EpochSums()
        return EvaluationRow(
            epoch=self.evaluations,
            global_step=self.step,
            mean_epe=mean,
            std_epe=float(epe.std()),
            fairness_gap=self.fairness.gap(),
            zero_flow_epe=zero_flow_epe,
            best_mean_epe=self.best.mean_epe,
            best_epoch=self.best.epoch,
            early_stop_wait=self.early_stop.wait,
            train_loss=sums.loss / sums.cycles,
            lr=sums.last_lr,
            grad_norm_before_mean=sums.grad_norm_before / sums.cycles,
            grad_norm_after_max=sums.grad_norm_after_max,
            clip_share=sums.clipped / sums.cycles,
            bn_recal_batches=bn_batches,
            num_samples=num_samples,
        )

    @property
    def is_best(self) -> bool:
        """Whether the newest evaluation is the best so far."""
        return self.best is not None and self.best.epoch == self.evaluations

    def go_on_with(self, config: Config, dataset: str) -> None:
        """Takes the settings of the process that resumes the run: accepted changes and paths."""
        self.config, self.dataset = config, dataset
        self.early_stop = EarlyStop(config.eval.patience, config.eval.min_delta, **self.early_stop.as_dict())

    def standing(self) -> Dict[str, Any]:
        """The progress of the run, as fields of the manifest."""
        best = dict(self.best._asdict()) if self.best else None
        return {"global_step": self.step, "epoch": self.step // self.steps_per_epoch, "best": best}

    def as_dict(self) -> Dict[str, Any]:
        """The state as plain JSON, for a checkpoint."""
        own = ("step", "evaluations", "steps_per_epoch", "lengths", "dataset")
        return dict(
            {name: getattr(self, name) for name in own},
            sums=dataclasses.asdict(self.sums),
            loss_scale=dataclasses.asdict(self.loss_scale),
            early_stop=self.early_stop.as_dict(),
            early_stopped=self.early_stopped,
            best=self.standing()["best"],
            fairness=self.fairness.as_dict(),
            config=configuration.to_dict(self.config),
            config_hash=configuration.config_hash(self.config),
            space=self.space.identity(),
        )

    @classmethod
    def from_dict(cls, stored: Dict[str, Any], origin: str) -> "RunState":
        """The inverse of `as_dict`, also for states of the first version. `origin` names the source in messages.

        Raises UserError if `stored` is not such a state, or if its search space has another definition today.
        """
        try:
            config = configuration.from_dict(stored["config"], origin)
            require_same_space(stored.get("space", FIRST_VERSION), space_of(config.network), origin)
            state = cls(
                config=config,
                dataset=stored["dataset"],
                steps_per_epoch=stored["steps_per_epoch"],
                step=stored["step"],
                evaluations=stored["evaluations"],
                sums=EpochSums(**stored["sums"]),
                loss_scale=LossScale(**stored["loss_scale"]),
                best=Best(**stored["best"]) if stored["best"] else None,
                lengths=stored["lengths"],
            )
            state.early_stop = EarlyStop(config.eval.patience, config.eval.min_delta, **stored["early_stop"])
            state.fairness = FairnessCounts.from_dict(stored["fairness"], state.space)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{origin}: not a state of this version of edgeflownas ({type(error).__name__}: {error}); resume with "
                "the version that wrote it"
            ) from error
        return state


def changed_keys(state: RunState, config: Config, dataset: str, allowed: List[str]) -> List[str]:
    """Keys of the training maths that differ from the stored run and are in `allowed`.

    Raises UserError if another one differs, if a network key or the search space differs, or if `allowed` has a name
    that is not a key.
    """
    known = [name for name, key in configuration.KEYS.items() if key.maths] + [DATASET_KEY]
    for name in allowed:
        if name not in known:
            raise UserError(
                f"--allow_changed: {name!r} is not a key of the training maths; keys are section.key, such as "
                f"train.lr or {DATASET_KEY}"
            )
    require_same_space(state.space.identity(), space_of(config.network), "the run to resume")
    stored = state.config
    changed = configuration.diff(stored, config) + ([DATASET_KEY] if state.dataset != dataset else [])
    unfit = [_change(name, stored, config) for name in changed if name.startswith("network.")]
    if unfit:
        raise UserError(
            f"--resume: the stored weights fit no other network: {'; '.join(unfit)}; put the stored values back, or "
            "start a new run"
        )
    refused = [name for name in changed if name not in allowed]
    if refused:
        raise UserError(
            "--resume would change the training maths: {}; put the stored values back, or accept it with "
            "--allow_changed {}".format("; ".join(_change(name, stored, config) for name in refused), ",".join(refused))
        )
    return changed


def _change(name: str, stored: Config, config: Config) -> str:
    if name == DATASET_KEY:
        return f"{name} (other samples than before)"
    return f"{name} was {configuration.flat(stored)[name]!r}, is {configuration.flat(config)[name]!r}"
