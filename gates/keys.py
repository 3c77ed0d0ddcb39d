"""Every configuration key with a value other than the shipped one, and the clause that checks its effect on a run. Data
only.

One run has all of `CHANGED`. The keys in `ELSEWHERE` are changed by other runs. No run of the gates can show an effect
of the keys in `NO_EFFECT`.
"""

from typing import Any, Dict, Tuple

CHANGED: Dict[str, Any] = {
    "data.base_path": "there/FlyingChairs2",
    "data.list_dir": "lists",
    "data.holdout": 4,
    "data.input_height": 65,
    "data.input_width": 66,
    "data.flow_clip": 20.0,
    "network.init_channels": 4,
    "train.seed": 7,
    "train.arch_seed": 11,
    "train.supernet_mode": "uniform",
    "train.cycle_mode": "sequential",
    "train.num_epochs": 5,
    "train.batch_size": 3,
    "train.micro_batch_size": 1,
    "train.lr": 3e-3,
    "train.wd": 0.01,
    "train.grad_clip": 0.5,
    "train.loss": "l1",
    "train.amp": "true",
    "eval.pool_size": 6,
    "eval.bn_recal_batches": 3,
    "eval.batch_size": 2,
    "eval.num_samples": 3,
    "eval.patience": 2,
    "eval.min_delta": 1000.0,
    "runtime.gpu_device": "-1",
    "runtime.deterministic": "true",
    "runtime.fast_mode": "true",
    "runtime.debug_trace": "true",
    "runtime.num_workers": 1,
    "runtime.prefetch_batches": 1,
    "runtime.save_every_steps": 1,
    "runtime.output_dir": "elsewhere",
    "runtime.experiment_name": "parent",
}
CHANGED_RUN = "elsewhere/parent"

# Key -> the clause that fails if the key has no effect.
CHECKED_BY: Dict[str, str] = {
    "data.base_path": "G3.27a",
    "data.list_dir": "G3.27a",
    "data.holdout": "G3.27a",
    "data.input_height": "G3.27a",
    "data.input_width": "G3.27a",
    "data.flow_clip": "G3.27b",
    "network.init_channels": "G3.27a",
    "train.seed": "G3.23",
    "train.arch_seed": "G3.24",
    "train.supernet_mode": "G3.27b",
    "train.cycle_mode": "G3.25a",
    "train.num_epochs": "G3.27c",
    "train.batch_size": "G3.27a",
    "train.micro_batch_size": "G3.27b",
    "train.lr": "G3.27c",
    "train.wd": "G3.27c",
    "train.grad_clip": "G3.27c",
    "train.loss": "G3.27b",
    "eval.pool_size": "G3.27d",
    "eval.bn_recal_batches": "G3.27d",
    "eval.batch_size": "G3.27d",
    "eval.num_samples": "G3.27d",
    "eval.patience": "G3.27e",
    "eval.min_delta": "G3.27e",
    "runtime.gpu_device": "G1.14",
    "runtime.deterministic": "G3.17",
    "runtime.fast_mode": "G3.26",
    "runtime.debug_trace": "G3.1",
    "runtime.num_workers": "G3.26",
    "runtime.prefetch_batches": "G3.26",
    "runtime.save_every_steps": "G3.7a",
    "runtime.output_dir": "G3.27a",
    "runtime.experiment_name": "G3.27a",
}

# Key -> (the value, the clause whose run has it).
ELSEWHERE: Dict[str, Tuple[Any, str]] = {
    "network.arch_code": ("the second code of a cycle", "G3.25c"),
    "network.space": ("edgeflownet_v2", "G2.16"),
    "runtime.distributed": ("true", "G3.46a"),
    "runtime.exchange_timeout": (60, "G3.46e"),
}

# Key -> why no run of the gates can show its effect.
NO_EFFECT: Dict[str, str] = {
    "network.module": "there is one module to choose; another name is refused (G1.5b)",
    "train.optimizer": "there is one optimizer to choose; what it computes is checked by G3.8",
    "train.lr_schedule": "there is one schedule to choose; what it computes is checked by G3.7a",
    "train.amp": "mixed precision changes nothing on a CPU; the changed run has it on and must compute the same",
    "runtime.xla": "XLA compiles only on a GPU, and excludes deterministic mode, which the changed run needs",
}
