"""Communication between the ranks of a run. Built on Horovod, which only this module imports.

Horovod is imported with `runtime.distributed` only. `LocalExchange` and `HorovodExchange` have the same methods. Every
rank must make the same exchanging calls in the same order; otherwise all wait until the watchdog ends them. Values are
summed. A rank without a value sends zeros, which change no bit of the sum.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy as np

from edgeflownas.config import Config
from edgeflownas.engine.session import session_config
from edgeflownas.errors import UserError
from edgeflownas.tfcompat import tf

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # mpirun and srun set the process count here
STALLED = 75  # exit code of a process that its watchdog ended: EX_TEMPFAIL of sysexits.h


class PeerLost(UserError):
    """Another rank has ended, or Horovod has failed. No further exchange is possible."""


class LocalExchange:
    """The exchange of a run with one process. It adds nothing to a graph."""

    rank, size, local_rank = 0, 1, 0
    seconds = 0.0  # spent in exchanges so far, waiting for the slowest rank included

    def summed(self, tensors: List[Any]) -> List[Any]:
        """Graph nodes with each tensor's sum over the ranks, by one grouped allreduce.

        Shapes must be static and equal on all ranks.
        """
        return tensors

    def run(self, session: Any, fetches: Any, feed: Optional[Dict[Any, Any]] = None) -> Any:
        """`session.run` for nodes that wait for the other ranks. Raises `PeerLost`."""
        return session.run(fetches, feed)

    def sum_over_ranks(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the ranks, as float64. The shape must be equal on all ranks."""
        return np.asarray(values, np.float64)

    def gather_rows(self, row: Any) -> np.ndarray:
        """float64 [ranks, len(row)]: each rank's row, in the order of the ranks."""
        matrix = np.zeros((self.size, len(row)))
        matrix[self.rank] = row
        return self.sum_over_ranks(matrix)

    def gather(self, values: Any) -> List[Any]:
        """Each rank's `values`, in the order of the ranks. `values` must be small and fit into JSON."""
        text = json.dumps(values).encode("ascii")
        lengths = self.gather_rows([len(text)])[:, 0].astype(int)
        padded = np.zeros(max(lengths))
        padded[: len(text)] = np.frombuffer(text, np.uint8)
        texts = self.gather_rows(padded).astype(np.uint8)
        return [json.loads(row[:length].tobytes().decode("ascii")) for row, length in zip(texts, lengths)]

    def barrier(self) -> None:
        """A barrier: returns once every rank has called it."""
        self.gather_rows([0.0])

    def log_faults_to(self, path: str) -> None:
        """Makes the watchdog write its message to this file, too."""

    def close(self) -> None:
        """Disconnects from the other ranks. A rank that still exchanges gets `PeerLost`."""

    def __enter__(self) -> "LocalExchange":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


LOCAL = LocalExchange()


class HorovodExchange(LocalExchange):
    """The exchange of one of several processes, which a launcher (horovodrun, mpirun, srun) has started."""

    def __init__(self, hvd: Any, options: Any, timeout: float) -> None:
        """`hvd` is Horovod's initialized module, `options` a session's ConfigProto, `timeout` in seconds."""
        self._hvd, self._timeout = hvd, timeout
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        self.seconds = 0.0
        self._fault_log: Optional[str] = None
        # A separate graph: the trainer's graph is finalized, and small exchanges happen before it exists.
        graph = tf.Graph()
        with graph.as_default(), tf.device("/cpu:0"):
            self._values = tf.placeholder(tf.float64, [None], "values")
            self._sum = hvd.allreduce(self._values, op=hvd.Sum, name="small_exchange")
        self._session = tf.Session(graph=graph, config=options)

    def log_faults_to(self, path: str) -> None:
        self._fault_log = path

    def summed(self, tensors: List[Any]) -> List[Any]:
        return self._hvd.grouped_allreduce(tensors, op=self._hvd.Sum)

    def run(self, session: Any, fetches: Any, feed: Optional[Dict[Any, Any]] = None) -> Any:
        started = time.monotonic()
        try:
            with self._watched():
                return session.run(fetches, feed)
        except tf.errors.OpError as error:
            raise PeerLost(f"rank {self.rank}: another rank has ended ({_first_line(error)})")
        finally:
            self.seconds += time.monotonic() - started

    def sum_over_ranks(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float64)
        return self.run(self._session, self._sum, {self._values: values.ravel()}).reshape(values.shape)

    def close(self) -> None:
        self._session.close()
        self._hvd.shutdown()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        # A thread, because Python runs no signal handler during `session.run`.
        watchdog = threading.Timer(self._timeout, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        """Ends the process, because a thread that waits in Horovod cannot be woken."""
        words = (
            f"error: rank {self.rank}: the other ranks did not come to the exchange within {self._timeout:g} s "
            "(runtime.exchange_timeout): one of them stalls; every thread's stack follows\n"
        )
        streams = [sys.__stderr__]  # the original one, even if sys.stderr is replaced
        with contextlib.suppress(OSError):  # a full disk must not keep the process alive
            if self._fault_log:
                streams.append(open(self._fault_log, "a", encoding="utf-8"))
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.write(words)
                stream.flush()
                faulthandler.dump_traceback(stream, all_threads=True)
        os._exit(STALLED)


def connect(config: Config) -> LocalExchange:
    """The exchange of a run with this configuration: `LocalExchange`, or `HorovodExchange` with all ranks connected.

    Raises UserError if Horovod is requested and cannot be used, or if a batch does not divide evenly into the ranks.
    """
    if not config.runtime.distributed:
        return LOCAL
    hvd, train = _horovod(config.runtime.exchange_timeout), config.train
    if not train.divides_into(hvd.size()):
        raise UserError(
            f"train.batch_size {train.batch_size} does not divide into {hvd.size()} ranks with micro-batches of "
            f"{train.micro_batch_size}; choose a train.micro_batch_size that divides batch_size / ranks"
        )
    return HorovodExchange(hvd, session_config(config, hvd.local_rank()), config.runtime.exchange_timeout)


def _horovod(timeout: float) -> Any:
    """Horovod's module for TensorFlow, initialized; `timeout` in seconds. Raises UserError if it cannot be used."""
    # Gloo by default gives up a rank that is held for 30 s. The watchdog must act first: it prints all threads' stacks.
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(int(timeout) + 30))
    os.environ.setdefault("HOROVOD_LOG_LEVEL", "fatal")  # the errors below say it in one line
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise UserError(
            f"--distributed needs Horovod, built for this TensorFlow ({_first_line(error)}); build it with: "
            "bash scripts/build_horovod.sh"
        )
    try:
        hvd.init()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--distributed: the ranks cannot connect ({_first_line(error)}); are all of them started?")
    started = max(int(os.environ.get(name, "1")) for name in MPI_SIZES)
    if hvd.size() == 1 and started > 1:
        raise UserError(
            f"--distributed: mpirun or srun started {started} processes, and each is alone, because this Horovod is "
            "built without MPI; use horovodrun, or build it with: HOROVOD_WITH_MPI=1 bash scripts/build_horovod.sh"
        )
    return hvd


class Build(NamedTuple):
    """The installed Horovod."""

    version: str
    built_for: str  # TensorFlow's version
    parts: List[str]  # which of Gloo, MPI and NCCL are built in


def build() -> Build:
    """Describes the installed Horovod. `connect` must have succeeded before."""
    import horovod.tensorflow as hvd

    package = os.path.dirname(os.path.dirname(os.path.abspath(hvd.__file__)))
    with open(os.path.join(package, "metadata.json"), encoding="utf-8") as handle:
        built_for = json.load(handle)["tensorflow"]
    built = {"Gloo": hvd.gloo_built(), "MPI": hvd.mpi_built(), "NCCL": hvd.nccl_built()}
    return Build(sys.modules["horovod"].__version__, built_for, [name for name, there in built.items() if there])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
