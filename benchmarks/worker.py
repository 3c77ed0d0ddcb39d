"""One subject of a measurement in a process of its own: builds it, then does one unit of work for every line it is
sent.

    python -m benchmarks.worker SUBJECT '{"train.batch_size": 8}'

Answers one JSON object a line: first what it took to build and to do the first unit, then seconds per unit (of the wall
clock, and of all threads' processor time, which other processes on the machine disturb less) and the peak memory so
far.
The line `trace` asks for a unit under TensorFlow's own profiler.
"""

import json
import resource
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Optional

import numpy as np

from benchmarks.baseline import MaskedSupernet
from benchmarks.ceiling import IsolatedConvolutions, cycle_convolutions
from benchmarks.subjects import SPACE
from benchmarks.trace import Tracer
from edgeflownas.config import Config, load
from edgeflownas.data.fc2_index import build_index
from edgeflownas.data.pipeline import TrainPipeline
from edgeflownas.diagnosis.ranks import exchange_seconds
from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.engine.evaluate import Scorer, score_codes
from edgeflownas.engine.exchange import connect
from edgeflownas.engine.session import session_config
from edgeflownas.engine.trainer import Limits, Trainer
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.network.layer_table import layer_table
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.scoring.grouping import groups
from edgeflownas.tfcompat import device_names, tf

Unit = Callable[[int], Any]  # does the work of step t; figures of its own, if it has some, as a dictionary
Ready = Callable[[Any], Unit]  # what there is to do with a session before the first unit
SEED = 42
EXCHANGES = 10  # per unit


def random_batch(config: Config, size: int) -> Any:
    """Images uint8 [B, H, W, 6] and flow float32 [B, H, W, 2] of noise; the work does not depend on the values."""
    height, width, rng = config.data.input_height, config.data.input_width, np.random.RandomState(SEED)
    return (
        rng.randint(0, 256, (size, height, width, 6)).astype(np.uint8),
        rng.normal(0.0, 5.0, (size, height, width, 2)).astype(np.float32),
    )


def cycle(config: Config, make: Callable[[Config], Any], codes: Optional[np.ndarray] = None) -> Ready:
    """One cycle of training: forward and backward of all its paths, clip, Adam. Without `codes`, those of step t."""
    graph = make(config)

    def ready(session: Any) -> Unit:
        graph.initialize(session, SEED)
        images, flow = random_batch(config, config.train.batch_size)

        def unit(t: int) -> None:
            graph.run(session, fair_cycle(SEED, t, SPACE) if codes is None else codes, images, flow, 1e-4)

        return unit

    return ready


def _ours(config: Config) -> CycleGraph:
    return CycleGraph(config, SPACE)


def rank(config: Config) -> Ready:
    """A cycle of one of several processes, on its part of the batch; of the only one, if there are no others."""
    link = connect(config)
    graph = CycleGraph(config, SPACE, link)

    def ready(session: Any) -> Unit:
        graph.initialize(session, SEED)
        images, flow = random_batch(config, config.train.batch_size // link.size)

        def unit(t: int) -> None:
            graph.run(session, fair_cycle(SEED, t, SPACE), images, flow, 1e-4)

        return unit

    return ready


def exchanges(config: Config) -> Ready:
    """Sums over the ranks of as many numbers as the network has parameters."""
    link = connect(config)
    floats = supernet_parameters(layer_table(config.network.init_channels, SPACE))
    return lambda session: lambda t: {"floats": floats, "seconds": exchange_seconds(link, floats, EXCHANGES)}


def paths(config: Config, depth: str) -> Ready:
    """Three times one path whose depth blocks have these options (`0122`); the largest head kernels."""
    code = [int(digit) for digit in depth] + [0] * 5
    return cycle(config, _ours, np.array([code] * 3, np.int32))


def pool(config: Config, make: Callable[[Config, np.ndarray], Any]) -> Ready:
    """BN re-estimation and EPE of the pool: one batch of each, so that their costs weigh the same."""
    codes = build_pool(SEED, config.eval.pool_size, SPACE)
    net, score = make(config, codes)

    def ready(session: Any) -> Unit:
        net.initialize(session, SEED)
        batches = [random_batch(config, config.eval.batch_size)]

        def unit(t: int) -> None:
            score(session, codes, batches, batches)

        return unit

    return ready


def _pool_at_once(config: Config, codes: np.ndarray) -> Any:
    net = SupernetGraph(config.network.init_channels, SPACE)
    scorer = Scorer(net, config.data.input_height, config.data.input_width, len(codes))
    return net.variables, lambda session, *work: score_codes(session, scorer, *work)


def _pool_masked(config: Config, codes: np.ndarray) -> Any:
    masked = MaskedSupernet(config, scoring=True)
    return masked, masked.score


def listed(config: Config, balanced: bool, grouped: bool) -> Ready:
    """Scores `eval.pool_size` codes as `Supernet.evaluate` does, or one by one: a batch for BN statistics, one for EPE.

    `balanced`: whole fair cycles, as `--random` draws them; else codes without any balance.
    """
    count = config.eval.pool_size
    numbers = np.random.RandomState(SEED).permutation(SPACE.size)[:count]
    scattered = np.stack(np.unravel_index(numbers, SPACE.num_options), axis=1).astype(np.int32)
    codes = random_codes(SEED, count, SPACE) if balanced else scattered
    together = [group.codes for group in groups(codes, SPACE)] if grouped else [code[None] for code in codes]
    net = SupernetGraph(config.network.init_channels, SPACE)
    size = config.data.input_height, config.data.input_width
    scorers = {paths: Scorer(net, *size, paths) for paths in {len(group) for group in together}}

    def ready(session: Any) -> Unit:
        net.variables.initialize(session, SEED)
        batches = [random_batch(config, config.eval.batch_size)]

        def unit(t: int) -> Dict[str, Any]:
            for group in together:
                score_codes(session, scorers[len(group)], group, batches, batches)
            return {"fused": sum(len(group) > 1 for group in together)}

        return unit

    return ready


def convolutions(config: Config) -> Ready:
    """Every kind of convolution of a cycle, alone, one after the other."""
    found = cycle_convolutions(config)
    alone = IsolatedConvolutions(list(found))
    return lambda session: alone.ready(session, list(found.values()))


def reading(config: Config) -> Ready:
    """The input pipeline alone: one epoch of the data set."""
    data, train, runtime = config.data, config.train, config.runtime
    index = build_index(data, train.seed)
    pipeline = TrainPipeline(
        index.train,
        train.batch_size,
        data.input_height,
        data.input_width,
        train.seed,
        runtime.num_workers,
        runtime.prefetch_batches,
    )

    def ready(session: Any) -> Unit:
        def unit(t: int) -> Dict[str, Any]:
            pipeline.start_epoch(session, t)
            for _ in range(pipeline.steps_per_epoch):
                session.run([pipeline.images, pipeline.flow])
            return {"samples": pipeline.steps_per_epoch * train.batch_size}

        return unit

    return ready


def training(config: Config) -> Ready:
    """The trainer as it is, records and all: one step of the first epoch, and the seconds of it that waited for
    data."""
    folder = tempfile.TemporaryDirectory()
    trainer = Trainer(config, folder.name, build_index(config.data, config.train.seed), Limits())

    def ready(_: Any) -> Unit:
        trainer.start(None)
        trainer.pipeline.start_epoch(trainer.session, 0)

        def unit(t: int) -> Dict[str, Any]:
            before = trainer._clock.input_seconds
            trainer._train_cycle(0, t)
            return {"waited": trainer._clock.input_seconds - before, "folder": folder.name}

        return unit

    return ready


SUBJECTS: Dict[str, Callable[[Config], Ready]] = {
    "cycle": lambda config: cycle(config, _ours),
    "baseline cycle": lambda config: cycle(config, MaskedSupernet),
    "pool": lambda config: pool(config, _pool_at_once),
    "baseline pool": lambda config: pool(config, _pool_masked),
    "random codes": lambda config: listed(config, balanced=True, grouped=True),
    "listed codes": lambda config: listed(config, balanced=False, grouped=True),
    "codes one by one": lambda config: listed(config, balanced=True, grouped=False),
    "nothing": lambda config: lambda session: lambda t: None,
    "rank": rank,
    "exchange": exchanges,
    "convolutions": convolutions,
    "reading": reading,
    "training": training,
}


def peak_megabytes() -> float:
    """The most memory this process has had at any time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def timed(work: Callable[[], Any]) -> Dict[str, Any]:
    """Seconds of the wall clock and of the processor, and what the work has to say."""
    wall, processor = time.perf_counter(), time.process_time()
    said = work()
    return dict(said or {}, wall=time.perf_counter() - wall, processor=time.process_time() - processor)


def answer(figures: Dict[str, Any]) -> None:
    """One line to the process that asked."""
    print(json.dumps(dict(figures, megabytes=peak_megabytes())), flush=True)


def main() -> None:
    """Runs until its input ends."""
    name, config = sys.argv[1], load(None, json.loads(sys.argv[2]))[0]
    make = SUBJECTS[name] if name in SUBJECTS else lambda config: paths(config, name)
    before = peak_megabytes()
    parts: Dict[str, Any] = {}
    built = timed(lambda: parts.update(ready=make(config)))
    session = Tracer(tf.Session(config=session_config(config)))
    started = timed(lambda: parts.update(unit=parts["ready"](session)))
    first = timed(lambda: parts["unit"](0))
    answer(
        {
            "build": built,
            "start": started,
            "first": first,
            "megabytes_before": before,
            "tensorflow": tf.__version__,
            "device": device_names(),
        }
    )
    for t, line in enumerate(sys.stdin, start=1):
        if line.strip() == "trace":
            with session.tracing():
                parts["unit"](t)
            answer({"ops": session.seconds_by_type(), "tensor_megabytes": session.tensor_megabytes()})
        else:
            answer(timed(lambda: parts["unit"](t)))  # noqa: B023


if __name__ == "__main__":
    main()
