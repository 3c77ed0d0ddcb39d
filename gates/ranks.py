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

from gates import dataset, runs
from gates.commands import ROOT, Done, assert_succeeded

SECONDS = 900.0  # ranks that take longer hang
RUN = Path("outputs") / "supernet"
BATCH, PART = 4, 2
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


def make_two_ranks(folder: Path) -> None:
    """A run of one process; the same of two; that one resumed until rank 1 stalls, and until rank 0 is killed; and two
    ranks that differ. A rank's part of a batch has several samples, so it matters which; batch norm sees them
    together."""
    data = dataset.make(folder / "data", runs.STEPS_PER_EPOCH * BATCH, runs.VALIDATION).folder
    size = {"train__batch_size": BATCH, "train__micro_batch_size": PART}
    train = f"{runs.small_train(data, **size)} --deterministic --debug_trace"
    distributed = f"{train} --distributed"
    assert_succeeded(runs.logged(folder, f"{train} --max_steps {STEPS} --output_dir one"))
    logged(folder, [f"{distributed} --max_steps {STEPS}"] * 2)
    runs.snapshot(folder / RUN, folder / "two")
    onwards, steps = f"{distributed} --resume --max_epochs 3", folder / RUN / "train_steps.csv"
    limited = f"{onwards} --set runtime.exchange_timeout={TIMEOUT}"
    logged(folder, [limited] * 2, lambda ranks: _stall(ranks, steps))
    logged(folder, [onwards] * 2, lambda ranks: _kill(ranks, steps))
    logged(
        folder,
        [
            f"{distributed} --output_dir refused {words}"
            for words in ("--max_steps 1", "--max_steps 1 --set train.lr=1.0")
        ],
    )


def _stall(ranks: Ranks, steps: Path) -> None:
    """Stops rank 1 in mid-run until rank 0 has ended."""
    _wait_for_a_row(ranks, steps)
    ranks.processes[1].send_signal(signal.SIGSTOP)
    try:
        ranks.processes[0].wait(3 * TIMEOUT)
    except subprocess.TimeoutExpired:
        ranks.processes[0].kill()
    ranks.processes[1].kill()


def _kill(ranks: Ranks, steps: Path) -> None:
    """Kills rank 0 in mid-run."""
    _wait_for_a_row(ranks, steps)
    ranks.processes[0].kill()


def _wait_for_a_row(ranks: Ranks, steps: Path) -> None:
    before, until = len(runs.table(steps)), time.monotonic() + SECONDS
    while len(runs.table(steps)) <= before and ranks.processes[1].poll() is None and time.monotonic() < until:
        time.sleep(0.02)


def _content(file: Any) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
