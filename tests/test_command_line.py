"""The command line: every flag in the help, what --load_checkpoint means, and quick answers without TensorFlow."""

import importlib
import os
import subprocess
import sys
import time

import pytest
import yaml

from edgeflownas import train_supernet
from edgeflownas.command_line import parse_train
from edgeflownas.config import KEYS, config_hash
from edgeflownas.errors import UserError, run_cli

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMED = (
    "--gpu_device --num_epochs --batch_size --lr --network_module --load_checkpoint --resume_experiment_name "
    "--experiment_name --fast_mode --config --supernet_mode --dry_run --max_epochs --max_steps --resume --debug_trace "
    "--cycle_mode --micro_batch_size --base_path --arch_seed --eval_pool_size --bn_recal_batches --deterministic "
    "--set --allow_changed --unsigned --verify_data --traceback"
).split()
QUICK = """
import sys, time
from edgeflownas.train_supernet import main
try:
    main({words!r})
except SystemExit:
    pass
print([name for name in sys.modules if name.split(".")[0] in ("tensorflow", "matplotlib")], time.process_time(),
file=sys.stderr)
"""


def help_text(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_train(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_names_every_flag_with_its_default_and_key(capsys):
    text = " ".join(help_text(capsys).split())
    assert [flag for flag in NAMED if flag not in text] == []
    for key in KEYS.values():
        if key.flag:
            assert key.flag in text
            shown = {"False": "off", "": "empty"}.get(str(key.default), key.default)
            assert f"(default: {shown}; key: {key.name})" in text
        else:
            assert f"{key.name}={key.default}" in text
    assert "exit codes: 0 done" in text


NEEDED = {"runtime.distributed": ["--micro_batch_size", "8"]}  # words without which a key cannot be set


def test_every_key_can_be_set_by_set():
    values = {int: "64", float: "0.25", bool: "true", str: "x"}
    for key in KEYS.values():
        value = key.choices[-1] if key.choices else values[type(key.default)]
        if key.name == "train.micro_batch_size":
            value = "8"
        config, origins, _ = parse_train(NEEDED.get(key.name, []) + ["--set", f"{key.name}={value}"])
        assert origins[key.name] == "command line"
        section, name = key.name.split(".")
        assert str(getattr(getattr(config, section), name)).lower() == value.lower()


@pytest.mark.parametrize("flag", [key.flag for key in KEYS.values() if key.flag])
def test_a_flag_sets_its_own_key(flag):
    (key,) = [key for key in KEYS.values() if key.flag == flag]
    value = {int: "64", float: "0.25", str: "x"}.get(type(key.default))
    value = key.choices[-1] if key.choices else "8" if flag == "--micro_batch_size" else value
    needed = NEEDED.get(key.name, [])
    config, origins, _ = parse_train(needed + [flag] + ([] if isinstance(key.default, bool) else [value]))
    changed = {name for name, origin in origins.items() if origin != "default"}
    assert changed == {key.name} | ({"train.micro_batch_size"} if needed else set())
    section, name = key.name.split(".")
    found = getattr(getattr(config, section), name)
    assert found is True if isinstance(key.default, bool) else str(found) == value


@pytest.mark.parametrize(
    "words, said",
    [
        (["--set", "train.lr"], "--set 'train.lr': expected section.key=value"),
        (["--set", "train.learning=1"], "unknown key 'train.learning'"),
        (["--set", "lr=1"], "did you mean train.lr?"),
        (["--lr", "fast"], "command line: train.lr: expected a number, found 'fast'"),
        (["--batch_size", "1.5"], "expected a whole number"),
        (["--batch_size", "0"], "must be at least 1"),
        (["--resume_experiment_name", "a"], "add --load_checkpoint"),
        (["--allow_changed", "train.lr"], "goes with --resume"),
        (["--resume", "--load_checkpoint", "--resume_experiment_name", "other"], "give one of them"),
        (["--experiment_name", "../up"], "plain folder name"),
        (["--experiment_name", ".hidden"], "plain folder name"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(words, said):
    with pytest.raises(UserError) as caught:
        parse_train(words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--max_steps", "0"], "argument --max_steps: expected a whole number of at least 1, found '0'"),
        (["--max_epochs", "-1"], "--max_epochs"),
        (["--max_steps", "ten"], "found 'ten'"),
        (["--re"], "unknown flag --re"),
        (["--batch", "4"], "unknown flag --batch; did you mean --batch_size?"),
        (["leftover"], "unexpected 'leftover'"),
        (["--bach_size=4"], "unknown flag --bach_size; did you mean --batch_size?"),
        (["--supernet_mode"], "expected one argument"),
    ],
)
def test_what_argparse_refuses_is_one_line_and_exit_code_2(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(parse_train, words)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 1
    assert lines[0].startswith("error: ") and said in lines[0] and lines[0].endswith("(see --help)")


@pytest.mark.parametrize(
    "module",
    [
        "edgeflownas.report",
        "edgeflownas.doctor",
        "edgeflownas.verify_data",
        "edgeflownas.data.synthetic",
        "edgeflownas.nas.supernet_eval",
        "edgeflownas.nas.check_manifest",
        "edgeflownas.nas.arch_codec",
        "edgeflownas.nas.fair_sampler",
        "edgeflownas.nas.model_shape_check",
    ],
)
def test_every_command_names_the_nearest_flag(module, capsys):
    main = importlib.import_module(module).main
    given = {
        "edgeflownas.data.synthetic": "--out x --train 1 --test 1 --seed 1",
        "edgeflownas.report": "x",
        "edgeflownas.nas.arch_codec": "--self_test",
    }.get(module, "").split()
    with pytest.raises(UserError, match=r"unknown flag --tracback; did you mean --traceback\? \(see --help\)"):
        main(given + ["--tracback"])


def test_help_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in help_text(capsys).splitlines()[1:] if len(line) > 80] == []


@pytest.mark.parametrize(
    "words, resume, resume_from",
    [
        ([], False, None),
        (["--resume"], True, None),
        (["--load_checkpoint"], True, None),
        (["--load_checkpoint", "--resume_experiment_name", "mine"], True, None),
        (["--load_checkpoint", "--resume_experiment_name", "mine/"], True, None),
        (["--load_checkpoint", "--resume_experiment_name", "./mine"], True, None),
        (["--load_checkpoint", "--resume_experiment_name", "other"], False, "other"),
    ],
)
def test_what_load_checkpoint_means(words, resume, resume_from):
    request = parse_train(["--experiment_name", "mine"] + words)[2]
    assert (request.resume, request.resume_from) == (resume, resume_from)


def test_the_command_line_beats_the_file_and_the_file_the_default(tmp_path):
    path = str(tmp_path / "a.yaml")
    with open(path, "w") as handle:
        yaml.safe_dump({"train": {"lr": 0.5, "wd": 0.25}}, handle)
    config, origins, _ = parse_train(["--config", path, "--lr", "1e-3"])
    assert (config.train.lr, config.train.wd, config.train.grad_clip) == (1e-3, 0.25, 5.0)
    assert [origins["train." + name] for name in ("lr", "wd", "grad_clip")] == ["command line", path, "default"]


def test_dry_run_prints_every_key_with_its_value_and_origin(capsys):
    assert train_supernet.main(["--dry_run", "--lr", "0.125"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line}
    assert set(KEYS) <= set(rows)
    assert rows["train.lr"].split() == ["train.lr", "0.125", "command", "line"]
    assert rows["config_hash"].split()[1] == config_hash(parse_train(["--lr", "0.125"])[0])


def test_dry_run_refuses_what_a_run_would(capsys):
    with pytest.raises(UserError, match="eval.pool_size"):
        train_supernet.main(["--dry_run", "--eval_pool_size", "13"])


@pytest.mark.parametrize("words", [["--help"], ["--dry_run"]])
def test_quick_answers_do_without_tensorflow(words):
    """Two seconds of processor time: how long one waits depends on what else the machine does."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", QUICK.format(words=words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    heavy, seconds = done.stderr.rsplit(None, 1)
    assert done.returncode == 0 and len(done.stdout) > 1000 and heavy.splitlines()[-1] == "[]", done.stderr
    assert float(seconds) < 2.0, f"took {seconds} s of {time.monotonic() - began:.1f} s"


def test_an_error_is_one_line_and_traceback_shows_it_whole(capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli(train_supernet.main, ["--dry_run", "--lr", "-1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: command line: train.lr: must be greater than 0.0, found -1.0\n"
    with pytest.raises(UserError):
        run_cli(train_supernet.main, ["--dry_run", "--lr", "-1", "--traceback"])


@pytest.mark.parametrize("name", ["checkpoints", "previous", "tensorboard", "eval_pool_12.json"])
def test_an_experiment_cannot_have_the_name_of_a_runs_own_file(name):
    config, _, _ = parse_train(["--experiment_name", name])
    with pytest.raises(UserError, match="name of something that a run writes"):
        train_supernet.run_folder(config)
