"""The plots of one run's evaluations: accuracy, subnets, ranks, options. Each returns PNG bytes. Built on `canvas`."""

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from edgeflownas.reporting.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    RED,
    SKY,
    block_axis,
    dots,
    epoch_axis,
    gaps,
    look,
    panels,
    png,
    viridis,
)
from edgeflownas.reporting.verdict import STABLE_TAU, OptionScore
from edgeflownas.run.read import Run

RANK_POINTS = 14  # the plot of ranks shows at most this many evaluations, to stay readable
MARKED = 3  # number of best and of worst subnets that are drawn strongly


def accuracy(run: Run) -> bytes:
    """Mean EPE of the pool with its spread and the zero-flow EPE; beside it the second half of the run, enlarged."""
    assert run.subnets is not None
    epochs, epe = run.numbers.epoch, gaps(run.subnets.epe)
    mean, std = gaps(run.numbers.mean_epe), gaps(run.numbers.std_epe)
    halves = [0, len(epochs) // 2] if len(epochs) >= 10 else [0]
    with look():
        figure, axes = panels(1, len(halves), 4.0)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.9, bottom=0.14, wspace=0.16)
        for axis, start in zip(axes, halves):
            part = slice(start, None)
            marker = dots(epochs[part])
            _spread(axis, epochs[part], mean[part], std[part], epe[part], marker)
            _best(axis, run, part)
            axis.set(
                xlabel="epoch",
                title="Enlarged: the second half" if start else f"EPE of the {'subnet' if run.alone else 'pool'}, px",
            )
            epoch_axis(axis, epochs[start] if start else min(1, epochs[0]), epochs[-1])
        zero = gaps(run.numbers.zero_flow_epe)
        if len(epochs) == 1:
            axes[0].axhline(zero[0], color=BLACK, linestyle="--", label="all-zero flow")
        else:
            axes[0].plot(epochs, zero, color=BLACK, linestyle="--", label="all-zero flow")
        for axis, start in list(zip(axes, halves))[1:]:  # zero flow can be far off: keep the curves' limits
            limits = axis.get_ylim()
            axis.plot(epochs[start:], zero[start:], color=BLACK, linestyle="--")
            axis.set_ylim(limits)
        axes[0].set_ylim(0, 1.06 * axes[0].get_ylim()[1])
        axes[0].legend(loc="lower left", ncol=2, handlelength=1.6, columnspacing=1.2)
        return png(figure)


def _spread(axis: Any, epochs: Any, mean: Any, std: Any, epe: Any, marker: Any) -> None:
    if not np.isfinite(mean).any():
        return
    if len(epochs) == 1:  # a band needs two points
        axis.errorbar(
            epochs,
            mean,
            [mean - epe.min(1), epe.max(1) - mean],
            color=SKY,
            capsize=5,
            linewidth=6,
            label="best to worst subnet",
        )
        axis.errorbar(epochs, mean, std, color=BLUE, capsize=8, label="mean \u00b1 std", marker="o")
        return
    axis.fill_between(
        epochs, epe.min(axis=1), epe.max(axis=1), color=SKY, alpha=0.3, linewidth=0, label="best to worst subnet"
    )
    axis.fill_between(epochs, mean - std, mean + std, color=BLUE, alpha=0.35, linewidth=0, label="mean \u00b1 std")
    axis.plot(epochs, mean, color=BLUE, marker=marker, markersize=3.5, label="mean")


def _best(axis: Any, run: Run, part: slice) -> None:
    epochs, best = run.numbers.epoch[part], int(run.last.best_epoch)
    if best in epochs:
        row = int(np.nonzero(epochs == best)[0][0])
        axis.plot(
            [best],
            [run.numbers.mean_epe[part][row]],
            marker="*",
            markersize=13,
            color=RED,
            linestyle="none",
            markeredgecolor="white",
            label="best mean",
            zorder=5,
        )


def ranks(run: Run, taus: List[float]) -> bytes:
    """Rank of every subnet over the evaluations, coloured by its last rank; below, Kendall's tau between consecutive
    evaluations."""
    assert run.subnets is not None
    epochs, rank = run.numbers.epoch, run.subnets.rank
    every = -(-len(epochs) // RANK_POINTS)
    shown = np.arange(len(epochs))[::-1][::every][::-1]  # the last evaluation is always shown
    order, colours = np.argsort(rank[-1], kind="stable"), viridis(rank.shape[1])
    with look():
        figure, axes = panels(
            2 if taus else 1,
            1,
            5.9 if taus else 4.4,
            sharex=True,
            gridspec_kw={"height_ratios": [4, 1.1]} if taus else None,
        )
        figure.subplots_adjust(left=0.07, right=0.8, top=0.94, bottom=0.09 if taus else 0.13, hspace=0.2)
        for place, subnet in enumerate(order):
            axes[0].plot(
                epochs[shown],
                rank[shown, subnet],
                color=colours[place],
                marker="o",
                markersize=4,
                linewidth=3 if place in (0, len(order) - 1) else 1.4,
                alpha=1.0 if min(place, len(order) - 1 - place) < MARKED else 0.35,
            )
            axes[0].annotate(
                f"{run.subnets.codes[subnet]}  {run.subnets.epe[-1][subnet]:.4f}",
                (1, rank[-1, subnet]),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                family="monospace",
                fontsize=9.5,
                color=BLACK,
                annotation_clip=False,
            )
        axes[0].set(
            title="Rank in the pool" + (f", one evaluation in {every}" if every > 1 else ""),
            yticks=range(1, rank.shape[1] + 1),
            ylim=(rank.shape[1] + 0.6, 0.4),
        )
        axes[0].annotate(
            "last: code, EPE in px",
            (1, 1),
            xycoords="axes fraction",
            xytext=(8, 8),
            textcoords="offset points",
            fontsize=9.5,
            color=BLACK,
        )
        if taus:
            _tau(axes[1], epochs, taus)
        epoch_axis(axes[-1], min(1, epochs[0]), epochs[-1])
        axes[-1].set_xlabel("epoch")
        return png(figure)


def _tau(axis: Any, epochs: Any, taus: List[float]) -> None:
    axis.axhline(STABLE_TAU, color=GREY, linestyle=":")
    axis.plot(epochs[1:], taus, color=GREEN, marker=dots(taus), markersize=3.5)
    axis.set(
        title=f"Kendall tau to the evaluation before (dotted: {STABLE_TAU})", ylim=(min(-0.05, min(taus) - 0.05), 1.05)
    )


def subnet_curves(run: Run) -> bytes:
    """EPE of every subnet over the evaluations, and its difference from the pool's mean; coloured by its last rank."""
    assert run.subnets is not None
    epochs, epe = run.numbers.epoch, gaps(run.subnets.epe)
    order, colours = np.argsort(run.subnets.rank[-1], kind="stable"), viridis(epe.shape[1])
    with look():
        figure, axes = panels(1, 2, 4.0)
        figure.subplots_adjust(left=0.06, right=0.82, top=0.91, bottom=0.14, wspace=0.2)
        for axis, values in zip(axes, (epe, epe - epe.mean(axis=1, keepdims=True))):
            for place, subnet in enumerate(order):
                axis.plot(
                    epochs,
                    values[:, subnet],
                    color=colours[place],
                    linewidth=1.2,
                    marker=dots(epochs),
                    markersize=3.5,
                    label=f"{place + 1:2d}  {run.subnets.codes[subnet]}",
                )
            axis.set_xlabel("epoch")
            epoch_axis(axis, min(1, epochs[0]), epochs[-1])
            if len(epochs) >= 10:  # else the first epochs would set the scale and later curves would coincide
                _fit(axis, values[len(epochs) // 2 :])
        axes[0].set_title("EPE, px" + (" (axis: the second half)" if len(epochs) >= 10 else ""))
        axes[1].set_title("minus the pool's mean, px")
        axes[1].legend(
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            prop={"family": "monospace", "size": 9.5},
            title="last rank, code",
            handlelength=1.4,
        )
        return png(figure)


def _fit(axis: Any, values: Any) -> None:
    """Scales the y axis to these values, with a margin."""
    finite = values[np.isfinite(values)]
    if finite.size:
        room = 0.08 * (finite.max() - finite.min()) or 0.01
        axis.set_ylim(finite.min() - room, finite.max() + room)


def options(scores: List[OptionScore], better: Sequence[Tuple[str, str]]) -> bytes:
    """Mean and range of the EPE of the pool's subnets that use an option, block by block.

    `better`: (block, label) of the options to mark.
    """
    blocks: Dict[str, List[str]] = {}
    for score in scores:
        blocks.setdefault(score.block, []).append(score.label)
    with look():
        figure, (axis,) = panels(1, 1, 4.0)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.9, bottom=0.17)
        places = block_axis(axis, blocks, -0.13)
        for score in scores:
            at = places[score.block, score.label]
            colour, marker = (RED, "D") if (score.block, score.label) in better else (BLUE, "o")
            axis.plot([at, at], [score.low, score.high], color=colour, linewidth=4, alpha=0.35, solid_capstyle="round")
            axis.plot([at], [score.mean], color=colour, marker=marker, markersize=7)
        axis.set_title(
            "EPE of the subnets that use an option, px: mean and range (diamond: better than its block's others)"
        )
        return png(figure)
