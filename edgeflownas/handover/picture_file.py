"""Reads the user's pictures (PNG, JPEG, PPM) as 8-bit RGB. Built on Pillow.

Grey and palette pictures become RGB, 16-bit ones 8-bit. A camera's orientation is applied, so that the array is what a
viewer shows. Training data is read elsewhere (`data/`), and strictly.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from edgeflownas.errors import DataError

FORMATS = ("PNG", "JPEG", "PPM")  # PPM: also PGM and PBM
RGB, ALPHA = ("1", "L", "P", "RGB"), ("LA", "PA", "RGBA")
GREY_16 = ("I", "I;16", "I;16B", "I;16L")  # 0 to 65535


def read_picture(path: str) -> np.ndarray:
    """uint8 RGB [H, W, 3]. DataError: missing, damaged, another format, transparent pixels, other colours (CMYK)."""
    try:
        with Image.open(path) as image:
            if image.format not in FORMATS:
                raise DataError(f"{path}: expected a PNG, JPEG or PPM picture, found {image.format}; convert it")
            image.load()
            return _rgb(path, ImageOps.exif_transpose(image))
    # Pillow raises any of these for a file that is not a picture, is cut, or has a damaged chunk or segment.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: expected a PNG, JPEG or PPM picture, found: {getattr(error, 'strerror', None) or error}"
        ) from error


def _rgb(path: str, image: Any) -> np.ndarray:
    if image.mode in GREY_16:
        grey = np.clip(np.rint(np.asarray(image).astype(np.float64) / 257.0), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ALPHA or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if np.any(rgba[..., 3] != 255):
            raise DataError(f"{path}: expected an opaque picture, found one with transparent pixels; flatten it")
        return np.ascontiguousarray(rgba[..., :3])
    if image.mode not in RGB:
        raise DataError(f"{path}: expected RGB, grey or palette colours, found {image.mode}; convert it to RGB")
    return np.asarray(image.convert("RGB"))
