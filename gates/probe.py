"""Says, as one JSON line on stdout, where a gate runs: commit, versions, device, hash of the configuration.

Run as `python -m gates.probe CONFIG.yaml SPACE` in the project's folder, in a process of its own, so that the gate
runner never imports TensorFlow and never holds a GPU.
"""

import json
import sys
from typing import Optional, Tuple

from edgeflownas.errors import UserError
from edgeflownas.run.provenance import git_state, versions


def tensorflow_facts() -> Tuple[str, str]:
    """(version, device in words) of TensorFlow; a gate may run without it, and its record says so."""
    try:
        from edgeflownas.tfcompat import device_names, tf
    except ImportError as error:
        return "none", f"unknown (no TensorFlow: {error})"
    return tf.__version__, device_names()


def config_hash(path: str, space: str) -> Optional[str]:
    """Hash of the configuration file on a search space; None if it cannot be loaded (gate 1 says why in its words)."""
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
