"""Small training runs for the clauses of gates 3 and 4, each made once per gate run, and readers of a run's files.

The runs are the project's commands in separate processes. The readers follow the specification's formats and share
nothing with the code under test, except TensorFlow's reader of checkpoint files.
"""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import filelock
import numpy as np

from gates import dataset, spaces
from gates.commands import ROOT, Done, run, workplace

CONFIG = "configs/supernet_fc2_180x240.yaml"
TRAIN = "python wrappers/run_supernet_train.py"
EVALUATE = "python -m edgeflownas.nas.supernet_eval"

# The shipped configuration, made small. There are eight training samples, and batches of BN re-estimation have one
# sample. So the shipped eight batches are all training samples, and the gates need not know how they are chosen.
SAMPLES, VALIDATION, BATCH, STEPS_PER_EPOCH, NUM_EPOCHS = 8, 3, 2, 4, 6
HEIGHT, WIDTH, CHANNELS, LR, WD, CLIP = dataset.HEIGHT, dataset.WIDTH, 2, 2e-3, 4e-5, 5.0
SIZE = {
    "data.input_height": HEIGHT,
    "data.input_width": WIDTH,
    "network.init_channels": CHANNELS,
    "eval.batch_size": 1,
    "train.lr": LR,
}
REAL = 2e-6  # relative tolerance: recorded reals are float32


def small_settings(**changed: Any) -> Dict[str, Any]:
    """The settings of a small run on the space under test. In names of `changed`, `__` stands for the key's dot."""
    settings = dict(SIZE, **{"train.batch_size": BATCH, "train.num_epochs": NUM_EPOCHS})
    if spaces.chosen().name != spaces.DEFAULT:
        settings["network.space"] = spaces.chosen().name
    return dict(settings, **{key.replace("__", "."): value for key, value in changed.items()})


def flags(settings: Dict[str, Any]) -> str:
    """Settings as command-line flags."""
    return " ".join(f"--set {key}={shlex.quote(str(value))}" for key, value in settings.items())


def small_train(data: Path, **changed: Any) -> str:
    """The training command of a small run; more flags may follow."""
    return f"{TRAIN} --config {CONFIG} --base_path {shlex.quote(str(data))} {flags(small_settings(**changed))}"


def once(tmp_path_factory: Any, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make(folder)` fills. The first worker of pytest-xdist that needs it makes it; all share it."""
    base = Path(str(tmp_path_factory.getbasetemp()))
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, finished = base / name, base / (name + ".made")
    with filelock.FileLock(str(base / (name + ".lock"))):
        if not finished.exists():
            shutil.rmtree(str(folder), ignore_errors=True)  # left by a `make` that failed
            folder.mkdir()
            make(workplace(folder))
            finished.touch()
    return folder


def logged(folder: Path, command: str, environment: Optional[Dict[str, str]] = None) -> Done:
    """Runs a command in `folder` and appends the result to `commands.jsonl` there, for the clauses."""
    done = run(command, folder, environment)
    with open(str(folder / "commands.jsonl"), "a") as log:
        log.write(json.dumps(done._asdict()) + "\n")
    return done


def batch(folder: Path, commands: List[str], environment: Optional[Dict[str, str]] = None) -> None:
    """Like `logged` for each command, but all in one process. RuntimeError if that process fails."""
    path = folder / "batch.json"
    path.write_text(json.dumps(commands))
    done = run(f"python -m gates.batch {shlex.quote(str(path))}", folder, environment)
    if done.code:
        raise RuntimeError(f"gates.batch ended with {done.code}: {done.err[-500:]}")


def ends(folder: Path) -> List[Done]:
    """The results of the commands that `logged` ran in `folder`, in order."""
    return [Done(**json.loads(line)) for line in (folder / "commands.jsonl").read_text().splitlines()]


def end_of(folder: Path, output: str, number: int = 0) -> Done:
    """The result of command number `number` (from 0) with this --output_dir."""
    words = f"--output_dir {shlex.quote(output)}"
    return [done for done in ends(folder) if f"{words} " in done.command + " "][number]


def logged_until(
    folder: Path,
    command: str,
    ready: Callable[[], bool],
    numbers: Sequence[int],
    meanwhile: Callable[[], Any] = lambda: None,
) -> None:
    """Like `logged`, but sends the signals `numbers` as soon as `ready()`. The process is paused when they are sent:
    `ready()` holds for the files as they are then, and `meanwhile()` runs before."""
    words = shlex.split(command)
    child = subprocess.Popen(
        [sys.executable] + words[1:],
        cwd=str(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        universal_newlines=True,
        # Shells start background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while child.poll() is None:
        if ready():
            _pause(child)
            if ready():
                break
            child.send_signal(signal.SIGCONT)  # it went on between the two looks
        time.sleep(0.005)
    try:
        meanwhile()
    finally:
        for number in [*numbers, signal.SIGCONT]:
            child.send_signal(number)
    out, err = child.communicate()
    with open(str(folder / "commands.jsonl"), "a") as log:
        log.write(json.dumps(Done(command, child.returncode, out, err)._asdict()) + "\n")


def _pause(child: Any) -> None:
    """Stops a process and waits until none of its threads runs, or until it has ended, which `poll` still tells."""
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


# The rows that a run may add after a signal: that of the step it is in, and one if the thread that takes the signal is
# kept waiting while Python's goes on.
SOON = 2


def far_from_its_end(rows: int, steps: int) -> bool:
    """Whether an epoch of `steps` steps has begun and has more than `SOON` steps to go."""
    return 0 < rows % steps < steps - SOON


def stopped_early_in_epoch(
    folder: Path,
    run: Path,
    name: str,
    command: str,
    steps: int,
    numbers: Sequence[int],
    meanwhile: Callable[[], Any] = lambda: None,
) -> None:
    """Like `logged_until`, after new rows in the folder `run` and far from the end of an epoch of `steps` steps. Writes
    to NAME.rows how many rows there are at the signal."""
    before = rows_of(folder / run)

    def ready() -> bool:
        return before < rows_of(folder / run) and far_from_its_end(rows_of(folder / run), steps)

    def paused() -> None:
        (folder / f"{name}.rows").write_text(str(rows_of(folder / run)))
        meanwhile()

    logged_until(folder, command, ready, numbers, paused)


def rows_of(run_folder: Path) -> int:
    """The number of rows in a run's table of steps; 0 if there is none yet."""
    steps = run_folder / "train_steps.csv"
    return len(table(steps)) if steps.exists() else 0


def snapshot(run_folder: Path, target: Path) -> None:
    """Copies a run folder; links stay links."""
    shutil.copytree(str(run_folder), str(target), symlinks=True)


# ---- readers of a run's files


def table(path: Path) -> List[Dict[str, str]]:
    """The rows of a CSV file, as texts."""
    with open(str(path), newline="") as handle:
        return list(csv.DictReader(handle))


def column(path: Path, name: str, kind: Any = float) -> np.ndarray:
    """One column of a CSV file; reals as float64."""
    return np.array([kind(row[name]) for row in table(path)])


def trace(run_folder: Path, event: str) -> List[Dict[str, Any]]:
    """The events of one kind in the debug trace."""
    lines = (run_folder / "debug_trace.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def generations(run_folder: Path) -> List[Tuple[Dict[str, Any], str]]:
    """(state, prefix) of every kept checkpoint, oldest first."""
    folders = sorted(
        (run_folder / "checkpoints" / "generations").glob("gen-*"), key=lambda path: path.name.split("-")[2]
    )
    return [
        (json.loads((folder / "state.json").read_text())["state"], str(folder / "model.ckpt")) for folder in folders
    ]


def prefix(run_folder: Path, which: str) -> str:
    """The prefix of the "best" or "last" checkpoint, as a user gives it to a Saver."""
    return str(run_folder / "checkpoints" / f"supernet_{which}.ckpt")


def tensors(checkpoint: str) -> Dict[str, np.ndarray]:
    """Every tensor of a checkpoint, by name."""
    from edgeflownas.tfcompat import tf

    reader = tf.train.load_checkpoint(checkpoint)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def restored_by_plain_saver(checkpoint: str) -> Dict[str, np.ndarray]:
    """Every variable, as a plain `tf.train.Saver` restores it into a graph that has only variables."""
    from edgeflownas.tfcompat import tf

    with tf.Graph().as_default(), tf.Session() as session:
        reader = tf.train.load_checkpoint(checkpoint)
        types = reader.get_variable_to_dtype_map()
        variables = {
            name: tf.Variable(tf.zeros(shape, types[name]), name=name)
            for name, shape in reader.get_variable_to_shape_map().items()
        }
        tf.train.Saver(variables).restore(session, checkpoint)
        return session.run(variables)


def weights_of(stored: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The trained variables among the tensors of a checkpoint."""
    return {name: value for name, value in stored.items() if name.split("/")[-1] in ("kernel", "gamma", "beta")}


def adam_slots(stored: Dict[str, np.ndarray]) -> Tuple[Dict[str, np.ndarray], Dict[str, np.ndarray]]:
    """Adam's first and second moments, by variable."""
    return tuple({name: stored[name + slot] for name in weights_of(stored)} for slot in ("/Adam", "/Adam_1"))  # type: ignore


def applied_gradient(before: Dict[str, np.ndarray], after: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The gradient that Adam applied between two states of its first moment: (m1 - 0.9 m0) / 0.1."""
    return {name: (moment.astype(np.float64) - 0.9 * before[name]) * 10 for name, moment in after.items()}


def applied_learning_rate(before: Dict[str, np.ndarray], after: Dict[str, np.ndarray], step: int) -> float:
    """The learning rate of cycle `step` (from 0), computed only from the checkpoints before and after it.

    Adam changes a weight by lr * sqrt(1 - 0.999^n) / (1 - 0.9^n) * m / (sqrt(v) + 1e-8), n = step + 1. The rounding of
    the float32 weights averages out in the quotient of inner products.
    """
    first, second = adam_slots(after)
    moved, direction = [], []
    for name in first:
        moved.append((before[name].astype(np.float64) - after[name]).ravel())
        direction.append((first[name].astype(np.float64) / (np.sqrt(second[name].astype(np.float64)) + 1e-8)).ravel())
    both = np.concatenate(moved), np.concatenate(direction)
    return float(both[0] @ both[1] / (both[1] @ both[1]) * (1 - 0.9 ** (step + 1)) / np.sqrt(1 - 0.999 ** (step + 1)))
