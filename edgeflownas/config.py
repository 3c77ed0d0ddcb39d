"""Typed configuration: defaults here, then a YAML file, then the command line; the later one wins.

Built on dataclasses and `yaml_file`. Every field has its help text, bounds and command line flag, so that `--help`, the
dry-run table, the configuration reference and the checks cannot disagree. An unknown key, a wrong type or a value out
of bounds is a `UserError` that names the key.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edgeflownas.arguments import check_utf8
from edgeflownas.errors import UserError, nearest
from edgeflownas.yaml_file import read_yaml_file

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _opt(default: Any, text: str, **details: Any) -> Any:
    """A field. Details: `flag`, `choices`, `low` and `high` (inclusive), `above` (exclusive), `maths` (False: not in
    the hash), `first_version` (the value in files that were written before the key existed), `number_too` (a text that
    YAML may spell as a whole number), `path` (~ is the home folder)."""
    return dataclasses.field(default=default, metadata=dict(details, help=text))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where FlyingChairs2 is, its validation set, the crop, and the clip of the targets."""

    base_path: str = _opt(
        "data/FlyingChairs2",
        "folder that holds FlyingChairs2's train/ (and val/)",
        flag="--base_path",
        maths=False,
        path=True,
    )
    list_dir: str = _opt(
        "",
        "folder of FC2_dirnames.txt, FC2_train.txt, FC2_test.txt; empty: base_path if they are there, "
        "else the folders train/ and val/",
        flag="--list_dir",
        maths=False,
        path=True,
    )
    holdout: int = _opt(0, "samples taken from the training list as validation set instead of FC2_test; 0: off", low=0)
    input_height: int = _opt(180, "crop height in pixels", low=64, flag="--input_height")
    input_width: int = _opt(240, "crop width in pixels", low=64, flag="--input_width")
    flow_clip: float = _opt(50.0, "training targets are clipped to this many pixels either way; 0: off", low=0.0)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The supernet."""

    module: str = _opt(
        "edgeflownas.network.MultiScaleResNet_supernet",
        "module that defines the supernet",
        flag="--network_module",
        choices=("edgeflownas.network.MultiScaleResNet_supernet",),
    )
    space: str = _opt(
        "edgeflownet_v1",
        "search space: what a code means (edgeflownas/nas/search_space.py)",
        flag="--space",
        first_version="edgeflownet_v1",
    )
    arch_code: str = _opt(
        "",
        "train the subnet of this one code alone, in digits; empty: the whole space",
        flag="--arch_code",
        first_version="",
    )
    init_channels: int = _opt(
        32, "channels of the first layer; all widths follow by doubling and halving", low=2, high=256
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training maths: seeds, sampling, schedule, optimizer and loss."""

    seed: int = _opt(42, "seed of weights, sample order and crops", low=0, high=2**32 - 1, flag="--seed")
    arch_seed: int = _opt(
        42, "seed of the fair cycles and of the evaluation pool", low=0, high=2**32 - 1, flag="--arch_seed"
    )
    supernet_mode: str = _opt(
        "strict_fairness",
        "strict_fairness: a cycle uses every option of every block once; "
        "uniform: independent random paths (single-path one-shot baseline)",
        flag="--supernet_mode",
        choices=("strict_fairness", "uniform"),
    )
    cycle_mode: str = _opt(
        "fused",
        "fused: the paths of a cycle in one run of the graph; sequential: one path per run, for small GPUs",
        flag="--cycle_mode",
        choices=("fused", "sequential"),
    )
    num_epochs: int = _opt(200, "epochs of the learning rate schedule", low=1, flag="--num_epochs")
    batch_size: int = _opt(32, "samples per cycle; all paths of a cycle see the same ones", low=1, flag="--batch_size")
    micro_batch_size: int = _opt(
        0,
        "split a batch into pieces of this many samples to save memory; BN then sees the piece, not the batch; 0: off",
        low=0,
        flag="--micro_batch_size",
    )
    lr: float = _opt(1e-4, "learning rate at the start of the cosine", above=0.0, flag="--lr")
    lr_schedule: str = _opt("cosine", "learning rate schedule, per step, to zero", choices=("cosine",))
    optimizer: str = _opt("adam", "optimizer (beta 0.9 and 0.999, epsilon 1e-8)", choices=("adam",))
    wd: float = _opt(
        4e-5,
        "weight decay: this times the sum of l2_loss over all convolution kernels is added to the loss",
        low=0.0,
        flag="--wd",
    )
    grad_clip: float = _opt(
        5.0, "bound of the global norm of a cycle's averaged gradient", above=0.0, flag="--grad_clip"
    )
    loss: str = _opt(
        "linear_softplus",
        "linear_softplus: multiscale loss with uncertainty; l1: its first term only",
        flag="--loss",
        choices=("linear_softplus", "l1"),
    )
    amp: bool = _opt(
        False,
        "mixed precision: on a GPU convolutions compute in float16, with a loss scale; changes nothing on a CPU",
        flag="--amp",
    )

    def divides_into(self, ranks: int) -> bool:
        """Whether each of `ranks` ranks gets the same number of whole micro-batches of every batch."""
        return self.micro_batch_size > 0 and self.batch_size % (ranks * self.micro_batch_size) == 0


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The evaluation that follows every epoch, and early stop."""

    pool_size: int = _opt(
        12, "subnets of the fixed evaluation pool, a multiple of a cycle's paths", flag="--eval_pool_size", low=1
    )
    bn_recal_batches: int = _opt(
        8,
        "batches over which a subnet's BN statistics are re-estimated before it is scored",
        flag="--bn_recal_batches",
        low=1,
    )
    batch_size: int = _opt(8, "samples per batch of BN re-estimation and of scoring", flag="--eval_batch_size", low=1)
    num_samples: int = _opt(
        0, "validation samples that are scored, from the front of the list; 0: all", flag="--eval_num_samples", low=0
    )
    patience: int = _opt(
        15, "stop early after this many evaluations in a row without improvement", low=1, flag="--patience"
    )
    min_delta: float = _opt(
        0.002, "an improvement lowers the mean EPE by more than this many pixels", low=0.0, flag="--min_delta"
    )


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """Where and how the run is carried out: no training maths, so none of it is in the hash."""

    gpu_device: str = _opt(
        "0",
        "number of the GPU, within CUDA_VISIBLE_DEVICES if that is set; -1 or empty: CPU",
        flag="--gpu_device",
        number_too=True,
    )
    deterministic: bool = _opt(False, "one thread on the CPU: the same bits on every run", flag="--deterministic")
    distributed: bool = _opt(
        False,
        "one of several processes that horovodrun, mpirun or srun starts: each trains its part of every batch; needs "
        "train.micro_batch_size",
        flag="--distributed",
        first_version=False,
    )
    exchange_timeout: float = _opt(
        600.0,
        "seconds that a rank waits for the others before it ends itself, with the stack of every thread",
        above=0.0,
        high=1e6,  # 11 days; Python's timers raise an error for very long waits
        first_version=600.0,
    )
    xla: bool = _opt(
        False,
        "compile the graph with XLA; on a CPU only under TF_XLA_FLAGS=--tf_xla_cpu_global_jit, and then slower",
        flag="--xla",
    )
    fast_mode: bool = _opt(
        False,
        "TensorBoard scalars every 100 steps instead of every 10, flushed every 200, 8 prefetched batches",
        flag="--fast_mode",
    )
    debug_trace: bool = _opt(
        False, "write debug_trace.jsonl: a line per cycle, evaluation and subnet", flag="--debug_trace"
    )
    num_workers: int = _opt(4, "threads that read and decode samples", low=1, high=256, flag="--num_workers")
    prefetch_batches: int = _opt(4, "batches decoded ahead of the step", low=1, high=64, flag="--prefetch_batches")
    save_every_steps: int = _opt(
        0, "also commit a checkpoint every so many steps; 0: after each epoch only", low=0, flag="--save_every_steps"
    )
    output_dir: str = _opt("outputs/supernet", "folder of the runs", flag="--output_dir", path=True)
    experiment_name: str = _opt(
        "", "sub-folder of output_dir for this run; empty: output_dir itself", flag="--experiment_name"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration; immutable once loaded."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)


class Key(NamedTuple):
    """One configuration key: `name` is `section.key`."""

    name: str
    default: Any
    help: str
    flag: Optional[str]
    choices: Optional[Tuple[str, ...]]
    maths: bool
    details: Any


_SECTIONS = {field.name: field.default_factory for field in dataclasses.fields(Config)}  # type: ignore


def _keys() -> Dict[str, Key]:
    keys = {}
    for section, cls in _SECTIONS.items():
        for field in dataclasses.fields(cls):  # type: ignore
            meta = field.metadata
            maths = meta.get("maths", True) and section != "runtime"
            keys[f"{section}.{field.name}"] = Key(
                f"{section}.{field.name}",
                field.default,
                meta["help"],
                meta.get("flag"),
                meta.get("choices"),
                maths,
                meta,
            )
    return keys


KEYS = _keys()
# For keys younger than the first version: the value that describes what that version did.
_FIRST_VERSION = {name: key.details["first_version"] for name, key in KEYS.items() if "first_version" in key.details}


def load(path: Optional[str] = None, overrides: Optional[Dict[str, Any]] = None) -> Tuple[Config, Dict[str, str]]:
    """Reads the defaults, the YAML file `path` (or a shipped one by its name), `overrides` ({"section.key": value or
    text}); the later one wins. UserError for anything wrong.

    Returns the configuration and the origin of each key: "default", the file's path, or "command line".
    """
    path = path and find(path)
    values = {name: key.default for name, key in KEYS.items()}
    origins = dict.fromkeys(KEYS, "default")
    layers = [(_read_yaml(path), path)] if path else []
    layers.append((overrides or {}, "command line"))
    for layer, origin in layers:
        for name, value in layer.items():
            values[name] = _checked(_known(name, origin), value, origin)
            origins[name] = origin
    return _build(values), origins


def find(name: str) -> str:
    """The path of the file that `--config` names: a path, or the name of a shipped configuration. UserError if none."""
    if os.path.exists(name) or os.path.basename(name) != name or name.endswith((".yaml", ".yml")):
        return name
    package = os.path.dirname(os.path.abspath(__file__))
    # Beside the package in a checkout, inside it if it was installed from a wheel.
    folders = [os.path.join(os.path.dirname(package), "configs"), os.path.join(package, "configs")]
    shipped = {
        file[:-5]: os.path.join(folder, file)
        for folder in folders
        for file in sorted(os.listdir(folder) if os.path.isdir(folder) else [])
        if file.startswith("supernet_") and file.endswith(".yaml")
    }
    if name not in shipped:
        raise UserError(
            "--config {}: no such file, and no configuration of that name{}; there are: {}".format(
                name, nearest(name, shipped), ", ".join(sorted(shipped))
            )
        )
    return shipped[name]


def to_dict(config: Config) -> Dict[str, Dict[str, Any]]:
    """Nested plain dictionary, for JSON and YAML."""
    return dataclasses.asdict(config)


def from_dict(stored: Any, origin: str = "stored configuration") -> Config:
    """The inverse of `to_dict`, checked like a YAML file. Only keys younger than the first version may be missing."""
    flat = dict(_FIRST_VERSION, **_flatten(stored, origin))
    missing = sorted(set(KEYS) - set(flat))
    if missing:
        raise UserError(f"{origin}: key {missing[0]} is missing")
    return _build({name: _checked(_known(name, origin), value, origin) for name, value in flat.items()})


def flat(config: Config) -> Dict[str, Any]:
    """{"section.key": value} in the order of the sections."""
    return _flatten(to_dict(config), "configuration")


def config_hash(config: Config) -> str:
    """SHA-256 (hex) over the keys that decide what training and evaluation compute; without paths and `runtime`.

    A key younger than the first version is left out while it describes what that version did. So old hashes stay valid.
    """
    missing = object()
    maths = {
        name: value
        for name, value in flat(config).items()
        if KEYS[name].maths and value != _FIRST_VERSION.get(name, missing)
    }
    return hashlib.sha256(json.dumps(maths, sort_keys=True).encode("utf-8")).hexdigest()


def diff(a: Config, b: Config) -> List[str]:
    """The keys in the hash in which two configurations differ."""
    flat_a, flat_b = flat(a), flat(b)
    return [name for name, key in KEYS.items() if key.maths and flat_a[name] != flat_b[name]]


def _build(values: Dict[str, Any]) -> Config:
    code = values["network.arch_code"]
    if re.fullmatch(r"\d(,\d)+", code):  # both spellings are the same configuration and have the same hash
        values = dict(values, **{"network.arch_code": code.replace(",", "")})
    sections = {}
    for section, cls in _SECTIONS.items():
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore
        sections[section] = cls(**{name: values[f"{section}.{name}"] for name in names})  # type: ignore
    for name in (key.name for key in KEYS.values() if key.details.get("path")):
        check_utf8(os.path.abspath(values[name]), name)  # including the current folder's name
    config = Config(**sections)
    micro, batch = config.train.micro_batch_size, config.train.batch_size
    if micro and batch % micro:
        raise UserError(
            f"train.micro_batch_size: {micro} does not divide train.batch_size {batch}; choose a divisor or 0"
        )
    if config.runtime.distributed and not micro:
        raise UserError(
            "runtime.distributed needs train.micro_batch_size: what batch norm sees must not depend on the number of "
            "ranks; set it to train.batch_size / ranks, or to a divisor of that"
        )
    if config.runtime.deterministic and config.runtime.xla:
        raise UserError(
            "runtime.deterministic and runtime.xla: XLA decides while it runs what it compiles, which changes last "
            "bits; leave one of them out"
        )
    if re.search(r"[/\\\0]|^\.", config.runtime.experiment_name):
        raise UserError(
            f"runtime.experiment_name: {config.runtime.experiment_name!r} must be a plain folder name, without "
            "slashes or a leading dot"
        )
    return config


def _read_yaml(path: str) -> Dict[str, Any]:
    document = read_yaml_file(path)
    return _flatten({} if document is None else document, path)


def _flatten(document: Any, origin: str) -> Dict[str, Any]:
    if not isinstance(document, dict):
        raise UserError(
            "{}: expected sections ({}), found {}".format(origin, ", ".join(_SECTIONS), type(document).__name__)
        )
    flattened = {}
    for section, entries in document.items():
        if section not in _SECTIONS:
            raise UserError(f"{origin}: unknown section {_show(section)}{nearest(str(section)[:100], _SECTIONS)}")
        if not isinstance(entries, dict):
            raise UserError(f"{origin}: section {section} must hold `key: value` lines, found {type(entries).__name__}")
        for name, value in entries.items():
            flattened[f"{section}.{name}"] = value
    return flattened


def _known(name: str, origin: str) -> Key:
    if name not in KEYS:
        raise UserError(f"{origin}: unknown key {_show(name)}{nearest(name[:100], KEYS)}")
    return KEYS[name]


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _checked(key: Key, value: Any, origin: str) -> Any:
    """`value` as the type of the key's default, within its bounds."""
    kind = type(key.default)
    from_text = origin == "command line" and isinstance(value, str)
    if kind is str:
        whole = type(value) is int and key.details.get("number_too")
        result: Any = "" if value is None else str(value) if whole else value
    elif kind is bool:
        result = {"true": True, "false": False}.get(value.lower(), value) if from_text else value
    else:
        result = _number(value, kind, from_text)
    if type(result) is not kind or (kind is str and "\0" in result):
        # YAML reads a code such as 210012011 as a number.
        hint = "; put it in quotes" if kind is str and type(value) is int else ""
        raise UserError(f"{origin}: {key.name}: expected {_TYPE_NAMES[kind]}, found {_show(value)}{hint}")
    _check_bounds(key, result, origin)
    return _text(key, result, origin) if kind is str else result


def _text(key: Key, value: str, origin: str) -> str:
    """The text, checked to be UTF-8. Expands the ~ of a path, because no shell does it in a YAML file."""
    if key.details.get("path"):
        value = os.path.expanduser(value)
    check_utf8(value, f"{origin}: {key.name}")
    return value


_TYPE_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _number(value: Any, kind: type, from_text: bool) -> Any:
    # YAML 1.1 reads 1e-4 (no dot) as text, so text that spells a number counts as one for a real field.
    if isinstance(value, str) and len(value) < 40 and (from_text or kind is float) and _NUMBER.fullmatch(value):
        number = float(value)
        return number if kind is float else (int(value) if re.fullmatch(r"[+-]?\d+", value) else value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


def _check_bounds(key: Key, value: Any, origin: str) -> None:
    details = key.details
    problem = None
    if key.choices and value not in key.choices:
        problem = "must be " + " or ".join(key.choices)
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "must be finite"
    elif details.get("low") is not None and value < details["low"]:
        problem = "must be at least {}".format(details["low"])
    elif details.get("high") is not None and value > details["high"]:
        problem = "must be at most {}".format(details["high"])
    elif details.get("above") is not None and value <= details["above"]:
        problem = "must be greater than {}".format(details["above"])
    if problem:
        raise UserError(f"{origin}: {key.name}: {problem}, found {_show(value)}")
