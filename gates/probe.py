"""Says, as one JSON line on stdout, where a gate runs: versions, GPUs that TensorFlow sees, hash of the configuration.

Run as `python -m gates.probe CONFIG.yaml` in a process of its own, so that the gate runner never imports TensorFlow
and never holds a GPU.
"""
import json
import platform
import sys
from typing import Dict, List, Optional, Tuple

from edgeflownas.errors import UserError


def tensorflow_facts() -> Tuple[Dict[str, str], List[str]]:
    """({package: version}, [visible GPU]). Raises ImportError if TensorFlow cannot be imported."""
    from edgeflownas.tfcompat import tf

    gpus = [gpu.name for gpu in tf.config.experimental.list_physical_devices("GPU")]
    return {"tensorflow": tf.__version__}, gpus


def config_hash(path: str) -> Optional[str]:
    """Hash of the configuration file, or None if it cannot be loaded (gate 1 says why, in its own words)."""
    try:
        from edgeflownas import config

        return config.config_hash(config.load(path, {})[0])
    except (ImportError, UserError, OSError) as error:
        print("configuration {} not hashed: {}".format(path, error), file=sys.stderr)
        return None


def main() -> None:
    import numpy

    versions, gpus = tensorflow_facts()
    versions.update({"python": platform.python_version(), "numpy": numpy.__version__, "platform": platform.platform()})
    print(json.dumps({"versions": versions, "gpus": gpus, "config_hash": config_hash(sys.argv[1])}))


if __name__ == "__main__":
    main()
