"""Checks of the training cycles: steps' table, fairness counts, training columns of the history. On `RunFolder`."""

import numpy as np

from edgeflownas.checks.folder import RunFolder, Wrong, expect, expect_close, unchecked
from edgeflownas.engine.schedule import cosine_lr
from edgeflownas.nas.fair_sampler import FairnessCounts, uniform_paths
from edgeflownas.nas.search_space import SearchSpace, require_same_space
from edgeflownas.run.fairness import read_fairness
from edgeflownas.run.folder import FAIRNESS, STEPS


def step_rows(run: RunFolder) -> str:
    """The rows are steps 0, 1, 2, ..., each with its epoch, as many as the last checkpoint says."""
    rows, per_epoch = run.steps, run.whole("steps_per_epoch", 1)
    expect("steps", rows.numbers.step.tolist(), list(range(len(rows))))
    for step, epoch in enumerate(rows.numbers.epoch.tolist()):
        expect(f"step {step}: epoch", epoch, step // per_epoch + 1)
    done = run.state("last").step
    if len(rows) != done and (run.settled or len(rows) < done):
        raise Wrong(f"{len(rows)} rows", f"{done}, as the last checkpoint says")
    return f"steps 0 to {len(rows) - 1}" if len(rows) else "no step yet"


def learning_rate(run: RunFolder) -> str:
    """Every step's learning rate is that of the cosine schedule."""
    since = run.changed_at("train.lr", "train.num_epochs")
    lr, total = run.config.train.lr, run.whole("total_steps", 1)
    rates = run.steps.numbers.lr
    if len(rates) > total:
        raise Wrong(f"{len(rates)} steps", f"at most total_steps {total}")
    for step in range(since, len(rates)):
        # Near the end, 1 + cos is a difference of nearly equal numbers. Hence the small absolute tolerance.
        expect_close(f"step {step}: lr", rates[step], cosine_lr(step, lr, total), absolute=1e-12 * lr)
    return f"cosine from {lr} over {total} steps{unchecked(since)}"


def gradient_clip(run: RunFolder) -> str:
    """The norm after the clip is the smaller of `grad_clip` and the norm before, and never above `grad_clip`."""
    since, clip = run.changed_at("train.grad_clip"), run.config.train.grad_clip
    before, after = run.steps.numbers.grad_norm_before, run.steps.numbers.grad_norm_after
    for step in range(since, len(after)):
        if not 0 <= after[step] <= clip:
            raise Wrong(f"step {step}: grad_norm_after {after[step]}", f"at most {clip}")
        expect_close(f"step {step}: grad_norm_after", after[step], min(before[step], clip), relative=1e-4)
    largest = after[since:].max() if len(after) > since else 0.0
    return f"largest grad_norm_after {largest}, clip {clip}{unchecked(since)}"


def losses(run: RunFolder) -> str:
    """Losses are finite, and the weight decay term is not negative."""
    loss, l2_loss = run.steps.numbers.loss, run.steps.numbers.l2_loss
    if np.any(l2_loss < 0):
        raise Wrong(f"step {np.argmin(l2_loss)}: l2_loss {l2_loss.min()}", "0 or more")
    return f"finite at all {len(loss)} steps"


def epoch_summaries(run: RunFolder) -> str:
    """The training columns of the history equal those computed from the rows of the steps' table."""
    rows, history = run.steps.numbers, run.history
    recorded, names = history.numbers, history.names
    clip, clip_since, start = run.config.train.grad_clip, run.changed_at("train.grad_clip"), 0
    for row, end in enumerate(recorded.global_step.tolist()):
        part = slice(start, end)
        if not 0 <= start < end <= len(run.steps):
            raise Wrong(f"epoch {row + 1} ends at step {end}", f"a step of {STEPS}")
        before = rows.grad_norm_before[part]
        wanted = [
            (names.train_loss, recorded.train_loss, rows.loss[part].mean()),
            (names.lr, recorded.lr, rows.lr[end - 1]),
            (names.grad_norm_before_mean, recorded.grad_norm_before_mean, before.mean()),
            (names.grad_norm_after_max, recorded.grad_norm_after_max, rows.grad_norm_after[part].max()),
        ]
        if start >= clip_since:
            wanted.append((names.clip_share, recorded.clip_share, (before > clip).mean()))
        for name, column, want in wanted:
            expect_close(f"epoch {row + 1}: {name}", column[row], want, absolute=1e-12)
        start = end
    return f"{len(history)} epochs agree with {STEPS}"


def fairness(run: RunFolder) -> str:
    """The counts equal those of the cycles run. If a resume changed the sampling, only their sums are checked."""
    recorded, mode = read_fairness(run.folder), run.config.train.supernet_mode
    require_same_space(recorded.space, run.space, FAIRNESS)
    expect("supernet_mode", recorded.supernet_mode, mode)
    cycles = recorded.cycles
    if type(cycles) is not int or cycles < 0:
        raise Wrong(f"cycles {cycles!r}", "a whole number")
    if run.settled:
        expect("cycles", cycles, run.whole("global_step"))
    elif cycles > len(run.steps):
        raise Wrong(f"cycles {cycles}", f"at most the {len(run.steps)} of {STEPS}")
    try:
        counts = FairnessCounts.from_dict(recorded.counts, run.space)
    except ValueError as error:
        raise Wrong(str(error), "the counts of every block")
    expect("fairness_gap", recorded.fairness_gap, counts.gap())
    if run.changed_at("train.supernet_mode", "train.arch_seed"):
        want = {name: [sum(values)] for name, values in counts.as_dict().items()}
        expect("sum of counts", want, {name: [cycles * run.space.num_paths] for name in run.space.names})
    else:
        expect("counts", counts.as_dict(), _expected_counts(mode, run.config.train.arch_seed, cycles, run.space))
    return f"{cycles} cycles of {run.space.num_paths} paths, fairness_gap {counts.gap()}"


def fairness_gaps(run: RunFolder) -> str:
    """Every evaluation recorded a fairness gap of 0 (strict fairness only)."""
    if run.config.train.supernet_mode != "strict_fairness" or run.changed_at("train.supernet_mode"):
        return f"not checked: {run.config.train.supernet_mode} mode"
    gaps = run.history.numbers.fairness_gap.tolist()
    expect("fairness_gap of the evaluations", gaps, [0] * len(gaps))
    return f"0 at each of {len(gaps)} evaluations"


def _expected_counts(mode: str, arch_seed: int, cycles: int, space: SearchSpace) -> dict:
    """The counts after `cycles` cycles, {block: [count per option]}."""
    if mode == "strict_fairness":
        share = [cycles * space.num_paths // options for options in space.num_options]
        return {name: [each] * options for name, each, options in zip(space.names, share, space.num_options)}
    counts = FairnessCounts(space)
    for t in range(cycles):
        counts.add(uniform_paths(arch_seed, t, space))
    return counts.as_dict()
