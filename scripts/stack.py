"""Says in which stack a tox environment runs; tox.ini calls it first in each. Standard library only."""

import platform
import sys


def message(env_name, version):
    """What to print for a tox environment whose interpreter has `version`, a tuple such as (3, 7, 16)."""
    number = ".".join(str(part) for part in version[:3])
    if version[:2] == (3, 7):
        return f"{env_name}: stack tf1 (Python {number}, TensorFlow 1.15)"
    line = f"{env_name}: stack tf2 (Python {number}, TensorFlow 2)"
    if env_name.endswith("-tf2"):
        return line
    return (
        f"{line}\n{env_name}: NOTE no usable Python 3.7 was found, so TensorFlow 1.15 is NOT tested here. "
        f"To test it, install Python 3.7 (pyenv install 3.7, or conda create -n py37 python=3.7) and run "
        f"`tox -r -e {env_name} --discover /path/to/python3.7`"
    )


if __name__ == "__main__":
    print(message(sys.argv[1], tuple(int(part) for part in platform.python_version_tuple())), flush=True)
