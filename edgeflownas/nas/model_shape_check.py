"""The specification's name for `edgeflownas.network.shape_check`: runs random subnets and checks their output sizes.

python -m edgeflownas.nas.model_shape_check --help
"""

from edgeflownas.errors import run_cli
from edgeflownas.network.shape_check import main

__all__ = ["main"]

if __name__ == "__main__":
    run_cli(main)
