"""The rollback rule: a run beyond the free epochs needs gate 3's sign-off, also if it is divided into resumes."""

from unittest import mock

import pytest

from edgeflownas import config as configuration
from edgeflownas import signoff, train_supernet
from edgeflownas.command_line import parse_train
from edgeflownas.engine.run_state import RunState
from tests.reliability.test_resume_rules import manifest
from tests.reliability.tiny import STEPS_PER_EPOCH


@pytest.fixture(autouse=True)
def nothing_signed(tmp_path, monkeypatch):
    monkeypatch.setenv(signoff.RECORDS_VARIABLE, str(tmp_path / "records"))
    monkeypatch.setattr(train_supernet, "FREE_EPOCHS", 1)


ONE_EPOCH = (["--max_epochs", "1"], ["--max_steps", str(STEPS_PER_EPOCH)], ["--max_steps", "2", "--max_epochs", "3"])
MORE = ([], ["--max_epochs", "2"], ["--max_steps", str(STEPS_PER_EPOCH + 1)], ["--max_steps", "99"])


@pytest.mark.parametrize("words", ONE_EPOCH, ids=" ".join)
def test_the_free_epochs_need_no_sign_off(lab, tmp_path, words):
    assert lab.run(str(tmp_path / "run"), *words).code == 0


@pytest.mark.parametrize("words", MORE, ids=" ".join)
def test_a_longer_run_is_refused_in_one_line_with_the_command(lab, tmp_path, words):
    outcome = lab.run(str(tmp_path / "run"), *words)
    assert outcome.code == 2 and "a run of more than 1 epochs needs gate 3" in outcome.error
    assert "python -m pytest gates -m gate3" in outcome.error and "--unsigned" in outcome.error


@pytest.mark.parametrize("words", MORE, ids=" ".join)
def test_a_resume_counts_from_the_very_first_step(lab, tmp_path, words):
    folder = str(tmp_path / "run")
    assert lab.run(folder, "--max_epochs", "1").code == 0
    assert lab.run(folder, "--resume", *words).code == 2
    outcome = lab.run(folder, "--resume", "--unsigned", *words)
    assert outcome.code == 0, outcome.stderr
    assert manifest(folder)["gates"] == dict({f"gate{gate}": "missing" for gate in (1, 2, 3, 4)}, unsigned=True)


def test_a_resume_that_trains_nothing_is_free(lab, tmp_path):
    folder = str(tmp_path / "run")
    assert lab.run(folder, "--unsigned").code == 0
    outcome = lab.run(folder, "--resume")
    assert outcome.code == 0 and "nothing to do" in outcome.stderr
    assert manifest(folder)["gates"]["unsigned"] is True  # the run was trained without sign-off, and stays so


def test_a_valid_sign_off_lets_it_run(lab, tmp_path):
    with mock.patch.object(signoff, "require_gate", lambda gate, root, space: None):
        assert lab.run(str(tmp_path / "run"), "--max_epochs", "2").code == 0


@pytest.mark.parametrize(
    "words, step, early_stopped, want",
    [
        ("", None, False, True),
        ("--max_epochs 5", None, False, False),
        ("--max_steps 50", None, False, False),
        ("--max_steps 51", None, False, True),
        ("--max_epochs 5 --max_steps 999", None, False, False),
        ("--max_epochs 6 --max_steps 51", None, False, True),
        ("--max_steps 51", 40, False, True),
        ("--max_steps 50", 40, False, False),
        ("--max_epochs 6", 50, False, True),
        ("--max_epochs 6", 60, False, False),  # trains nothing
        ("", 70, True, False),
        ("--allow_changed eval.patience", 70, True, True),
        ("--unsigned", None, False, False),
    ],
)
def test_which_runs_are_too_long(monkeypatch, words, step, early_stopped, want):
    monkeypatch.setattr(train_supernet, "FREE_EPOCHS", 5)
    request = parse_train(words.split() + (["--resume"] if step is not None else []))[2]
    config = configuration.load(None)[0]
    resumed = None if step is None else RunState(config, "", 10, step=step)
    if resumed and early_stopped:
        resumed.early_stop.wait = config.eval.patience
    assert train_supernet.too_long(min(200, request.max_epochs or 200), 10, resumed, request) == want
