"""Trains and scores the missing runs of a study, with the ordinary trainer in child processes. It can always resume.

A lock on a file reserves a run, and the trainer inherits the lock. While either process lives, nobody else takes the
run. So any number of workers on one machine, or the tasks of a SLURM array, can share a study. If a worker is killed,
others skip its run as busy while its trainer lives; after that, an invocation resumes the run.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence

import edgeflownas
from edgeflownas import config as configuration
from edgeflownas.engine.progress import duration
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import UserError
from edgeflownas.files import os_errors
from edgeflownas.scoring.fidelity import runs
from edgeflownas.scoring.fidelity.plan import RUNS, SCORED, Plan, PlannedRun
from edgeflownas.scoring.fidelity.scores import read_scores

LOGS = "logs"  # folder of the output of trainers and scoring
_POLL_SECONDS = 0.2


class Outcome(NamedTuple):
    """The result of an invocation: names of runs."""

    done: List[str]  # trained and scored
    busy: List[str]  # reserved by another process
    failed: List[str]  # each name with the reason


class RunTaken(Exception):
    """Another process has reserved the run."""


class RunHold:
    """The lock on a run: `with RunHold(plan, run) as hold:`. Raises `RunTaken`. The trainer inherits `hold.handle`."""

    def __init__(self, plan: Plan, run: PlannedRun) -> None:
        self._path = os.path.join(plan.folder, RUNS, f".{run.name}.taken")
        self.handle = -1

    def __enter__(self) -> "RunHold":
        with os_errors(f"write {self._path}"):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self.handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self.handle)
                raise RunTaken() from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)


class Work:
    """One invocation's share of a study: every `tasks`-th run of `plan`, from number `task` on."""

    def __init__(self, plan: Plan, task: int, tasks: int, unsigned: bool, say: Callable[[str], None]) -> None:
        self.plan, self._unsigned, self._say = plan, unsigned, say
        self.share = list(plan.runs)[task::tasks]
        self._children: List[subprocess.Popen] = []
        self._guard = threading.Lock()
        self._tried: List[str] = []
        self._busy: List[str] = []
        self._failed: List[str] = []
        self._stopping = False

    def run(self, workers: int, stop: StopSignals) -> Outcome:
        """Trains with `workers` processes at a time, then scores. A signal stops the trainers, which commit first."""
        threads = [threading.Thread(target=self._train_all, daemon=True) for _ in range(workers)]
        self._until_done(threads, stop)
        if not self._stopping:
            self._until_done([threading.Thread(target=self._score_all, daemon=True)], stop)
        done = [run.name for run in self.share if self._scored(run)]
        return Outcome(done, [name for name in self._busy if name not in done], self._failed)

    def _until_done(self, threads: Sequence[threading.Thread], stop: StopSignals) -> None:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(_POLL_SECONDS)
            if stop.requested and not self._stopping:
                with self._guard:
                    self._stopping = True
                    for child in self._children:
                        child.send_signal(signal.SIGTERM)

    def _train_all(self) -> None:
        for run in self._next():
            try:
                with RunHold(self.plan, run) as hold:
                    self._train(run, hold)
            except RunTaken:
                self._busy.append(run.name)
            except UserError as error:
                self._failed.append(f"{run.name}: {error}")

    def _next(self) -> Iterator[PlannedRun]:
        """Yields the runs of the share, each to one worker only."""
        while True:
            with self._guard:
                left = [run for run in self.share if run.name not in self._tried]
                if not left or self._stopping:
                    return
                self._tried.append(left[0].name)
            yield left[0]

    def _train(self, run: PlannedRun, hold: RunHold) -> None:
        stage = runs.stage(self.plan, run)
        if stage == runs.TRAINED:
            return
        self._say(f"{run.name}: {'goes on' if stage == runs.STOPPED else 'starts'}")
        began = time.monotonic()
        words = ["-m", "edgeflownas.train_supernet"] + self._flags(run)
        code = self._child(
            words + (["--resume"] if stage == runs.STOPPED else []),
            os.path.join(self.plan.folder, LOGS, run.name),
            hold,
        )
        if code and not self._stopping:
            raise UserError(f"the trainer ended with code {code}: {self._last_line(run.name)}")
        if not code:
            self._say(f"{run.name}: trained in {duration(time.monotonic() - began)}")

    def _flags(self, run: PlannedRun) -> List[str]:
        """The trainer's command line: every key that is not at its default."""
        words = ["--unsigned"] if self._unsigned else []
        for name, value in self.plan.settings(run).items():
            if value != configuration.KEYS[name].default:
                words += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        return words

    def _child(self, words: List[str], log: str, hold: Any = None) -> int:
        """Runs Python with the arguments `words` and appends its output to `log`.log. Returns the exit code."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(edgeflownas.__file__)))
        path = os.pathsep.join([root] + os.environ.get("PYTHONPATH", "").split(os.pathsep)).rstrip(os.pathsep)
        with os_errors(f"write {log}.log"):
            os.makedirs(os.path.dirname(log), exist_ok=True)
            output = open(log + ".log", "ab")
        with output:
            with self._guard:
                if self._stopping:
                    return 128 + signal.SIGTERM
                child = subprocess.Popen(
                    [sys.executable] + words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(os.environ, PYTHONPATH=path),
                    pass_fds=(hold.handle,) if hold else (),
                    start_new_session=True,  # Ctrl-C reaches only this process, which then stops the trainers once
                )
                self._children.append(child)
            code = child.wait()
            with self._guard:
                self._children.remove(child)
        return code

    def _last_line(self, name: str) -> str:
        with open(os.path.join(self.plan.folder, LOGS, name + ".log"), "rb") as handle:
            lines = handle.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _score_all(self) -> None:
        """Scores, in one process, the runs that are trained and not scored yet."""
        holds = []
        try:
            for run in self.share:
                if self._trained(run) and not self._scored(run):
                    hold = RunHold(self.plan, run)
                    try:
                        hold.__enter__()
                    except RunTaken:
                        self._busy.append(run.name)
                    else:
                        holds.append((run.name, hold))
            names = [name for name, _ in holds]
            if names:
                self._say(f"scoring {len(names)} runs")
                words = ["-m", "edgeflownas.scoring.fidelity.score", self.plan.folder] + names
                if self._child(words, os.path.join(self.plan.folder, LOGS, SCORED)) and not self._stopping:
                    self._failed.append(f"scoring: {self._last_line(SCORED)}")
        finally:
            for _, hold in holds:
                hold.__exit__()

    def _trained(self, run: PlannedRun) -> bool:
        try:
            return runs.stage(self.plan, run) == runs.TRAINED
        except UserError:
            return False

    def _scored(self, run: PlannedRun) -> bool:
        try:
            read_scores(self.plan, run, runs.last_checkpoint(self.plan, run))
            return True
        except UserError:
            return False


def left_over(plan: Plan, outcome: Outcome, share: Sequence[PlannedRun]) -> Optional[str]:
    """The missing runs of a share, in words; None if none is missing."""
    missing = [run.name for run in share if run.name not in outcome.done]
    if not missing:
        return None
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"{len(missing)} of {len(share)} runs are missing: {', '.join(missing[:3])}{more}"
