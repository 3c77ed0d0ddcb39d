"""Starts the ranks of a run on this machine, as `horovodrun` does, and keeps hold of each process.

Built on Horovod's own rendezvous server (Gloo), so that no `ssh` and no MPI are needed. Horovod is imported only when
ranks are started.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from gates.commands import ROOT, Done

SECONDS = 900.0  # ranks that take longer hang
NOT_INSTALLED = "Horovod is not installed; scripts/build_horovod.sh builds it"


def installed() -> bool:
    """Whether Horovod is there; one that cannot be imported is, too, and its tests fail."""
    return importlib.util.find_spec("horovod") is not None


class Rendezvous:
    """Where so many ranks find each other; `environments` has the variables of each."""

    def __init__(self, ranks: int) -> None:
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.gloo_run import create_slot_env_vars
        from horovod.runner.http.http_server import RendezvousServer

        self._server = RendezvousServer()
        common = {
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(self._server.start()),
            "HOROVOD_GLOO_IFACE": "lo",
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
        }
        slots = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
        self._server.init(slots)
        self.environments = [dict(common, **create_slot_env_vars(slot)) for slot in slots]

    def close(self) -> None:
        self._server.stop()


class Ranks:
    """`with Ranks(commands, folder) as ranks:`: one process per command, rank by rank. Whatever runs at the end is
    killed."""

    def __init__(self, commands: Sequence[Sequence[str]], folder: Path, **environment: str) -> None:
        """A command is the arguments of this Python."""
        self.commands = commands
        self._rendezvous = Rendezvous(len(commands))
        common = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1", **environment)
        self._outputs = [[tempfile.TemporaryFile() for _ in range(2)] for _ in commands]
        self.processes: List[Any] = [
            subprocess.Popen(
                [sys.executable] + list(words), cwd=str(folder), env=dict(common, **variables), stdout=out, stderr=err
            )
            for words, variables, (out, err) in zip(commands, self._rendezvous.environments, self._outputs)
        ]

    def ends(self, seconds: float = SECONDS) -> List[Done]:
        """Waits for all of them; gives how each ended, in the order of the ranks."""
        until = time.monotonic() + seconds
        for process in self.processes:
            try:
                process.wait(max(until - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                pass  # its code is None
        return [
            Done(" ".join(words), process.poll(), *[_content(file) for file in outputs])
            for words, process, outputs in zip(self.commands, self.processes, self._outputs)
        ]

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._rendezvous.close()
        for file in sum(self._outputs, []):
            file.close()


def run_ranks(
    commands: Sequence[Sequence[str]], folder: Path, environment: Optional[Dict[str, str]] = None
) -> List[Done]:
    """Starts one rank per command and waits for all of them."""
    with Ranks(commands, folder, **(environment or {})) as ranks:
        return ranks.ends()


def _content(file: Any) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
