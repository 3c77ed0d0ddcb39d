"""A session that can be asked what its runs did: seconds by type of operation, and the memory of their tensors."""

import collections
import contextlib
import itertools
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from edgeflownas.tfcompat import tf


class Tracer:
    """Runs like the session it was given; within `tracing()`, under TensorFlow's profiler."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._on = False
        self._traces: List[Any] = []

    def run(self, fetches: Any, feed_dict: Any = None) -> Any:
        """As `tf.Session.run`."""
        if not self._on:
            return self._session.run(fetches, feed_dict)
        self._traces.append(tf.RunMetadata())
        return self._session.run(
            fetches, feed_dict, tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), self._traces[-1]
        )

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """The runs in here are the ones that are told of."""
        self._on, self._traces = True, []
        yield
        self._on = False

    def seconds_by_type(self) -> Dict[str, float]:
        """Seconds by type of operation, the largest first; on a GPU those of its kernels."""
        seconds: "collections.Counter" = collections.Counter()
        nodes = list(self._nodes())
        on_gpu = any(device.endswith("stream:all") for device, _ in nodes)
        for device, node in nodes:
            if device.endswith("stream:all") or not on_gpu:
                seconds[_type(node)] += (node.op_end_rel_micros - node.op_start_rel_micros) / 1e6
        return dict(seconds.most_common())

    def tensor_megabytes(self) -> float:
        """The most memory that tensors held at one time: on a GPU as its allocator says; on a CPU without variables."""
        memories = [[memory for _, node in self._nodes([trace]) for memory in node.memory] for trace in self._traces]
        on_gpu = [
            memory.allocator_bytes_in_use
            for run in memories
            for memory in run
            if memory.allocator_name.startswith("GPU")
        ]
        return max(on_gpu or [_most_alive(run) for run in memories]) / 2.0**20

    def _nodes(self, traces: Optional[List[Any]] = None) -> Iterator[Tuple[str, Any]]:
        for trace in traces or self._traces:
            for device in trace.step_stats.dev_stats:
                for node in device.node_stats:
                    yield device.device, node


def _most_alive(memories: List[Any]) -> int:
    """Bytes, from the times of one run's allocations and of the releases, which are negative."""
    changes = sorted(
        (record.alloc_micros, record.alloc_bytes) for memory in memories for record in memory.allocation_records
    )
    return max(itertools.accumulate(size for _, size in changes), default=0)


def _type(node: Any) -> str:
    """Conv2D, of a node labelled `name = Conv2D(inputs)` on a CPU or named `name:Conv2D` on a GPU."""
    label = re.search(r"= (\w+)\(", node.timeline_label)
    return label.group(1) if label else node.node_name.rsplit(":", 1)[-1]
