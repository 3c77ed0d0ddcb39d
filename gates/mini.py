"""A tiny project with two gates of one clause each, for tests of the gates themselves; runs in a few seconds."""

import shlex
from pathlib import Path
from typing import List

from gates.commands import ROOT, Done, run

_TEST = """
from pathlib import Path
from gates.asserts import assert_equal, clause

@clause("G{gate}.1")
def test_water():
    with open("ran", "a") as log:
        log.write("G{gate}.1 ")
    assert_equal(what="water", got={got}, want=1)
"""
_REPEATS = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for attempt in range(2):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if all(not report.failed for report in reports):
            break
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
_FILES = {
    "pytest.ini": "[pytest]\naddopts = --strict-markers -p xdist.plugin\ngate_table = mini_clauses:TABLE\n",
    "conftest.py": 'pytest_plugins = ["gates.plugin"]\n',
    "mini_clauses.py": "from gates.clauses import Clause, Table\n"
    'TABLE = Table((Clause("G1.1", 1, "water is wet", "s"), Clause("G2.1", 2, "fire is hot", "s")))\n',
    "edgeflownas/code.txt": "the source that is signed off\n",
    "configs/run.yaml": "train: {lr: 0.1}\n",
    "repeats.py": _REPEATS,
}


def project(parent: Path) -> Path:
    """Writes the project. Returns its folder."""
    root = parent / "mini"
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "gates").mkdir()
    for gate in (1, 2):
        mend_clause(root, gate)
    return root


def _clause(root: Path, gate: int, got: str) -> None:
    (root / "gates" / f"test_gate{gate}.py").write_text(_TEST.format(gate=gate, got=got))


def mend_clause(root: Path, gate: int) -> None:
    """Makes the gate's clause pass."""
    _clause(root, gate, "1")


def break_clause(root: Path, gate: int) -> None:
    """Makes the gate's clause fail."""
    _clause(root, gate, "2")


def fail_first(root: Path, gate: int) -> None:
    """Makes the gate's clause fail at its first attempt only."""
    _clause(root, gate, 'Path("ran").read_text().count("G") - 1')


def pytest(root: Path, words: str) -> Done:
    """Runs the tiny project's gates with this project's plugin."""
    path = {"PYTHONPATH": f"{root}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "EDGEFLOWNAS_GATE_RECORDS": ""}
    command = f"python -m pytest gates -q -p no:cacheprovider --rootdir {shlex.quote(str(root))} {words}"
    return run(command, root, path)


def clauses_run(root: Path) -> List[str]:
    """The clauses that ran since the last call, in order."""
    path = root / "ran"
    ran = path.read_text().split() if path.exists() else []
    if ran:
        path.unlink()
    return ran


def records(root: Path) -> List[str]:
    """The file names of the existing records."""
    return sorted(path.name for path in (root / "outputs" / "gates").glob("gate*.json"))
