"""Checks of the evaluations: the history, the file of the subnets, the pool, and what each says of the
other."""

from typing import List

import numpy as np

from edgeflownas.checks.folder import REAL, Rows, RunFolder, Wrong, expect, expect_close, unchecked
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.run.pool import load_pool

HISTORY, PER_ARCH = "eval_epe_history.csv", "eval_epe_per_arch.csv"
ARCH_COLUMNS = ("epoch", "global_step", "arch_code", "epe", "rank", "bn_recal_batches", "num_samples")


def history_columns(pool_size: int) -> List[str]:
    """The header of the history; a test compares it with the trainer's."""
    pool = ["mean_epe_{}", "std_epe_{}", "fairness_gap", "zero_flow_epe", "best_mean_epe_{}"]
    return (
        ["epoch", "global_step"] + [name.format(pool_size) for name in pool]
        + ["best_epoch", "early_stop_wait", "train_loss", "lr", "grad_norm_before_mean",
        "grad_norm_after_max",
           "clip_share", "bn_recal_batches", "num_samples"]
    )  # fmt: skip


def history(run: RunFolder) -> Rows:
    """The rows of the history, one per evaluation."""
    return run.table(HISTORY, history_columns(run.config.eval.pool_size))


def means(run: RunFolder) -> np.ndarray:
    """`mean_epe_12` of each epoch."""
    return history(run).reals(f"mean_epe_{run.config.eval.pool_size}")


def pool_file(run: RunFolder) -> str:
    config = run.config
    name = f"eval_pool_{config.eval.pool_size}.json"
    pool = load_pool(run.file(name), config.eval.pool_size, run.space)
    return f"{name} has the {len(pool)} codes of arch_seed {config.train.arch_seed}"


def history_rows(run: RunFolder) -> str:
    """One row per epoch, from 1 on, each at the end of its epoch; as many as the last checkpoint knows of."""
    rows, per_epoch = history(run), run.whole("steps_per_epoch", 1)
    expect("epochs", rows.ints("epoch"), list(range(1, len(rows) + 1)))
    for epoch, step in enumerate(rows.ints("global_step"), 1):
        expect(f"epoch {epoch}: global_step", step, epoch * per_epoch)
    done = run.state("last").evaluations
    if len(rows) != done and (run.settled or len(rows) < done):
        raise Wrong(f"{len(rows)} rows", f"{done}, as the last checkpoint says")
    return f"{len(rows)} evaluations, epoch by epoch"


def history_settings(run: RunFolder) -> str:
    """Every evaluation was done as configured."""
    config, samples = run.config, run.whole("dataset.val", 1)
    since = run.changed_at("eval.bn_recal_batches", "eval.num_samples", "data.fingerprint", "data.holdout")
    want = {
        "bn_recal_batches": config.eval.bn_recal_batches,
        "num_samples": min(config.eval.num_samples or samples, samples),
    }
    for rows in (history(run), run.table(PER_ARCH, ARCH_COLUMNS)):
        steps = rows.ints("global_step")
        for name, value in want.items():
            for line, (step, found) in enumerate(zip(steps, rows.ints(name)), 2):
                if step > since:
                    expect(f"{rows.path} line {line}: {name}", found, value)
    return "bn_recal_batches={bn_recal_batches}, {num_samples} samples".format(**want) + unchecked(since)


def subnets(run: RunFolder) -> str:
    """Each evaluation scored exactly the pool, in its order, and ranked it."""
    rows, evaluations = run.table(PER_ARCH, ARCH_COLUMNS), history(run)
    codes = [to_digits(code, run.space) for code in run.pool_codes()]
    size = len(codes)
    expect("number of rows", len(rows), size * len(evaluations))
    epochs, steps, found = rows.ints("epoch"), rows.ints("global_step"), rows.texts("arch_code")
    ranks, epe = rows.ints("rank"), rows.reals("epe")
    for i, (epoch, step) in enumerate(zip(evaluations.ints("epoch"), evaluations.ints("global_step"))):
        part = slice(i * size, (i + 1) * size)
        expect("epoch of the subnets", epochs[part], [epoch] * size)
        expect(f"epoch {epoch}: global_step of the subnets", steps[part], [step] * size)
        expect(f"epoch {epoch}: codes", found[part], codes)
        expect(f"epoch {epoch}: ranks", sorted(ranks[part]), list(range(1, size + 1)))
        by_rank = epe[part][np.argsort(ranks[part])]
        if np.any(np.diff(by_rank) < 0):
            raise Wrong(f"epoch {epoch}: EPE by rank {by_rank.tolist()}", "values that rise")
        if by_rank[0] <= 0:
            raise Wrong(f"epoch {epoch}: EPE {by_rank[0]}", "more than 0")
    return f"{size} codes in each of {len(evaluations)} evaluations"


def mean_and_std(run: RunFolder) -> str:
    """The history's mean and standard deviation are those of the subnets' file."""
    evaluations, size = history(run), run.config.eval.pool_size
    epe = run.table(PER_ARCH, ARCH_COLUMNS).reals("epe")
    if len(epe) != size * len(evaluations):
        raise Wrong(f"{len(epe)} scores", f"{size} for each of {len(evaluations)} rows")
    stds = evaluations.reals(f"std_epe_{size}")
    for epoch, (mean, std, part) in enumerate(zip(means(run), stds, epe.reshape(-1, size)), 1):
        expect_close(f"epoch {epoch}: mean_epe_{size}", mean, part.mean())
        # A small spread of large values: their rounding counts, not the spread's own.
        expect_close(f"epoch {epoch}: std_epe_{size}", std, part.std(), absolute=REAL * part.mean())
    return f"of {len(evaluations)} evaluations agree with {PER_ARCH}"


def zero_flow(run: RunFolder) -> str:
    """The samples are the same ones each time, so the EPE of a flow of zeros is."""
    since = run.changed_at(
        "data.fingerprint", "data.holdout", "eval.num_samples", "data.input_height", "data.input_width"
    )
    evaluations = history(run)
    later = np.array(evaluations.ints("global_step"), int) > since
    values = evaluations.reals("zero_flow_epe")[later]
    for epoch, value in zip(np.array(evaluations.ints("epoch"))[later], values):
        expect_close(f"epoch {epoch}: zero_flow_epe", value, values[-1], relative=1e-5)
    if np.any(values < 0):
        raise Wrong(f"zero_flow_epe {values.min()}", "0 or more")
    return f"{values[-1]} px" + unchecked(since) if len(values) else "no evaluation yet"


def best_columns(run: RunFolder) -> str:
    """`best_mean_epe` is the running minimum, `best_epoch` where it fell; the manifest names the last of
    them."""
    rows, size = history(run), run.config.eval.pool_size
    bests, epochs = rows.reals(f"best_mean_epe_{size}"), rows.ints("best_epoch")
    low, where = np.inf, 0
    for epoch, mean in enumerate(means(run), 1):
        if mean < low:
            low, where = mean, epoch
        expect(f"epoch {epoch}: best_mean_epe_{size}", float(bests[epoch - 1]), float(low))
        expect(f"epoch {epoch}: best_epoch", epochs[epoch - 1], where)
    best = run.field("best")
    if where == 0 or not isinstance(best, dict):
        expect("best", best, None if where == 0 else f"epoch {where}")
        return "no evaluation yet"
    expect("best epoch", run.field("best.epoch"), where)
    expect("best global_step", run.field("best.global_step"), rows.ints("global_step")[where - 1])
    expect_close("best mean_epe", run.field("best.mean_epe", float), low)
    return f"epoch {where}, mean EPE {low} px"


def early_stop(run: RunFolder) -> str:
    """`early_stop_wait`, counted again from the means; the run ended where the patience did."""
    settings, waits = run.config.eval, history(run).ints("early_stop_wait")
    if run.changed_at("eval.min_delta"):
        return "not checked: a resume changed eval.min_delta"
    counter = EarlyStop(settings.patience, settings.min_delta)
    for epoch, mean in enumerate(means(run), 1):
        if counter.stopped and not run.changed_at("eval.patience"):
            raise Wrong(f"an evaluation of epoch {epoch}", "none after the early stop")
        counter.update(mean)
        expect(f"epoch {epoch}: early_stop_wait", waits[epoch - 1], counter.wait)
    if counter.stopped != (run.field("status") == "early_stopped") and run.settled:
        found = "status {} at wait {}".format(run.field("status"), counter.wait)
        raise Wrong(found, f"early_stopped from {settings.patience} on")
    return f"wait {counter.wait} of {settings.patience}"
