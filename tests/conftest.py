"""One thread for every session of a test process, whatever order tests come in.

TensorFlow keeps one thread pool per process, of the size that the first session asked for. A deterministic run that is
tested in this process must not inherit a larger one from another test.
"""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    from edgeflownas.tfcompat import tf

    tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)).close()
