"""Subjects in processes of their own, taking turns, so that what disturbs the machine disturbs them alike."""

import json
import os
import subprocess
import sys
from typing import Any, Dict, Hashable, List, Mapping, Optional, Tuple

from edgeflownas.errors import UserError
from edgeflownas.nas.search_space import get_space

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
Settings = Dict[str, Any]  # configuration keys
SPACE = get_space("edgeflownet_v1")  # what is timed


class Worker:
    """One subject in its own process (`worker.py`), which starts and does its first unit at once; to be used in a
    `with`."""

    def __init__(self, subject: str, settings: Settings, environment: Optional[Dict[str, str]] = None) -> None:
        """`environment`: variables beside this process's own."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", subject, json.dumps(settings)],
            cwd=ROOT,
            env=dict(os.environ, **(environment or {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        self._first: Optional[Dict[str, Any]] = None

    @property
    def first(self) -> Dict[str, Any]:
        """What it took to build and to do the first unit; waits for it."""
        if self._first is None:
            self._first = self._answer()
        return self._first

    def ask(self, what: str = "unit") -> Dict[str, Any]:
        """A unit of work: seconds, peak memory, and what the subject adds; `trace` for one under the profiler."""
        assert self.first and self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"a benchmark process died with code {self._process.wait()}; was there enough memory?")
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.communicate()  # closes its input, which ends it


class Turns:
    """Workers by name, to be used in a `with`; `measure` lets each do a unit in turn."""

    def __init__(self, subjects: Mapping[Any, Tuple[str, Settings]]) -> None:
        self.workers = {name: Worker(*subject) for name, subject in subjects.items()}
        self.processor: Dict[Hashable, List[float]] = {name: [] for name in subjects}
        self.last: Dict[Hashable, Dict[str, Any]] = {}

    def measure(self, repeats: int) -> Dict[Hashable, List[float]]:
        """Seconds of the wall clock of each; the unit that a worker does when it starts is the warm-up."""
        for worker in self.workers.values():  # they start side by side, and are timed when all are ready
            assert worker.first
        wall: Dict[Hashable, List[float]] = {name: [] for name in self.workers}
        for _ in range(repeats):
            for name, worker in self.workers.items():
                self.last[name] = worker.ask()
                wall[name].append(self.last[name]["wall"])
                self.processor[name].append(self.last[name]["processor"])
        return wall

    def __enter__(self) -> "Turns":
        return self

    def __exit__(self, *error: Any) -> None:
        for worker in self.workers.values():
            worker.__exit__(*error)
