"""One data set and one `Lab` for all tests of this folder in a process."""

import pytest

from tests.reliability import tiny
from tests.reliability.lab import Lab
from tests.reliability.snapshot import snapshot


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def lab(data):
    """Runs are made with `lab.run(output_dir, ...)`."""
    return Lab(data)


@pytest.fixture(scope="session")
def uninterrupted(lab, tmp_path_factory):
    """The snapshot of the tiny run that nothing disturbed."""
    folder = str(tmp_path_factory.mktemp("uninterrupted"))
    outcome = lab.run(folder)
    assert outcome.code == 0, outcome.stderr
    return snapshot(folder)
