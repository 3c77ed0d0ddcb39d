"""PNG chunks: TensorFlow decodes every file that --verify_data accepts to the same pixels."""

import struct
import zlib

import numpy as np
import pytest
from mini_fc2 import chunk

from edgeflownas.data.png_file import read_png
from edgeflownas.errors import DataError

WIDTH, HEIGHT = 7, 5
PIXELS = np.random.RandomState(0).randint(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
ROWS = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PIXELS))
IHDR = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
IDAT, PLTE, TEXT = chunk(b"IDAT", ROWS), chunk(b"PLTE", b"\1\2\3"), chunk(b"tEXt", b"a\0b")
HALVES = [chunk(b"IDAT", ROWS[:20]), chunk(b"IDAT", ROWS[20:])]

GOOD = {
    "plain": [IDAT],
    "a chunk that nobody knows and nobody needs": [chunk(b"abCd", b"x"), IDAT],
    "a palette that is only suggested": [PLTE, IDAT],
    "data in two chunks": HALVES,
    "a text after the data": [IDAT, TEXT],
}
BAD = {
    "an unknown critical chunk": ([chunk(b"ABCD", b"x"), IDAT], "critical chunks.*ABCD"),
    "the same after the data": ([IDAT, chunk(b"ABCD", b"x")], "critical chunks.*ABCD"),
    "a name with a digit": ([chunk(b"a1Cd", b"x"), IDAT], "four letters"),
    "two headers": ([IHDR, IDAT], "one chunk of that name.*IHDR"),
    "two palettes": ([PLTE, PLTE, IDAT], "one chunk of that name.*PLTE"),
    "data in two places": ([HALVES[0], TEXT, HALVES[1]], "one after the other"),
}


def write(folder, chunks):
    path = str(folder / "frame.png")
    with open(path, "wb") as handle:
        handle.write(b"\x89PNG\r\n\x1a\n" + IHDR + b"".join(chunks) + chunk(b"IEND", b""))
    return path


def by_tensorflow(path):
    from edgeflownas.tfcompat import tf

    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(tf.image.decode_png(tf.read_file(path), 3))


@pytest.mark.parametrize("name", GOOD)
def test_what_is_passed_is_what_tensorflow_decodes(tmp_path, name):
    path = write(tmp_path, GOOD[name])
    np.testing.assert_array_equal(read_png(path, (WIDTH, HEIGHT)), PIXELS)
    np.testing.assert_array_equal(by_tensorflow(path), PIXELS)


@pytest.mark.parametrize("name", BAD)
def test_what_tensorflow_refuses_is_refused_with_the_file_and_the_chunk(tmp_path, name):
    from edgeflownas.tfcompat import tf

    chunks, said = BAD[name]
    path = write(tmp_path, chunks)
    with pytest.raises(tf.errors.InvalidArgumentError):
        by_tensorflow(path)
    with pytest.raises(DataError, match=f"frame.png: expected .*{said}"):
        read_png(path, (WIDTH, HEIGHT))
