"""The training graph and one fair cycle on it: gradient accumulation over all paths, then one optimizer step.

All paths use the same weights and the same batch; their gradients are averaged. Built on the network, the loss and
`exchange`. The phases of a cycle:

start       zero the accumulators; set the loss scale (mixed precision only)
accumulate  once per piece (all paths of a micro-batch, or one path of it): forward, backward, add
exchange    several ranks only: sum the accumulators over the ranks and share all losses; nothing is checked before,
            so that all ranks raise the same error in the same cycle
apply       divide by the loss scale, add weight decay, clip once by the global norm, take the Adam step, update the
            moving averages of batch norm, increase the step by 1
"""

import hashlib
from typing import Any, List, NamedTuple, Tuple

import numpy as np

from edgeflownas.config import Config
from edgeflownas.engine.exchange import LOCAL, LocalExchange
from edgeflownas.errors import GradientNotFinite, RunFailed
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.network.layers import BatchStatistics
from edgeflownas.network.losses import multiscale_loss, target_pyramid
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.network.routing import FairPaths, SinglePath
from edgeflownas.tfcompat import tf

BN_MOMENTUM = 0.9
# Relative margin below the clip bound, so that float32 rounding does not lift the clipped norm above the bound.
CLIP_MARGIN = 1e-5


class CycleResult(NamedTuple):
    """What one cycle measured."""

    loss: float  # mean of the paths' losses, without weight decay
    l2_loss: float  # the weight decay term
    grad_norm_before: float  # global norm of the averaged gradient, weight decay included
    grad_norm_after: float  # the same after the clip, measured on what was applied
    path_losses: List[float]  # one per path, averaged over micro-batches
    forward: int  # forward passes per batch, counted by the returned losses
    backward: int  # backward passes per batch, counted by the graph when it adds the gradients
    batches_seen: List[str]  # per path, SHA-256 of the samples fed on this rank; empty strings without `digest`
    global_step: int  # number of optimizer steps taken so far
    signals: List[int]  # per rank, the number of the stop signal it received, 0 for none


def scale_images(images: tf.Tensor) -> tf.Tensor:
    """uint8 [B, H, W, 6] -> float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) * (1.0 / 127.5) - 1.0


class CycleGraph:
    """The training graph of a supernet. `run` trains one cycle on it.

    `saved` lists every variable that a checkpoint must hold. The accumulators are not among them.
    """

    def __init__(self, config: Config, space: SearchSpace, exchange: LocalExchange = LOCAL) -> None:
        train, data = config.train, config.data
        self.config, self.exchange = config, exchange
        self.net = SupernetGraph(config.network.init_channels, space)
        # Uniform paths are not a permutation, so the fused graph cannot run them.
        self.fused = train.cycle_mode == "fused" and train.supernet_mode == "strict_fairness"
        self.paths_per_piece = space.num_paths if self.fused else 1
        self.piece_size = train.micro_batch_size or train.batch_size
        self.images = tf.placeholder(tf.uint8, [self.piece_size, data.input_height, data.input_width, 6], "images")
        self.flow = tf.placeholder(tf.float32, [self.piece_size, data.input_height, data.input_width, 2], "flow")
        self.codes = tf.placeholder(tf.int32, [self.paths_per_piece, len(space.blocks)], "codes")
        self.lr = tf.placeholder(tf.float32, [], "learning_rate")
        self.pieces = space.num_paths // self.paths_per_piece * (train.batch_size // self.piece_size)
        self.micro_batches = train.batch_size // exchange.size // self.piece_size  # per cycle, on this rank
        self._new_loss_scale = tf.placeholder_with_default(1.0, [], "loss_scale")
        self._loss_scale = _local(self._new_loss_scale, "loss_scale")
        self._build_accumulate()
        if exchange.size > 1:
            self._build_exchange()
        self._build_apply()

    def initialize(self, session: tf.Session, seed: int) -> None:
        """Sets all variables to their initial values and clears the accumulators."""
        self.net.variables.initialize(session, seed)
        session.run([variable.initializer for variable in self._optimizer_state])
        self.clear(session)

    def clear(self, session: tf.Session, loss_scale: float = 1.0) -> None:
        """Zeroes the accumulators and sets the loss scale, which is used with `train.amp` only."""
        session.run(self._start, {self._new_loss_scale: loss_scale})

    def run(
        self,
        session: tf.Session,
        codes: np.ndarray,
        images: np.ndarray,
        flow: np.ndarray,
        lr: float,
        digest: bool = False,
        loss_scale: float = 1.0,
        signal: int = 0,
    ) -> CycleResult:
        """Trains one cycle.

        `codes` int32 [P, blocks], `images` uint8 [b, H, W, 6], `flow` float32 [b, H, W, 2] in pixels; b is this rank's
        share of the batch, B / ranks. `digest` fills `batches_seen`. `signal` is sent to the other ranks. Raises
        `RunFailed` if a loss is not finite and `GradientNotFinite` if the gradient is not; both on all ranks, with
        the weights unchanged.
        """
        self.clear(session, loss_scale)
        losses, backward, seen = self._accumulate_all(session, codes, images, flow, digest)
        signals = [signal]
        if self.exchange.size > 1:
            losses, signals = self._exchange_sums(session, losses, signal)
        if not np.all(np.isfinite(losses)):
            raise RunFailed(f"the loss is not finite: {losses}")
        before, after, l2_loss, step = self.apply(session, lr)
        by_path = [float(np.mean(path)) for path in losses]
        return CycleResult(
            float(np.mean(by_path)),
            float(l2_loss),
            float(before),
            float(after),
            by_path,
            sum(len(path) for path in losses) // (self.micro_batches * self.exchange.size),
            backward // self.micro_batches,
            seen,
            int(step),
            signals,
        )

    def _accumulate_all(
        self, session: tf.Session, codes: np.ndarray, images: np.ndarray, flow: np.ndarray, digest: bool
    ) -> Tuple[List[List[float]], int, List[str]]:
        """Accumulates all pieces. Returns losses [path][micro-batch], the number of backward passes, the digests."""
        losses: List[List[float]] = [[] for _ in codes]
        seen, backward = ["" for _ in codes], 0
        for start in range(0, len(images), self.piece_size):
            piece = slice(start, start + self.piece_size)
            for first in range(0, len(codes), self.paths_per_piece):
                paths = range(first, first + self.paths_per_piece)
                feed = {self.images: images[piece], self.flow: flow[piece], self.codes: codes[first : paths[-1] + 1]}
                piece_losses, backward = session.run([self.losses, self._accumulate], feed)
                for path, loss in zip(paths, piece_losses):
                    losses[path].append(float(loss))
                    if digest:
                        fed = feed[self.images].tobytes() + feed[self.flow].tobytes()
                        seen[path] = hashlib.sha256(seen[path].encode("ascii") + fed).hexdigest()
            if self._end_of_micro_batch is not None:
                session.run(self._end_of_micro_batch)
        return losses, int(backward), seen

    def _exchange_sums(
        self, session: tf.Session, losses: List[List[float]], signal: int
    ) -> Tuple[List[List[float]], List[int]]:
        """Sums the accumulators over the ranks. Returns (losses [path][micro-batch], signals by rank).

        The losses are those of all ranks, in the order that a single process has.
        """
        rows = np.zeros(self._rows.shape.as_list(), np.float32)
        rows[self.exchange.rank] = [signal] + [loss for path in losses for loss in path]
        rows = self.exchange.run(session, self._exchange, {self._rows: rows})
        by_rank = rows[:, 1:].reshape(self.exchange.size, len(losses), self.micro_batches)
        by_path = by_rank.transpose(1, 0, 2).reshape(len(losses), -1)
        return [[float(loss) for loss in path] for path in by_path], [int(number) for number in rows[:, 0]]

    def apply(self, session: tf.Session, lr: float) -> Any:
        """Takes the optimizer step: (gradient norm before and after the clip, weight decay term, steps so far).

        Raises `GradientNotFinite`, with the weights unchanged.
        """
        try:
            return session.run(self._apply, {self.lr: lr})
        except tf.errors.InvalidArgumentError as error:
            if "gradient norm" not in str(error):
                raise
            raise GradientNotFinite("the gradient is not finite")

    def _build_accumulate(self) -> None:
        variables = self.net.variables
        self.trained = list(variables.trained.values())
        norm = BatchStatistics(variables)
        route = (FairPaths if self.fused else SinglePath)(self.codes, self.net.space)
        outputs = self.net.forward(scale_images(self.images), route, norm)
        sizes = [scale[0].shape.as_list()[1:3] for scale in outputs]
        targets = target_pyramid(self.flow, sizes, self.config.data.flow_clip)
        by_path = [multiscale_loss(path, targets, self.config.train.loss) for path in zip(*outputs)]
        self.losses = tf.stack(by_path)
        # The initial gradient of the loss: the loss scale instead of 1.
        scale = [self._loss_scale.read_value()] if self.config.train.amp else None
        self.gradients = tf.gradients(tf.add_n(by_path) / (len(by_path) * self.pieces), self.trained, scale)
        statistics = _total_statistics(norm)
        self.gradient_sums = [_local(tf.zeros(weight.shape), "gradient_sum") for weight in self.trained]
        channels, layers = sum(variables.norms.values()), len(variables.norms)
        self._statistics_sums = [_local(tf.zeros([size]), "statistics_sum") for size in (channels, channels, layers)]
        sums = self.gradient_sums + self._statistics_sums
        passes = _local(tf.zeros([], tf.int32), "backward_passes")
        parts = self._micro_batch_sums(sums)
        self._start = tf.group(*[variable.initializer for variable in sums + parts + [passes, self._loss_scale]])
        added = [
            total.assign_add(value, read_value=False)
            for total, value in zip(parts or sums, self.gradients + statistics)
        ]
        with tf.control_dependencies(added):
            self._accumulate = passes.assign_add(len(by_path), read_value=True)

    def _micro_batch_sums(self, sums: List[Any]) -> List[Any]:
        """Accumulators for one micro-batch, if it has several pieces; else none.

        The sum of a micro-batch is then added to `sums` as a whole, as the sum of another rank would be. So the number
        of ranks changes no bit.
        """
        self._end_of_micro_batch: Any = None
        if self.fused or self.micro_batches == 1:
            return []
        parts = [_local(tf.zeros(total.shape), "micro_batch_sum") for total in sums]
        with tf.control_dependencies([total.assign_add(part, read_value=False) for total, part in zip(sums, parts)]):
            self._end_of_micro_batch = tf.group(*[part.assign(tf.zeros(part.shape)) for part in parts])
        return parts

    def _build_exchange(self) -> None:
        """One grouped allreduce of all accumulators and of a matrix with a row per rank: its signal and losses."""
        sums = self.gradient_sums + self._statistics_sums
        shape = [self.exchange.size, 1 + self.net.space.num_paths * self.micro_batches]
        self._rows = tf.placeholder(tf.float32, shape, "rows")
        summed = self.exchange.summed([total.read_value() for total in sums] + [self._rows])
        with tf.control_dependencies([total.assign(value, read_value=False) for total, value in zip(sums, summed)]):
            self._exchange = tf.identity(summed[-1])

    def _build_apply(self) -> None:
        train = self.config.train
        kernels = {variable.name for variable in self.net.variables.kernels}
        sums = [
            total.read_value() / self._loss_scale if train.amp else total.read_value() for total in self.gradient_sums
        ]
        gradients = [
            total + train.wd * weight if weight.name in kernels else total for total, weight in zip(sums, self.trained)
        ]
        before = tf.global_norm(gradients)
        scale = tf.minimum(1.0, train.grad_clip * (1.0 - CLIP_MARGIN) / before)
        self.clipped = [gradient * scale for gradient in gradients]
        after = tf.global_norm(self.clipped)
        l2_loss = train.wd * tf.add_n([tf.nn.l2_loss(kernel) for kernel in self.net.variables.kernels])
        self.global_step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step", use_resource=True)
        self.adam = tf.train.AdamOptimizer(self.lr, beta1=0.9, beta2=0.999, epsilon=1e-8)
        finite = tf.debugging.Assert(tf.math.is_finite(before), ["gradient norm", before])
        # The logged weight decay term is that of the weights before the step, so it is computed before the update.
        with tf.control_dependencies([finite, after, l2_loss]):
            updates = [self.adam.apply_gradients(zip(self.clipped, self.trained))] + self._update_moving_averages()
        with tf.control_dependencies(updates):
            step = self.global_step.assign_add(1, read_value=True)
        self._apply = [before, after, l2_loss, step]
        # Read here, because Adam lists its variables only while its graph is the default graph.
        self._optimizer_state = self.adam.variables() + [self.global_step]
        self.saved = self.net.variables.all() + self._optimizer_state

    def _update_moving_averages(self) -> List[tf.Operation]:
        """One update per cycle, by the mean over a layer's applications. A layer that did not run keeps its values."""
        means, variances, uses = [total.read_value() for total in self._statistics_sums]
        channels = list(self.net.variables.norms.values())
        updates = []
        for name, mean, variance, used in zip(
            self.net.variables.norms, tf.split(means, channels), tf.split(variances, channels), tf.unstack(uses)
        ):
            rate = tf.where(used > 0, 1.0 - BN_MOMENTUM, 0.0)
            for part, value in (("moving_mean", mean), ("moving_variance", variance)):
                moving = self.net.variables.moving[f"{name}/{part}"]
                updates.append(moving.assign_sub(rate * (moving - value / tf.maximum(used, 1.0)), read_value=False))
        return updates


def _local(first: Any, name: str) -> Any:
    """A variable that is not saved in checkpoints."""
    return tf.Variable(first, trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES], name=name, use_resource=True)


def _total_statistics(norm: BatchStatistics) -> List[tf.Tensor]:
    """Sums over each layer's applications: means and variances [channels of all layers], numbers of uses [layers]."""

    def total(part: int, values: Tuple[Any, ...]) -> tf.Tensor:
        return tf.add_n([use[part] for use in values])

    layers = [tuple(norm.noted[name]) for name in norm.variables.norms]
    return [
        tf.concat([total(0, uses) for uses in layers], axis=0),
        tf.concat([total(1, uses) for uses in layers], axis=0),
        tf.stack([total(2, uses) for uses in layers]),
    ]
