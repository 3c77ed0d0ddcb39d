"""Kills real training processes with SIGKILL, resumes them, and compares what they leave with a run that was left
alone.

A third of the kills is aimed at checkpoint commits, a third at the rows of an evaluation, the rest come at any time.
Where a kill
really fell is read from what it left behind, so the tally counts hits, not intentions.
"""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

from edgeflownas.errors import UserError
from edgeflownas.run.checkpoint import CheckpointStore
from tests.reliability.snapshot import differences, snapshot

AIMS = ("commit", "rows", "any time")
TABLES = ("eval_epe_per_arch.csv", "eval_epe_history.csv")
COMMIT, ROWS, CYCLES, START = (
    "in a checkpoint commit",
    "between the rows of an evaluation and its commit",
    "in training, rows uncommitted",
    "elsewhere",
)


class Failure(Exception):
    """A broken promise; the message says which one and where the run's files are."""


class Server:
    """The process that forks runs; see `server.py`."""

    def __init__(self, data):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.server", data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            bufsize=1,
        )

    def start(self, folder, *words):
        """Starts a run; gives its process id."""
        request = {
            "folder": folder,
            "words": ["--set", "runtime.save_every_steps=1"] + list(words),
            "log": folder + ".log",
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        return self._read()["pid"]

    def wait(self):
        """Waits for its end; gives the exit code, negative for a signal."""
        status = self._read()["status"]
        return -(status & 0x7F) if status & 0x7F else status >> 8

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise Failure("the server of runs has died")
        return json.loads(line)


class Victim:
    """A running process that will be killed: `aim` says when. It may be quicker and end by itself."""

    def __init__(self, pid, folder, aim, chance, longest):
        self._pid, self._folder, self._aim, self._chance, self._longest = pid, folder, aim, chance, longest
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()

    def join(self):
        self.ended.set()
        self._thread.join()

    def _kill(self):
        wait = {"commit": self._commit, "rows": self._rows, "any time": self._any_time}[self._aim]
        if wait() and not self.ended.is_set():
            os.kill(self._pid, signal.SIGKILL)

    def _any_time(self):
        return not self.ended.wait(self._chance.uniform(0.05, 0.9) * self._longest)

    def _commit(self):
        """Some milliseconds into the n-th commit that is seen."""
        left, seen = self._chance.randint(1, 12), set()
        while not self.ended.wait(0.0005):
            seen.update(name for name in _listing(self._folder) if name.startswith(".tmp-"))
            if len(seen) >= left:
                time.sleep(self._chance.choice([0.0, self._chance.uniform(0.0, 0.06)]))
                return True
        return False

    def _rows(self):
        """As soon as the rows of an evaluation begin to appear, or a moment later."""
        before = [_size(self._folder, name) for name in TABLES]
        while not self.ended.wait(0.0002):
            now = [_size(self._folder, name) for name in TABLES]
            if any(size > old > 0 for size, old in zip(now, before)):
                time.sleep(self._chance.choice([0.0, self._chance.uniform(0.0, 0.003)]))
                return True
            before = now
        return False


def _listing(folder):
    try:
        return os.listdir(os.path.join(folder, "checkpoints", "generations"))
    except OSError:
        return []


def _size(folder, name):
    try:
        return os.path.getsize(os.path.join(folder, name))
    except OSError:
        return 0


def where_it_fell(folder):
    """One of COMMIT, ROWS, CYCLES, START, from what the dead process left."""
    names = _listing(folder)
    last = os.path.join(folder, "checkpoints", "last")
    linked = os.path.basename(os.readlink(last)) if os.path.islink(last) else ""
    newest = max([name for name in names if not name.startswith(".")] or [""], key=lambda name: name.split("-")[-1])
    if any(name.startswith(".tmp-") for name in names) or newest != linked:
        return COMMIT
    if not linked:
        return START
    lengths = CheckpointStore(os.path.join(folder, "checkpoints")).load("last").state["lengths"]
    beyond = {name: _size(folder, name) > length for name, length in lengths.items()}
    return ROWS if any(beyond[name] for name in TABLES) else CYCLES if any(beyond.values()) else START


def torture(data, kills, seed, say=print):
    """Makes at least `kills` kills. Returns {where: count}. Raises `Failure` and keeps the files if a promise is
    broken."""
    chance, tally, workshop = random.Random(seed), collections.Counter(), tempfile.mkdtemp(prefix="torture-")
    server = Server(data)
    try:
        reference = os.path.join(workshop, "reference")
        began = time.monotonic()
        server.start(reference)
        if server.wait() != 0:
            raise Failure(f"the run that was left alone failed: {reference}.log")
        longest, wanted = time.monotonic() - began, snapshot(reference)
        runs = 0
        while sum(tally.values()) < kills:
            runs += 1
            folder = os.path.join(workshop, f"run{runs}")
            _one_run(server, folder, tally, kills, chance, longest)
            wrong = differences(snapshot(folder), wanted)
            if wrong:
                raise Failure("{} differs from {} in: {}".format(folder, reference, ", ".join(wrong)))
            say(f"run {runs}: same bytes; {sum(tally.values())} kills so far: {dict(tally)}")
        tally["runs"] = runs
        return tally
    finally:
        server.close()


def _one_run(server, folder, tally, kills, chance, longest):
    """From a fresh start to the end, killed up to a dozen times."""
    budget = min(kills - sum(tally.values()), chance.randint(5, 12))
    while True:
        resume = ["--resume"] if resumable(folder) else []
        pid = server.start(folder, *resume)
        victim = Victim(pid, folder, chance.choice(AIMS), chance, longest) if budget > 0 else None
        code = server.wait()
        if victim:
            victim.join()
        if code == 0:
            return
        if code != -signal.SIGKILL or not victim:
            raise Failure(f"{folder} ended with code {code} instead of training: {folder}.log")
        budget -= 1
        tally[where_it_fell(folder)] += 1


def resumable(folder):
    """Whether there is a checkpoint: before the first commit there is nothing to resume, and a fresh start is right."""
    try:
        CheckpointStore(os.path.join(folder, "checkpoints"), lambda line: None).newest_valid()
        return True
    except UserError:
        return False
