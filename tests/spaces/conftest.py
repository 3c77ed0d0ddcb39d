"""Real runs of both shipped spaces and of one code alone, made once, not to be changed."""

import pytest

from tests.reliability import tiny
from tests.spaces.commands import train


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def v1_run(data, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("v1") / "run")
    train(data, folder, "--max_epochs", "1")
    return folder


@pytest.fixture(scope="session")
def v2_run(data, tmp_path_factory):
    """With the pool of 12; stopped after one epoch, resumed to the end."""
    folder, settings = str(tmp_path_factory.mktemp("v2") / "run"), {"network__space": "edgeflownet_v2"}
    settings["eval__pool_size"] = 12
    train(data, folder, "--max_epochs", "1", **settings)
    train(data, folder, "--resume", **settings)
    return folder


@pytest.fixture(scope="session")
def alone_run(data, tmp_path_factory):
    """One code, 000022222 of v1."""
    folder = str(tmp_path_factory.mktemp("alone") / "run")
    train(data, folder, network__arch_code="000022222", eval__pool_size=1)
    return folder
