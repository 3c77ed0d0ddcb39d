"""Scores subnets of the supernet: BN recalibration, then EPE on validation samples.

Built on the same forward pass as training. A pool uses every option of a block equally often. It therefore goes
through the network in one run (`FairPaths`), which computes shared parts once. Any other code runs alone
(`SinglePath`). The recalibrated statistics are fed as a vector, so the weights and the stored moving averages never
change.
"""

from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeflownas.engine.cycle import scale_images
from edgeflownas.errors import RunFailed
from edgeflownas.network.layers import BatchStatistics, StoredStatistics
from edgeflownas.network.losses import accumulate_residuals, end_point_error
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.network.routing import FairPaths, SinglePath
from edgeflownas.tfcompat import tf

Batch = Tuple[np.ndarray, np.ndarray]  # images uint8 [B, H, W, 6], flow float32 [B, H, W, 2]


class Scores(NamedTuple):
    """The results of an evaluation; EPE in pixels."""

    epe: np.ndarray  # [codes] float64
    epe_samples: np.ndarray  # [codes, samples] float32, samples in validation order; `epe` is their mean
    zero_flow_epe: float  # EPE of a flow of zeros on the same samples
    num_samples: int
    bn_batches: int  # batches of each code's BN recalibration; 0: stored statistics
    shown: Optional[Batch]  # the first samples, for pictures; None on a rank that read no batch
    predictions: np.ndarray  # [codes, samples shown, H, W, 2]; [codes, 0] if none is shown


class Interrupted(Exception):
    """The evaluation was asked to stop. It has no result."""


class Scorer:
    """The evaluation graph for `num_paths` codes at a time: 1 for any code, or the size of a pool."""

    def __init__(self, net: SupernetGraph, height: int, width: int, num_paths: int) -> None:
        self.num_paths = num_paths
        self.bn_batches = 0  # batches of the last BN recalibration
        self.images = tf.placeholder(tf.uint8, [None, height, width, 6], "eval_images")
        self.flow = tf.placeholder(tf.float32, [None, height, width, 2], "eval_flow")
        self.codes = tf.placeholder(tf.int32, [num_paths, len(net.space.blocks)], "eval_codes")
        images = scale_images(self.images)
        route = (SinglePath if num_paths == 1 else FairPaths)(self.codes, net.space)
        parameters = net.variables.read()
        batch_norm = BatchStatistics(net.variables, parameters)
        self.estimate_outputs = net.forward(images, route, batch_norm)
        self._batch_statistics = batch_norm.flat()
        self.statistics = tf.placeholder(tf.float32, self._batch_statistics.shape, "bn_statistics")
        self._applications, self._variables = batch_norm.applications(), net.variables
        stored = StoredStatistics(net.variables, self.statistics, self._applications, parameters)
        self.outputs = net.forward(images, route, stored)  # per scale, one tensor per path
        flows = [accumulate_residuals(path)[-1][..., :2] for path in zip(*self.outputs)]
        self.predictions = tf.stack(flows)  # [P, B, H, W, 2]
        self._errors = tf.stack([end_point_error(flow, self.flow) for flow in flows])  # [P, B]
        self._zero_flow_errors = end_point_error(tf.zeros_like(self.flow), self.flow)  # [B]

    def batch_statistics(self, session: tf.Session, codes: np.ndarray, images: np.ndarray) -> np.ndarray:
        """BN means and variances of these codes on one batch of images, as one float32 vector."""
        return session.run(self._batch_statistics, {self.codes: codes, self.images: images})

    def recalibrate(
        self, session: tf.Session, codes: np.ndarray, batches: Iterable[Batch], stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray:
        """BN recalibration: mean and variance averaged over `batches`, as one vector. Raises `Interrupted`."""
        total, count = 0.0, 0
        for images, _ in batches:
            if stop():
                raise Interrupted()
            total = total + self.batch_statistics(session, codes, images).astype(np.float64)
            count += 1
        self.bn_batches = count
        return (total / count).astype(np.float32)

    def errors(self, session: tf.Session, codes: np.ndarray, statistics: np.ndarray, batch: Batch) -> Any:
        """(EPE of each code and sample [P, B], zero-flow EPE of each sample [B]) in pixels."""
        feed = {self.codes: codes, self.statistics: statistics, self.images: batch[0], self.flow: batch[1]}
        return session.run([self._errors, self._zero_flow_errors], feed)

    def predict(self, session: tf.Session, codes: np.ndarray, statistics: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Flow in pixels, [P, B, H, W, 2]."""
        return session.run(self.predictions, {self.codes: codes, self.statistics: statistics, self.images: images})

    def by_layer(self, statistics: np.ndarray) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
        """Splits a vector of statistics into (mean, variance) by layer. For one path only."""
        sizes = [self._variables.norms[name] for name in self._applications for _ in range(2)]
        parts = iter(np.split(statistics, np.cumsum(sizes)[:-1]))
        return {name: (next(parts), next(parts)) for name in self._applications}


class StoredScorer(Scorer):
    """Scores one path with the moving averages of the checkpoint, without BN recalibration."""

    def recalibrate(
        self, session: tf.Session, codes: np.ndarray, batches: Iterable[Batch], stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray:
        """The moving averages as one vector; `batches` are not read."""
        names = [f"{name}/{part}" for name in self._applications for part in ("moving_mean", "moving_variance")]
        values = session.run([self._variables.moving[name] for name in names])
        return np.concatenate(values).astype(np.float32)


def score_codes(
    session: tf.Session,
    scorer: Scorer,
    codes: np.ndarray,
    bn_batches: Sequence[Batch],
    val_batches: Iterable[Optional[Batch]],
    show: int = 0,
    stop: Callable[[], bool] = lambda: False,
    progress: Optional[Callable[[int], None]] = None,
    gather: Callable[[np.ndarray], np.ndarray] = lambda errors: errors,
) -> Scores:
    """EPE of each of `codes` int32 [N, blocks]; N must be a multiple of the scorer's paths.

    Each validation batch is read once, for all codes. `show` is the number of samples to return for pictures.
    `progress` is called with the number of batches scored so far. One of several ranks reads only some batches, and
    None in a round without one. `gather` combines the errors of its samples, [N + 1, samples] with zero flow last, into
    those of all samples. Raises `Interrupted` once `stop()` is true, `RunFailed` if an EPE is not finite, ValueError if
    there is no batch.
    """
    groups = [codes[i : i + scorer.num_paths] for i in range(0, len(codes), scorer.num_paths)]
    statistics = [scorer.recalibrate(session, group, bn_batches, stop) for group in groups]
    errors: List[np.ndarray] = [np.zeros((len(codes) + 1, 0), np.float32)]
    shown: Optional[Batch] = None
    predictions: List[np.ndarray] = []
    for batch in val_batches:
        if stop():
            raise Interrupted()
        if batch is None:
            continue
        parts = [scorer.errors(session, group, vector, batch) for group, vector in zip(groups, statistics)]
        errors.append(np.concatenate([part[0] for part in parts] + [parts[0][1][np.newaxis]]))
        if shown is None:
            shown = (batch[0][:show], batch[1][:show])
            if show:
                predictions = [
                    scorer.predict(session, group, vector, shown[0]) for group, vector in zip(groups, statistics)
                ]
        if progress:
            progress(len(errors) - 1)
    measured = gather(np.concatenate(errors, axis=1))
    if not measured.size:
        raise ValueError("score_codes: no validation batch")
    epe_samples = measured[:-1]
    epe = epe_samples.astype(np.float64).mean(axis=1)
    if not np.all(np.isfinite(epe)):
        raise RunFailed(f"the EPE of code {codes[int(np.argmin(np.isfinite(epe)))].tolist()} is not finite")
    zero = measured[-1].astype(np.float64)
    return Scores(
        epe,
        epe_samples,
        float(zero.mean()),
        len(zero),
        scorer.bn_batches,
        shown,
        np.concatenate(predictions) if predictions else np.zeros((len(codes), 0)),
    )


def read_batches(session: tf.Session, pipeline: Any) -> Iterator[Optional[Batch]]:
    """Yields the batches of an `EvalPipeline` in order, None in a round without one.

    Raises a DataError that names the file if one is damaged.
    """
    pipeline.start(session)
    for index in pipeline.rounds:
        if index is None:
            yield None
            continue
        try:
            batch = session.run([pipeline.images, pipeline.flow])
        except tf.errors.OpError as error:
            pipeline.explain(index, str(error))  # raises
            raise
        yield batch[0], batch[1]
