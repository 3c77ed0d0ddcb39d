"""Errors that the user can fix: one line that says what is wrong and what to do, and the exit code (2 by default)."""

import difflib
import os
import sys
from typing import Callable, Iterable, List, Optional

NEAR = 0.65  # least similarity for a suggestion; high enough to suggest nothing for `learning_rate`
BROKEN_PIPE = 141  # 128 + SIGPIPE, the usual exit code of a program in a broken pipeline


class UserError(Exception):
    """An error that the user can fix. Its message is one line: what is wrong, and what to do."""

    exit_code = 2

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class DataError(UserError):
    """A data file is missing or damaged. The message names the file, what was expected and what was found."""


class RunFailed(UserError):
    """Training or a hand-over failed: a loss is not finite (weights unchanged), or a result is not what it must be."""

    exit_code = 1


class GradientNotFinite(RunFailed):
    """A cycle's gradient is not finite, although its losses are."""


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" with the most similar known name; empty if none is similar.

    Compares flags without dashes and keys by their last part: `lr` is similar to `train.lr`.
    """

    like = [other for other in known if _likeness(_plain(name), _plain(other)) >= NEAR]
    if not like:
        return ""
    whole = "." in name  # then the section decides between keys with the same last part
    best = max(like, key=lambda other: (_likeness(_plain(name), _plain(other)), whole and _likeness(name, other)))
    return f"; did you mean {best}?"


def _likeness(one: str, other: str) -> float:
    """The similarity of two names, 0 to 1; an abbreviation counts as equal."""
    if len(one) > 2 and other.startswith(one):
        return 1.0
    return difflib.SequenceMatcher(None, one, other).ratio()


def _plain(name: str) -> str:
    return name.lstrip("-").split(".")[-1]


def run_cli(main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]] = None) -> None:
    """Runs an entry point and exits with its status, or for a `UserError` prints one line and exits with its code.

    With `--traceback` on the command line, errors show the whole traceback instead.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        try:
            status = main(argv)
        finally:
            sys.stdout.flush()  # raises a BrokenPipeError here instead of at exit
    except BrokenPipeError:  # the reader has closed the pipe, for example `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except UserError as error:
        if "--traceback" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before training, or in a command that leaves nothing unfinished
        if "--traceback" in arguments:
            raise
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)
