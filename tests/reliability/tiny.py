"""The smallest run that has everything: 3 epochs of 3 steps, a pool of 3 subnets, 6 training and 3 validation
samples."""

import os

from edgeflownas.data.synthetic import make_dataset

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EPOCHS, STEPS_PER_EPOCH = 3, 3
STEPS = EPOCHS * STEPS_PER_EPOCH
MATHS = {
    "data.input_height": 64,
    "data.input_width": 67,
    "network.init_channels": 2,
    "train.batch_size": 2,
    "train.num_epochs": EPOCHS,
    # With these the first evaluation stays the best, and the clip touches some steps but not all.
    "train.seed": 1,
    "train.lr": 0.5,
    "eval.batch_size": 2,
    "eval.bn_recal_batches": 2,
    "eval.pool_size": 3,
    # No evaluation counts but the first, so that the early stop's wait is a number worth losing.
    "eval.min_delta": 1000.0,
}
RUNTIME = {
    "runtime.deterministic": "true",
    "runtime.gpu_device": "-1",
    "runtime.num_workers": 1,
    "runtime.prefetch_batches": 1,
    "runtime.debug_trace": "true",
}


def make_data(folder, train=2 * STEPS_PER_EPOCH):
    """The data set of the runs; gives its folder."""
    make_dataset(os.path.join(str(folder), "fc2"), train, 3, 1, height=71, width=79)
    return os.path.join(str(folder), "fc2")


def flags(data, output_dir, **changes):
    """The command line of the tiny run; `changes` are configuration keys, with __ for the dot."""
    values = dict(MATHS, **RUNTIME)
    values.update({"data.base_path": data, "runtime.output_dir": str(output_dir)})
    values.update({name.replace("__", "."): value for name, value in changes.items()})
    return [word for name, value in sorted(values.items()) for word in ("--set", f"{name}={value}")]
