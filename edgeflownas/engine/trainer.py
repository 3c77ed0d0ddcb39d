"""The training run: fair cycles, an evaluation after each epoch, checkpoints, resume.

Built on `cycle`, `evaluate`, `records` and `run.checkpoint`. Of several ranks, each trains on its part of every batch.
All ranks keep the same state; only rank 0 writes files.

while the schedule lasts:
    train the cycles of the epoch          step t: codes, batch and learning rate are pure functions of t
    commit                                 tensors and state, atomically
    evaluate the pool                      BN recalibration and EPE of each subnet, best, early stop
    commit
"""

import logging
import os
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

import numpy as np

from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.data.shards import Shard
from edgeflownas.engine.clock import EpochClock
from edgeflownas.engine.cycle import CycleGraph, CycleResult
from edgeflownas.engine.evaluate import Interrupted, Scorer, Scores, read_batches, score_codes
from edgeflownas.engine.exchange import LOCAL, LocalExchange
from edgeflownas.engine.learning import collapse, level
from edgeflownas.engine.progress import Progress
from edgeflownas.engine.records import Records
from edgeflownas.engine.run_state import RunState
from edgeflownas.engine.schedule import cosine_lr
from edgeflownas.engine.session import evaluation_pipelines, session_config, train_pipeline
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import GradientNotFinite, RunFailed, UserError
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import fair_cycle, uniform_paths
from edgeflownas.run.checkpoint import CheckpointStore, Generation
from edgeflownas.run.folder import CHECKPOINTS, HISTORY, pool_name
from edgeflownas.run.manifest import COMPLETED, EARLY_STOPPED, INTERRUPTED
from edgeflownas.run.pool import load_pool, save_pool
from edgeflownas.run.rows import EvaluationRow, StepRow
from edgeflownas.run.tables import read_table
from edgeflownas.tfcompat import restore, tf

log = logging.getLogger("edgeflownas")
SHOWN_SAMPLES = 3
SCALARS, FAST_SCALARS, FLUSH = 10, 100, 200  # steps between TensorBoard scalars (usual, fast mode) and between flushes


class Limits(NamedTuple):
    """Stops for this invocation only; the schedule is unaffected. None: no limit."""

    max_epochs: Optional[int] = None
    max_steps: Optional[int] = None


class Trainer:
    """One rank of a run. The constructor builds the session and the graph; it writes nothing."""

    def __init__(
        self, config: Config, folder: str, index: FC2Index, limits: Limits, exchange: LocalExchange = LOCAL
    ) -> None:
        self.config, self.folder, self.limits, self.exchange = config, folder, limits, exchange
        self.stop = StopSignals()  # replaced by the argument of `run`
        self.throughput: Dict[str, Any] = {}  # of the last epoch; empty with one rank
        shard = Shard(exchange.rank, exchange.size)
        tf.reset_default_graph()
        # Before the graph: TensorFlow has one thread pool per process, and its first user sets the size. In TensorFlow
        # 2, building a graph already creates a pool of all cores.
        self.session = tf.Session(config=session_config(config, exchange.local_rank))
        self.pipeline = train_pipeline(config, index, shard)
        self.val_pipeline, self.bn_pipeline = evaluation_pipelines(config, index, shard)
        self.state = RunState(config, index.fingerprint, self.pipeline.steps_per_epoch)
        self.space = self.state.space
        self.pool = build_pool(config.train.arch_seed, config.eval.pool_size, self.space)
        self.graph = CycleGraph(config, self.space, exchange)
        self.scorer = Scorer(self.graph.net, config.data.input_height, config.data.input_width, len(self.pool))
        self.saver = tf.train.Saver(self.graph.saved, max_to_keep=0)
        self.store = CheckpointStore(os.path.join(folder, CHECKPOINTS), log.warning, (tf.errors.OpError,))
        every = FAST_SCALARS if config.runtime.fast_mode else SCALARS  # steps
        self.records = Records(folder, self.space, len(self.pool), config.runtime.debug_trace, every, FLUSH)
        self.progress = Progress(self.steps_per_epoch, self.last_epoch)
        self._clock = EpochClock()
        self._committed: Optional[int] = None  # the step of the last checkpoint

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files."""
        return self.exchange.rank == 0

    @property
    def steps_per_epoch(self) -> int:
        return self.state.steps_per_epoch

    @property
    def last_epoch(self) -> int:
        """The number of epochs after which this invocation stops."""
        return min(self.config.train.num_epochs, self.limits.max_epochs or self.config.train.num_epochs)

    @property
    def _limit_reached(self) -> bool:
        limits, state = self.limits, self.state
        evaluated = state.evaluations * self.steps_per_epoch >= state.step
        if limits.max_epochs is not None and evaluated and state.step >= limits.max_epochs * self.steps_per_epoch:
            return True
        in_epoch = state.step % self.steps_per_epoch != 0
        return limits.max_steps is not None and state.step >= limits.max_steps and (evaluated or in_epoch)

    def start(self, weights_from: Optional[Generation]) -> None:
        """Starts a new run: initial weights from the seed or from another run's checkpoint. Writes the pool."""
        self.graph.initialize(self.session, self.config.train.seed)
        if weights_from is not None:
            restore(tf.train.Saver(self.graph.net.variables.all()), self.session, weights_from.prefix)
        if self.writes:
            save_pool(self._path(pool_name(len(self.pool))), self.pool, self.config.train.arch_seed, self.space)
        self._ready()

    def resume(self, generation: Generation, state: RunState) -> None:
        """Continues an existing run. The caller has verified `generation` and compared its configuration.

        Raises UserError if an accepted change alters the number of steps per epoch.
        """
        if state.steps_per_epoch != self.steps_per_epoch:
            raise UserError(
                f"--resume: an epoch had {state.steps_per_epoch} steps and would have {self.steps_per_epoch} now; "
                "start a new run from these weights: --experiment_name NEW --load_checkpoint --resume_experiment_name "
                f"""{self.config.runtime.experiment_name or '""'}"""
            )
        restore(self.saver, self.session, generation.prefix)
        state.go_on_with(self.config, self.state.dataset)
        self.state = state
        self.pool = load_pool(self._path(pool_name(len(self.pool))), len(self.pool), self.space)
        if self.writes:
            self.records.cut_back(state.lengths)
            self.store.adopt(generation)
        self._committed = state.step
        self._ready()

    def _ready(self) -> None:
        if self.writes:
            self.records.open_events(self.state.step, self.state.evaluation_due)
        self.session.graph.finalize()  # so that the graph cannot grow during a long run
        for_gpus = self.config.train.amp or self.config.runtime.xla
        if for_gpus and not tf.config.experimental.list_physical_devices("GPU"):
            log.warning("TensorFlow sees no GPU: --amp and --xla do not make this run faster (on a CPU all is float32)")

    def run(self, stop: StopSignals, on_evaluated: Callable[[], None]) -> str:
        """Trains until the schedule, a limit or a signal ends it. Returns the manifest's status.

        `on_evaluated()` is called after each evaluation's commit, for the report.
        """
        state, self.stop = self.state, stop
        while not (state.finished or self._limit_reached or stop.requested):
            end_of_epoch = (state.evaluations + 1) * self.steps_per_epoch
            if state.step < min(state.total_steps, end_of_epoch):
                self._train_epoch(stop)
            if not stop.requested and state.evaluation_due:
                if self._committed != state.step:  # so that a kill during the evaluation loses only the evaluation
                    self.commit(is_best=False)
                    if self.writes:
                        self.records.counts(state)
                if self._evaluate(stop):
                    on_evaluated()
        if self._exchange_signals(
            self.writes and (state.lengths != self.records.lengths() or not self.store.committed)
        ):
            self.commit(is_best=False)
        if self.writes:
            self.records.counts(state)
        if state.finished:
            return EARLY_STOPPED if state.early_stopped else COMPLETED
        return INTERRUPTED

    def _exchange_signals(self, flag: bool = False) -> bool:
        """Shares the signals of all ranks and returns rank 0's flag. Every rank must call it."""
        rows = self.exchange.gather_rows([self.stop.received, flag])
        self.stop.agree(rows[:, 0])
        return bool(rows[0, 1])

    def _train_epoch(self, stop: StopSignals) -> None:
        """Trains the rest of the current epoch, or up to a limit or a signal."""
        epoch, position = divmod(self.state.step, self.steps_per_epoch)
        self.pipeline.start_epoch(self.session, epoch, position)
        self.progress.start_epoch(epoch, position)
        self._clock = EpochClock()
        while position < self.steps_per_epoch and not stop.requested and not self._limit_reached:
            self._train_cycle(epoch, position)
            position += 1
            every = self.config.runtime.save_every_steps
            if every and self.state.step % every == 0 and position < self.steps_per_epoch:
                self.commit(is_best=False)
        self.progress.close()

    def _train_cycle(self, epoch: int, position: int) -> None:
        """Step t: P codes, one batch, one update."""
        t, train, started, exchanged = self.state.step, self.config.train, time.monotonic(), self.exchange.seconds
        draw = fair_cycle if train.supernet_mode == "strict_fairness" else uniform_paths
        codes = draw(train.arch_seed, t, self.space)
        lr = cosine_lr(t, train.lr, self.state.total_steps)
        try:
            images, flow = self.session.run([self.pipeline.images, self.pipeline.flow])
        except tf.errors.OpError as error:
            self.pipeline.explain(epoch, position, str(error))  # raises
            raise
        read = time.monotonic()
        try:
            result = self._run_cycle(codes, images, flow, lr)
        except RunFailed as error:
            raise self._failed(t, codes, epoch, position, error)
        if result.global_step != t + 1:
            raise RunFailed(f"step {t}: the optimizer counts {result.global_step} steps")
        seconds = time.monotonic() - started
        self.stop.agree(result.signals)
        self._clock.exchange_seconds += self.exchange.seconds - exchanged
        self._clock.input_seconds += read - started
        self._clock.seconds += seconds
        self._clock.cycles += 1
        self._record_cycle(epoch, position, codes, lr, result)
        self.progress.cycle(epoch, position, result.loss, lr, seconds)

    def _run_cycle(self, codes: np.ndarray, images: np.ndarray, flow: np.ndarray, lr: float) -> CycleResult:
        """Runs one cycle. In mixed precision, an overflowing cycle runs again at half the loss scale."""
        batch, trace, scale = (codes, images, flow, lr), self.records.tracing, self.state.loss_scale
        if not self.config.train.amp:
            return self.graph.run(self.session, *batch, trace, signal=self.stop.received)
        while True:
            try:
                result = self.graph.run(self.session, *batch, trace, scale.value, self.stop.received)
                scale.count_finite()
                return result
            except GradientNotFinite:
                if not scale.halve():
                    raise
                log.info("step %d: the gradient overflowed; again with loss scale %g", self.state.step, scale.value)

    def _failed(self, t: int, codes: np.ndarray, epoch: int, position: int, error: RunFailed) -> RunFailed:
        """The error of a cycle, with its codes and samples, which help to find the cause."""
        files = ", ".join(sample.name for sample, _, _ in self.pipeline.batch(epoch, position))
        again = "" if self._committed is None else " and --resume --allow_changed train.lr"
        return RunFailed(
            f"step {t}: {error}; codes {codes.tolist()}; samples {files}; the weights were not changed and "
            f"{self.way_back}: look at these samples, or lower the learning rate with --lr{again}"
        )

    def _record_cycle(self, epoch: int, position: int, codes: np.ndarray, lr: float, result: CycleResult) -> None:
        t, norms = self.state.step, (result.grad_norm_before, result.grad_norm_after)
        row = StepRow(t, epoch + 1, lr, result.loss, result.l2_loss, *norms)
        self.state.add_cycle(codes, row)
        if not self.writes:
            return
        self.records.cycle(row)
        if self.records.tracing:
            crops = [[sample.name, y, x] for sample, y, x in self.pipeline.batch(epoch, position)]
            self.records.trace_cycle(row, codes, result, crops, self.state.fairness.gap())

    def _evaluate(self, stop: StopSignals) -> bool:
        """Scores the pool, updates best and early stop, writes the rows, commits. False if a signal came first."""
        state, started = self.state, time.monotonic()
        self.progress.start_evaluation(state.evaluations, len(self.val_pipeline.rounds))
        try:
            scores = self.score_pool(self._stopped)
        except Interrupted:
            self.progress.close()
            return False
        seconds = time.monotonic() - started
        self.progress.end_evaluation(seconds)
        row = state.add_evaluation(scores.epe, scores.zero_flow_epe, scores.num_samples, scores.bn_batches)
        if self.exchange.size > 1:
            self.throughput = self._clock.throughput(self.exchange, self.config.train.batch_size)
        if self.writes:
            self._record_evaluation(row, scores, seconds)
        self.commit(state.is_best)
        if self.writes:
            self.records.counts(self.state)
            self._log_evaluation(row, seconds)
        return True

    def _stopped(self) -> bool:  # every rank must call it equally often
        self._exchange_signals()
        return self.stop.requested

    def _record_evaluation(self, row: EvaluationRow, scores: Scores, seconds: float) -> None:
        self.records.evaluation(row, self.pool, scores.epe)
        self.records.timing.append(self._clock.row(self.state, seconds))
        if self.throughput:
            self.records.throughput(self.state.step - 1, self.throughput)
        self.records.pictures(self.state.step - 1, scores, int(np.argmin(scores.epe)))
        crops = [crop for i in range(self.val_pipeline.num_batches) for crop in self.val_pipeline.batch(i)]
        self.records.samples(self.state, self.pool, scores, [sample.name for sample, _, _ in crops])

    def score_pool(self, stop: Callable[[], bool] = lambda: False) -> Scores:
        """EPE of the pool's subnets on the validation samples, each after BN recalibration. Raises `Interrupted`."""
        bn, val = [read_batches(self.session, pipeline) for pipeline in (self.bn_pipeline, self.val_pipeline)]
        shown, told = SHOWN_SAMPLES if self.writes else 0, (stop, self.progress.evaluated, self._of_all_ranks)
        return score_codes(self.session, self.scorer, self.pool, list(bn), val, shown, *told)

    def _of_all_ranks(self, errors: np.ndarray) -> np.ndarray:
        """Combines the ranks' errors: [rows, own samples] -> [rows, all samples], in the order of the samples."""
        if self.exchange.size == 1:
            return errors
        measured = np.zeros((len(errors), self.val_pipeline.num_samples))
        measured[:, self.val_pipeline.places] = errors
        return self.exchange.sum_over_ranks(measured).astype(errors.dtype)

    def _log_evaluation(self, row: EvaluationRow, seconds: float) -> None:
        log.info(
            "epoch %d/%d: mean EPE of %s %.4f px (std %.4f, zero flow %.4f)%s, loss %.4f, fairness_gap %d, clip "
            "touched %.0f%% of steps, bn_recal_batches=%d each, evaluation %.0f s, run ends in %s",
            row.epoch,
            self.last_epoch,
            "1 subnet" if len(self.pool) == 1 else f"{len(self.pool)} subnets",
            row.mean_epe,
            row.std_epe,
            row.zero_flow_epe,
            ", best so far" if self.state.is_best else "",
            row.train_loss,
            row.fairness_gap,
            100 * row.clip_share,
            row.bn_recal_batches,
            seconds,
            self.progress.eta(row.epoch, -1),
        )
        history = read_table(self._path(HISTORY), EvaluationRow, len(self.pool), finite=False).numbers
        trouble = collapse(level(history.mean_epe, history.zero_flow_epe), f"{row.mean_epe:.4f}")
        if trouble:
            log.warning("epoch %d: %s", row.epoch, trouble)

    def commit(self, is_best: bool) -> None:
        """Writes tensors and state atomically. All ranks wait for it, so that all know the last good checkpoint."""

        def write_model(prefix: str) -> None:
            self.saver.save(self.session, prefix, write_meta_graph=False, write_state=False)

        if self.writes:
            self.state.lengths = self.records.lengths()
            self.store.commit(write_model, self.state.as_dict(), is_best)
        self.exchange.barrier()
        self._committed = self.state.step

    @property
    def way_back(self) -> str:
        """The checkpoint that a failed run can resume from, in words, for its error message."""
        if self._committed is None:
            return "there is no checkpoint yet"
        return f"the checkpoint of step {self._committed} is good"

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def close(self) -> None:
        """Closes files and session."""
        self.progress.close()
        self.records.close()
        self.session.close()
