"""Runs of several ranks on this machine, each rank a process: `Crew(data, ranks).run(folder, ...)`."""

import json
import os
import subprocess
import sys
import tempfile
from typing import List, NamedTuple

from gates.ranks import Rendezvous
from tests.distributed.settings import settings
from tests.reliability.lab import Outcome
from tests.reliability.snapshot import snapshot


class Ended(NamedTuple):
    """How the processes of some runs ended, rank by rank."""

    outcomes: List[List[Outcome]]  # by rank, of each run that came to an end
    codes: List[int]  # exit code, negative for a signal
    seconds: List[float]  # from the start
    logs: List[str]  # what the processes wrote themselves: watchdogs, crashes


class Crew:
    """So many ranks on one data set, all runs with the words of `settings`; `close()` at the end."""

    def __init__(self, data, ranks, *words, batch=2):
        self.data, self.ranks, self.words = data, ranks, settings(ranks, batch) + list(words)
        self._logs, self._count = tempfile.mkdtemp(prefix="ranks-"), 0
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.server", data, str(ranks)] + self.words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
            bufsize=1,
        )

    def run(self, folder, *words, **different):
        """One run, see `one`. Gives `Ended`."""
        return self.runs([self.one(folder, *words, **different)])

    def one(self, folder, *words, plants=None, per_rank=None, folders=None):
        """A run for `runs`; `plants` {rank: [(name, argument ...)]}, `per_rank` {rank: more words}, `folders`
        {rank: another folder}."""
        return [
            {
                "folder": str((folders or {}).get(rank, folder)),
                "words": self.words + list(words) + list((per_rank or {}).get(rank, [])),
                "plants": (plants or {}).get(rank, []),
            }
            for rank in range(self.ranks)
        ]

    def runs(self, runs):
        """Several runs, one after the other in the same processes."""
        self.start(runs)
        return self.wait()

    def start(self, runs):
        """Starts the processes; gives their ids, by rank."""
        self._count += 1
        self._log = os.path.join(self._logs, str(self._count))
        self._meeting = Rendezvous(self.ranks) if self.ranks > 1 else None
        environments = self._meeting.environments if self._meeting else [{}]
        request = {"runs": runs, "environments": environments, "log": self._log}
        self._server.stdin.write(json.dumps(request) + "\n")
        return self._answer()["pids"]

    def wait(self):
        ended = self._answer()["ended"]
        if self._meeting:
            self._meeting.close()
        by_rank = {rank: (status, seconds) for rank, status, seconds in ended}
        statuses = [by_rank[rank][0] for rank in range(self.ranks)]
        return Ended(
            [self._outcomes(rank) for rank in range(self.ranks)],
            [-(status & 0x7F) if status & 0x7F else status >> 8 for status in statuses],
            [by_rank[rank][1] for rank in range(self.ranks)],
            [_read(f"{self._log}.{rank}") for rank in range(self.ranks)],
        )

    def close(self):
        self._server.stdin.close()
        self._server.wait()

    def _outcomes(self, rank):
        return [Outcome(**json.loads(line)) for line in _read(f"{self._log}.{rank}.jsonl").splitlines()]

    def _answer(self):
        line = self._server.stdout.readline()
        assert line, "the server of ranks has died"
        return json.loads(line)


def left(folder):
    """What a run has left, as far as it must not depend on the number of ranks: of the trace, not which rank was fed
    what; of TensorBoard, not how fast each rank was."""
    parts = snapshot(str(folder))
    with open(os.path.join(str(folder), "debug_trace.jsonl")) as trace:
        lines = [json.loads(line) for line in trace]
    parts["debug_trace.jsonl"] = [{key: line[key] for key in line if key != "batches_seen"} for line in lines]
    parts["tensorboard"] = [event for event in parts["tensorboard"] if not event[0].startswith("ranks/")]
    return parts


def _read(path):
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as handle:
        return handle.read()
