"""Prints the environment of a gate run as one JSON line: commit, versions, device, hash of the configuration.

Run as `python -m gates.probe CONFIG.yaml SPACE` in the project's folder. It is a separate process, so that the gate
runner never imports TensorFlow and never holds a GPU.
"""

import json
import sys
from typing import Optional, Tuple

from edgeflownas.errors import UserError
from edgeflownas.run.provenance import git_state, versions


def tensorflow_facts() -> Tuple[str, str]:
    """(TensorFlow's version, device in words). Without TensorFlow, both say so; a gate may still run."""
    try:
        from edgeflownas.tfcompat import device_names, tf
    except ImportError as error:
        return "none", f"unknown (no TensorFlow: {error})"
    return tf.__version__, device_names()


def config_hash(path: str, space: str) -> Optional[str]:
    """The hash of the configuration file for a search space; None if it cannot be loaded (then gate 1 fails)."""
    try:
        from edgeflownas import config

        return config.config_hash(config.load(path, {"network.space": space})[0])
    except (ImportError, UserError, OSError) as error:
        print(f"configuration {path} not hashed: {error}", file=sys.stderr)
        return None


def main() -> None:
    version, device = tensorflow_facts()
    commit, dirty = git_state(".")
    print(
        json.dumps(
            {
                "commit": commit,
                "dirty": dirty,
                "versions": versions(version),
                "device": device,
                "config_hash": config_hash(*sys.argv[1:3]),
            }
        )
    )


if __name__ == "__main__":
    main()
