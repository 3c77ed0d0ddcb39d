"""Checks whether several ranks can train one run here. Part of the doctor, built on `engine.exchange`.

Under a launcher it checks the ranks that were started. Otherwise Horovod's launcher starts two on this machine:

    horovodrun -np 2 python -m edgeflownas.diagnosis.ranks CONFIGURATION RESULT
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, NamedTuple

from edgeflownas import config as configuration
from edgeflownas.config import Config, config_hash
from edgeflownas.diagnosis.finding import FAIL, OK, Examined, Finding
from edgeflownas.errors import UserError, run_cli
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.network.layer_table import layer_table

TENSORS, REPEATS = 150, 5  # about as many tensors as in a cycle's exchange; the median of the repeats is reported
START_SECONDS = 300  # two processes, TensorFlow from a cold network disk
BUILD = "build it for this TensorFlow: bash scripts/build_horovod.sh"


class Meeting(NamedTuple):
    """The results of `meet`."""

    size: int
    descriptions: List[Dict[str, str]]  # one per rank, all with the same keys
    summed: bool  # whether the sum over the ranks is right
    floats: int  # number of floats in one exchange
    seconds: float  # median time of one exchange


def check_ranks(examined: Examined) -> Iterator[Finding]:
    """Checks Horovod's build and launcher, the agreement of the ranks, and the time of one exchange."""
    if not examined.config.runtime.distributed:
        return
    if not examined.tensorflow_starts:
        yield Finding(FAIL, "ranks", "not tried, for the reason above")
        return
    from edgeflownas.engine import exchange
    from edgeflownas.tfcompat import tf

    try:
        joined = exchange.connect(examined.config)
    except UserError as error:
        yield Finding(FAIL, "Horovod", str(error))
        return
    examined.rank = joined.rank
    yield _build(exchange.build(), tf.__version__)
    try:
        with joined:
            if joined.size > 1:
                about = dict(_about(examined.config), data=_data(examined.config))
                yield from _agreement(meet(joined, examined.config, about))
        if joined.size == 1:
            yield from _two_local_ranks(examined.config)
    except UserError as error:
        yield Finding(FAIL, "ranks", str(error))


def _build(build: Any, tensorflow: str) -> Finding:
    found = f"{build.version}, built for TensorFlow {build.built_for}, with {', '.join(build.parts)}"
    if build.built_for != tensorflow:
        return Finding(FAIL, "Horovod", f"{found}, but TensorFlow {tensorflow} is installed", BUILD)
    return Finding(OK, "Horovod", found)


def launcher() -> str:
    """The path of horovodrun, beside this Python or on PATH. UserError if there is none."""
    beside = os.path.join(os.path.dirname(sys.executable), "horovodrun")
    found = beside if os.path.exists(beside) else shutil.which("horovodrun")
    if not found:
        raise UserError(f"no horovodrun beside {sys.executable} and none on PATH; {BUILD}")
    return found


def _two_local_ranks(config: Config) -> Iterator[Finding]:
    program = launcher()
    yield Finding(OK, "launcher", program)
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "meeting.json")
        command = [program, "-np", "2", sys.executable, "-m", "edgeflownas.diagnosis.ranks"]
        sections = configuration.to_dict(config)
        sections["train"].update(batch_size=2, micro_batch_size=1)  # divides into two ranks
        command += [json.dumps(sections), result]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
        try:
            done = subprocess.run(command, env=environment, timeout=START_SECONDS, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(f"two local ranks did not end within {START_SECONDS} s")
        if done.returncode or not os.path.exists(result):
            raise UserError(f"two local ranks failed: {_error_of(done.stdout.decode('utf-8', 'replace'))}")
        with open(result, encoding="utf-8") as handle:
            yield from _agreement(Meeting(**json.load(handle)))


def _error_of(output: str) -> str:
    """The first line of the output with an error, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return ([line for line in lines if "error" in line.lower()] or lines[-1:] or ["they say nothing"])[0][:300]


def meet(joined: Any, config: Config, about: Dict[str, str]) -> Meeting:
    """Gathers `about`, tests a sum and times an exchange. Every rank must call it. `joined` is an exchange."""
    descriptions = joined.gather(about)
    expected = joined.size * (joined.size + 1) / 2.0
    summed = float(joined.sum_over_ranks([joined.rank + 1.0])[0]) == expected
    floats = supernet_parameters(layer_table(config.network.init_channels, space_of(config.network)))
    seconds = statistics.median(exchange_seconds(joined, floats, REPEATS))
    return Meeting(joined.size, descriptions, summed, floats, seconds)


def _about(config: Config) -> Dict[str, str]:
    """The values that must be equal on all ranks, by name."""
    from edgeflownas.run.provenance import source, versions
    from edgeflownas.tfcompat import tf

    return {
        **{name: value for name, value in versions(tf.__version__).items() if name != "platform"},
        "source": json.dumps(source()[0], sort_keys=True),
        "configuration": config_hash(config),
    }


def _data(config: Config) -> str:
    """The data's fingerprint, or the error message if the data is wrong."""
    from edgeflownas.data.fc2_index import build_index

    try:
        return build_index(config.data, config.train.seed).fingerprint
    except UserError as error:
        return str(error)


def exchange_seconds(joined: Any, floats: int, repeats: int) -> List[float]:
    """Seconds of each of `repeats` grouped sums of about `floats` float32 over the ranks, after one to warm up."""
    from edgeflownas.engine.session import session_config
    from edgeflownas.tfcompat import tf

    with tf.Graph().as_default(), tf.device("/cpu:0"):
        one = tf.placeholder(tf.float32, [])
        # Filled with a fed value; otherwise TensorFlow would store a constant of this size.
        tensors = [tf.fill([floats // TENSORS], one) for _ in range(TENSORS)]
        # Reads one value of each sum, because TensorFlow skips what nothing reads.
        done = tf.add_n([tensor[0] for tensor in joined.summed(tensors)])
        with tf.Session(config=session_config(configuration.Config())) as session:
            seconds = []
            for _ in range(repeats + 1):
                started = time.monotonic()
                joined.run(session, done, {one: 1.0})
                seconds.append(time.monotonic() - started)
    return seconds[1:]


def _agreement(meeting: Meeting) -> Iterator[Finding]:
    if not meeting.summed:
        yield Finding(FAIL, "ranks", f"{meeting.size} ranks meet, but a sum over them is wrong", BUILD)
        return
    differing = sorted(
        name for name in meeting.descriptions[0] if len({about[name] for about in meeting.descriptions}) > 1
    )
    for name in differing:
        values = "; ".join(f"rank {rank}: {about[name]}" for rank, about in enumerate(meeting.descriptions))
        yield Finding(FAIL, "ranks", f"they differ in {name}: {values[:300]}", "every rank needs the same")
    if not differing:
        yield Finding(OK, "ranks", f"{meeting.size} ranks meet and agree in {', '.join(meeting.descriptions[0])}")
    found = f"{meeting.seconds:.3f} s for {meeting.floats / 1e6:.1f} M floats in {TENSORS} tensors"
    yield Finding(OK, "exchange", found)


def main() -> int:
    """One of the two local ranks. Rank 0 writes the result of `meet` to a file."""
    from edgeflownas.engine.exchange import connect

    config = configuration.from_dict(json.loads(sys.argv[1]))
    with connect(config) as joined:
        meeting = meet(joined, config, _about(config))
        if joined.rank == 0:
            with open(sys.argv[2], "w", encoding="utf-8") as handle:
                json.dump(meeting._asdict(), handle)
        joined.barrier()
    return 0


if __name__ == "__main__":
    run_cli(lambda argv=None: main())
