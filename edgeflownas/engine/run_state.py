"""What a checkpoint knows besides tensors: enough for a resumed run to go on as if it had never stopped."""

import dataclasses
from typing import Any, Dict, List, Optional

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.engine.loss_scale import LossScale
from edgeflownas.errors import UserError
from edgeflownas.nas.search_space import FIRST_VERSION, SearchSpace, require_same_space

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
    """Everything is plain JSON. `best` is {"epoch", "global_step", "mean_epe"} of the lowest mean EPE so far."""

    step: int = 0  # cycles trained, the optimizer's global step
    evaluations: int = 0  # epochs evaluated
    steps_per_epoch: int = 0  # of the data set and batch size of the run
    sums: EpochSums = dataclasses.field(default_factory=EpochSums)
    loss_scale: LossScale = dataclasses.field(default_factory=LossScale)  # used with train.amp only
    early_stop: Dict[str, Any] = dataclasses.field(default_factory=dict)
    early_stopped: bool = False
    best: Optional[Dict[str, Any]] = None
    fairness: Dict[str, List[int]] = dataclasses.field(default_factory=dict)
    lengths: Dict[str, int] = dataclasses.field(default_factory=dict)
    config: Dict[str, Any] = dataclasses.field(default_factory=dict)
    config_hash: str = ""
    dataset: str = ""
    space: Dict[str, str] = dataclasses.field(default_factory=lambda: dict(FIRST_VERSION))  # name and digest

    def as_dict(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Dict[str, Any], origin: str) -> "RunState":
        """UserError if the state is not one of this version's."""
        names = {field.name for field in dataclasses.fields(cls)}
        if isinstance(stored, dict):
            stored = dict({"space": FIRST_VERSION}, **stored)  # the first version's states name none
        if (
            not isinstance(stored, dict)
            or set(stored) != names
            or not all(isinstance(stored[part], dict) for part in ("sums", "loss_scale"))
        ):
            raise UserError(
                f"{origin}: not a state of this version of edgeflownas; resume with the version that wrote it"
            )
        return cls(**dict(stored, sums=EpochSums(**stored["sums"]), loss_scale=LossScale(**stored["loss_scale"])))


def changed_keys(state: RunState, config: Config, space: SearchSpace, dataset: str, allowed: List[str]) -> List[str]:
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
    require_same_space(state.space, space, "the run to resume")
    stored = configuration.from_dict(state.config, "the checkpoint's configuration")
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
