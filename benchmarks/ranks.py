"""What a second process costs: the part `ranks` of the benchmark. Needs Horovod (scripts/build_horovod.sh).

Ranks are benchmark processes that find each other as the gates' ranks do. Each computes with one thread, so that two of
them do not share what one has alone.
"""

import contextlib
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List

from benchmarks.parts import Part, Table
from benchmarks.subjects import Settings, Worker
from edgeflownas.config import Config
from gates.ranks import Rendezvous

RANKS = 2
CHANNELS = (8, 16, 32)  # network.init_channels whose exchange is timed
DISTRIBUTED = {"runtime.distributed": True}


def ranks(settings: Settings, repeats: int) -> Part:
    """Two ranks against one process with the same micro-batches, and the exchange alone, one thread per rank"""
    batch = Config().train.batch_size
    sizes = dict(settings, **{"runtime.deterministic": True, "train.micro_batch_size": batch // RANKS})
    cycles: Dict[str, List[List[Dict[str, Any]]]] = {"one": [], "two": []}
    with _started(1, "rank", sizes) as one, _started(RANKS, "rank", dict(sizes, **DISTRIBUTED)) as two:
        for _ in range(repeats):
            cycles["one"].append(_together(one))
            cycles["two"].append(_together(two))
    exchanges = {channels: _exchange(channels, sizes, repeats) for channels in CHANNELS}
    raw = {"cycles": cycles, "exchanges": exchanges}
    return Part([_scaling(batch, cycles, exchanges[CHANNELS[-1]]), _costs(exchanges)], raw)


@contextlib.contextmanager
def _started(count: int, subject: str, settings: Settings) -> Iterator[List[Worker]]:
    """So many processes of one subject that have done their first unit; several are connected."""
    with contextlib.ExitStack() as stack:
        environments: List[Dict[str, str]] = [{}]
        if count > 1:
            meeting = Rendezvous(count)
            stack.callback(meeting.close)
            environments = meeting.environments
        workers = [stack.enter_context(Worker(subject, settings, environment)) for environment in environments]
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda worker: worker.first, workers))
        yield workers


def _together(workers: List[Worker]) -> List[Dict[str, Any]]:
    """A unit of all at once."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(lambda worker: worker.ask(), workers))


def _exchange(channels: int, settings: Settings, repeats: int) -> Dict[str, Any]:
    """Seconds of exchanges of a network's gradients, and how many numbers that is."""
    with _started(RANKS, "exchange", dict(settings, **DISTRIBUTED, **{"network.init_channels": channels})) as workers:
        said = [_together(workers)[0] for _ in range(repeats)]
    return {"floats": said[0]["floats"], "seconds": [seconds for each in said for seconds in each["seconds"]]}


def _scaling(batch: int, cycles: Dict[str, List[List[Dict[str, Any]]]], exchange: Dict[str, Any]) -> Table:
    processor = {
        name: statistics.median(rank["processor"] for cycle in found for rank in cycle)
        for name, found in cycles.items()
    }
    alone = statistics.median(exchange["seconds"])
    rows = [
        ["one process", str(batch), f"{processor['one']:.3f}", "", ""],
        [
            "two ranks",
            str(batch // RANKS),
            f"{processor['two']:.3f}",
            f"{processor['one'] / (RANKS * processor['two']):.1%}",
            f"{alone / processor['two']:.2%}",
        ],
    ]
    header = ["", "samples per rank", "CPU s per cycle and rank", "efficiency", "exchange / CPU s of a cycle"]
    return Table(f"One cycle at 180x240, batch {batch}, micro-batches of {batch // RANKS}, one thread", header, rows)


def _costs(exchanges: Dict[int, Dict[str, Any]]) -> Table:
    rows = [
        [
            str(channels),
            f"{found['floats'] / 1e6:.2f}",
            f"{1e3 * min(found['seconds']):.1f}",
            f"{1e3 * statistics.median(found['seconds']):.1f}",
        ]
        for channels, found in exchanges.items()
    ]
    header = ["network.init_channels", "parameters, M", "one exchange, ms: least", "median"]
    return Table("The exchange alone, two ranks on one machine (Gloo)", header, rows)
