"""Changes one operator, constant, argument or condition at a time in what trains, and sees that gate 2 or 3 fails.

    python -m tests.mutation --out FILE [--sample N] [--seed S] [--jobs N] [--list]

FILE gets a line of JSON per mutant as it ends; mutants that it has already are not run again, so a long run can be
stopped and gone on with. Ends with the figures and the survivors. Exit code 0: no survivor, 1: some. Needs Python 3.9
or later. Built on the copies of `tests/faults/harness.py`; the gates stop at their first failure.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from tests.faults.harness import ROOT, Broken, copied, copy_project, run_gate
from tests.mutation.mutants import Mutant, mutants

MODULES = ("edgeflownas/engine", "edgeflownas/network", "edgeflownas/data/pipeline.py", "edgeflownas/train_supernet.py")
GATES = (2, 3)
KILLED, SURVIVED = "killed", "survived"


class Ended(NamedTuple):
    """What became of a mutant: killed, by what, or survived; `id` is the mutant's."""

    id: str
    outcome: str
    by: str  # the clause that failed, or why no clause ran
    seconds: float


def all_mutants() -> List[Mutant]:
    files: List[str] = []
    for module in MODULES:
        paths = [ROOT / module] if module.endswith(".py") else sorted((ROOT / module).glob("*.py"))
        files += [str(path.relative_to(ROOT)) for path in paths]
    return [mutant for file in files for mutant in mutants(ROOT, file)]


def sampled(count: int, seed: int) -> List[Mutant]:
    """`count` mutants in a random order; a larger sample of the same seed begins with the smaller one."""
    found = all_mutants()
    random.Random(seed).shuffle(found)
    return found[:count]


def run_one(mutant: Mutant, clean: Path, scratch: Path) -> Ended:
    """Runs gate 2 and, if it passes, gate 3 in a copy with the mutant."""
    started = time.monotonic()
    with copied(clean, scratch, str(abs(hash(mutant)))) as copy:
        mutant.apply(copy)
        by = next(filter(None, (_failed(copy, gate) for gate in GATES)), "")
    return Ended(mutant.id, KILLED if by else SURVIVED, by, round(time.monotonic() - started, 1))


def _failed(copy: Path, gate: int) -> str:
    """The clause that failed, or why there was no run of the gate; empty if all passed."""
    try:
        found: Dict[str, Any] = run_gate(copy, gate, ["-x"])
    except Broken as problem:
        return f"gate {gate}: {problem}"
    if found["problems"] or found["collect_errors"]:
        return f"gate {gate} does not load"
    return next((row["id"] for row in found["clauses"] if row["status"] not in ("passed", "not run")), "")


def read(path: Path) -> Dict[str, Ended]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {ended.id: ended for ended in (Ended(**json.loads(line)) for line in lines)}


def run(chosen: List[Mutant], out: Path, jobs: int) -> Dict[str, Ended]:
    """Runs those that `out` has not yet; gives the ends of all of `chosen`."""
    done = read(out)
    left = [mutant for mutant in chosen if mutant.id not in done]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        clean = copy_project(Path(folder) / "clean")
        for gate in GATES if left else ():
            by = _failed(clean, gate)
            if by:
                raise SystemExit(f"gate {gate} does not pass without a mutant: {by}")
        for ended in pool.map(lambda mutant: run_one(mutant, clean, Path(folder)), left):
            done[ended.id] = ended
            with open(str(out), "a", encoding="utf-8") as file:
                file.write(json.dumps(ended._asdict()) + "\n")
            print(f"{ended.outcome:<8} {ended.seconds:>5.0f} s  {ended.id}  {ended.by}", flush=True)
    return {mutant.id: done[mutant.id] for mutant in chosen}


def report(chosen: List[Mutant], ends: Dict[str, Ended]) -> int:
    """Prints the figures and the survivors; gives the exit code."""
    survivors = [mutant for mutant in chosen if ends[mutant.id].outcome == SURVIVED]
    for mutant in survivors:
        print(f"SURVIVED {mutant.file}:{mutant.line} {mutant.kind}: {mutant.old!r} -> {mutant.new!r}")
    killed = len(chosen) - len(survivors)
    print(f"mutants: {killed} of {len(chosen)} killed by gates 2 and 3 ({killed / len(chosen):.1%})")
    return 1 if survivors else 0


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.mutation",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="what became of each mutant")
    parser.add_argument("--sample", type=int, default=150, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="at a time (default %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    arguments = parser.parse_args(argv)
    if arguments.sample < 1 or arguments.jobs < 1:
        parser.error("--sample and --jobs: at least 1")
    chosen = sampled(arguments.sample, arguments.seed)
    if arguments.list:
        for mutant in chosen:
            print(f"{mutant.file}:{mutant.line} {mutant.kind}: {mutant.old!r} -> {mutant.new!r}")
        return 0
    return report(chosen, run(chosen, arguments.out, arguments.jobs))


if __name__ == "__main__":
    sys.exit(main())
