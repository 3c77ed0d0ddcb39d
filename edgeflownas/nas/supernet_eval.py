"""The specification's name for `edgeflownas.scoring.supernet_eval`: scores subnets of a run.

python -m edgeflownas.nas.supernet_eval --help
"""

from edgeflownas.errors import run_cli
from edgeflownas.scoring.supernet_eval import main

__all__ = ["main"]

if __name__ == "__main__":
    run_cli(main)
