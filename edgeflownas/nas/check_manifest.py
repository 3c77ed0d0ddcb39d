"""The specification's name for `edgeflownas.checks.check_manifest`: checks a run folder.

python -m edgeflownas.nas.check_manifest --help
"""

from edgeflownas.checks.check_manifest import main
from edgeflownas.errors import run_cli

__all__ = ["main"]

if __name__ == "__main__":
    run_cli(main)
