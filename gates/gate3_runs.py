"""The runs of gate 3: an uninterrupted one, one stopped between epochs, one stopped and killed in mid-run, the three
commands of the specification, and variants of the first.

Each chain of commands has its own folder, with copies of the run taken between the commands. All runs are deterministic
and commit every step (the last two checkpoints are kept), so that clauses can check single updates.
"""

import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from gates import dataset, oracles, runs, spaces
from gates.asserts import assert_close, assert_equal
from gates.commands import assert_succeeded
from gates.keys import CHANGED

RUN = Path("outputs") / "supernet"
EPOCHS, FIRST_EPOCHS, MID_EPOCH_STEP = 5, 3, 5  # step 5 lies in the second epoch of 4 steps
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
SOMETIMES_CLIPPED = 700.0  # a clip between the norms of the first steps, most of which are above 300
# An epoch and its evaluation with the initial weights: rounding removes updates with this learning rate.
STANDSTILL, ONE_EPOCH = {"train.lr": 1e-30}, f"--max_steps {runs.STEPS_PER_EPOCH}"


def make_whole(folder: Path, data: Path) -> None:
    """Trains without interruption."""
    assert_succeeded(runs.logged(folder, f"{_train(data)} --max_epochs {EPOCHS}"))


def make_resumed(folder: Path, data: Path) -> None:
    """Stops after three epochs and resumes."""
    assert_succeeded(runs.logged(folder, f"{_train(data)} --max_epochs {FIRST_EPOCHS}"))
    runs.snapshot(folder / RUN, folder / "after_three")
    assert_succeeded(runs.logged(folder, f"{_train(data)} --resume --max_epochs {EPOCHS}"))


def make_midway(folder: Path, data: Path) -> None:
    """Stops by --max_steps in mid-epoch; resumes and is killed some steps later, before the next commit; resumes and is
    stopped by SIGTERM at any moment; resumes to the end."""
    onwards = f"{_train(data)} --resume --max_epochs {EPOCHS}"
    assert_succeeded(runs.logged(folder, f"{_train(data)} --max_steps {MID_EPOCH_STEP}"))
    runs.snapshot(folder / RUN, folder / "mid_epoch")
    seldom = onwards + " --set runtime.save_every_steps=0"
    runs.logged_until(folder, seldom, lambda: runs.rows_of(folder / RUN) > MID_EPOCH_STEP, [signal.SIGKILL])
    runs.snapshot(folder / RUN, folder / "killed")
    runs.stopped_early_in_epoch(folder, RUN, "terminated", onwards, runs.STEPS_PER_EPOCH, [signal.SIGTERM])
    runs.snapshot(folder / RUN, folder / "terminated")
    runs.logged(folder, onwards)


def make_signalled(folder: Path, data: Path) -> None:
    """Stops by SIGINT while a second run tries to use the folder; resumes and stops by SIGUSR1. A run of one subnet
    gets SIGUSR1 and at once SIGTERM. Batches of one sample make an epoch long enough to stop in it."""
    longer, steps, stop = {"train__batch_size": 1}, runs.SAMPLES, runs.stopped_early_in_epoch
    command = f"{runs.small_train(data, **longer)} --deterministic --debug_trace --max_epochs {EPOCHS}"
    stop(folder, RUN, "after_130", command, steps, [signal.SIGINT], lambda: runs.logged(folder, command))
    runs.snapshot(folder / RUN, folder / "after_130")
    stop(folder, RUN, "after_138", command + " --resume", steps, [signal.SIGUSR1])
    runs.snapshot(folder / RUN, folder / "after_138")
    alone, both = f"{_alone(data, **longer)} --debug_trace --max_epochs {EPOCHS}", [signal.SIGUSR1, signal.SIGTERM]
    stop(folder, Path("two_signals"), "two_signals", f"{alone} --output_dir two_signals", steps, both)


def _train(data: Path, **changed: Any) -> str:
    return f"{runs.small_train(data, **changed)} {FLAGS}"


def _alone(data: Path, **changed: Any) -> str:
    """A run of one subnet, whose graph is quickly built."""
    code = "".join(map(str, spaces.chosen().fair_codes()[0]))
    return f"{runs.small_train(data, **changed)} --deterministic --arch_code {code} --eval_pool_size 1"


def make_variants(folder: Path, data: Path) -> None:
    """Runs the same training with one change each, in output folders named after the change."""
    other = spaces.chosen().fair_codes(1)[0]
    only = "".join(map(str, other))
    variants: Dict[str, Tuple[str, Dict[str, Any]]] = {
        "fast": (f"--fast_mode --num_workers 1 --prefetch_batches 1 --max_epochs {FIRST_EPOCHS}", {}),
        "other_evaluation": (
            f"--eval_pool_size 6 --bn_recal_batches 2 --eval_num_samples 1 --max_epochs {FIRST_EPOCHS}",
            {"eval.batch_size": 2},
        ),
        "first": (f"{ONE_EPOCH} --verify_data", STANDSTILL),
        "seed": (f"{ONE_EPOCH} --seed 43", STANDSTILL),
        "arch_seed": (f"{ONE_EPOCH} --arch_seed 43", STANDSTILL),
        "sequential": (f"--cycle_mode sequential --max_steps {MID_EPOCH_STEP}", {}),
        "pieces": ("--micro_batch_size 1 --cycle_mode sequential --max_steps 3", {"train.batch_size": 3}),
        "alone": (
            f"--arch_code {only} --eval_pool_size 1 --max_steps {MID_EPOCH_STEP}",
            {"train.grad_clip": SOMETIMES_CLIPPED},
        ),
        "hundred": (
            f"--arch_code {only} --eval_pool_size 1 --eval_num_samples 1 --bn_recal_batches 1 --fast_mode "
            "--max_steps 101 --unsigned --set runtime.save_every_steps=0",
            {"train.num_epochs": 30, "train.batch_size": 1},
        ),
    }
    commands = [
        f"{_train(data, **settings)} --output_dir {name} {words}" for name, (words, settings) in variants.items()
    ]
    runs.batch(folder, commands)


def make_changed(folder: Path) -> None:
    """Runs with every key changed; then from that run's weights; then from weights that do not exist."""
    dataset.make(folder / "there" / "FlyingChairs2", 10, 2, seed=5, lists=folder / "lists", size=(68, 72))
    words = f"{runs.TRAIN} --config {runs.CONFIG}{spaces.flag()}"
    parent = CHANGED["runtime.experiment_name"]
    fused = {"train.supernet_mode": "strict_fairness", "train.cycle_mode": "fused"}  # quicker to build
    child = dict(CHANGED, **STANDSTILL, **fused, **{"runtime.experiment_name": "child"})
    lost = dict(child, **{"runtime.output_dir": "nowhere"})
    runs.batch(
        folder,
        [
            f"{words} {runs.flags(CHANGED)}",
            f"{words} {runs.flags(child)} --load_checkpoint --resume_experiment_name {parent} --max_steps 1",
            f"{words} {runs.flags(lost)} --load_checkpoint --resume_experiment_name nobody --max_steps 1",
        ],
    )


def make_odd_ends(folder: Path, data: Path, whole: Path) -> None:
    """Resumes copies of the uninterrupted run with damaged checkpoints, a run that does not exist, and a finished run,
    also on other data: another layout, and each of `OTHER_DATA`; scores it on the last of these. Trains on the other
    layout, and with a learning rate that soon makes the loss not finite."""
    for name in ("damaged", "ruined"):
        runs.snapshot(whole, folder / name)
    newest = runs.generations(folder / "damaged")[-1][1]
    for prefix in [newest] + [prefix for _, prefix in runs.generations(folder / "ruined")]:
        damage(next(Path(prefix).parent.glob("model.ckpt.data-*")))
    folders = dataset.as_folders(dataset.found(data), folder / "folders")
    other = make_other_data(data, folder)
    onwards, once = f"{_train(data)} --resume --max_epochs {EPOCHS} --output_dir", {"train.num_epochs": 1}
    runs.batch(
        folder,
        [
            f"{onwards} damaged",
            f"{onwards} ruined",
            f"{onwards} nothing",
            f"{_train(folders.folder, **STANDSTILL)} {ONE_EPOCH} --output_dir layout",
            f"{_train(data, train__lr=1e30)} --output_dir diverging --max_epochs 2",
            f"{_train(data, **once)} --output_dir finished",
            f"{_train(other['moved'], **once)} --output_dir finished --resume",
            f"{_train(data, **once)} --output_dir finished --resume --wd 0.5 --grad_clip 3",
            f"{_train(folders.folder, **once)} --output_dir finished --resume",
            *[f"{_train(other[name], **once)} --output_dir finished --resume" for name in OTHER_DATA],
            f"{runs.EVALUATE} --output_dir finished --base_path {shlex.quote(str(other[OTHER_DATA[-1]]))}",
        ],
    )


OTHER_DATA = (
    "training order",
    "validation order",
    "validation sample less",
    "samples exchanged",
    "boundary moved",
    "larger frame",
)


def make_other_data(data: Path, parent: Path) -> Dict[str, Path]:
    """A copy of the data set, "moved", and copies that differ from it in one thing each."""
    there = {name: parent / "other" / name.replace(" ", "_") for name in ("moved", *OTHER_DATA)}
    for copy in there.values():
        shutil.copytree(str(data), str(copy))
    train, val = [(data / f"FC2_{part}.txt").read_text().split() for part in ("train", "test")]
    for name, lists in {
        "training order": (train[::-1], val),
        "validation order": (train, val[::-1]),
        "validation sample less": (train, val[:-1]),
        "samples exchanged": (val[:1] + train[1:], train[:1] + val[1:]),
        "boundary moved": (train + val[:1], val[1:]),  # the same sequence and, with batches of two, number of steps
    }.items():
        for part, lines in zip(("train", "test"), lists):
            (there[name] / f"FC2_{part}.txt").write_text("\n".join(lines) + "\n")
    larger = dataset.found(data).val[0]
    dataset.write_sample(there["larger frame"], larger, 5, dataset.FRAME_HEIGHT + 1, dataset.FRAME_WIDTH)
    return there


def damage(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def make_scores(folder: Path, data: Path, whole: Path) -> None:
    """Runs `supernet_eval` on a copy of the uninterrupted run, with all ways to give codes; then into a table that has
    the codes: by other settings, at another checkpoint and on data that counts as other, and by the same command."""
    runs.snapshot(whole, folder / "run")
    codes = ["".join(map(str, code)) for code in spaces.chosen().fair_codes(4)[:2]]
    (folder / "codes.txt").write_text("\n".join([",".join(codes[1]), codes[0]]) + "\n")
    command = f"{runs.EVALUATE} --output_dir run --deterministic --eval_only"
    again = f"{command} --codes {','.join(codes)} --output codes.csv"
    runs.batch(
        folder,
        [
            f"{command} --checkpoint last --output pool.csv",
            f"{again} --checkpoint best",
            f"{command} --codes_file codes.txt --output file.csv --checkpoint last",
            f"{command} --random 3 --random_seed 1 --output random.csv --checkpoint last",
            f"{command} --random 3 --random_seed 2 --output other.csv --checkpoint last --bn_recal_batches 3",
            f"{again} --checkpoint last --bn_recal_batches 3 --eval_num_samples 2 --set eval.batch_size=2 "
            f"--other_data --base_path {shlex.quote(str(data))}",
            f"{again} --checkpoint best",
        ],
    )


def make_evaluating(folder: Path, data: Path, whole: Path) -> None:
    """Is killed as soon as the second epoch is committed, before its evaluation ends; resumes to that epoch's end, with
    the trace and events of the uninterrupted run, which got further. A run of one subnet is killed in its schedule's
    last evaluation, after its only step, and resumes without a trace, but with that run's."""
    command = f"{runs.small_train(data)} --deterministic --max_epochs 2"
    runs.logged_until(folder, command, lambda: _committed(folder / RUN) == 2 * runs.STEPS_PER_EPOCH, [signal.SIGKILL])
    runs.snapshot(folder / RUN, folder / "killed")
    shutil.rmtree(str(folder / RUN / "tensorboard"))
    shutil.copytree(str(whole / "tensorboard"), str(folder / RUN / "tensorboard"))
    shutil.copy(str(whole / "debug_trace.jsonl"), str(folder / RUN))
    runs.logged(folder, f"{command} --resume --debug_trace")
    one_step = {"train.num_epochs": 1, "train.batch_size": runs.SAMPLES}
    command = f"{_alone(data, **one_step)} --output_dir last"
    runs.logged_until(folder, command, lambda: _committed(folder / "last") == 1, [signal.SIGKILL])
    runs.snapshot(folder / "last", folder / "killed_at_the_end")
    shutil.copy(str(whole / "debug_trace.jsonl"), str(folder / "last"))
    runs.logged(folder, f"{command} --resume")


def _committed(run: Path) -> int:
    """The step of the last checkpoint; 0 if there is none."""
    state = run / "checkpoints" / "last" / "state.json"
    return json.loads(state.read_text())["state"]["step"] if state.exists() else 0


PATTERN = "sweep [lr=1e-3] {a} *?"  # a run folder's name that can be read as a glob pattern
BACKSLASH = "runs\\allowed"  # another such name: in a pattern the backslash stands for nothing
PATTERNS = ("[lr=1e-3]", "{a,b}", "a*b", "what?")  # one kind of character each: a name of all hides that one is lost
FOREIGN = ("resumed", "loaded", "edited")
FOREIGN_POOL = "foreign_pool"  # a run whose pool is not the one that its arch_seed gives


def make_folders(folder: Path, data: Path, whole: Path, variants: Path) -> None:
    """Resumes and loads copies of the uninterrupted run as another space's, resumes one with an edited pool and a run
    with a foreign pool; trains, resumes and scores in a folder named like a pattern; resumes with --allow_changed, in
    another such folder, with one and with two keys changed; scores copies of a run of one subnet in folders
    of such names; makes two synthetic sets with one seed and one with another."""
    for name in FOREIGN:
        runs.snapshot(whole, folder / name)
    runs.snapshot(variants / "first", folder / FOREIGN_POOL)
    shutil.copy(str(variants / "arch_seed" / "eval_pool_12.json"), str(folder / FOREIGN_POOL / "eval_pool_12.json"))
    for name in PATTERNS:
        runs.snapshot(variants / "alone", folder / name)
    pool = folder / "edited" / "eval_pool_12.json"
    pool.write_text(pool.read_text().replace(spaces.chosen().digest, "0" * 64))
    there = {"network__space": next(name for name in spaces.SPACES if name != spaces.chosen().name)}
    code, alone = "".join(map(str, spaces.chosen().fair_codes()[0])), f"{_alone(data)} {FLAGS}"
    short = f"--max_epochs {EPOCHS}"  # a longer run is refused for want of a sign-off
    in_pattern, allowed = [f"--output_dir {shlex.quote(name)}" for name in (PATTERN, BACKSLASH)]
    synthetic = "python -m edgeflownas.data.synthetic --train 3 --test 2 --height 96 --width 128"
    runs.batch(
        folder,
        [
            f"{_train(data, **there)} --resume --output_dir resumed {short}",
            f"{_train(data, **there)} --output_dir . --experiment_name child --load_checkpoint "
            f"--resume_experiment_name loaded {short}",
            f"{_train(data)} --resume --output_dir edited {short}",
            f"{_train(data, **STANDSTILL)} --resume --output_dir {FOREIGN_POOL} --max_epochs 2",
            f"{alone} {in_pattern} --max_steps 2",
            f"{alone} {in_pattern} --max_steps 3 --resume",
            f"{runs.EVALUATE} {in_pattern} --deterministic --eval_only --codes {code}",
            f"{alone} {allowed} --max_steps 2",
            f"{alone} {allowed} --max_steps 3 --resume --wd 0.5 --grad_clip 3 --allow_changed train.wd",
            f"{alone} {allowed} --max_steps 3 --resume --wd 0.5 --allow_changed train.wd,train.lr",
            *[f"{runs.EVALUATE} --output_dir {shlex.quote(name)} --deterministic --eval_only" for name in PATTERNS],
            f"{synthetic} --seed 3 --out one",
            f"{synthetic} --seed 3 --out same --workers 1",
            f"{synthetic} --seed 4 --out other",
        ],
    )


def make_three_commands(folder: Path) -> None:
    """Runs the three commands of the execution gates, section 5, with our names, data and sizes."""
    data = dataset.make(folder / "data", 30, 2).folder
    size = runs.small_settings(train__batch_size=1)
    size.pop("train.num_epochs")
    small = f"--config {runs.CONFIG} --base_path {shlex.quote(str(data))} {runs.flags(size)}"
    runs.logged(folder, f"{runs.TRAIN} {small} --max_epochs 1 --max_steps 30 --debug_trace")
    runs.snapshot(folder / RUN, folder / "after_train")
    runs.logged(folder, f"{runs.EVALUATE} {small} --eval_only --bn_recal_batches 8")
    runs.snapshot(folder / RUN, folder / "after_eval")
    runs.logged(folder, f"{runs.TRAIN} {small} --max_epochs 3")
    runs.logged(folder, f"{runs.TRAIN} {small} --resume --max_epochs 5")


def contents(folder: Path) -> Dict[str, Any]:
    """{file: SHA-256, or a link's target} for a run folder, without archive and locks."""
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
    """The files of `before` that are missing or different in `after`."""
    return [name for name in before if after.get(name) != before[name]]


def assert_on_the_cosine(folder: Path) -> None:
    """Asserts that the learning rate of every row, and the one that Adam applied last, are on the cosine."""
    __tracebackhide__ = True
    want = [oracles.cosine(step, runs.LR, TOTAL_STEPS) for step in range(STEPS)]
    got = runs.column(folder / "train_steps.csv", "lr")
    assert_close(what="learning rates", got=got, want=want, rtol=runs.REAL)
    assert_last_rate(folder, STEPS)


def assert_last_rate(folder: Path, steps: int) -> None:
    """Asserts that Adam applied the cosine's rate between the last two checkpoints, of step `steps` - 1 and `steps`."""
    __tracebackhide__ = True
    (before, earlier), (after, later) = runs.generations(folder)[-2:]
    assert_equal(what="steps of the last two checkpoints", got=[before["step"], after["step"]], want=[steps - 1, steps])
    applied = runs.applied_learning_rate(runs.tensors(earlier), runs.tensors(later), steps - 1)
    want = oracles.cosine(steps - 1, runs.LR, TOTAL_STEPS)
    assert_close(what="rate that Adam applied", got=applied, want=want, rtol=1e-3, step=steps - 1)


def comparable_state(state: Dict[str, Any]) -> Dict[str, Any]:
    """A checkpoint's state without what may differ in equal runs: the length of the timing table, and `runtime.*`."""
    lengths = {name: size for name, size in state["lengths"].items() if name != "timing.csv"}
    config = {section: values for section, values in state["config"].items() if section != "runtime"}
    return json.loads(json.dumps(dict(state, lengths=lengths, config=config)))


def assert_same_run(got: Path, want: Path) -> None:
    """Asserts equal runs: all tensors of last and best, rows, trace, pool, counts, samples and state."""
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
