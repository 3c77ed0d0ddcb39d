"""The shared parts of all plots, built on matplotlib without pyplot or display: one style, and colours that
colour-blind readers can distinguish (Okabe and Ito 2008; viridis). matplotlib is imported with the first plot, so that
`--help` stays quick."""

import io
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from edgeflownas.pictures import import_matplotlib

BLACK, GREY = "#1c1e21", "#8a9099"
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
WIDTH, DPI = 10.0, 110  # inches, pixels per inch

MARKED_POINTS = 25  # a curve with at most this many points marks each of them

_LOOK: Dict[str, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.7,
    "axes.formatter.useoffset": False,
}


# Fonts for Chinese names, used if one is installed and matplotlib supports fallback fonts (3.6 and later).
_WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)


def _families() -> List[str]:
    """matplotlib's own font, and the first installed one of `_WIDE_FONTS`."""
    from matplotlib import font_manager

    found = {font.name for font in font_manager.fontManager.ttflist}
    fallback = hasattr(font_manager.FontManager, "_find_fonts_by_props")
    return ["DejaVu Sans"] + [name for name in _WIDE_FONTS if fallback and name in found][:1]


def label(name: str, otherwise: str) -> str:
    """A run's name, escaped for matplotlib and shortened; `otherwise` if no installed font has its letters.

    Without escaping, matplotlib reads text between two $ as mathematics and omits names with a leading _ from legends.
    """
    from matplotlib import font_manager

    paths = [font_manager.findfont(family) for family in _families()]
    known = {code for path in paths for code in font_manager.get_font(path).get_charmap()}
    if any(ord(letter) not in known for letter in name):
        return otherwise
    short = name if len(name) <= 28 else name[:14] + "\u2026" + name[-13:]
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


@contextmanager
def look() -> Iterator[None]:
    """A context with the matplotlib settings of all plots; the caller's settings are restored afterwards."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _LOOK.items():
            matplotlib.rcParams[name] = value  # type: ignore
        matplotlib.rcParams["font.family"] = _families()
        yield


def panels(rows: int, columns: int, height: float, **options: Any) -> Tuple[Any, List[Any]]:
    """A new figure of `height` inches and its axes, row by row. `options` are passed to `Figure.subplots`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def epoch_axis(axes: Any, first: float, last: float) -> None:
    """Makes an x axis of epochs, with whole numbers as ticks and a margin at either end."""
    from matplotlib.ticker import MaxNLocator

    if first == last:
        axes.set_xlim(first - 1, last + 1)
        axes.set_xticks([first])
        return
    room = 0.02 * (last - first)
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=last - first >= 2))


def block_axis(axes: Any, blocks: Dict[str, List[str]], names_at: float) -> Dict[Tuple[str, str], float]:
    """Makes an x axis of blocks with their options; shades every other block. Returns the x of each (block, option).

    `names_at`: the y position of the blocks' names, below the axes, as a share of the axes' height.
    """
    places: Dict[Tuple[str, str], float] = {}
    at = 0.0
    for number, (block, options) in enumerate(blocks.items()):
        if number % 2 == 0:
            axes.axvspan(at - 0.7, at + len(options) - 0.3, color="#f4f5f7", linewidth=0, zorder=0)
        middle, below = at + (len(options) - 1) / 2, axes.get_xaxis_transform()
        axes.text(middle, names_at, block, transform=below, ha="center", va="top", fontweight="bold")
        places.update({(block, option): at + i for i, option in enumerate(options)})
        at += len(options) + 0.4
    axes.set(xticks=list(places.values()), xlim=(-0.7, at - 0.7))
    axes.set_xticklabels([option.replace("Deep", "D") for _, option in places], fontsize=9)
    axes.grid(axis="x", visible=False)
    return places


def viridis(count: int) -> List[Any]:
    """`count` colours from dark to light, without the lightest end, which is too pale on white."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    return [colours(0.9 * i / max(count - 1, 1)) for i in range(count)]


def dots(at: Any) -> Optional[str]:
    """The marker for a curve's points: a dot if there are few, else None."""
    return "o" if len(at) <= MARKED_POINTS else None


def gaps(values: np.ndarray) -> np.ndarray:
    """The values with NaN (a gap in the curve) in place of infinities, which no axis can show."""
    return np.where(np.isfinite(values), values, np.nan)


def top(values: np.ndarray) -> float:
    """The largest finite value; 1 if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 1.0
