"""The pytest plugin of the gates: passes a run of `gates/` to the controller, and records the clauses of a gate's
session.

Loaded by the root `conftest.py`. Each gate has its own pytest session, which `gates/controller.py` starts with
`--gate-session N`. The plugin does not affect other test runs. `gate_table` in pytest.ini names another clause table
(for the plugin's tests).
"""

import argparse
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, Generator, List, Optional, Tuple

import pytest

from gates import asserts, controller, spaces
from gates.clauses import Table

_GATE_FILE = re.compile(r"test_gate(\d+)")
_CLAUSE_IN_ID = re.compile(r"\[([^\[\]]+)\]$")


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("gates", "gates (python -m gates --help explains them)")
    group.addoption("--require_gpu", action="store_true", help="refuse to run gates unless TensorFlow sees a GPU")
    group.addoption(
        "--space", choices=sorted(spaces.SPACES), default=spaces.DEFAULT, help="search space under test (%(default)s)"
    )
    group.addoption("--gate-session", type=int, default=0, help=argparse.SUPPRESS)
    group.addoption("--gate-report", default="", help=argparse.SUPPRESS)
    group.addoption("--gate-selection", action="store_true", help=argparse.SUPPRESS)
    parser.addini("gate_table", "module:name of the clause table", default="gates.clauses:TABLE")


def load_table(config: Any) -> Table:
    module, name = config.getini("gate_table").split(":")
    return getattr(importlib.import_module(module), name)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: Any) -> Optional[int]:
    if hasattr(config, "workerinput") or config.option.gate_session or controller.only_lists(config):
        return None
    if not controller.asks_for_gates(config):
        return None
    return controller.Run(config, load_table(config)).main()


def pytest_configure(config: Any) -> None:
    table = load_table(config)
    config.addinivalue_line("markers", "clause(id): the one test of a clause; set by @clause of gates/asserts.py")
    for gate in table.gates:
        config.addinivalue_line("markers", f"gate{gate}: clauses of gate {gate}; added by the plugin")
    if config.option.gate_session:
        os.environ[spaces.VARIABLE] = config.option.space  # for the gates' modules and the commands that they run
        asserts.table = table
        config.pluginmanager.register(SessionRecorder(config, table), "gate-session")


def pytest_ignore_collect(collection_path: Path, config: Any) -> Optional[bool]:
    """Ignores `gates/` in a wider run (`pytest .`), and the other gates' files in a gate's session."""
    gate = config.option.gate_session
    if collection_path == controller.gate_folder(config):
        return None if gate or controller.only_lists(config) else True
    file_gate = _GATE_FILE.match(collection_path.name)
    if gate and file_gate and int(file_gate.group(1)) != gate:
        return True
    return None


@pytest.fixture(scope="session")
def clause_id(request: Any) -> str:
    """The id of the clause under test. As a parameter, it becomes part of the test's id."""
    return request.param


def pytest_generate_tests(metafunc: Any) -> None:
    ids = [mark.args[0] for mark in metafunc.definition.iter_markers("clause")]
    if ids:
        if "clause_id" not in metafunc.fixturenames:
            metafunc.fixturenames.append("clause_id")
        metafunc.parametrize("clause_id", ids, ids=ids, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: Any, items: List[Any]) -> None:
    folder = controller.gate_folder(config)
    gate_items = [item for item in items if folder in item.path.parents or item.get_closest_marker("clause")]
    if gate_items and not config.option.gate_session and not controller.only_lists(config):
        raise pytest.UsageError("the gates' tests run only as gates: python -m pytest gates")
    table = load_table(config)
    for item in gate_items:
        clause = table.get(clause_of(item.nodeid))
        if clause:
            item.add_marker(f"gate{clause.gate}")


def clause_of(nodeid: str) -> str:
    """The clause id at the end of a test's id, or an empty string."""
    found = _CLAUSE_IN_ID.search(nodeid)
    return found.group(1) if found else ""


def table_problems(table: Table, gate: int, items: List[Any], selection: bool) -> List[str]:
    """Sentences on tests and clauses that do not match one to one. With a `selection` of tests, clauses may lack tests.

    A gate without any test is no mismatch: its outcome is "empty".
    """
    problems = []
    seen: Dict[str, str] = {}
    for item in items:
        mark = item.get_closest_marker("clause")
        clause = table.get(mark.args[0]) if mark else None
        file_gate = _GATE_FILE.match(item.path.name)
        if clause and clause_of(item.nodeid) != clause.id:
            problems.append("{} is parametrised: one clause is one case".format(item.nodeid.split("[")[0]))
        elif clause is None:
            problems.append(f"{item.nodeid} has no clause of the table")
        elif file_gate and int(file_gate.group(1)) != clause.gate:
            problems.append(f"{item.nodeid} stands in the file of another gate")
        elif clause.id in seen:
            problems.append(f"{clause.id} has two tests: {seen[clause.id]} and {item.nodeid}")
        else:
            seen[clause.id] = item.nodeid
    if items and not selection:
        problems += [f"{clause.id} has no test" for clause in table.of(gate) if clause.id not in seen]
    return problems


class SessionRecorder:
    """Records one gate's session: checks the tests against the table, collects the clauses' results, prints and writes
    them."""

    def __init__(self, config: Any, table: Table) -> None:
        self.config = config
        self.table = table
        self.gate = config.option.gate_session
        self.worker = hasattr(config, "workerinput")
        self.problems: List[str] = []
        self.collect_errors: List[str] = []
        self.results: Dict[str, Dict[str, Any]] = {}
        self.attempts: Dict[Tuple[str, str], int] = {}
        self.repeated: List[str] = []  # clauses whose test was called more than once

    # In the process that runs the tests (with xdist, a worker).

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: Any, items: List[Any]) -> None:
        if session.testsfailed:
            return  # a file could not be imported; pytest reports that, so do not report its clauses as untested
        self.problems = table_problems(self.table, self.gate, items, self.config.option.gate_selection)
        if self.problems:
            items[:] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:
        if call.when == "call" and asserts.checked():
            item.user_properties.append(("checked", asserts.checked()))
        outcome = yield
        crash = getattr(outcome.get_result().longrepr, "reprcrash", None)
        if crash is not None:
            crash.message = named(crash.message, clause_of(item.nodeid))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        self._count(item, "setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> None:
        self._count(item, "call")

    def _count(self, item: Any, phase: str) -> None:
        """Counts the attempts at each clause, whichever plugin repeats a test."""
        clause = clause_of(item.nodeid) or item.nodeid
        self.attempts[clause, phase] = self.attempts.get((clause, phase), 0) + 1
        if self.attempts[clause, phase] > 1 and clause not in self.repeated:
            self.repeated.append(clause)

    # In the main process (with xdist, not a worker).

    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        for problem in getattr(node, "workeroutput", {}).get("gate_problems", []):
            if problem not in self.problems:
                self.problems.append(problem)
        self.repeated += getattr(node, "workeroutput", {}).get("gate_repeated", [])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.collect_errors.append(report.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        result = self.results.setdefault(clause_of(report.nodeid), {"status": "not run", "seconds": 0.0, "text": ""})
        result["seconds"] += getattr(report, "duration", 0.0)
        if report.failed:
            result.update(status="failed", text=first_line(report))
        elif report.skipped and result["status"] != "failed":
            result.update(status="skipped", text=first_line(report))
        elif report.when == "call" and report.passed and result["status"] != "failed":
            result.update(status="passed")
        if result["status"] == "passed":
            result["text"] = dict(report.user_properties).get("checked", result["text"])

    def rows(self) -> List[Dict[str, Any]]:
        """One row per clause of the gate: id, sentence, status (passed, failed, skipped, not run), seconds, text."""
        rows = []
        for clause in self.table.of(self.gate):
            result = dict(self.results.get(clause.id, {"status": "not run", "seconds": 0.0, "text": ""}))
            if clause.id in self.table.skips and result["status"] == "passed":
                result.update(status="failed", text=f"{clause.id} is listed as a skip, but it ran")
            result["seconds"] = round(result["seconds"], 3)
            rows.append(dict(result, id=clause.id, sentence=clause.sentence))
        return rows

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: Any) -> None:
        if self.worker:
            self.config.workeroutput["gate_problems"] = self.problems
            self.config.workeroutput["gate_repeated"] = self.repeated
            return
        if self.problems:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        if self.config.option.gate_report:
            report = {"clauses": self.rows(), "problems": self.problems, "collect_errors": self.collect_errors}
            report["repeated"] = sorted(set(self.repeated))
            Path(self.config.option.gate_report).write_text(json.dumps(report), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        colours = {"passed": "green", "failed": "red"}
        terminalreporter.section(f"clauses of gate {self.gate}")
        for row in self.rows():
            colour = colours.get(row["status"], "yellow")
            terminalreporter.write("{:<7} {:<8}".format(row["id"], row["status"]), **{colour: True})
            terminalreporter.write_line("{:>8.2f} s  {}".format(row["seconds"], row["sentence"]))
            if row["status"] in ("failed", "skipped"):
                terminalreporter.write_line("        " + row["text"])
        for problem in self.problems:
            terminalreporter.write_line("ERROR: clause table and tests do not match: " + problem, red=True)


def named(message: str, clause: str) -> str:
    """The message with the clause's id and sentence at its beginning."""
    bare = message[len("AssertionError: ") :] if message.startswith("AssertionError: ") else message
    return bare if bare.startswith(clause + " ") or not clause else f"{asserts.heading(clause)}: {message}"


def first_line(report: Any) -> str:
    """The first line of a report's failure message or skip reason."""
    if isinstance(report.longrepr, tuple):  # (file, line, reason) of a skip
        text = report.longrepr[2]
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
    return (text.strip().splitlines() or [""])[0]
