"""Runs many commands of the project in one process, because TensorFlow takes seconds to start.

    python -m gates.batch FILE

FILE is a JSON list of commands as a user types them: `python -m MODULE ...` or the training wrapper. Exit code, stdout
and stderr of each are appended to `commands.jsonl` in FILE's folder, as for a process of its own. Clauses about how a
command starts or is stopped use separate processes instead (`gates/commands.py`).
"""

import contextlib
import importlib
import io
import json
import logging
import shlex
import sys
import traceback
from pathlib import Path
from typing import List

WRAPPER = {"wrappers/run_supernet_train.py": "edgeflownas.train_supernet"}


def run_one(command: str) -> dict:
    """Runs a command. Returns {"command", "code", "out", "err"}."""
    from edgeflownas.errors import run_cli

    words = shlex.split(command)
    module, argv = (words[2], words[3:]) if words[1] == "-m" else (WRAPPER[words[1]], words[2:])
    out, err, code = io.StringIO(), io.StringIO(), 1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_cli(importlib.import_module(module).main, argv)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except Exception:  # noqa: BLE001 - a crash gives exit code 1 and a traceback, as in a separate process
            traceback.print_exc()
    log = logging.getLogger("edgeflownas")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    return {"command": command, "code": code, "out": out.getvalue(), "err": err.getvalue()}


def main(argv: List[str]) -> None:
    path = Path(argv[0])
    with open(str(path.with_name("commands.jsonl")), "a") as log:
        for command in json.loads(path.read_text()):
            log.write(json.dumps(run_one(command)) + "\n")
            log.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
