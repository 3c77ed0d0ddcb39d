"""Untrained runs of both spaces with random weights, and one subnet extracted from each; not to be changed.

BN is re-estimated over one batch per training sample, so that the oracle needs to know no order.
"""

import os

import pytest

from edgeflownas.api import Supernet
from edgeflownas.handover.extract import extract
from edgeflownas.reporting.write import write_report
from tests.conftest import prepare

CODES = {"edgeflownet_v1": "012022222", "edgeflownet_v2": "12000011000"}
TRAIN = 7  # samples


@pytest.fixture(scope="session", params=sorted(CODES))
def whole_run(request, tmp_path_factory, tiny_data):
    """A supernet of one of the spaces."""
    folder = str(tmp_path_factory.mktemp("whole") / "run")
    changes = {"eval__batch_size": 1, "eval__bn_recal_batches": TRAIN, "network__space": request.param}
    run = prepare(folder, tiny_data, train__num_epochs=2, **changes)
    run.commit(3, 1, True)
    return run


@pytest.fixture(scope="session")
def extracted(whole_run, tmp_path_factory):
    """(run folder, code) of one subnet of `whole_run`."""
    code, out = CODES[whole_run.config.network.space], str(tmp_path_factory.mktemp("extracted") / "small")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with Supernet.load(whole_run.folder) as supernet:
        extract(supernet, whole_run.folder, code, out, "best", "test")
    write_report(out)
    return out, code
