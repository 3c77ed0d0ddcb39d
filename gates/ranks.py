"""Starts the ranks of a run on this machine, as `horovodrun` does, and keeps hold of each process.

Built on Horovod's own rendezvous server (Gloo), so that no `ssh` and no MPI are needed. Horovod is imported only when
ranks are started.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, List, Sequence

from gates import runs
from gates.commands import ROOT, Done, assert_succeeded

SECONDS = 900.0  # ranks that take longer hang
RUN = Path("outputs") / "supernet"
STEPS = runs.STEPS_PER_EPOCH + 1  # an evaluation, and a step of the next epoch
TIMEOUT = 60  # seconds; the first step of one rank may take so much longer than the other's


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


def logged(folder: Path, commands: Sequence[str], act: Callable[[Ranks], None] = lambda ranks: None) -> None:
    """Like `runs.logged` for the ranks of one run; `act` may do something to them in the meantime."""
    with Ranks([shlex.split(command)[1:] for command in commands], folder) as ranks:
        act(ranks)
        ended = ranks.ends()
    with open(str(folder / "commands.jsonl"), "a") as log:
        for done in ended:
            log.write(json.dumps(done._asdict()) + "\n")


def make_two_ranks(folder: Path, data: Path) -> None:
    """A run of one process; the same of two; that one resumed until rank 1 stalls, rank 0 gives it up, and rank 1 finds
    rank 0 dead; and two ranks that differ."""
    train = f"{runs.small_train(data, train__micro_batch_size=1)} --deterministic --debug_trace"
    distributed = f"{train} --distributed"
    assert_succeeded(runs.logged(folder, f"{train} --max_steps {STEPS} --output_dir one"))
    logged(folder, [f"{distributed} --max_steps {STEPS}"] * 2)
    runs.snapshot(folder / RUN, folder / "two")
    onwards = f"{distributed} --resume --max_epochs 3 --set runtime.exchange_timeout="
    # Rank 1's own time must not be up when it goes on.
    logged(
        folder,
        [f"{onwards}{TIMEOUT}", f"{onwards}{100 * TIMEOUT}"],
        lambda ranks: _stall(ranks, folder / RUN / "train_steps.csv"),
    )
    logged(
        folder,
        [
            f"{distributed} --output_dir refused {words}"
            for words in ("--max_steps 1", "--max_steps 1 --set train.lr=1.0")
        ],
    )


def _stall(ranks: Ranks, steps: Path) -> None:
    """Stops rank 1 in mid-run, and lets it go on when rank 0 has ended."""
    before, until = len(runs.table(steps)), time.monotonic() + SECONDS
    while len(runs.table(steps)) == before and ranks.processes[1].poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    ranks.processes[1].send_signal(signal.SIGSTOP)
    try:
        ranks.processes[0].wait(3 * TIMEOUT)
    except subprocess.TimeoutExpired:
        ranks.processes[0].kill()
    ranks.processes[1].send_signal(signal.SIGCONT)


def _content(file: Any) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
