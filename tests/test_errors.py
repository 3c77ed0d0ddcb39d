"""The nearest name, and names that are no UTF-8."""

import os
import subprocess
import sys

import pytest

from edgeflownas import config as configuration
from edgeflownas.command_line import parse_train
from edgeflownas.errors import UserError, nearest

FLAGS = ["--lr", "--batch_size", "--num_epochs", "--verify_data", "--traceback", "--resume", "--eval_batch_size"]


@pytest.mark.parametrize(
    "name, want",
    [
        ("--learning_rate", ""),  # not --verify_data
        ("--epochs", "; did you mean --num_epochs?"),
        ("--batch", "; did you mean --batch_size?"),
        ("--bach_size", "; did you mean --batch_size?"),
        ("--zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_flag_is_near_or_none(name, want):
    assert nearest(name, FLAGS) == want


@pytest.mark.parametrize(
    "name, want",
    [
        ("lr", "train.lr"),
        ("train.batchsize", "train.batch_size"),
        ("eval.batchsize", "eval.batch_size"),
        ("train.foo", ""),
    ],
)
def test_the_nearest_key_is_found_by_its_last_part(name, want):
    assert nearest(name, configuration.KEYS) == (f"; did you mean {want}?" if want else "")


def test_a_key_that_is_like_none_gets_no_suggestion(tmp_path):
    (tmp_path / "a.yaml").write_text("train:\n  colour: 3\n")
    with pytest.raises(UserError, match="unknown key 'train.colour'$"):
        configuration.load(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    "words", [["--output_dir", "a\udcff"], ["--experiment_name", "\udce9"], ["--set", "data.list_dir=\udcff"]]
)
def test_names_that_are_no_utf8_are_refused(words):
    with pytest.raises(UserError, match="is not UTF-8; rename"):
        parse_train(words)


def test_nothing_is_moved_or_made_for_such_a_name(tmp_path):
    """Neither below it nor in it: the present folder may have such a name, too."""
    folder = os.fsencode(str(tmp_path)) + b"/caf\xe9"
    os.mkdir(folder)
    command = [sys.executable, "-m", "edgeflownas.train_supernet"]
    environment = dict(os.environ, PYTHONPATH=os.getcwd())
    for place, words in ((folder, []), (str(tmp_path), [b"--output_dir", b"out\xff"])):
        done = subprocess.run(command + words, cwd=place, env=environment, stderr=subprocess.PIPE)
        assert done.returncode == 2 and b"is not UTF-8; rename" in done.stderr and done.stderr.count(b"\n") == 1
    assert os.listdir(folder) == [] and os.listdir(str(tmp_path)) == [os.fsdecode(b"caf\xe9")]


def test_the_home_folder_in_a_configuration_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "a.yaml").write_text(
        "data:\n  base_path: ~/fc2\n  list_dir: ~\nruntime:\n  output_dir: ~/runs\n  experiment_name: a~b\n"
    )
    config, _ = configuration.load(str(tmp_path / "a.yaml"), {"data.list_dir": "~/lists"})
    assert (config.data.base_path, config.data.list_dir) == ("/home/somebody/fc2", "/home/somebody/lists")
    assert (config.runtime.output_dir, config.runtime.experiment_name) == ("/home/somebody/runs", "a~b")
