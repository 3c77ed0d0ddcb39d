"""The command `edgeflownas`: its table, its errors, and that it imports only what is asked for."""

import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

import edgeflownas
from edgeflownas import __main__ as console
from edgeflownas.errors import UserError


def test_help_teaches_every_command(capsys):
    assert console.dispatch(["--help"]) == 0
    out = capsys.readouterr().out
    for command in console.COMMANDS:
        assert f"\n  {command.name} " in out and command.text in out
    for command in ("data synthetic --out", "doctor --config", "train --config", "eval --config", "report outputs"):
        assert "\n  edgeflownas " + command in out


def test_no_command_is_a_usage_error(capsys):
    assert console.dispatch([]) == 2
    assert capsys.readouterr().out.startswith("usage: edgeflownas COMMAND")


def test_version(capsys):
    assert console.dispatch(["--version"]) == 0
    assert capsys.readouterr().out == f"edgeflownas {edgeflownas.__version__}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian"], "did you mean train"),
        (["data", "make"], "expected one of: data synthetic, data verify$"),
        (["data", "verfy"], "did you mean data verify"),
        (["gates", "stauts"], "did you mean status.; commands: status, verify, clauses; other words .* pytest"),
        (["gates", "everything"], "no command and no file; commands"),
        (["xyz"], "commands: "),
    ],
)
def test_unknown_commands_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        console.dispatch(arguments)


@pytest.mark.parametrize(
    "command", [command for command in console.COMMANDS if command.module], ids=lambda one: one.name
)
def test_a_command_passes_its_arguments_and_gives_its_exit_code(monkeypatch, command):
    seen = []
    module = SimpleNamespace(main=lambda argv: seen.append(argv) or 3)
    monkeypatch.setattr(console.importlib, "import_module", lambda name: seen.append(name) or module)
    assert console.dispatch(command.name.split() + ["--x", "y"]) == 3
    assert seen == [command.module, ["--x", "y"]]


@pytest.mark.parametrize(
    "arguments, want",
    [
        ([], ["pytest", "gates"]),
        (["-m", "gate2", "-n", "auto"], ["pytest", "gates", "-m", "gate2", "-n", "auto"]),
        (["status"], ["gates", "status"]),
        (["--help"], ["gates", "--help"]),
        (["clauses", "--markdown"], ["gates", "clauses", "--markdown"]),
    ],
)
def test_gates_run_in_the_checkout_and_their_exit_code_counts(monkeypatch, arguments, want):
    calls = []
    monkeypatch.setattr(console.subprocess, "call", lambda command, cwd: calls.append((command, cwd)) or 11)
    assert console.dispatch(["gates"] + arguments) == 11
    assert calls == [([sys.executable, "-m"] + want, str(console.signoff.project_root()))]


def test_gates_without_a_checkout_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(console.signoff, "project_root", lambda: tmp_path)
    with pytest.raises(UserError, match="checkout"):
        console.dispatch(["gates"])


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgeflownas"] + list(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


def test_an_error_is_one_line_and_exit_code_2():
    done = run("train", "--set", "train.lr=fast")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: command line: train.lr")


@pytest.mark.parametrize(
    "command", [command for command in console.COMMANDS if command.module], ids=lambda one: one.name
)
def test_help_of_every_command_needs_no_tensorflow(command):
    program = (
        "import sys\nfrom edgeflownas.__main__ import dispatch\ntry:\n    dispatch(sys.argv[1:])\nexcept SystemExit "
        "as end:\n"
        "    sys.exit(end.code or ('tensorflow' in sys.modules and 9))"
    )
    done = subprocess.run([sys.executable, "-c", program] + command.name.split() + ["--help"], stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stdout.startswith(b"usage: ")


def test_data_verify_finds_a_damaged_file(tiny_data, tmp_path, capsys):
    import os
    import shutil

    flags = ["--set", "data.input_height=64", "--set", "data.input_width=67", "--base_path"]
    assert console.dispatch(["data", "verify"] + flags + [tiny_data]) == 0
    assert "7 training and 3 validation samples" in capsys.readouterr().out
    own = str(tmp_path / "own")
    shutil.copytree(tiny_data, own)
    name = os.path.join(own, "train", "0000003-img_1.png")
    with open(name, "r+b") as handle:
        handle.seek(-40, os.SEEK_END)
        byte = handle.read(1)[0]
        handle.seek(-40, os.SEEK_END)
        handle.write(bytes([byte ^ 4]))
    with pytest.raises(UserError, match="0000003-img_1.png"):
        console.dispatch(["data", "verify"] + flags + [own])


@pytest.mark.parametrize("arguments, code", [(["data"], 2), (["data", "--help"], 0), (["data", "-h"], 0)])
def test_a_group_of_commands_explains_itself(capsys, arguments, code):
    assert console.dispatch(arguments) == code
    assert capsys.readouterr().out.splitlines() == [
        "usage: edgeflownas data COMMAND [ARGUMENTS]",
        "",
        "  data synthetic  make a small synthetic FlyingChairs2",
        "  data verify     decode every file of a data set",
    ]


@pytest.mark.parametrize("command", [one for one in console.COMMANDS if one.module], ids=lambda one: one.name)
def test_the_usage_names_the_command_that_was_given(capsys, command):
    with pytest.raises(SystemExit):
        console.dispatch(command.name.split() + ["--help"])
    assert capsys.readouterr().out.startswith(f"usage: edgeflownas {command.name} ")
    with pytest.raises(SystemExit):
        importlib.import_module(command.module).main(["--help"])
    # A module that only `edgeflownas` starts has no other name.
    assert capsys.readouterr().out.startswith(("usage: python ", f"usage: edgeflownas {command.name} "))


@pytest.mark.parametrize(
    "command, hidden",
    [("eval", "--lr --batch_size --num_epochs --seed --patience --fast_mode --input_height"),
     ("data verify", "--lr --batch_size --patience --gpu_device --bn_recal_batches")],
)  # fmt: skip
def test_help_lists_only_the_flags_that_a_command_uses(capsys, command, hidden):
    with pytest.raises(SystemExit):
        console.dispatch(command.split() + ["--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert [flag for flag in hidden.split() if flag in words] == []
    assert "--base_path" in words and "--config" in words


def test_a_pipe_that_has_read_enough_is_no_error():
    command = f"{sys.executable} -m edgeflownas eval --help"
    done = subprocess.run(["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)  # fmt: skip
    assert done.stderr == b"" and int(done.stdout) in (0, 141)


def test_output_into_a_closed_pipe_ends_with_its_code_and_no_words():
    program = (
        "import sys\nfrom edgeflownas.errors import run_cli\nrun_cli(lambda argv: [print(i) for i in range(10**5)])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -1; echo ${PIPESTATUS[0]}', "x"] + command,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert (done.stdout, done.stderr) == (b"0\n141\n", b"")
