"""The report on one run as a document: verdict, key figures, plots and tables with captions. Built on `document`."""

import datetime
from itertools import zip_longest
from typing import Any, Dict, List, Tuple

import numpy as np

from edgeflownas.engine import learning
from edgeflownas.reporting import facts, plot_samples, plot_steps, plots, ranking, verdict
from edgeflownas.reporting.document import Bullets, Figure, Grid, Heading, Paragraph, Part, VerdictBox
from edgeflownas.reporting.key_figures import measured, setting
from edgeflownas.reporting.words import show
from edgeflownas.run import folder as names
from edgeflownas.run.read import Run, run_name
from edgeflownas.run.rows import EvaluationRow
from edgeflownas.statistics.stability import LR_SHARE

SHOWN_ROWS = 12  # number of newest evaluations in the table; the CSV file has all


def _tabulated(row: EvaluationRow) -> List[str]:
    """The columns of the history that the report shows."""
    return [
        str(cell)
        for cell in (
            row.epoch,
            row.global_step,
            row.mean_epe,
            row.std_epe,
            row.zero_flow_epe,
            row.best_mean_epe,
            row.early_stop_wait,
            row.fairness_gap,
            row.train_loss,
            row.lr,
            row.grad_norm_before_mean,
            row.grad_norm_after_max,
            row.clip_share,
        )
    ]


def build(run: Run, now: datetime.datetime) -> Tuple[str, List[Part]]:
    """(title, parts) of the report. `now` is compared with the manifest's `updated`, to notice a dead run."""
    headline = facts.headline(run)
    parts: List[Part] = [
        VerdictBox(headline.tone, headline.word, facts.verdict_items(run, now)),
        Paragraph(
            "From the files of `{}`; started {}, manifest last updated {}. Recorded numbers have all their digits; "
            "~ marks numbers that were computed or rounded for this report.".format(
                run.folder, run.get("started"), run.get("updated")
            )
        ),
    ]
    parts += [Bullets(run.notes)] if run.notes else []
    rows = [left + right for left, right in zip_longest(measured(run), setting(run), fillvalue=("", ""))]
    parts += [Heading("Key figures"), Grid(("measured", "", "run", ""), rows, plain=(0, 1, 2, 3), pairs=True)]
    if run.history is not None:
        parts += _accuracy(run) + (_subnet(run) if run.alone else _subnets(run) + _options(run)) + _samples(run)
    parts += _optimisation(run) + ([] if run.alone else _fairness(run)) + _throughput(run)
    if run.history is not None:
        parts.append(_evaluations(run))
    kind = "Subnet" if run.alone else "Supernet"
    return f"{kind} training report: {run_name(run)}", parts + _provenance(run) + _rules()


def _accuracy(run: Run) -> List[Part]:
    what = "of the one subnet" if run.alone else f"over the {run.pool_size} subnets of the pool"
    spread = "" if run.alone else " with its spread and"
    return [
        Heading("Accuracy"),
        Figure(
            "accuracy",
            plots.accuracy(run),
            f"{'EPE' if run.alone else 'Mean EPE of the pool'} over the epochs,{spread or ' with'} the zero-flow EPE",
            f"EPE in pixels {what}, on {facts.data_source(run)}. "
            "Dashed: the EPE of an all-zero flow on the same samples; "
            f"a {'subnet' if run.alone else 'supernet'} that is not clearly below it has learned nothing.",
        ),
    ]


def _subnet(run: Run) -> List[Part]:
    """The options that the only code of a narrowed space selects."""
    assert run.space.arch_code is not None
    blocks = zip(run.space.blocks, run.space.arch_code)
    rows = [(block.name, block.kind, str(value), block.label(value)) for block, value in blocks]
    return [Heading("The subnet"), Grid(("block", "kind", "value", "option"), rows, plain=(0, 1, 3))]


def _subnets(run: Run) -> List[Part]:
    assert run.subnets is not None
    rank, texts, codes = run.subnets.rank, run.subnets.texts, run.subnets.codes
    before = rank[-2] if len(rank) > 1 else None
    behind = ranking.behind_best_in_words(run) or dict.fromkeys(codes, "")
    rows = [
        (
            str(rank[-1, i]),
            f"`{codes[i]}`",
            texts[-1][i],
            behind[codes[i]],
            "" if before is None else str(before[i]),
            ", ".join(block.label(int(digit)) for block, digit in zip(run.space.blocks, codes[i])),
        )
        for i in np.argsort(rank[-1], kind="stable")
    ]
    parts: List[Part] = [Heading("The subnets of the pool")]
    if len(rank) > 1:
        parts += _over_epochs(run)
    header = ("rank", "code", "last EPE, px", "behind the best, px", "rank before", ", ".join(run.space.names))
    note = (
        "Behind the best: the difference and its paired standard error over the validation samples; tied: chance (5%)."
    )
    return parts + [Grid(header, rows, plain=(1, 3, 5)), Paragraph(note)] + ranking.parts(run)


def _over_epochs(run: Run) -> List[Part]:
    return [
        Figure(
            "subnets",
            plots.subnet_curves(run),
            "EPE of each subnet over the epochs",
            "Every line is a subnet, coloured by its rank at the last evaluation (dark: best). Right: the difference "
            "from the mean of the pool; lower is better.",
        ),
        Figure(
            "ranks",
            plots.ranks(run, facts.taus(run)),
            "Rank of each subnet over the epochs",
            "If lines cross often, the evaluations do not separate these subnets yet. Kendall's tau is 1 if two "
            "consecutive evaluations order all subnets alike and 0 if their orders are unrelated. It measures "
            "stability, not whether the order is right.",
        ),
    ]


def _options(run: Run) -> List[Part]:
    assert run.subnets is not None
    subnets = run.subnets
    scores = verdict.option_scores(run.space, subnets.codes, subnets.epe[-1].tolist(), subnets.texts[-1])
    rows = [(score.block, score.label, str(score.users), f"~{score.mean:.4f}") + score.texts for score in scores]
    return [
        Heading("Options of each block"),
        Figure(
            "options",
            plots.options(scores, ranking.better_options(subnets.codes, subnets.epe[-1], run.space)),
            "Mean EPE and range of the subnets that use each option",
            "Last evaluation. A diamond marks an option that is better than all others of its block, outside a 95% "
            "interval. The subnets that share an option differ in all other blocks, and there are only {} of "
            "them: a difference much smaller than the ranges says nothing.".format(
                " to ".join(sorted({str(score.users) for score in scores}))
            ),
        ),
        Grid(
            ("block", "option", "subnets", "mean EPE, px", "best", "worst"),
            rows,
            plain=(0, 1),
            folded="Option scores in numbers",
        ),
    ]


def _samples(run: Run) -> List[Part]:
    if run.samples is None:
        return [Heading("Samples"), Paragraph(f"The folder has no `{names.SAMPLES}`, so no sample can be shown.")]
    samples = run.samples
    codes = ["".join(str(digit) for digit in code) for code in samples.codes]
    shown = min(len(samples.flow), plot_samples.SAMPLES_SHOWN)
    best = (
        f"{'the subnet' if run.alone else 'the best subnet'} `{codes[0]}` ({str(samples.epe[0])} px on the whole set)"
    )
    worst = "" if run.alone else f" and the worst `{codes[1]}` ({str(samples.epe[1])} px)"
    return [
        Heading("Samples"),
        Figure(
            "samples",
            plot_samples.strip(samples),
            "Validation samples: frame, true flow, predicted flow and its error",
            f"{shown} of the validation samples after epoch {samples.epoch}: {best}{worst}. "
            "Flow in the Middlebury colour code. Left of each row: the flow length at the wheel's rim and the error at "
            "the bright end of the error maps; each is above 98% of the row's values (for flow, of the true vectors). "
            "The number in an error map is its mean.",
            wide=True,
        ),
    ]


def _optimisation(run: Run) -> List[Part]:
    if run.steps is None:
        return [Heading("Optimisation"), Paragraph("No training step has been recorded yet.")]
    curves = plot_steps.step_curves(run)
    last = run.steps.row(-1)
    return [
        Heading("Optimisation"),
        Figure(
            "loss",
            plot_steps.loss(run, curves),
            "Training loss and learning rate over the epochs",
            "Last recorded step {}: loss {}, `l2_loss` {}, learning rate {}.".format(
                last.step, last.loss, last.l2_loss, last.lr
            ),
        ),
        Figure(
            "gradient",
            plot_steps.gradient(run, curves),
            "Gradient norm before and after the clip; share of clipped steps",
            "Global norm of a cycle's averaged gradient. If the clip touches all steps, the gradient always has the "
            "same norm, and Adam sees only its direction. Last recorded step: {} before the clip, {} after.".format(
                last.grad_norm_before, last.grad_norm_after
            ),
        ),
    ]


def _fairness(run: Run) -> List[Part]:
    if run.fairness is None:
        return []
    counts = run.fairness.counts
    width = max(len(block.values) for block in run.space.blocks)
    rows = []
    for block in run.space.blocks:
        cells = [f"{block.label(value)}: {count}" for value, count in zip(block.values, counts[block.name])]
        rows.append(
            [block.name]
            + cells
            + [""] * (width - len(cells))
            + [str(max(counts[block.name]) - min(counts[block.name]))]
        )
    header = ["block"] + [f"option {i}" for i in range(width)] + ["gap"]
    return [
        Heading("Fairness"),
        Paragraph(
            "How often each option of each block was trained in {} cycles, mode `{}`; recorded fairness gap {}, "
            "largest at any evaluation {}.".format(
                run.fairness.cycles, run.fairness.supernet_mode, run.fairness.fairness_gap, facts.largest_gap(run)
            )
        ),
        Grid(header, rows),
    ]


def _throughput(run: Run) -> List[Part]:
    if run.timing is None:
        return [Heading("Throughput"), Paragraph(f"There is no row in `{names.TIMING}` yet.")]
    last = run.timing.row(-1)
    return [
        Heading("Throughput"),
        Figure(
            "throughput",
            plot_steps.throughput(run),
            "Cycles per second, seconds per epoch and waiting for data",
            "Last epoch: {} cycles per second, {} s of training, {} s of evaluation, {} of the training time spent "
            "waiting for data.".format(
                last.cycles_per_second, last.train_seconds, last.eval_seconds, last.input_wait_share
            ),
        ),
        *_ranks(run),
    ]


def _ranks(run: Run) -> List[Part]:
    """The throughput of each rank in the last epoch; nothing for a run on one rank."""
    figures = run.manifest.get("throughput")
    if not figures:
        return []
    text = (
        "{ranks} ranks on Horovod, {samples_per_second:.1f} samples per second in all in the last epoch. A rank's own "
        "rate leaves out the exchange, in which it also waits for the slowest."
    )
    columns = zip(figures["samples_per_second_by_rank"], figures["exchange_seconds"])
    rows = [(str(rank), f"{rate:.1f}", f"{seconds:.1f}") for rank, (rate, seconds) in enumerate(columns)]
    header = ("Rank", "Samples per second", "Seconds in the exchange")
    return [Paragraph(text.format(**figures)), Grid(header, rows)]


def _evaluations(run: Run) -> Part:
    assert run.history is not None
    count = len(run.history)
    rows = [_tabulated(run.history.row(number)) for number in reversed(range(max(0, count - SHOWN_ROWS), count))]
    return Grid(
        _tabulated(run.history.names),
        rows,
        plain=(),
        folded=f"The last {len(rows)} evaluations, newest first, as `{names.HISTORY}` has them",
    )


def _provenance(run: Run) -> List[Part]:
    origins = run.get("config_origins")
    changed = [
        (name, show(run.get("config." + name)), str(origin)) for name, origin in origins.items() if origin != "default"
    ]
    parts: List[Part] = [
        Heading("Provenance"),
        Bullets(
            [
                "command: `{}`".format(run.get("command")),
                "configuration hash: `{}`".format(run.get("config_hash")),
                "commit: `{}`{}".format(
                    run.get("git_commit"), ", with uncommitted changes" if run.get("git_dirty") else ""
                ),
                "dataset fingerprint: `{}`".format(run.get("dataset.fingerprint")),
            ]
            + ([_resumed(resume) for resume in run.get("resumes")] or ["never resumed"])
        ),
    ]
    if changed:
        parts.append(
            Grid(
                ("configuration key", "value", "set by"),
                changed,
                plain=(0, 1, 2),
                folded=f"The {len(changed)} configuration keys that are not at their default",
            )
        )
    return parts


def _resumed(resume: Dict[str, Any]) -> str:
    return "resumed at step {}, {}, when it was {}; changed keys: {}".format(
        resume.get("global_step"),
        resume.get("time"),
        resume.get("status_before"),
        show(resume.get("changed")) or "none",
    )


def _rules() -> List[Part]:
    return [
        Heading("The rules of the verdict"),
        Bullets(
            [
                f"learned: the best mean EPE is at most {learning.LEARNED_RATIO:g} of the zero-flow EPE; "
                f"collapsed: after at least {learning.MIN_EVALUATIONS} evaluations it is not below "
                f"{learning.COLLAPSED_RATIO:g} of it, or none of the last {learning.LAST_EVALUATIONS} evaluations is",
                "plateaued: two thirds of early stop's patience are used, or the line through the last "
                f"{verdict.TREND_WINDOW} evaluations falls by no more "
                f"than `eval.min_delta` from one to the next; needs at least {learning.MIN_EVALUATIONS} evaluations",
                f"clip saturated: it touched at least {verdict.SATURATED_SHARE:g} of all steps; heavy: at "
                f"least {verdict.HEAVY_SHARE:g}",
                "ranking stable: Kendall's tau between consecutive evaluations is at least "
                f"{verdict.STABLE_TAU:g} on average over the last five at a learning rate above {100 * LR_SHARE:.0f}% "
                "of its start",
            ]
        ),
    ]
