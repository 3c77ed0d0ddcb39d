"""The training log: lines for the terminal, and the same and more in the run folder's file, one file per rank."""

import logging
import logging.handlers
import os

from edgeflownas.files import os_errors
from edgeflownas.run.folder import log_name

log = logging.getLogger("edgeflownas")


def log_to_terminal() -> logging.handlers.MemoryHandler:
    """Lines go to stderr. Gives a handler that keeps them until there is a file."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.raiseExceptions = False  # a full disk is said by what must be written, not by each line of the log
    terminal, early = logging.StreamHandler(), logging.handlers.MemoryHandler(10**4, logging.CRITICAL + 1)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    for handler in (terminal, early):
        log.addHandler(handler)
    return early


def only_errors_on_terminal() -> None:
    """For every rank but the first: the ranks share a terminal, and would all say the same."""
    for handler in log.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)


def log_to(folder: str, rank: int, early: logging.handlers.MemoryHandler) -> str:
    """From now on lines go to the rank's file, too, the `early` ones first. Gives its path."""
    path = os.path.join(folder, log_name(rank))
    with os_errors(f"write {path}"):
        file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    early.setTarget(file)
    early.close()  # hands over what it has kept
    log.removeHandler(early)
    log.addHandler(file)
    return path
