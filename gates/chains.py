"""The runs of gate 3: one uninterrupted, one stopped between epochs, one stopped twice in mid-run, and the three
commands.

Each chain of commands works in a folder of its own, with copies of the run taken between the commands. All are
deterministic and keep a checkpoint of every step (the last two stay), so that single updates can be looked at.
"""

import hashlib
import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from gates import oracles, runs
from gates.asserts import assert_close, assert_equal
from gates.commands import assert_succeeded

RUN = Path("outputs") / "supernet"
EPOCHS, FIRST_EPOCHS, MID_EPOCH_STEP = 5, 3, 5  # step 5 lies in the second epoch of 3 steps
STEPS, TOTAL_STEPS = EPOCHS * runs.STEPS_PER_EPOCH, runs.NUM_EPOCHS * runs.STEPS_PER_EPOCH
EXACT_FILES = (
    "eval_epe_history.csv",
    "eval_epe_per_arch.csv",
    "train_steps.csv",
    "debug_trace.jsonl",
    "eval_pool_12.json",
    "fairness_counts.json",
)
FLAGS = "--deterministic --debug_trace --set runtime.save_every_steps=1"


def make_whole(folder: Path, data: Path) -> None:
    """Trains without a break."""
    assert_succeeded(runs.logged(folder, f"{_train(data)} --max_epochs {EPOCHS}"))


def make_resumed(folder: Path, data: Path) -> None:
    """Stops after three epochs and goes on."""
    assert_succeeded(runs.logged(folder, f"{_train(data)} --max_epochs {FIRST_EPOCHS}"))
    runs.snapshot(folder / RUN, folder / "after_three")
    assert_succeeded(runs.logged(folder, f"{_train(data)} --resume --max_epochs {EPOCHS}"))


def make_midway(folder: Path, data: Path) -> None:
    """Stops by --max_steps in mid-epoch, then by SIGTERM wherever it falls, then goes on to the end."""
    steps = folder / RUN / "train_steps.csv"
    assert_succeeded(runs.logged(folder, f"{_train(data)} --max_steps {MID_EPOCH_STEP}"))
    runs.snapshot(folder / RUN, folder / "mid_epoch")
    runs.logged_until(
        folder,
        f"{_train(data)} --resume --max_epochs {EPOCHS}",
        lambda: steps.exists() and len(runs.table(steps)) > MID_EPOCH_STEP,
        signal.SIGTERM,
    )
    runs.logged(folder, f"{_train(data)} --resume --max_epochs {EPOCHS}")


def _train(data: Path) -> str:
    return f"{runs.small_train(data)} {FLAGS}"


def make_three_commands(folder: Path) -> None:
    """The three commands of the execution gates, section 5, as they stand there but for names, data and size."""
    data = runs.small_data(folder / "data", train=30, test=2)
    size = dict(runs.SIZE, **{"train.batch_size": 1})
    small = f"--config {runs.CONFIG} --base_path {data} {runs.flags(size)}"
    runs.logged(folder, f"{runs.TRAIN} {small} --max_epochs 1 --max_steps 30 --debug_trace")
    runs.snapshot(folder / RUN, folder / "after_train")
    runs.logged(folder, f"{runs.EVALUATE} {small} --eval_only --bn_recal_batches 8")
    runs.snapshot(folder / RUN, folder / "after_eval")
    runs.logged(folder, f"{runs.TRAIN} {small} --max_epochs 3")
    runs.logged(folder, f"{runs.TRAIN} {small} --resume --max_epochs 5")


def contents(folder: Path) -> Dict[str, Any]:
    """Digest of every file below a run folder, or where a link leads; without archive and locks."""
    found: Dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == "previous" or path.name.startswith(".") or path.name.endswith(".lock"):
            continue
        if path.is_symlink():
            found[name] = "-> " + os.readlink(str(path))
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differing(before: Dict[str, Any], after: Dict[str, Any]) -> List[str]:
    """The files of `before` that `after` lacks or has otherwise."""
    return [name for name in before if after.get(name) != before[name]]


def assert_on_the_cosine(folder: Path) -> None:
    """Every row of the steps' file, and the rate that Adam applied between the last two checkpoints."""
    __tracebackhide__ = True
    want = [oracles.cosine(step, runs.LR, TOTAL_STEPS) for step in range(STEPS)]
    got = runs.column(folder / "train_steps.csv", "lr")
    assert_close(what="learning rates", got=got, want=want, rtol=runs.REAL)
    assert_last_rate(folder, STEPS)


def assert_last_rate(folder: Path, steps: int) -> None:
    """The rate that Adam applied between the checkpoints of step `steps` - 1 and `steps`, the last two, is the
    cosine's."""
    __tracebackhide__ = True
    (before, earlier), (after, later) = runs.generations(folder)[-2:]
    assert_equal(what="steps of the last two checkpoints", got=[before["step"], after["step"]], want=[steps - 1, steps])
    applied = runs.applied_learning_rate(runs.tensors(earlier), runs.tensors(later), steps - 1)
    want = oracles.cosine(steps - 1, runs.LR, TOTAL_STEPS)
    assert_close(what="rate that Adam applied", got=applied, want=want, rtol=1e-3, step=steps - 1)


def comparable_state(state: Dict[str, Any]) -> Dict[str, Any]:
    """A checkpoint's state without what two equal runs may differ in: the bytes of the timing table."""
    lengths = {name: size for name, size in state["lengths"].items() if name != "timing.csv"}
    return json.loads(json.dumps(dict(state, lengths=lengths)))


def assert_same_run(got: Path, want: Path) -> None:
    """Every tensor of last and best, every row, the trace, the pool, the counts, the samples and the state."""
    __tracebackhide__ = True
    for which in ("last", "best"):
        left, right = runs.tensors(runs.prefix(got, which)), runs.tensors(runs.prefix(want, which))
        assert_equal(what="tensors of " + which, got=sorted(left), want=sorted(right))
        different = [name for name in right if left[name].tobytes() != right[name].tobytes()]
        assert_equal(what=f"tensors of {which} that differ", got=different, want=[])
    for name in EXACT_FILES:
        left, right = [(folder / name).read_text().splitlines() for folder in (got, want)]
        different = [line for line, pair in enumerate(itertools.zip_longest(left, right), 1) if pair[0] != pair[1]]
        assert_equal(what=f"lines of {name} that differ", got=different, want=[])
    samples = [np.load(str(folder / "eval_samples.npz"), allow_pickle=False) for folder in (got, want)]
    assert_equal(what="arrays of samples", got=sorted(samples[0].files), want=sorted(samples[1].files))
    for name in samples[1].files:
        assert_equal(what="samples, " + name, got=samples[0][name].tobytes(), want=samples[1][name].tobytes())
    states = [comparable_state(runs.generations(folder)[-1][0]) for folder in (got, want)]
    for key in states[1]:
        assert_equal(what="state, " + key, got=states[0].get(key), want=states[1][key])
