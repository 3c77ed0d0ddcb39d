"""The rows of a run's tables: one typed tuple per table; its field names are the columns.

Readers and writers access columns as attributes, so column names are written only here. EPE is in pixels. Reals are
recorded as float32.
"""

from typing import Any, NamedTuple, Sequence, Tuple, Type, Union

import numpy as np

from edgeflownas.nas.search_space import FIRST_VERSION, label_of


class StepRow(NamedTuple):
    """train_steps.csv: one trained cycle."""

    step: int  # from 0
    epoch: int  # from 1
    lr: float
    loss: float  # mean over the paths, without weight decay
    l2_loss: float  # the weight decay term
    grad_norm_before: float  # before the clip
    grad_norm_after: float


class EvaluationRow(NamedTuple):
    """eval_epe_history.csv: one evaluation of the pool, and the training since the previous one."""

    epoch: int
    global_step: int
    mean_epe: float
    std_epe: float
    fairness_gap: int
    zero_flow_epe: float
    best_mean_epe: float
    best_epoch: int
    early_stop_wait: int
    train_loss: float
    lr: float
    grad_norm_before_mean: float
    grad_norm_after_max: float
    clip_share: float
    bn_recal_batches: int
    num_samples: int


class SubnetRow(NamedTuple):
    """eval_epe_per_arch.csv: one subnet of the pool in one evaluation."""

    epoch: int
    global_step: int
    arch_code: str  # digits
    epe: float
    rank: int  # 1 = lowest EPE
    bn_recal_batches: int
    num_samples: int
    space: str  # label of the search space that the code belongs to


class TimingRow(NamedTuple):
    """timing.csv: how long an epoch and its evaluation took."""

    epoch: int
    global_step: int
    train_seconds: float
    eval_seconds: float
    cycles_per_second: float
    input_wait_share: float  # of the training seconds


class ScoreRow(NamedTuple):
    """subnet_scores.csv: one subnet that `supernet_eval` scored."""

    arch_code: str  # digits
    epe: float
    rank: int  # among the rows of the table, 1 = lowest EPE
    parameters: int
    multiply_adds: int  # per image pair
    zero_flow_epe: float
    bn_recal_batches: int
    num_samples: int
    space: str


class Best(NamedTuple):
    """The evaluation with the lowest mean EPE so far, as the manifest and the checkpoints record it."""

    epoch: int
    global_step: int
    mean_epe: float


# Columns whose name in the file ends in the pool size: `mean_epe_12`.
_POOL_SIZED = frozenset(["mean_epe", "std_epe", "best_mean_epe"])
# Columns that files of the first version lack, with their value in such files. They are always the last columns.
ADDED = {"space": label_of(FIRST_VERSION)}


def columns(row_type: Type[Any], pool_size: int = 0) -> Tuple[str, ...]:
    """The header of a table. Only `EvaluationRow` needs `pool_size`."""
    if row_type is not EvaluationRow:
        return tuple(row_type._fields)
    if pool_size < 1:
        raise ValueError(f"the columns of an evaluation depend on the size of its pool, got {pool_size}")
    return tuple(f"{name}_{pool_size}" if name in _POOL_SIZED else name for name in EvaluationRow._fields)


def kinds(row_type: Type[Any]) -> Tuple[type, ...]:
    """int, float or str per column."""
    return tuple(row_type.__annotations__[name] for name in row_type._fields)


def first_version(names: Sequence[str]) -> Tuple[str, ...]:
    """The header of the first version: `names` without the columns added since."""
    return tuple(name for name in names if name not in ADDED)


def real(value: Union[float, np.floating]) -> str:
    """The text of a real in all files: the shortest one that gives the same float32."""
    return str(np.float32(value))


def cells(row: Any) -> Tuple[str, ...]:
    """The texts of a row's cells. ValueError for a value of the wrong type for its column."""
    return tuple(_cell(value, kind) for value, kind in zip(row, kinds(type(row))))


def _cell(value: Any, kind: type) -> str:
    if kind is float:
        return real(value)
    wanted = (int, np.integer) if kind is int else (str,)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ValueError(f"expected a value of type {kind.__name__}, found {value!r}")
    return str(value)


def csv_line(texts: Sequence[str]) -> str:
    """One line of a table. ValueError for a text that is not ASCII or would not be read back as one cell."""
    line = ",".join(texts)
    if line.count(",") != len(texts) - 1 or set(line) & set('"\r\n\0') or not all(ord(letter) < 128 for letter in line):
        raise ValueError(f"a cell must be plain ASCII without a comma, a quote or a line's end: {texts!r}")
    return line + "\n"
