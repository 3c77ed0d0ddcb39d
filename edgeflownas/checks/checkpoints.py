"""Checks of a run's checkpoints and other files: intact, right step, right names. Built on `RunFolder`."""

import os

from edgeflownas import config as configuration
from edgeflownas.checks.folder import RunFolder, Wrong, expect
from edgeflownas.run import folder as names
from edgeflownas.run.checkpoint import BEST, LAST, link_name

# Files without a check of their own; they must exist.
REQUIRED_FILES = (names.REPORT, names.LOG, names.TIMING, names.EVENTS)


def last_checkpoint(run: RunFolder) -> str:
    """The last checkpoint is intact; its step is the manifest's (settled run) or one with a row in the steps' table."""
    state, generation = run.state("last"), run.generation("last")
    if run.settled:
        expect("step of the last checkpoint", state.step, run.whole("global_step"))
    elif state.step > len(run.steps):
        raise Wrong(f"step {state.step}", f"at most the {len(run.steps)} of the steps' file")
    return f"{generation.name}, step {state.step}, sizes and checksums match"


def best_checkpoint(run: RunFolder) -> str:
    """The best checkpoint is intact and of the epoch with the lowest mean EPE; before any evaluation, the last."""
    state, generation = run.state("best"), run.generation("best")
    done = run.state("last").evaluations
    if done == 0:
        expect("the best checkpoint", generation.name, run.generation("last").name)
        return f"{generation.name}, the last: nothing is evaluated yet"
    known = run.history.numbers.mean_epe[:done]
    if not len(known):
        raise Wrong("an empty history", f"{done} evaluations")
    want = int(known.argmin())
    expect("epoch of the best checkpoint", state.evaluations, want + 1)
    expect("step of the best checkpoint", state.step, int(run.history.numbers.global_step[want]))
    return f"{generation.name}, epoch {want + 1}, sizes and checksums match"


def prefixes(run: RunFolder) -> str:
    """The links `checkpoints/supernet_{last,best}.ckpt.*` lead to the files of the last and the best checkpoint."""
    for which in ("last", "best"):
        generation = run.generation(which)
        for file in generation.files:
            name = link_name(which, file)
            path = run.file(os.path.join(names.CHECKPOINTS, name))
            found, want = os.path.realpath(path), os.path.realpath(os.path.join(generation.path, file))
            if found != want or not os.path.isfile(path):
                raise Wrong(f"{name} leads to {os.path.relpath(found, run.folder)}", os.path.relpath(want, run.folder))
    return f"{LAST} and {BEST} lead to their generations"


def stored_state(run: RunFolder) -> str:
    """The last checkpoint records the same configuration, data and best evaluation as the manifest."""
    state, resumes = run.state("last"), run.resumes()
    stored = state.config
    # They may differ only after a resume without a commit so far, and only in the keys that it changed.
    accepted = resumes[-1]["changed"] if resumes and not run.settled else []
    differing = [name for name in configuration.diff(stored, run.config) if name not in accepted]
    if differing:
        raise Wrong("another {} in the checkpoint than in the manifest".format(", ".join(differing)), "the same")
    expect("steps_per_epoch of the checkpoint", state.steps_per_epoch, run.field("steps_per_epoch"))
    if not accepted:
        expect("config_hash of the checkpoint", run.generation("last").state["config_hash"], run.field("config_hash"))
        expect("dataset of the checkpoint", state.dataset, run.field("dataset.fingerprint"))
    if run.settled:
        expect("best of the checkpoint", state.standing()["best"], run.field("best"))
    return "configuration, data and best are the manifest's"


def lengths(run: RunFolder) -> str:
    """The tables have the lengths noted in the last checkpoint. Those of a run that is not settled may be longer."""
    noted = run.state("last").lengths
    for name, want in noted.items():
        path = run.file(name)
        size = os.path.getsize(path) if os.path.isfile(path) else -1
        if size != want and (run.settled or size < want):
            raise Wrong(f"{name} of {size} bytes" if size >= 0 else f"no {name}", f"{want} bytes")
    return f"{len(noted)} tables have the lengths noted in the checkpoint"


def files(run: RunFolder) -> str:
    wanted = REQUIRED_FILES + ((names.SAMPLES,) if run.state("last").evaluations else ())
    missing = [name for name in wanted if not os.path.exists(run.file(name))]
    if missing:
        raise Wrong("no {}".format(", ".join(missing)), "all of {}".format(", ".join(wanted)))
    return ", ".join(wanted)
