"""Writes run folders as the trainer leaves them, without training: the formats of every file the report
reads."""

import csv
import json
import math
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

import numpy as np

from edgeflownas import config
from edgeflownas.nas.search_space import SPACE

ZERO_FLOW = 8.765432


def real(value: float) -> str:
    """A recorded real: the shortest text of the float32."""
    return str(np.float32(value))


def learning(fraction: float) -> float:
    """Mean EPE while it still falls steadily; `fraction` of the run, 0..1."""
    return 7.5 - 5.0 * fraction


def plateaued(fraction: float) -> float:
    return 3.1 + 4.0 * math.exp(-12 * fraction)


def stuck(fraction: float) -> float:
    """Plateaued only a little below zero flow."""
    return 7.9 + 0.3 * math.exp(-12 * fraction)


def collapsed(fraction: float) -> float:
    return ZERO_FLOW * (1.01 + 0.002 * math.cos(40 * fraction))


def collapsed_late(fraction: float) -> float:
    return 4.0 if fraction < 0.5 else 9.0


class Spec(NamedTuple):
    """What kind of run to write."""

    epochs: int = 12  # evaluations that happened
    num_epochs: int = 200
    steps_per_epoch: int = 7
    extra_steps: int = 0  # after the last evaluation
    curve: Callable[[float], float] = learning
    mode: str = "strict_fairness"
    clip_norms: float = 1.5  # gradient norms before the clip, relative to the clip; they vary by a factor of two
    status: str = "running"
    resumes: int = 0
    seed: int = 3
    name: str = ""
    overrides: Dict[str, Any] = {}
    gates: Dict[str, Any] = {
        "gate1": "valid",
        "gate2": "valid",
        "gate3": "valid",
        "gate4": "missing",
        "unsigned": False,
    }
    dirty: bool = False
    samples: bool = True


def write_run(folder: Path, **details: Any) -> Path:
    """Writes the run folder `Spec(**details)`; returns it."""
    spec = Spec(**details)
    rng = np.random.RandomState(spec.seed)
    folder.mkdir(parents=True)
    cfg, origins = config.load(
        None,
        dict(
            {
                "train.num_epochs": spec.num_epochs,
                "train.supernet_mode": spec.mode,
                "runtime.experiment_name": spec.name,
            },
            **spec.overrides,
        ),
    )
    steps = spec.epochs * spec.steps_per_epoch + spec.extra_steps
    norms = spec.clip_norms * cfg.train.grad_clip * (0.7 + 0.7 * rng.rand(max(steps, 1)))
    _write_steps(folder, spec, cfg, norms, steps, rng)
    if spec.epochs:
        _write_evaluations(folder, spec, cfg, norms, rng)
        _write_timing(folder, spec, rng)
        if spec.samples:
            _write_samples(folder, spec, rng)
    _write_manifest(folder, spec, cfg, origins, steps)
    return folder


def pool(rng: np.random.RandomState, cycles: int = 4) -> List[str]:
    """Codes of fair cycles: every option of every block equally often."""
    codes: List[str] = []
    while len(set(codes)) != 3 * cycles:
        paths = [np.stack([rng.permutation(3) for _ in SPACE.blocks], axis=1) for _ in range(cycles)]
        codes = ["".join(map(str, code)) for code in np.concatenate(paths)]
    return codes


def lr_at(step: int, cfg: Any, spec: Spec) -> str:
    return real(0.5 * cfg.train.lr * (1 + math.cos(math.pi * step / (spec.num_epochs * spec.steps_per_epoch))))


def _write(path: Path, header: List[str], rows: List[List[Any]]) -> None:
    with open(str(path), "w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_steps(folder: Path, spec: Spec, cfg: Any, norms: np.ndarray, steps: int, rng: np.random.RandomState) -> None:
    rows = []
    for step in range(steps):
        loss = 2.0 + 9.0 / (1 + 6.0 * step / (spec.num_epochs * spec.steps_per_epoch) * 5) + 0.5 * rng.rand()
        rows.append(
            [
                step,
                step // spec.steps_per_epoch + 1,
                lr_at(step, cfg, spec),
                real(loss),
                real(0.01 + 1e-6 * step),
                real(norms[step]),
                real(min(norms[step], cfg.train.grad_clip)),
            ]
        )
    _write(
        folder / "train_steps.csv",
        ["step", "epoch", "lr", "loss", "l2_loss", "grad_norm_before", "grad_norm_after"],
        rows,
    )


def _write_evaluations(folder: Path, spec: Spec, cfg: Any, norms: np.ndarray, rng: np.random.RandomState) -> None:
    codes, size = pool(np.random.RandomState(spec.seed)), cfg.eval.pool_size
    offsets = np.array([0.03 * code.count("0") - 0.02 * code.count("2") for code in codes]) + 0.05 * rng.randn(size)
    history, subnets, best, counted, wait, best_epoch = [], [], math.inf, math.inf, 0, 0
    for epoch in range(1, spec.epochs + 1):
        done = epoch * spec.steps_per_epoch
        epe = spec.curve((epoch - 1) / max(spec.epochs - 1, 1)) + offsets + 0.02 * rng.randn(size)
        mean, part = epe.mean(), norms[done - spec.steps_per_epoch : done]
        if mean < best:
            best, best_epoch = mean, epoch
        wait = 0 if mean < counted - cfg.eval.min_delta else wait + 1
        counted = mean if wait == 0 else counted
        history.append(
            [
                epoch,
                done,
                real(mean),
                real(epe.std()),
                0 if spec.mode == "strict_fairness" else 3 + epoch,
                real(ZERO_FLOW),
                real(best),
                best_epoch,
                wait,
                real(3.0 + 1.0 / epoch),
                lr_at(done - 1, cfg, spec),
                real(part.mean()),
                real(min(part.max(), cfg.train.grad_clip)),
                real(np.mean(part > cfg.train.grad_clip)),
                cfg.eval.bn_recal_batches,
                640,
            ]
        )
        rank = np.argsort(np.argsort(epe)) + 1
        subnets += [[epoch, done, codes[i], real(epe[i]), rank[i], cfg.eval.bn_recal_batches, 640] for i in range(size)]
    _write(
        folder / "eval_epe_history.csv",
        (
            f"epoch,global_step,mean_epe_{size},std_epe_{size},fairness_gap,zero_flow_epe,best_mean_epe_{size},best_epoch,early_stop_wait,"
            "train_loss,lr,grad_norm_before_mean,grad_norm_after_max,clip_share,bn_recal_batches,num_samples"
        ).split(","),
        history,
    )
    _write(
        folder / "eval_epe_per_arch.csv",
        "epoch,global_step,arch_code,epe,rank,bn_recal_batches,num_samples".split(","),
        subnets,
    )
    cycles, gap = spec.epochs * spec.steps_per_epoch, 0 if spec.mode == "strict_fairness" else 3 + spec.epochs
    counts = {block.name: [cycles + (gap if i == 0 else 0) for i in range(3)] for block in SPACE.blocks}
    (folder / "fairness_counts.json").write_text(
        json.dumps({"supernet_mode": spec.mode, "cycles": cycles, "counts": counts, "fairness_gap": gap})
    )


def _write_timing(folder: Path, spec: Spec, rng: np.random.RandomState) -> None:
    rows = [
        [
            epoch,
            epoch * spec.steps_per_epoch,
            real(412 + 9 * rng.rand()),
            real(61 + 3 * rng.rand()),
            real(1.3 + 0.05 * rng.rand()),
            real(0.03 + 0.02 * rng.rand()),
        ]
        for epoch in range(1, spec.epochs + 1)
    ]
    _write(
        folder / "timing.csv",
        ["epoch", "global_step", "train_seconds", "eval_seconds", "cycles_per_second", "input_wait_share"],
        rows,
    )


def _write_samples(
    folder: Path, spec: Spec, rng: np.random.RandomState, count: int = 3, height: int = 67, width: int = 89
) -> None:
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
    good = flow * 0.93 + 0.3 * rng.randn(*flow.shape)
    bad = flow * 0.6 + 1.2 * rng.randn(*flow.shape)
    np.savez(
        str(folder / "eval_samples.npz"),
        images=images,
        flow=flow,
        prediction=np.stack([good, bad]).astype(np.float32),
        codes=np.array([[0, 1, 2] * 3, [2, 1, 0] * 3], np.int32),
        epe=np.array([2.345678, 3.456789], np.float32),
        epoch=np.int64(spec.epochs),
        names=np.array([f"{k + 1:07d}" for k in range(count)]),
    )


def _write_manifest(folder: Path, spec: Spec, cfg: Any, origins: Dict[str, str], steps: int) -> None:
    shown = config.to_dict(cfg)
    best = {"epoch": 1, "global_step": spec.steps_per_epoch, "mean_epe": 1.0} if spec.epochs else None
    manifest = {
        "seed": cfg.train.seed,
        "arch_seed": cfg.train.arch_seed,
        "config_hash": config.config_hash(cfg),
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": spec.dirty,
        "input_shape": [cfg.data.input_height, cfg.data.input_width, 6],
        "optimizer": cfg.train.optimizer,
        "lr_schedule": cfg.train.lr_schedule,
        "wd": cfg.train.wd,
        "grad_clip": cfg.train.grad_clip,
        "config": shown,
        "config_origins": origins,
        "versions": {"python": "3.7.17", "tensorflow": "1.15.5", "numpy": "1.18.5"},
        "device": "CPU",
        "dataset": {
            "fingerprint": "f" * 64,
            "train": 22232,
            "val": 640,
            "source": "lists",
            "base_path": "/data/FlyingChairs2",
        },
        "parameter_count": 12122016,
        "search_space": SPACE.as_dict(),
        "status": spec.status,
        "started": "2024-05-03T17:00:00Z",
        "updated": "2024-05-06T08:00:00Z",
        "global_step": steps,
        "epoch": spec.epochs,
        "num_epochs": spec.num_epochs,
        "steps_per_epoch": spec.steps_per_epoch,
        "total_steps": spec.num_epochs * spec.steps_per_epoch,
        "best": best,
        "resumes": [{"time": "2024-05-04T09:00:00Z", "global_step": 7 * (i + 1)} for i in range(spec.resumes)],
        "gates": spec.gates,
        "command": "python -m edgeflownas.train_supernet --experiment_name friday",
    }
    if spec.status == "failed":
        manifest["error"] = "step 7: loss is not finite"
    (folder / "train_manifest.json").write_text(json.dumps(manifest, indent=2))
