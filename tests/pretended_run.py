"""Makes pretended runs: a consistent run folder without training.

Built on the package's own writers, so it has whatever columns and formats a real run has. Tests of formats compare
with a real run of the first version instead (`tests/run/test_first_version.py`).
"""

import functools
import math
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from unittest import mock

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.engine.run_state import RunState
from edgeflownas.engine.schedule import cosine_lr
from edgeflownas.nas.arch_codec import space_of, to_digits
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import FairnessCounts, uniform_paths
from edgeflownas.nas.search_space import get_space
from edgeflownas.network.layer_table import layer_table
from edgeflownas.run import folder as names
from edgeflownas.run.append_only import TableWriter
from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.run.epe_samples import write_epe_samples
from edgeflownas.run.fairness import FairnessRecord, write_fairness
from edgeflownas.run.manifest import Manifest
from edgeflownas.run.pool import save_pool
from edgeflownas.run.rows import Best, EvaluationRow, StepRow, SubnetRow, TimingRow
from edgeflownas.run.samples import Samples, write_samples

BATCH, FINGERPRINT, ZERO_FLOW = 5, "5e" * 32, 8.25
NOW = "2024-05-06T08:00:00Z"  # every time in the manifest
# Mean EPE of epoch 1, 2, ...; the third is the best, so that best and last differ.
MEANS = (7.0, 6.5, 5.25, 5.5, 5.4, 5.3, 5.6)
GATES = {"gate1": "valid", "gate2": "valid", "gate3": "stale", "gate4": "missing", "unsigned": True}


def learning(fraction: float) -> float:
    """Mean EPE while it still falls steadily; `fraction` of the run, 0..1."""
    return 7.5 - 5.0 * fraction


def plateaued(fraction: float) -> float:
    return 3.1 + 4.0 * math.exp(-12 * fraction)


def stuck(fraction: float) -> float:
    """Mean EPE that plateaus only a little below zero flow."""
    return 7.4 + 0.3 * math.exp(-12 * fraction)


def collapsed(fraction: float) -> float:
    return ZERO_FLOW * (1.01 + 0.002 * math.cos(40 * fraction))


def collapsed_late(fraction: float) -> float:
    return 4.0 if fraction < 0.5 else 9.0


class Spec(NamedTuple):
    """What kind of run to write. The default is a completed run of four short epochs."""

    epochs: int = 4  # evaluations that happened
    num_epochs: int = 4
    steps_per_epoch: int = 3
    extra_steps: int = 0  # after the last evaluation
    means: Any = MEANS  # mean EPE: a value per evaluation, or a function of the fraction of the run
    val: int = 5  # validation samples
    mode: str = "strict_fairness"
    patience: int = 15
    clip_norms: float = 1.0  # gradient norms before the clip, relative to the clip; they vary by a factor of two
    status: str = "completed"
    resumes: int = 0
    ranks: int = 1
    arch_seed: int = 42
    name: str = ""
    overrides: Dict[str, Any] = {}
    gates: Dict[str, Any] = GATES
    dirty: bool = False
    samples: bool = True
    checkpoints: bool = True
    report: bool = True  # a stand-in for the report


def write_run(folder: Any, **details: Any) -> Path:
    """Writes a run as `Spec(**details)` says; returns its folder."""
    with mock.patch("edgeflownas.run.manifest.utc_now", lambda: NOW):
        _Writer(str(folder), Spec(**details)).write()
    return Path(str(folder))


def write_long_run(folder: Any, **details: Any) -> Path:
    """A run of 200 epochs that is at work in its twelfth, signed, without checkpoints."""
    long = {
        "epochs": 12,
        "num_epochs": 200,
        "steps_per_epoch": 7,
        "means": learning,
        "val": 640,
        "clip_norms": 1.5,
        "status": "running",
        "gates": dict(GATES, gate3="valid", unsigned=False),
        "checkpoints": False,
        "report": False,
    }
    return write_run(folder, **dict(long, **details))


@functools.lru_cache(maxsize=None)
def cached_pool(arch_seed: int, size: int, space_name: str) -> np.ndarray:
    return build_pool(arch_seed, size, get_space(space_name))


class _Writer:
    """Writes the folder, cycle by cycle."""

    def __init__(self, folder: str, spec: Spec) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder, self.spec, self.rng = folder, spec, np.random.RandomState(7)
        settings = {
            "train.num_epochs": spec.num_epochs,
            "train.supernet_mode": spec.mode,
            "train.batch_size": BATCH,
            "train.arch_seed": spec.arch_seed,
            "network.init_channels": 6,
            "data.input_height": 67,
            "data.input_width": 83,
            "eval.patience": spec.patience,
            "runtime.experiment_name": spec.name,
        }
        self.config, self.origins = configuration.load(None, dict(settings, **spec.overrides))
        self.space = space_of(self.config.network)
        if self.space.arch_code:
            self.pool = np.array([self.space.arch_code], np.int32)
        else:
            self.pool = cached_pool(spec.arch_seed, self.config.eval.pool_size, self.space.name)
        self.offsets = 0.2 * self.rng.standard_normal(len(self.pool))
        self.total = spec.num_epochs * spec.steps_per_epoch
        self.early_stop = EarlyStop(self.config.eval.patience, self.config.eval.min_delta)
        self.best: Optional[Best] = None
        self.step = self.epoch = 0
        self.counts = FairnessCounts(self.space)

        def table(name: str, row_type: Any, pool_size: int = 0) -> TableWriter:
            return TableWriter(os.path.join(folder, name), row_type, pool_size)

        self.steps, self.subnets = table(names.STEPS, StepRow), table(names.PER_ARCH, SubnetRow)
        self.history, self.timing = table(names.HISTORY, EvaluationRow, len(self.pool)), table(names.TIMING, TimingRow)
        self.tables = {os.path.basename(t.path): t for t in (self.steps, self.subnets, self.history, self.timing)}
        self.store = CheckpointStore(os.path.join(folder, names.CHECKPOINTS))

    def write(self) -> None:
        spec = self.spec
        save_pool(os.path.join(self.folder, names.pool_name(len(self.pool))), self.pool, spec.arch_seed, self.space)
        manifest = Manifest.create(self.folder, **self.fields())
        for _ in range(spec.epochs):
            self.evaluate([self.train() for _ in range(spec.steps_per_epoch)])
        for _ in range(spec.extra_steps):
            self.train()
        if spec.extra_steps or not spec.epochs:
            self.commit(False)
        if self.step or spec.checkpoints:
            self.write_counts()
        for name in [names.LOG] + [names.REPORT] * spec.report:
            with open(os.path.join(self.folder, name), "w") as handle:
                handle.write("something\n")
        os.makedirs(os.path.join(self.folder, names.EVENTS))
        for number in range(spec.resumes):
            at = (number + 1) * spec.steps_per_epoch
            again = {"command": "again", "device": "CPU", "gates": spec.gates, "unsupported_gpu_allowed": False}
            manifest.resumed(again, global_step=at, changed=[])
        error = {"error": "step 7: loss is not finite"} if spec.status == "failed" else {}
        manifest.update(status=spec.status, **dict(self.fields(), **error))
        for table in self.tables.values():
            table.close()

    def train(self) -> StepRow:
        clip = self.config.train.grad_clip
        before = self.spec.clip_norms * clip * self.rng.uniform(0.7, 1.4)
        row = StepRow(
            step=self.step,
            epoch=self.epoch + 1,
            lr=cosine_lr(self.step, self.config.train.lr, self.total),
            loss=_float32(2.0 + 9.0 / (1 + 30 * self.step / self.total) + self.rng.uniform(0, 0.5)),
            l2_loss=0.01 + 1e-6 * self.step,
            grad_norm_before=_float32(before),
            grad_norm_after=_float32(min(before, clip * (1 - 1e-5))),
        )
        self.steps.append(row)
        self.step += 1
        return row

    def evaluate(self, steps: List[StepRow]) -> None:
        self.epoch += 1
        epe = self.scores()
        mean = _float32(epe.mean())
        is_best = self.best is None or mean < self.best.mean_epe
        if is_best:
            self.best = Best(self.epoch, self.step, mean)
        assert self.best is not None
        self.early_stop.update(mean)
        before = np.array([row.grad_norm_before for row in steps])
        row = EvaluationRow(
            epoch=self.epoch,
            global_step=self.step,
            mean_epe=mean,
            std_epe=float(epe.std()),
            fairness_gap=self.fairness().gap(),
            zero_flow_epe=ZERO_FLOW,
            best_mean_epe=self.best.mean_epe,
            best_epoch=self.best.epoch,
            early_stop_wait=self.early_stop.wait,
            train_loss=float(np.mean([row.loss for row in steps])),
            lr=steps[-1].lr,
            grad_norm_before_mean=float(before.mean()),
            grad_norm_after_max=max(row.grad_norm_after for row in steps),
            clip_share=float(np.mean(before > self.config.train.grad_clip)),
            bn_recal_batches=self.config.eval.bn_recal_batches,
            num_samples=self.spec.val,
        )
        self.append_subnets(row, epe)
        self.history.append(row)
        self.timing.append(self.timing_row())
        if self.spec.samples:
            write_samples(self.folder, self.samples())
            of = [f"val/{number + 1:07d}" for number in range(self.spec.val)]
            write_epe_samples(
                self.folder, self.epoch, self.best.epoch, self.pool, self.epe_samples(epe), of, self.space
            )
        self.commit(is_best)

    def scores(self) -> np.ndarray:
        means, epochs = self.spec.means, self.spec.epochs
        mean = means((self.epoch - 1) / max(epochs - 1, 1)) if callable(means) else means[self.epoch - 1]
        spread = self.offsets + 0.02 * self.rng.standard_normal(len(self.pool))
        return mean + spread - spread.mean()

    def append_subnets(self, row: EvaluationRow, epe: np.ndarray) -> None:
        for code, value, place in zip(self.pool, epe, np.argsort(np.argsort(epe))):
            self.subnets.append(
                SubnetRow(
                    epoch=row.epoch,
                    global_step=row.global_step,
                    arch_code=to_digits(code, self.space),
                    epe=float(value),
                    rank=int(place) + 1,
                    bn_recal_batches=row.bn_recal_batches,
                    num_samples=row.num_samples,
                    space=self.space.label,
                )
            )

    def timing_row(self) -> TimingRow:
        noise = self.rng.uniform(size=4)
        return TimingRow(
            epoch=self.epoch,
            global_step=self.step,
            train_seconds=412 + 9 * noise[0],
            eval_seconds=61 + 3 * noise[1],
            cycles_per_second=1.3 + 0.05 * noise[2],
            input_wait_share=0.03 + 0.02 * noise[3],
        )

    def fairness(self) -> FairnessCounts:
        """Counts after the steps so far. Strict fairness gives every option of a block the same share."""
        if self.spec.mode == "strict_fairness":
            cycles, paths = self.step, self.space.num_paths
            options = zip(self.space.names, self.space.num_options)
            return FairnessCounts.from_dict({name: [cycles * paths // n] * n for name, n in options}, self.space)
        done = sum(self.counts.as_dict()[self.space.names[0]]) // self.space.num_paths
        for t in range(done, self.step):
            self.counts.add(uniform_paths(self.spec.arch_seed, t, self.space))
        return self.counts

    def write_counts(self) -> None:
        counts = self.fairness()
        record = FairnessRecord(self.spec.mode, self.step, counts.gap(), counts.as_dict(), self.space.identity())
        write_fairness(self.folder, record)

    def epe_samples(self, epe: np.ndarray) -> np.ndarray:
        """EPE per sample, [subnets, samples], with these means."""
        noise = np.random.RandomState(self.epoch).standard_normal((1, self.spec.val))
        return (epe[:, None] * (1 + 0.1 * (noise - noise.mean()))).astype(np.float32)

    def samples(self) -> Samples:
        images, flow = _scenes(3, 67, 89)
        noise = np.random.RandomState(3)
        predictions = [
            flow * share + size * noise.standard_normal(flow.shape) for share, size in ((0.93, 0.3), (0.6, 1.2))
        ]
        return Samples(
            images=images,
            flow=flow,
            prediction=np.stack(predictions).astype(np.float32),
            codes=self.pool[:2],
            epe=np.array([2.345678, 3.456789], np.float32),
            epoch=self.epoch,
            names=[f"{number + 1:07d}" for number in range(len(flow))],
            space=self.space.identity(),
        )

    def commit(self, is_best: bool) -> None:
        if not self.spec.checkpoints:
            return
        state = RunState(
            self.config,
            FINGERPRINT,
            self.spec.steps_per_epoch,
            step=self.step,
            evaluations=self.epoch,
            best=self.best,
            lengths={name: table.length() for name, table in self.tables.items()},
        )
        state.early_stop, state.fairness = self.early_stop, self.fairness()
        self.store.commit(self.write_model, state.as_dict(), is_best)

    def write_model(self, prefix: str) -> None:
        for suffix in (".index", ".data-00000-of-00001"):
            with open(prefix + suffix, "w") as handle:
                handle.write(f"weights of step {self.step}")

    def fields(self) -> Dict[str, Any]:
        train, data, spec = self.config.train, self.config.data, self.spec
        return {
            "initial_weights": None,
            "seed": train.seed,
            "arch_seed": train.arch_seed,
            "git_commit": "0123456789" * 4,
            "config_hash": configuration.config_hash(self.config),
            "git_dirty": spec.dirty,
            "input_shape": [data.input_height, data.input_width, 6],
            "optimizer": "adam",
            "lr_schedule": "cosine",
            "lr": train.lr,
            "wd": train.wd,
            "grad_clip": train.grad_clip,
            "config": configuration.to_dict(self.config),
            "config_origins": self.origins,
            "versions": {
                "edgeflownas": "0.1.0",
                "python": "3.7.17",
                "numpy": "1.18.5",
                "tensorflow": "1.15.5",
                "platform": "Linux",
            },
            "device": "CPU",
            "ranks": spec.ranks,
            "parameter_count": supernet_parameters(layer_table(self.config.network.init_channels, self.space)),
            "search_space": self.space.as_record(),
            "dataset": {
                "fingerprint": FINGERPRINT,
                "train": spec.steps_per_epoch * BATCH + 2,  # the last batch is not whole
                "val": spec.val,
                "source": "lists",
                "base_path": "/fc2",
            },
            "num_epochs": train.num_epochs,
            "steps_per_epoch": spec.steps_per_epoch,
            "total_steps": self.total,
            "global_step": self.step,
            "epoch": self.step // spec.steps_per_epoch,
            "best": self.best and dict(self.best._asdict()),
            "command": "python -m edgeflownas.train_supernet --experiment_name friday",
            "gates": spec.gates,
        }


def _float32(value: float) -> float:
    return float(np.float32(value))


@functools.lru_cache(maxsize=None)
def _scenes(count: int, height: int, width: int) -> Tuple[np.ndarray, np.ndarray]:
    """(images uint8 [K, H, W, 6], flow float32 [K, H, W, 2]): a disc that moves over a moving texture."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    flow = np.zeros((count, height, width, 2), np.float32)
    images = np.zeros((count, height, width, 6), np.uint8)
    for k in range(count):
        flow[k, ..., 0] = 3.0 * (k + 1) + 0.05 * y
        flow[k, ..., 1] = -2.0 + 0.03 * x
        inside = (x - 25 - 17 * k) ** 2 + (y - 33) ** 2 < 300
        flow[k][inside] = (-9.0 * (k + 1), 7.0)
        texture = 120 + 60 * np.sin(x / 4 + k) * np.cos(y / 5)
        images[k] = np.clip(texture[..., None] + np.where(inside, 60, 0)[..., None] + np.arange(6) * 4, 0, 255)
    return images, flow
