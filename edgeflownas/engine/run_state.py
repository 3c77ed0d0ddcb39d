"""What a checkpoint knows besides tensors: enough for a resumed run to go on as if it had never stopped.

Cycles and evaluations are counted here; the trainer only hands in what it measured. Plain Python, no TensorFlow.
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

DATASET_KEY = "data.fingerprint"  # the samples themselves, named like a key in `--allow_changed`


@dataclasses.dataclass
class EpochSums:
    """Running sums over the cycles of the epoch at hand."""

    cycles: int = 0
    loss: float = 0.0
    grad_norm_before: float = 0.0
    grad_norm_after_max: float = 0.0
    clipped: int = 0
    last_lr: float = 0.0


@dataclasses.dataclass
class RunState:
    """The state of a run with a configuration, on the data set of a fingerprint."""

    config: Config
    dataset: str
    steps_per_epoch: int
    step: int = 0  # cycles trained, the optimizer's global step
    evaluations: int = 0  # epochs evaluated
    sums: EpochSums = dataclasses.field(default_factory=EpochSums)
    loss_scale: LossScale = dataclasses.field(default_factory=LossScale)  # used with train.amp only
    best: Optional[Best] = None  # lowest mean EPE so far
    lengths: Dict[str, int] = dataclasses.field(default_factory=dict)  # bytes of the growing files
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
        """The schedule is done or early stop has ended it: a resume would do no step."""
        return self.early_stopped or (
            self.step >= self.total_steps and self.evaluations >= self.config.train.num_epochs
        )

    @property
    def evaluation_due(self) -> bool:
        """An epoch has been trained and not yet evaluated."""
        return self.step == (self.evaluations + 1) * self.steps_per_epoch

    def add_cycle(self, codes: np.ndarray, row: StepRow) -> None:
        """Counts a trained cycle: `codes` [P, blocks] and what was recorded of it."""
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
        """Counts an evaluation and gives its row: `epe` [subnets] in pixels. See `is_best` afterwards."""
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
        """Takes over the settings of the process that resumes the run: accepted changes, paths."""
        self.config, self.dataset = config, dataset
        self.early_stop = EarlyStop(config.eval.patience, config.eval.min_delta, **self.early_stop.as_dict())

    def standing(self) -> Dict[str, Any]:
        """How far the run is, as fields of the manifest."""
        best = dict(self.best._asdict()) if self.best else None
        return {"global_step": self.step, "epoch": self.step // self.steps_per_epoch, "best": best}

    def as_dict(self) -> Dict[str, Any]:
        """Plain JSON, for a checkpoint."""
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
        """The inverse of `as_dict`, also for a state of the first version.

        UserError: not such a state, or of another search space than its configuration's name means today.
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
    """Keys of the training maths that differ from the stored run and are accepted by `--allow_changed`.

    UserError if one differs that is not accepted, or an accepted one is no key.
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
