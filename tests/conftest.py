"""Fixtures of all tests: one thread for every session, and a tiny run with real weights, untrained, as the trainer
leaves it.

TensorFlow keeps one thread pool per process, of the size that the first session asked for. A deterministic run that is
tested in this process must not inherit a larger one from another test.
"""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeflownas import config as configuration
from edgeflownas.data.fc2_index import build_index
from edgeflownas.data.synthetic import make_dataset
from edgeflownas.engine.run_state import RunState
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.run.pool import save_pool

# Folders of tests that share session fixtures which take minutes. A process of pytest-xdist gets such a folder whole,
# and first, and of the others a file at a time (`--dist loadgroup`).
TOGETHER = ("handover", "spaces")


def _group(item):
    file = Path(str(item.fspath))
    return file.parent.name if file.parent.name in TOGETHER else file.stem


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) not in TOGETHER)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    from edgeflownas.tfcompat import tf

    tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)).close()


class TinyRun(NamedTuple):
    folder: str
    data: str
    config: Any
    store: Any
    commit: Any  # commit(seed, epoch, is_best): weights of `seed`, as the state after `epoch` epochs of one step

    @property
    def flags(self):
        """The command-line flags that name this run."""
        return ["--output_dir", self.folder, "--gpu_device", "-1"]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data") / "fc2")
    make_dataset(folder, 7, 3, 1, height=71, width=97)
    return folder


@pytest.fixture(scope="session")
def original_run(tmp_path_factory, tiny_data):
    """Best: epoch 1, weights of seed 1. Last: epoch 2, weights of seed 2. Not to be changed."""
    run = prepare(str(tmp_path_factory.mktemp("original") / "run"), tiny_data)
    run.commit(1, 1, True)
    run.commit(2, 2, False)
    return run


@pytest.fixture
def tiny_run(original_run, tmp_path, monkeypatch):
    """A copy of `original_run`, which tests may change."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    folder = str(tmp_path / "run")
    shutil.copytree(original_run.folder, folder, symlinks=True)
    return original_run._replace(folder=folder, store=CheckpointStore(os.path.join(folder, "checkpoints")))


@pytest.fixture
def unevaluated_run(tmp_path, tiny_data):
    """One checkpoint, no evaluation."""
    run = prepare(str(tmp_path / "run"), tiny_data)
    run.commit(1, 0, False)
    return run


def prepare(folder, data, **changes):
    """A run without a checkpoint yet; `changes` are configuration keys, with __ for the dot."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    config, _ = configuration.load(None, dict({
        "data.base_path": data, "data.input_height": 64, "data.input_width": 67, "network.init_channels": 2,
        "train.batch_size": 5, "eval.batch_size": 2, "eval.bn_recal_batches": 2, "runtime.gpu_device": "-1",
        "runtime.deterministic": True, "runtime.output_dir": folder}, **changes))  # fmt: skip
    os.makedirs(folder)
    index, space = build_index(config.data, config.train.seed), space_of(config.network)
    pool = build_pool(config.train.arch_seed, config.eval.pool_size, space)
    save_pool(os.path.join(folder, f"eval_pool_{len(pool)}.json"), pool, config.train.arch_seed, space)
    store = CheckpointStore(os.path.join(folder, "checkpoints"))

    def commit(seed, epoch, is_best):
        from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
        from edgeflownas.tfcompat import tf

        def write(prefix):
            with tf.Graph().as_default(), tf.Session() as session:
                net = SupernetGraph(config.network.init_channels, space)
                net.variables.initialize(session, seed)
                tf.train.Saver(net.variables.all()).save(session, prefix, write_meta_graph=False, write_state=False)

        state = RunState(config, index.fingerprint, steps_per_epoch=1, step=epoch, evaluations=epoch)
        store.commit(write, state.as_dict(), is_best)

    return TinyRun(folder, data, config, store, commit)
