"""Checks of the manifest: fields, types, agreement with configuration and last checkpoint, times. On `RunFolder`."""

import datetime
import re
from typing import Any, Dict

from edgeflownas import config as configuration
from edgeflownas.checks.folder import RunFolder, Wrong, expect
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.nas.search_space import require_same_space
from edgeflownas.network.layer_table import layer_table
from edgeflownas.run.manifest import (
    BEST,
    COMPLETED,
    DATASET_FIELDS,
    EARLY_STOPPED,
    FIELDS,
    RUNNING,
    STATUSES,
    UNSIGNED,
    VERSION_NAMES,
    stored_space,
)

GATE_STATES = ("valid", "missing", "stale", "edited", "broken", "failed")


def fields(run: RunFolder) -> str:
    wanted = list(FIELDS) + [BEST] + (["ranks"] if _states_ranks(run) else [])
    missing = [name for name in wanted if name not in run.manifest]
    if missing:
        raise Wrong("no field {}".format(", ".join(missing)), f"all of {len(wanted)}")
    for name, kind in FIELDS.items():
        if name != "git_dirty" or not _installed(run):
            run.field(name, kind)
    return f"all {len(wanted)} fields, of the right types"


def _states_ranks(run: RunFolder) -> bool:
    """Whether the manifest must have `ranks`. The first version, which had one rank only, did not write it."""
    try:
        run.field("config.runtime.distributed")
    except Wrong:
        return "ranks" in run.manifest
    return True


def _installed(run: RunFolder) -> bool:
    """Whether an installed package trained the run; it has a version and a digest instead of a commit."""
    stored = run.manifest.get("installed_source")
    return isinstance(stored, dict) and bool(
        isinstance(stored.get("version"), str) and re.fullmatch("[0-9a-f]{64}", str(stored.get("digest")))
    )


def config_hash(run: RunFolder) -> str:
    want = configuration.config_hash(run.config)
    expect("config_hash", run.field("config_hash"), want)
    return want


def config_origins(run: RunFolder) -> str:
    origins, values = run.field("config_origins", dict), configuration.flat(run.config)
    # The manifest of an older version has neither value nor origin of keys added since.
    stored = [f"{section}.{key}" for section, keys in run.field("config").items() for key in keys]
    expect("the keys of config_origins", sorted(origins), sorted(stored))
    for name, origin in origins.items():
        if not isinstance(origin, str) or not origin:
            raise Wrong(f"config_origins {name} {origin!r}", "a text")
        if origin == "default":
            expect(f"{name} (origin: default)", values[name], configuration.KEYS[name].default)
    return "every key has its origin"


def agreement(run: RunFolder) -> str:
    """The values that the manifest repeats agree with its configuration."""
    data, train = run.config.data, run.config.train
    want: Dict[str, Any] = {
        "seed": train.seed,
        "arch_seed": train.arch_seed,
        "num_epochs": train.num_epochs,
        "input_shape": [data.input_height, data.input_width, 6],
        "optimizer": train.optimizer,
        "lr": train.lr,
        "lr_schedule": train.lr_schedule,
        "wd": train.wd,
        "grad_clip": train.grad_clip,
    }
    for name, value in want.items():
        expect(name, run.field(name), value)
    if _states_ranks(run):
        ranks = run.whole("ranks", 1)
        if ranks > 1 and not (run.config.runtime.distributed and train.divides_into(ranks)):
            raise Wrong(f"ranks {ranks}", "1, or a number of ranks that --distributed can have with this batch")
    return ", ".join(f"{name} {value}" for name, value in want.items())


def schedule(run: RunFolder) -> str:
    samples, batch = run.whole("dataset.train", 1), run.config.train.batch_size
    per_epoch = run.whole("steps_per_epoch", 1)
    expect("steps_per_epoch", per_epoch, samples // batch)
    total = run.config.train.num_epochs * per_epoch
    expect("total_steps", run.field("total_steps"), total)
    step = run.whole("global_step")
    if step > total:
        raise Wrong(f"global_step {step}", f"at most total_steps {total}")
    expect("epoch", run.field("epoch"), step // per_epoch)
    return f"step {step} of {total}, {per_epoch} per epoch"


def commit(run: RunFolder) -> str:
    found, dirty = run.field("git_commit", str), run.field("git_dirty")
    if found == "unknown" and _installed(run):
        return "none: an installed package trained, version {version}, source digest {digest}".format(
            **run.field("installed_source")
        )
    if not re.fullmatch("[0-9a-f]{40}", found) or found == "0" * 40:
        raise Wrong(f"git_commit {found!r}", "40 hex digits: train from a git checkout")
    if type(dirty) is not bool:
        raise Wrong(f"git_dirty {dirty}", "true or false")
    return found + (", with uncommitted changes" if dirty else "")


def environment(run: RunFolder) -> str:
    versions = run.field("versions", dict)
    for name in VERSION_NAMES:
        found = run.field("versions." + name, str)
        if not found or (name != "platform" and not re.match(r"\d+\.\d+", found)):
            raise Wrong(f"versions.{name} {found!r}", "a version" if name != "platform" else "a text")
    for name in ("device", "command"):
        if not run.field(name, str).strip():
            raise Wrong(f"an empty {name}", "a text")
    return "TensorFlow {}, NumPy {}, Python {}, {}".format(
        versions["tensorflow"], versions["numpy"], versions["python"], run.field("device")
    )


def dataset(run: RunFolder) -> str:
    for name, kind in DATASET_FIELDS.items():
        run.field("dataset." + name, kind)
    found = run.field("dataset.fingerprint")
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise Wrong(f"dataset.fingerprint {found!r}", "64 hex digits")
    if run.field("dataset.source") not in ("lists", "folders", "synthetic"):
        raise Wrong("dataset.source {!r}".format(run.field("dataset.source")), "lists, folders or synthetic")
    if not run.field("dataset.base_path").startswith("/"):
        raise Wrong("dataset.base_path {!r}".format(run.field("dataset.base_path")), "an absolute path")
    return "{} training and {} validation samples".format(run.whole("dataset.train", 1), run.whole("dataset.val", 1))


def network(run: RunFolder) -> str:
    stored = run.field("search_space", dict)
    require_same_space(stored_space(stored), run.space, "the manifest")
    if "digest" in stored:
        expect("search_space", stored, run.space.as_record())
    want = supernet_parameters(layer_table(run.config.network.init_channels, run.space))
    expect("parameter_count", run.field("parameter_count"), want)
    return f"{want:,} parameters, {len(run.space.blocks)} choice blocks"


def gates(run: RunFolder) -> str:
    recorded = run.field("gates", dict)
    for gate in (1, 2, 3, 4):
        state = recorded.get(f"gate{gate}")
        if state not in GATE_STATES:
            raise Wrong(f"gate{gate} {state!r}", "one of {}".format(", ".join(GATE_STATES)))
    if type(recorded.get(UNSIGNED)) is not bool:
        raise Wrong(f"{UNSIGNED} {recorded.get(UNSIGNED)!r}", "true or false")
    return ", ".join(f"{name} {value}" for name, value in recorded.items())


def status(run: RunFolder) -> str:
    found = run.field("status")
    if found not in STATUSES:
        raise Wrong(f"status {found!r}", "one of {}".format(", ".join(STATUSES)))
    state, per_epoch = run.state("last"), run.whole("steps_per_epoch", 1)
    whole_run = state.step == run.whole("total_steps") and state.evaluations * per_epoch == state.step
    stopped = state.early_stop.wait >= run.config.eval.patience  # a resume with a new patience applies it at once
    want = EARLY_STOPPED if stopped else COMPLETED if whole_run else None
    if (want or found in (EARLY_STOPPED, COMPLETED)) and found not in (want, RUNNING):
        raise Wrong(f"status {found}", want or f"a status of an unfinished run: it is at step {state.step}")
    return found + ("" if run.settled else "; rows after the last checkpoint are allowed")


def times(run: RunFolder) -> str:
    """The times are in order: the start, the resumes, the last update."""
    marks = [("started", run.field("started", str))]
    for number, entry in enumerate(run.resumes(), 1):
        name = f"resume {number}"
        if entry["status_before"] not in STATUSES:
            raise Wrong("{}: status_before {!r}".format(name, entry["status_before"]), "a status")
        if not 0 <= entry["global_step"] <= run.whole("total_steps"):
            raise Wrong("{}: global_step {}".format(name, entry["global_step"]), "a step of the run")
        marks.append((name, entry["time"]))
    marks.append(("updated", run.field("updated", str)))
    for name, text in marks:
        try:
            datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            raise Wrong(f"{name} {text!r}", "a time like 2026-02-16T09:30:00Z")
    for (earlier, before), (later, after) in zip(marks, marks[1:]):
        if after < before:
            raise Wrong(f"{earlier} {before}, after {later} {after}", "times that rise")
    return f"{marks[0][1]} to {marks[-1][1]}, {len(marks) - 2} resumes"
