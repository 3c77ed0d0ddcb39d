"""The complete fault table in both pipelines: the right batch fails, the error names the file, no garbage comes out."""

import mini_fc2
import numpy as np
import pytest
from mini_fc2 import CROP_HEIGHT, CROP_WIDTH, FAULTS, data_cfg, make_set
from PIL import Image

from edgeflownas.data import pipeline as pipeline_module
from edgeflownas.data.fc2_index import build_index
from edgeflownas.data.pipeline import EvalPipeline, TrainPipeline
from edgeflownas.data.png_file import png_prefix, read_png
from edgeflownas.errors import DataError
from edgeflownas.tfcompat import tf

EPOCH = 3
BAD_BATCH = 2  # Of 4 batches: earlier ones may be prefetched, later ones are being decoded in parallel.


class Readers:
    """A train and an eval pipeline over one good set, with the batches that they deliver while it is good."""

    def __init__(self, index, num_workers):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.train = TrainPipeline(index.train, 2, CROP_HEIGHT, CROP_WIDTH, 42, num_workers, prefetch=3)
            self.eval = EvalPipeline(index.train, 2, CROP_HEIGHT, CROP_WIDTH, num_workers, prefetch=3)
            self.session = tf.Session()
        self.sound = {kind: [self.next(kind) for _ in range(4)] for kind in ("train", "eval") if not self.start(kind)}

    def start(self, kind):
        if kind == "train":
            self.train.start_epoch(self.session, EPOCH)
        else:
            self.eval.start(self.session)

    def next(self, kind):
        pipeline = getattr(self, kind)
        return [array.tobytes() for array in self.session.run([pipeline.images, pipeline.flow])]

    def batch(self, kind, i):
        return self.train.batch(EPOCH, i) if kind == "train" else self.eval.batch(i)

    def explain(self, kind, i, message):
        if kind == "train":
            self.train.explain(EPOCH, i, message)
        else:
            self.eval.explain(i, message)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    make_set(root, train=8, val=1)
    index = build_index(data_cfg(root), 42)
    made = {num_workers: Readers(index, num_workers) for num_workers in (1, 4)}
    assert made[1].sound == made[4].sound
    yield made
    for reader in made.values():
        reader.session.close()


@pytest.mark.parametrize("kind", ["train", "eval"])
@pytest.mark.parametrize("num_workers", [1, 4])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.id for fault in FAULTS])
def test_fault_table(readers, fault, num_workers, kind):
    reader = readers[num_workers]
    sample, _, _ = reader.batch(kind, BAD_BATCH)[1]
    with mini_fc2.damaged(sample.flow[: -len("-flow_01.flo")], fault) as path:
        reader.start(kind)
        for i in range(BAD_BATCH):
            assert reader.next(kind) == reader.sound[kind][i], f"batch {i} before the bad one"
        with pytest.raises(tf.errors.OpError) as caught:
            reader.next(kind)
        assert not isinstance(caught.value, tf.errors.OutOfRangeError)
        with pytest.raises(DataError) as explained:
            reader.explain(kind, BAD_BATCH, str(caught.value))
        message = str(explained.value)
        assert message.startswith(path + ": expected") and fault.words in message and "found" in message
    reader.start(kind)  # A repaired set reads as before.
    assert [reader.next(kind) for _ in range(4)] == reader.sound[kind]


def test_errors_of_our_own_checks_name_the_file_in_the_session_too(readers):
    own = [fault for fault in FAULTS if fault.id in ("jpeg named png", "flo cut", "flo with NaN", "png of 0 bytes")]
    sample, _, _ = readers[4].batch("eval", BAD_BATCH)[0]
    for fault in own:
        with mini_fc2.damaged(sample.flow[: -len("-flow_01.flo")], fault) as path:
            readers[4].start("eval")
            with pytest.raises(tf.errors.OpError, match=path):
                for _ in range(4):
                    readers[4].next("eval")


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_a_fault_that_has_vanished_is_still_an_error(readers, kind):
    with pytest.raises(DataError, match="batch 1.*files are sound now.*img_0.png.*flow_01.flo.*disk on fire"):
        readers[1].explain(kind, 1, "disk on fire")


@pytest.fixture(scope="module")
def decode():
    """path -> pixels as the graph decodes them, or the error it raises."""
    with tf.Graph().as_default(), tf.Session() as sess:
        path = tf.placeholder(tf.string, [])
        pixels = pipeline_module._read_png(path, tf.constant(png_prefix(53, 37)))
        yield lambda name: sess.run(pixels, {path: name})


def _flips(data, count, seed):
    for bit in np.random.RandomState(seed).permutation(8 * len(data))[:count]:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        yield bit, bytes(changed)


@pytest.mark.parametrize(
    "name, encode",
    [
        ("pillow", mini_fc2.pillow),
        ("many chunks", lambda array: mini_fc2.png(array, idat=61)),
        ("stored", lambda array: mini_fc2.png(array, level=0, idat=500)),
        ("interlaced", lambda array: mini_fc2.png(array, interlaced=True)),
    ],
)
def test_no_flipped_bit_of_a_png_goes_unnoticed(tmp_path, decode, name, encode):
    path, array = tmp_path / "a.png", mini_fc2.pixels(9)
    path.write_bytes(encode(array))
    assert np.array_equal(decode(str(path)), array) and np.array_equal(read_png(str(path), (53, 37)), array)
    for bit, data in _flips(encode(array), 150, seed=1):
        path.write_bytes(data)
        with pytest.raises(tf.errors.OpError):
            decode(str(path))
            pytest.fail(f"the graph decoded {name} with bit {bit} flipped")
        with pytest.raises(DataError, match="a.png: expected"):
            read_png(str(path), (53, 37))
            pytest.fail(f"read_png decoded {name} with bit {bit} flipped")


def test_no_cut_png_goes_unnoticed(tmp_path, decode):
    path, data = tmp_path / "a.png", mini_fc2.png(mini_fc2.pixels(9), idat=700)
    for length in [*range(0, 60, 4), *range(60, len(data), 397), *range(len(data) - 30, len(data), 3)]:
        path.write_bytes(data[:length])
        with pytest.raises(tf.errors.OpError):
            decode(str(path))
        with pytest.raises(DataError, match="a.png: expected"):
            read_png(str(path), (53, 37))


def test_a_flipped_bit_beside_the_pixels_never_changes_them(tmp_path, decode):
    """libpng skips a damaged chunk without pixels, such as a comment; the full check reports it."""
    path, array = tmp_path / "a.png", mini_fc2.pixels(9)
    extra = mini_fc2.chunk(b"tEXt", b"Comment\0flying chairs") + mini_fc2.chunk(b"gAMA", b"\0\0\xb1\x8f")
    data = mini_fc2.png(array, extra=extra)
    start, refused = data.index(b"tEXt") - 4, 0
    for bit in range(8 * start, 8 * (start + len(extra)), 3):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(changed))
        with pytest.raises(DataError, match="a.png: expected"):
            read_png(str(path), (53, 37))
        try:
            assert np.array_equal(decode(str(path)), array), f"bit {bit}"
        except tf.errors.OpError:
            refused += 1
    assert refused > 0


def test_pixels_that_only_an_encoder_could_get_wrong(tmp_path, decode):
    """All checksums of the chunks are right, but they hold too few rows."""
    path, array = tmp_path / "a.png", mini_fc2.pixels(9)
    short, whole = mini_fc2.png(array[:30]), mini_fc2.png(array)
    path.write_bytes(whole[:33] + short[33:])
    with pytest.raises(tf.errors.OpError):
        decode(str(path))
    with pytest.raises(DataError, match="a.png: expected .* bytes of PNG pixels"):
        read_png(str(path), (53, 37))
    assert np.array(Image.open(str(path)).convert("RGB")).shape == array.shape  # Pillow fills up with black.
