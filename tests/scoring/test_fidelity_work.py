"""Workers: which worker takes which run, and what a stop, a failure and a second worker do. The trainer is a fake."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import UserError
from edgeflownas.scoring.fidelity import runs
from edgeflownas.scoring.fidelity.plan import RUNS
from edgeflownas.scoring.fidelity.work import RunHold, RunTaken, Work, left_over
from tests.scoring.pretended_study import Truth, make_data, planned, pretend, score, write_study

LINES = {
    "codes": '["000001000", "012001210", "222222222"]',
    "budgets": "[1]",
    "uniform_seeds": "[]",
    "strict_seeds": "[42]",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def plan(tmp_path, data):
    return planned(write_study(tmp_path, data, **LINES))


class Trainers(Work):
    """Workers whose children are functions here. `commands` are the command lines they were given."""

    def __init__(self, plan, task=0, tasks=1, fails=(), during=lambda run: None):
        super().__init__(plan, task, tasks, True, lambda line: None)
        self.commands, self._fails, self._during = [], fails, during
        self._truth = Truth([code.arch_code for code in plan.codes])

    def _child(self, words, log, hold=None):
        self.commands.append(words)
        by_name = {run.name: run for run in self.plan.runs}
        if "edgeflownas.train_supernet" in words:
            run = by_name[os.path.basename(log)]
            self._during(run)
            if run.name in self._fails:
                os.makedirs(os.path.dirname(log), exist_ok=True)
                with open(log + ".log", "w") as handle:
                    handle.write("some line\nerror: no space left\n")
                return 2
            shutil.rmtree(self.plan.run_folder(run), ignore_errors=True)
            pretend(self.plan, run)
        else:
            for name in words[3:]:
                score(self.plan, by_name[name], self._truth)
        return 0

    def trained(self):
        return [
            next(word.split("=")[1] for word in words if word.startswith("runtime.experiment_name="))
            for words in self.commands
            if "edgeflownas.train_supernet" in words
        ]


def work(trainers, workers=1):
    with StopSignals() as stop:
        return trainers.run(workers, stop)


def test_everything_is_trained_and_scored_once(plan):
    trainers = Trainers(plan)
    outcome = work(trainers, workers=2)
    names = [run.name for run in plan.runs]
    assert sorted(trainers.trained()) == sorted(names) and sorted(outcome.done) == sorted(names)
    assert (outcome.busy, outcome.failed, left_over(plan, outcome, trainers.share)) == ([], [], None)
    again = Trainers(plan)
    assert sorted(work(again).done) == sorted(names) and again.commands == []


def test_the_command_line_gives_the_planned_configuration(plan):
    from edgeflownas.command_line import parse_train
    from edgeflownas.config import config_hash

    trainers = Trainers(plan)
    work(trainers)
    for run, words in zip(plan.runs, trainers.commands):
        config, _, request = parse_train(words[2:])
        assert config_hash(config) == run.config_hash and request.unsigned
        assert os.path.join(config.runtime.output_dir, config.runtime.experiment_name) == plan.run_folder(run)


def test_shares_of_tasks_cover_the_plan_without_overlap(plan):
    shares = [{run.name for run in Trainers(plan, task, 3).share} for task in range(3)]
    assert set.union(*shares) == {run.name for run in plan.runs}
    assert sum(map(len, shares)) == len(plan.runs)


def test_an_interrupted_run_is_resumed_and_one_without_a_checkpoint_starts_anew(plan):
    pretend(plan, plan.runs[0], epochs=1, status="interrupted")
    pretend(plan, plan.runs[1], epochs=0, status="running", checkpoints=False)
    pretend(plan, plan.runs[2])
    stages = [runs.stage(plan, run) for run in plan.runs[:4]]
    assert stages == [runs.STOPPED, runs.FRESH, runs.TRAINED, runs.FRESH]
    trainers = Trainers(plan)
    trainers._train(plan.runs[0], None)
    trainers._train(plan.runs[1], None)
    trainers._train(plan.runs[2], None)
    assert [words[-1] == "--resume" for words in trainers.commands] == [True, False]


def test_a_run_of_another_configuration_is_not_touched(plan):
    pretend(plan, plan.runs[0], overrides=dict(plan.settings(plan.runs[0]), **{"train.lr": 0.5}))
    with pytest.raises(UserError, match="not trained as planned: train.lr differs; move this folder away"):
        runs.stage(plan, plan.runs[0])
    outcome = work(Trainers(plan))
    assert len(outcome.failed) == 1 and "train.lr differs" in outcome.failed[0]
    assert len(outcome.done) == len(plan.runs) - 1


def test_a_failed_run_is_named_with_its_last_line_and_the_others_go_on(plan):
    outcome = work(Trainers(plan, fails=[plan.runs[1].name]))
    assert outcome.failed == [f"{plan.runs[1].name}: the trainer ended with code 2: error: no space left"]
    assert left_over(plan, outcome, plan.runs) == f"1 of {len(plan.runs)} runs are missing: {plan.runs[1].name}"


def test_two_workers_never_do_the_same_run(plan):
    with RunHold(plan, plan.runs[0]):
        with pytest.raises(RunTaken):
            RunHold(plan, plan.runs[0]).__enter__()
        outcome = work(Trainers(plan))
        assert outcome.busy == [plan.runs[0].name]
    assert len(work(Trainers(plan)).done) == len(plan.runs)


def test_two_invocations_at_once_share_the_runs(plan):
    pair = [Trainers(plan, during=lambda run: time.sleep(0.05)) for _ in range(2)]
    outcomes = [None, None]

    def go(number):
        outcomes[number] = pair[number].run(1, StopSignals())

    threads = [threading.Thread(target=go, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pair[0].trained() + pair[1].trained()) == sorted(run.name for run in plan.runs)


def test_a_trainer_that_outlives_its_worker_keeps_the_run(plan):
    run = plan.runs[0]
    with RunHold(plan, run) as hold:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(hold.handle,))
    try:
        with pytest.raises(RunTaken):
            RunHold(plan, run).__enter__()
    finally:
        child.communicate(b"\n")
    with RunHold(plan, run):
        assert os.listdir(os.path.join(plan.folder, RUNS)) == [f".{run.name}.taken"]


def test_a_signal_asks_the_trainer_to_stop_and_starts_nothing_more(plan, monkeypatch):
    """The child is a real process here: it ends with 143 at SIGTERM, as the trainer does."""
    script = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(60)"
    trainers = Work(plan, 0, 1, True, lambda line: None)
    child = trainers._child
    monkeypatch.setattr(trainers, "_child", lambda words, log, hold=None: child(["-c", script], log, hold))
    with StopSignals() as stop:
        timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        began = time.monotonic()
        outcome = trainers.run(1, stop)
        timer.join()
        assert stop.exit_code == 143 and time.monotonic() - began < 30
    assert (outcome.done, outcome.failed) == ([], [])
    assert os.listdir(os.path.join(plan.folder, "logs")) == [f"{plan.runs[0].name}.log"]
