"""The parts of a run folder that must not depend on how often the run was stopped."""

import csv
import glob
import hashlib
import io
import json
import os

from edgeflownas import config as configuration
from edgeflownas.run.checkpoint import CheckpointStore

EXACT_FILES = (
    "eval_epe_history.csv",
    "eval_epe_per_arch.csv",
    "train_steps.csv",
    "debug_trace.jsonl",
    "fairness_counts.json",
    "eval_pool_3.json",
    "eval_samples.npz",
    "eval_epe_samples.npz",
)
MANIFEST_KEYS = ("status", "global_step", "epoch", "best", "config_hash", "dataset", "parameter_count", "total_steps")


def snapshot(folder):
    """{part: what can be compared with ==}. Checkpoints are read through the store, so they verify."""
    store = CheckpointStore(os.path.join(folder, "checkpoints"))
    parts = {name: _digest(os.path.join(folder, name)) for name in EXACT_FILES}
    for which in ("last", "best"):
        generation = store.load(which)
        # The files hold every weight, every moving average, every optimizer slot and the global step.
        parts[which + " tensors"] = sorted((name, entry["sha256"]) for name, entry in generation.files.items())
        for key, value in generation.state.items():
            parts[f"{which} state: {key}"] = json.dumps(_portable(key, value), sort_keys=True)
    with open(os.path.join(folder, "train_manifest.json"), encoding="utf-8") as handle:
        manifest = json.load(handle)
    parts.update({"manifest: " + key: json.dumps(manifest.get(key), sort_keys=True) for key in MANIFEST_KEYS})
    parts["timing rows"] = [row[:2] for row in _rows(os.path.join(folder, "timing.csv"))]
    parts["tensorboard"] = events(os.path.join(folder, "tensorboard"))
    return parts


def differences(one, other):
    """Names of the parts in which two snapshots differ."""
    return sorted(name for name in set(one) | set(other) if one.get(name) != other.get(name))


def events(folder):
    """The scalars that TensorBoard would show, (tag, step, value), after its purge at each session start."""
    from edgeflownas.tfcompat import tf

    kept = []
    for path in sorted(
        glob.glob(os.path.join(glob.escape(folder), "events.*")), key=lambda path: (os.stat(path).st_mtime_ns, path)
    ):
        try:
            for event in tf.train.summary_iterator(path):
                if event.session_log.status == tf.SessionLog.START:
                    kept = [entry for entry in kept if entry[1] < event.step]
                kept += [
                    (value.tag, event.step, value.simple_value)
                    for value in event.summary.value
                    if value.WhichOneof("value") == "simple_value"
                ]
        except tf.errors.DataLossError:
            pass  # the tail of a process that was killed; TensorBoard skips it too
    return sorted(kept)


def _portable(key, value):
    """Removes what may differ: paths, and the length of the only file with times."""
    if key == "lengths":
        return {name: length for name, length in value.items() if name != "timing.csv"}
    if key == "config":
        stored = configuration.flat(configuration.from_dict(value))
        return {name: stored[name] for name, entry in configuration.KEYS.items() if entry.maths}
    return value


def _digest(path):
    if not os.path.exists(path):
        return "missing"
    with open(path, "rb") as handle:
        content = handle.read()
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def _rows(path):
    with io.open(path, newline="") as handle:
        return list(csv.reader(handle))
