"""The training run: fair cycles, an evaluation after each epoch, checkpoints, resume.

while the schedule lasts:
    train the cycles of the epoch          step t: codes, batch and learning rate are pure functions of t
    commit                                 tensors and state, atomically
    evaluate the pool                      BN re-estimation and EPE of each subnet, best, early stop
    commit
"""

import dataclasses
import logging
import os
import time
from typing import Callable, NamedTuple, Optional

import numpy as np

from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.data.pipeline import TrainPipeline
from edgeflownas.engine.cycle import CycleGraph, CycleResult
from edgeflownas.engine.evaluate import Interrupted, Scorer, Scores, read_batches, score_codes
from edgeflownas.engine.learning import collapse, level
from edgeflownas.engine.progress import Progress
from edgeflownas.engine.records import Records
from edgeflownas.engine.run_state import RunState
from edgeflownas.engine.schedule import cosine_lr
from edgeflownas.engine.session import evaluation_pipelines, session_config
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import GradientNotFinite, RunFailed, UserError
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import fair_cycle, uniform_paths
from edgeflownas.run.checkpoint import CheckpointStore, Generation
from edgeflownas.run.epe_samples import write_epe_samples
from edgeflownas.run.fairness import FairnessRecord, write_fairness
from edgeflownas.run.folder import CHECKPOINTS, HISTORY, pool_name
from edgeflownas.run.manifest import COMPLETED, EARLY_STOPPED, INTERRUPTED
from edgeflownas.run.pool import load_pool, save_pool
from edgeflownas.run.rows import EvaluationRow, StepRow, TimingRow
from edgeflownas.run.samples import Samples, write_samples
from edgeflownas.run.tables import read_table
from edgeflownas.tfcompat import restore, tf

log = logging.getLogger("edgeflownas")
SHOWN_SAMPLES = 3
FAST_PREFETCH = 8
SCALARS, FAST_SCALARS, FLUSH = 10, 100, 200  # steps between scalars for TensorBoard, and between flushes


class Limits(NamedTuple):
    """Stops for this invocation only; the schedule is unaffected. None: no limit."""

    max_epochs: Optional[int] = None
    max_steps: Optional[int] = None


@dataclasses.dataclass
class EpochClock:
    """Where the time of the epoch at hand went, in this process."""

    cycles: int = 0
    seconds: float = 0.0
    input_seconds: float = 0.0  # of which the session waited for data

    def row(self, state: RunState, eval_seconds: float) -> TimingRow:
        rate, share = (self.cycles / self.seconds, self.input_seconds / self.seconds) if self.seconds else (0.0, 0.0)
        return TimingRow(state.evaluations, state.step, self.seconds, eval_seconds, rate, share)


class Trainer:
    """One process's share of a run. Building it reads the data index and builds the graph; nothing is written."""

    def __init__(self, config: Config, folder: str, index: FC2Index, limits: Limits) -> None:
        self.config, self.folder, self.limits = config, folder, limits
        tf.reset_default_graph()
        # Ahead of the graph: TensorFlow has one pool of threads per process, of the size that whoever comes first asks
        # for, and on TensorFlow 2 building a graph already takes one of all cores.
        self.session = tf.Session(config=session_config(config))
        self.pipeline = _train_pipeline(config, index)
        self.val_pipeline, self.bn_pipeline = evaluation_pipelines(config, index)
        self.state = RunState(config, index.fingerprint, self.pipeline.steps_per_epoch)
        self.space = self.state.space
        self.pool = build_pool(config.train.arch_seed, config.eval.pool_size, self.space)
        self.graph = CycleGraph(config, self.space)
        self.scorer = Scorer(self.graph.net, config.data.input_height, config.data.input_width, len(self.pool))
        self.saver = tf.train.Saver(self.graph.saved, max_to_keep=0)
        self.store = CheckpointStore(os.path.join(folder, CHECKPOINTS), log.warning, (tf.errors.OpError,))
        every = FAST_SCALARS if config.runtime.fast_mode else SCALARS  # steps
        self.records = Records(folder, self.space, len(self.pool), config.runtime.debug_trace, every, FLUSH)
        self.progress = Progress(self.steps_per_epoch, self.last_epoch)
        self._clock = EpochClock()
        self._committed: Optional[int] = None  # the step of the last checkpoint

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
        """A new run: first weights, by seed or from another run's checkpoint; its pool is written down."""
        self.graph.initialize(self.session, self.config.train.seed)
        if weights_from is not None:
            restore(tf.train.Saver(self.graph.net.variables.all()), self.session, weights_from.prefix)
        save_pool(self._path(pool_name(len(self.pool))), self.pool, self.config.train.arch_seed, self.space)
        self._ready()

    def resume(self, generation: Generation, state: RunState) -> None:
        """An existing run, at a generation that was verified and whose configuration was compared.

        UserError if an accepted change bends the epochs: a step would have no place in them.
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
        self.records.cut_back(state.lengths)
        self.store.adopt(generation)
        self._committed = state.step
        self._ready()

    def _ready(self) -> None:
        self.records.open_events(self.state.step, self.state.evaluation_due)
        self.session.graph.finalize()  # from here on nothing may add to the graph: long runs do not grow
        for_gpus = self.config.train.amp or self.config.runtime.xla
        if for_gpus and not tf.config.experimental.list_physical_devices("GPU"):
            log.warning("TensorFlow sees no GPU: --amp and --xla do not make this run faster (on a CPU all is float32)")

    def run(self, stop: StopSignals, on_evaluated: Callable[[], None]) -> str:
        """Trains until the schedule, a limit or a signal ends it; gives the manifest's status.

        `on_evaluated()` is called after each evaluation's commit, for the report.
        """
        state = self.state
        while not (state.finished or self._limit_reached or stop.requested):
            end_of_epoch = (state.evaluations + 1) * self.steps_per_epoch
            if state.step < min(state.total_steps, end_of_epoch):
                self._train_epoch(stop)
            if not stop.requested and state.evaluation_due:
                if self._committed != state.step:  # a kill during the evaluation costs the evaluation only
                    self.commit(is_best=False)
                    self._write_counts()
                if self._evaluate(stop):
                    on_evaluated()
        if state.lengths != self.records.lengths() or not self.store.committed:
            self.commit(is_best=False)
        self._write_counts()
        if state.finished:
            return EARLY_STOPPED if state.early_stopped else COMPLETED
        return INTERRUPTED

    def _train_epoch(self, stop: StopSignals) -> None:
        """Trains the rest of the epoch at hand, or up to the limit or a signal."""
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
        t, train, started = self.state.step, self.config.train, time.monotonic()
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
        self._clock.input_seconds += read - started
        self._clock.seconds += seconds
        self._clock.cycles += 1
        self._record_cycle(epoch, position, codes, lr, result)
        self.progress.cycle(epoch, position, result.loss, lr, seconds)

    def _run_cycle(self, codes: np.ndarray, images: np.ndarray, flow: np.ndarray, lr: float) -> CycleResult:
        """One cycle; in mixed precision at half the loss scale again, as often as its gradient overflows."""
        batch, trace, scale = (codes, images, flow, lr), self.records.tracing, self.state.loss_scale
        if not self.config.train.amp:
            return self.graph.run(self.session, *batch, trace)
        while True:
            try:
                result = self.graph.run(self.session, *batch, trace, scale.value)
                scale.fits()
                return result
            except GradientNotFinite:
                if not scale.lower():
                    raise
                log.info("step %d: the gradient overflowed; again with loss scale %g", self.state.step, scale.value)

    def _failed(self, t: int, codes: np.ndarray, epoch: int, position: int, error: RunFailed) -> RunFailed:
        """The error of a cycle with all that leads to its cause."""
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
        self.records.cycle(row)
        if self.records.tracing:
            crops = [[sample.name, y, x] for sample, y, x in self.pipeline.batch(epoch, position)]
            self.records.trace_cycle(row, codes, result, crops, self.state.fairness.gap())

    def _evaluate(self, stop: StopSignals) -> bool:
        """Scores the pool, updates best and early stop, writes the rows, commits. False: a signal came first."""
        state, started = self.state, time.monotonic()
        self.progress.start_evaluation(state.evaluations, self.val_pipeline.num_batches)
        try:
            scores = self.score_pool(lambda: stop.requested)
        except Interrupted:
            self.progress.close()
            return False
        seconds = time.monotonic() - started
        self.progress.end_evaluation(seconds)
        row = state.add_evaluation(scores.epe, scores.zero_flow_epe, scores.num_samples)
        self.records.evaluation(row, self.pool, scores.epe)
        self.records.timing.append(self._clock.row(state, seconds))
        self.records.pictures(state.step - 1, scores, int(np.argmin(scores.epe)))
        self._save_samples(scores)
        self.commit(state.is_best)
        self._write_counts()
        self._tell(row, seconds)
        return True

    def score_pool(self, stop: Callable[[], bool] = lambda: False) -> Scores:
        """EPE of the pool's subnets on the validation samples, each after BN re-estimation."""
        bn, val = [read_batches(self.session, pipeline) for pipeline in (self.bn_pipeline, self.val_pipeline)]
        progress = self.progress.evaluated
        return score_codes(self.session, self.scorer, self.pool, list(bn), val, SHOWN_SAMPLES, stop, progress)

    def _tell(self, row: EvaluationRow, seconds: float) -> None:
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
        """Tensors and state, atomically."""

        def write_model(prefix: str) -> None:
            self.saver.save(self.session, prefix, write_meta_graph=False, write_state=False)

        self.state.lengths = self.records.lengths()
        self.store.commit(write_model, self.state.as_dict(), is_best)
        self._committed = self.state.step

    @property
    def way_back(self) -> str:
        """What a run that ends badly can still do, for its last words."""
        if self._committed is None:
            return "there is no checkpoint yet"
        return f"the checkpoint of step {self._committed} is good"

    def _write_counts(self) -> None:
        counts, mode = self.state.fairness, self.config.train.supernet_mode
        record = FairnessRecord(mode, self.state.step, counts.gap(), counts.as_dict(), self.space.identity())
        write_fairness(self.folder, record)

    def _save_samples(self, scores: Scores) -> None:
        """What the best and the worst subnet make of the first samples, for the report."""
        subnets = [int(np.argmin(scores.epe)), int(np.argmax(scores.epe))]
        samples = Samples(
            images=scores.shown[0],
            flow=scores.shown[1],
            prediction=scores.predictions[subnets],
            codes=self.pool[subnets],
            epe=scores.epe[subnets].astype(np.float32),
            epoch=self.state.evaluations,
            names=[crop[0].name for crop in self.val_pipeline.batch(0)[:SHOWN_SAMPLES]],
            space=self.space.identity(),
        )
        write_samples(self.folder, samples)
        names = [crop[0].name for i in range(self.val_pipeline.num_batches) for crop in self.val_pipeline.batch(i)]
        best = self.state.best.epoch if self.state.best else 0
        write_epe_samples(self.folder, self.state.evaluations, best, self.pool, scores.epe_samples, names, self.space)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def close(self) -> None:
        """Files and session."""
        self.progress.close()
        self.records.close()
        self.session.close()


def _train_pipeline(config: Config, index: FC2Index) -> TrainPipeline:
    data, train, runtime = config.data, config.train, config.runtime
    prefetch = max(FAST_PREFETCH if runtime.fast_mode else 1, runtime.prefetch_batches)
    size = (data.input_height, data.input_width)
    return TrainPipeline(index.train, train.batch_size, *size, train.seed, runtime.num_workers, prefetch)
