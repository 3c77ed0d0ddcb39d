"""Writes the records of a run during training: tables and debug trace (on `run.append_only`), TensorBoard events.

A checkpoint stores the lengths of the tables, and a resume truncates them to these lengths. For TensorBoard, a
session-start event discards the events after the restored step.
"""

import contextlib
import io
import os
from typing import Any, Dict, Iterator, List

import numpy as np
from PIL import Image

from edgeflownas.data.flow_io import flow_to_rgb
from edgeflownas.engine.cycle import CycleResult
from edgeflownas.engine.evaluate import Scores
from edgeflownas.engine.run_state import RunState
from edgeflownas.files import os_errors
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.run import folder as names
from edgeflownas.run.append_only import AppendOnlyFile, JsonLines, TableWriter
from edgeflownas.run.epe_samples import write_epe_samples
from edgeflownas.run.fairness import FairnessRecord, write_fairness
from edgeflownas.run.rows import EvaluationRow, StepRow, SubnetRow, TimingRow
from edgeflownas.run.samples import Samples, write_samples
from edgeflownas.run.tables import read_table
from edgeflownas.tfcompat import tf


def ranks(epe: np.ndarray) -> np.ndarray:
    """Rank of each subnet, int [subnets]; 1 is the lowest EPE. Subnets of equal EPE rank in pool order."""
    order = np.argsort(epe, kind="stable")
    result = np.empty(len(epe), int)
    result[order] = np.arange(1, len(epe) + 1)
    return result


class Records:
    """The append-only files of a run folder and its TensorBoard events.

    `trace` turns the debug trace on. `scalar_every` and `flush_every` are numbers of cycles, for TensorBoard.
    """

    def __init__(
        self, folder: str, space: SearchSpace, pool_size: int, trace: bool, scalar_every: int, flush_every: int
    ) -> None:
        def path(name: str) -> str:
            return os.path.join(folder, name)

        self.folder, self._space = folder, space
        self.history = TableWriter(path(names.HISTORY), EvaluationRow, pool_size)
        self.per_arch = TableWriter(path(names.PER_ARCH), SubnetRow)
        self.steps = TableWriter(path(names.STEPS), StepRow)
        self.timing = TableWriter(path(names.TIMING), TimingRow)
        self._trace = JsonLines(path(names.TRACE))
        self.tracing = trace
        self._scalar_every, self._flush_every = scalar_every, flush_every
        self._events: Any = None

    def _files(self) -> Dict[str, AppendOnlyFile]:
        files = [self.history, self.per_arch, self.steps, self.timing]
        # An existing trace is truncated like the tables, even by an invocation that does not trace.
        files += [self._trace] if self.tracing or os.path.exists(self._trace.path) else []
        return {os.path.basename(file.path): file for file in files}

    def lengths(self) -> Dict[str, int]:
        """The size of each file in bytes, after it is flushed to disk."""
        self._flush()  # so that TensorBoard has all events up to the checkpoint
        return {name: table.length() for name, table in self._files().items()}

    def cut_back(self, lengths: Dict[str, int]) -> None:
        """Truncates each file to its length in the checkpoint. A file without a length began later; it is emptied."""
        for name, table in self._files().items():
            if name in lengths or os.path.exists(table.path):
                table.cut_back(lengths.get(name, 0))

    def open_events(self, first_step: int, evaluation_due: bool) -> None:
        """Opens a new TensorBoard file, which discards an earlier process's events from `first_step` on.

        If an evaluation is due, the events of the last cycle's step are discarded, too: some may belong to a stopped
        evaluation. The scalars of that cycle are then written again.
        """
        folder = os.path.join(self.folder, names.EVENTS)
        # File names contain the time in seconds. The suffix keeps a quick restart from overwriting the last file.
        number = len(os.listdir(folder)) if os.path.isdir(folder) else 0
        self._events = tf.summary.FileWriter(folder, flush_secs=30, filename_suffix=f".{number:04d}")
        kept = first_step - 1 if evaluation_due else first_step
        self._events.add_session_log(tf.SessionLog(status=tf.SessionLog.START), kept)
        if evaluation_due:
            self._cycle_scalars(read_table(self.steps.path, StepRow).values()[-1])

    def cycle(self, row: StepRow) -> None:
        """Records one trained cycle."""
        self.steps.append(row)
        self._cycle_scalars(row)
        if row.step % self._flush_every == 0:
            self._flush()

    def trace_cycle(self, row: StepRow, codes: np.ndarray, result: CycleResult, crops: List[Any], gap: int) -> None:
        """Adds a cycle to the trace. `crops` are [name, y, x] of the batch's samples, `gap` is the fairness gap."""
        line = dict(
            row._asdict(),
            event="cycle",
            codes=codes.tolist(),
            forward=result.forward,
            backward=result.backward,
            path_losses=result.path_losses,
            batches_seen=result.batches_seen,
            optimizer_step=result.global_step - row.step,
            global_step=result.global_step,
            global_grad_norm_before=result.grad_norm_before,
            global_grad_norm_after=result.grad_norm_after,
            batch=crops,
            fairness_gap=gap,
        )
        self.note(line)

    def evaluation(self, row: EvaluationRow, codes: np.ndarray, epe: np.ndarray) -> None:
        """Records one evaluation of `codes` [subnets, blocks]: a row of the history and a row per subnet."""
        for code, value, rank in zip(codes, epe, ranks(epe)):
            subnet = SubnetRow(
                epoch=row.epoch,
                global_step=row.global_step,
                arch_code=to_digits(code, self._space),
                epe=float(value),
                rank=int(rank),
                bn_recal_batches=row.bn_recal_batches,
                num_samples=row.num_samples,
                space=self._space.label,
            )
            self.per_arch.append(subnet)
            self.note(dict(subnet._asdict(), event="subnet"))
        self.history.append(row)
        self.note(dict(self.history.named(row), event="evaluation"))
        # Has the step of the last cycle, so that a resume from this evaluation's checkpoint keeps it.
        self._scalars(row.global_step - 1, "eval/", self.history.named(row))
        self._flush()

    def samples(self, state: RunState, pool: np.ndarray, scores: Scores, names: List[str]) -> None:
        """Writes, for the report, each sample's EPE and the flow of the best and worst subnet on the first samples.

        `names` are the names of all scored samples.
        """
        subnets, identity = [int(np.argmin(scores.epe)), int(np.argmax(scores.epe))], self._space.identity()
        shown = Samples(
            images=scores.shown[0],
            flow=scores.shown[1],
            prediction=scores.predictions[subnets],
            codes=pool[subnets],
            epe=scores.epe[subnets].astype(np.float32),
            epoch=state.evaluations,
            names=names[: len(scores.shown[0])],
            space=identity,
        )
        write_samples(self.folder, shown)
        best = state.best.epoch if state.best else 0
        write_epe_samples(self.folder, state.evaluations, best, pool, scores.epe_samples, names, self._space)

    def counts(self, state: RunState) -> None:
        """Writes how often each option was trained so far."""
        fairness = state.fairness
        mode, identity = state.config.train.supernet_mode, self._space.identity()
        write_fairness(self.folder, FairnessRecord(mode, state.step, fairness.gap(), fairness.as_dict(), identity))

    def pictures(self, step: int, scores: Scores, best: int) -> None:
        """Writes ground truth and flow of the first validation sample to TensorBoard.

        `best` is the position of the subnet in the pool.
        """
        if not len(scores.shown[1]):
            return
        truth = scores.shown[1][0]
        largest = float(np.max(np.sqrt(np.sum(truth**2, axis=2)))) or 1.0
        for tag, flow in (("flow/ground_truth", truth), ("flow/best_subnet", scores.predictions[best][0])):
            buffer = io.BytesIO()
            Image.fromarray(flow_to_rgb(flow, largest)).save(buffer, "PNG")
            picture = tf.Summary.Image(
                height=flow.shape[0], width=flow.shape[1], colorspace=3, encoded_image_string=buffer.getvalue()
            )
            self._summary([tf.Summary.Value(tag=tag, image=picture)], step)

    def throughput(self, step: int, figures: Dict[str, Any]) -> None:
        """Writes the throughput of an epoch with several ranks to TensorBoard; `figures` as in the manifest."""
        scalars = []
        for name, value in figures.items():
            by_rank = isinstance(value, list)
            for rank, each in enumerate(value if by_rank else [value]):
                tag = f"ranks/{name}_{rank}" if by_rank else f"ranks/{name}"
                scalars.append(tf.Summary.Value(tag=tag, simple_value=float(each)))
        self._summary(scalars, step)

    def note(self, event: Dict[str, Any]) -> None:
        """Adds a line to the debug trace, if tracing is on."""
        if self.tracing:
            self._trace.append(event)

    def _cycle_scalars(self, row: StepRow) -> None:
        if row.step % self._scalar_every == 0:
            self._scalars(row.step, "train/", self.steps.named(row))

    def _scalars(self, step: int, prefix: str, values: Dict[str, Any]) -> None:
        """Writes a table row to TensorBoard, without its first two columns, which are epoch and step."""
        what = list(values.items())[2:]
        self._summary([tf.Summary.Value(tag=prefix + name, simple_value=float(value)) for name, value in what], step)

    def _summary(self, values: List[Any], step: int) -> None:
        with self._writing_events():
            self._events.add_summary(tf.Summary(value=values), step)

    def _flush(self) -> None:
        with self._writing_events():
            self._events.flush()

    @contextlib.contextmanager
    def _writing_events(self) -> Iterator[None]:
        # TensorFlow 2's writer thread passes its error to the next caller, as a RuntimeError.
        with os_errors("write {}".format(os.path.join(self.folder, names.EVENTS)), (RuntimeError, tf.errors.OpError)):
            yield

    def close(self) -> None:
        """Flushes and closes everything."""
        for table in self._files().values():
            table.close()
        if self._events is not None:
            with self._writing_events():
                self._events.close()
