"""Kills one of two ranks with SIGKILL, at any time, resumes both, and compares what they leave with one process that
was left alone. The other rank must end by itself, with one line, in seconds."""

import os
import random
import signal
import tempfile
import threading

from tests.distributed.crew import Crew, left
from tests.reliability.snapshot import differences
from tests.torture.kills import Failure, resumable

WITHIN = 10.0  # seconds in which the other rank ends
CONNECTING = 40.0  # the same while the ranks connect: Horovod waits 30 s (set below) for a rank, then aborts
EVERY_STEP = ("--save_every_steps", "1")


def torture_ranks(data, kills, seed, say=print):
    """At least `kills` kills; gives the number of runs. Raises `Failure`, its remains kept, if a promise is broken."""
    chance, workshop, runs = random.Random(seed), tempfile.mkdtemp(prefix="torture-ranks-"), 0
    os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "30"
    reference, longest = _reference(data, os.path.join(workshop, "reference"))
    crew = Crew(data, 2, *EVERY_STEP)
    try:
        while kills > 0:
            folder = os.path.join(workshop, f"run{runs}")
            runs += 1
            killed = _one_run(crew, folder, min(kills, chance.randint(4, 8)), chance, longest)
            kills -= killed
            wrong = differences(left(folder), reference)
            if wrong:
                raise Failure("{} differs from one process in: {}".format(folder, ", ".join(wrong)))
            say(f"run {runs} of two ranks: the bits of one process after {killed} kills")
        return runs
    finally:
        crew.close()


def _reference(data, folder):
    """(what one process leaves, the seconds that it takes)."""
    crew = Crew(data, 1, *EVERY_STEP)
    try:
        ended = crew.run(folder)
    finally:
        crew.close()
    if ended.codes != [0]:
        raise Failure(f"the run that was left alone failed: {ended}")
    return left(folder), ended.seconds[0]


def _one_run(crew, folder, budget, chance, longest):
    """From a fresh start to the end, killed up to `budget` times; gives how often."""
    killed = 0
    while True:
        pids = crew.start([crew.one(folder, *(["--resume"] if resumable(folder) else []))])
        victim, over = chance.randrange(2), threading.Event()
        delay = chance.uniform(0.05, 1.0) * longest if killed < budget else None
        killer = threading.Thread(target=_kill, args=(pids[victim], delay, over))
        killer.start()
        ended = crew.wait()
        over.set()
        killer.join()
        if ended.codes == [0, 0]:
            return killed
        killed += 1
        _check(folder, ended, victim)


def _kill(pid, delay, over):
    if delay is not None and not over.wait(delay):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended


def _check(folder, ended, victim):
    other = 1 - victim
    code, took = ended.codes[other], ended.seconds[other] - ended.seconds[victim]
    # Killed while the ranks connect: the other is ended within Horovod.
    limit = {0: WITHIN, 2: WITHIN, -signal.SIGABRT: CONNECTING}.get(code, 0.0)
    if ended.codes[victim] != -signal.SIGKILL or took > limit:
        raise Failure(f"{folder}: rank {victim} was killed, and {took:.0f} s later: {ended}")
    if code == 2 and "another rank has ended" not in ended.outcomes[other][0].error:
        raise Failure(f"{folder}: rank {other} does not say that the other has ended: {ended}")
