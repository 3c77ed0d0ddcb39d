"""Measures the hot path against the usual masked supernet, on this machine, in one run.

Subjects live in processes of their own and take turns, so that what disturbs the machine disturbs them alike. Figures
are
medians after a warm-up. Prints tables; DIR gets them as results.md, everything as results.json, and scaling.svg.
"""

import argparse
import json
import os
import platform
import re
import shlex
import sys
import time
from typing import Any, Dict, List, Optional

from benchmarks import parts
from benchmarks.parts import Part, Table
from benchmarks.ranks import ranks
from benchmarks.subjects import Settings, Worker
from edgeflownas.command_line import positive
from edgeflownas.errors import UserError, run_cli
from edgeflownas.files import os_errors

PARTS = dict(parts.PARTS, ranks=ranks)


def markdown(table: Table) -> str:
    """The table with a heading, columns aligned."""
    lines = [table.header] + [["---"] * len(table.header)] + table.rows
    widths = [max(len(row[i]) for row in lines) for i in range(len(table.header))]
    body = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in lines]
    return "\n".join(["### " + table.title, ""] + body) + "\n"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as handle:
            named = re.search(r"^model name\s*:\s*(.*)$", handle.read(), re.MULTILINE)
        if named:
            return named.group(1)
    return platform.processor() or platform.machine()


def _parser() -> argparse.ArgumentParser:
    parts = "\n".join("  {:12}{}".format(name, (part.__doc__ or "").strip()) for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + parts,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure (default: all)")
    parser.add_argument("--repeats", type=positive, default=5, help="measured units per subject (default %(default)s)")
    parser.add_argument(
        "--output", metavar="DIR", default=os.path.join("outputs", "benchmarks"), help="default: %(default)s"
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision, as the trainer's --amp (on a GPU)")
    parser.add_argument("--xla", action="store_true", help="compile with XLA, as the trainer's --xla")
    return parser


def _about(first: Dict[str, Any], arguments: argparse.Namespace) -> Dict[str, Any]:
    return {
        "tensorflow": first["tensorflow"],
        "device": first["device"],
        "processor": processor(),
        "cores": os.cpu_count(),
        "repeats": arguments.repeats,
        "amp": arguments.amp,
        "xla": arguments.xla,
        "command": "python -m benchmarks.run " + " ".join(map(shlex.quote, sys.argv[1:])),
    }


def _write(folder: str, about: Dict[str, Any], measured: Dict[str, Part]) -> None:
    path = os.path.join(folder, "results.json")
    with os_errors(f"write {path}"):
        os.makedirs(folder, exist_ok=True)
        with open(path, "w", encoding="utf-8") as handle:
            json.dump(dict(about, parts={name: part._asdict() for name, part in measured.items()}), handle, indent=1)
        with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as handle:
            handle.write(
                "\n".join([_heading(about)] + [markdown(table) for part in measured.values() for table in part.tables])
            )
        if "scaling" in measured:
            from benchmarks.plot import draw_scaling

            draw_scaling(
                measured["scaling"].raw, _heading(about).split("\n")[0].strip("# "), os.path.join(folder, "scaling.svg")
            )


def _heading(about: Dict[str, Any]) -> str:
    return (
        "## TensorFlow {tensorflow} on {device}\n\n`{command}`: {cores} cores ({processor}), {repeats} repeats\n"
    ).format(**about)


def main(argv: Optional[List[str]] = None) -> int:
    """The command."""
    arguments = _parser().parse_args(argv)
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        raise UserError("no part {!r}; parts are {}".format(unknown[0], ", ".join(PARTS)))
    settings: Settings = {"train.amp": arguments.amp, "runtime.xla": arguments.xla}
    with Worker("nothing", settings) as worker:
        about = _about(worker.first, arguments)
    print(_heading(about), flush=True)
    measured: Dict[str, Part] = {}
    for name in arguments.parts or PARTS:
        started = time.monotonic()
        measured[name] = PARTS[name](settings, arguments.repeats)
        for table in measured[name].tables:
            print(markdown(table), flush=True)
        print(f"({name} took {time.monotonic() - started:.0f} s)\n", flush=True)
        _write(arguments.output, about, measured)  # after every part, so that a stop loses nothing
    return 0


if __name__ == "__main__":
    run_cli(main)
