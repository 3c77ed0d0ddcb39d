"""The benchmark's arithmetic with fake subjects, and one run of each real kind of subject."""

import contextlib
import json
import os

import pytest

from benchmarks import parts, ranks, run, subjects, worker
from benchmarks.ceiling import Convolution, IsolatedConvolutions, convolutions
from benchmarks.trace import Tracer
from edgeflownas.config import load
from edgeflownas.errors import UserError
from edgeflownas.tfcompat import tf
from tests.reliability import tiny

TINY = {"network.init_channels": 2, "data.input_height": 64, "data.input_width": 67}


class Fake:
    """A worker whose units take as long as its subject and batch say, times 1, 3, 2, 1, 3, ..."""

    SECONDS = {"cycle": 1.0, "baseline cycle": 3.0, "pool": 1.0, "baseline pool": 5.0}
    order = []

    def __init__(self, subject, settings):
        self.subject, self.units = subject, 0
        self.batch = settings.get("train.batch_size", 1)
        self.first = {
            "build": {"wall": 0.5},
            "start": {"wall": 0.25},
            "first": {"wall": self.SECONDS.get(subject, 1.0)},
            "megabytes": 100.0 + 10 * self.batch * self.SECONDS.get(subject, 1.0),
            "megabytes_before": 100.0,
            "tensorflow": "0.0",
            "device": "CPU",
        }

    def ask(self, what="unit"):
        Fake.order.append(self.subject)
        if what == "trace":
            return {
                "ops": {"Conv2D": 0.6, "_FusedConv2D": 0.2, "Split": 0.15, "Pad": 0.05},
                "tensor_megabytes": 50.0,
                "megabytes": self.first["megabytes"],
            }
        self.units += 1
        seconds = (1.0, 3.0, 2.0)[self.units % 3 - 1] * self.SECONDS.get(self.subject, 1.0)
        return {
            "wall": seconds,
            "processor": 2 * seconds,
            "alone": 1.5,
            "flops": 3e9,
            "samples": 40,
            "waited": 0.01 * seconds,
            "fused": 3,
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def fakes(monkeypatch):
    Fake.order = []
    monkeypatch.setattr(parts, "make_dataset", lambda *sizes, **more: None)
    for module in (parts, subjects, run):
        monkeypatch.setattr(module, "Worker", Fake)


def rows(name, table=0):
    return {row[0]: row[1:] for row in parts.PARTS[name]({}, 3).tables[table].rows}


def test_subjects_take_turns_and_medians_are_compared(fakes):
    assert rows("cycle")["times as fast"] == ["3.00", "", "3.00"]
    assert rows("cycle")["cycle"] == ["2.000", "1.000 to 3.000", "4.000"]
    assert Fake.order[:6] == ["cycle", "baseline cycle"] * 3
    assert rows("pool")["times as fast"] == ["5.00", "", "5.00"]


@pytest.mark.parametrize("subject, paths", [("cycle", 3), ("pool", 12)])
def test_saved_multiplications_are_those_of_the_graphs(subject, paths):
    """Forward convolutions, counted in the graphs: the masked one runs once for every path, ours once for all."""
    config = load(None, dict(TINY, **{"train.batch_size": 1, "eval.batch_size": 1}))[0]
    counts = {}
    for name in (subject, "baseline " + subject):
        with tf.Graph().as_default() as graph:
            worker.SUBJECTS[name](config)
            counts[name] = sum(
                count * kind._replace(result=(1,) + kind.result[1:]).flops
                for kind, count in convolutions(graph).items()
                if kind.kind == "forward"
            )
    want = paths * counts["baseline " + subject] / counts[subject]
    assert parts.saved_multiplications(paths, 64, 67, 2) == pytest.approx(want, rel=1e-6)


def test_the_share_of_the_ceiling_is_time_alone_over_time_in_the_cycle(fakes):
    assert rows("ceiling") == {
        "a cycle": ["2.000", "1.5"],
        "its convolutions, each alone at its best": ["1.500", "2.0"],
        "share of the ceiling": ["75%", ""],
    }
    assert rows("ceiling", 1) == {"all convolutions": ["80.0%"], "Split": ["15.0%"], "Pad": ["5.0%"]}


def test_first_step_memory_and_input(fakes):
    assert rows("first_step")["cycle"] == ["0.500", "1.750"]
    assert rows("first_step")["cycle / baseline"] == ["", "0.47"]
    peaks = {tuple(row[:2]): row[2:] for row in parts.memory({}, 1).tables[0].rows}
    assert peaks["fused", "16"] == ["50", "1.00", "1.00", "160", "0.33", "1.00"]
    assert ("fused, micro-batches of 4", "16") in peaks and ("fused, micro-batches of 4", "4") not in peaks
    assert rows("input") == {
        "pipeline alone, samples per second": ["20"],
        "per second of one core": ["10"],
        "share of a training step that waits for its batch": ["1.00%"],
    }


@contextlib.contextmanager
def _pretended(count, subject, settings):
    yield [subject] * count


def test_ranks_are_compared_by_processor_time_and_the_exchange_by_size(monkeypatch):
    """One process takes 9 s, each of two ranks 5: they need ten where one needs nine."""
    monkeypatch.setattr(ranks, "_started", _pretended)
    monkeypatch.setattr(
        ranks, "_together", lambda workers: [{"processor": 9.0 if len(workers) == 1 else 5.0}] * len(workers)
    )
    monkeypatch.setattr(
        ranks,
        "_exchange",
        lambda channels, settings, repeats: {"floats": 10**6 * channels, "seconds": [0.2, 0.05, 0.1]},
    )
    scaling, costs = ranks.ranks({}, 3).tables
    assert scaling.rows == [["one process", "32", "9.000", "", ""], ["two ranks", "16", "5.000", "90.0%", "2.00%"]]
    assert costs.rows[0] == ["8", "8.00", "50.0", "100.0"] and len(costs.rows) == 3


def test_a_rank_without_others_is_a_cycle_and_an_exchange():
    small = dict(TINY, **{"train.batch_size": 2, "train.micro_batch_size": 1})
    config = load(None, small)[0]
    for name in ("rank", "exchange"):
        tf.reset_default_graph()
        ready = worker.SUBJECTS[name](config)
        with tf.Session() as session:
            said = ready(session)(0)
    assert said["floats"] > 0 and len(said["seconds"]) == worker.EXCHANGES


def test_scaling_tells_what_is_off_the_line():
    assert parts.straight_line([1, 2, 4], [3.0, 5.0, 9.0]) == pytest.approx((2.0, 1.0))


def test_the_command_writes_tables_figures_and_picture(fakes, tmp_path, capsys):
    assert run.main(["cycle", "scaling", "--repeats", "3", "--output", str(tmp_path), "--amp"]) == 0
    with open(str(tmp_path / "results.json"), encoding="utf-8") as handle:
        stored = json.load(handle)
    assert stored["amp"] and not stored["xla"] and stored["repeats"] == 3
    assert stored["parts"]["cycle"]["raw"]["wall"]["baseline cycle"] == [3.0, 9.0, 6.0]
    with open(str(tmp_path / "results.md"), encoding="utf-8") as handle:
        written = " ".join(handle.read().split())
    assert "| times as fast | 3.00" in written and "TensorFlow 0.0 on CPU" in written
    assert "| times as fast | 3.00" in " ".join(capsys.readouterr().out.split())
    assert os.path.getsize(str(tmp_path / "scaling.svg")) > 1000
    with pytest.raises(UserError, match="no part 'cycles'; parts are cycle, ceiling"):
        run.main(["cycles"])


def test_a_worker_that_dies_is_an_error():
    with pytest.raises(UserError, match="a benchmark process died with code 1"):
        assert subjects.Worker("no such subject", TINY).first


def test_a_cycle_in_a_process_of_its_own_can_be_timed_and_traced():
    with subjects.Worker("cycle", dict(TINY, **{"train.batch_size": 1})) as subject:
        unit, trace = subject.ask(), subject.ask("trace")
    assert subject.first["device"] and subject.first["tensorflow"] == tf.__version__
    assert unit["wall"] > 0 and unit["processor"] > 0 and subject.first["first"]["wall"] > 0
    # The import alone may have taken more than so small a graph.
    assert subject.first["megabytes"] >= subject.first["megabytes_before"] > 0
    assert max(seconds for name, seconds in trace["ops"].items() if "Conv2DBackpropFilter" in name) > 0
    assert trace["tensor_megabytes"] > 1


def test_reading_and_training_go_through_the_real_pipeline_and_trainer(tmp_path):
    config, _ = load(
        None,
        dict(
            TINY,
            **{
                "data.base_path": tiny.make_data(tmp_path),
                "train.batch_size": 2,
                "eval.pool_size": 3,
                "eval.batch_size": 1,
            },
        ),
    )
    with tf.Graph().as_default(), tf.Session() as session:
        assert worker.reading(config)(session)(0) == {"samples": 6}
    unit = worker.training(config)(None)
    waited = unit(0)["waited"]
    assert 0 < waited < worker.timed(lambda: unit(1))["wall"] + waited


def test_convolutions_are_timed_alone_and_counted():
    kinds = [
        Convolution("forward", (1, 9, 7, 3), (5, 5, 3, 2), (1, 5, 4, 2)),
        Convolution("input gradient", (1, 9, 7, 3), (5, 5, 3, 2), (1, 5, 4, 2)),
        Convolution("filter gradient", (1, 9, 7, 3), (3, 3, 3, 2), (1, 9, 7, 2)),
    ]
    with tf.Graph().as_default(), tf.Session() as session:
        figures = IsolatedConvolutions(kinds).ready(session, [1, 2, 3])(0)
    assert figures["flops"] == 3 * 2 * 5 * 5 * 3 * 2 * 5 * 4 + 3 * 2 * 3 * 3 * 3 * 2 * 9 * 7
    assert figures["alone"] < 1.0


def test_a_gpu_s_trace_counts_its_kernels_and_its_memory():
    traced = tf.RunMetadata()
    for device, name, micros in (
        ("/device:GPU:0/stream:all", "a/conv:Conv2D", 3e6),
        ("/device:GPU:0", "a/conv", 9e6),
        ("/device:GPU:0/stream:all", "b:Mul", 1e6),
    ):
        node = traced.step_stats.dev_stats.add(device=device).node_stats.add(
            node_name=name, op_end_rel_micros=int(micros)
        )
        node.memory.add(allocator_name="GPU_0_bfc", allocator_bytes_in_use=int(micros))
        node.memory.add(allocator_name="cpu", allocator_bytes_in_use=10**9)
    tracer = Tracer(None)
    tracer._traces = [traced]
    assert tracer.seconds_by_type() == {"Conv2D": 3.0, "Mul": 1.0}
    assert tracer.tensor_megabytes() == pytest.approx(9e6 / 2**20)


def test_tensors_of_a_cpu_are_added_up_in_the_order_of_their_lives():
    traced = tf.RunMetadata()
    nodes = traced.step_stats.dev_stats.add(device="/device:CPU:0").node_stats
    for records in (((10, 3), (30, -3)), ((20, 4), (40, -4)), ((30, 5), (50, -5))):
        memory = nodes.add().memory.add(allocator_name="cpu")
        for micros, megabytes in records:
            memory.allocation_records.add(alloc_micros=micros, alloc_bytes=megabytes * 2**20)
    tracer = Tracer(None)
    tracer._traces = [traced, tf.RunMetadata()]
    assert tracer.tensor_megabytes() == 9.0
