"""Measures the hot path against the usual masked supernet, on this machine, in one run: `python -m benchmarks.run`.

Subjects (`worker.py`) live in processes of their own and take turns, so that what disturbs the machine disturbs them alike.
Figures are medians of at least five units after a warm-up. Prints tables and writes everything as JSON.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

from edgeflownas.errors import UserError, run_cli

HERE = os.path.dirname(os.path.abspath(__file__))


class Worker:
    """One subject in its own process; `unit()` does one unit of work."""

    def __init__(self, subject: str, settings: Dict[str, Any]) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.worker", subject, json.dumps(settings)],
                                         cwd=os.path.dirname(HERE), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         universal_newlines=True)
        self.first = self._answer()

    def unit(self) -> Dict[str, Any]:
        """Seconds and peak memory."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError("a benchmark process died with code {}; was there enough memory?".format(self._process.wait()))
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(ours: str, baseline: str, settings: Dict[str, Any], repeats: int) -> Dict[str, Any]:
    """Medians of both subjects, taking turns, and how many times as fast ours is."""
    workers = {name: Worker(name, settings) for name in (ours, baseline)}
    seconds: Dict[str, List[float]] = {name: [] for name in workers}
    for turn in range(repeats + 1):
        for name, worker in workers.items():
            wall = worker.unit()["wall"]
            if turn:  # the first is a warm-up, as is the unit that a worker does when it starts
                seconds[name].append(wall)
    for worker in workers.values():
        worker.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"settings": settings, "seconds": seconds, "ours": medians[ours], "baseline": medians[baseline],
            "ratio": medians[baseline] / medians[ours], "tensorflow": workers[ours].first["tensorflow"]}


def fair_cycle(repeats: int) -> Dict[str, Any]:
    """A training cycle at batch 8."""
    return compare("cycle", "baseline cycle", {"train.batch_size": 8}, repeats)


def pool(repeats: int) -> Dict[str, Any]:
    """BN re-estimation and EPE of the pool of twelve, one batch of 2 each."""
    return compare("pool", "baseline pool", {"train.batch_size": 2, "eval.batch_size": 2}, repeats)


def first_step(repeats: int) -> Dict[str, Any]:
    """From nothing to the first update at batch 4, TensorFlow's import left out; and graph construction alone."""
    runs: Dict[str, List[Tuple[float, float]]] = {"cycle": [], "baseline cycle": []}
    for _ in range(repeats):
        for name, values in runs.items():
            worker = Worker(name, {"train.batch_size": 4})
            values.append((worker.first["build"]["wall"], sum(worker.first[part]["wall"] for part in ("build", "start", "first"))))
            worker.close()
    build, ours = [statistics.median(values) for values in zip(*runs["cycle"])]
    base = statistics.median(total for _, total in runs["baseline cycle"])
    return {"build": build, "ours": ours, "baseline": base, "ratio": ours / base}


MEMORY = [("baseline cycle", {}), ("cycle", {}), ("cycle", {"train.cycle_mode": "sequential"}),
          ("cycle", {"train.micro_batch_size": 4}), ("cycle", {"train.cycle_mode": "sequential", "train.micro_batch_size": 4})]


def memory(_: int) -> Dict[str, Any]:
    """Peak memory in MB at batch 16, what the process had before the graph was built taken off."""
    peaks = {}
    for subject, settings in MEMORY:
        worker = Worker(subject, dict(settings, **{"train.batch_size": 16}))
        peaks["{} {}".format(subject, json.dumps(settings))] = worker.unit()["megabytes"] - worker.first["megabytes_before"]
        worker.close()
    return peaks


def batches(repeats: int) -> Dict[str, Any]:
    """Seconds per cycle against the batch size."""
    seconds = {}
    for size in (1, 2, 4, 8, 16):
        worker = Worker("cycle", {"train.batch_size": size})
        worker.unit()
        seconds[size] = statistics.median(worker.unit()["wall"] for _ in range(repeats))
        worker.close()
    return {"seconds": seconds}


def ceiling(repeats: int) -> Dict[str, Any]:
    """The cycle's convolutions timed alone, as a share of the cycle at batch 8, and the rates in GFLOP/s."""
    from benchmarks.ceiling import cycle_convolutions, time_alone
    from edgeflownas.config import load
    found = {convolution: count for convolution, count in cycle_convolutions(load(None, {"train.batch_size": 8})[0]).items()
             if not (convolution.kind == "input gradient" and convolution.image[3] == 6)}
    alone = sum(count * time_alone(convolution, None, repeats) for convolution, count in found.items())
    flops = sum(count * convolution.flops for convolution, count in found.items())
    worker = Worker("cycle", {"train.batch_size": 8})
    worker.unit()
    cycle = statistics.median(worker.unit()["wall"] for _ in range(repeats))
    worker.close()
    return {"convolutions": alone, "cycle": cycle, "share": alone / cycle, "gflops_alone": flops / alone / 1e9,
            "gflops_cycle": flops / cycle / 1e9}


PARTS = {"cycle": fair_cycle, "first_step": first_step, "pool": pool, "memory": memory, "ceiling": ceiling,
         "batches": batches}


def show(name: str, result: Dict[str, Any]) -> None:
    """A part's figures, one a line."""
    print(name)
    for key, value in result.items():
        if key != "seconds" or name == "batches":
            print("  {:60} {}".format(key, "{:.3f}".format(value) if isinstance(value, float) else value))


def main(argv: Optional[List[str]] = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help="of: {} (default: all)".format(
        ", ".join(PARTS)))
    parser.add_argument("--repeats", type=int, default=5, help="measured units per subject (default %(default)s)")
    parser.add_argument("--output", default=os.path.join(HERE, "results", "latest.json"), help="default: %(default)s")
    arguments = parser.parse_args(argv)
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown or arguments.repeats < 1:
        raise UserError("expected parts of {} and --repeats of at least 1, found {}".format(", ".join(PARTS), unknown))
    results = {}
    for part in arguments.parts:
        results[part] = PARTS[part](arguments.repeats)
        show(part, results[part])
    os.makedirs(os.path.dirname(os.path.abspath(arguments.output)), exist_ok=True)
    with open(arguments.output, "w", encoding="utf-8") as handle:
        json.dump({"cores": os.cpu_count(), "repeats": arguments.repeats, "results": results}, handle, indent=1)
        handle.write("\n")
    return 0


if __name__ == "__main__":
    run_cli(main)
