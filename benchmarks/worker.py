"""One subject of a measurement in a process of its own: builds it, then does one unit of work for every line it is sent.

    python -m benchmarks.worker SUBJECT '{"train.batch_size": 8}'

Answers one JSON object a line: first what it took to build and to do the first unit, then seconds per unit (of the wall
clock, and of all threads' processor time, which other processes on the machine disturb less) and peak memory so far.
"""
import json
import resource
import sys
import time
from typing import Any, Callable, Dict

import numpy as np

from benchmarks.baseline import MaskedSupernet
from edgeflownas.config import Config, load
from edgeflownas.engine.cycle import CycleGraph
from edgeflownas.engine.evaluate import Scorer, score_codes
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import fair_cycle
from edgeflownas.network.MultiScaleResNet_supernet import Supernet
from edgeflownas.tfcompat import tf

Unit = Callable[[int], Any]  # does the work of step t
SEED = 42


def random_batch(config: Config, size: int) -> Any:
    """Images uint8 [B, H, W, 6] and flow float32 [B, H, W, 2] of noise; the work does not depend on the values."""
    height, width, rng = config.data.input_height, config.data.input_width, np.random.RandomState(SEED)
    return (rng.randint(0, 256, (size, height, width, 6)).astype(np.uint8),
            rng.normal(0.0, 5.0, (size, height, width, 2)).astype(np.float32))


def cycle(config: Config, make: Callable[[Config], Any]) -> Callable[[Any], Unit]:
    """One cycle of training: forward and backward of all its paths, clip, Adam."""
    graph = make(config)

    def ready(session: Any) -> Unit:
        graph.initialize(session, SEED)
        batch = random_batch(config, config.train.batch_size)
        return lambda t: graph.run(session, fair_cycle(SEED, t), batch[0], batch[1], 1e-4)
    return ready


def pool(config: Config, make: Callable[[Config, np.ndarray], Any]) -> Callable[[Any], Unit]:
    """BN re-estimation and EPE of the pool: one batch of each, so that their costs weigh the same."""
    codes = build_pool(SEED, config.eval.pool_size)
    net, score = make(config, codes)

    def ready(session: Any) -> Unit:
        net.initialize(session, SEED)
        batches = [random_batch(config, config.eval.batch_size)]
        return lambda t: score(session, codes, batches, batches)
    return ready


def _pool_at_once(config: Config, codes: np.ndarray) -> Any:
    net = Supernet(config.network.init_channels)
    scorer = Scorer(net, config.data.input_height, config.data.input_width, len(codes))
    return net.variables, lambda session, *work: score_codes(session, scorer, *work)


def _pool_masked(config: Config, codes: np.ndarray) -> Any:
    masked = MaskedSupernet(config, scoring=True)
    return masked, masked.score


SUBJECTS: Dict[str, Callable[[Config], Callable[[Any], Unit]]] = {
    "cycle": lambda config: cycle(config, CycleGraph),
    "baseline cycle": lambda config: cycle(config, MaskedSupernet),
    "pool": lambda config: pool(config, _pool_at_once),
    "baseline pool": lambda config: pool(config, _pool_masked)}


def peak_megabytes() -> float:
    """The most memory this process has had at any time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def timed(work: Callable[[], Any]) -> Dict[str, float]:
    """Seconds of the wall clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def main() -> None:
    """Runs until its input ends."""
    config = load(None, json.loads(sys.argv[2]))[0]
    before = peak_megabytes()
    parts: Dict[str, Any] = {}
    built = timed(lambda: parts.update(ready=SUBJECTS[sys.argv[1]](config)))
    session = tf.Session(config=tf.ConfigProto())
    started = timed(lambda: parts.update(unit=parts["ready"](session)))
    first = timed(lambda: parts["unit"](0))
    print(json.dumps({"build": built, "start": started, "first": first, "megabytes_before": before,
                      "megabytes": peak_megabytes(), "tensorflow": tf.__version__}), flush=True)
    for t, _ in enumerate(sys.stdin, start=1):
        print(json.dumps(dict(timed(lambda: parts["unit"](t)), megabytes=peak_megabytes())), flush=True)  # noqa: B023


if __name__ == "__main__":
    main()
