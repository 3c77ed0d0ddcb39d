"""The training run: fair cycles, an evaluation after each epoch, checkpoints, resume.

while the schedule lasts:
    train the cycles of the epoch          step t: codes, batch and learning rate are pure functions of t
    evaluate the pool                      BN re-estimation and EPE of each subnet, best, early stop
    commit                                 tensors and state, atomically
"""

import logging
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.data.pipeline import EvalPipeline, TrainPipeline, bn_samples
from edgeflownas.engine.cycle import CycleGraph, CycleResult
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.engine.evaluate import Interrupted, Scorer, Scores, read_batches, score_codes
from edgeflownas.engine.learning import collapse, level
from edgeflownas.engine.progress import Progress
from edgeflownas.engine.records import Records
from edgeflownas.engine.run_state import EpochSums, RunState
from edgeflownas.engine.schedule import cosine_lr
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import GradientNotFinite, RunFailed, UserError
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import FairnessCounts, fair_cycle, uniform_paths
from edgeflownas.run import folder as names
from edgeflownas.run.checkpoint import CheckpointStore, Generation
from edgeflownas.run.epe_samples import write_epe_samples
from edgeflownas.run.fairness import FairnessRecord, write_fairness
from edgeflownas.run.manifest import COMPLETED, EARLY_STOPPED, INTERRUPTED, Manifest
from edgeflownas.run.pool import load_pool, save_pool
from edgeflownas.run.rows import Best, EvaluationRow, StepRow, TimingRow
from edgeflownas.run.samples import Samples, write_samples
from edgeflownas.run.tables import read_table
from edgeflownas.tfcompat import restore, tf

log = logging.getLogger("edgeflownas")
SHOWN_SAMPLES = 3
FAST_PREFETCH = 8


class Limits(NamedTuple):
    """Where this invocation stops early; the schedule is not bent by it. None: not at all."""

    max_epochs: Optional[int] = None
    max_steps: Optional[int] = None


def session_config(config: Config) -> Any:
    """One thread in deterministic mode; GPU memory as needed; mixed precision and XLA if asked for."""
    threads = 1 if config.runtime.deterministic else 0
    made = tf.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads,
        gpu_options=tf.GPUOptions(allow_growth=True),
    )
    options = made.graph_options
    if config.train.amp:  # TensorFlow then rewrites every graph of the session, the evaluation's too
        options.rewrite_options.auto_mixed_precision = options.rewrite_options.ON
    if config.runtime.xla:
        options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return made


class Trainer:
    """One process's share of a run. Building it reads the data index and builds the graph; nothing is written."""

    def __init__(self, config: Config, folder: str, index: FC2Index, limits: Limits) -> None:
        self.config, self.folder, self.limits = config, folder, limits
        data, train, evaluation, runtime = config.data, config.train, config.eval, config.runtime
        prefetch = max(FAST_PREFETCH if runtime.fast_mode else 1, runtime.prefetch_batches)
        size = (data.input_height, data.input_width)
        self.space = space_of(config.network)
        self.pool = build_pool(train.arch_seed, evaluation.pool_size, self.space)
        tf.reset_default_graph()
        # Ahead of the graph: TensorFlow has one pool of threads per process, of the size that whoever comes first asks
        # for,
        # and on TensorFlow 2 building a graph already takes one of all cores.
        self.session = tf.Session(config=session_config(config))
        self.pipeline = TrainPipeline(
            index.train, train.batch_size, size[0], size[1], train.seed, runtime.num_workers, prefetch
        )
        val = index.val[: evaluation.num_samples] if evaluation.num_samples else index.val
        bn = bn_samples(index.train, train.seed, evaluation.bn_recal_batches * evaluation.batch_size)
        self.val_pipeline, self.bn_pipeline = [
            EvalPipeline(samples, evaluation.batch_size, size[0], size[1], runtime.num_workers, 2)
            for samples in (val, bn)
        ]
        self._val_names = [sample.name for sample in val]
        self.graph = CycleGraph(config, self.space)
        self.scorer = Scorer(self.graph.net, size[0], size[1], len(self.pool))
        self.saver = tf.train.Saver(self.graph.saved, max_to_keep=0)
        self.num_train, self.steps_per_epoch = len(index.train), self.pipeline.steps_per_epoch
        self.total_steps = train.num_epochs * self.steps_per_epoch
        self.state = RunState(
            config=configuration.to_dict(config),
            config_hash=configuration.config_hash(config),
            dataset=index.fingerprint,
            steps_per_epoch=self.steps_per_epoch,
            early_stop=self._early_stop({}).as_dict(),
            fairness=FairnessCounts(self.space).as_dict(),
            space=self.space.identity(),
        )
        self.store = CheckpointStore(os.path.join(folder, names.CHECKPOINTS), log.warning, (tf.errors.OpError,))
        self.records = Records(
            folder, self.space, evaluation.pool_size, runtime.debug_trace, 100 if runtime.fast_mode else 10, 200
        )
        self.progress = Progress(self.steps_per_epoch, self.last_epoch)
        self._input_seconds = self._epoch_seconds = 0.0
        self._epoch_cycles = 0
        self._committed: Optional[int] = None  # the step of the last checkpoint

    @property
    def last_epoch(self) -> int:
        """The number of epochs after which this invocation stops."""
        return min(self.config.train.num_epochs, self.limits.max_epochs or self.config.train.num_epochs)

    @property
    def finished(self) -> bool:
        """The schedule is done or early stop has ended it: a resume would do no step."""
        return self.state.early_stopped or (
            self.state.step >= self.total_steps and self.state.evaluations >= self.config.train.num_epochs
        )

    @property
    def _limit_reached(self) -> bool:
        limits, state = self.limits, self.state
        evaluated = state.evaluations * self.steps_per_epoch >= state.step
        return (
            limits.max_epochs is not None and evaluated and state.step >= limits.max_epochs * self.steps_per_epoch
        ) or (
            limits.max_steps is not None
            and state.step >= limits.max_steps
            and (evaluated or state.step % self.steps_per_epoch != 0)
        )

    def start(self, weights_from: Optional[Generation]) -> None:
        """A new run: first weights, by seed or from another run's checkpoint; its pool is written down."""
        self.graph.initialize(self.session, self.config.train.seed)
        if weights_from is not None:
            restore(tf.train.Saver(self.graph.net.variables.all()), self.session, weights_from.prefix)
        save_pool(self._path(names.pool_name(len(self.pool))), self.pool, self.config.train.arch_seed, self.space)
        self._ready()

    def resume(self, generation: Generation, state: RunState) -> None:
        """An existing run, at a generation that was verified and whose configuration was compared.

        UserError if an accepted change bends the epochs: a step would have no place in them.
        """
        if state.steps_per_epoch != self.steps_per_epoch:
            raise UserError(
                "--resume: an epoch had {} steps and would have {} now; start a new run from these weights: "
                "--experiment_name NEW --load_checkpoint --resume_experiment_name {}".format(
                    state.steps_per_epoch, self.steps_per_epoch, self.config.runtime.experiment_name or '""'
                )
            )
        restore(self.saver, self.session, generation.prefix)
        # What this process was configured with (accepted changes, paths) is what the next checkpoint records.
        own = self.state
        self.state = state
        state.config, state.config_hash, state.dataset = own.config, own.config_hash, own.dataset
        self.pool = load_pool(self._path(names.pool_name(len(self.pool))), len(self.pool), self.space)
        state.early_stopped = self._early_stop(state.early_stop).stopped  # an accepted change of patience counts
        self.records.cut_back(state.lengths)
        self.store.adopt(generation)
        self._committed = state.step
        self._ready()

    def _ready(self) -> None:
        self.records.open_events(self.state.step)
        self.session.graph.finalize()  # from here on nothing may add to the graph: long runs do not grow
        if (self.config.train.amp or self.config.runtime.xla) and not tf.config.experimental.list_physical_devices(
            "GPU"
        ):
            log.warning("TensorFlow sees no GPU: --amp and --xla do not make this run faster (on a CPU all is float32)")

    def run(self, stop: StopSignals, on_evaluated: Any) -> str:
        """Trains until the schedule, a limit or a signal ends it; gives the manifest's status.

        `on_evaluated()` is called after each evaluation's commit, for the report.
        """
        state = self.state
        while not (self.finished or self._limit_reached or stop.requested):
            if state.step < min(self.total_steps, (state.evaluations + 1) * self.steps_per_epoch):
                self._train_epoch(stop)
            if not stop.requested and state.step == (state.evaluations + 1) * self.steps_per_epoch:
                if self._committed != state.step:  # a kill during the evaluation costs the evaluation only
                    self.commit(is_best=False)
                    self._write_counts()
                if self._evaluate(stop):
                    on_evaluated()
        if state.lengths != self.records.lengths() or not self.store.committed:
            self.commit(is_best=False)
        self._write_counts()
        if self.finished:
            return EARLY_STOPPED if state.early_stopped else COMPLETED
        return INTERRUPTED

    def _train_epoch(self, stop: StopSignals) -> None:
        """Trains the rest of the epoch at hand, or up to the limit or a signal."""
        epoch, position = divmod(self.state.step, self.steps_per_epoch)
        self.pipeline.start_epoch(self.session, epoch, position)
        self.progress.start_epoch(epoch, position)
        self._input_seconds = self._epoch_seconds = 0.0
        self._epoch_cycles = 0
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
        lr = cosine_lr(t, train.lr, self.total_steps)
        try:
            images, flow = self.session.run([self.pipeline.images, self.pipeline.flow])
        except tf.errors.OpError as error:
            self.pipeline.explain(epoch, position, str(error))  # raises
            raise
        read = time.monotonic()
        try:
            result = self._run_cycle(codes, images, flow, lr)
        except RunFailed as error:
            files = ", ".join(sample.name for sample, _, _ in self.pipeline.batch(epoch, position))
            raise RunFailed(
                f"step {t}: {error}; codes {codes.tolist()}; samples {files}; the weights were not changed and "
                f"{self.way_back}: look at these samples, or lower the learning rate with --lr"
                + ("" if self._committed is None else " and --resume --allow_changed train.lr")
            )
        if result.global_step != t + 1:
            raise RunFailed(f"step {t}: the optimizer counts {result.global_step} steps")
        seconds = time.monotonic() - started
        self._input_seconds += read - started
        self._epoch_seconds += seconds
        self._epoch_cycles += 1
        self._record_cycle(epoch, position, codes, lr, result)
        self.progress.cycle(epoch, position, result.loss, lr, seconds)

    def _run_cycle(self, codes: np.ndarray, images: np.ndarray, flow: np.ndarray, lr: float) -> CycleResult:
        """One cycle; in mixed precision at half the loss scale again, as often as its gradient overflows."""
        batch, trace, scale = (codes, images, flow, lr), self.records.trace is not None, self.state.loss_scale
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

    def _record_cycle(self, epoch: int, position: int, codes: np.ndarray, lr: float, result: CycleResult) -> None:
        state, sums = self.state, self.state.sums
        counts = FairnessCounts.from_dict(state.fairness, self.space)
        counts.add(codes)
        state.fairness = counts.as_dict()
        row = StepRow(
            step=state.step,
            epoch=epoch + 1,
            lr=lr,
            loss=result.loss,
            l2_loss=result.l2_loss,
            grad_norm_before=result.grad_norm_before,
            grad_norm_after=result.grad_norm_after,
        )
        self.records.cycle(row)
        if self.records.trace is not None:
            crops = [[sample.name, y, x] for sample, y, x in self.pipeline.batch(epoch, position)]
            self.records.note(
                dict(
                    row._asdict(),
                    event="cycle",
                    codes=codes.tolist(),
                    forward=result.forward,
                    backward=result.backward,
                    path_losses=result.path_losses,
                    batches_seen=result.batches_seen,
                    optimizer_step=result.global_step - state.step,
                    global_step=result.global_step,
                    global_grad_norm_before=result.grad_norm_before,
                    global_grad_norm_after=result.grad_norm_after,
                    batch=crops,
                    fairness_gap=counts.gap(),
                )
            )
        sums.cycles += 1
        sums.loss += result.loss
        sums.grad_norm_before += result.grad_norm_before
        sums.grad_norm_after_max = max(sums.grad_norm_after_max, result.grad_norm_after)
        sums.clipped += result.grad_norm_before > self.config.train.grad_clip
        sums.last_lr = lr
        state.step += 1

    def _evaluate(self, stop: StopSignals) -> bool:
        """Scores the pool, updates best and early stop, writes the rows, commits. False: a signal came first."""
        state, started = self.state, time.monotonic()
        epoch = state.evaluations + 1
        self.progress.start_evaluation(epoch - 1, self.val_pipeline.num_batches)
        try:
            scores = self.score_pool(lambda: stop.requested)
        except Interrupted:
            self.progress.close()
            return False
        seconds = time.monotonic() - started
        self.progress.end_evaluation(seconds)
        mean = float(np.float32(scores.epe.mean()))
        is_best = state.best is None or mean < Best(**state.best).mean_epe
        if is_best:
            state.best = dict(Best(epoch, state.step, mean)._asdict())
        early_stop = self._early_stop(state.early_stop)
        state.early_stopped = early_stop.update(mean)
        state.early_stop = early_stop.as_dict()
        state.evaluations = epoch
        row = self._history_row(epoch, mean, scores)
        self.records.evaluation(row, self.pool, scores.epe)
        self.records.timing.append(
            TimingRow(
                epoch=epoch,
                global_step=state.step,
                train_seconds=self._epoch_seconds,
                eval_seconds=seconds,
                cycles_per_second=self._epoch_cycles / self._epoch_seconds if self._epoch_seconds else 0.0,
                input_wait_share=self._input_seconds / self._epoch_seconds if self._epoch_seconds else 0.0,
            )
        )
        best, worst = int(np.argmin(scores.epe)), int(np.argmax(scores.epe))
        self.records.pictures(state.step - 1, scores, best)
        self._save_samples(epoch, scores, [best, worst])
        write_epe_samples(
            self.folder, epoch, state.best["epoch"], self.pool, scores.epe_samples, self._val_names, self.space
        )
        state.sums = EpochSums()
        self.commit(is_best)
        self._write_counts()
        self._tell(row, seconds, is_best)
        return True

    def score_pool(self, stop: Any = lambda: False) -> Scores:
        """EPE of the pool's subnets on the validation samples, each after BN re-estimation."""
        bn_batches = list(read_batches(self.session, self.bn_pipeline))
        return score_codes(
            self.session,
            self.scorer,
            self.pool,
            bn_batches,
            read_batches(self.session, self.val_pipeline),
            SHOWN_SAMPLES,
            stop,
            self.progress.evaluated,
        )

    def _history_row(self, epoch: int, mean: float, scores: Scores) -> EvaluationRow:
        state, sums = self.state, self.state.sums
        best = Best(**(state.best or {}))
        return EvaluationRow(
            epoch=epoch,
            global_step=state.step,
            mean_epe=mean,
            std_epe=float(scores.epe.std()),
            fairness_gap=FairnessCounts.from_dict(state.fairness, self.space).gap(),
            zero_flow_epe=scores.zero_flow_epe,
            best_mean_epe=best.mean_epe,
            best_epoch=best.epoch,
            early_stop_wait=state.early_stop["wait"],
            train_loss=sums.loss / sums.cycles,
            lr=sums.last_lr,
            grad_norm_before_mean=sums.grad_norm_before / sums.cycles,
            grad_norm_after_max=sums.grad_norm_after_max,
            clip_share=sums.clipped / sums.cycles,
            bn_recal_batches=self.config.eval.bn_recal_batches,
            num_samples=scores.num_samples,
        )

    def _tell(self, row: EvaluationRow, seconds: float, is_best: bool) -> None:
        log.info(
            "epoch %d/%d: mean EPE of %s %.4f px (std %.4f, zero flow %.4f)%s, loss %.4f, fairness_gap %d, clip "
            "touched %.0f%% of steps, bn_recal_batches=%d each, evaluation %.0f s, run ends in %s",
            row.epoch,
            self.last_epoch,
            "1 subnet" if len(self.pool) == 1 else f"{len(self.pool)} subnets",
            row.mean_epe,
            row.std_epe,
            row.zero_flow_epe,
            ", best so far" if is_best else "",
            row.train_loss,
            row.fairness_gap,
            100 * row.clip_share,
            row.bn_recal_batches,
            seconds,
            self.progress.eta(row.epoch, -1),
        )
        history = read_table(self._path(names.HISTORY), EvaluationRow, len(self.pool), finite=False).numbers
        trouble = collapse(level(history.mean_epe, history.zero_flow_epe), f"{row.mean_epe:.4f}")
        if trouble:
            log.warning("epoch %d: %s", row.epoch, trouble)

    def commit(self, is_best: bool) -> None:
        """Tensors and state, atomically."""
        self.state.lengths = self.records.lengths()
        self.store.commit(
            lambda prefix: self.saver.save(self.session, prefix, write_meta_graph=False, write_state=False),
            self.state.as_dict(),
            is_best,
        )
        self._committed = self.state.step

    @property
    def way_back(self) -> str:
        """What a run that ends badly can still do, for its last words."""
        if self._committed is None:
            return "there is no checkpoint yet"
        return f"the checkpoint of step {self._committed} is good"

    def _write_counts(self) -> None:
        counts = FairnessCounts.from_dict(self.state.fairness, self.space)
        record = FairnessRecord(
            self.config.train.supernet_mode, self.state.step, counts.gap(), counts.as_dict(), self.space.identity()
        )
        write_fairness(self.folder, record)

    def _save_samples(self, epoch: int, scores: Scores, subnets: List[int]) -> None:
        samples = Samples(
            images=scores.shown[0],
            flow=scores.shown[1],
            prediction=scores.predictions[subnets],
            codes=self.pool[subnets],
            epe=scores.epe[subnets].astype(np.float32),
            epoch=epoch,
            names=[crop[0].name for crop in self.val_pipeline.batch(0)[:SHOWN_SAMPLES]],
            space=self.space.identity(),
        )
        write_samples(self.folder, samples)

    def _early_stop(self, stored: Dict[str, Any]) -> EarlyStop:
        return EarlyStop(
            self.config.eval.patience, self.config.eval.min_delta, stored.get("best"), stored.get("wait", 0)
        )

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def close(self) -> None:
        """Files and session."""
        self.progress.close()
        self.records.close()
        self.session.close()


def finish_manifest(manifest: Manifest, trainer: Trainer, status: str, **fields: Any) -> None:
    """Brings the manifest up to date with the run's state."""
    state = trainer.state
    manifest.update(
        status=status, global_step=state.step, epoch=state.step // trainer.steps_per_epoch, best=state.best, **fields
    )
