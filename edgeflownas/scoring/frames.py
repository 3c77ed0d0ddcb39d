"""Prepares two frames of any size for the network: checks, stacks and pads them at the right and bottom. NumPy only."""

import numpy as np

from edgeflownas.errors import UserError
from edgeflownas.network.layer_table import SMALLEST

GRID = 16  # pixels: the product of the strides of all stages


def paired(frame0: np.ndarray, frame1: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stacks two frames uint8 [H, W, 3] into uint8 [H', W', 6].

    `padded_size` gives H' and W' for the network's own `height` and `width`. Raises UserError for another type or
    shape, different sizes, or a side below 64 pixels.
    """
    for name, frame in (("frame 0", frame0), ("frame 1", frame1)):
        if getattr(frame, "dtype", None) != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            found = f"{getattr(frame, 'dtype', type(frame).__name__)} {getattr(frame, 'shape', '')}"
            raise UserError(f"{name}: expected an array of uint8 RGB pixels, [H, W, 3], found {found}")
    if frame0.shape != frame1.shape:
        sizes = ["{1}x{0}".format(*frame.shape) for frame in (frame0, frame1)]
        raise UserError(f"expected two frames of one size, found {sizes[0]} and {sizes[1]} (width x height)")
    if min(frame0.shape[:2]) < SMALLEST:
        raise UserError(
            "expected frames of at least {0}x{0} pixels, found {2}x{1} (width x height); enlarge them".format(
                SMALLEST, *frame0.shape
            )
        )
    images = np.concatenate([frame0, frame1], axis=2)
    rows, columns = padded_size(frame0.shape[0], height), padded_size(frame0.shape[1], width)
    margins = [(0, rows - frame0.shape[0]), (0, columns - frame0.shape[1]), (0, 0)]
    return np.pad(images, margins, mode="edge")


def padded_size(size: int, own: int) -> int:
    """The next size with the same remainder modulo 16 as `own`, the size that the network was trained on.

    At every stage, SAME padding divides a margin differently for odd and even sizes. With the same remainder, all
    stages are aligned to the frame as to a training crop.
    """
    return size + (own - size) % GRID
