"""A subnet that was extracted on one stack is scored, predicted with and exported on the other."""

import os
import tarfile

import numpy as np
import pytest

from edgeflownas.api import Supernet
from edgeflownas.handover import export
from edgeflownas.tfcompat import tf
from gates import oracles
from tests.handover import oracle
from tests.handover.make_across import CODE, HERE

VALIDATION = [f"train/{number:07d}" for number in range(7, 10)]
TRAINING = [f"train/{number:07d}" for number in range(7)]


@pytest.fixture(params=["tf1", "tf2"])
def folder(request, tmp_path):
    with tarfile.open(os.path.join(HERE, f"across_{request.param}.tar.gz")) as archive:
        archive.extractall(str(tmp_path))
    return str(tmp_path / "small")


def test_it_is_scored_with_either_statistics(folder, tiny_data):
    values, (images, truth) = oracle.tensors(folder), oracle.crops(tiny_data, VALIDATION)
    stored = oracle.stored_statistics(values)
    for kept, statistics in ((True, stored), (False, oracle.reestimated(values, CODE, tiny_data, TRAINING))):
        want = oracles.epe(oracle.flow(values, CODE, statistics, images), truth)
        settings = {"data.base_path": tiny_data}
        with Supernet.load(folder, settings=settings, stored_statistics=kept) as supernet:
            (result,) = supernet.evaluate([CODE])
        assert result.epe == pytest.approx(want, rel=1e-4)
        assert result.bn_recal_batches == (0 if kept else 7)


def test_it_predicts(folder, tiny_data):
    values, image = oracle.tensors(folder), oracle.crops(tiny_data, VALIDATION[:1]).images
    with Supernet.load(folder, stored_statistics=True, with_data=False) as supernet:
        found = supernet.predict(CODE, image[0, ..., :3], image[0, ..., 3:])
    oracle.close(found, oracle.flow(values, CODE, oracle.stored_statistics(values), image)[0])


def test_both_stacks_wrote_the_same_subnet(tmp_path):
    """Weights bit by bit; statistics are sums of each stack's own convolutions."""
    found = []
    for stack in ("tf1", "tf2"):
        with tarfile.open(os.path.join(HERE, f"across_{stack}.tar.gz")) as archive:
            archive.extractall(str(tmp_path / stack))
        found.append(oracle.tensors(str(tmp_path / stack / "small")))
    assert sorted(found[0]) == sorted(found[1])
    for name, value in found[0].items():
        if "/moving_" in name:
            oracle.close(value, found[1][name], 1e-5)
        else:
            np.testing.assert_array_equal(value, found[1][name])


@pytest.mark.skipif(tf.__version__.startswith("1."), reason="export is for TensorFlow 2")
def test_it_is_exported(folder, tiny_data):
    words = [folder, "--base_path", tiny_data, "--gpu_device", "-1"]
    assert export.main(words) == 0
    assert os.path.exists(os.path.join(folder, "exported", "float.tflite"))
