"""A second process for tests of what two processes do to one run folder."""

import os
import subprocess
import sys

import edgeflownas

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(edgeflownas.__file__)))


def child(body, *arguments):
    """A second process; it prints, then waits for its input to end."""
    code = f"""
import os, sys
from typing import NamedTuple
from edgeflownas.run.append_only import TableWriter
from edgeflownas.run.folder import RunLock
from edgeflownas.errors import UserError
{body}
print("ready", flush=True)
sys.stdin.read()
"""
    return subprocess.Popen(
        [sys.executable, "-c", code] + list(arguments),
        cwd=ROOT,
        universal_newlines=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
