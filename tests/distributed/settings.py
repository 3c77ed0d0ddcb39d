"""What the ranks of the tiny runs have in common."""


def settings(ranks, batch=2):
    """The words that make the tiny run one of so many ranks; of one, without Horovod."""
    values = {"train.batch_size": batch, "train.micro_batch_size": 1}
    if ranks > 1:
        values["runtime.distributed"] = "true"
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
