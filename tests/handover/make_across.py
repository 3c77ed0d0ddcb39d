"""Makes across_tf1.tar.gz or across_tf2.tar.gz: one subnet, extracted on the stack that runs this.

    python -m tests.handover.make_across

`test_across.py` reads both on either stack. Only what a reader needs is kept: checkpoints and pool.
"""

import os
import tarfile
import tempfile

from edgeflownas.api import Supernet
from edgeflownas.data.synthetic import make_dataset
from edgeflownas.handover.extract import extract
from edgeflownas.tfcompat import tf
from tests.conftest import prepare

HERE = os.path.dirname(os.path.abspath(__file__))
CODE = "012001210"
KEPT = ("checkpoints", "eval_pool_1.json")


def main():
    target = os.path.join(HERE, f"across_tf{tf.__version__[0]}.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # relative paths: the file must not depend on where it was made
        make_dataset("fc2", 7, 3, 1, height=71, width=97)
        run = prepare("run", "fc2", eval__batch_size=1, eval__bn_recal_batches=7)
        run.commit(3, 1, True)
        with Supernet.load("run") as supernet:
            extract(supernet, "run", CODE, "small", "best", "test")
        with tarfile.open(target, "w:gz") as archive:
            for name in KEPT:
                archive.add(os.path.join("small", name))
        os.chdir(HERE)


if __name__ == "__main__":
    main()
