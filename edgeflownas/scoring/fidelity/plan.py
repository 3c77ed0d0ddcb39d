"""plan.json: all decisions of a study, fixed before training and protected by a digest. Built on `study`.

The file is written once and never changed. Names of runs: `alone-CODE-b1-s42` is a code trained alone for 1 times the
supernet's cycles with seed 42; `strict-s42` and `uniform-s42` are supernets. A supernet's seed determines its weights,
its data order and its paths.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index, Sample, build_index
from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json, os_errors
from edgeflownas.nas.cost import subnet_cost
from edgeflownas.nas.search_space import SearchSpace, get_space, require_same_space
from edgeflownas.network.layer_table import layer_table
from edgeflownas.scoring.fidelity.study import Study, read_study, space_of_study
from edgeflownas.statistics import intervals, verdict

PLAN = "plan.json"
RUNS, SCORED = "runs", "scores"  # folders beside plan.json
ALONE, STRICT, UNIFORM = "alone", "strict", "uniform"
UNSEEN, HOLDOUT = "unseen", "holdout"  # sets of samples: not used by any run, held out of training
_FORMAT = 1
_MODES = {STRICT: "strict_fairness", UNIFORM: "uniform", ALONE: "strict_fairness"}
_FREE = ("estimate", "digest")  # may differ when the same study is planned again


class PlannedRun(NamedTuple):
    """One training run of the study. For a supernet, `arch_code` is empty and `budget` is 0."""

    name: str
    kind: str
    seed: int
    arch_code: str
    budget: float
    num_epochs: int
    config_hash: str


class PlannedCode(NamedTuple):
    """A code of the study. `counts`: whether it is in the statistic or only shown beside it."""

    arch_code: str
    parameters: int
    multiply_adds: int
    counts: bool


class Plan(NamedTuple):
    """A plan that was read or made. `config` is the supernet's; `folder` holds plan.json."""

    folder: str
    document: Dict[str, Any]
    config: Config
    space: SearchSpace
    codes: Tuple[PlannedCode, ...]
    runs: Tuple[PlannedRun, ...]

    @property
    def digest(self) -> str:
        return str(self.document["digest"])

    @property
    def counted(self) -> List[str]:
        """The codes of the statistic, in digits."""
        return [code.arch_code for code in self.codes if code.counts]

    @property
    def budgets(self) -> List[float]:
        return list(self.document["study"]["budgets"]) if self.document["study"]["alone_seeds"] else []

    def of_kind(self, kind: str) -> List[PlannedRun]:
        return [run for run in self.runs if run.kind == kind]

    def run_folder(self, run: PlannedRun) -> str:
        return os.path.join(self.folder, RUNS, run.name)

    def settings(self, run: PlannedRun) -> Dict[str, Any]:
        """The configuration of a run, {"section.key": value}."""
        values = configuration.flat(self.config)
        values.update(_own_settings(run, self.config))
        values.update({"runtime.output_dir": os.path.join(self.folder, RUNS), "runtime.experiment_name": run.name})
        return values

    def run_config(self, run: PlannedRun) -> Config:
        return configuration.load(None, self.settings(run))[0]


def _own_settings(run: PlannedRun, config: Config) -> Dict[str, Any]:
    """The settings of a run that differ from the supernet's. Patience equals the epochs, to prevent early stop."""
    own = {
        "train.seed": run.seed,
        "train.supernet_mode": _MODES[run.kind],
        "train.num_epochs": run.num_epochs,
        "eval.patience": run.num_epochs,
    }
    if run.kind == ALONE:
        return dict(own, **{"network.arch_code": run.arch_code, "eval.pool_size": 1})
    return dict(own, **{"train.arch_seed": run.seed})


def unseen_samples(config: Config, index: FC2Index) -> Tuple[Sample, ...]:
    """The samples to score. No run trains on them or evaluates them during training.

    With a holdout they are the whole validation list, which the runs do not use; else its second half.
    """
    if config.data.holdout:
        return build_index(dataclasses.replace(config.data, holdout=0), config.train.seed).val
    return index.val[len(index.val) // 2 :]


def make_plan(study: Study) -> Plan:
    """The plan of a study, without an estimate. Reads the data index. Raises UserError if the study does not fit."""
    space = space_of_study(study)
    base = study.base()
    index = build_index(base.data, base.train.seed)
    half = len(index.val) // 2
    if not base.data.holdout:
        if half < 1:
            raise UserError(f"{study.origin}: expected at least 2 validation samples, found {len(index.val)}")
        watched = min(base.eval.num_samples or half, half)
        base = configuration.load(None, dict(configuration.flat(base), **{"eval.num_samples": watched}))[0]
    scored = unseen_samples(base, index)
    codes = _codes(study, space, base)
    runs = _runs(study, base, codes)
    document = {
        "format": _FORMAT,
        "study": study.record(),
        "config": configuration.to_dict(base),
        "space": space.identity(),
        "codes": [code._asdict() for code in codes],
        "runs": [run._asdict() for run in runs],
        "split": {
            "training": len(index.train),
            "watched": min(base.eval.num_samples or len(index.val), len(index.val)),
            "scored": len(scored),
            "scored_digest": names_digest([sample.name for sample in scored]),
            "source": "FC2_test, unused by the runs" if base.data.holdout else "second half of the validation list",
        },
        "statistics": {
            "confidence": intervals.CONFIDENCE,
            "resamples": intervals.RESAMPLES,
            "seed": base.train.arch_seed,
            "verdict_at_budget": max(study.budgets),
            "strong": f"lower bound of tau above {verdict.LOWER_BOUND:g}, ahead of every control, top-3 regret within "
            f"{verdict.REGRET_SDS:g} sd, in each of at least {verdict.SUPERNET_SEEDS} supernet seeds",
            "weak": f"tau positive and permutation p below {verdict.P_LIMIT:g} in every supernet seed",
            "none": "none of the others: a valid study, tau not positive or p not below that limit in a supernet seed",
            "void": f"spread of the codes below {verdict.SPREAD_SDS:g} sd of a seed, or a supernet has not learned",
        },
    }
    return _plan(study.output, _sealed(document), study.origin)


def names_digest(names: List[str]) -> str:
    """SHA-256 of sample names in their order."""
    return hashlib.sha256("\n".join(names).encode("utf-8")).hexdigest()


def _codes(study: Study, space: SearchSpace, config: Config) -> List[PlannedCode]:
    counted, beside = study.arch_codes(space, config)
    layers = layer_table(config.network.init_channels, space)
    size = config.data.input_height, config.data.input_width
    return [
        PlannedCode(code, *subnet_cost(code, layers, space, *size), counts=code in counted) for code in counted + beside
    ]


def _runs(study: Study, config: Config, codes: List[PlannedCode]) -> List[PlannedRun]:
    """All runs: first the supernets, then the codes alone by seed, budget and code."""
    epochs = config.train.num_epochs
    runs = [PlannedRun(f"{STRICT}-s{seed}", STRICT, seed, "", 0, epochs, "") for seed in study.strict_seeds]
    runs += [PlannedRun(f"{UNIFORM}-s{seed}", UNIFORM, seed, "", 0, epochs, "") for seed in study.uniform_seeds]
    for seed in study.alone_seeds:
        for budget in study.budgets:
            own = budget * epochs
            if own != int(own):
                raise UserError(
                    f"{study.origin}: budgets: {budget:g} times {epochs} epochs is not a whole number of epochs"
                )
            runs += [
                PlannedRun(f"{ALONE}-{c.arch_code}-b{budget:g}-s{seed}", ALONE, seed, c.arch_code, budget, int(own), "")
                for c in codes
            ]
    return [run._replace(config_hash=_hash(run, config)) for run in runs]


def _hash(run: PlannedRun, config: Config) -> str:
    values = dict(configuration.flat(config), **_own_settings(run, config))
    return configuration.config_hash(configuration.load(None, values)[0])


def _sealed(document: Dict[str, Any]) -> Dict[str, Any]:
    body = {key: value for key, value in document.items() if key != "digest"}
    text = json.dumps({key: value for key, value in body.items() if key not in _FREE}, sort_keys=True)
    return dict(body, digest=hashlib.sha256(text.encode("utf-8")).hexdigest())


def _plan(folder: str, document: Dict[str, Any], origin: str) -> Plan:
    config = configuration.from_dict(document["config"], origin)
    space = get_space(config.network.space)
    require_same_space(document["space"], space, origin)
    return Plan(
        folder,
        document,
        config,
        space,
        tuple(PlannedCode(**code) for code in document["codes"]),
        tuple(PlannedRun(**run) for run in document["runs"]),
    )


def write_plan(plan: Plan, estimate: Optional[Dict[str, Any]]) -> Plan:
    """Writes plan.json and returns the plan with its estimate. Raises UserError if the file exists."""
    path = os.path.join(plan.folder, PLAN)
    with os_errors(f"write {path}"):
        os.makedirs(plan.folder, exist_ok=True)
    document = _sealed(dict(plan.document, estimate=estimate))
    if os.path.lexists(path):
        raise UserError(f"{path}: a plan stands there, and plans do not change")
    atomic_write_json(path, document)
    return plan._replace(document=document)


def read_plan(folder: str) -> Plan:
    """The plan of a study's folder. Raises UserError if it is missing, damaged or edited."""
    path = os.path.join(folder, PLAN)
    if not os.path.exists(path):
        raise UserError(f"{folder} has no {PLAN}: make one with: edgeflownas fidelity plan STUDY.yaml")
    with os_errors(f"read {path}"), open(path, "rb") as handle:
        content = handle.read()
    try:
        document = json.loads(content.decode("utf-8"))
        sealed = _sealed(document)
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged: {str(error)[:100]}; put the study's own plan back") from error
    if sealed != document:
        raise UserError(f"{path}: its content does not match its digest: a plan does not change; put it back")
    if document.get("format") != _FORMAT:
        raise UserError(
            f"{path}: expected format {_FORMAT}, found {document.get('format')}; use the version that wrote it"
        )
    return _plan(folder, document, path)


def find_plan(target: str) -> Plan:
    """The plan of a STUDY.yaml or of a study's folder.

    Raises UserError if there is none, or if the study file has changed since the plan was made.
    """
    if os.path.isdir(target):
        return read_plan(target)
    study = read_study(target)
    plan = read_plan(study.output)
    if plan.document["study"] != json.loads(json.dumps(study.record())):
        changed = [key for key, value in study.record().items() if plan.document["study"].get(key) != value]
        raise UserError(
            f"{target}: {', '.join(changed)} changed since the plan was made, and plans do not change; put the file "
            "back, or name another output and plan anew"
        )
    return plan


def same_plan(made: Plan, standing: Plan) -> List[str]:
    """The keys in which the new plan `made` differs from the existing plan `standing`."""
    fresh = json.loads(json.dumps(made.document))
    return [key for key in fresh if key not in _FREE and fresh[key] != standing.document.get(key)]
