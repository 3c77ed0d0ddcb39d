"""What training and scoring share of TensorFlow's set-up: the session's options and the pipelines of an evaluation."""

from typing import Any, Tuple

from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.data.pipeline import EvalPipeline, bn_samples
from edgeflownas.tfcompat import tf

EVAL_PREFETCH = 2  # batches


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


def evaluation_pipelines(config: Config, index: FC2Index) -> Tuple[EvalPipeline, EvalPipeline]:
    """(validation samples, samples for BN re-estimation) of a configuration, in the current default graph."""
    data, evaluation = config.data, config.eval
    val = index.val[: evaluation.num_samples] if evaluation.num_samples else index.val
    bn = bn_samples(index.train, config.train.seed, evaluation.bn_recal_batches * evaluation.batch_size)
    sizes = (evaluation.batch_size, data.input_height, data.input_width, config.runtime.num_workers, EVAL_PREFETCH)
    return EvalPipeline(val, *sizes), EvalPipeline(bn, *sizes)
