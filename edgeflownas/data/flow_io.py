"""Reads and writes Middlebury `.flo` files strictly, and draws the Middlebury colour code of a flow. NumPy only.

A `.flo` file is the float32 202021.25 ("PIEH"), int32 width, int32 height, then height x width x (u, v) float32, all
little-endian; u points right and v points down, in pixels. Any deviation from this is a `DataError`.
"""

import os
import struct
from typing import Optional, Tuple

import numpy as np

from edgeflownas.errors import DataError

MAGIC = struct.pack("<f", 202021.25)
HEADER_BYTES = 12
MAX_ABS_FLOW = 1e9  # Middlebury marks unknown vectors by components above this; FC2 has none.

# Number of colours in each arc of the wheel, from red over yellow, green, cyan, blue and magenta back to red
# (Baker et al., "A Database and Evaluation Methodology for Optical Flow", 2011).
_ARCS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))


def flo_bytes(width: int, height: int) -> int:
    """The exact size in bytes of a `.flo` file."""
    return HEADER_BYTES + 8 * width * height


def flo_header(width: int, height: int) -> bytes:
    """The first 12 bytes of a `.flo` file."""
    return MAGIC + struct.pack("<ii", width, height)


def check_flo_header(path: str, header: bytes, file_bytes: int) -> Tuple[int, int]:
    """(width, height) from a file's first 12 bytes, checked against its size in bytes. Reads no file.

    Raises DataError: file too short, bad magic number, a side below 1, or a size that is not exactly 12 + 8 w h.
    """
    if file_bytes < HEADER_BYTES or len(header) < HEADER_BYTES:
        raise DataError(f"{path}: expected a .flo file of more than {HEADER_BYTES} bytes, found {file_bytes} bytes")
    if header[:4] != MAGIC:
        raise DataError(
            f"{path}: expected the .flo magic number 202021.25 (bytes {MAGIC!r}), found bytes {header[:4]!r}"
        )
    width, height = struct.unpack("<ii", header[4:HEADER_BYTES])
    if width < 1 or height < 1:
        raise DataError(f"{path}: expected a .flo width and height of at least 1, found {width}x{height}")
    if file_bytes != flo_bytes(width, height):
        raise DataError(
            f"{path}: expected {flo_bytes(width, height)} bytes for the {width}x{height} (width x height) of "
            f"its .flo header, found {file_bytes}"
        )
    return width, height


def read_flo_header(path: str) -> Tuple[int, int]:
    """(width, height) of a `.flo` file. Raises DataError if header and size in bytes disagree. Reads 12 bytes."""
    try:
        with open(path, "rb") as file:
            return check_flo_header(path, file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"{path}: expected a readable .flo file, found: {error.strerror}") from None


def read_flo(path: str, size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Reads a `.flo` file: float32 [H, W, 2], (u, v) in pixels.

    `size` is the expected (width, height), if known; without it, swapped sides go unnoticed. Raises DataError for a
    missing or unreadable file, a wrong size, header or length, and for values that are NaN, infinite or beyond 1e9.
    The header is checked against the file's size before any memory is allocated.
    """
    width, height = read_flo_header(path)
    if size is not None and (width, height) != tuple(size):
        raise DataError(
            f"{path}: expected a flow of {size[0]}x{size[1]} (width x height) as its frames, found {width}x{height}"
        )
    with open(path, "rb") as file:
        data = file.read()
    check_flo_header(path, data[:HEADER_BYTES], len(data))  # The file may have changed since.
    flow = np.frombuffer(data, "<f4", offset=HEADER_BYTES).reshape(height, width, 2)
    good = _known(flow)
    if not good.all():
        y, x, channel = np.argwhere(~good)[0]
        raise DataError(
            f"{path}: expected finite flow of at most {MAX_ABS_FLOW:g} px, found {int((~good).sum())} other "
            f"values, the first {flow[y, x, channel]} at x={x} y={y}"
        )
    return flow.astype(np.float32)


def write_flo(path: str, flow: np.ndarray) -> None:
    """Writes float [H, W, 2] in pixels as `.flo`.

    Raises ValueError for another shape or type, and for values that are NaN, infinite or beyond 1e9.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape or flow.dtype.kind != "f":
        raise ValueError(f"flow must be a float array [H, W, 2], got {flow.dtype} {flow.shape}")
    if not _known(flow).all():
        raise ValueError(f"flow must be finite and at most {MAX_ABS_FLOW:g} px")
    with open(path, "wb") as file:
        file.write(flo_header(flow.shape[1], flow.shape[0]))
        file.write(np.ascontiguousarray(flow, "<f4").tobytes())


def _known(flow: np.ndarray) -> np.ndarray:
    """True where a value is at most 1e9 in absolute value; False for NaN, which compares false."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(flow) <= MAX_ABS_FLOW)


def _color_wheel() -> np.ndarray:
    """The 55 colours of the wheel, [55, 3] in 0..255: each arc fades linearly from corner to corner."""
    arcs = []
    for count, start, stop in zip(_ARCS, _CORNERS, _CORNERS[1:]):
        fade = np.arange(count)[:, None] / float(count)
        arcs.append(np.array(start) + np.trunc(fade * (np.array(stop) - np.array(start))))
    return np.concatenate(arcs)


def flow_to_rgb(flow: np.ndarray, max_px: Optional[float] = None) -> np.ndarray:
    """Middlebury colour code of float [H, W, 2]: uint8 RGB [H, W, 3]. Hue = direction, white = no motion.

    `max_px` is the length of full saturation in pixels (default: the longest vector). Longer vectors are darkened.
    Vectors that are not finite or beyond 1e9 are black. Raises ValueError for another shape or `max_px` <= 0.
    """
    flow = np.asarray(flow, np.float64)
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow must be [H, W, 2], got {flow.shape}")
    if max_px is not None and not max_px > 0:
        raise ValueError(f"max_px must be above 0, got {max_px}")
    unknown = np.asarray(~_known(flow).all(axis=2))
    flow = np.where(unknown[..., None], 0.0, flow)
    length = np.hypot(flow[..., 0], flow[..., 1])
    radius = length / (max_px if max_px is not None else max(float(length.max()), 1e-9))
    wheel = _color_wheel()
    # With -u and -v, red points right. The wheel's last colour is not its first. The faint seam there is Middlebury's
    # and is kept, so that the colours equal those of other tools.
    turn = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1.0) / 2.0 * (len(wheel) - 1)
    low = np.floor(turn).astype(int)
    part = (turn - low)[..., None]
    color = ((1 - part) * wheel[low] + part * wheel[(low + 1) % len(wheel)]) / 255.0
    radius = radius[..., None]
    color = np.where(radius <= 1.0, 1.0 - radius * (1.0 - color), 0.75 * color)
    rgb = np.floor(255.0 * color).astype(np.uint8)
    rgb[unknown] = 0
    return rgb


def color_wheel_image(size: int) -> np.ndarray:
    """The legend of `flow_to_rgb`, uint8 [size, size, 3]: centre = no motion, rim = `max_px`.

    Raises ValueError for a `size` below 2.
    """
    if size < 2:
        raise ValueError(f"size must be at least 2 px, got {size}")
    axis = np.linspace(-1.0, 1.0, size)
    flow = np.stack(np.meshgrid(axis, axis), axis=2)
    rgb = flow_to_rgb(flow, max_px=1.0)
    rgb[np.hypot(flow[..., 0], flow[..., 1]) > 1.0] = 255
    return rgb
