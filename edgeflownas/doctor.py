"""Looks at what a run needs on this machine, before it starts: TensorFlow, GPU, data, disk, the time of a first step.

    python -m edgeflownas.doctor --config supernet_fc2_180x240 --base_path data/FlyingChairs2

Prints a line per finding: ok, warn or FAIL, and what to do. Leaves nothing behind.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

import filelock

from edgeflownas import config as configuration
from edgeflownas import nvidia, signoff
from edgeflownas.arguments import Parser
from edgeflownas.command_line import Request, add_run_flags, config_parser, read_run_flags
from edgeflownas.config import Config
from edgeflownas.device import VISIBLE, asked_for, choose_device, visible
from edgeflownas.errors import UserError, run_cli
from edgeflownas.files import fsync_path, swap_link, write_text
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.cost import supernet_parameters
from edgeflownas.network.layer_table import layer_table
from edgeflownas.train_supernet import FREE_EPOCHS, too_long

OK, WARN, FAIL = "ok", "warn", "FAIL"
CHECKPOINTS = 4  # the last two, the best, and the one being written
TENSORS = 3  # weights and Adam's two moments, float32
# What else grows: a row of the steps' table and its share of TensorBoard's scalars; in the debug trace a line, in which
# each sample takes its place; per epoch two pictures for TensorBoard. Rounded up.
STEP_BYTES, TRACE_BYTES, TRACE_SAMPLE_BYTES, EPOCH_BYTES = 120, 1500, 35, 300000
IMPORT = """
import sys
from edgeflownas.errors import UserError
try:
    import edgeflownas.tfcompat
except UserError as error:
    sys.exit(" ".join(str(error.__cause__).split()))
"""
IMPORT_SECONDS = 300  # TensorFlow from a cold network disk takes a minute
IMPORT_ADVICE = (
    ("Descriptors can", 'TensorFlow 1.15 needs an older protobuf: pip install "protobuf<3.21"'),
    (
        "module 'numpy' has no attribute",
        "TensorFlow 1.15 needs an older NumPy: pip install -c constraints/versions.txt numpy",
    ),
    ("SIGILL", "this processor lacks what the build needs (AVX): use another build or another machine"),
)
FC2_TRAIN = 22232  # samples, where the data cannot be counted
SMALL = {"network.init_channels": 8, "data.input_height": 64, "data.input_width": 96, "train.batch_size": 2,
         "train.micro_batch_size": 0}  # fmt: skip


class Finding(NamedTuple):
    """One line: how it stands, what was looked at, what was found, and what to do."""

    level: str
    what: str
    found: str
    advice: str = ""


class Examined:
    """What the checks look at, and what one of them learns for the next."""

    def __init__(self, config: Config, full: bool, request: Request) -> None:
        self.config, self.full, self.request = config, full, request
        self.train_samples = FC2_TRAIN
        self.gpu_is_safe = True  # to compute on

    @property
    def output_dir(self) -> str:
        """The run's folder, or the nearest folder above it that exists."""
        path = os.path.abspath(self.config.runtime.output_dir)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path


def check_tensorflow(examined: Examined) -> Iterator[Finding]:
    problem = _import_elsewhere()
    if problem:
        examined.gpu_is_safe = False
        yield Finding(FAIL, "TensorFlow", f"cannot be imported: {problem[:300]}", _import_advice(problem))
        return
    from edgeflownas.tfcompat import tf

    version = f"{tf.__version__}, Python {sys.version.split()[0]}"
    if tf.__version__.startswith("1.") and not tf.__version__.startswith("1.15."):
        yield Finding(FAIL, "TensorFlow", version, "install 1.15 or a current 2.x")
    else:
        yield Finding(
            OK, "TensorFlow", version + (", built for CUDA" if tf.test.is_built_with_cuda() else ", CPU only")
        )
    yield from _check_gpus(examined, tf)


def _import_elsewhere() -> str:
    """Why a process of its own cannot import TensorFlow, be it an error, a crash or a hang; empty if it can."""
    program = [sys.executable, "-c", IMPORT]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    try:
        done = subprocess.run(program, env=environment, timeout=IMPORT_SECONDS, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {IMPORT_SECONDS} seconds"
    if done.returncode < 0:
        return f"it crashes ({signal.Signals(-done.returncode).name})"
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return " ".join((lines or ["it says nothing"])[-1].split()) if done.returncode else ""


def _import_advice(problem: str) -> str:
    known = [advice for words, advice in IMPORT_ADVICE if words in problem]
    return (known or ['install one: pip install -e ".[gpu]", ".[cpu]", ".[tf2]" or ".[tf2-gpu]"'])[0]


def _check_gpus(examined: Examined, tf: Any) -> Iterator[Finding]:
    runtime = examined.config.runtime
    if runtime.deterministic or not asked_for(runtime.gpu_device):
        yield Finding(OK, "GPU", "not asked for")
        return
    if not visible():
        found = f"{VISIBLE}={os.environ.get(VISIBLE, '')} shows none"
        yield Finding(WARN, "GPU", found, "unset it, or ask the queue for a GPU; a full run on a CPU takes weeks")
        return
    try:
        found = nvidia.gpus()
        chosen = nvidia.chosen(found, visible()) if found else []
    except UserError as error:
        yield Finding(FAIL, "GPU", str(error))
        return
    if not found:
        yield Finding(
            WARN, "GPU", "no nvidia-smi, so no NVIDIA GPU", "a full run on a CPU takes weeks; try a small one there"
        )
        return
    for gpu in chosen:
        support = nvidia.support_of(gpu, tf.__version__, nvidia.is_nvidia_build())
        examined.gpu_is_safe = examined.gpu_is_safe and support.works
        allowed = examined.request.allow_unsupported_gpu
        level = (WARN if support.advice else OK) if support.works else WARN if allowed else FAIL
        yield Finding(level, "GPU", f"{gpu.name}: {support.reason}", support.advice)
    if examined.gpu_is_safe:  # else even asking it may hang
        yield _visible_gpu(tf)


def _visible_gpu(tf: Any) -> Finding:
    from edgeflownas.tfcompat import device_names

    names = device_names()
    if names != "CPU":
        return Finding(OK, "GPU in TensorFlow", names)
    if not tf.test.is_built_with_cuda():
        return Finding(
            FAIL,
            "GPU in TensorFlow",
            "none: this TensorFlow is built for CPUs",
            'pip install -e ".[gpu]" or ".[tf2-gpu]"',
        )
    libraries = "CUDA 10.0 and cuDNN 7.6" if tf.__version__.startswith("1.") else 'pip install -e ".[tf2-gpu]"'
    advice = f"make its CUDA libraries findable ({libraries}; see LD_LIBRARY_PATH), or --gpu_device -1"
    return Finding(FAIL, "GPU in TensorFlow", "none is visible", advice)


def check_data(examined: Examined) -> Iterator[Finding]:
    from edgeflownas.data.fc2_index import build_index

    try:
        index = build_index(examined.config.data, examined.config.train.seed)
    except UserError as error:
        yield Finding(FAIL, "data", str(error))
        return
    examined.train_samples = len(index.train)
    found = "{} training and {} validation samples by {}, headers and file sizes are right".format(
        len(index.train),
        len(index.val),
        {"lists": "list files", "folders": "folders", "synthetic": "a synthetic set"}[index.source],
    )
    yield Finding(OK, "data", found)
    if len(index.train) < examined.config.train.batch_size:
        yield Finding(FAIL, "data", "fewer training samples than train.batch_size", "use a smaller --batch_size")


def check_space(examined: Examined) -> Iterator[Finding]:
    train = examined.config.train
    network = examined.config.network
    checkpoint = supernet_parameters(layer_table(network.init_channels, space_of(network))) * TENSORS * 4
    trace = TRACE_BYTES + TRACE_SAMPLE_BYTES * train.batch_size if examined.config.runtime.debug_trace else 0
    epoch = EPOCH_BYTES + (examined.train_samples // train.batch_size) * (STEP_BYTES + trace)
    need = CHECKPOINTS * checkpoint + train.num_epochs * epoch
    free = shutil.disk_usage(examined.output_dir).free
    found = f"{free / 1e9:.1f} GB free in {examined.output_dir}, a run needs about {need / 1e9:.2f} GB"
    level = OK if free > 2 * need else WARN if free > need else FAIL
    yield Finding(level, "disk space", found, "" if level == OK else "free some space or choose another --output_dir")


def check_file_system(examined: Examined) -> Iterator[Finding]:
    """What the trainer's atomic files, checkpoints and lock rely on, tried where the run will be."""
    folder = None
    try:
        folder = tempfile.mkdtemp(prefix=".doctor-", dir=examined.output_dir)
        for name, attempt in _ATTEMPTS:
            try:
                attempt(folder)
            except (OSError, NotImplementedError, filelock.Timeout) as error:
                yield Finding(FAIL, "file system", f"{name} fails in {examined.output_dir}: {error}",
                              "choose an --output_dir on another file system")  # fmt: skip
                return
        yield Finding(
            OK, "file system", "{} work in {}".format(", ".join(name for name, _ in _ATTEMPTS), examined.output_dir)
        )
    except OSError as error:
        found = f"{examined.output_dir} cannot be written: {error.strerror or error}"
        yield Finding(FAIL, "file system", found, "choose another --output_dir or mend its permissions")
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _try_replace(folder: str) -> None:
    path = os.path.join(folder, "file")
    for text in ("old", "new"):
        write_text(path + ".tmp", text)
        os.replace(path + ".tmp", path)
        fsync_path(folder)
    with open(path, encoding="utf-8") as handle:
        if handle.read() != "new":
            raise OSError("the old content came back")


def _try_symlink(folder: str) -> None:
    for target in ("file", "."):
        swap_link(target, os.path.join(folder, "link"))
        if os.readlink(os.path.join(folder, "link")) != target:
            raise OSError("the link leads elsewhere")


def _try_lock(folder: str) -> None:
    path = os.path.join(folder, "lock")
    with filelock.FileLock(path, timeout=0):
        with contextlib.suppress(filelock.Timeout):
            filelock.FileLock(path, timeout=0).acquire()
            raise OSError("two locks were given at once")


_ATTEMPTS: Tuple[Tuple[str, Callable[[str], None]], ...] = (
    ("write, fsync and rename", _try_replace), ("symlink", _try_symlink), ("flock", _try_lock),
)  # fmt: skip


def check_first_step(examined: Examined) -> Iterator[Finding]:
    if not examined.gpu_is_safe:
        yield Finding(WARN, "first step", "not tried, for the reason above")
        return
    import numpy as np

    from edgeflownas.engine.cycle import CycleGraph
    from edgeflownas.engine.session import session_config
    from edgeflownas.nas.fair_sampler import fair_cycle
    from edgeflownas.tfcompat import tf

    config = examined.config if examined.full else _smaller(examined.config)
    data, batch, space = config.data, config.train.batch_size, space_of(config.network)
    images = np.zeros((batch, data.input_height, data.input_width, 6), np.uint8)
    images[:, ::2, ::3] = 200
    flow = np.ones((batch, data.input_height, data.input_width, 2), np.float32)
    seconds = [time.monotonic()]
    try:
        with tf.Graph().as_default():
            graph = CycleGraph(config, space)
            with tf.Session(config=session_config(config)) as session:
                graph.initialize(session, config.train.seed)
                seconds.append(time.monotonic())
                for t in range(2):
                    graph.run(session, fair_cycle(config.train.arch_seed, t, space), images, flow, config.train.lr)
                    seconds.append(time.monotonic())
    except (tf.errors.OpError, UserError) as error:
        yield Finding(
            FAIL, "first step", " ".join(str(error).split())[:300], "use a smaller --batch_size or --micro_batch_size"
        )
        return
    graph_time, first, second = [after - before for before, after in zip(seconds, seconds[1:])]
    size = f"{data.input_height}x{data.input_width}, batch {batch}, {config.network.init_channels} channels"
    found = f"graph {graph_time:.1f} s, first step {first:.1f} s, second {second:.2f} s ({size})"
    yield Finding(OK, "first step", found, "" if examined.full else "--full times the configuration's own size")


def _smaller(config: Config) -> Config:
    sections = configuration.to_dict(config)
    for name, value in SMALL.items():
        section, key = name.split(".")
        sections[section][key] = value
    return configuration.from_dict(sections)


def check_gates(examined: Examined) -> Iterator[Finding]:
    train, limit = examined.config.train, examined.request.max_epochs
    last_epoch = min(train.num_epochs, limit or train.num_epochs)
    # A resume counts as a new run here: what it has trained already is in a checkpoint that is not looked into.
    long = too_long(last_epoch, max(1, examined.train_samples // train.batch_size), None, examined.request)
    try:
        signoff.require_gate(3, signoff.project_root(), examined.config.network.space)
    except UserError as error:
        found = f"a run of more than {FREE_EPOCHS} epochs is refused: {error}"
        yield Finding(FAIL if long else WARN, "gates", found, "or --unsigned")
        return
    yield Finding(OK, "gates", "gate 3 is signed off for this source")


CHECKS = (check_tensorflow, check_data, check_space, check_file_system, check_gates, check_first_step)


def _parser() -> Parser:
    parser = config_parser(
        "python -m edgeflownas.doctor",
        "Looks at what a run needs on this machine: TensorFlow and GPU, data, disk, gates, and a first training step. "
        "Give it the run's own command line. Exit code 0: nothing stands in the way; 1: a finding is FAIL.",
    )
    parser.add_argument(
        "--full", action="store_true", help="time the first step at the configuration's own size, not a small one"
    )
    add_run_flags(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Prints the findings. Returns 0, or 1 if one is FAIL."""
    args = _parser().parse_args(argv)
    config, _, request = read_run_flags(args)
    choose_device(config.runtime.gpu_device, config.runtime.deterministic)
    examined = Examined(config, args.full, request)
    failed = 0
    for check in CHECKS:
        for finding in check(examined):
            failed += finding.level == FAIL
            advice = "; " + finding.advice if finding.advice else ""
            print(f"{finding.level:<4}  {finding.what}: {finding.found}{advice}", flush=True)
    print(
        "doctor: {}".format(
            f"findings that stand in the way of a run: {failed}" if failed else "nothing stands in the way"
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    run_cli(main)
