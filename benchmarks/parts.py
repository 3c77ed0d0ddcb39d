"""The parts of the benchmark: each starts its subjects, lets them take turns, and gives tables and raw figures."""

import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np

from benchmarks.subjects import SPACE, Settings, Turns, Worker
from edgeflownas.data.synthetic import make_dataset
from edgeflownas.nas.cost import option_costs
from edgeflownas.network.layer_table import layer_table

COUNTS = (1, 12, 50, 500)  # codes in a list
CHANNELS_OF_SCALING = 16  # half the network's width, so that batches of 32 can be timed on a CPU
# How often we compute what paths have in common: up to EB0 they share their input, behind it they are as many as its
# options.
COMPUTED_FOR_ALL = {"E0": 1, "E1": 1, "EB0": 1, "Down1": 3}


class Table(NamedTuple):
    """A table of the results."""

    title: str
    header: List[str]
    rows: List[List[str]]


class Part(NamedTuple):
    """What a part measured."""

    tables: List[Table]
    raw: Dict[str, Any]


def fair_cycle(settings: Settings, repeats: int) -> Part:
    """A training cycle against the baseline's"""
    return _compare(
        "One fair cycle, fused, batch 8",
        "cycle",
        dict(settings, **{"train.batch_size": 8}),
        repeats,
        saved_multiplications(3, 180, 240),
    )


def pool(settings: Settings, repeats: int) -> Part:
    """The evaluation pool at once against twelve single scorings"""
    sizes = {"train.batch_size": 2, "eval.batch_size": 2}
    return _compare(
        "Pool of 12 (BN re-estimation and EPE, one batch of 2 each)",
        "pool",
        dict(settings, **sizes),
        repeats,
        saved_multiplications(12, 180, 240),
    )


def scoring(settings: Settings, repeats: int) -> Part:
    """Lists of codes against one by one, on the narrow network of supernet_quick.yaml"""
    narrow = {"network.init_channels": 8, "data.input_height": 64, "data.input_width": 64, "eval.batch_size": 8}
    kinds = ("codes one by one", "random codes", "listed codes")
    rows, raw = [], {}
    for count in COUNTS:
        with Turns({kind: (kind, dict(settings, **narrow, **{"eval.pool_size": count})) for kind in kinds}) as turns:
            clocks = [turns.measure(repeats), turns.processor]
            dozens = {kind: turns.last[kind]["fused"] for kind in kinds}
        for kind in kinds:
            wall, processor = [statistics.median(clock[kind]) for clock in clocks]
            faster = [statistics.median(clock[kinds[0]]) / statistics.median(clock[kind]) for clock in clocks]
            ratios = [f"{ratio:.2f}" for ratio in faster]
            rows.append([str(count), kind, str(dozens[kind]), _s(wall), ratios[0], _s(processor), ratios[1]])
        raw[count] = {"wall": clocks[0], "processor": clocks[1], "dozens": dozens}
    header = ["codes", "", "dozens at once", "seconds", "times as fast", "processor seconds", "times as fast"]
    return Part([Table("Scoring codes (BN re-estimation and EPE, one batch of 8 each)", header, rows)], raw)


def ceiling(settings: Settings, repeats: int) -> Part:
    """The cycle's share of the rate that its convolutions reach alone"""
    batch = dict(settings, **{"train.batch_size": 8})
    with Turns({"cycle": ("cycle", batch), "convolutions": ("convolutions", batch)}) as turns:
        seconds = turns.measure(repeats)
        alone = turns.last["convolutions"]
        operations = turns.workers["cycle"].ask("trace")["ops"]
    cycle = statistics.median(seconds["cycle"])
    rows = [
        [name, _s(time), "{:.1f}".format(alone["flops"] / time / 1e9)]
        for name, time in (("a cycle", cycle), ("its convolutions, each alone at its best", alone["alone"]))
    ]
    rows.append(["share of the ceiling", "{:.0%}".format(alone["alone"] / cycle), ""])
    total = sum(operations.values())
    others = [(name, time) for name, time in operations.items() if "Conv2D" not in name]
    costs = [["all convolutions", f"{1 - sum(time for _, time in others) / total:.1%}"]]
    costs += [[name, f"{time / total:.1%}"] for name, time in others[:8]]
    return Part(
        [
            Table("Share of the ceiling, batch 8", ["", "seconds", "GFLOP/s"], rows),
            Table(
                "Where a cycle's time goes (one traced cycle)", ["operation", "share of all operations' time"], costs
            ),
        ],
        {"seconds": seconds, "alone": alone, "operations": operations},
    )


def first_step(settings: Settings, repeats: int) -> Part:
    """Graph construction and the first update against the baseline's"""
    runs: Dict[str, List[Tuple[float, float]]] = {"cycle": [], "baseline cycle": []}
    for _ in range(repeats):
        for name, values in runs.items():
            with Worker(name, dict(settings, **{"train.batch_size": 4})) as worker:
                parts = [worker.first[part]["wall"] for part in ("build", "start", "first")]
            values.append((parts[0], sum(parts)))
    medians = {name: [statistics.median(column) for column in zip(*values)] for name, values in runs.items()}
    rows = [[name, _s(build), _s(total)] for name, (build, total) in medians.items()]
    ratio = medians["cycle"][1] / medians["baseline cycle"][1]
    return Part(
        [
            Table(
                "From nothing to the first update, batch 4 (TensorFlow's import left out)",
                ["", "graph construction, s", "first update done after, s"],
                rows + [["cycle / baseline", "", f"{ratio:.2f}"]],
            )
        ],
        {"runs": runs},
    )


MODES: List[Tuple[str, str, Settings]] = [
    ("baseline", "baseline cycle", {}),
    ("fused", "cycle", {}),
    ("sequential", "cycle", {"train.cycle_mode": "sequential"}),
    ("fused, micro-batches of 4", "cycle", {"train.micro_batch_size": 4}),
    ("sequential, micro-batches of 4", "cycle", {"train.cycle_mode": "sequential", "train.micro_batch_size": 4}),
]


def memory(settings: Settings, _: int) -> Part:
    """Peak memory per mode and batch"""

    def peak(batch: int, subject: str, more: Settings) -> Tuple[float, float]:
        with Worker(subject, dict(settings, **dict(more, **{"train.batch_size": batch}))) as worker:
            traced = worker.ask("trace")
        return traced["tensor_megabytes"], traced["megabytes"] - worker.first["megabytes_before"]

    with ThreadPoolExecutor(2) as two:  # memory is not disturbed by what else runs
        asked = {
            batch: {
                mode: two.submit(peak, batch, subject, more)
                for mode, subject, more in MODES
                if batch > more.get("train.micro_batch_size", 0)
            }
            for batch in (16, 4)
        }
        peaks = {batch: {mode: future.result() for mode, future in modes.items()} for batch, modes in asked.items()}
    rows = [
        [mode, str(batch)]
        + [
            cell
            for i in (0, 1)
            for cell in (
                f"{values[i]:.0f}",
                *[f"{values[i] / measured[other][i]:.2f}" for other in ("baseline", "fused")],
            )
        ]
        for batch, measured in peaks.items()
        for mode, values in measured.items()
    ]
    ratios = ["of the baseline's", "of fused"]
    return Part(
        [
            Table(
                "Peak memory in MB: tensors; the process (what it has before it builds its graph is taken off)",
                ["mode", "batch", "tensors"] + ratios + ["process"] + ratios,
                rows,
            )
        ],
        {"megabytes": peaks},
    )


def reading(settings: Settings, repeats: int) -> Part:
    """The input pipeline alone, and what a run waits for it"""
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(folder, 8 * (repeats + 3), 1, 1, workers=os.cpu_count() or 1)
        chosen = dict(settings, **{"data.base_path": folder, "train.batch_size": 8, "eval.num_samples": 1})
        with Worker("reading", chosen) as worker:
            epochs = [worker.ask() for _ in range(repeats)]
        with Worker("training", chosen) as worker:
            worker.ask()
            steps = [worker.ask() for _ in range(repeats)]
    rate, per_core = [
        statistics.median(epoch["samples"] / epoch[clock] for epoch in epochs) for clock in ("wall", "processor")
    ]
    waited, whole = [sum(step[name] for step in steps) for name in ("waited", "wall")]
    rows = [
        ["pipeline alone, samples per second", f"{rate:.0f}"],
        ["per second of one core", f"{per_core:.0f}"],
        ["share of a training step that waits for its batch", f"{waited / whole:.2%}"],
    ]
    return Part(
        [Table("Input: PNG and .flo of 384x512, batch 8 of 180x240", ["", ""], rows)],
        {"epochs": epochs, "steps": steps},
    )


def scaling(settings: Settings, repeats: int) -> Part:
    """Time against batch size, image area and depth of code"""

    def with_size(batch: int, height: int, width: int) -> Settings:
        return dict(
            settings,
            **{
                "network.init_channels": CHANNELS_OF_SCALING,
                "train.batch_size": batch,
                "data.input_height": height,
                "data.input_width": width,
            },
        )

    areas = [(90, 120), (180, 240), (270, 360), (360, 480)]
    single = dict(with_size(2, 180, 240), **{"train.cycle_mode": "sequential"})
    sweeps = {
        "batch size": {batch: ("cycle", with_size(batch, 180, 240)) for batch in (1, 2, 4, 8, 16, 32)},
        "thousand pixels": {height * width / 1000: ("cycle", with_size(2, height, width)) for height, width in areas},
        "residual blocks in a path": {
            4 + sum(map(int, depth)): (depth, single) for depth in ("0000", "1010", "1111", "2222")
        },
    }
    tables, raw = [], {}
    for axis, subjects in sweeps.items():
        with Turns(subjects) as turns:
            seconds = turns.measure(repeats)
        medians = {x: statistics.median(times) for x, times in seconds.items()}
        slope, fixed = straight_line(list(medians), list(medians.values()))
        rows = [[f"{x:g}", _s(y), f"{y / (fixed + slope * x) - 1:+.1%}"] for x, y in medians.items()]
        tables.append(
            Table(
                f"Time of a cycle against {axis} ({CHANNELS_OF_SCALING} initial channels): {fixed:.4f} s + "
                f"{slope:.5f} s each",
                [axis, "seconds", "off the line by"],
                rows,
            )
        )
        raw[axis] = {"seconds": seconds, "slope": slope, "fixed": fixed}
    return Part(tables, raw)


def straight_line(x: List[float], y: List[float]) -> Tuple[float, float]:
    """(slope, y at 0) of the line with the least squares of the relative errors."""
    slope, fixed = np.polyfit(x, y, 1, w=1.0 / np.array(y))
    return float(slope), float(fixed)


PARTS: Dict[str, Callable[[Settings, int], Part]] = {
    "cycle": fair_cycle,
    "ceiling": ceiling,
    "first_step": first_step,
    "pool": pool,
    "scoring": scoring,
    "memory": memory,
    "input": reading,
    "scaling": scaling,
}


def saved_multiplications(paths: int, height: int, width: int, init_channels: int = 32) -> float:
    """How many times as many multiplications as ours the masked supernet needs for `paths` forward passes, a multiple
    of 3.

    It computes every option in every pass; we compute an option for the paths that chose it. What else costs time is
    left out,
    so this is about what a measured ratio can reach.
    """
    masked = ours = 0
    for layer in layer_table(init_channels, SPACE):
        options = [cost.multiply_adds for cost in option_costs(layer, height, width).values()]
        masked += sum(options)
        ours += sum(options) * COMPUTED_FOR_ALL.get(layer.name, paths // len(options))
    return paths * masked / ours


def _compare(title: str, subject: str, settings: Settings, repeats: int, multiplications: float) -> Part:
    """Ours against the baseline: the figures of both, how many times as fast ours is, and as few multiplications it
    needs."""
    baseline = "baseline " + subject
    with Turns({subject: (subject, settings), baseline: (baseline, settings)}) as turns:
        wall = turns.measure(repeats)
        processor = turns.processor
    rows = [
        [
            name,
            _s(statistics.median(wall[name])),
            f"{_s(min(wall[name]))} to {_s(max(wall[name]))}",
            _s(statistics.median(processor[name])),
        ]
        for name in wall
    ]
    ratios = [
        statistics.median(seconds[baseline]) / statistics.median(seconds[subject]) for seconds in (wall, processor)
    ]
    rows.append(["times as fast", f"{ratios[0]:.2f}", "", f"{ratios[1]:.2f}"])
    rows.append(["times as few multiplications", f"{multiplications:.2f}", "", ""])
    return Part(
        [Table(title, ["", "seconds (median)", "smallest to largest", "processor seconds"], rows)],
        {"wall": wall, "processor": processor, "multiplications": multiplications},
    )


def _s(seconds: float) -> str:
    return f"{seconds:.3f}"
