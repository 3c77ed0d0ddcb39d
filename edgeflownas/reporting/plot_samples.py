"""The figure of validation samples: frames, ground truth, flow and error of the best and worst subnet. On `canvas`."""

from typing import Any, List, NamedTuple

import numpy as np

from edgeflownas.data.flow_io import color_wheel_image, flow_to_rgb
from edgeflownas.reporting.canvas import BLACK, DPI, WIDTH, look, png
from edgeflownas.run.samples import Samples

SAMPLES_SHOWN = 4  # more samples do not fit
COLUMNS = 7  # two frames, ground truth, flow and error of two subnets; with one subnet the last two stay empty
_LEFT, _TOP, _BOTTOM, _GAP = 0.95, 0.5, 0.75, 0.05  # inches


def flow_scales(samples: Samples) -> List[float]:
    """For each sample shown, the flow length drawn at full saturation: the 98th percentile of its true vectors, rounded
    up to whole pixels."""
    lengths = np.hypot(samples.flow[:SAMPLES_SHOWN, ..., 0], samples.flow[:SAMPLES_SHOWN, ..., 1])
    return [max(1.0, float(np.ceil(np.percentile(length, 98)))) for length in lengths]


def errors(samples: Samples) -> np.ndarray:
    """The end-point error in pixels, float [2, K, H, W]; subnet 0 is the best, 1 the worst."""
    difference = samples.prediction[:, :SAMPLES_SHOWN] - samples.flow[None, :SAMPLES_SHOWN]
    return np.hypot(difference[..., 0], difference[..., 1])


def error_scales(error: np.ndarray) -> List[float]:
    """For each sample, the error in px at the bright end of its maps: the 98th percentile, two digits, at least 0.1."""
    scales = []
    for sample in range(error.shape[1]):
        finite = error[:, sample][np.isfinite(error[:, sample])]
        scales.append(max(0.1, float(f"{np.percentile(finite, 98):.2g}")) if finite.size else 1.0)
    return scales


class _Layout(NamedTuple):
    """The positions of the images; lengths in inches, origin at the bottom left."""

    figure: Any
    cell: float  # width of an image
    tall: float  # its height
    total: float  # height of the figure

    def axes(self, left: float, bottom: float, width: float, height: float) -> Any:
        box = (left / WIDTH, bottom / self.total, width / WIDTH, height / self.total)
        return self.figure.add_axes(box)

    def text(self, left: float, bottom: float, text: str, **options: Any) -> None:
        self.figure.text(left / WIDTH, bottom / self.total, text, color=BLACK, **options)

    def left(self, column: int) -> float:
        return _LEFT + column * (self.cell + _GAP)

    def bottom(self, row: int) -> float:
        return self.total - _TOP - (row + 1) * (self.tall + _GAP) + _GAP

    def image(self, column: int, row: int, pixels: np.ndarray, **options: Any) -> Any:
        axis = self.axes(self.left(column), self.bottom(row), self.cell, self.tall)
        axis.set(xticks=[], yticks=[])
        axis.imshow(pixels, **options)
        for spine in axis.spines.values():  # a frame, because flow near zero is white on white
            spine.set(visible=True, color="#c3c7cd", linewidth=0.6)
        return axis


def _layout(samples: Samples) -> _Layout:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, height, width = samples.flow[:SAMPLES_SHOWN].shape[:3]
    cell = (WIDTH - _LEFT - 0.05) / COLUMNS - _GAP
    tall = cell * height / width
    total = _TOP + count * (tall + _GAP) + _BOTTOM
    figure = Figure(figsize=(WIDTH, total), dpi=DPI)
    FigureCanvasAgg(figure)
    return _Layout(figure, cell, tall, total)


def strip(samples: Samples) -> bytes:
    """The figure as a PNG: one row per sample, at most `SAMPLES_SHOWN`."""
    error = errors(samples)
    with look():
        layout = _layout(samples)
        _titles(layout, samples)
        for row, (scale, limit) in enumerate(zip(flow_scales(samples), error_scales(error))):
            _row(layout, samples, row, scale, error[:, row], limit)
        _legend(layout)
        return png(layout.figure)


def _row(layout: _Layout, samples: Samples, row: int, scale: float, error: np.ndarray, limit: float) -> None:
    name = samples.names[row].replace("\\", "/").split("/")[-1][-12:]
    label = f"{name}\nflow {scale:g} px\nerror {limit:g} px"
    layout.text(_LEFT - 0.06, layout.bottom(row) + layout.tall / 2, label, ha="right", va="center", fontsize=8.5)
    for frame in (0, 1):
        layout.image(frame, row, samples.images[row, :, :, 3 * frame : 3 * frame + 3])
    layout.image(2, row, flow_to_rgb(samples.flow[row], scale))
    for subnet in range(len(_subnets(samples))):
        layout.image(3 + 2 * subnet, row, flow_to_rgb(samples.prediction[subnet, row], scale))
        axis = layout.image(4 + 2 * subnet, row, error[subnet], cmap="viridis", vmin=0, vmax=limit)
        box = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5}
        text = f"{float(error[subnet].mean()):.2f} px"
        axis.text(0.97, 0.05, text, transform=axis.transAxes, ha="right", color="white", fontsize=8.5, bbox=box)


def _subnets(samples: Samples) -> List[str]:
    """Titles of the subnets shown: the best and the worst, or the only one."""
    best, worst = ("".join(str(digit) for digit in code) for code in samples.codes)
    return [f"Subnet\n{best}"] if best == worst else [f"Best subnet\n{best}", f"Worst subnet\n{worst}"]


def _titles(layout: _Layout, samples: Samples) -> None:
    titles = ["Frame 0", "Frame 1", "Ground truth"]
    for subnet in _subnets(samples):
        titles += [subnet, "Its error"]
    for column, title in enumerate(titles):
        middle = layout.left(column) + layout.cell / 2
        layout.text(middle, layout.total - _TOP + 0.07, title, ha="center", va="bottom", fontsize=9.5)


def _legend(layout: _Layout) -> None:
    wheel = layout.axes(_LEFT, 0.06, 0.62, 0.62)
    wheel.imshow(color_wheel_image(140))
    wheel.set_axis_off()
    words = "flow: the hue is the direction, white no motion,\nthe rim the flow given at the left; longer is darker"
    layout.text(_LEFT + 0.72, 0.37, words, va="center", fontsize=8.5)
    left = layout.left(4)
    bar = layout.axes(left, 0.22, WIDTH - 0.05 - _GAP - left, 0.13)
    bar.imshow(np.linspace(0, 1, 256)[None, :], aspect="auto", cmap="viridis")
    bar.set_axis_off()
    layout.text(left, 0.42, "endpoint error: 0", fontsize=8.5)
    layout.text(WIDTH - 0.05 - _GAP, 0.42, "the error given at the left, or more", fontsize=8.5, ha="right")
