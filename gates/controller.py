"""Runs gates in order, each in its own pytest session; determines each outcome and writes the sign-offs.

Only this module decides which gates a command line requests, whether it narrows them, whether an earlier gate blocks a
later one, what the outcome is, and whether a record is written.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set

import filelock
import pytest

from edgeflownas import signoff
from gates import EXIT_CODES, junit
from gates.clauses import GATE_TITLES, Table

CONFIG = "configs/supernet_fc2_180x240.yaml"
# From worst to best; a run's outcome is the worst of its requested gates. "error" stands for pytest's own: interrupted,
# usage error, internal error.
SEVERITY = ("error", "failed", "stale", "blocked", "partial", "empty", "passed")
# Options that deselect tests or change what runs: (attribute, as typed).
SELECTING = (
    ("keyword", "-k"),
    ("lf", "--lf"),
    ("stepwise", "--stepwise"),
    ("stepwise_skip", "--stepwise-skip"),
    ("deselect", "--deselect"),
    ("ignore", "--ignore"),
    ("ignore_glob", "--ignore-glob"),
    ("setuponly", "--setup-only"),
    ("setupplan", "--setup-plan"),
    ("inifilename", "-c"),
)
# Options of plugins that repeat tests: (attribute, as typed).
REPEATING = (
    ("reruns", "--reruns"),
    ("force_flaky", "--force-flaky"),
    ("count", "--count"),
    ("flake_finder_enable", "--flake-finder"),
)
ONE_ATTEMPT = {"count": 1}  # values, other than false ones, that mean no repeat
LISTING = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "cacheshow", "collectonly")


class GateResult(NamedTuple):
    """One gate's result. `code`: its session's exit code, None if it had no session; `clauses`: a row per clause."""

    gate: int
    outcome: str
    reason: str
    code: Optional[int] = None
    clauses: List[Dict[str, Any]] = []
    xml: Optional[Path] = None


class Plan(NamedTuple):
    """The gates that a command line requests, and the options because of which nothing may be signed (none: complete).

    `selecting`: options that leave tests out; with them, the order of the gates is not enforced. `stopping`: options
    that only end the run early or repeat tests.
    """

    requested: List[int]
    selecting: List[str]
    stopping: List[str]


def gate_folder(config: Any) -> Path:
    return config.rootpath / "gates"


def only_lists(config: Any) -> bool:
    """Whether this invocation only lists or explains, and runs no test."""
    return any(config.getoption(name, None) for name in LISTING)


def _paths(config: Any) -> List[Path]:
    return [Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args]


def asks_for_gates(config: Any) -> bool:
    """Whether the command line names `gates/` or a path in it. `UsageError` if it names other tests too."""
    folder = gate_folder(config).resolve()
    inside = [path == folder or folder in path.parents for path in _paths(config)]
    if any(inside) and not all(inside):
        raise pytest.UsageError("gates run on their own: python -m pytest gates; name no other tests with them")
    if not any(inside) and folder.is_dir() and any(path in folder.parents for path in _paths(config)):
        print("gates/ is left out here; it runs on its own: python -m pytest gates", flush=True)
    return any(inside)


def make_plan(config: Any, table: Table) -> Plan:
    folder = gate_folder(config).resolve()
    selecting = [typed for name, typed in SELECTING if config.getoption(name, None)]
    selecting += [argument for argument, path in zip(config.args, _paths(config)) if "::" in argument or path != folder]
    # pytest 9 stores --strict-markers here too. Every other override might hide tests or replace the clause table.
    selecting += ["-o " + value for value in config.getoption("override_ini") or [] if not value.startswith("strict")]
    stopping = ["-x or --maxfail"] if config.getoption("maxfail", 0) else []
    stopping += [
        typed
        for name, typed in REPEATING
        if config.getoption(name, None) not in (None, False, 0, ONE_ATTEMPT.get(name))
    ]
    expression = config.option.markexpr.strip()
    single = re.match(r"gate(\d+)$", expression)
    if single:
        if int(single.group(1)) not in table.gates:
            raise pytest.UsageError(
                "there is no {}; gates: {}".format(expression, ", ".join(f"gate{gate}" for gate in table.gates))
            )
        return Plan([int(single.group(1))], selecting, stopping)
    if expression:
        selecting.append("-m " + expression)
    files = [re.match(r"test_gate(\d+)", path.name) for path in _paths(config)]
    named = sorted({int(found.group(1)) for found in files if found} & set(table.gates))
    return Plan(named if named and all(files) else table.gates, selecting, stopping)


def outcome_of(
    gate: int,
    code: int,
    report: Optional[Dict[str, Any]],
    narrowing: List[str],
    skips: Dict[str, str],
    changed: str,
    xml: Optional[Path] = None,
) -> GateResult:
    """The outcome of a session that ended with `code` and wrote `report` (None: it wrote none)."""
    if report is None:
        interrupted = code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
        return GateResult(
            gate, "error" if interrupted else "failed", f"the session left no report, exit code {code}", code
        )
    rows = report["clauses"]
    by_status = {
        status: [row["id"] for row in rows if row["status"] == status]
        for status in ("passed", "failed", "skipped", "not run")
    }
    repeated = report.get("repeated", [])
    narrowing = narrowing + ([f"more than one attempt at {', '.join(repeated)}"] if repeated else [])
    missing = by_status["not run"] + [row for row in by_status["skipped"] if row not in skips]
    if report["problems"]:
        outcome, reason = "error", "; ".join(report["problems"])
    elif by_status["failed"] or report["collect_errors"]:
        outcome, reason = "failed", ", ".join(by_status["failed"] + report["collect_errors"])
    elif code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        outcome, reason = "error", pytest.ExitCode(code).name.lower().replace("_", " ")
    elif code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        outcome, reason = "failed", f"every clause passed, but pytest ended with exit code {code}"
    elif not by_status["passed"]:
        outcome, reason = "empty", "no clause ran"
    elif changed:
        outcome, reason = "stale", f"while the gate ran {changed}"
    elif narrowing or missing:
        outcome, reason = "partial", "; ".join(narrowing + (["without " + ", ".join(missing)] if missing else []))
    else:
        outcome, reason = "passed", f"{len(rows)} clauses"
    return GateResult(gate, outcome, reason, code, rows, xml)


class Run:
    """One invocation: runs the requested gates and the earlier ones that must run first."""

    def __init__(self, config: Any, table: Table) -> None:
        self.config = config
        self.table = table
        self.root = config.rootpath
        self.space = config.option.space
        self.plan = make_plan(config, table)
        self.narrowing = self.plan.selecting + self.plan.stopping
        self.results: Dict[int, GateResult] = {}
        self.cleared: Set[int] = set()  # gates that passed in this run but may not be signed (-x)

    def main(self) -> int:
        """Runs the gates, prints the outcomes and returns the exit code."""
        lock_path = signoff.record_path(1, self.root).with_name(".lock")
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(lock_path), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise pytest.UsageError(f"another gate run is at work on {self.root}; wait for it to end")
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self.environment = self._probe()
                for gate in self._gates():
                    self.results[gate] = self._one(gate, Path(scratch))
                return self._conclude()
        finally:
            lock.release()

    def _gates(self) -> List[int]:
        """The gates to visit: the requested ones and, unless tests are selected, all gates before them."""
        last = max(self.plan.requested)
        return self.plan.requested if self.plan.selecting else [gate for gate in self.table.gates if gate <= last]

    def _one(self, gate: int, scratch: Path) -> GateResult:
        if gate not in self.plan.requested:
            state = signoff.verify(gate, self.root, space=self.space)
            if state.valid:
                print(f"gate {gate}: {state.reason}; it is not run again", flush=True)
                return GateResult(gate, "passed", state.reason)
        blocker = self._blocker(gate)
        if blocker:
            print(f"gate {gate} is BLOCKED: {blocker}", flush=True)
            return GateResult(gate, "blocked", blocker)
        result = self._run_session(gate, scratch)
        if (
            result.outcome == "partial"
            and not self.plan.selecting
            and all(row["status"] == "passed" for row in result.clauses)
            and "more than one attempt" not in result.reason
        ):
            self.cleared.add(gate)
        return result

    def _blocker(self, gate: int) -> str:
        """The reason why `gate` may not run, or an empty string."""
        for earlier in (number for number in self.table.gates if number < gate):
            result = self.results.get(earlier)
            if result and result.outcome not in ("passed", "partial", "empty"):
                return f"gate {earlier} is {result.outcome} ({result.reason})"
            if not self.plan.selecting and earlier not in self.cleared:
                state = signoff.verify(earlier, self.root, space=self.space)
                if not state.valid:
                    return f"gate {earlier} has no valid sign-off ({state.name}: {state.reason})"
        return ""

    def _run_session(self, gate: int, scratch: Path) -> GateResult:
        title = GATE_TITLES.get(gate, "")
        on = "" if self.space == signoff.DEFAULT_SPACE else f" (on {self.space})"
        print(f"\ngate {gate}: {title}{on}", flush=True)
        report_path, xml = scratch / f"gate{gate}.json", scratch / f"gate{gate}.xml"
        before = signoff.source_files(self.root)
        code = self._pytest(gate, report_path, xml)
        changed = signoff.first_difference(before, signoff.source_files(self.root))
        report = json.loads(report_path.read_text(encoding="utf-8")) if report_path.exists() else None
        result = outcome_of(
            gate, code, report, self.narrowing, self.table.skips, changed, xml if xml.exists() else None
        )
        repeated = bool(report and report.get("repeated"))
        if result.outcome in ("passed", "failed") and not self.narrowing and not repeated:
            path = signoff.write_record(
                gate, self.root, result.outcome, result.clauses, self.environment, before, self.space
            )
            print(
                "gate {} {}: {}".format(
                    gate, "is signed off" if result.outcome == "passed" else "has no sign-off", path
                )
            )
        return result

    def _pytest(self, gate: int, report: Path, xml: Path) -> int:
        """Runs one gate's session with the user's options, then ours, which take precedence. Returns its exit code."""
        expression = self.config.option.markexpr.strip()
        marker = f"gate{gate}"
        narrowed = expression and not re.match(r"gate\d+$", expression)
        command = [sys.executable, "-m", "pytest"] + list(self.config.invocation_params.args)
        command += [
            "-m",
            f"({expression}) and {marker}" if narrowed else marker,
            "-p",
            "no:randomly",
            f"--gate-session={gate}",
            f"--gate-report={report}",
        ]
        command += ["--gate-selection"] if self.plan.selecting else []
        command += [f"--junitxml={xml}"] if self.config.getoption("xmlpath", None) else []
        child = subprocess.Popen(command, cwd=str(self.config.invocation_params.dir))
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # the session gets the signal too and ends by itself
                continue

    def _probe(self) -> signoff.Environment:
        """The environment of this run, found out in another process. `UsageError` if --require_gpu finds no GPU."""
        demanded = self.config.option.require_gpu
        if self.narrowing and not demanded:
            return signoff.Environment(None, None, {}, "", False, None)  # nothing will be signed, so save the time
        found = subprocess.run(
            [sys.executable, "-m", "gates.probe", CONFIG, self.space],
            cwd=str(self.root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        if found.returncode:
            last = (found.stderr.strip().splitlines() or ["no message"])[-1]
            environment = signoff.Environment(None, None, {}, f"unknown (the probe failed: {last})", demanded, None)
        else:
            environment = signoff.Environment(require_gpu=demanded, **json.loads(found.stdout.strip().splitlines()[-1]))
        if demanded and (environment.device == "CPU" or environment.device.startswith("unknown")):
            raise pytest.UsageError(f"--require_gpu: no visible GPU (device: {environment.device}); nothing was run")
        print(f"device: {environment.device}", flush=True)
        return environment

    def _conclude(self) -> int:
        asked = [self.results[gate] for gate in self.plan.requested]
        worst = min(asked, key=lambda result: SEVERITY.index(result.outcome))
        target = self.config.getoption("xmlpath", None)
        if target:
            path = Path(self.config.invocation_params.dir, os.path.expanduser(os.path.expandvars(target)))
            junit.write(path, list(self.results.values()))
        print()
        for result in self.results.values():
            print(f"gate {result.gate}: {result.outcome} ({result.reason})")
        print(
            "gates: {}: {}".format(
                worst.outcome.upper(),
                ", ".join(f"gate{result.gate} {result.outcome}" for result in self.results.values()),
            ),
            flush=True,
        )
        if worst.outcome == "error":
            return worst.code or int(pytest.ExitCode.USAGE_ERROR)
        return EXIT_CODES[worst.outcome]
