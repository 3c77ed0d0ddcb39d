"""Errors that are the user's to mend: one line, what is wrong and what to do, exit code 2."""

import difflib
import os
import sys
from typing import Callable, Iterable, List, Optional

NEAR = 0.65  # of the likeness of two names: `learning_rate` is like no name here
BROKEN_PIPE = 141  # 128 and SIGPIPE, as every other program of a pipeline ends


class UserError(Exception):
    """Something the user can mend. Its text is one line: what is wrong, and the next step."""

    exit_code = 2

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class DataError(UserError):
    """A data file that is missing or damaged. Names the file, what was expected and what was found."""


class RunFailed(UserError):
    """Training stopped before the weights were touched, for example at a loss that is not finite."""

    exit_code = 1


class GradientNotFinite(RunFailed):
    """A cycle's gradient overflowed, while its losses were finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" with the known name most like this one; empty if none is like it.

    Flags are compared without their dashes, keys by their last part: `lr` is like `train.lr`.
    """

    like = [other for other in known if _likeness(_plain(name), _plain(other)) >= NEAR]
    if not like:
        return ""
    whole = "." in name  # then the section decides between two keys with the same last part
    best = max(like, key=lambda other: (_likeness(_plain(name), _plain(other)), whole and _likeness(name, other)))
    return f"; did you mean {best}?"


def _likeness(one: str, other: str) -> float:
    """0 to 1; an abbreviation counts as the whole name."""
    if len(one) > 2 and other.startswith(one):
        return 1.0
    return difflib.SequenceMatcher(None, one, other).ratio()


def _plain(name: str) -> str:
    return name.lstrip("-").split(".")[-1]


def run_cli(main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]] = None) -> None:
    """Runs an entry point and exits with its status; a `UserError` becomes one line on stderr and its exit code.

    `--traceback` anywhere on the command line shows the whole traceback instead.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        try:
            status = main(argv)
        finally:
            sys.stdout.flush()  # here, so that a reader that has gone is noticed here
    except BrokenPipeError:  # `| head -1` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except UserError as error:
        if "--traceback" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # ahead of training, or in a command that keeps nothing half done
        if "--traceback" in arguments:
            raise
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(status or 0)
