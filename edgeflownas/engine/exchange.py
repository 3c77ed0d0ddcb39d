"""What the processes of one run tell each other. Built on Horovod; the only module that imports it, and only for
`runtime.distributed`.

`Alone` and `Horovod` stand behind the same calls. Each call that exchanges must be made by every rank, in the same
order:
otherwise all wait, until the watchdog ends them. Values are summed; a rank that has nothing to say says zeros, and a
sum with zeros changes no bit.
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

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # what mpirun and srun tell each process
STALLED = 75  # exit code of a process that its watchdog ended: a temporary failure, as sysexits.h has it


class PeerLost(UserError):
    """Another rank has ended, or Horovod has failed: no exchange is possible any more."""


class Alone:
    """One process: nothing to exchange, nothing added to a graph."""

    rank, size, local_rank = 0, 1, 0
    seconds = 0.0  # spent in exchanges so far, waiting for the slowest rank included

    def summed(self, tensors: List[Any]) -> List[Any]:
        """Graph nodes with the sum over the ranks of each tensor, made by one grouped allreduce. Shapes must be static
        and equal on all ranks."""
        return tensors

    def run(self, session: Any, fetches: Any, feed: Optional[Dict[Any, Any]] = None) -> Any:
        """`session.run` of nodes that wait for the other ranks. Raises `PeerLost`."""
        return session.run(fetches, feed)

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of an array over the ranks, as float64. The shape must be equal on all ranks."""
        return np.asarray(values, np.float64)

    def rows(self, row: Any) -> np.ndarray:
        """float64 [ranks, len(row)]: each rank's row, in the order of the ranks."""
        matrix = np.zeros((self.size, len(row)))
        matrix[self.rank] = row
        return self.total(matrix)

    def gather(self, values: Any) -> List[Any]:
        """Each rank's `values`, a small thing that JSON can hold, in the order of the ranks."""
        text = json.dumps(values).encode("ascii")
        lengths = self.rows([len(text)])[:, 0].astype(int)
        padded = np.zeros(max(lengths))
        padded[: len(text)] = np.frombuffer(text, np.uint8)
        texts = self.rows(padded).astype(np.uint8)
        return [json.loads(row[:length].tobytes().decode("ascii")) for row, length in zip(texts, lengths)]

    def meet(self) -> None:
        """Returns once every rank has come here."""
        self.rows([0.0])

    def log_faults_to(self, path: str) -> None:
        """The watchdog's last words go to this file, too."""

    def close(self) -> None:
        """Leaves the other ranks. Those that still exchange then get `PeerLost`."""

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


ALONE = Alone()


class Horovod(Alone):
    """One of several processes that a launcher (horovodrun, mpirun, srun) has started."""

    def __init__(self, hvd: Any, options: Any, timeout: float) -> None:
        """`hvd` is Horovod's module, initialized; `options` are those of a session; `timeout` in seconds."""
        self._hvd, self._timeout = hvd, timeout
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        self.seconds = 0.0
        self._fault_log: Optional[str] = None
        # A graph of its own: a trainer's is finalized, and small exchanges are also made before there is one.
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

    def total(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float64)
        return self.run(self._session, self._sum, {self._values: values.ravel()}).reshape(values.shape)

    def close(self) -> None:
        self._session.close()
        self._hvd.shutdown()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        # A thread, because no signal handler of Python runs while a session does.
        watchdog = threading.Timer(self._timeout, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _give_up(self) -> None:
        """Ends the process: a thread that waits within Horovod cannot be woken."""
        words = (
            f"error: rank {self.rank}: the other ranks did not come to the exchange within {self._timeout:g} s "
            "(runtime.exchange_timeout): one of them stalls; every thread's stack follows\n"
        )
        streams = [sys.__stderr__]  # the real one, whatever stands in its place
        with contextlib.suppress(OSError):  # a full disk must not keep the process alive
            if self._fault_log:
                streams.append(open(self._fault_log, "a", encoding="utf-8"))
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.write(words)
                stream.flush()
                faulthandler.dump_traceback(stream, all_threads=True)
        os._exit(STALLED)


def connect(config: Config) -> Alone:
    """The exchange of a run with this configuration: `Alone`, or `Horovod` with all ranks connected.

    UserError if Horovod is asked for and cannot be used, or if a batch does not divide into the ranks.
    """
    if not config.runtime.distributed:
        return ALONE
    hvd, train = _horovod(config.runtime.exchange_timeout), config.train
    if train.batch_size % (hvd.size() * train.micro_batch_size):
        raise UserError(
            f"train.batch_size {train.batch_size} does not divide into {hvd.size()} ranks with micro-batches of "
            f"{train.micro_batch_size}; choose a train.micro_batch_size that divides batch_size / ranks"
        )
    return Horovod(hvd, session_config(config, hvd.local_rank()), config.runtime.exchange_timeout)


def _horovod(timeout: float) -> Any:
    """Horovod's module for TensorFlow, initialized; `timeout` in seconds."""
    # Gloo would give up a rank that is held for 30 s. The watchdog is to come first, as it says where all threads are.
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(int(timeout) + 30))
    os.environ.setdefault("HOROVOD_LOG_LEVEL", "fatal")  # what it would say, the errors here say in one line
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
    """The Horovod that is installed."""

    version: str
    built_for: str  # TensorFlow's version
    parts: List[str]  # of Gloo, MPI and NCCL, those that are built in


def build() -> Build:
    """What Horovod says of itself, where `connect` has been able to use it."""
    import horovod.tensorflow as hvd

    package = os.path.dirname(os.path.dirname(os.path.abspath(hvd.__file__)))
    with open(os.path.join(package, "metadata.json"), encoding="utf-8") as handle:
        built_for = json.load(handle)["tensorflow"]
    built = {"Gloo": hvd.gloo_built(), "MPI": hvd.mpi_built(), "NCCL": hvd.nccl_built()}
    return Build(sys.modules["horovod"].__version__, built_for, [name for name, there in built.items() if there])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
