"""--xla compiles the network. On a CPU TensorFlow needs an environment variable for that, hence the separate process.

The forward pass of three paths is compiled in seconds; the whole cycle takes a minute and more, so it is not tried
here.
"""

import json
import os
import subprocess
import sys

import numpy as np

from edgeflownas.config import load
from edgeflownas.engine.evaluate import Scorer
from edgeflownas.engine.session import session_config
from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.tfcompat import tf
from tests.nas.nas_spaces import V1

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def statistics(xla):
    """BN statistics of one batch through three paths, and what ran to get them."""
    config, _ = load(None, {"runtime.xla": xla})
    with tf.Graph().as_default():
        net = SupernetGraph(2, V1)
        scorer = Scorer(net, 64, 67, 3)
        with tf.Session(config=session_config(config)) as session:
            net.variables.initialize(session, 1)
            images = np.random.RandomState(0).randint(0, 256, (2, 64, 67, 6)).astype(np.uint8)
            trace = tf.RunMetadata()
            vector = session.run(
                scorer._batch_statistics,
                {scorer.codes: fair_cycle(1, 1, V1), scorer.images: images},
                tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
                trace,
            )
    labels = [node.timeline_label for device in trace.step_stats.dev_stats for node in device.node_stats]
    return vector.tolist(), labels


def test_the_compiled_network_computes_the_same():
    plain, labels = statistics(xla=False)
    assert not any("Xla" in label for label in labels)
    made = subprocess.run(
        [sys.executable, "-m", "tests.engine.test_xla"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        env=dict(os.environ, TF_XLA_FLAGS="--tf_xla_cpu_global_jit"),
    )
    compiled, labels = json.loads(made.stdout.decode("utf-8"))
    assert any("XlaRun" in label for label in labels)
    assert compiled != plain  # other kernels, so other last bits
    np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    print(json.dumps(statistics(xla=True)))
