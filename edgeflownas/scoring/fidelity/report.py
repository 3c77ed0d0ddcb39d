"""Writes the fidelity report, Markdown and HTML, from a study's folder alone. Built on `analysis` and `pictures`."""

from pathlib import Path
from typing import Callable, List, Optional, Tuple

import numpy as np

from edgeflownas.nas.arch_codec import parse
from edgeflownas.reporting.document import Bullets, Figure, Grid, Heading, Paragraph, Part, VerdictBox
from edgeflownas.reporting.write import write_document
from edgeflownas.scoring.fidelity import pictures
from edgeflownas.scoring.fidelity.analysis import (
    Agreement,
    AtBudget,
    Pair,
    at_budget,
    epe_of,
    holdout_pairs,
    seed_pairs,
    separation,
)
from edgeflownas.scoring.fidelity.evidence import Evidence, gather
from edgeflownas.scoring.fidelity.plan import STRICT, Plan
from edgeflownas.statistics.effects import BlockEffects, block_effects
from edgeflownas.statistics.intervals import CONFIDENCE, Interval
from edgeflownas.statistics.verdict import NONE, STRONG, VOID, WEAK

NAME = "fidelity_report.md"
_TONES = {STRONG: "good", WEAK: "fair", NONE: "bad", VOID: "open"}
_MEANING = {
    STRONG: "the supernet's ranking agrees with stand-alone training",
    WEAK: "the ranking is better than chance, and not more than that is shown",
    NONE: "neither strong nor weak nor void: a valid study that does not show the ranking to be better than chance",
    VOID: "the study cannot tell: nothing follows from its taus",
}


def write_report(plan: Plan, progress: Callable[[str], None] = lambda name: None) -> Tuple[Path, str]:
    """Writes the report into the study's folder. Returns the Markdown file's path and the verdict in one line."""
    evidence = gather(plan, progress)
    budgets = [found for found in (at_budget(evidence, budget) for budget in plan.budgets) if found is not None]
    box = _verdict(evidence, budgets)
    parts: List[Part] = [box]
    parts += _problems(evidence)
    parts += _design(plan)
    for found in budgets:
        parts += _budget(evidence, found)
    if budgets:
        parts += _across(evidence, budgets)
    parts += _codes(evidence, budgets)
    parts += _options(evidence, budgets)
    parts += _stability(evidence)
    return write_document(Path(plan.folder), NAME, "Does the supernet's ranking mean something?", parts), box.title


def _number(value: Optional[float], digits: int = 2) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _interval(interval: Optional[Interval]) -> str:
    return "-" if interval is None or not np.isfinite(interval.low) else f"{interval.low:.2f} to {interval.high:.2f}"


def _verdict(evidence: Evidence, budgets: List[AtBudget]) -> VerdictBox:
    """The verdict at the planned budget. It is open while a run of the study is missing, damaged or changed."""
    plan = evidence.plan
    budget = plan.document["statistics"]["verdict_at_budget"]
    found = [one for one in budgets if one.alone.budget == budget]
    if evidence.problems:
        text = f"{len(evidence.problems)} of {len(plan.runs)} runs are missing or may not be used"
        return VerdictBox("open", f"open: {text}", [("open", "runs", "named below; no verdict without all of them")])
    if not plan.budgets:
        return VerdictBox(
            "open", "no verdict: nothing was trained alone", [("open", "see", "how alike the supernets rank, below")]
        )
    verdict = found[0].verdict
    items = [
        ("good" if holds else "bad", "holds" if holds else "does not hold", text) for holds, text in verdict.reasons
    ]
    return VerdictBox(_TONES[verdict.word], f"{verdict.word}: {_MEANING[verdict.word]} (budget {budget:g})", items)


def _problems(evidence: Evidence) -> List[Part]:
    if not evidence.problems:
        return []
    rows = [[f"`{name}`", reason] for name, reason in evidence.problems]
    return [
        Heading("Runs that were left out"),
        Paragraph("None of these is in any figure below. A code counts only if every seed of it is sound."),
        Grid(["run", "why"], rows, plain=(0, 1)),
    ]


def _design(plan: Plan) -> List[Part]:
    study, split = plan.document["study"], plan.document["split"]
    epochs = ", ".join(f"{budget:g}" for budget in plan.budgets) or "none"
    return [
        Heading("What was compared"),
        Bullets(
            [
                f"{len(plan.counted)} codes in the statistic, {len(plan.codes) - len(plan.counted)} beside it; space "
                f"`{plan.space.label}`.",
                f"Seeds: {len(study['alone_seeds'])} of every code alone, {len(study['strict_seeds'])} strict and "
                f"{len(study['uniform_seeds'])} uniform supernets of {plan.config.train.num_epochs} epochs. "
                f"Stand-alone budgets: {epochs} times the supernet's cycles.",
                f"Last checkpoint, BN statistics re-estimated over {plan.config.eval.bn_recal_batches} batches, "
                f"{split['scored']} validation samples that chose nothing ({split['source']}).",
                f"Intervals are {100 * CONFIDENCE:.0f}% bootstrap intervals: over codes (other subnets might have been "
                "chosen) and over samples (another validation set of this size).",
                f"Fixed before training under the digest `{plan.digest[:16]}`.",
            ]
        ),
    ]


def _budget(evidence: Evidence, found: AtBudget) -> List[Part]:
    alone, resolved = found.alone, found.resolved
    times = f"{found.spread / found.sd:.1f} times" if found.sd > 0 else "no spread"
    words = (
        f"{len(alone.codes)} codes, seeds {', '.join(map(str, alone.seeds))}. The codes' EPEs spread by "
        f"{found.spread:.4f} px (sd), one run over its seed by {found.sd:.4f} px (sd): {times}. "
        f"{resolved.separated} of {resolved.pairs} pairs of codes differ by more than 2 sqrt(2) sd. Tau between "
        f"stand-alone seeds, the ceiling: {_number(found.ceiling)}. Verdict at this budget: **{found.verdict.word}**."
    )
    rows = [_agreement(one, found.sd) for one in found.strict + found.uniform + found.costs]
    header = ["ranking", "tau", "over codes", "over samples", "rho", "over codes", "over samples", "p", "tau, ties"]
    header += ["top-1 regret, px (sd)", "top-3 regret, px (sd)"]
    parts: List[Part] = [
        Heading(f"Budget {alone.budget:g}"),
        Paragraph(words),
        Grid(header, rows),
        Figure(
            f"fidelity_controls_{alone.budget:g}",
            pictures.controls(found),
            "Kendall's tau of supernets and of costs with stand-alone EPE, with intervals",
            "A supernet that is not ahead of its costs, in either direction, has ranked costs.",
        ),
    ]
    if found.gain is not None and np.isfinite(found.gain.low):
        side = "outside" if found.gain.low > 0 or found.gain.high < 0 else "inside"
        parts.append(
            Paragraph(
                f"Strict fairness against uniform sampling: the gain in mean tau is {_interval(found.gain)} over "
                f"codes, {side} the noise."
            )
        )
    return parts


def _agreement(one: Agreement, sd: float) -> List[str]:
    def regret(value: float) -> str:
        return f"{value:.4f} ({_number(value / sd, 1) if sd > 0 else '-'})"

    return [one.name, _number(one.tau), _interval(one.tau_codes), _interval(one.tau_samples), _number(one.rho)] + [
        _interval(one.rho_codes),
        _interval(one.rho_samples),
        "below 0.001" if one.p < 0.001 else _number(one.p, 3),
        _number(one.tau_ties),
        regret(one.regret1),
        regret(one.regret3),
    ]


def _across(evidence: Evidence, budgets: List[AtBudget]) -> List[Part]:
    parts: List[Part] = [Heading("Supernet against stand-alone training")]
    if any(one.run.kind == STRICT for one in evidence.supernets):
        parts.append(
            Figure(
                "fidelity_scatter",
                pictures.scatter(evidence, budgets),
                "Supernet EPE against stand-alone EPE of every code",
                "Mean over seeds; bars are one sd over seeds, both ways. Diamonds are beside the statistic.",
                wide=True,
            )
        )
    last = budgets[-1]
    epochs = pictures.over_epochs(evidence, last)
    if epochs is not None:
        caption = (
            f"With stand-alone EPE at budget {last.alone.budget:g}, evaluations during training; bands over codes."
        )
        parts.append(Figure("fidelity_epochs", epochs, "Kendall's tau over the supernet's epochs", caption))
    if len(budgets) > 1 and last.strict:
        caption = "If tau rises with the budget, the short stand-alone runs were not yet the truth."
        picture = pictures.over_budgets(budgets)
        parts.append(Figure("fidelity_budgets", picture, "Kendall's tau against the stand-alone budget", caption))
    return parts


def _codes(evidence: Evidence, budgets: List[AtBudget]) -> List[Part]:
    """Every code with its costs and EPEs; stand-alone EPE as mean and sd over seeds."""
    supernets = evidence.supernets
    header = ["code", "parameters", "multiply-adds"]
    header += [f"alone, budget {found.alone.budget:g}, px" for found in budgets]
    header += [f"{one.name}, px" for one in supernets]
    inside = {one.name: epe_of(one, one.scores.codes).mean(axis=1) for one in supernets}
    rows = []
    for code in evidence.plan.codes:
        row = [f"`{code.arch_code}`" + ("" if code.counts else " (beside)")]
        row += [f"{code.parameters:,}", f"{code.multiply_adds:,}"]
        row += [_alone(evidence, found.alone.budget, code.arch_code) for found in budgets]
        row += [f"{inside[one.name][one.scores.codes.index(code.arch_code)]:.4f}" for one in supernets]
        rows.append(row)
    return [Heading("The codes"), Grid(header, rows)]


def _alone(evidence: Evidence, budget: float, code: str) -> str:
    alone = evidence.alone[budget]
    if code not in alone.codes:
        return "-"
    means = alone.of([code]).epe.mean(axis=2)[:, 0]
    return f"{means.mean():.4f} +- {np.std(means, ddof=1):.4f}"


def _options(evidence: Evidence, budgets: List[AtBudget]) -> List[Part]:
    """Names better options, stand-alone and in the supernets, only where the difference is outside its error."""
    models = [
        (f"alone, budget {found.alone.budget:g}", found.alone.codes, found.truth)
        for found in budgets
        if len(found.alone.codes) >= 3
    ]
    counted = evidence.plan.counted
    models += [(one.name, counted, epe_of(one, counted).mean(axis=1)) for one in evidence.supernets]
    if not models:
        return []
    space = evidence.plan.space
    fits = [block_effects(np.array([parse(code, space) for code in codes]), epe) for _, codes, epe in models]
    rows = [
        [block.name] + [_better(fit, number, block.label) for fit in fits] for number, block in enumerate(space.blocks)
    ]
    how = (
        "one linear model over all blocks"
        if all(fit.joint for fit in fits)
        else "a linear model for each block alone, in which the other blocks are part of the error: the codes are too "
        "few to separate all blocks at once"
    )
    return [
        Heading("Options of the blocks"),
        Paragraph(f"An option is named only if it beats every other one of its block outside a 95% interval ({how})."),
        Grid(["block"] + [name for name, _, _ in models], rows, plain=tuple(range(len(models) + 1))),
    ]


def _better(fit: BlockEffects, block: int, label: Callable[[int], str]) -> str:
    option = fit.better[block]
    return "none outside the error" if option is None else f"{label(option)} is better"


def _stability(evidence: Evidence) -> List[Part]:
    parts: List[Part] = []
    pairs, held = seed_pairs(evidence), holdout_pairs(evidence)
    if evidence.supernets:
        items = []
        for one in evidence.supernets:
            apart = separation(evidence, one)
            items.append(
                f"{one.name}: {apart.separated} of {apart.pairs} pairs of codes differ by more than chance among the "
                "samples allows (paired, 5%)."
            )
        parts += [Heading("What the supernets separate"), Bullets(items)]
    if pairs:
        parts += [Heading("Stability across supernet seeds"), _pairs(pairs)]
    if held:
        parts += [Heading("FC2_test against the holdout"), _pairs(held)]
    return parts


def _pairs(pairs: List[Pair]) -> Grid:
    rows = [[one.name, _number(one.tau), _interval(one.codes), _interval(one.samples)] for one in pairs]
    return Grid(["rankings", "tau", "over codes", "over samples"], rows)
