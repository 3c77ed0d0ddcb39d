"""The plot of scored subnets: EPE against parameters and multiply-adds, with Pareto fronts. Built on `reporting`."""

from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from edgeflownas.files import os_errors
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.reporting.canvas import BLACK, BLUE, GREY, RED, look, panels, png
from edgeflownas.statistics.paired import is_beyond, paired_error

Cost = Callable[[Any], int]
# The costs of a row by axis label.
COSTS: Dict[str, Cost] = {
    "parameters": lambda row: row.parameters,
    "multiply-adds per image pair": lambda row: row.multiply_adds,
}
UNITS = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))


def front(rows: Sequence[Any], cost: Cost) -> List[Any]:
    """The Pareto front, cheapest first: rows with a lower EPE than every other row of equal or lower cost."""
    best: List[Any] = []
    for row in sorted(rows, key=lambda row: (cost(row), row.epe)):
        if not best or row.epe < best[-1].epe:
            best.append(row)
    return best


def unsure(best: Sequence[Any], samples: Mapping[str, np.ndarray]) -> List[str]:
    """The codes of a front whose lead over the next cheaper code is not significant, given its paired error.

    `samples`: EPE per sample, in pixels, by arch code.
    """
    found = []
    for cheaper, row in zip(best, best[1:]):
        a, b = samples[cheaper.arch_code], samples[row.arch_code]
        gap = np.mean(a, dtype=np.float64) - np.mean(b, dtype=np.float64)
        if not is_beyond(gap, np.array(paired_error(a, b)), len(a)):
            found.append(row.arch_code)
    return found


def unit_of(largest: float) -> Tuple[float, str]:
    """The largest unit in which a number is at least 1, else thousands, and its name."""
    return next((entry for entry in UNITS if largest >= entry[0]), UNITS[-1])


def draw(path: str, rows: Sequence[Any], title: str, space: SearchSpace, doubtful: Mapping[str, Sequence[str]]) -> None:
    """Writes the PNG. Raises UserError if it cannot be written.

    `rows` have arch_code, epe, zero_flow_epe, parameters and multiply_adds. `doubtful` has the result of `unsure` for
    each cost.
    """
    with look():
        figure, axes = panels(1, 2, 4.6, sharey=True)
        for place, (label, cost) in zip(axes, COSTS.items()):
            unit, unit_name = unit_of(max(cost(row) for row in rows))
            _panel(place, rows, cost, unit, space, doubtful.get(label, ()))
            place.set_xlabel(f"{label}, {unit_name}")
        axes[0].set_ylabel("EPE, px")
        legend = {name: handle for place in axes for handle, name in zip(*place.get_legend_handles_labels())}
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        figure.tight_layout(rect=(0, 0.07, 1, 1))
        figure.legend(legend.values(), legend.keys(), loc="lower left", ncol=len(legend))
        content = png(figure)
    with os_errors(f"write {path}"), open(path, "wb") as handle:
        handle.write(content)


def _panel(
    axes: Any, rows: Sequence[Any], cost: Cost, unit: float, space: SearchSpace, doubtful: Sequence[str]
) -> None:
    axes.scatter(
        [cost(row) / unit for row in rows],
        [row.epe for row in rows],
        s=26 if len(rows) < 500 else 6,
        color=BLUE,
        alpha=0.75,
        linewidths=0,
        label=f"subnets ({len(rows):,})",
    )
    best = front(rows, cost)
    axes.plot(
        [cost(row) / unit for row in best],
        [row.epe for row in best],
        color=RED,
        marker="D",
        markersize=5,
        linewidth=1.2,
        drawstyle="steps-post",
        label="Pareto front: no other is cheaper and as good",
    )
    weak = [row for row in best if row.arch_code in doubtful]
    axes.scatter(
        [cost(row) / unit for row in weak],
        [row.epe for row in weak],
        s=30,
        marker="D",
        color="white",
        edgecolors=RED,
        zorder=3,
        label="lead inside its error" if weak else None,
    )
    published = to_digits(space.baseline, space) if space.baseline and not space.arch_code else None
    baseline = [row for row in rows if row.arch_code == published]
    axes.scatter(
        [cost(row) / unit for row in baseline],
        [row.epe for row in baseline],
        s=90,
        facecolors="none",
        edgecolors=BLACK,
        linewidths=1.4,
        label="EdgeFlowNet-bilinear" if baseline else None,
    )
    low, high = axes.get_ylim()
    zero = rows[0].zero_flow_epe
    if zero < high + 0.5 * (high - low):  # a line far above would compress the subnets
        axes.axhline(zero, color=GREY, linestyle="--", linewidth=1.2, label="zero flow")
