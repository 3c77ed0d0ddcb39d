"""Batches of FC2 crops. Built on `tf.data`, which decodes inside the graph, so that reading runs no Python code.

The content of the n-th batch of an epoch is a pure function of (seed, epoch, n). It does not depend on the number of
workers, on resumes or on the TensorFlow version. A damaged file fails exactly the batch that it belongs to; `explain`
then names the file.

Shapes: B batch, H x W crop, h x w frame. Images are two RGB frames stacked in 6 channels; flow is (u, v) in pixels.
"""

from typing import Any, List, Sequence, Tuple

import numpy as np

from edgeflownas import rng
from edgeflownas.data.fc2_sample import Sample, check_crop, verify_sample
from edgeflownas.data.flow_io import HEADER_BYTES, MAX_ABS_FLOW, flo_bytes, flo_header
from edgeflownas.data.png_file import TAIL, png_prefix
from edgeflownas.data.shards import WHOLE, Shard
from edgeflownas.errors import DataError, UserError
from edgeflownas.tfcompat import tf

Crop = Tuple[Sample, int, int]  # A sample and the top left corner (y, x) of its crop.


class TrainPipeline:
    """Shuffled, randomly cropped batches: one pass over `samples` per epoch. An incomplete last batch is dropped.

    images: uint8 tensor [B, H, W, 6]; flow: float32 tensor [B, H, W, 2]. A shard reads B / ranks samples of each batch.
    Built in the current default graph. Raises UserError if there are fewer samples than one batch, DataError if a frame
    is smaller than the crop.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        height: int,
        width: int,
        seed: int,
        num_workers: int,
        prefetch: int,
        shard: Shard = WHOLE,
    ) -> None:
        self._shard = shard
        self._samples, self._batch_size, self._seed = tuple(samples), batch_size, seed
        self.steps_per_epoch = len(self._samples) // batch_size
        if not self.steps_per_epoch:
            raise UserError(
                f"train.batch_size is {batch_size}, but there are only {len(self._samples)} training "
                "samples; use a smaller batch"
            )
        self._margins = _margins(self._samples, height, width)
        part = batch_size // shard.ranks
        self._reader = _Reader(height, width, part, num_workers, prefetch, whole_batches=True)
        self.images, self.flow = self._reader.images, self._reader.flow

    def start_epoch(self, sess: Any, epoch: int, position: int = 0) -> None:
        """(Re)starts reading: the next batch is number `position` of the 0-based `epoch`."""
        self._check(epoch, position)
        crops = self._crops(epoch, position, self.steps_per_epoch)
        self._reader.start(sess, self._shard.of_batches(crops, self._batch_size))

    def batch(self, epoch: int, position: int) -> List[Crop]:
        """The samples of one batch, over all ranks, and the corners of their crops."""
        self._check(epoch, position)
        return self._crops(epoch, position, position + 1)

    def explain(self, epoch: int, position: int, message: str) -> None:
        """Raises a DataError that names the bad file of a batch. `message` is the session's error."""
        part = self._shard.of_batches(self.batch(epoch, position), self._batch_size)
        _explain(part, f"batch {position} of epoch {epoch + 1}", message)

    def _crops(self, epoch: int, start: int, stop: int) -> List[Crop]:
        order = rng.stream("order", self._seed, epoch).permutation(len(self._samples))
        # One draw per sample, independent of its place in the order. The offsets include the last valid one.
        share = rng.stream("crop", self._seed, epoch).random_sample((len(self._samples), 2))
        corners = np.floor(share * (self._margins + 1)).astype(int)
        chosen = order[start * self._batch_size : stop * self._batch_size]
        return [(self._samples[i], int(corners[i, 0]), int(corners[i, 1])) for i in chosen]

    def _check(self, epoch: int, position: int) -> None:
        if epoch < 0 or not 0 <= position < self.steps_per_epoch:
            raise ValueError(
                f"epoch must be at least 0 and position in 0..{self.steps_per_epoch - 1}, got {epoch} and {position}"
            )


class EvalPipeline:
    """The centre crops of `samples` in their order, each once; the last batch may be smaller.

    A shard reads every `ranks`-th batch. `rounds` has the number of the batch of each round, None if there is none.
    images: uint8 tensor [None, H, W, 6]; flow: float32 tensor [None, H, W, 2]. Built in the current default graph.
    Raises UserError without samples, DataError if a frame is smaller than the crop.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        height: int,
        width: int,
        num_workers: int,
        prefetch: int,
        shard: Shard = WHOLE,
    ) -> None:
        if not samples:
            raise UserError("expected at least one sample to evaluate, found none")
        corners = _margins(samples, height, width) // 2
        self._crops = [(sample, int(y), int(x)) for sample, (y, x) in zip(samples, corners)]
        self._batch_size = batch_size
        self.num_batches, self.num_samples = -(-len(self._crops) // batch_size), len(self._crops)
        self.rounds = shard.rounds(self.num_batches)
        self._reader = _Reader(height, width, batch_size, num_workers, prefetch, whole_batches=False)
        self.images, self.flow = self._reader.images, self._reader.flow

    def start(self, sess: Any) -> None:
        """(Re)starts reading at the first batch; after the last one the session raises OutOfRangeError."""
        crops = [self._crops[place] for place in self.places]
        if crops:
            self._reader.start(sess, crops)

    @property
    def places(self) -> List[int]:
        """Positions of the samples that this shard reads, in the order of reading."""
        size, last = self._batch_size, self.num_samples
        return [i for batch in self.rounds if batch is not None for i in range(last)[batch * size : (batch + 1) * size]]

    def batch(self, i: int) -> List[Crop]:
        """The samples of batch `i` and the corners of their crops."""
        if not 0 <= i < self.num_batches:
            raise ValueError(f"batch must be in 0..{self.num_batches - 1}, got {i}")
        return self._crops[i * self._batch_size : (i + 1) * self._batch_size]

    def explain(self, i: int, message: str) -> None:
        """Raises a DataError that names the bad file of batch `i`. `message` is the session's error."""
        _explain(self.batch(i), f"evaluation batch {i}", message)


def bn_samples(samples: Sequence[Sample], seed: int, count: int) -> Tuple[Sample, ...]:
    """`count` training samples for BN recalibration, fixed by `seed`. If there are fewer, they repeat in turn."""
    order = rng.stream("bn", seed).permutation(len(samples))
    return tuple(samples[order[i % len(order)]] for i in range(count))


class _Reader:
    """A tf.data pipeline over crops; `start` feeds them."""

    # Fed per sample: three paths, the expected first bytes of PNG and .flo, h, w, y, x.
    _TYPES = (tf.string, tf.string, tf.string, tf.string, tf.string, tf.int64, tf.int64, tf.int64, tf.int64)

    def __init__(
        self, height: int, width: int, batch_size: int, num_workers: int, prefetch: int, whole_batches: bool
    ) -> None:
        with tf.device("/cpu:0"), tf.name_scope("reader"):
            self._fed = tuple(tf.placeholder(dtype, [None]) for dtype in self._TYPES)
            dataset = tf.data.Dataset.from_tensor_slices(self._fed)
            dataset = dataset.map(lambda *fed: _read_crop(fed, height, width), num_parallel_calls=num_workers)
            dataset = dataset.batch(batch_size, drop_remainder=whole_batches).prefetch(prefetch)
            dataset = dataset.with_options(_no_autotune())
            self._iterator = tf.data.make_initializable_iterator(dataset)
            self.images, self.flow = self._iterator.get_next()

    def start(self, sess: Any, crops: Sequence[Crop]) -> None:
        rows = [
            (
                sample.img0,
                sample.img1,
                sample.flow,
                png_prefix(sample.width, sample.height),
                flo_header(sample.width, sample.height),
                sample.height,
                sample.width,
                y,
                x,
            )
            for sample, y, x in crops
        ]
        columns = [
            np.array(column, np.int64 if dtype == tf.int64 else object)
            for column, dtype in zip(zip(*rows), self._TYPES)
        ]
        sess.run(self._iterator.initializer, dict(zip(self._fed, columns)))


def _no_autotune() -> Any:
    """Options without autotuning. All parallelism is set explicitly, so there is nothing to tune.

    TensorFlow 2's tuner sleeps up to a minute between its checks, and the next start would wait for it to end.
    """
    options = tf.data.Options()
    if hasattr(options, "autotune"):
        options.autotune.enabled = False
    else:  # TensorFlow 1.15
        options.experimental_optimization.autotune = False
    return options


def _read_crop(fed: Sequence[Any], height: int, width: int) -> Tuple[Any, Any]:
    """(uint8 [H, W, 6], float32 [H, W, 2]) of one sample, from what `_Reader.start` fed for it."""
    img0, img1, flow, png_start, flo_start, frame_height, frame_width, y, x = fed
    frames = [_read_png(path, png_start)[y : y + height, x : x + width] for path in (img0, img1)]
    images = tf.concat(frames, axis=2)  # Stays uint8; only the crop becomes float32, in the network's graph.
    values = _read_flo(flow, flo_start, frame_height, frame_width)
    crop = values[y : y + height, x : x + width]
    return tf.reshape(images, [height, width, 6]), tf.reshape(crop, [height, width, 2])


def _read_png(path: Any, start: Any) -> Any:
    """uint8 [h, w, 3]. libpng refuses damage, but without the checks decode_png would accept JPEG, gray or palette."""
    content = tf.io.read_file(path)
    size = tf.strings.length(content)
    found = tf.strings.substr(content, 0, 26)
    end = tf.strings.substr(content, tf.maximum(size - len(TAIL), 0), len(TAIL))
    checks = [
        _require(tf.equal(found, start), "an 8-bit RGB PNG of its sample's size", path, size),
        _require(tf.equal(end, TAIL), "a PNG that ends with its IEND chunk", path, size),
    ]
    with tf.control_dependencies(checks):
        return tf.image.decode_png(tf.identity(content), channels=3)


def _read_flo(path: Any, start: Any, height: Any, width: Any) -> Any:
    """float32 [h, w, 2]. Checks the whole frame, so that a bad value fails for every crop."""
    content = tf.io.read_file(path)
    size = tf.strings.length(content)
    whole = tf.equal(tf.cast(size, tf.int64), flo_bytes(width, height))
    checks = [
        _require(
            tf.equal(tf.strings.substr(content, 0, HEADER_BYTES), start),
            "the .flo header of its sample's size",
            path,
            size,
        ),
        _require(whole, "the .flo length of its sample's size", path, size),
    ]
    with tf.control_dependencies(checks):
        # The header is as long as three float32. Decoding it, too, and dropping it saves a copy of the string.
        values = tf.decode_raw(tf.identity(content), tf.float32)[HEADER_BYTES // 4 :]
    with tf.control_dependencies(
        [_require(tf.reduce_all(tf.abs(values) <= MAX_ABS_FLOW), "finite flow of at most 1e9 px", path, size)]
    ):
        return tf.reshape(tf.identity(values), tf.stack([height, width, 2]))


def _require(condition: Any, expected: str, path: Any, size: Any) -> Any:
    return tf.debugging.Assert(condition, [path, "expected " + expected, "found a file of this many bytes", size])


def _margins(samples: Sequence[Sample], height: int, width: int) -> np.ndarray:
    """The largest offset (y, x) of a crop in each frame: int [N, 2]. Raises DataError if a frame is too small."""
    check_crop(samples, height, width)
    return np.array([(sample.height - height, sample.width - width) for sample in samples], int).reshape(-1, 2)


def _explain(crops: Sequence[Crop], which: str, message: str) -> None:
    for sample, _, _ in crops:
        verify_sample(sample)
    raise DataError(
        "{} could not be read, although its files are sound now: {}; the session said: {}".format(
            which,
            ", ".join(path for sample, _, _ in crops for path in (sample.img0, sample.img1, sample.flow)),
            message,
        )
    )
