"""Pictures of a flow: its colours, or its colours over the first frame, each with the colour wheel and the scale.

A pixel of the flow is a pixel of the picture. Built on matplotlib and the report's `canvas`.
"""

from typing import Any

import numpy as np

from edgeflownas.data.flow_io import color_wheel_image, flow_to_rgb
from edgeflownas.reporting.canvas import BLACK, DPI, look, png

WHEEL = 110  # pixels across
MARGIN, LEGEND = 12, 170  # pixels: margin around the picture, width of the legend at its right
HIDDEN = 2  # percent of the vectors that may be longer than the scale


def flow_scale(flow: np.ndarray) -> float:
    """The length in pixels drawn at full saturation: the 98th percentile of [H, W, 2], two digits, at least 0.1."""
    length = np.percentile(np.hypot(flow[..., 0], flow[..., 1]), 100 - HIDDEN)
    return max(0.1, float(f"{length:.2g}"))


def flow_picture(flow: np.ndarray, title: str) -> bytes:
    """PNG of a flow, float [H, W, 2] in pixels: hue is direction, white is no motion."""
    scale = flow_scale(flow)
    return _framed(flow_to_rgb(flow, scale), scale, title)


def overlay(flow: np.ndarray, frame: np.ndarray, title: str) -> bytes:
    """PNG of the first frame, uint8 [H, W, 3], in grey and tinted by the flow; still parts stay grey."""
    scale = flow_scale(flow)
    grey = frame.astype(np.float64).dot([0.299, 0.587, 0.114]) / 255.0
    tinted = (0.25 + 0.75 * grey[..., None]) * flow_to_rgb(flow, scale)
    return _framed(np.rint(tinted).astype(np.uint8), scale, title)


def _framed(pixels: np.ndarray, scale: float, title: str) -> bytes:
    """PNG of the picture with a title, and at its right the wheel and its legend."""
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

        # Copies the pixels; `imshow` would resample them, in older versions of matplotlib by a part of a pixel.
        figure.figimage(pixels, MARGIN, tall - MARGIN - 18 - height, origin="upper")
        image = axes(MARGIN, MARGIN + 18, width, height)
        image.patch.set_visible(False)
        image.set(xticks=[], yticks=[])
        for spine in image.spines.values():  # a frame, because flow near zero is white on white
            spine.set(visible=True, color="#c3c7cd", linewidth=0.6)
        left, top = width + 2 * MARGIN, MARGIN + 18
        wheel = axes(left, top, WHEEL, WHEEL)
        wheel.imshow(color_wheel_image(2 * WHEEL))
        wheel.set_axis_off()
        words = f"hue: direction\nrim: {scale:g} px\nwhite: no motion\nlonger is darker"
        figure.text(left / wide, 1 - (top + WHEEL + 10) / tall, words, color=BLACK, va="top", fontsize=8.5)
        figure.text(MARGIN / wide, 1 - MARGIN / tall, title, color=BLACK, va="center", fontsize=8.5)
        return png(figure)
