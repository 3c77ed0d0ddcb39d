"""Strict checks of 8-bit RGB PNG files: quickly at both ends, or of every chunk and pixel. Decodes with Pillow."""

import io
import os
import re
import struct
import zlib
from typing import List, Sequence, Tuple

import numpy as np
from PIL import Image

from edgeflownas.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 33  # Signature, then the IHDR chunk: length, type, 13 bytes, CRC.
TAIL = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_RGB8 = b"\x08\x02"  # Bit depth 8, colour type 2.
_COLOR_TYPES = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}


def png_prefix(width: int, height: int) -> bytes:
    """The first 26 bytes of every 8-bit RGB PNG of this size."""
    return SIGNATURE + b"\x00\x00\x00\x0dIHDR" + struct.pack(">II", width, height) + _RGB8


def check_png_ends(path: str, header: bytes, tail: bytes, file_bytes: int) -> Tuple[int, int]:
    """(width, height) from the first 33 and last 12 bytes. Raises DataError if it is not a whole 8-bit RGB PNG."""
    if header[:8] != SIGNATURE:
        found = f"{file_bytes} bytes starting with {header[:8]!r}" if file_bytes else "0 bytes"
        raise DataError(f"{path}: expected a PNG file, found {found}")
    if len(header) < HEADER_BYTES or header[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise DataError(
            f"{path}: expected a whole PNG header of {HEADER_BYTES} bytes, found {header[8:16]!r} in a file "
            f"of {file_bytes} bytes"
        )
    _check_crc(path, "IHDR", header[12:29], header[29:33])
    width, height, depth, color = struct.unpack(">IIBB", header[16:26])
    if header[24:26] != _RGB8:
        raise DataError(
            "{}: expected an 8-bit RGB PNG, found {} bits, {}".format(
                path, depth, _COLOR_TYPES.get(color, f"colour type {color}")
            )
        )
    if width < 1 or height < 1:
        raise DataError(f"{path}: expected a PNG width and height of at least 1, found {width}x{height}")
    if tail != TAIL:
        raise DataError(
            f"{path}: expected a PNG that ends with its IEND chunk, found {tail!r} at the end of "
            f"{file_bytes} bytes: "
            "the file is cut or has trailing bytes"
        )
    return width, height


def read_png_header(path: str) -> Tuple[int, int]:
    """(width, height) of a PNG, after a check of both ends. Raises DataError if it is not a whole 8-bit RGB PNG."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(HEADER_BYTES)
            file.seek(max(0, size - len(TAIL)))
            return check_png_ends(path, header, file.read(len(TAIL)), size)
    except OSError as error:
        raise DataError(f"{path}: expected a readable PNG file, found: {error.strerror}") from None


def read_png(path: str, size: Tuple[int, int]) -> np.ndarray:
    """Checks every chunk of a PNG of `size` (width, height) and decodes it: uint8 [H, W, 3]. Raises DataError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path}: expected a readable PNG file, found: {error.strerror}") from None
    found = check_png_ends(path, data[:HEADER_BYTES], data[-len(TAIL) :], len(data))
    if found != tuple(size):
        raise DataError(
            f"{path}: expected a frame of {size[0]}x{size[1]} (width x height), found {found[0]}x{found[1]}"
        )
    _check_pixel_bytes(path, _check_chunks(path, data), size, interlaced=data[28] == 1)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.array(image.convert("RGB"))
    # Pillow raises these for a bad PNG. They have no common base class of their own.
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a PNG that decodes, found: {error}") from error
    if pixels.shape != (size[1], size[0], 3):
        raise DataError(f"{path}: expected {size[0]}x{size[1]} RGB pixels, decoded {pixels.shape}")
    return pixels


def _check_chunks(path: str, data: bytes) -> bytes:
    """Checks all chunks, which must fill the file exactly, and their CRCs. Returns the joined contents of IDAT."""
    offset, content = len(SIGNATURE), []
    kinds: List[bytes] = []
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        kind, end = data[offset + 4 : offset + 8], offset + 12 + length
        name = "{} at byte {}".format(kind.decode("latin-1"), offset)
        if end > len(data):
            raise DataError(
                f"{path}: expected {12 + length} bytes for the PNG chunk {name}, found {len(data) - offset}: "
                "the file is cut or damaged"
            )
        _check_crc(path, name, data[offset + 4 : end - 4], data[end - 4 : end])
        if kind == b"IEND" and end != len(data):
            raise DataError(
                f"{path}: expected the end of the file after the PNG chunk IEND, found {len(data) - end} more bytes"
            )
        _check_kind(path, name, kind, kinds)
        kinds.append(kind)
        if kind == b"IDAT":
            content.append(data[offset + 8 : end - 4])
        offset = end
    return b"".join(content)


def _check_kind(path: str, name: str, kind: bytes, before: Sequence[bytes]) -> None:
    """Raises DataError for a chunk that TensorFlow's decoder refuses after the chunks `before` it.

    The decoder must know every critical chunk. A chunk is critical if its name starts with a capital.
    """
    problem = None
    if not re.match(rb"[A-Za-z]{4}\Z", kind):
        problem = "chunk names of four letters"
    elif kind[:1].isupper() and kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
        problem = "only those critical chunks that the PNG standard has"
    elif kind in (b"IHDR", b"PLTE") and kind in before:
        problem = "one chunk of that name"
    elif kind == b"IDAT" and kind in before and before[-1] != kind:
        problem = "all IDAT chunks one after the other"
    if problem:
        raise DataError(f"{path}: expected {problem}, found the PNG chunk {name}")


def _check_pixel_bytes(path: str, content: bytes, size: Tuple[int, int], interlaced: bool) -> None:
    """Raises DataError unless IDAT is one whole zlib stream of exactly as many bytes as the rows need.

    Needed because Pillow silently pads a short stream with black.
    """
    width, height = size
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [
        (-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in (steps if interlaced else ((0, 0, 1, 1),))
    ]
    expected = sum(count * (1 + 3 * length) for count, length in rows if count > 0 and length > 0)
    inflater = zlib.decompressobj()
    try:
        found = len(inflater.decompress(content, expected + 1))
    except zlib.error as error:
        raise DataError(f"{path}: expected PNG pixels that inflate, found: {error}") from None
    if found != expected or not inflater.eof:
        raise DataError(f"{path}: expected {expected} bytes of PNG pixels, found {found} or an unfinished stream")


def _check_crc(path: str, name: str, content: bytes, stored: bytes) -> None:
    found = zlib.crc32(content) & 0xFFFFFFFF
    expected = int.from_bytes(stored, "big")
    if found != expected:
        raise DataError(
            f"{path}: expected CRC {expected:08x} of the PNG chunk {name}, found {found:08x}: the file is damaged"
        )
