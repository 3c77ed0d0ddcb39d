"""What a resume refuses and accepts, what a finished run does, and that a fresh run overwrites nothing."""

import glob
import json
import os
import shlex
import shutil
import signal
from unittest import mock

import pytest

from tests.reliability.lab import at_cycle, send
from tests.reliability.snapshot import differences, snapshot
from tests.reliability.test_signals import contents


@pytest.fixture(scope="module")
def stopped(lab, tmp_path_factory):
    """A run stopped after 4 of 9 steps."""
    folder = str(tmp_path_factory.mktemp("stopped"))
    assert lab.run(folder, plants=[at_cycle(3, send(signal.SIGTERM))]).code == 143
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    shutil.copytree(stopped, str(tmp_path / "run"), symlinks=True)
    return str(tmp_path / "run")


def manifest(folder):
    with open(os.path.join(folder, "train_manifest.json"), encoding="utf-8") as handle:
        return json.load(handle)


@pytest.mark.parametrize(
    "key, value, was",
    [
        ("train.lr", "0.02", "0.5"),
        ("train.grad_clip", "7.0", "5.0"),
        ("eval.patience", "3", "15"),
        ("train.arch_seed", "7", "42"),
        ("data.flow_clip", "0.0", "50.0"),
    ],
)
def test_other_training_maths_is_refused_by_name_before_anything_is_written(lab, folder, key, value, was):
    before = contents(folder)
    outcome = lab.run(folder, "--resume", **{key.replace(".", "__"): value})
    assert outcome.code == 2
    assert f"{key} was {was}, is {value}" in outcome.error
    assert "--allow_changed " + key in outcome.error
    assert contents(folder) == before


def test_every_changed_key_is_named(lab, folder):
    outcome = lab.run(folder, "--resume", train__lr="0.02", train__wd="0.5")
    assert outcome.code == 2 and "--allow_changed train.lr,train.wd" in outcome.error


def test_an_accepted_change_is_recorded_and_takes_effect(lab, folder):
    outcome = lab.run(folder, "--resume", "--allow_changed", "train.lr", train__lr="0.02")
    assert outcome.code == 0, outcome.stderr
    assert [entry["changed"] for entry in manifest(folder)["resumes"]] == [["train.lr"]]
    assert manifest(folder)["config"]["train"]["lr"] == 0.02
    with open(os.path.join(folder, "train_steps.csv")) as handle:
        rates = [float(line.split(",")[2]) for line in list(handle)[1:]]
    assert rates[3] > 0.025 and rates[4] < 0.02
    # From now on the new value is the run's, and needs no permission.
    assert lab.run(folder, "--resume", train__lr="0.02").code == 0


def test_what_is_not_in_the_hash_may_differ(lab, uninterrupted, folder, tmp_path):
    os.symlink(lab.data, str(tmp_path / "elsewhere"))
    outcome = lab.run(
        folder,
        "--resume",
        "--fast_mode",
        data__base_path=str(tmp_path / "elsewhere"),
        runtime__save_every_steps=2,
        runtime__num_workers=2,
    )
    assert outcome.code == 0, outcome.stderr
    assert differences(snapshot(folder), uninterrupted) == ["manifest: dataset"]  # its path


@pytest.mark.parametrize(
    "words, said",
    [
        (["--allow_changed", "train.learning_rate"], "'train.learning_rate' is not a key of the training maths"),
        (["--allow_changed", "runtime.num_workers"], "'runtime.num_workers' is not a key of the training maths"),
    ],
)
def test_a_permission_for_no_key_is_an_error(lab, folder, words, said):
    outcome = lab.run(folder, "--resume", *words)
    assert outcome.code == 2 and said in outcome.error


def test_a_change_of_the_steps_per_epoch_is_refused_even_if_accepted(lab, folder, monkeypatch):
    """Every checkpoint is at a place in its epoch; with other epochs the run would never come to an evaluation
    again."""
    from edgeflownas.engine.run_state import RunState

    real = RunState.from_dict.__func__

    def other_epochs(cls, *stored):
        state = real(cls, *stored)
        state.steps_per_epoch = 2
        return state

    monkeypatch.setattr(RunState, "from_dict", classmethod(other_epochs))
    before = contents(os.path.join(folder, "checkpoints"))
    outcome = lab.run(folder, "--resume")
    assert outcome.code == 2 and "an epoch had 2 steps and would have 3 now" in outcome.error
    assert contents(os.path.join(folder, "checkpoints")) == before


def test_a_finished_run_does_no_step_and_says_so(lab, uninterrupted, folder):
    assert lab.run(folder, "--resume").code == 0
    outcome = lab.run(folder, "--resume")
    assert outcome.code == 0 and f"nothing to do: the run in {folder} is finished (3 epochs, 9 steps)" in outcome.stderr
    assert differences(snapshot(folder), uninterrupted) == []


def test_an_early_stopped_run_does_no_step_unless_its_patience_grows(lab, tmp_path):
    folder = str(tmp_path)
    assert lab.run(folder, eval__patience=1).code == 0
    assert (manifest(folder)["status"], manifest(folder)["global_step"]) == ("early_stopped", 6)
    before = snapshot(folder)
    outcome = lab.run(folder, "--resume", eval__patience=1)
    assert outcome.code == 0 and "stopped early" in outcome.stderr
    assert differences(snapshot(folder), before) == []
    assert lab.run(folder, "--resume", "--allow_changed", "eval.patience", eval__patience=15).code == 0
    assert (manifest(folder)["status"], manifest(folder)["global_step"]) == ("completed", 9)


def test_limits_stop_a_run_and_bend_nothing(lab, uninterrupted, tmp_path):
    for words in (
        ["--max_steps", "2"],
        ["--resume", "--max_epochs", "1"],
        ["--resume", "--max_steps", "8"],
        ["--resume"],
    ):
        assert lab.run(str(tmp_path), *words).code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []


def test_a_fresh_run_moves_the_old_one_away(lab, uninterrupted, folder):
    old = contents(folder)
    assert lab.run(folder).code == 0
    (moved,) = glob.glob(os.path.join(folder, "previous", "*"))
    assert {os.path.relpath(path, moved): data for path, data in contents(moved).items()} == {
        os.path.relpath(path, folder): data for path, data in old.items()
    }
    assert differences(snapshot(folder), uninterrupted) == []


def test_resume_without_a_run_is_an_error_and_no_fresh_start(lab, tmp_path):
    outcome = lab.run(str(tmp_path / "none"), "--resume")
    assert outcome.code == 2 and "no checkpoint to go on from" in outcome.error
    assert not os.path.exists(str(tmp_path / "none" / "train_manifest.json"))


def test_weights_of_an_unknown_run_are_said_to_be_so(lab, tmp_path):
    words = ["--experiment_name", "b", "--load_checkpoint", "--resume_experiment_name", "a"]
    outcome = lab.run(str(tmp_path), *words)
    assert outcome.code == 2 and "without --resume" not in outcome.error
    assert f"--resume_experiment_name a must name a run in {tmp_path}" in outcome.error


def test_resume_if_begun_starts_first_and_goes_on_afterwards(lab, uninterrupted, tmp_path):
    folder = str(tmp_path)
    assert lab.run(folder, "--resume_if_begun", "--max_steps", "4").code == 0
    assert lab.run(folder, "--resume_if_begun").code == 0
    assert differences(snapshot(folder), uninterrupted) == [] and not os.path.exists(folder + "/previous")


def test_resume_if_begun_never_starts_afresh_where_a_checkpoint_is_damaged(lab, folder):
    for path in glob.glob(os.path.join(folder, "checkpoints", "generations", "*", "state.json")):
        os.truncate(path, 7)
    before = contents(folder)
    outcome = lab.run(folder, "--resume_if_begun")
    assert outcome.code == 2 and "no checkpoint to go on from" in outcome.error and contents(folder) == before


@pytest.mark.parametrize("word", ["--resume", "--load_checkpoint"])
def test_resume_if_begun_stands_alone(lab, tmp_path, word):
    assert "stands alone" in lab.run(str(tmp_path), "--resume_if_begun", word).error


def test_a_start_that_fails_leaves_nothing_behind(lab, tmp_path):
    load = ["--load_checkpoint", "--resume_experiment_name", "x"]
    for words, changes in (([], {"data__base_path": "/nowhere"}), (["--resume"], {}), (load, {})):
        assert lab.run(str(tmp_path / "runs"), "--experiment_name", "a", *words, **changes).code == 2
        assert os.listdir(str(tmp_path)) == []


def test_the_command_in_the_manifest_goes_on_with_the_run(lab, uninterrupted, tmp_path):
    """The command uses only the configuration in the run's folder."""
    assert lab.run(str(tmp_path), "--max_steps", "4").code == 0
    place, _, command = manifest(str(tmp_path))["resume_command"].partition(" && ")
    assert place == f"cd {os.getcwd()}"
    words = shlex.split(command)
    assert words == [
        "python",
        "-m",
        "edgeflownas.train_supernet",
        "--config",
        str(tmp_path / "config.yaml"),
        "--resume",
    ]
    with mock.patch("tests.reliability.tiny.flags", lambda *data, **changes: words[3:]):
        assert lab.run(str(tmp_path)).code == 0
    assert differences(snapshot(str(tmp_path)), uninterrupted) == []
