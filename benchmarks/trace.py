"""A session that can be asked what its runs did: seconds by type of operation, and memory on a GPU."""
import collections
import contextlib
import re
from typing import Any, Dict, Iterator, List, Tuple

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
        return self._session.run(fetches, feed_dict, tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), self._traces[-1])

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

    def device_megabytes(self) -> float:
        """The most memory that was in use on a GPU; 0 without one."""
        return max([0.0] + [memory.allocator_bytes_in_use / 2.0 ** 20 for _, node in self._nodes()
                            for memory in node.memory if memory.allocator_name.startswith("GPU")])

    def _nodes(self) -> Iterator[Tuple[str, Any]]:
        for trace in self._traces:
            for device in trace.step_stats.dev_stats:
                for node in device.node_stats:
                    yield device.device, node


def _type(node: Any) -> str:
    """Conv2D, of a node labelled `name = Conv2D(inputs)` on a CPU or named `name:Conv2D` on a GPU."""
    label = re.search(r"= (\w+)\(", node.timeline_label)
    return label.group(1) if label else node.node_name.rsplit(":", 1)[-1]
