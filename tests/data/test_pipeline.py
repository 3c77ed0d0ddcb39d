"""Batches: their content is a pure function of seed, epoch and position, and their bytes are those of the files."""

import os
from collections import Counter

import mini_fc2
import numpy as np
import pytest
from mini_fc2 import CROP_HEIGHT, CROP_WIDTH, data_cfg, make_set
from PIL import Image

from edgeflownas.data import flow_io
from edgeflownas.data.fc2_index import build_index
from edgeflownas.data.pipeline import EvalPipeline, TrainPipeline, bn_samples
from edgeflownas.errors import DataError, UserError
from edgeflownas.tfcompat import tf

SEED = 42


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipeline")
    make_set(root, train=11, val=5)
    return build_index(data_cfg(root), SEED)


def _train(samples, num_workers=2, batch_size=3, seed=SEED, height=CROP_HEIGHT, width=CROP_WIDTH):
    return TrainPipeline(samples, batch_size, height, width, seed, num_workers, prefetch=2)


def _expected(crops, height=CROP_HEIGHT, width=CROP_WIDTH):
    """A batch read without TensorFlow: uint8 [B, H, W, 6], float32 [B, H, W, 2]."""
    images = [
        np.concatenate([np.array(Image.open(path)) for path in (sample.img0, sample.img1)], axis=2)
        for sample, _, _ in crops
    ]
    flows = [flow_io.read_flo(sample.flow) for sample, _, _ in crops]
    cut = [(slice(y, y + height), slice(x, x + width)) for _, y, x in crops]
    return (
        np.stack([image[window] for image, window in zip(images, cut)]),
        np.stack([flow[window] for flow, window in zip(flows, cut)]),
    )


def _read(pipeline, batches):
    """Pairs (images, flow) that a session delivers; `batches` = list of `start` calls with the number of reads each."""
    with tf.Session() as sess:
        out = []
        for start, count in batches:
            start(sess)
            out.extend(sess.run([pipeline.images, pipeline.flow]) for _ in range(count))
        return out


def _same(got, want):
    return all(g.dtype == w.dtype and g.tobytes() == w.tobytes() for g, w in zip(got, want))


@pytest.mark.parametrize("num_workers", [1, 4])
def test_training_batches_are_the_crops_of_the_files(index, num_workers):
    with tf.Graph().as_default():
        pipeline = _train(index.train, num_workers)
        assert pipeline.steps_per_epoch == 3  # 11 samples: the last two are dropped.
        assert pipeline.images.shape.as_list() == [3, CROP_HEIGHT, CROP_WIDTH, 6]
        assert pipeline.flow.shape.as_list() == [3, CROP_HEIGHT, CROP_WIDTH, 2]
        assert (pipeline.images.dtype, pipeline.flow.dtype) == (tf.uint8, tf.float32)
        got = _read(pipeline, [(lambda sess, e=epoch: pipeline.start_epoch(sess, e), 3) for epoch in range(2)])
    places = [(epoch, position) for epoch in range(2) for position in range(3)]
    for (epoch, position), batch in zip(places, got):
        assert _same(batch, _expected(pipeline.batch(epoch, position))), (epoch, position)


def test_a_resumed_epoch_continues_with_the_same_batches(index):
    with tf.Graph().as_default():
        pipeline = _train(index.train)
        whole = _read(pipeline, [(lambda sess: pipeline.start_epoch(sess, 5), 3)])
        parts = _read(
            pipeline,
            [
                (lambda sess: pipeline.start_epoch(sess, 5), 1),
                (lambda sess: pipeline.start_epoch(sess, 5, position=1), 2),
            ],
        )
        after_the_last = _read(pipeline, [(lambda sess: pipeline.start_epoch(sess, 5, position=2), 1)])
        with tf.Session() as sess, pytest.raises(tf.errors.OutOfRangeError):
            pipeline.start_epoch(sess, 5, position=2)
            for _ in range(2):
                sess.run(pipeline.images)
    assert all(_same(a, b) for a, b in zip(whole, parts)) and _same(whole[2], after_the_last[0])


def test_plan_of_a_seed_is_the_same_everywhere(index):
    """The expected values are literals: every machine, NumPy and TensorFlow must draw the same order and crops."""
    with tf.Graph().as_default():
        plan = _train(index.train).batch(7, 1)
    assert [(sample.name, y, x) for sample, y, x in plan] == [
        ("train/0000105", 8, 11),
        ("train/0000109", 14, 2),
        ("train/0000107", 3, 14),
    ]


def test_every_epoch_is_another_permutation(index):
    with tf.Graph().as_default():
        pipeline = _train(index.train, batch_size=11)
        other = _train(index.train, batch_size=11, seed=SEED + 1)
    epochs = [tuple(sample.name for sample, _, _ in pipeline.batch(epoch, 0)) for epoch in range(9)]
    assert len(set(epochs)) == 9 and {tuple(sorted(e)) for e in epochs} == {tuple(s.name for s in index.train)}
    assert other.batch(0, 0) != pipeline.batch(0, 0)


def test_crops_are_uniform_over_all_valid_offsets_of_each_frame(index):
    samples = [
        index.train[0],
        index.train[1]._replace(height=25, width=31),
        index.train[2]._replace(height=23, width=29),
    ]
    with tf.Graph().as_default():
        pipeline = _train(samples, batch_size=3)
    counts = {sample.name: (Counter(), Counter()) for sample in samples}
    for epoch in range(600):
        for sample, y, x in pipeline.batch(epoch, 0):
            counts[sample.name][0][y] += 1
            counts[sample.name][1][x] += 1
    for sample in samples:
        for count, places in zip(counts[sample.name], (sample.height - 23 + 1, sample.width - 29 + 1)):
            assert set(count) == set(range(places))
            mean = 600 / places
            assert all(abs(n - mean) < 5 * np.sqrt(mean) for n in count.values()), count


def test_a_crop_as_large_as_the_frame(index):
    with tf.Graph().as_default():
        pipeline = _train(index.train, height=37, width=53)
        (batch,) = _read(pipeline, [(lambda sess: pipeline.start_epoch(sess, 0), 1)])
    assert _same(batch, _expected(pipeline.batch(0, 0), 37, 53))


def test_wrong_sizes(index):
    with tf.Graph().as_default():
        with pytest.raises(UserError, match="batch_size is 12, but there are only 11"):
            _train(index.train, batch_size=12)
        for height, width in ((38, 29), (23, 54)):
            with pytest.raises(DataError, match="0000100-img_0.png: expected frames of at least the crop"):
                _train(index.train, height=height, width=width)
            with pytest.raises(DataError, match="expected frames of at least the crop"):
                EvalPipeline(index.val, 2, height, width, 1, 1)
        with pytest.raises(UserError, match="at least one sample"):
            EvalPipeline([], 2, 23, 29, 1, 1)
        pipeline = _train(index.train)
        for epoch, position in ((0, 3), (0, -1), (-1, 0)):
            with pytest.raises(ValueError, match="position"):
                pipeline.batch(epoch, position)


@pytest.mark.parametrize("num_workers", [1, 4])
def test_evaluation_sees_every_sample_once_in_order_at_its_centre(index, num_workers):
    with tf.Graph().as_default():
        pipeline = EvalPipeline(index.val, 2, CROP_HEIGHT, CROP_WIDTH, num_workers, prefetch=1)
        assert pipeline.num_batches == 3 and pipeline.images.shape.as_list() == [None, CROP_HEIGHT, CROP_WIDTH, 6]
        with tf.Session() as sess:
            for _ in range(2):
                pipeline.start(sess)
                got = [sess.run([pipeline.images, pipeline.flow]) for _ in range(3)]
            with pytest.raises(tf.errors.OutOfRangeError):
                sess.run(pipeline.images)
    crops = [pipeline.batch(i) for i in range(3)]
    assert [len(batch) for batch in crops] == [2, 2, 1]
    assert [crop for batch in crops for crop in batch] == [(sample, 7, 12) for sample in index.val]
    assert all(_same(batch, _expected(crop)) for batch, crop in zip(got, crops))
    with pytest.raises(ValueError, match="0..2"):
        pipeline.batch(3)


def test_bn_samples_are_fixed_and_wrap_round(index):
    seven = bn_samples(index.train, SEED, 7)
    assert len(set(seven)) == 7 and bn_samples(index.train, SEED, 25)[:7] == seven
    assert set(bn_samples(index.train, SEED, 11)) == set(index.train)
    assert bn_samples(index.train, SEED, 25)[11:22] == bn_samples(index.train, SEED, 11)
    assert bn_samples(index.train, SEED + 1, 7) != seven


@pytest.mark.parametrize(
    "encode",
    [
        lambda array: mini_fc2.png(array, row_filter=1),
        lambda array: mini_fc2.png(array, row_filter=2, idat=97),
        lambda array: mini_fc2.png(array, level=0),
        lambda array: mini_fc2.png(array, interlaced=True),
        lambda array: mini_fc2.png(array, interlaced=True, row_filter=2, idat=31),
        lambda array: mini_fc2.png(
            array, extra=mini_fc2.chunk(b"gAMA", b"\0\0\xb1\x8f") + mini_fc2.chunk(b"tEXt", b"a\0b")
        ),
        lambda array: mini_fc2.pillow(array, optimize=True),
        lambda array: mini_fc2.pillow(array, compress_level=0),
    ],
    ids=["left", "up", "stored", "interlaced", "interlaced up", "gamma and text", "optimised", "pillow stored"],
)
def test_all_encoders_give_the_same_pixels(tmp_path, encode):
    make_set(tmp_path, train=1, val=1)
    for i in (0, 1):
        (tmp_path / "train" / f"0000100-img_{i}.png").write_bytes(encode(mini_fc2.pixels(200 + i)))
    sample = build_index(data_cfg(tmp_path), SEED).train[0]
    with tf.Graph().as_default():
        pipeline = EvalPipeline([sample], 1, 37, 53, 1, 1)
        ((images, _),) = _read(pipeline, [(pipeline.start, 1)])
    assert np.array_equal(images[0], np.concatenate([mini_fc2.pixels(200), mini_fc2.pixels(201)], axis=2))


def test_paths_with_spaces_and_other_scripts(tmp_path):
    root = tmp_path / "Flying Chairs \u6905\u5b50"
    os.mkdir(str(root))
    make_set(root, train=1, val=1)
    with tf.Graph().as_default():
        pipeline = EvalPipeline(build_index(data_cfg(root), SEED).val, 1, CROP_HEIGHT, CROP_WIDTH, 1, 1)
        (batch,) = _read(pipeline, [(pipeline.start, 1)])
    assert _same(batch, _expected(pipeline.batch(0)))
