"""The parser of all commands, on argparse: errors are one line with the nearest flag, help fits the terminal."""

import argparse
import os
import re
import sys
import textwrap
from typing import Any, List, Optional

from edgeflownas.errors import UserError, nearest


def positive(text: str) -> int:
    """Parses a whole number of at least 1. ArgumentTypeError for anything else."""
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def check_utf8(text: str, where: str) -> None:
    """UserError for a name that is not UTF-8, because the files of a run are UTF-8.

    Python represents such bytes as lone surrogates.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: {os.fsencode(text)!r} is not UTF-8; rename the folder or file")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wraps paragraphs of one line; keeps blocks of several lines (examples, exit codes) as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = [
            block if "\n" in block else textwrap.fill(block, width, initial_indent=indent, subsequent_indent=indent)
            for block in text.split("\n\n")
        ]
        return "\n\n".join(blocks)


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with `--traceback`. A wrong command line is a UserError, not a usage text.

    `called_as`: the program's name in usage texts if it was started by the command `edgeflownas`.
    """

    called_as: Optional[str] = None

    def __init__(self, prog: str, description: str, epilog: Optional[str] = None, usage: Optional[str] = None) -> None:
        super().__init__(
            prog=self.called_as or prog,
            description=description,
            epilog=epilog,
            usage=usage,
            allow_abbrev=False,
            formatter_class=_Help,
        )
        self.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Like argparse's, but requires UTF-8, and the error for an unknown flag names the nearest one."""
        for word in sys.argv[1:] if args is None else args:
            check_utf8(word, "the command line")
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown))
        return found

    def error(self, message: str) -> Any:
        """Raises a UserError with argparse's message."""
        raise UserError(f"{message} (see --help)")

    def _unknown(self, words: List[str]) -> str:
        flags = [word.split("=")[0] for word in words if word.startswith("-")]
        if not flags:
            return f"unexpected {words[0]!r}"
        return f"unknown flag {flags[0]}{nearest(flags[0], self._option_string_actions)}"
