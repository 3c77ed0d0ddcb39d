"""A run that was stopped and resumed is the run that was not, byte for byte; and the comparison can see each part of
it."""

import signal

import pytest

from tests.reliability import tiny
from tests.reliability.lab import at_cycle, in_evaluation, send
from tests.reliability.snapshot import differences, snapshot

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}
STOPS = [(at_cycle, step) for step in range(tiny.STEPS)] + [(in_evaluation, epoch + 1) for epoch in range(tiny.EPOCHS)]


def run_with_stops(lab, folder, stops, number=signal.SIGTERM):
    """The tiny run, one invocation per stop and a last one to its end; gives the last one's outcome."""
    resume = []
    for where, when in stops:
        outcome = lab.run(folder, *resume, plants=[where(when, send(number))])
        assert outcome.code == EXIT_CODES[number], outcome.stderr
        resume = ["--resume"]
    return lab.run(folder, *resume)


@pytest.mark.parametrize("where, when", STOPS, ids=[f"{where.__name__} {when}" for where, when in STOPS])
def test_stopped_anywhere_the_end_is_the_same(lab, uninterrupted, tmp_path, where, when):
    assert run_with_stops(lab, str(tmp_path), [(where, when)]).code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []


@pytest.mark.parametrize("number", sorted(EXIT_CODES), ids=lambda number: signal.Signals(number).name)
def test_each_signal_finishes_the_step_commits_and_says_so(lab, uninterrupted, tmp_path, number):
    outcome = lab.run(str(tmp_path), plants=[at_cycle(4, send(number))])
    name = "Ctrl-C (SIGINT)" if number == signal.SIGINT else signal.Signals(number).name
    assert outcome.code == EXIT_CODES[number] and f"stopped by {name} after step 5, committed" in outcome.stderr
    assert lab.run(str(tmp_path), "--resume").code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []


def test_stopped_three_times(lab, uninterrupted, tmp_path):
    stops = [(at_cycle, 1), (in_evaluation, 1), (at_cycle, 7)]
    assert run_with_stops(lab, str(tmp_path), stops, signal.SIGUSR1).code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []
