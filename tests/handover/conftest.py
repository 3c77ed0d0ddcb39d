"""Untrained runs of both spaces with random weights, and one subnet extracted from each; not to be changed.

BN is re-estimated over one batch per training sample, so that the oracle needs to know no order.
"""

import functools
import os

import pytest

from edgeflownas.api import Supernet
from edgeflownas.handover.extract import extract
from edgeflownas.reporting.write import write_report
from tests.conftest import prepare

CODES = {"edgeflownet_v1": "012022222", "edgeflownet_v2": "12000011000"}
TRAIN = 7  # samples


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_data):
    """Makes the supernet of a space, once in a process: `runs(space)`."""

    @functools.lru_cache(maxsize=None)
    def make(space):
        folder = str(tmp_path_factory.mktemp("whole") / "run")
        changes = {"eval__batch_size": 1, "eval__bn_recal_batches": TRAIN, "network__space": space}
        run = prepare(folder, tiny_data, train__num_epochs=2, **changes)
        run.commit(3, 1, True)
        return run

    return make


@pytest.fixture(scope="session")
def subnets(runs, tmp_path_factory):
    """Extracts the subnet of a space, once in a process: `subnets(space)`."""

    @functools.lru_cache(maxsize=None)
    def make(space):
        code, out = CODES[space], str(tmp_path_factory.mktemp("extracted") / "small")
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
        with Supernet.load(runs(space).folder) as supernet:
            extract(supernet, runs(space).folder, code, out, "best", "test")
        write_report(out)
        return out, code

    return make


@pytest.fixture(scope="session", params=sorted(CODES))
def whole_run(request, runs):
    """A supernet of one of the spaces."""
    return runs(request.param)


@pytest.fixture(scope="session")
def extracted(whole_run, subnets):
    """(run folder, code) of one subnet of `whole_run`."""
    return subnets(whole_run.config.network.space)
