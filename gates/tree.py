"""Lists the files of folders with their SHA-256, to see in a list of commands (`gates/batch.py`) which of them changes
what. Hidden files (a lock) do not count.

    python -m gates.tree FOLDER ...
"""

import hashlib
from pathlib import Path
from typing import List


def main(argv: List[str]) -> int:
    for folder in argv:
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                print(hashlib.sha256(path.read_bytes()).hexdigest()[:16], path)
    return 0
