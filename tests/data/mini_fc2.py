"""A small FC2 set with known content for the tests of `edgeflownas.data`, PNG encoders, and the table of data
faults."""

import io
import os
import struct
import types
import zlib
from typing import Callable, NamedTuple

import numpy as np
from PIL import Image

from edgeflownas.data import flow_io

HEIGHT, WIDTH = 37, 53
CROP_HEIGHT, CROP_WIDTH = 23, 29


def data_cfg(root, **changes):
    """The part of the configuration that `build_index` reads."""
    values = dict(base_path=str(root), list_dir="", holdout=0, input_height=CROP_HEIGHT, input_width=CROP_WIDTH)
    values.update(changes)
    return types.SimpleNamespace(**values)


def pixels(seed, height=HEIGHT, width=WIDTH, channels=3):
    """Noisy blotches, uint8 [height, width, channels], which compress, but not to a tiny size."""
    random = np.random.RandomState(seed)
    blotches = random.randint(0, 200, (height // 7 + 1, width // 9 + 1, channels))
    smooth = np.repeat(np.repeat(blotches, 7, axis=0), 9, axis=1)[:height, :width]
    return (smooth + random.randint(0, 40, smooth.shape)).astype(np.uint8)


def flow(seed, height=HEIGHT, width=WIDTH):
    return (np.random.RandomState(seed).random_sample((height, width, 2)) * 20 - 10).astype(np.float32)


def pillow(array, form="PNG", **options):
    """An array as a PNG encoded by Pillow."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, form, **options)
    return out.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) & 0xFFFFFFFF)


def png(array, row_filter=0, level=6, idat=10**9, interlaced=False, extra=b""):
    """An encoder unlike Pillow's: one filter for all rows, IDAT chunks of `idat` bytes, Adam7, `extra` chunks."""
    height, width, _ = array.shape
    passes = [array]
    if interlaced:
        adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        passes = [array[y::dy, x::dx] for y, x, dy, dx in adam7]
    data = zlib.compress(b"".join(_filtered(part, row_filter) for part in passes if part.size), level)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, int(interlaced))
    parts = [chunk(b"IDAT", data[i : i + idat]) for i in range(0, len(data), idat)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + b"".join(parts) + chunk(b"IEND", b"")


def _filtered(array, row_filter):
    """PNG filters 0 (none), 1 (left) and 2 (up) of all rows."""
    rows = array.reshape(len(array), -1, 3).astype(int)
    before = np.zeros_like(rows)
    if row_filter == 1:
        before[:, 1:] = rows[:, :-1]
    elif row_filter == 2:
        before[1:] = rows[:-1]
    return b"".join(bytes([row_filter]) + row.tobytes() for row in (rows - before).astype(np.uint8))


def write_sample(root, name, seed):
    """One sample with a frame of HEIGHT x WIDTH; `name` is like "train/0000014"."""
    stem = os.path.join(str(root), *name.split("/"))
    os.makedirs(os.path.dirname(stem), exist_ok=True)
    for i in (0, 1):
        with open(f"{stem}-img_{i}.png", "wb") as file:
            file.write(pillow(pixels(2 * seed + i)))
    flow_io.write_flo(stem + "-flow_01.flo", flow(seed))


def write_lists(folder, dirnames, train, test):
    os.makedirs(str(folder), exist_ok=True)
    for name, lines in (("dirnames", dirnames), ("train", train), ("test", test)):
        with open(os.path.join(str(folder), f"FC2_{name}.txt"), "w", newline="") as file:
            file.write("".join(f"{line}\n" for line in lines))


def make_set(root, train=7, val=5, first=100):
    """Samples train/0000100... in `root` with list files: the first `train` train, the others validate."""
    names = [f"train/{number:07d}" for number in range(first, first + train + val)]
    for number, name in enumerate(names):
        write_sample(root, name, number)
    entries = [f"/Datasets/FlyingChairs2/{name}-img_0.png" for name in names]
    write_lists(root, entries, range(train), range(train, train + val))
    return names


class Fault(NamedTuple):
    """One row of the fault table: `damage` turns the good bytes of `file` into bad ones (None: deletes it)."""

    id: str
    file: str
    damage: Callable
    words: str  # In the message, beside the file's path.
    in_headers: bool = True  # Whether the check before training must find it; the others need all bytes.


def _flip(position, bit=3):
    def damage(data):
        changed = bytearray(data)
        changed[position(data) if callable(position) else position] ^= 1 << bit
        return bytes(changed)

    return damage


def _values(value):
    def damage(data):
        at = 12 + 4 * (2 * (WIDTH * 31 + 1) + 1)  # v at x=1, y=31: outside the centre crop.
        return data[:at] + struct.pack("<f", value) + data[at + 4 :]

    return damage


def _header(width, height):
    return lambda data: data[:4] + struct.pack("<ii", width, height) + data[12:]


def _middle_of_idat(data):
    return (data.index(b"IDAT") + len(data)) // 2


IMAGE, FLOW = "-img_1.png", "-flow_01.flo"
FAULTS = (
    Fault("first image missing", "-img_0.png", lambda data: None, "No such file"),
    Fault("second image missing", IMAGE, lambda data: None, "No such file"),
    Fault("flow missing", FLOW, lambda data: None, "No such file"),
    Fault("png of 0 bytes", IMAGE, lambda data: b"", "found 0 bytes"),
    Fault("png cut in its signature", IMAGE, lambda data: data[:5], "found 5 bytes"),
    Fault("png cut in its header", IMAGE, lambda data: data[:24], "file of 24 bytes"),
    Fault("png cut in its pixels", IMAGE, lambda data: data[: _middle_of_idat(data)], "cut"),
    Fault("png cut by one byte", IMAGE, lambda data: data[:-1], "cut"),
    Fault("png with trailing bytes", IMAGE, lambda data: data + b"\0", "trailing"),
    Fault("png with a flipped bit in its signature", IMAGE, _flip(1), "expected a PNG file"),
    Fault("png with a flipped bit in its width", IMAGE, _flip(19), "IHDR"),
    Fault("png with a flipped bit in its interlacing", IMAGE, _flip(28, 0), "IHDR"),
    Fault("png with a flipped bit in its pixels", IMAGE, _flip(_middle_of_idat), "CRC", in_headers=False),
    Fault("png with a flipped bit in a checksum", IMAGE, _flip(-13), "CRC", in_headers=False),
    Fault("jpeg named png", IMAGE, lambda data: pillow(pixels(3), "JPEG"), "expected a PNG file"),
    Fault("gif named png", IMAGE, lambda data: pillow(pixels(3)[..., 0], "GIF"), "expected a PNG file"),
    Fault("gray png", IMAGE, lambda data: pillow(pixels(3)[..., 0]), "gray"),
    Fault("png with alpha", IMAGE, lambda data: pillow(pixels(3, channels=4)), "alpha"),
    Fault("16-bit png", IMAGE, lambda data: pillow(pixels(3)[..., 0].astype(np.uint16)), "16 bits"),
    Fault("palette png", IMAGE, lambda data: _palette_png(), "palette"),
    Fault(
        "frames of different sizes", IMAGE, lambda data: pillow(pixels(3, HEIGHT + 2, WIDTH)), f"{WIDTH}x{HEIGHT + 2}"
    ),
    Fault("flo of 0 bytes", FLOW, lambda data: b"", "found 0 bytes"),
    Fault("flo header only", FLOW, lambda data: data[:12], "found 12"),
    Fault("flo cut", FLOW, lambda data: data[:-4], f"found {12 + 8 * WIDTH * HEIGHT - 4}"),
    Fault("flo with trailing bytes", FLOW, lambda data: data + b"\0\0\0\0", f"found {12 + 8 * WIDTH * HEIGHT + 4}"),
    Fault("flo with a bad magic number", FLOW, lambda data: b"PIEX" + data[4:], "magic"),
    Fault("flo with width and height swapped", FLOW, _header(HEIGHT, WIDTH), f"{HEIGHT}x{WIDTH}"),
    Fault("flo that claims 2^31 pixels", FLOW, _header(2**16, 2**15), "17179869196"),
    Fault("flo with a negative width", FLOW, _header(-WIDTH, -HEIGHT), "at least 1"),
    Fault("flo with NaN", FLOW, _values(np.nan), "nan", in_headers=False),
    Fault("flo with infinity", FLOW, _values(np.inf), "inf", in_headers=False),
    Fault("flo with minus infinity", FLOW, _values(-np.inf), "-inf", in_headers=False),
    Fault("flo beyond 1e9", FLOW, _values(1.1e9), "1100000000", in_headers=False),
)


def _palette_png():
    out = io.BytesIO()
    Image.fromarray(pixels(3)).quantize(16).save(out, "PNG")
    return out.getvalue()


class damaged:
    """Context: the file of `sample_stem` that a fault is about is damaged; restored at the end. Gives its path."""

    def __init__(self, sample_stem, fault):
        self._path, self._damage = sample_stem + fault.file, fault.damage

    def __enter__(self):
        with open(self._path, "rb") as file:
            self._sound = file.read()
        content = self._damage(self._sound)
        assert content != self._sound
        os.remove(self._path)
        if content is not None:
            self._write(content)
        return self._path

    def __exit__(self, *unused):
        self._write(self._sound)

    def _write(self, content):
        with open(self._path, "wb") as file:
            file.write(content)
