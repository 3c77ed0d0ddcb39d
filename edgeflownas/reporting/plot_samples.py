"""The strip of validation samples: frame, ground truth, and the flow and error of the best and the worst
subnet."""

from typing import Any, List

import numpy as np

from edgeflownas.data.flow_io import color_wheel_image, flow_to_rgb
from edgeflownas.reporting.canvas import BLACK, DPI, WIDTH, look, png
from edgeflownas.reporting.samples import Samples

SHOWN = 4  # more samples than this do not fit
_LEFT, _TOP, _BOTTOM, _GAP = 0.62, 0.5, 0.75, 0.05  # inches


def flow_scales(samples: Samples) -> List[float]:
    """For each sample shown, the flow in whole pixels that is drawn at full saturation: 98% of its true
    vectors are shorter."""
    lengths = np.hypot(samples.flow[:SHOWN, ..., 0], samples.flow[:SHOWN, ..., 1])
    return [max(1.0, float(np.ceil(np.percentile(length, 98)))) for length in lengths]


def errors(samples: Samples) -> np.ndarray:
    """Endpoint error in pixels, float [2, K, H, W]; subnet 0 is the best, 1 the worst."""
    difference = samples.prediction[:, :SHOWN] - samples.flow[None, :SHOWN]
    return np.hypot(difference[..., 0], difference[..., 1])


def error_scale(error: np.ndarray) -> float:
    """The error in pixels at the bright end of the maps, the same for all: 98% of all errors are smaller."""
    finite = error[np.isfinite(error)]
    return max(0.1, float(f"{np.percentile(finite, 98):.2g}")) if finite.size else 1.0


def strip(samples: Samples) -> bytes:
    """The figure as a PNG: one row per sample, at most `SHOWN`."""
    count, height, width = samples.flow[:SHOWN].shape[:3]
    cell = (WIDTH - _LEFT - 0.05) / 6 - _GAP
    tall = cell * height / width
    total = _TOP + count * (tall + _GAP) + _BOTTOM
    error = errors(samples)
    limit = error_scale(error)
    with look():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, total), dpi=DPI)
        FigureCanvasAgg(figure)

        def place(column: int, row: int) -> Any:
            x, y = _LEFT + column * (cell + _GAP), total - _TOP - (row + 1) * (tall + _GAP) + _GAP
            axis = figure.add_axes((x / WIDTH, y / total, cell / WIDTH, tall / total))
            axis.set_axis_off()
            return axis

        for row, scale in enumerate(flow_scales(samples)):
            shown = place(0, row)
            shown.imshow(samples.images[row, :, :, :3])
            shown.text(
                -0.04,
                0.5,
                f"{samples.names[row][-12:]}\nrim {scale:g} px",
                transform=shown.transAxes,
                ha="right",
                va="center",
                rotation=90,
                fontsize=8.5,
                multialignment="center",
            )
            for column, flow in (
                (1, samples.flow[row]),
                (2, samples.prediction[0, row]),
                (4, samples.prediction[1, row]),
            ):
                place(column, row).imshow(flow_to_rgb(flow, scale))
            for subnet in (0, 1):
                axis = place(3 + 2 * subnet, row)
                axis.imshow(error[subnet, row], cmap="viridis", vmin=0, vmax=limit)
                axis.text(
                    0.97,
                    0.05,
                    f"{float(error[subnet, row].mean()):.2f} px",
                    transform=axis.transAxes,
                    ha="right",
                    color="white",
                    fontsize=8.5,
                    bbox={"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5},
                )
        _titles(figure, samples, cell, total)
        _legend(figure, total, limit, cell)
        return png(figure)


def _titles(figure: Any, samples: Samples, cell: float, total: float) -> None:
    best, worst = ("".join(str(digit) for digit in code) for code in samples.codes)
    for column, title in enumerate(
        (
            "Frame 0",
            "Ground truth",
            "Best subnet\n" + best,
            "Its error",
            "Worst subnet\n" + worst,
            "Its error",
        )
    ):
        figure.text(
            (_LEFT + column * (cell + _GAP) + cell / 2) / WIDTH,
            1 - (_TOP - 0.07) / total,
            title,
            ha="center",
            va="bottom",
            fontsize=9.5,
            color=BLACK,
        )


def _legend(figure: Any, total: float, limit: float, cell: float) -> None:
    wheel = figure.add_axes([_LEFT / WIDTH, 0.06 / total, 0.62 / WIDTH, 0.62 / total])
    wheel.imshow(color_wheel_image(140))
    wheel.set_axis_off()
    figure.text(
        (_LEFT + 0.72) / WIDTH,
        0.37 / total,
        "flow: the hue is the direction,\nwhite no motion, the rim each row's "
        "scale,\nlonger vectors are darkened",
        va="center",
        fontsize=8.5,
    )
    bar = figure.add_axes(
        [(_LEFT + 3 * (cell + _GAP)) / WIDTH, 0.42 / total, (3 * cell + 2 * _GAP) / WIDTH, 0.13 / total]
    )
    bar.imshow(np.linspace(0, 1, 256)[None, :], aspect="auto", cmap="viridis", extent=(0, limit, 0, 1))
    bar.set(yticks=[], xlim=(0, limit))
    bar.tick_params(labelsize=8.5, length=2)
    bar.grid(False)
    bar.text(
        1,
        1.25,
        "endpoint error, px; larger ones in the last colour",
        transform=bar.transAxes,
        ha="right",
        fontsize=8.5,
    )
