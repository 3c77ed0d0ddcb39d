"""A small run folder in which everything agrees, written by the trainer's own writers, without training."""

import os
from typing import Any, Dict, List, NamedTuple

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.checks.cycles import STEP_COLUMNS
from edgeflownas.checks.evaluations import ARCH_COLUMNS, history_columns
from edgeflownas.engine.early_stop import EarlyStop
from edgeflownas.engine.run_state import RunState
from edgeflownas.engine.schedule import cosine_lr
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.nas.eval_pool import build_pool, save_pool
from edgeflownas.nas.fair_sampler import FairnessCounts, fair_cycle, uniform_paths
from edgeflownas.nas.search_space import SPACE
from edgeflownas.run.artifacts import Manifest, Table, write_fairness_counts
from edgeflownas.run.checkpoint import CheckpointStore

TRAIN, VAL = 17, 5  # samples
FINGERPRINT = "5e" * 32
# Mean EPE of epoch 1, 2, ...; the third is the best, so that best and last differ.
MEANS = (7.0, 6.5, 5.25, 5.5, 5.4, 5.3, 5.6)


class Spec(NamedTuple):
    epochs: int = 4
    num_epochs: int = 4
    extra_steps: int = 0  # of the epoch after the last evaluation
    mode: str = "strict_fairness"
    patience: int = 15
    status: str = "completed"


class Run:
    """Writes the folder as `Spec(**details)` says, cycle by cycle."""

    def __init__(self, folder: str, spec: Spec) -> None:
        self.folder, self.spec, self.rng = folder, spec, np.random.RandomState(7)
        self.config, self.origins = configuration.load(
            None,
            {
                "train.num_epochs": spec.num_epochs,
                "train.supernet_mode": spec.mode,
                "train.batch_size": 5,
                "network.init_channels": 6,
                "data.input_height": 67,
                "data.input_width": 83,
                "eval.patience": spec.patience,
            },
        )
        self.per_epoch = TRAIN // self.config.train.batch_size
        self.total = spec.num_epochs * self.per_epoch
        self.pool = build_pool(self.config.train.arch_seed, self.config.eval.pool_size)
        self.counts, self.best = FairnessCounts(), None
        self.early_stop = EarlyStop(self.config.eval.patience, self.config.eval.min_delta)
        self.tables = {
            name: Table(os.path.join(folder, name), columns)
            for name, columns in (
                ("train_steps.csv", STEP_COLUMNS),
                ("eval_epe_per_arch.csv", ARCH_COLUMNS),
                ("eval_epe_history.csv", history_columns(len(self.pool))),
            )
        }
        self.store = CheckpointStore(os.path.join(folder, "checkpoints"))
        self.step = self.epoch = 0

    def write(self) -> None:
        save_pool(os.path.join(self.folder, "eval_pool_12.json"), self.pool, self.config.train.arch_seed)
        manifest = Manifest.create(os.path.join(self.folder, "train_manifest.json"), **self.fields())
        for _ in range(self.spec.epochs):
            steps = [self.train() for _ in range(self.per_epoch)]
            self.evaluate(steps)
        for _ in range(self.spec.extra_steps):
            self.train()
        if self.spec.extra_steps or not self.spec.epochs:
            self.commit(False)
        write_fairness_counts(
            os.path.join(self.folder, "fairness_counts.json"),
            self.spec.mode,
            self.step,
            self.counts.as_dict(),
            self.counts.gap(),
        )
        for name in ("supernet_training_report.md", "train.log", "timing.csv", "eval_samples.npz"):
            with open(os.path.join(self.folder, name), "w") as handle:
                handle.write("something\n")
        os.makedirs(os.path.join(self.folder, "tensorboard"))
        manifest.update(status=self.spec.status, **self.fields())
        for table in self.tables.values():
            table.close()

    def train(self) -> Dict[str, Any]:
        draw = fair_cycle if self.spec.mode == "strict_fairness" else uniform_paths
        self.counts.add(draw(self.config.train.arch_seed, self.step))
        before = float(np.float32(self.rng.uniform(3.0, 9.0)))
        row = {
            "step": self.step,
            "epoch": self.epoch + 1,
            "lr": cosine_lr(self.step, self.config.train.lr, self.total),
            "loss": float(np.float32(self.rng.uniform(5, 9))),
            "l2_loss": 0.01,
            "grad_norm_before": before,
            "grad_norm_after": float(np.float32(min(before, 5.0 * (1 - 1e-5)))),
        }
        self.tables["train_steps.csv"].append(row)
        self.step += 1
        return row

    def evaluate(self, steps: List[Dict[str, Any]]) -> None:
        self.epoch += 1
        epe = MEANS[self.epoch - 1] + 0.3 * self.rng.randn(len(self.pool))
        epe += MEANS[self.epoch - 1] - epe.mean()
        common = {"epoch": self.epoch, "global_step": self.step, "bn_recal_batches": 8, "num_samples": VAL}
        for code, value, rank in zip(self.pool, epe, np.argsort(np.argsort(epe)) + 1):
            self.tables["eval_epe_per_arch.csv"].append(
                dict(common, arch_code=to_digits(code), epe=float(value), rank=rank)
            )
        mean = float(np.float32(epe.mean()))
        is_best = self.best is None or mean < self.best["mean_epe"]
        if is_best:
            self.best = {"epoch": self.epoch, "global_step": self.step, "mean_epe": mean}
        self.early_stop.update(mean)
        before = [row["grad_norm_before"] for row in steps]
        self.tables["eval_epe_history.csv"].append(
            dict(
                common,
                mean_epe_12=mean,
                std_epe_12=float(epe.std()),
                fairness_gap=self.counts.gap(),
                zero_flow_epe=8.25,
                best_mean_epe_12=self.best["mean_epe"],
                best_epoch=self.best["epoch"],
                early_stop_wait=self.early_stop.wait,
                train_loss=float(np.mean([row["loss"] for row in steps])),
                lr=steps[-1]["lr"],
                grad_norm_before_mean=float(np.mean(before)),
                clip_share=float(np.mean(np.array(before) > 5.0)),
                grad_norm_after_max=max(row["grad_norm_after"] for row in steps),
            )
        )
        self.commit(is_best)

    def commit(self, is_best: bool) -> None:
        state = RunState(
            step=self.step,
            steps_per_epoch=self.per_epoch,
            evaluations=self.epoch,
            early_stop=self.early_stop.as_dict(),
            best=self.best,
            early_stopped=self.early_stop.stopped,
            fairness=self.counts.as_dict(),
            lengths={name: table.length() for name, table in self.tables.items()},
            config=configuration.to_dict(self.config),
            config_hash=configuration.config_hash(self.config),
            dataset=FINGERPRINT,
        )
        self.store.commit(self._model, state.as_dict(), is_best)

    def _model(self, prefix: str) -> None:
        for suffix in (".index", ".data-00000-of-00001"):
            with open(prefix + suffix, "w") as handle:
                handle.write(f"weights of step {self.step}")

    def fields(self) -> Dict[str, Any]:
        train = self.config.train
        return {
            "initial_weights": None,
            "seed": train.seed,
            "arch_seed": train.arch_seed,
            "git_commit": "0123456789" * 4,
            "config_hash": configuration.config_hash(self.config),
            "git_dirty": False,
            "input_shape": [67, 83, 6],
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
            "parameter_count": supernet_parameters(6),
            "search_space": SPACE.as_dict(),
            "dataset": {"fingerprint": FINGERPRINT, "train": TRAIN, "val": VAL, "source": "lists", "base_path": "/fc2"},
            "num_epochs": train.num_epochs,
            "steps_per_epoch": self.per_epoch,
            "total_steps": self.total,
            "global_step": self.step,
            "epoch": self.step // self.per_epoch,
            "best": self.best,
            "command": "train",
            "gates": {"gate1": "valid", "gate2": "valid", "gate3": "stale", "gate4": "missing", "unsigned": True},
        }


def write_run(folder: Any, **details: Any) -> str:
    """Writes a run as `Spec(**details)` says; returns the path of its manifest."""
    os.makedirs(str(folder), exist_ok=True)
    Run(str(folder), Spec(**details)).write()
    return os.path.join(str(folder), "train_manifest.json")
