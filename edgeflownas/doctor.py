"""Checks, before a run, what it needs on this machine: TensorFlow, GPU, data, disk, gates, the time of a first step.

    python -m edgeflownas.doctor --config supernet_fc2_180x240 --base_path data/FlyingChairs2

Prints a line per finding: ok, warn or FAIL, and what to do. Leaves no files. Built on `diagnosis/`, which has the
checks of TensorFlow and GPUs, of several ranks, and of the disk.
"""

import time
from typing import Iterator, List, Optional

from edgeflownas import config as configuration
from edgeflownas import signoff
from edgeflownas.arguments import Parser
from edgeflownas.command_line import add_run_flags, config_parser, read_run_flags
from edgeflownas.config import Config
from edgeflownas.device import choose_device
from edgeflownas.diagnosis.disk import check_file_system, check_space
from edgeflownas.diagnosis.finding import FAIL, OK, WARN, Examined, Finding
from edgeflownas.diagnosis.ranks import check_ranks
from edgeflownas.diagnosis.stack import check_tensorflow
from edgeflownas.errors import UserError, run_cli
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.train_supernet import FREE_EPOCHS, too_long

SMALL = {"network.init_channels": 8, "data.input_height": 64, "data.input_width": 96, "train.batch_size": 2,
         "train.micro_batch_size": 0, "runtime.distributed": False}  # fmt: skip


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
    # A resume counts as a new run here, because the doctor does not read its checkpoint.
    long = too_long(last_epoch, max(1, examined.train_samples // train.batch_size), None, examined.request)
    try:
        signoff.require_gate(3, signoff.project_root(), examined.config.network.space)
    except UserError as error:
        found = f"a run of more than {FREE_EPOCHS} epochs is refused: {error}"
        yield Finding(FAIL if long else WARN, "gates", found, "or --unsigned")
        return
    yield Finding(OK, "gates", "gate 3 is signed off for this source")


OF_EACH_RANK = (check_tensorflow, check_ranks)
CHECKS = OF_EACH_RANK + (check_data, check_space, check_file_system, check_gates, check_first_step)


def _parser() -> Parser:
    parser = config_parser(
        "python -m edgeflownas.doctor",
        "Looks at what a run needs on this machine: TensorFlow and GPU, data, disk, gates, a first training step, and "
        "with --distributed Horovod and the ranks. Give it the run's own command line. "
        "Exit code 0: nothing stands in the way; 1: a finding is FAIL.",
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
    choose_device(config.runtime.gpu_device, config.runtime.deterministic, config.runtime.distributed)
    examined = Examined(config, args.full, request)
    failed = 0
    for check in CHECKS:
        if examined.rank > 0 and check not in OF_EACH_RANK:
            break
        for finding in check(examined):
            failed += finding.level == FAIL
            advice = "; " + finding.advice if finding.advice else ""
            print(f"{finding.level:<4}  {finding.what}: {finding.found}{advice}", flush=True)
    if examined.rank > 0 and not failed:
        return 0  # rank 0 prints the verdict for all
    print(
        "doctor: {}".format(
            f"findings that stand in the way of a run: {failed}" if failed else "nothing stands in the way"
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    run_cli(main)
