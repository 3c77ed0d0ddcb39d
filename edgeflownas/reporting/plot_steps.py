"""The plots of the training steps: loss, learning rate, gradient, throughput. Each returns PNG bytes. On `canvas`."""

import functools
from typing import Any, List, NamedTuple, Optional

import numpy as np

from edgeflownas.reporting.canvas import BLACK, BLUE, GREEN, ORANGE, RED, SKY, dots, epoch_axis, look, panels, png, top
from edgeflownas.run.read import Run

MOST_POINTS = 100  # of a curve; with more epochs than that, one per epoch


class StepCurves(NamedTuple):
    """Training steps in groups: `at` is the end of each group in epochs; each other array has one value per group."""

    at: np.ndarray
    lr: np.ndarray
    loss: np.ndarray  # mean
    loss_band: np.ndarray  # [2, groups], 5% and 95%
    before: np.ndarray  # median gradient norm before the clip
    before_band: np.ndarray
    after: np.ndarray  # median gradient norm after the clip
    clip_share: np.ndarray  # share of steps above the clip


def step_curves(run: Run) -> StepCurves:
    """The steps of `train_steps.csv`, grouped by epoch, or by equal parts of an epoch if there are few epochs."""
    assert run.steps is not None
    per_epoch, numbers = int(run.get("steps_per_epoch")), run.steps.numbers
    epochs = -(-len(run.steps) // per_epoch)
    parts = min(max(1, MOST_POINTS // epochs), per_epoch)
    group = numbers.step * parts // per_epoch
    starts = np.nonzero(np.diff(group, prepend=-1))[0] if len(group) else np.zeros(0, int)
    ends = np.append(starts[1:], len(group))
    clip = float(run.get("grad_clip"))

    def each(column: np.ndarray, statistic: Any) -> np.ndarray:
        return np.array([statistic(column[a:b]) for a, b in zip(starts, ends)])

    def finite(column: np.ndarray, statistic: Any) -> np.ndarray:
        return each(column, lambda values: statistic(values) if np.isfinite(values).all() else np.nan)

    def band(column: np.ndarray) -> np.ndarray:
        return np.array([finite(column, functools.partial(np.percentile, q=at)) for at in (5, 95)])

    return StepCurves(
        at=ends / float(per_epoch),
        lr=each(numbers.lr, lambda values: values[-1]),
        loss=finite(numbers.loss, np.mean),
        loss_band=band(numbers.loss),
        before=finite(numbers.grad_norm_before, np.median),
        before_band=band(numbers.grad_norm_before),
        after=finite(numbers.grad_norm_after, np.median),
        clip_share=each(numbers.grad_norm_before, lambda values: np.mean(values > clip)),
    )


def loss(run: Run, curves: StepCurves) -> bytes:
    """Training loss (mean, 5 to 95% of the steps) and learning rate."""
    with look():
        figure, axes = panels(1, 2, 3.4)
        figure.subplots_adjust(left=0.06, right=0.985, top=0.88, bottom=0.15, wspace=0.2)
        axes[0].fill_between(
            curves.at,
            curves.loss_band[0],
            curves.loss_band[1],
            color=SKY,
            alpha=0.35,
            linewidth=0,
            label=_if_drawn("5 to 95% of the steps", curves.loss_band),
        )
        axes[0].plot(curves.at, curves.loss, color=BLUE, label="mean", marker=dots(curves.at), markersize=3.5)
        axes[0].set_title("Training loss")
        if top(-curves.loss_band) < 0 and top(curves.loss_band) > -5 * top(-curves.loss_band):
            _log_axis(axes[0])
        axes[0].legend(loc="upper right")
        axes[1].plot(curves.at, curves.lr, color=GREEN, marker=dots(curves.at), markersize=3.5)
        axes[1].set_title("Learning rate")
        axes[1].set_ylim(0, 1.06 * top(curves.lr))
        axes[1].yaxis.set_major_formatter("{x:g}")
        _epochs(axes, curves.at)
        return png(figure)


def gradient(run: Run, curves: StepCurves) -> bytes:
    """Gradient norm before and after the clip, and the share of steps that the clip touched."""
    clip = float(run.get("grad_clip"))
    with look():
        figure, axes = panels(1, 2, 3.4)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.88, bottom=0.15, wspace=0.18)
        axes[0].fill_between(
            curves.at,
            curves.before_band[0],
            curves.before_band[1],
            color=ORANGE,
            alpha=0.3,
            linewidth=0,
            label=_if_drawn("before, 5 to 95%", curves.before_band),
        )
        axes[0].plot(curves.at, curves.after, color=BLUE, linewidth=4, alpha=0.45, label="after, median")
        axes[0].plot(
            curves.at, curves.before, color=ORANGE, label="before, median", marker=dots(curves.at), markersize=3.5
        )
        axes[0].axhline(clip, color=BLACK, linestyle=":", label=f"clip {clip:g}")
        axes[0].set_title("Gradient norm")
        if top(-curves.before_band) < 0:
            _log_axis(axes[0])
        axes[0].legend(loc="upper left", ncol=2, handlelength=1.6, columnspacing=1.2)
        axes[1].fill_between(curves.at, 0, 100 * curves.clip_share, color=RED, alpha=0.25, linewidth=0)
        axes[1].plot(curves.at, 100 * curves.clip_share, color=RED, marker=dots(curves.at), markersize=3.5)
        axes[1].set(title="Steps that the clip touched, %", ylim=(0, 104))
        _epochs(axes, curves.at)
        return png(figure)


def throughput(run: Run) -> bytes:
    """Cycles per second, seconds per epoch for training and evaluation, and the share of training time spent waiting
    for data."""
    assert run.timing is not None
    numbers = run.timing.numbers
    epochs = numbers.epoch
    with look():
        figure, axes = panels(1, 3, 3.2)
        figure.subplots_adjust(left=0.06, right=0.985, top=0.87, bottom=0.16, wspace=0.24)
        marker = dots(epochs)
        axes[0].plot(epochs, numbers.cycles_per_second, color=BLUE, marker=marker, markersize=3.5)
        axes[0].set_title("Training cycles per second")
        axes[1].plot(epochs, numbers.train_seconds, color=BLUE, marker=marker, markersize=3.5, label="training")
        axes[1].plot(epochs, numbers.eval_seconds, color=ORANGE, marker=marker, markersize=3.5, label="evaluation")
        axes[1].set_title("Seconds per epoch")
        axes[1].legend(loc="best")
        axes[2].plot(epochs, 100 * numbers.input_wait_share, color=RED, marker=marker, markersize=3.5)
        axes[2].set_title("Waiting for data, % of training")
        for axis, column in zip(axes, (numbers.cycles_per_second, numbers.train_seconds)):
            axis.set_ylim(0, 1.1 * top(column) or 1.0)  # all 0 if a resume began at the evaluation of the only epoch
        axes[2].set_ylim(0, max(10.0, 110 * top(numbers.input_wait_share)))
        _epochs(axes, epochs)
        return png(figure)


def _if_drawn(text: str, band: np.ndarray) -> Optional[str]:
    """The legend's text for a band, or None if the band has no width anywhere (one step per point)."""
    with np.errstate(invalid="ignore"):  # NaN, a gap, counts as no width
        return text if np.any(band[1] > band[0]) else None


def _log_axis(axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    ticks = (1, 2, 3, 4, 6, 8) if high < 10 * low else (1, 2, 5) if high < 100 * low else (1,)
    axis.yaxis.set_major_locator(LogLocator(subs=ticks))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")


def _epochs(axes: List[Any], at: Any) -> None:
    for axis in axes:
        axis.set_xlabel("epoch")
        epoch_axis(axis, min(1.0, float(at[0])) if len(at) else 0.0, float(at[-1]) if len(at) else 1.0)
