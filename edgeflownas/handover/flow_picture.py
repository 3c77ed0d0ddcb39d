"""Pictures of a flow for people: its colours, or its colours over the first frame, each with the wheel and the scale.

A pixel of the flow is a pixel of the picture. Drawn with matplotlib, like the report's figures.
"""

from typing import Any

import numpy as np

from edgeflownas.data.flow_io import color_wheel_image, flow_to_rgb
from edgeflownas.reporting.canvas import BLACK, DPI, look, png

WHEEL = 110  # pixels across
MARGIN, LEGEND = 12, 170  # pixels around the picture, and for the legend at its right
HIDDEN = 2  # percent of the vectors that may be longer than the scale


def flow_scale(flow: np.ndarray) -> float:
    """The length in pixels that is drawn at full saturation, 0.1 or more: 98% of the vectors are no longer."""
    length = np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 100 - HIDDEN)
    return max(0.1, float(f"{length:.2g}"))


def flow_picture(flow: np.ndarray, title: str) -> bytes:
    """PNG of float [H, W, 2]: hue is direction, white no motion."""
    scale = flow_scale(flow)
    return _framed(flow_to_rgb(flow, scale), scale, title)


def overlay(flow: np.ndarray, frame: np.ndarray, title: str) -> bytes:
    """PNG of the first frame, uint8 [H, W, 3], in grey and tinted by the flow; what does not move stays grey."""
    scale = flow_scale(flow)
    grey = frame.astype(np.float64).dot([0.299, 0.587, 0.114]) / 255.0
    tinted = (0.25 + 0.75 * grey[..., None]) * flow_to_rgb(flow, scale)
    return _framed(np.rint(tinted).astype(np.uint8), scale, title)


def _framed(pixels: np.ndarray, scale: float, title: str) -> bytes:
    """The picture, and at its right the wheel with what its rim means."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = pixels.shape[:2]
    tall = max(height, WHEEL + 110) + 2 * MARGIN + 18
    wide = width + 3 * MARGIN + LEGEND
    with look():
        figure = Figure(figsize=(wide / DPI, tall / DPI), dpi=DPI)
        FigureCanvasAgg(figure)

        def axes(left: float, top: float, across: float, down: float) -> Any:
            return figure.add_axes((left / wide, 1 - (top + down) / tall, across / wide, down / tall))

        # Put in as it is; `imshow` would resample it, older versions of matplotlib by a part of a pixel.
        figure.figimage(pixels, MARGIN, tall - MARGIN - 18 - height, origin="upper")
        image = axes(MARGIN, MARGIN + 18, width, height)
        image.patch.set_visible(False)
        image.set(xticks=[], yticks=[])
        for spine in image.spines.values():  # a frame, else a flow near zero is white on white
            spine.set(visible=True, color="#c3c7cd", linewidth=0.6)
        left, top = width + 2 * MARGIN, MARGIN + 18
        wheel = axes(left, top, WHEEL, WHEEL)
        wheel.imshow(color_wheel_image(2 * WHEEL))
        wheel.set_axis_off()
        words = f"hue: direction\nrim: {scale:g} px\nwhite: no motion\nlonger is darker"
        figure.text(left / wide, 1 - (top + WHEEL + 10) / tall, words, color=BLACK, va="top", fontsize=8.5)
        figure.text(MARGIN / wide, 1 - MARGIN / tall, title, color=BLACK, va="center", fontsize=8.5)
        return png(figure)
