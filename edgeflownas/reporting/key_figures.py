"""The table of key figures of one run, built on `facts`. Recorded reals are exact; computed ones are marked with ~."""

from typing import List, Sequence, Tuple

import numpy as np

from edgeflownas.reporting.facts import best_ratio, clip_share, epoch_seconds, gate_words, largest_gap, unsigned
from edgeflownas.reporting.words import percent, show, time_span
from edgeflownas.run.read import Run


def measured(run: Run) -> List[Tuple[str, str]]:
    """(name, value) of the results."""
    if run.history is None or run.subnets is None:
        return [("Evaluations", "0")]
    order = np.argsort(run.subnets.rank[-1], kind="stable")
    last: Sequence[str] = run.subnets.texts[-1]
    if run.alone:
        pool, fairness = [("Subnet", f"`{run.subnets.codes[0]}`")], []
    else:
        pool = [
            ("Last std over the pool, px", run.last.std_epe),
            ("Last best subnet", f"{last[order[0]]} px, `{run.subnets.codes[order[0]]}`"),
            ("Last worst subnet", f"{last[order[-1]]} px, `{run.subnets.codes[order[-1]]}`"),
        ]
        fairness = [("Fairness gap, largest", str(largest_gap(run)))]
    mean = "EPE" if run.alone else "mean EPE"
    return [
        (f"Best {mean}, px", run.last.best_mean_epe),
        ("Best epoch", run.last.best_epoch),
        ("Zero-flow EPE, px", run.last.zero_flow_epe),
        ("Best / zero flow" if run.alone else "Best mean / zero flow", percent(best_ratio(run))),
        (f"Last {mean}, px", run.last.mean_epe),
        *pool,
        ("Last training loss", run.last.train_loss),
        *fairness,
        ("Steps clipped", percent(clip_share(run) or 0.0)),
        ("Evaluations", str(len(run.history))),
        ("Samples scored, BN batches", f"{run.last.num_samples}, {run.last.bn_recal_batches}"),
    ]


def setting(run: Run) -> List[Tuple[str, str]]:
    """(name, value) of the run's progress, settings and environment."""
    seconds = epoch_seconds(run)
    return [
        ("Status", str(run.get("status")).replace("_", " ")),
        (
            "Epochs",
            "{} of {}".format(
                (len(run.steps) if run.steps else 0) // int(run.get("steps_per_epoch")), run.get("num_epochs")
            ),
        ),
        ("Steps", "{} of {}".format(len(run.steps) if run.steps else 0, run.get("total_steps"))),
        ("Time per epoch", "~" + time_span(seconds) if seconds else "not yet known"),
        ("Mode", "{}, {}".format(run.get("config.train.supernet_mode"), run.get("config.train.cycle_mode"))),
        ("Batch", str(run.get("config.train.batch_size"))),
        ("Learning rate at the start", "{}, {}".format(run.get("config.train.lr"), run.get("lr_schedule"))),
        ("Seed, architecture seed", "{}, {}".format(run.get("seed"), run.get("arch_seed"))),
        ("Search space", f"`{run.space.label}`"),
        ("Input", "x".join(str(side) for side in run.get("input_shape"))),
        ("Parameters", "{:,}".format(int(run.get("parameter_count")))),
        ("Configuration hash", "`{}`".format(str(run.get("config_hash"))[:16])),
        ("Commit", "`{}`{}".format(str(run.get("git_commit"))[:12], " dirty" if run.get("git_dirty") else "")),
        (
            "Gates",
            ("**unsigned**: " if unsigned(run) else "")
            + (
                ", ".join("{} {}".format(gate.replace("gate", ""), word) for gate, word in gate_words(run).items())
                or "none"
            ),
        ),
        *([("Ranks", str(run.manifest["ranks"]))] if run.manifest.get("ranks", 1) > 1 else []),
        ("Device", show(run.get("device"))),
        ("Versions", show(run.get("versions"))),
    ]
