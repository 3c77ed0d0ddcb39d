"""The plots of the comparison: mean EPE and option scores of several runs. Each function returns the bytes of
a PNG."""

from typing import Any, Sequence, Tuple

from edgeflownas.reporting.canvas import BLACK, SERIES, epoch_axis, look, panels, png
from edgeflownas.reporting.run_files import Run
from edgeflownas.reporting.verdict import OptionScore

_DASHES = ("-", "--", ":", "-.")  # when the colours are used up
_SYMBOLS = ("o", "s", "D", "^", "v", "P", "X")


def _line(number: int) -> Any:
    return {"color": SERIES[number % len(SERIES)], "linestyle": _DASHES[number // len(SERIES) % len(_DASHES)]}


def accuracy(runs: Sequence[Tuple[str, Run]]) -> bytes:
    """Mean EPE of every run, in pixels and as a share of its zero-flow EPE."""
    with look():
        figure, axes = panels(1, 2, 4.0)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.91, bottom=0.22, wspace=0.16)
        for number, (name, run) in enumerate(runs):
            epochs, mean, zero = (run.numbers(column) for column in ("epoch", "mean_epe", "zero_flow_epe"))
            marker = _SYMBOLS[number % len(_SYMBOLS)] if len(epochs) <= 25 else None
            axes[0].plot(epochs, mean, label=_short(name), marker=marker, markersize=4.5, **_line(number))
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
            axis.set_ylim(bottom=0)
            epoch_axis(axis, 1, max(float(run.numbers("epoch")[-1]) for _, run in runs))
        figure.legend(loc="lower center", ncol=min(4, len(runs)), bbox_to_anchor=(0.5, 0.0))
        return png(figure)


def options(runs: Sequence[Tuple[str, Sequence[OptionScore]]]) -> bytes:
    """Mean EPE per option minus the mean of the run's options, one symbol per run, block by block."""
    blocks = list(dict.fromkeys(score.block for _, scores in runs for score in scores))
    with look():
        figure, (axis,) = panels(1, 1, 4.2)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.91, bottom=0.22)
        axis.axhline(0, color=BLACK, linewidth=1)
        ticks, names, at = [], [], 0.0
        for count, block in enumerate(blocks):
            labels = list(dict.fromkeys(score.label for _, scores in runs for score in scores if score.block == block))
            if count % 2 == 0:
                axis.axvspan(at - 0.7, at + len(labels) - 0.3, color="#f4f5f7", linewidth=0, zorder=0)
            axis.text(
                at + (len(labels) - 1) / 2,
                -0.11,
                block,
                transform=axis.get_xaxis_transform(),
                ha="center",
                va="top",
                fontweight="bold",
            )
            for label in labels:
                _place(axis, runs, block, label, at)
                ticks.append(at)
                names.append(label.replace("Deep", "D"))
                at += 1
            at += 0.4
        axis.set(
            xticks=ticks,
            xlim=(-0.7, at - 0.7),
            title="EPE of an option's subnets, relative to the run's pool, px",
        )
        axis.set_xticklabels(names, fontsize=9)
        axis.grid(axis="x", visible=False)
        for number, (name, _) in enumerate(runs):
            axis.plot(
                [],
                [],
                color=_line(number)["color"],
                marker=_SYMBOLS[number % len(_SYMBOLS)],
                linestyle="none",
                label=_short(name),
            )
        figure.legend(loc="lower center", ncol=min(4, len(runs)), bbox_to_anchor=(0.5, 0.0))
        return png(figure)


def _place(axis: Any, runs: Sequence[Tuple[str, Sequence[OptionScore]]], block: str, label: str, at: float) -> None:
    for number, (_, scores) in enumerate(runs):
        # each subnet is counted once per block, so this is the mean of the pool
        mine = [score for score in scores if score.block == block]
        pool = sum(score.mean * score.users for score in mine) / max(sum(score.users for score in mine), 1)
        shift = 0.5 * ((number + 0.5) / len(runs) - 0.5)
        for score in mine:
            if score.label == label:
                axis.plot(
                    [at + shift],
                    [score.mean - pool],
                    color=_line(number)["color"],
                    marker=_SYMBOLS[number % len(_SYMBOLS)],
                    markersize=6.5,
                )


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:14] + "\u2026" + name[-13:]
