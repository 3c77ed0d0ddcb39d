"""Runs the project's commands as a user would: each in its own process, in a folder outside the project."""

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from gates.asserts import assert_contains, assert_equal, assert_true

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 1500  # seconds; a command that takes longer is a failure


class Done(NamedTuple):
    """A finished command with its exit code, stdout and stderr."""

    command: str
    code: int
    out: str
    err: str


def workplace(folder: Path) -> Path:
    """Makes `folder` look like the project to commands that run in it; their `outputs/` stay in it."""
    for name in ("configs", "wrappers"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_all(commands: Sequence[str], folder: Path, environment: Optional[Dict[str, str]] = None) -> List[Done]:
    """Runs the commands in parallel and waits for all. They are written as in the specification: `python -m ...`."""
    variables = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    variables.update(environment or {})
    children = []
    for command in commands:
        words = shlex.split(command)
        words[0] = {"python": sys.executable}[words[0]]
        children.append(
            subprocess.Popen(
                words,
                cwd=str(folder),
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                universal_newlines=True,
            )
        )
    outputs = [child.communicate(timeout=LONGEST) for child in children]
    return [Done(command, child.returncode, *output) for command, child, output in zip(commands, children, outputs)]


def run(command: str, folder: Path, environment: Optional[Dict[str, str]] = None) -> Done:
    """Runs one command."""
    return run_all([command], folder, environment)[0]


def children_seconds() -> float:
    """Processor seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def assert_succeeded(done: Done) -> None:
    """Asserts exit code 0."""
    __tracebackhide__ = True
    last = (done.err.strip().splitlines() or [""])[-1]
    assert_equal(what="exit code", got=done.code, want=0, command=done.command, last_line_of_stderr=last)


def assert_refused(done: Done, *phrases: str) -> None:
    """Asserts exit code 2, an empty stdout, and on stderr one line that begins with `error: ` and has the phrases."""
    __tracebackhide__ = True
    assert_equal(what="exit code", got=done.code, want=2, command=done.command, stderr=done.err[-300:])
    assert_equal(what="stdout", got=done.out, want="", command=done.command)
    lines = done.err.splitlines()
    assert_true(
        what="stderr",
        ok=len(lines) == 1 and lines[0].startswith("error: "),
        got=lines,
        want="one line that begins with `error: `",
        command=done.command,
    )
    for phrase in phrases:
        assert_true(
            what="the refusal", ok=phrase in lines[0], got=lines[0], want=f"the words {phrase!r}", command=done.command
        )


def assert_last_line_refuses(done: Done, *phrases: str) -> None:
    """Asserts exit code 2 and a last line on stderr that begins with `error: ` and has the phrases; a run may print
    other lines before it."""
    __tracebackhide__ = True
    assert_equal(what="exit code", got=done.code, want=2, command=done.command[-80:], stderr=done.err[-300:])
    line = (done.err.strip().splitlines() or [""])[-1]
    assert_true(what="stderr", ok=line.startswith("error: "), got=line, want="a line that begins with `error: `")
    for phrase in phrases:
        assert_contains(what="the refusal", got=line, want=phrase)
