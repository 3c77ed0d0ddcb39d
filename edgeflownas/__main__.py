"""The command `edgeflownas`: runs the programs of this package as sub-commands. Built on `arguments`; imports a program
only when it is called."""

import importlib
import os
import re
import subprocess
import sys
from typing import List, NamedTuple, Optional, Sequence

import edgeflownas
from edgeflownas import signoff
from edgeflownas.arguments import Parser
from edgeflownas.errors import UserError, nearest, run_cli

# First arguments that go to `python -m gates`; all others go to pytest.
GATE_READERS = ("status", "verify", "clauses", "-h", "--help")


class Command(NamedTuple):
    """One sub-command: its name, the module whose `main(argv)` it calls ("" = `run_gates`), its help text."""

    name: str
    module: str
    text: str


COMMANDS = (
    Command(
        "doctor", "edgeflownas.doctor", "what a run needs on this machine: TensorFlow, GPU, data, disk, a first step"
    ),
    Command("data synthetic", "edgeflownas.data.synthetic", "make a small synthetic FlyingChairs2"),
    Command("data verify", "edgeflownas.verify_data", "decode every file of a data set"),
    Command("gates", "", "run the acceptance gates (pytest gates ...); gates status, verify, clauses read them"),
    Command("train", "edgeflownas.train_supernet", "train the supernet, or go on with --resume"),
    Command("eval", "edgeflownas.nas.supernet_eval", "score the pool or any subnets of a run"),
    Command("extract", "edgeflownas.handover.extract", "take one subnet out of a supernet: a run folder of its own"),
    Command("predict", "edgeflownas.handover.predict", "the flow of a pair of your images, by any subnet of a run"),
    Command(
        "export", "edgeflownas.handover.export", "write float and int8 TFLite of an extracted subnet (TensorFlow 2)"
    ),
    Command("check", "edgeflownas.nas.check_manifest", "check a run's files against each other"),
    Command("report", "edgeflownas.report", "report on a run, or compare several"),
    Command(
        "fidelity",
        "edgeflownas.scoring.fidelity.command",
        "does the ranking agree with stand-alone training? fidelity plan, run, report, bn",
    ),
)

USAGE = """\
usage: edgeflownas COMMAND [ARGUMENTS]      (or: python -m edgeflownas COMMAND [ARGUMENTS])

{table}

edgeflownas COMMAND --help explains a command, edgeflownas --version prints the version.

from nothing to a scored supernet:
  edgeflownas data synthetic --out data/synthetic_fc2_small --train 640 --test 64 --seed 1 --height 96 --width 128
  --max_shift 6
  edgeflownas doctor --config supernet_quick
  edgeflownas train --config supernet_quick --max_epochs 2
  edgeflownas eval --config supernet_quick --checkpoint best
  edgeflownas report outputs/supernet
and from it to one subnet:
  edgeflownas extract outputs/supernet 000001000 outputs/supernet/small
  edgeflownas predict outputs/supernet/small 000001000 frame0.png frame1.png --out flow
  edgeflownas export outputs/supernet/small --int8
"""


def usage() -> str:
    """The help text, with the table of commands."""
    return USAGE.format(table=table(COMMANDS))


def table(commands: Sequence[Command]) -> str:
    """A line per command: its name and what it does."""
    width = max(len(command.name) for command in commands)
    return "\n".join("  {:<{}}  {}".format(one.name, width, one.text) for one in commands)


def dispatch(argv: Optional[List[str]] = None) -> int:
    """Runs the command that `argv` names and returns its exit code. UserError for an unknown command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"edgeflownas {edgeflownas.__version__}")
        return 0
    group = [one for one in COMMANDS if one.name.split()[0] == arguments[0] != one.name]
    if group and arguments[1:2] in ([], ["-h"], ["--help"]):
        print("usage: edgeflownas {} COMMAND [ARGUMENTS]\n\n{}".format(arguments[0], table(group)))
        return 0 if arguments[1:] else 2
    command = _find(arguments)
    rest = arguments[len(command.name.split()):]  # fmt: skip
    if not command.module:
        return run_gates(rest)
    Parser.called_as = f"edgeflownas {command.name}"
    try:
        return int(importlib.import_module(command.module).main(rest) or 0)
    finally:
        Parser.called_as = None


def _find(arguments: List[str]) -> Command:
    for command in COMMANDS:
        words = command.name.split()
        if arguments[: len(words)] == words:
            return command
    inside = [one.name for one in COMMANDS if one.name.split()[0] == arguments[0]]
    if inside:
        near = nearest(" ".join(arguments[:2]), inside)
        raise UserError("edgeflownas {}: expected one of: {}{}".format(arguments[0], ", ".join(inside), near))
    names = sorted({one.name.split()[0] for one in COMMANDS})
    raise UserError(
        "unknown command {!r}{}; commands: {}".format(arguments[0], nearest(arguments[0], names), ", ".join(names))
    )


def run_gates(arguments: List[str]) -> int:
    """Runs `python -m gates` for `GATE_READERS`, else `pytest gates`, in the checkout. Returns the exit code."""
    root = signoff.project_root()
    if not os.path.isfile(str(root / "gates" / "__main__.py")):
        raise UserError(f"there are no gates in {root}: they belong to a checkout of the project; run this from one")
    reads = arguments[:1] and arguments[0] in GATE_READERS
    if arguments[:1] and not reads and re.fullmatch(r"\w+", arguments[0]) and not (root / arguments[0]).exists():
        raise UserError(
            "edgeflownas gates {}: no command and no file{}; commands: {}; other words and flags go to pytest".format(
                arguments[0], nearest(arguments[0], GATE_READERS[:3]), ", ".join(GATE_READERS[:3])
            )
        )
    command = [sys.executable, "-m"] + (["gates"] if reads else ["pytest", "gates"]) + arguments
    return subprocess.call(command, cwd=str(root))


def main(argv: Optional[List[str]] = None) -> None:
    """Entry point: exits with the command's code, and prints a UserError as one line."""
    run_cli(dispatch, argv)


if __name__ == "__main__":
    main()
