"""PNG files of an FC2 frame (8-bit RGB), strictly checked: header and tail quickly, or every chunk and pixel."""
import io
import os
import struct
import zlib
from typing import Tuple

import numpy as np
from PIL import Image

from edgeflownas.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 33  # Signature, then the IHDR chunk: length, type, 13 bytes, CRC.
TAIL = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_RGB8 = b"\x08\x02"  # Bit depth 8, colour type 2.
_COLOR_TYPES = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}


def png_prefix(width: int, height: int) -> bytes:
    """The first 26 bytes that an 8-bit RGB PNG of this size must have, whatever wrote it."""
    return SIGNATURE + b"\x00\x00\x00\x0dIHDR" + struct.pack(">II", width, height) + _RGB8


def check_png_ends(path: str, header: bytes, tail: bytes, file_bytes: int) -> Tuple[int, int]:
    """(width, height) from a file's first 33 and last 12 bytes; DataError if it is not a whole 8-bit RGB PNG."""
    if header[:8] != SIGNATURE:
        found = "{} bytes starting with {!r}".format(file_bytes, header[:8]) if file_bytes else "0 bytes"
        raise DataError("{}: expected a PNG file, found {}".format(path, found))
    if len(header) < HEADER_BYTES or header[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise DataError("{}: expected a whole PNG header of {} bytes, found {!r} in a file of {} bytes".format(
            path, HEADER_BYTES, header[8:16], file_bytes))
    _check_crc(path, "IHDR", header[12:29], header[29:33])
    width, height, depth, color = struct.unpack(">IIBB", header[16:26])
    if header[24:26] != _RGB8:
        raise DataError("{}: expected an 8-bit RGB PNG, found {} bits, {}".format(
            path, depth, _COLOR_TYPES.get(color, "colour type {}".format(color))))
    if width < 1 or height < 1:
        raise DataError("{}: expected a PNG width and height of at least 1, found {}x{}".format(path, width, height))
    if tail != TAIL:
        raise DataError("{}: expected a PNG that ends with its IEND chunk, found {!r} at the end of {} bytes: "
                        "the file is cut or has trailing bytes".format(path, tail, file_bytes))
    return width, height


def read_png_header(path: str) -> Tuple[int, int]:
    """(width, height) of a PNG whose header and last chunk are those of a whole 8-bit RGB PNG; else DataError."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(HEADER_BYTES)
            file.seek(max(0, size - len(TAIL)))
            return check_png_ends(path, header, file.read(len(TAIL)), size)
    except OSError as error:
        raise DataError("{}: expected a readable PNG file, found: {}".format(path, error.strerror))


def read_png(path: str, size: Tuple[int, int]) -> np.ndarray:
    """Decodes a PNG of `size` = (width, height) after checking every chunk's CRC: uint8 RGB [H, W, 3]; else DataError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DataError("{}: expected a readable PNG file, found: {}".format(path, error.strerror))
    found = check_png_ends(path, data[:HEADER_BYTES], data[-len(TAIL):], len(data))
    if found != tuple(size):
        raise DataError("{}: expected a frame of {}x{} (width x height), found {}x{}".format(
            path, size[0], size[1], found[0], found[1]))
    _check_chunks(path, data)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.array(image.convert("RGB"))
    # Pillow's ways to refuse a PNG; it has no common base class for them.
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        raise DataError("{}: expected a PNG that decodes, found: {}".format(path, error))
    if pixels.shape != (size[1], size[0], 3):
        raise DataError("{}: expected {}x{} RGB pixels, decoded {}".format(path, size[0], size[1], pixels.shape))
    return pixels


def _check_chunks(path: str, data: bytes) -> None:
    """Walks all chunks and compares their CRCs. Chunks must fill the file exactly, up to IEND."""
    offset = len(SIGNATURE)
    while offset < len(data):
        length = int.from_bytes(data[offset:offset + 4], "big")
        kind, end = data[offset + 4:offset + 8], offset + 12 + length
        name = "{} at byte {}".format(kind.decode("latin-1"), offset)
        if end > len(data):
            raise DataError("{}: expected {} bytes for the PNG chunk {}, found {}: the file is cut or damaged".format(
                path, 12 + length, name, len(data) - offset))
        _check_crc(path, name, data[offset + 4:end - 4], data[end - 4:end])
        if kind == b"IEND" and end != len(data):
            raise DataError("{}: expected the end of the file after the PNG chunk IEND, found {} more bytes".format(
                path, len(data) - end))
        offset = end


def _check_crc(path: str, name: str, content: bytes, stored: bytes) -> None:
    found = zlib.crc32(content) & 0xFFFFFFFF
    expected = int.from_bytes(stored, "big")
    if found != expected:
        raise DataError("{}: expected CRC {:08x} of the PNG chunk {}, found {:08x}: the file is damaged".format(
            path, expected, name, found))
