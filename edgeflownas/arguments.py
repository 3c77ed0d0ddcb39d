"""A command line whose mistakes are one line that names the nearest flag, and whose help fits the terminal. On
argparse."""

import argparse
import difflib
import re
import textwrap
from typing import Any, List, Optional

from edgeflownas.errors import UserError


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Paragraphs of one line are wrapped; blocks of several (examples, exit codes) stay as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = [
            block if "\n" in block else textwrap.fill(block, width, initial_indent=indent, subsequent_indent=indent)
            for block in text.split("\n\n")
        ]
        return "\n\n".join(blocks)


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with `--traceback`; a mistake is a UserError instead of a usage text."""

    def __init__(self, prog: str, description: str, epilog: Optional[str] = None, usage: Optional[str] = None) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, usage=usage, allow_abbrev=False, formatter_class=_Help
        )
        self.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's own, but a flag that is none is named with the nearest one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown))
        return found

    def error(self, message: str) -> Any:
        """Raises a UserError with argparse's words."""
        raise UserError(f"{message} (see --help)")

    def _unknown(self, words: List[str]) -> str:
        flags = [word.split("=")[0] for word in words if word.startswith("-")]
        if not flags:
            return f"unexpected {words[0]!r}"
        nearest = difflib.get_close_matches(flags[0], list(self._option_string_actions), n=1, cutoff=0.5)
        return "unknown flag {}{}".format(flags[0], f"; did you mean {nearest[0]}?" if nearest else "")
