"""Small checkpoint stores whose files tell which step wrote them, and what a reader finds in a store."""

import os

import pytest

from edgeflownas.run.checkpoint import CheckpointStore

DATA = "model.ckpt.data-00000-of-00001"


def model(step):
    """A writer whose files name the step; like TensorFlow's Saver it leaves a `checkpoint` file too."""

    def write(prefix):
        for suffix in ("index", "data-00000-of-00001"):
            with open(f"{prefix}.{suffix}", "wb") as handle:
                handle.write(f"{suffix} of {step}\n".encode() * 101)
        with open(os.path.join(os.path.dirname(prefix), "checkpoint"), "w") as handle:
            handle.write("junk")

    return write


def save(store, step, best=False):
    return store.commit(model(step), {"step": step, "loss": 0.1 * step}, is_best=best)


def store_at(path, steps=(), best=()):
    store = CheckpointStore(str(path), warn=pytest.fail)
    for step in steps:
        save(store, step, best=step in best)
    return store


def steps_by_prefix(folder):
    """Which step a reader of the fixed prefixes finds: (last, best). Fails on a mix of two generations."""
    found = []
    for name in ("last", "best"):
        steps = set()
        for suffix in ("index", "data-00000-of-00001"):
            with open(os.path.join(str(folder), f"supernet_{name}.ckpt.{suffix}"), "rb") as handle:
                steps.add(int(handle.readline().split()[-1]))
        assert len(steps) == 1
        found.append(steps.pop())
    return tuple(found)


def generations(folder):
    return sorted(int(name.split("-")[1]) for name in os.listdir(os.path.join(str(folder), "generations")))


def warned(folder):
    """(generation that a resume would use, the warnings it gave)."""
    warnings = []
    return CheckpointStore(str(folder), warn=warnings.append).newest_valid(), warnings
