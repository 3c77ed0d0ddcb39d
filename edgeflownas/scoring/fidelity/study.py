"""Reads and checks the study file, STUDY.yaml, which says what a study compares. Built on `config`.

    output: outputs/fidelity/quick          # folder of the plan, the runs, the scores and the report
    config: configs/supernet_quick.yaml     # the supernet's configuration
    settings: {eval.batch_size: 16}         # keys that replace those of the configuration
    codes: pool                             # the configuration's evaluation pool, or a list of codes
    baseline: true                          # also the published code, outside the statistic
    alone_seeds: [42, 43, 44]               # for every code trained alone; [] if only supernets are compared
    strict_seeds: [42, 43]                  # supernets with strict fairness
    uniform_seeds: [42]                     # supernets with uniform sampling, the control
    budgets: [1, 4]                         # for a code trained alone, in multiples of the supernet's cycles

`settings: {data.holdout: N}` trains without N training samples, validates on them, and keeps FC2_test for the scores.
"""

import dataclasses
import difflib
from typing import Any, Dict, List, Tuple, Union

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import space_of, to_digits
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.yaml_file import read_yaml_file

POOL = "pool"
MIN_CODES = 3
# Keys that the plan sets for each run. A study must not set them.
_OWN = ("runtime.output_dir", "runtime.experiment_name", "network.arch_code", "train.supernet_mode", "train.seed")


@dataclasses.dataclass(frozen=True)
class Study:
    """The fields of STUDY.yaml. `origin` is the file, for messages."""

    output: str
    config: str = ""
    settings: Dict[str, Any] = dataclasses.field(default_factory=dict)
    codes: Union[str, Tuple[str, ...]] = POOL
    baseline: bool = True
    alone_seeds: Tuple[int, ...] = (42, 43, 44)
    strict_seeds: Tuple[int, ...] = (42, 43)
    uniform_seeds: Tuple[int, ...] = (42,)
    budgets: Tuple[float, ...] = (1,)
    origin: str = ""

    def record(self) -> Dict[str, Any]:
        """The fields that define the study, as plain JSON: all but `output` and `origin`."""
        fields = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
            if name not in ("output", "origin")
        }

    def base(self) -> Config:
        """The supernet's configuration."""
        return configuration.load(self.config or None, dict(self.settings))[0]

    def arch_codes(self, space: SearchSpace, config: Config) -> Tuple[List[str], List[str]]:
        """(codes of the statistic, codes shown beside it), in digits. Raises UserError for wrong or too few codes."""
        if self.codes == POOL:
            pool = build_pool(config.train.arch_seed, config.eval.pool_size, space)
            codes = [to_digits(code, space) for code in pool]
        else:
            codes = [self._digits(text, space) for text in self.codes]
        if len(codes) < MIN_CODES or len(set(codes)) < len(codes):
            raise UserError(f"{self.origin}: codes: expected at least {MIN_CODES} different codes, found {codes}")
        published = to_digits(space.baseline, space) if self.baseline and space.baseline else None
        return codes, [published] if published and published not in codes else []

    def _digits(self, text: str, space: SearchSpace) -> str:
        try:
            return to_digits(text, space)
        except ValueError as error:
            raise UserError(f"{self.origin}: codes: {error}") from error


def read_study(path: str) -> Study:
    """The study in a YAML file. Raises UserError that names the key, what was expected and what was found."""
    document = read_yaml_file(path)
    names = [field.name for field in dataclasses.fields(Study) if field.name != "origin"]
    if not isinstance(document, dict):
        raise UserError(f"{path}: expected the keys {', '.join(names)}, found {type(document).__name__}")
    for name in document:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            raise UserError(f"{path}: unknown key {name!r}{f'; did you mean {near[0]}?' if near else ''}")
    if "output" not in document:
        raise UserError(f"{path}: key output is missing: the folder of the study")
    values = {name: _checked(path, name, value) for name, value in document.items()}
    study = Study(origin=path, **values)
    _check(study)
    return study


def _checked(path: str, name: str, value: Any) -> Any:
    def refuse(wanted: str) -> UserError:
        return UserError(f"{path}: {name}: expected {wanted}, found {value!r}")

    if name in ("output", "config"):
        if not isinstance(value, str) or not value:
            raise refuse("a path")
    elif name == "settings":
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise refuse("`section.key: value` lines")
    elif name == "baseline":
        if not isinstance(value, bool):
            raise refuse("true or false")
    elif name == "codes":
        if value != POOL and not (isinstance(value, list) and all(isinstance(code, str) for code in value)):
            raise refuse(f"{POOL}, or a list of codes in quotes")
        return value if value == POOL else tuple(value)
    elif name == "budgets":
        if not _positive_numbers(value):
            raise refuse("a list of different numbers above 0")
        return tuple(sorted(value))
    else:
        if not isinstance(value, list) or not all(type(seed) is int and 0 <= seed < 2**32 for seed in value):
            raise refuse("a list of seeds")
        if len(set(value)) < len(value):
            raise refuse("different seeds")
        return tuple(value)
    return value


def _positive_numbers(value: Any) -> bool:
    numbers = isinstance(value, list) and all(type(one) in (int, float) and 0 < one < 1e6 for one in value)
    return numbers and bool(value) and len(set(value)) == len(value)


def _check(study: Study) -> None:
    for name in study.settings:
        if name in _OWN:
            raise UserError(f"{study.origin}: settings: {name} is what the study decides for each run; leave it out")
    if len(study.alone_seeds) == 1:
        raise UserError(f"{study.origin}: alone_seeds: one seed has no spread; name at least two, or none")
    if not study.strict_seeds:
        raise UserError(f"{study.origin}: strict_seeds: a study needs a supernet; name at least one seed")
    if not study.alone_seeds and len(study.strict_seeds) < 2 and not study.base().data.holdout:
        raise UserError(
            f"{study.origin}: nothing is compared: name alone_seeds, a second of strict_seeds, or data.holdout"
        )


def space_of_study(study: Study) -> SearchSpace:
    """The search space of a study. Raises UserError if the configuration is already narrowed to one arch code."""
    config = study.base()
    if config.network.arch_code:
        raise UserError(f"{study.origin}: network.arch_code: the study trains supernets; leave it empty")
    return space_of(config.network)
