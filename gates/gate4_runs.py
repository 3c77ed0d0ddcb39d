"""The runs of gate 4: the smoke run at full size, and a small long run, first refused, then started --unsigned."""

import contextlib
import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from edgeflownas import signoff
from edgeflownas.data.synthetic import make_dataset
from gates import dataset, runs, spaces
from gates.commands import ROOT

RUN = Path("outputs") / "supernet"
SMOKE = (
    f"{runs.TRAIN} --gpu_device 0 --num_epochs 2 --batch_size 32 --lr 1e-4 --config {runs.CONFIG} --fast_mode "
    "--base_path data"
)
# No improvement exceeds min_delta, so a run ends two evaluations after the first.
EARLY = "--output_dir early --min_delta 1000"
# Invocations of a run of six epochs of four steps, and whether they are allowed without gate 3. They run in this order:
# the first four would start in a fresh folder, the fifth trains one epoch, the next would start anew in its folder, and
# the others would resume it. In the end --unsigned goes beyond five epochs, and a resume without it trains nothing.
# The last three are about a run that stops early: its resume trains nothing, but with more patience would go on.
LONG_RULE = (
    ("--output_dir fresh --max_steps 24", False),
    ("--output_dir fresh --max_steps 21", False),
    ("--output_dir fresh --max_epochs 6 --max_steps 1000", False),
    ("--output_dir fresh", False),
    ("--max_epochs 1", True),
    ("--max_steps 21", False),
    ("--resume", False),
    ("--resume --max_epochs 6", False),
    ("--resume --max_steps 21", False),
    ("--resume --max_steps 4 --max_epochs 6", True),
    ("--resume --max_steps 21 --unsigned --allow_unsupported_gpu", True),
    ("--resume --max_steps 4", True),
    (f"{EARLY} --patience 2 --max_epochs 5", True),
    (f"{EARLY} --patience 2 --resume", True),
    (f"{EARLY} --patience 9 --resume --allow_changed eval.patience", False),
)


def smoke_command() -> str:
    """The specification's command, on the space under test."""
    return SMOKE + spaces.flag()


def git(*words: str) -> List[str]:
    """Runs git in the project. Returns the words of its output."""
    return subprocess.run(
        ("git", "-C", str(ROOT)) + words, stdout=subprocess.PIPE, check=True, universal_newlines=True
    ).stdout.split()


def make_smoke(folder: Path) -> None:
    """Runs the specification's command on synthetic frames of 384x512, FC2's size."""
    make_dataset(str(folder / "data"), 32, 8, 1)
    before = git("rev-parse", "HEAD")
    runs.logged(folder, smoke_command())
    # HEAD when the run began, and all later commits, in case somebody commits during the run.
    (folder / "heads").write_text(" ".join(before + git("rev-list", f"{before[0]}..HEAD")))


def write_record(
    gate: int,
    outcome: str,
    files: Optional[Dict[str, str]] = None,
    root: Path = ROOT,
    clauses: Sequence[Dict[str, Any]] = (),
) -> None:
    """Writes a gate's record for `files` (None: the present source of `root`). Records of the project itself without
    clauses are for the space under test, others for the default space."""
    environment = signoff.Environment("0" * 40, False, {}, "CPU", False, None)
    space = spaces.chosen().name if root == ROOT and not clauses else signoff.DEFAULT_SPACE
    files = signoff.source_files(root) if files is None else files
    signoff.write_record(gate, root, outcome, list(clauses), environment, files, space)


@contextlib.contextmanager
def _records_in(folder: Path) -> Iterator[None]:
    """A context in which records are written to and read from `folder`."""
    before = os.environ.get(signoff.RECORDS_VARIABLE)
    os.environ[signoff.RECORDS_VARIABLE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(signoff.RECORDS_VARIABLE)
        if before is not None:
            os.environ[signoff.RECORDS_VARIABLE] = before


def make_long_run(folder: Path) -> None:
    """Starts a long run, which is refused; then the same with --unsigned."""
    data, source = dataset.make(folder / "data", runs.SAMPLES, runs.VALIDATION).folder, signoff.source_files(ROOT)
    with _records_in(folder / "records"):  # gates 3 and 4 have no record
        write_record(1, "passed")
        write_record(2, "failed")
    environment = {signoff.RECORDS_VARIABLE: str(folder / "records")}
    command = runs.small_train(data) + " --debug_trace --gpu_device -1"  # otherwise a warning says that there is no GPU
    runs.logged(folder, command, environment)
    (folder / "left.json").write_text(json.dumps(sorted(path.name for path in (folder / RUN).glob("[!.]*"))))
    runs.logged(folder, command + " --unsigned", environment)
    changed = signoff.first_difference(source, signoff.source_files(ROOT))
    (folder / "gate1").write_text("stale" if changed else "valid")


def make_long_rule(folder: Path) -> None:
    """Runs the invocations of `LONG_RULE` without any gate's record, and lists the files after each of them. A single
    subnet is built quickly."""
    data = dataset.make(folder / "data", runs.SAMPLES, runs.VALIDATION).folder
    one = "".join(map(str, spaces.chosen().baseline))
    command = f"{runs.small_train(data)} --arch_code {one} --eval_pool_size 1"
    commands = [(f"{command} {words}", f"python -m gates.tree fresh early {RUN}") for words, _ in LONG_RULE]
    runs.batch(folder, list(itertools.chain(*commands)), {signoff.RECORDS_VARIABLE: str(folder / "records")})


def make_other_space(folder: Path) -> None:
    """Starts a long run on another space than the one whose gates are signed."""
    data = dataset.make(folder / "data", runs.SAMPLES, runs.VALIDATION).folder
    other = next(space for space in spaces.SPACES.values() if space.name != spaces.chosen().name)
    one = "".join(map(str, other.baseline))
    with _records_in(folder / "records"):
        for gate in (1, 2, 3):
            write_record(gate, "passed")
    command = f"{runs.small_train(data, network__space=other.name)} --arch_code {one} --eval_pool_size 1"
    runs.logged(folder, command, {signoff.RECORDS_VARIABLE: str(folder / "records")})
