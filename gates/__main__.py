"""`python -m gates status | verify | clauses`: shows sign-offs and the clause table. Runs no test and imports no
TensorFlow."""

import argparse
from pathlib import Path
from typing import List, Optional

from edgeflownas import signoff
from edgeflownas.errors import run_cli
from gates import EXIT_CODES, MEANINGS, STATE_CODES, attestation, spaces
from gates.clauses import GATE_TITLES, TABLE


def status(root: Path, space: str) -> int:
    """Prints the state of every gate. Always returns 0."""
    for gate, state in signoff.gate_states(root, space).items():
        print(f"gate {gate}  {state.name:<8} {GATE_TITLES[gate]}  ({state.reason})")
    return 0


def verify(root: Path, space: str, statement: Optional[Path] = None) -> int:
    """Prints the first gate without a valid sign-off and returns the exit code of its state; 0 if all are valid.

    Writes the in-toto `statement` if all gates are valid, or if all have records and the first invalid one failed.
    """
    states = signoff.gate_states(root, space)
    bad = {gate: state for gate, state in states.items() if not state.valid}
    present = all(state.name != "missing" for state in states.values())
    first = next(iter(bad.items()), None)
    if statement and (not bad or (present and first and first[1].name == "failed")):
        attestation.write(statement, root, space)
        print(f"statement {statement}")
    if first:
        print(f"gate {first[0]} is {first[1].name}: {first[1].reason}")
        return STATE_CODES[first[1].name]
    print("all gates are signed off for the present source")
    return 0


def clauses(markdown: bool) -> int:
    """Prints the clause table."""
    for gate in TABLE.gates:
        if markdown:
            print(f"## Gate {gate}: {GATE_TITLES[gate]}\n\n| id | clause | source |\n|---|---|---|")
        for clause in TABLE.of(gate):
            row = "| {} | {} | {} |" if markdown else "{:<7} {}  ({})"
            print(row.format(clause.id, clause.sentence, clause.source))
        if markdown:
            print()
    return 0


def _epilog() -> str:
    lines = [
        "run the gates with: python -m pytest gates [-m gateN] [-n auto] [--require_gpu] [--junitxml FILE]",
        "",
        "outcomes of a run and their exit codes (pytest's own: 2 interrupted, 3 internal error, 4 usage error):",
    ]
    lines += [f"  {name:<8} {code:>2}  {MEANINGS[name]}" for name, code in EXIT_CODES.items()]
    lines += [
        "",
        "exit codes of verify, by the state of the first gate that is not valid:",
        "  " + ", ".join(f"{name} {code}" for name, code in STATE_CODES.items()),
    ]
    return "\n".join(lines)


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m gates", description=__doc__, epilog=_epilog(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="{status,verify,clauses}")
    commands.required = True
    for name, text in (("status", "table of the four gates"), ("verify", "0 only if all four gates are signed off")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--root", type=Path, default=signoff.project_root(), help="project folder")
        command.add_argument("--space", choices=sorted(spaces.SPACES), default=spaces.DEFAULT, help="search space")
        if name == "verify":
            command.add_argument(
                "--attestation", type=Path, metavar="FILE", help="write the sign-off as an in-toto statement (JSON)"
            )
    table = commands.add_parser("clauses", help="the clause table")
    table.add_argument("--markdown", action="store_true", help="as Markdown, for the docs")
    arguments = parser.parse_args(argv)
    if arguments.command == "clauses":
        return clauses(arguments.markdown)
    if arguments.command == "status":
        return status(arguments.root, arguments.space)
    return verify(arguments.root, arguments.space, arguments.attestation)


if __name__ == "__main__":
    run_cli(main)
