"""A miniature project with gates of its own: two gates, three clauses, a stand-in for TensorFlow. Runs in a second or
two."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Dict, List

import pytest

from edgeflownas import signoff

ROOT = signoff.project_root()

FILES = {
    "pytest.ini": """
        [pytest]
        addopts = --strict-markers -p xdist.plugin
        gate_table = mini_clauses:TABLE
        """,
    "conftest.py": """
        pytest_plugins = ["gates.plugin"]
        """,
    "mini_clauses.py": """
        from gates.clauses import Clause, Table
        SKIPS = {}
        TABLE = Table((Clause("G1.1", 1, "water is wet", "s"), Clause("G2.1", 2, "fire is hot", "s"),
                       Clause("G2.2", 2, "ice is cold", "s")), SKIPS)
        """,
    "edgeflownas/code.txt": "the source that is signed off",
    "gates/test_gate1.py": """
        from gates.asserts import assert_equal, clause

        @clause("G1.1")
        def test_water():
            assert_equal(what="water", got=1, want=1)
        """,
    "gates/test_gate2.py": """
        from gates.asserts import assert_equal, clause

        @clause("G2.1")
        def test_fire():
            assert_equal(what="fire", got=2, want=2)

        @clause("G2.2")
        def test_ice(tmp_path):
            assert_equal(what="ice", got=3, want=3)
        """,
    # What edgeflownas/tfcompat.py imports; GPUs by environment variable.
    "tensorflow/__init__.py": "",
    "tensorflow/compat/__init__.py": "",
    "tensorflow/compat/v1.py": """
        __version__ = "0.mini"
        disable_eager_execution = enable_resource_variables = disable_control_flow_v2 = lambda: None
        """,
    "tensorflow/python/__init__.py": "",
    "tensorflow/python/client/__init__.py": "",
    "tensorflow/python/client/device_lib.py": """
        import os
        from types import SimpleNamespace

        def list_local_devices():
            return [SimpleNamespace(device_type="GPU", physical_device_desc=name)
                    for name in os.environ.get("MINI_GPUS", "").split()]
        """,
}


class Result:
    """A finished `pytest` of the miniature project."""

    def __init__(self, process: "subprocess.CompletedProcess[str]") -> None:
        self.code = process.returncode
        self.text = process.stdout
        self.lines = self.text.strip().splitlines()

    @property
    def last(self) -> str:
        """The verdict: the last line of all."""
        return self.lines[-1]


class Mini:
    """The miniature project in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            key: value
            for key, value in os.environ.items()
            # TOX_: below tox, pytest keeps what failed last in one folder for all of these projects.
            if not key.startswith(("PYTEST_", "TOX_", "EDGEFLOWNAS_")) and key != "MINI_GPUS"
        }
        self.environment.update(PYTHONPATH=str(ROOT), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # starts in half the time
        # An edit within a second that keeps the size would be hidden by the byte code of the version before.
        self.environment.update(PYTHONDONTWRITEBYTECODE="1")
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())

    def replace(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pytest"] + list(arguments)
        return subprocess.Popen(
            command,
            cwd=str(self.root),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            start_new_session=True,
            # Where these tests run in a shell's background, SIGINT is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def pytest(self, *arguments: str) -> Result:
        command = [sys.executable, "-m", "pytest"] + list(arguments)
        return Result(
            subprocess.run(
                command,
                cwd=str(self.root),
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                universal_newlines=True,
                timeout=300,
            )
        )

    def module(self, *arguments: str) -> Result:
        return Result(
            subprocess.run(
                [sys.executable, "-m", "gates"] + list(arguments) + ["--root", str(self.root)],
                cwd=str(ROOT),
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                universal_newlines=True,
                timeout=300,
            )
        )

    def record(self, gate: int) -> Dict[str, Any]:
        return json.loads((self.root / f"outputs/gates/gate{gate}.json").read_text())

    def signed(self) -> List[int]:
        """The gates with a valid sign-off, of the two there are."""
        return [gate for gate in (1, 2) if signoff.verify(gate, self.root).valid]

    def sign(self, *gates: int, device: str = "a card") -> None:
        """Signs gates off by hand, in a fraction of a run's time."""
        for gate in gates:
            environment = signoff.Environment(None, None, {}, device, False, None)
            signoff.write_record(gate, self.root, "passed", [], environment, signoff.source_files(self.root))

    def junit(self, name: str) -> Dict[str, ET.Element]:
        return {suite.get("name", ""): suite for suite in ET.parse(str(self.root / name)).getroot()}


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: Any) -> Mini:
    monkeypatch.delenv(signoff.RECORDS_VARIABLE, raising=False)
    folder = tmp_path / "mini"
    folder.mkdir()
    return Mini(folder)
