"""Builds session options and data pipelines from a configuration. Built on `data.pipeline`."""

from typing import Any, Tuple

from edgeflownas import nvidia
from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.data.pipeline import EvalPipeline, TrainPipeline, bn_samples
from edgeflownas.data.shards import WHOLE, Shard
from edgeflownas.device import asked_for, rank_device
from edgeflownas.tfcompat import tf

EVAL_PREFETCH, FAST_PREFETCH = 2, 8  # batches


def session_config(config: Config, local_rank: int = 0) -> Any:
    """The session options of a configuration, a ConfigProto.

    One thread in deterministic mode; GPU memory on demand; mixed precision and XLA if configured. One of several ranks
    sees only its own GPU.
    """
    threads = 1 if config.runtime.deterministic else 0
    made = tf.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads,
        gpu_options=tf.GPUOptions(allow_growth=True),
    )
    wanted = config.runtime.distributed and not config.runtime.deterministic and asked_for(config.runtime.gpu_device)
    if wanted and nvidia.gpus():  # TensorFlow 1.15 aborts if a device is named on a machine without GPUs
        made.gpu_options.visible_device_list = rank_device(local_rank)
    options = made.graph_options
    if config.train.amp:  # TensorFlow then rewrites every graph of the session, the evaluation's too
        options.rewrite_options.auto_mixed_precision = options.rewrite_options.ON
    if config.runtime.xla:
        options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return made


def train_pipeline(config: Config, index: FC2Index, shard: Shard = WHOLE) -> TrainPipeline:
    """The training batches of a configuration, or a rank's part of each, in the current default graph."""
    data, train, runtime = config.data, config.train, config.runtime
    prefetch = max(FAST_PREFETCH if runtime.fast_mode else 1, runtime.prefetch_batches)
    size = (data.input_height, data.input_width)
    return TrainPipeline(index.train, train.batch_size, *size, train.seed, runtime.num_workers, prefetch, shard)


def evaluation_pipelines(config: Config, index: FC2Index, shard: Shard = WHOLE) -> Tuple[EvalPipeline, EvalPipeline]:
    """Pipelines of (validation samples, BN recalibration samples) of a configuration, in the current default graph.

    A shard divides only the validation samples. Every rank does BN recalibration itself, with the same bits.
    """
    data, evaluation = config.data, config.eval
    val = index.val[: evaluation.num_samples] if evaluation.num_samples else index.val
    bn = bn_samples(index.train, config.train.seed, evaluation.bn_recal_batches * evaluation.batch_size)
    sizes = (evaluation.batch_size, data.input_height, data.input_width, config.runtime.num_workers, EVAL_PREFETCH)
    return EvalPipeline(val, *sizes, shard=shard), EvalPipeline(bn, *sizes)
