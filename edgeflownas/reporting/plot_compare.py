"""The plots of the comparison: mean EPE and option scores of several runs. Each returns PNG bytes. On `canvas`."""

from typing import Any, Dict, List, Sequence, Tuple

from edgeflownas.reporting.canvas import BLACK, SERIES, block_axis, epoch_axis, label, look, panels, png
from edgeflownas.reporting.verdict import OptionScore
from edgeflownas.run.read import Run

_DASHES = ("-", "--", ":", "-.")  # the next style is used when all colours are
_SYMBOLS = ("o", "s", "D", "^", "v", "P", "X")


def _line(number: int) -> Any:
    return {"color": SERIES[number % len(SERIES)], "linestyle": _DASHES[number // len(SERIES) % len(_DASHES)]}


def _below(runs: Sequence[Any]) -> float:
    """Space below the axes for a legend with four names per row, as a share of the figure's height."""
    return 0.16 + 0.06 * -(-len(runs) // 4)


def accuracy(runs: Sequence[Tuple[str, Run]]) -> bytes:
    """Mean EPE of every run, in pixels and as a share of its zero-flow EPE."""
    with look():
        figure, axes = panels(1, 2, 4.0)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.91, bottom=_below(runs), wspace=0.16)
        for number, (name, run) in enumerate(runs):
            epochs, mean, zero = run.numbers.epoch, run.numbers.mean_epe, run.numbers.zero_flow_epe
            marker = _SYMBOLS[number % len(_SYMBOLS)] if len(epochs) <= 25 else None
            text = label(name, f"run {number + 1}")
            axes[0].plot(epochs, mean, label=text, marker=marker, markersize=4.5, **_line(number))
            axes[0].plot(
                epochs,
                zero,
                color=_line(number)["color"],
                linestyle="--",
                linewidth=1.2,
                marker="_" if len(epochs) == 1 else None,
            )
            axes[1].plot(epochs, 100 * mean / zero, marker=marker, markersize=4.5, **_line(number))
        axes[1].axhline(100, color=BLACK, linestyle="--", linewidth=1.2)
        axes[0].set_title("Mean EPE of the pool, px (dashed: all-zero flow)")
        axes[1].set_title("Mean EPE, % of the all-zero flow's")
        for axis in axes:
            axis.set(xlabel="epoch")
            axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
            epoch_axis(axis, 1, max(float(run.numbers.epoch[-1]) for _, run in runs))
        figure.legend(loc="lower center", ncol=min(4, len(runs)), bbox_to_anchor=(0.5, 0.0))
        return png(figure)


def options(runs: Sequence[Tuple[str, Sequence[OptionScore]]]) -> bytes:
    """Mean EPE per option minus the pool's mean, one symbol per run, block by block."""
    blocks: Dict[str, List[str]] = {}
    for score in (score for _, scores in runs for score in scores):
        labels = blocks.setdefault(score.block, [])
        if score.label not in labels:
            labels.append(score.label)
    with look():
        figure, (axis,) = panels(1, 1, 4.2)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.91, bottom=_below(runs))
        axis.axhline(0, color=BLACK, linewidth=1)
        places = block_axis(axis, blocks, -0.11)
        for number, (name, scores) in enumerate(runs):
            shift = 0.5 * ((number + 0.5) / len(runs) - 0.5)
            at = [places[score.block, score.label] + shift for score in scores]
            marker, colour = _SYMBOLS[number % len(_SYMBOLS)], _line(number)["color"]
            axis.plot(
                at,
                _distances(scores),
                color=colour,
                marker=marker,
                markersize=6.5,
                linestyle="none",
                label=label(name, f"run {number + 1}"),
            )
        axis.set_title("EPE of an option's subnets, relative to the run's pool, px")
        figure.legend(loc="lower center", ncol=min(4, len(runs)), bbox_to_anchor=(0.5, 0.0))
        return png(figure)


def _distances(scores: Sequence[OptionScore]) -> List[float]:
    """The mean of each option minus the pool's mean, which is the mean over the block's options weighted by users."""
    users: Dict[str, int] = {}
    sums: Dict[str, float] = {}
    for score in scores:
        users[score.block] = users.get(score.block, 0) + score.users
        sums[score.block] = sums.get(score.block, 0.0) + score.mean * score.users
    return [score.mean - sums[score.block] / users[score.block] for score in scores]
