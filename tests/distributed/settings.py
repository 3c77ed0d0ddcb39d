"""What the ranks of the tiny runs have in common. Four ranks need a batch that four can share."""

BATCHES = {1: 2, 2: 2, 4: 4}


def settings(ranks, batch=None):
    """The words that make the tiny run one of so many ranks; of one, without Horovod."""
    values = {"train.batch_size": batch or BATCHES[ranks], "train.micro_batch_size": 1}
    if ranks > 1:
        values["runtime.distributed"] = "true"
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
