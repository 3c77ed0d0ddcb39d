"""Plants one fault at a time into a copy of the project and sees that the clause named for it fails, for that reason.

    python -m tests.faults [--gate N] [--only ID ...] [--jobs N] [--out FILE] [--list]

Only the clause's own test runs in each copy. First the clauses run in a copy without a fault, where they must pass.
Those of a gate that is signed off for this source, on this TensorFlow, have done so and do not run again.

    caught   the clause named in the table failed, and its message begins with its id and says what the table expects
    missed   the clause passed although the fault was there
    broken   nothing is proved: the old text is not there exactly once, the clause fails without the fault too, it
             fails for another reason, or no test ran

That a command ends with another code than 0 and than wanted is another reason, too, unless the row has words for it.

FILE gets a line of JSON per fault as it ends; faults that it has as caught are not tried again, so a long run can be
stopped and gone on with. Exit code 0 if every fault is caught, else 1. Built on pytest, one session per fault; needs no
network and no GPU.
"""

import argparse
import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from edgeflownas import signoff
from gates import asserts
from gates.clauses import TABLE
from tests.faults.table import COMPARISON, FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
# What the gates need of the project.
COPIED = (
    "edgeflownas",
    "gates",
    "configs",
    "wrappers",
    "scripts",
    "conftest.py",
    "pytest.ini",
    "pyproject.toml",
    ".gitignore",
)
SECONDS = 1800  # a clause that takes longer is broken
# The message of a clause that failed because a command ended with another code than wanted, and that code was not 0.
_ENDED = re.compile(r"(AssertionError: )?exit code\b[^,]* got -?[1-9]")
# The same where the command's stderr ends with an exception (a user's error begins with `error: `).
_CRASH = re.compile(r"exit code got .*last_line_of_stderr=['\"][\w.]*(Error|Exception|Interrupt)\b")


class ClauseResult(NamedTuple):
    """How a clause ended in a copy: passed, failed, skipped or not run; and the first line of what it said."""

    status: str
    text: str


class FaultResult(NamedTuple):
    """What became of a fault: caught, missed or broken, and why."""

    outcome: str
    reason: str


class Broken(Exception):
    """A fault that proves nothing, and why."""


def copy_project(target: Path) -> Path:
    """A copy of the project that is a git repository of its own, as the manifest's clauses need it."""
    target.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(str(source), str(target / name), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(str(source), str(target / name))
    author = ["-c", "user.name=faults", "-c", "user.email=faults@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], author + ["commit", "-q", "-m", "copy"]):
        subprocess.run(["git", "-C", str(target)] + command, check=True, env=_environment())
    return target


def plant(fault: Fault, copy: Path) -> None:
    """Replaces the fault's old text by its new one. `Broken` unless it occurs exactly once."""
    path = copy / fault.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(fault.old) != 1:
        raise Broken(f"the old text occurs {text.count(fault.old)} times in {fault.file}, not once")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def run_gate(copy: Path, gate: int, words: Sequence[str]) -> Dict[str, Any]:
    """Runs a gate's tests in a copy, as pytest's `words` narrow them; gives the gate's report. `Broken` if there is
    none."""
    report, scratch = copy / "report.json", copy.parent / (copy.name + "-tmp")
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "gates",
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        f"--basetemp={scratch}",
        f"--gate-session={gate}",
        "--gate-selection",
        f"--gate-report={report}",
        *words,
    ]
    child = subprocess.Popen(
        command,
        cwd=str(copy),
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        start_new_session=True,
    )
    try:
        output = child.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        raise Broken(f"no end after {SECONDS} s")
    finally:
        _end(child)
        shutil.rmtree(str(scratch), ignore_errors=True)
    if not report.is_file():
        raise Broken("pytest left no report: {}".format((output.strip().splitlines() or ["no output"])[-1]))
    found: Dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def run_clauses(copy: Path, gate: int, clauses: Sequence[str]) -> Dict[str, ClauseResult]:
    """Runs the tests of these clauses in a copy; {clause: how it ended}. `Broken` if no such run took place."""
    found = run_gate(copy, gate, ["-k", " or ".join(f"[{clause}]" for clause in clauses)])
    if found["problems"] or found["collect_errors"]:
        raise Broken("the gate's tests do not load: {}".format("; ".join(found["problems"] + found["collect_errors"])))
    return {row["id"]: ClauseResult(row["status"], row["text"]) for row in found["clauses"] if row["id"] in clauses}


def fault_result(fault: Fault, result: ClauseResult) -> FaultResult:
    """What the clause's result says about the fault."""
    heading = asserts.heading(fault.clause) + ": "
    if result.status == "passed":
        return FaultResult("missed", f"{fault.clause} passed")
    if result.status != "failed" or not result.text.startswith(heading):
        return FaultResult("broken", f"{fault.clause} {result.status}: {result.text}")
    said = result.text[len(heading) :]
    stopped = fault.says == COMPARISON and _ENDED.match(said)
    crashed = fault.says.startswith("exit code") and _CRASH.search(said)
    if fault.says not in said or stopped or crashed:
        return FaultResult("broken", f"{fault.clause} fails for another reason: {said}")
    return FaultResult("caught", said)


@contextlib.contextmanager
def copied(clean: Path, scratch: Path, name: str) -> Iterator[Path]:
    """A copy of the copy `clean`, removed at the end."""
    copy = scratch / ("copy-" + name)
    try:
        shutil.copytree(str(clean), str(copy), symlinks=True)
        yield copy
    finally:
        shutil.rmtree(str(copy), ignore_errors=True)


def try_fault(fault: Fault, clean: Path, scratch: Path) -> FaultResult:
    """Plants the fault into a copy of the copy `clean`, and runs its clause there."""
    with copied(clean, scratch, fault.id) as copy:
        try:
            plant(fault, copy)
            return fault_result(fault, run_clauses(copy, fault.gate, [fault.clause])[fault.clause])
        except Broken as problem:
            return FaultResult("broken", str(problem))


def signed(gate: int) -> bool:
    """Whether all clauses of the gate have passed for this source on this TensorFlow."""
    return (
        signoff.verify(gate, ROOT).valid
        and signoff.read_record(gate, ROOT)["versions"].get("tensorflow") == tensorflow_version()
    )


def without_faults(faults: Sequence[Fault], clean: Path, scratch: Path, pool: ThreadPoolExecutor) -> Dict[str, str]:
    """{clause: why it proves nothing} of the clauses of `faults` that do not pass in a copy without a fault."""
    gates = sorted({fault.gate for fault in faults if not signed(fault.gate)})

    def one_gate(gate: int) -> Dict[str, str]:
        clauses = sorted({fault.clause for fault in faults if fault.gate == gate})
        copy = scratch / f"gate{gate}-without-fault"
        shutil.copytree(str(clean), str(copy), symlinks=True)
        try:
            results = run_clauses(copy, gate, clauses)
        except Broken as problem:
            return {clause: str(problem) for clause in clauses}
        return {
            clause: "without a fault, too: {} ({})".format(*results[clause])
            for clause in clauses
            if results[clause].status != "passed"
        }

    unfit: Dict[str, str] = {}
    for problems in pool.map(one_gate, gates):
        unfit.update(problems)
    return unfit


class Ended(NamedTuple):
    """A line of `--out`: what became of a fault, by the digest of its row, and where and when."""

    id: str
    row: str
    outcome: str
    reason: str
    tensorflow: str
    date: str


def row_digest(fault: Fault) -> str:
    return hashlib.sha256(repr(tuple(fault)).encode("utf-8")).hexdigest()[:12]


def ended(out: Optional[Path]) -> Dict[str, Ended]:
    """{fault: its last line} of a file of `--out`."""
    lines = out.read_text(encoding="utf-8").splitlines() if out and out.exists() else []
    return {line.id: line for line in (Ended(**json.loads(text)) for text in lines)}


@functools.lru_cache(maxsize=None)
def tensorflow_version() -> str:
    program = "from edgeflownas.tfcompat import tf; print(tf.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=str(ROOT), check=True, stdout=subprocess.PIPE, universal_newlines=True
    )
    return done.stdout.strip()


def run(faults: Sequence[Fault], jobs: int, out: Optional[Path] = None) -> List[Tuple[Fault, FaultResult]]:
    """Tries every fault, `jobs` at a time, and prints a line for each as it ends."""
    caught = {line.row for line in ended(out).values() if line.outcome == "caught"}
    before = [(fault, FaultResult("caught", "in an earlier run")) for fault in faults if row_digest(fault) in caught]
    faults = [fault for fault in faults if row_digest(fault) not in caught]
    here = {"tensorflow": tensorflow_version(), "date": f"{datetime.date.today()}"}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, ThreadPoolExecutor(jobs) as pool:
        scratch = Path(folder)
        clean = copy_project(scratch / "clean")
        unfit = without_faults(faults, clean, scratch, pool)
        print(
            "{} clauses without a fault: {}".format(
                len({fault.clause for fault in faults}), f"{len(unfit)} do not pass" if unfit else "all pass"
            ),
            flush=True,
        )

        def one(fault: Fault) -> Tuple[Fault, FaultResult]:
            started = time.monotonic()
            result = (
                FaultResult("broken", unfit[fault.clause])
                if fault.clause in unfit
                else try_fault(fault, clean, scratch)
            )
            print(
                f"{result.outcome:<7} {fault.clause:<6} {fault.id:<32} {time.monotonic() - started:>5.0f} s  "
                f"{fault.sentence}",
                flush=True,
            )
            if result.outcome != "caught":
                print(f"        {result.reason}", flush=True)
            if out:
                line = Ended(fault.id, row_digest(fault), result.outcome, result.reason[:300], **here)
                with open(str(out), "a", encoding="utf-8") as file:
                    file.write(json.dumps(line._asdict()) + "\n")
            return fault, result

        return before + list(pool.map(one, faults))


def _environment() -> Dict[str, str]:
    """Without byte code (two versions of a file may have one time stamp), this project's paths and git's own
    variables."""
    kept = {name: value for name, value in os.environ.items() if not re.match("GIT_|PYTEST_|PYTHONPATH$", name)}
    return dict(kept, PYTHONDONTWRITEBYTECODE="1")


def _end(child: Any) -> None:
    """Ends what the session left running, its own children included."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def select(gate: Optional[int], only: Sequence[str]) -> List[Fault]:
    """The faults asked for; `only` names faults or clauses. Raises ValueError for a name that is neither."""
    unknown = set(only) - {fault.id for fault in FAULTS} - {fault.clause for fault in FAULTS}
    if unknown:
        raise ValueError("no fault and no clause with a fault: {}".format(", ".join(sorted(unknown))))
    return [
        fault
        for fault in FAULTS
        if (gate is None or fault.gate == gate) and (not only or fault.id in only or fault.clause in only)
    ]


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.faults",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gate", type=int, choices=(1, 2, 3, 4), help="only the faults of this gate")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ID", help="only this fault, or those of this clause"
    )
    parser.add_argument(
        "--jobs", type=int, default=min(4, os.cpu_count() or 1), help="faults at a time (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="what became of each fault; gone on with if it exists")
    parser.add_argument("--list", action="store_true", help="print the table and run nothing")
    arguments = parser.parse_args(argv)
    try:
        faults = select(arguments.gate, arguments.only)
    except ValueError as error:
        parser.error(str(error))
    if arguments.list:
        for fault in faults:
            print(f"{fault.clause:<6} {fault.id:<32} {fault.sentence}")
        return 0
    if not faults or arguments.jobs < 1:
        parser.error("no fault is selected" if not faults else "--jobs: at least 1")
    for clause in sorted({fault.clause for fault in faults} & set(TABLE.skips)):
        print(f"not tried here: the faults of {clause}: {TABLE.skips[clause]}")
    results = run([fault for fault in faults if fault.clause not in TABLE.skips], arguments.jobs, arguments.out)
    counts = {
        outcome: sum(result.outcome == outcome for _, result in results) for outcome in ("caught", "missed", "broken")
    }
    for fault, result in results:
        if result.outcome != "caught":
            print(f"{result.outcome.upper()}: {fault.id} ({fault.clause}): {result.reason}")
    print(
        "faults: {} of {} caught, {} missed, {} broken".format(
            counts["caught"], len(results), counts["missed"], counts["broken"]
        )
    )
    return 0 if counts["caught"] == len(results) else 1
