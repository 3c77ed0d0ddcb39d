"""Commands in processes of their own, as a user gives them, on settings that take seconds."""

import os
import subprocess
import sys

from tests.reliability import tiny

# 2 epochs of 3 steps, the smallest pool that both shipped spaces have.
FAST = {"train__num_epochs": 2, "eval__pool_size": 6, "train__lr": 1e-3, "runtime__debug_trace": "false"}


def command(module, *words, package=tiny.ROOT):
    """`python -m edgeflownas.MODULE words` with the package in this folder; gives the finished process."""
    environment = dict(os.environ, PYTHONPATH=package, CUDA_VISIBLE_DEVICES="-1")
    return subprocess.run(
        [sys.executable, "-m", "edgeflownas." + module] + [str(word) for word in words],
        cwd=package,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=600,
    )


def train(data, folder, *words, package=tiny.ROOT, **changes):
    """A training run that must end well."""
    flags = tiny.flags(data, folder, **dict(FAST, **changes))
    return good(command("train_supernet", *(flags + list(words)), package=package))


def good(done):
    """A process that must have ended well."""
    assert done.returncode == 0, done.stderr
    return done


def contents(*folders):
    """{path: bytes} of every file except locks."""
    return {
        path: os.readlink(path) if os.path.islink(path) else open(path, "rb").read()  # noqa: SIM115
        for folder in folders
        for where, _, names in os.walk(str(folder))
        for path in (os.path.join(where, name) for name in names)
        if not path.endswith(".lock") and not path.endswith(".lock.holder")
    }
