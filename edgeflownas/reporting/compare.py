"""The comparison of several runs as a document: settings, key figures, curves, options, ranks. Built on `document`."""

from typing import Any, Dict, List, Sequence, Tuple

from edgeflownas.reporting import differences, facts, plot_compare, verdict
from edgeflownas.reporting.document import Figure, Grid, Heading, Paragraph, Part, VerdictBox
from edgeflownas.reporting.key_figures import measured, setting
from edgeflownas.reporting.words import percent, show
from edgeflownas.run.read import Run, run_name

_ABSENT = "(no such key)"


def build(runs: Sequence[Run]) -> Tuple[str, List[Part]]:
    """(title, parts) of the comparison. Runs with the same name get a number."""
    names = unique_names(runs)
    parts: List[Part] = [
        _headlines(runs, names),
        Heading("Configuration"),
        *_configuration(runs, names),
        Heading("Key figures"),
        _figures(runs, names),
    ]
    evaluated = [(name, run) for name, run in zip(names, runs) if run.history is not None]
    if evaluated:
        supernets = [(name, run) for name, run in evaluated if not run.alone]
        parts += (
            _curves(evaluated)
            + differences.parts(evaluated)
            + (_options(supernets) if supernets else [])
            + _rankings(supernets)
        )
    return "Supernet runs side by side: " + ", ".join(names), parts


def unique_names(runs: Sequence[Run]) -> List[str]:
    """The runs' names; adds the run's number to names that occur more than once."""
    names = [run_name(run) for run in runs]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _headlines(runs: Sequence[Run], names: Sequence[str]) -> VerdictBox:
    heads = [facts.headline(run) for run in runs]
    scored = [(head, name, run) for head, name, run in zip(heads, names, runs) if run.history]
    items = [
        (head.tone, name, "{}; {}, {}".format(head.word, str(run.get("status")).replace("_", " "), facts.progress(run)))
        for head, name, run in zip(heads, names, runs)
    ]
    if not scored:
        return VerdictBox("open", "Nothing measured yet", items)
    same = len({(run.last.zero_flow_epe, run.last.num_samples) for _, _, run in scored}) == 1
    items.append(
        (
            "good" if same else "fair",
            "Data",
            "all runs were scored on samples with the same zero-flow EPE"
            if same
            else "the runs were scored on **different samples** (their zero-flow EPE or number differs): "
            "compare the ratios to zero flow, not the EPE",
        )
    )
    head, name, run = min(scored, key=lambda entry: facts.best_ratio(entry[2]))
    figure = f"{float(run.last.best_mean_epe):.4f} px" if same else percent_of_zero(run)
    level = differences.level_with([run for _, _, run in scored], run, [name for _, name, _ in scored]) if same else []
    tied = f"; tied with it, inside the error: {', '.join(level)}" if level else ""
    return VerdictBox(head.tone, f"Lowest mean EPE: {figure}, {name}{tied}", items)


def percent_of_zero(run: Run) -> str:
    """`~29.0% of zero flow`, for comparing runs that were scored on different samples."""
    return percent(facts.best_ratio(run)) + " of zero flow"


def flat_config(run: Run) -> Dict[str, Any]:
    """The manifest's configuration as {"section.key": value}."""
    return {
        f"{section}.{key}": value for section, entries in run.get("config").items() for key, value in entries.items()
    }


def _configuration(runs: Sequence[Run], names: Sequence[str]) -> List[Part]:
    configs = [flat_config(run) for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows = []
    for key in keys:
        values = [show(config[key]) if key in config else _ABSENT for config in configs]
        if len(set(values)) > 1:
            rows.append([f"`{key}`"] + values)
    hashes = {str(run.get("config_hash")) for run in runs}
    text = (
        "The configuration hash is the same: the runs compute the same thing, but for the keys below if there are any."
        if len(hashes) == 1
        else "The configuration hashes differ: these keys decide what is computed, or where."
    )
    if not rows:
        return [Paragraph("All configuration keys are the same.")]
    return [Paragraph(text), Grid(["key"] + list(names), rows, plain=range(len(names) + 1))]


def _figures(runs: Sequence[Run], names: Sequence[str]) -> Part:
    tables = [dict(measured(run) + setting(run)) for run in runs]
    rows = list(dict.fromkeys(name for table in tables for name in table))
    return Grid(
        ["figure"] + list(names),
        [[row] + [table.get(row, "") for table in tables] for row in rows],
        plain=range(len(names) + 1),
    )


def _curves(runs: Sequence[Tuple[str, Run]]) -> List[Part]:
    return [
        Heading("Accuracy"),
        Figure(
            "comparison_accuracy",
            plot_compare.accuracy(runs),
            "Mean EPE of the pool over the epochs, one line per run",
            "A run whose name no installed font can draw is called by its number here. "
            "Left: mean EPE of the pool in pixels, dashed the EPE of an all-zero flow. Right: the mean EPE "
            "as a share of the zero-flow "
            "EPE, which can be compared across different validation samples.",
        ),
    ]


Scores = List[verdict.OptionScore]


def last_scores(run: Run) -> Scores:
    """The option scores of a run's last evaluation."""
    assert run.subnets is not None
    return verdict.option_scores(run.space, run.subnets.codes, run.subnets.epe[-1].tolist(), run.subnets.texts[-1])


def _options(runs: Sequence[Tuple[str, Run]]) -> List[Part]:
    scores = [(name, last_scores(run)) for name, run in runs]
    keys = list(dict.fromkeys((score.block, score.label) for _, mine in scores for score in mine))
    tables = [{(score.block, score.label): score.mean for score in mine} for _, mine in scores]
    rows = [
        [block, label] + [f"~{table[block, label]:.4f}" if (block, label) in table else "" for table in tables]
        for block, label in keys
    ]
    return [
        Heading("Options of each block"),
        Figure(
            "comparison_options",
            plot_compare.options(scores),
            "Mean EPE of each option relative to its run, per block",
            "Mean EPE of the pool's subnets that use an option, minus the mean of the run's whole pool, in "
            "pixels; below "
            "zero is better. Last evaluation of each run.",
        ),
        Grid(
            ["block", "option"] + [name + ", px" for name, _ in runs], rows, plain=(0, 1), folded="Mean EPE per option"
        ),
    ]


def common_tau(a: Run, b: Run) -> Tuple[int, float]:
    """(number, Kendall's tau) of the subnets that are in both pools, by their EPE at each run's last evaluation."""
    assert a.subnets is not None and b.subnets is not None
    scores_a, scores_b = (dict(zip(run.codes, run.epe[-1].tolist())) for run in (a.subnets, b.subnets))
    common = [code for code in a.subnets.codes if code in scores_b]
    return len(common), verdict.kendall_tau([scores_a[code] for code in common], [scores_b[code] for code in common])


def _rankings(runs: Sequence[Tuple[str, Run]]) -> List[Part]:
    rows = []
    for i, (name_a, a) in enumerate(runs):
        for name_b, b in runs[:i]:
            count, tau = common_tau(a, b)
            rows.append([name_b, name_a, str(count), f"~{tau:.3f}" if count > 1 else "too few"])
    if not rows:
        return []
    return [
        Heading("Do they rank the subnets alike?"),
        Paragraph(
            "Kendall's tau over the subnets that both pools hold, at the last evaluation of each run: 1 is "
            "the same "
            "order, 0 unrelated."
        ),
        Grid(("run", "run", "common subnets", "Kendall tau"), rows, plain=(0, 1)),
    ]
