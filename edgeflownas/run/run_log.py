"""The training log: INFO and above on the terminal, all lines in the run folder, one file per rank. On `logging`."""

import logging
import logging.handlers
import os

from edgeflownas.files import os_errors
from edgeflownas.run.folder import log_name

log = logging.getLogger("edgeflownas")


def log_to_terminal() -> logging.handlers.MemoryHandler:
    """Sends log lines to stderr. Returns a handler that keeps them until `log_to` opens the file."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.raiseExceptions = False  # a full disk is reported by other files, once, not by each log line
    terminal, early = logging.StreamHandler(), logging.handlers.MemoryHandler(10**4, logging.CRITICAL + 1)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    for handler in (terminal, early):
        log.addHandler(handler)
    return early


def only_errors_on_terminal() -> None:
    """For all ranks but rank 0: they share the terminal and would repeat its lines."""
    for handler in log.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)


def log_to(folder: str, rank: int, early: logging.handlers.MemoryHandler) -> str:
    """Also sends log lines to the rank's file, after those kept in `early`. Returns its path. UserError: disk."""
    path = os.path.join(folder, log_name(rank))
    with os_errors(f"write {path}"):
        file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    early.setTarget(file)
    early.close()  # writes the kept lines to the file
    log.removeHandler(early)
    log.addHandler(file)
    return path
