"""Fixtures for tests of `check_manifest`: a completed run, and copies of it to tamper with.

Loaded by `pytest_plugins` and not from a conftest.py, because the mutation tests run these files without one.
"""

import shutil

import pytest
from pretended_run import write_run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A completed run; tests copy it."""
    folder = tmp_path_factory.mktemp("pristine") / "run"
    write_run(folder)
    return str(folder)


@pytest.fixture
def run(pristine, tmp_path):
    """The folder of a copy of the completed run."""
    folder = str(tmp_path / "run")
    shutil.copytree(pristine, folder, symlinks=True)
    return folder
