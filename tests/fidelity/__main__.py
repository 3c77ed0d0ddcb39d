"""`python -m tests.fidelity [--kills N] [--seed S]`: a whole study by the project's own commands, then the same study
killed N times with SIGKILL, alone or with its trainers; both must end in the same report and the same scores."""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from edgeflownas.checks.check_manifest import run_checks
from edgeflownas.errors import UserError, run_cli
from edgeflownas.scoring.fidelity.plan import read_plan
from tests.reliability import tiny

STUDY = """\
output: {output}
settings:
  data.base_path: {data}
  data.input_height: 64
  data.input_width: 67
  network.init_channels: 2
  train.batch_size: 2
  train.num_epochs: 2
  train.lr: 0.003
  eval.batch_size: 2
  eval.bn_recal_batches: 2
  eval.pool_size: 3
  runtime.deterministic: true
  runtime.gpu_device: "-1"
  runtime.num_workers: 1
  runtime.prefetch_batches: 1
  runtime.save_every_steps: 1
baseline: false
alone_seeds: [1, 2]
strict_seeds: [42, 43]
uniform_seeds: [42]
"""
RUNS = 9
MISSING = 3  # exit code: runs are left
LONGEST_LIFE = 25.0  # seconds between two kills, at most
GIVE_UP = 1800.0  # seconds


def fail(text):
    raise UserError(f"tests.fidelity: {text}")


def make_study(folder, name, data):
    """A planned study; gives its study file."""
    path = os.path.join(folder, f"{name}.yaml")
    with open(path, "w") as handle:
        handle.write(STUDY.format(output=os.path.join(folder, name), data=data))
    if fidelity("plan", path, "--steps", "0").wait():
        fail("plan failed")
    return path


def fidelity(*words):
    """The command, started."""
    return subprocess.Popen([sys.executable, "-m", "edgeflownas", "fidelity"] + list(words))


def run_to_the_end(study, workers):
    """Runs until nothing is missing; trainers whose worker was killed may still be at work."""
    began = time.monotonic()
    while True:
        code = fidelity("run", study, "--unsigned", "--workers", workers).wait()
        if code == 0:
            return
        if code != MISSING or time.monotonic() - began > GIVE_UP:
            fail(f"run ended with code {code}")
        time.sleep(1)


def kill(process, trainers_too):
    """SIGKILL to the worker, and to the trainers that it has started."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as handle:
        children = [int(word) for word in handle.read().split()]
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{thread}/children") as handle:
            children += [int(word) for word in handle.read().split()]
    process.kill()
    process.wait()
    for child in set(children) if trainers_too else ():
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            pass


def kill_over_and_over(study, kills, chance, workers):
    """Kills the study again and again. Returns how often the trainers were killed too."""
    with_trainers = 0
    for number in range(kills):
        process = fidelity("run", study, "--unsigned", "--workers", workers)
        try:
            process.wait(chance.uniform(2.0, LONGEST_LIFE))
            print(f"kill {number + 1} came too late: the study was done", flush=True)
        except subprocess.TimeoutExpired:
            trainers_too = chance.random() < 0.6
            with_trainers += trainers_too
            kill(process, trainers_too)
            print(f"kill {number + 1}{', with the trainers' if trainers_too else ''}", flush=True)
    return with_trainers


def left(folder):
    """{name: bytes} of the report, its pictures and every score, none of which may depend on kills."""
    found = {}
    for part in (".", "report", "scores"):
        for name in sorted(os.listdir(os.path.join(folder, part))):
            path = os.path.join(folder, part, name)
            if os.path.isfile(path) and name != "plan.json":
                with open(path, "rb") as handle:
                    found[os.path.join(part, name)] = handle.read()
    return found


def report(study, folder):
    """Writes the report, and checks every run; gives what is left."""
    if fidelity("report", folder).wait():
        fail(f"{study}: report failed")
    plan = read_plan(folder)
    if len(plan.runs) != RUNS:
        fail(f"got {len(plan.runs)} runs, want {RUNS}")
    for run in plan.runs:
        failed = [
            one for one in run_checks(os.path.join(plan.run_folder(run), "train_manifest.json")) if not one.passed
        ]
        if failed:
            fail(f"{run.name}: {failed[0].name}: {failed[0].text}")
    found = left(folder)
    text = found["./fidelity_report.md"].decode("utf-8")
    if "open:" in text or "left out" in text or text.count("strict, seed 43") < 4:
        fail(f"the report of {folder} does not show all runs")
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.fidelity", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: %(default)s; 0: none")
    parser.add_argument("--seed", type=int, help="of the moments of the kills (default: drawn and printed)")
    parser.add_argument("--workers", default="2", metavar="N", help="trainers at a time (default: %(default)s)")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    folder, began = tempfile.mkdtemp(prefix="fidelity-"), time.monotonic()
    data = tiny.make_data(folder)
    study = make_study(folder, "alone", data)
    run_to_the_end(study, arguments.workers)
    wanted = report(study, os.path.join(folder, "alone"))
    print(f"a study of 3 codes and 2 seeds, {RUNS} runs: {time.monotonic() - began:.0f} s", flush=True)
    if arguments.kills:
        print(f"seed {seed}", flush=True)
        study = make_study(folder, "killed", data)
        with_trainers = kill_over_and_over(study, arguments.kills, random.Random(seed), arguments.workers)
        run_to_the_end(study, arguments.workers)
        found = report(study, os.path.join(folder, "killed"))
        differing = sorted(name for name in set(wanted) | set(found) if wanted.get(name) != found.get(name))
        if differing:
            fail(f"seed {seed}: the killed study in {folder} differs in {', '.join(differing)}")
        print(
            f"{arguments.kills} kills, {with_trainers} with the trainers: the same {len(found)} files, byte for byte; "
            f"{time.monotonic() - began:.0f} s in all"
        )
    return 0


if __name__ == "__main__":
    run_cli(main, sys.argv[1:])
