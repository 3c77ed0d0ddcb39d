"""Errors that are the user's to mend: one line, what is wrong and what to do, exit code 2."""

import sys
from typing import Callable, List, Optional


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


def run_cli(main: Callable[[Optional[List[str]]], Optional[int]], argv: Optional[List[str]] = None) -> None:
    """Runs an entry point and exits with its status; a `UserError` becomes one line on stderr and its exit code.

    `--traceback` anywhere on the command line shows the whole traceback instead.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        status = main(argv)
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
