"""Checks of the evaluations: history, subnets, pool and EPE per sample, alone and together. Built on `RunFolder`."""

from pathlib import Path

import numpy as np

from edgeflownas.checks.folder import REAL, RunFolder, Wrong, expect, expect_close, unchecked
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.run import folder as names
from edgeflownas.run.epe_samples import read_epe_samples
from edgeflownas.run.manifest import BEST, COMPLETED, EARLY_STOPPED
from edgeflownas.run.pool import load_pool
from edgeflownas.run.rows import Best


def pool_file(run: RunFolder) -> str:
    config = run.config
    name = names.pool_name(config.eval.pool_size)
    pool = load_pool(run.file(name), config.eval.pool_size, run.space)
    return f"{name} has {len(pool)} distinct codes that use every option equally often"


def history_rows(run: RunFolder) -> str:
    """One row per epoch from 1 on, each at its epoch's last step; as many rows as the last checkpoint says."""
    rows, per_epoch = run.history, run.whole("steps_per_epoch", 1)
    expect("epochs", rows.numbers.epoch.tolist(), list(range(1, len(rows) + 1)))
    for epoch, step in enumerate(rows.numbers.global_step.tolist(), 1):
        expect(f"epoch {epoch}: global_step", step, epoch * per_epoch)
    done = run.state("last").evaluations
    if len(rows) != done and (run.settled or len(rows) < done):
        raise Wrong(f"{len(rows)} rows", f"{done}, as the last checkpoint says")
    return f"{len(rows)} evaluations, epoch by epoch"


def history_settings(run: RunFolder) -> str:
    """Every evaluation used the configured number of BN batches and samples."""
    config, samples = run.config, run.whole("dataset.val", 1)
    since = run.changed_at("eval.bn_recal_batches", "eval.num_samples", "data.fingerprint", "data.holdout")
    batches, scored = config.eval.bn_recal_batches, min(config.eval.num_samples or samples, samples)
    for table in (run.history, run.subnets):
        rows, columns = table.numbers, table.names
        for name, column, want in (
            (columns.bn_recal_batches, rows.bn_recal_batches, batches),
            (columns.num_samples, rows.num_samples, scored),
        ):
            for line, (step, found) in enumerate(zip(rows.global_step.tolist(), column.tolist()), 2):
                if step > since:
                    expect(f"{table.path} line {line}: {name}", found, want)
    return f"bn_recal_batches={batches}, {scored} samples{unchecked(since)}"


def subnets(run: RunFolder) -> str:
    """Each evaluation scored exactly the codes of the pool, in the pool's order, with correct ranks."""
    rows, history = run.subnets, run.history.numbers
    codes = [to_digits(code, run.space) for code in run.pool_codes()]
    size, evaluations = len(codes), len(run.history)
    expect("number of rows", len(rows), size * evaluations)
    epochs, steps = rows.numbers.epoch.tolist(), rows.numbers.global_step.tolist()
    ranks, epe = rows.numbers.rank.tolist(), rows.numbers.epe
    for i, (epoch, step) in enumerate(zip(history.epoch.tolist(), history.global_step.tolist())):
        part = slice(i * size, (i + 1) * size)
        expect("epoch of the subnets", epochs[part], [epoch] * size)
        expect(f"epoch {epoch}: global_step of the subnets", steps[part], [step] * size)
        expect(f"epoch {epoch}: codes", rows.texts.arch_code[part], codes)
        expect(f"epoch {epoch}: spaces", sorted(set(rows.texts.space[part])), [run.space.label])
        expect(f"epoch {epoch}: ranks", sorted(ranks[part]), list(range(1, size + 1)))
        by_rank = epe[part][np.argsort(ranks[part])]
        if np.any(np.diff(by_rank) < 0):
            raise Wrong(f"epoch {epoch}: EPE by rank {by_rank.tolist()}", "values that rise")
        if by_rank[0] <= 0:
            raise Wrong(f"epoch {epoch}: EPE {by_rank[0]}", "more than 0")
    return f"{size} codes in each of {evaluations} evaluations"


def mean_and_std(run: RunFolder) -> str:
    """The history's mean and standard deviation are those of the table of subnets."""
    history, size = run.history, run.config.eval.pool_size
    epe = run.subnets.numbers.epe
    if len(epe) != size * len(history):
        raise Wrong(f"{len(epe)} scores", f"{size} for each of {len(history)} rows")
    recorded = zip(history.numbers.mean_epe, history.numbers.std_epe, epe.reshape(-1, size))
    for epoch, (mean, std, part) in enumerate(recorded, 1):
        expect_close(f"epoch {epoch}: {history.names.mean_epe}", mean, part.mean())
        # The std of nearly equal values has the rounding error of the values. Hence the absolute tolerance.
        expect_close(f"epoch {epoch}: {history.names.std_epe}", std, part.std(), absolute=REAL * part.mean())
    return f"of {len(history)} evaluations agree with {names.PER_ARCH}"


def zero_flow(run: RunFolder) -> str:
    """The zero-flow EPE is the same at every evaluation, because the samples are."""
    since = run.changed_at(
        "data.fingerprint", "data.holdout", "eval.num_samples", "data.input_height", "data.input_width"
    )
    history, name = run.history.numbers, run.history.names.zero_flow_epe
    later = history.global_step > since
    values = history.zero_flow_epe[later]
    for epoch, value in zip(history.epoch[later], values):
        expect_close(f"epoch {epoch}: {name}", value, values[-1], relative=1e-5)
    if np.any(values < 0):
        raise Wrong(f"{name} {values.min()}", "0 or more")
    return f"{values[-1]} px" + unchecked(since) if len(values) else "no evaluation yet"


def best_columns(run: RunFolder) -> str:
    """`best_mean_epe` is the running minimum of the means, `best_epoch` its epoch; the manifest has the last one."""
    history, columns = run.history.numbers, run.history.names
    bests, epochs = history.best_mean_epe.tolist(), history.best_epoch.tolist()
    low, where = np.inf, 0
    for epoch, mean in enumerate(history.mean_epe.tolist(), 1):
        if mean < low:
            low, where = mean, epoch
        expect(f"epoch {epoch}: {columns.best_mean_epe}", bests[epoch - 1], low)
        expect(f"epoch {epoch}: {columns.best_epoch}", epochs[epoch - 1], where)
    best = run.field(BEST)
    if where == 0 or not isinstance(best, dict):
        expect("best", best, None if where == 0 else f"epoch {where}")
        return "no evaluation yet"
    found = Best(*(run.field(f"{BEST}.{name}") for name in Best._fields))
    expect("best epoch", found.epoch, where)
    expect("best global_step", found.global_step, int(history.global_step[where - 1]))
    if type(found.mean_epe) is not float:
        raise Wrong(f"best mean_epe {found.mean_epe}", "a value of type float")
    expect_close("best mean_epe", found.mean_epe, low)
    return f"epoch {where}, mean EPE {low} px"


def early_stop(run: RunFolder) -> str:
    """`early_stop_wait` equals a recount from the means. The run stopped early if and only if the patience ran out."""
    settings, history, columns = run.config.eval, run.history.numbers, run.history.names
    if run.changed_at("eval.min_delta"):
        return "not checked: a resume changed eval.min_delta"
    counter = EarlyStop(settings.patience, settings.min_delta)
    for epoch, (mean, wait) in enumerate(zip(history.mean_epe, history.early_stop_wait.tolist()), 1):
        if counter.stopped and not run.changed_at("eval.patience"):
            raise Wrong(f"an evaluation of epoch {epoch}", "none after the early stop")
        counter.update(mean)
        expect(f"epoch {epoch}: {columns.early_stop_wait}", wait, counter.wait)
    if counter.stopped != (run.field("status") == EARLY_STOPPED) and run.settled:
        found = "status {} at wait {}".format(run.field("status"), counter.wait)
        raise Wrong(found, f"{EARLY_STOPPED} from {settings.patience} on")
    return f"wait {counter.wait} of {settings.patience}"


def epe_samples(run: RunFolder) -> str:
    """The means of the EPE per sample equal the recorded EPEs of the same evaluations; settled runs only."""
    stored = read_epe_samples(Path(run.folder), run.space)
    if stored is None:
        return "none: an older version wrote the run, or nothing was evaluated yet"
    if not run.settled:
        return "not looked at while the run may go on"
    rows, done = run.subnets.numbers, len(run.history)
    expect("codes", stored.codes.tolist(), run.pool_codes().tolist())
    # If a run was killed just before a commit, then resumed and stopped, the file already has the next evaluation.
    ahead = 0 if run.field("status") == COMPLETED else 1
    if not done <= stored.last_epoch <= done + ahead:
        raise Wrong(f"epoch {stored.last_epoch}", f"{done}, the last evaluation")
    for epoch, table in ((stored.last_epoch, stored.last), (stored.best_epoch, stored.best)):
        if 0 < epoch <= done:
            recorded = rows.epe[rows.epoch == epoch].tolist()
            for code, mean, want in zip(stored.codes, table.astype(np.float64).mean(axis=1), recorded):
                expect_close(f"epoch {epoch}: EPE of {to_digits(code, run.space)}", mean, want)
    return f"{stored.last.shape[1]} samples, epochs {stored.last_epoch} and {stored.best_epoch}"
