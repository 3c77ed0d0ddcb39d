"""The command line of the trainer: flags, help texts, configuration. Built on `config`; imports nothing heavy."""

import argparse
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from edgeflownas import config as configuration
from edgeflownas.arguments import Parser, positive
from edgeflownas.config import KEYS, Config, Key
from edgeflownas.errors import UserError

EPILOG = """\
Every key of the configuration can be set with --set section.key=value; the command line beats the YAML file, which \
beats the defaults. --dry_run shows the result and where each value came from.

examples:
  two epochs on a GPU
    --config supernet_fc2_180x240 --gpu_device 0 --num_epochs 2
  on a laptop, without a GPU or FlyingChairs2
    --config supernet_quick --unsigned
  thirty steps with a trace
    --config supernet_fc2_180x240 --max_steps 30 --debug_trace
  continue after a stop
    --config supernet_fc2_180x240 --resume

exit codes:
  0   done
  1   training failed (a loss that is not finite)
  2   an error that you can fix, explained in one line
  75  --distributed: another process did not answer within
      runtime.exchange_timeout; try again with --resume
  130, 138, 143   stopped by SIGINT, SIGUSR1, SIGTERM after a commit, ready for
                  --resume
"""


class Request(NamedTuple):
    """The options of one invocation that are not configuration. None = not given."""

    dry_run: bool
    resume: bool
    resume_from: Optional[str]  # the experiment whose weights a new run starts from
    max_epochs: Optional[int]
    max_steps: Optional[int]
    allow_changed: List[str]
    unsigned: bool
    verify_data: bool
    allow_unsupported_gpu: bool
    resume_if_begun: bool  # like `resume` if the output folder has a checkpoint, else a new run


def config_parser(
    prog: str, description: str, epilog: Optional[str] = None, used: Callable[[str], bool] = lambda name: True
) -> Parser:
    """A parser with --config, --set and the flags of all configuration keys, grouped by section.

    The help shows only the keys that the program uses (`used`). It accepts the flags of all keys, so that every program
    accepts a run's command line.
    """
    parser = Parser(
        prog, description, epilog, usage="%(prog)s [--config YAML] [--set SECTION.KEY=VALUE ...] [FLAG ...]"
    )
    parser.add_argument(
        "--config",
        metavar="YAML",
        help="configuration file, or the name of a shipped one: supernet_fc2_180x240 is the specification's, "
        "supernet_quick for a laptop",
    )
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="set any configuration key; may be repeated",
    )
    sections: Dict[str, List[Key]] = {}
    for key in KEYS.values():
        sections.setdefault(key.name.split(".")[0], []).append(key)
    for section, keys in sections.items():
        flagless = [f"{key.name}={_shown(key.default)}" for key in keys if key.flag is None and used(key.name)]
        group = parser.add_argument_group(section, "Also, by --set: " + ", ".join(flagless) if flagless else None)
        for key in keys:
            if key.flag is not None:
                _add_flag(group, key, used(key.name))
    return parser


def _add_flag(group: Any, key: Key, shown: bool) -> None:
    text = f"{key.help} (default: {_shown(key.default)}; key: {key.name})".replace("%", "%%")
    text = text if shown else argparse.SUPPRESS
    if isinstance(key.default, bool):
        group.add_argument(key.flag, dest=key.name, action="store_const", const=True, help=text)
        return
    metavar = {int: "N", float: "X", str: "TEXT"}[type(key.default)]
    if key.choices and len(key.choices) > 1:
        metavar = "|".join(key.choices)
    group.add_argument(key.flag, dest=key.name, metavar=metavar, help=text)


def _shown(default: Any) -> str:
    """A default value in one word, for the help."""
    return (
        {True: "on", False: "off"}[default] if isinstance(default, bool) else "empty" if default == "" else str(default)
    )


def overrides(arguments: argparse.Namespace) -> Dict[str, Any]:
    """{"section.key": value or text} from the given flags and --set. UserError for a --set without `=`."""
    values = {name: getattr(arguments, name) for name in KEYS if getattr(arguments, name, None) is not None}
    for setting in arguments.settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting!r}: expected section.key=value")
        values[name.strip()] = value.strip()
    return values


def parse_train(argv: Optional[List[str]]) -> Tuple[Config, Dict[str, str], Request]:
    """Parses the trainer's command line: (configuration, origin of each key, request)."""
    parser = config_parser(
        "python wrappers/run_supernet_train.py",
        "Trains the EdgeFlowNAS supernet on FlyingChairs2 with FairNAS strict "
        "fairness, evaluating a fixed pool of subnets after each epoch.",
        EPILOG,
    )
    add_run_flags(parser)
    return read_run_flags(parser.parse_args(argv))


def add_run_flags(parser: Parser) -> None:
    """Adds the trainer's flags that are not configuration keys."""
    run = parser.add_argument_group("this invocation")
    run.add_argument(
        "--dry_run",
        action="store_true",
        help="print the configuration with the origin of each value; no graph, no TensorFlow",
    )
    run.add_argument(
        "--max_epochs", type=positive, metavar="N", help="stop after epoch N; does not change the schedule"
    )
    run.add_argument("--max_steps", type=positive, metavar="N", help="stop after step N; does not change the schedule")
    run.add_argument(
        "--resume", action="store_true", help="continue the run in the output folder, exactly from its last checkpoint"
    )
    run.add_argument(
        "--resume_if_begun",
        action="store_true",
        help="--resume if the output folder has a checkpoint, else a new run: for scripts that restart a job",
    )
    run.add_argument(
        "--load_checkpoint",
        action="store_true",
        help="if --resume_experiment_name is this experiment or not given: the same as --resume; if it is another "
        "experiment: start a new run from its last weights",
    )
    run.add_argument("--resume_experiment_name", metavar="NAME", help="the experiment that --load_checkpoint loads")
    run.add_argument(
        "--allow_changed",
        metavar="KEY,...",
        default="",
        help="with --resume: accept that these keys of the training maths have changed; the manifest records it",
    )
    run.add_argument(
        "--unsigned",
        action="store_true",
        help="allow more than five epochs without a sign-off of gate 3 for this source; the manifest records it",
    )
    run.add_argument(
        "--allow_unsupported_gpu",
        action="store_true",
        help="train on a GPU on which this TensorFlow is known to hang or to compute wrong results; the manifest "
        "records it",
    )
    run.add_argument("--verify_data", action="store_true", help="decode every file of the data set before training")


def read_run_flags(arguments: argparse.Namespace) -> Tuple[Config, Dict[str, str], Request]:
    """(configuration, origin of each key, request). UserError for flags that contradict each other."""
    config, origins = configuration.load(arguments.config, overrides(arguments))
    resume, resume_from = arguments.resume, None
    if arguments.load_checkpoint:
        other = arguments.resume_experiment_name
        if other is None or _is_this_experiment(other, config):
            resume = True
        else:
            resume_from = other
    elif arguments.resume_experiment_name is not None:
        raise UserError("--resume_experiment_name says which run --load_checkpoint means; add --load_checkpoint")
    if resume and resume_from:
        raise UserError(
            f"--resume continues this experiment, but --resume_experiment_name {resume_from} names another one; give "
            "one of them"
        )
    if arguments.resume_if_begun and (resume or resume_from):
        raise UserError("--resume_if_begun stands alone; leave out --resume and --load_checkpoint")
    allowed = [name for name in arguments.allow_changed.split(",") if name]
    if allowed and not (resume or arguments.resume_if_begun):
        raise UserError("--allow_changed goes with --resume")
    return (
        config,
        origins,
        Request(
            arguments.dry_run,
            resume,
            resume_from,
            arguments.max_epochs,
            arguments.max_steps,
            allowed,
            arguments.unsigned,
            arguments.verify_data,
            arguments.allow_unsupported_gpu,
            arguments.resume_if_begun,
        ),
    )


def _is_this_experiment(name: str, config: Config) -> bool:
    """Whether the name leads to this experiment's folder, for example with a trailing slash or through a link."""
    folders = [os.path.join(config.runtime.output_dir, one) for one in (name, config.runtime.experiment_name)]
    return os.path.realpath(folders[0]) == os.path.realpath(folders[1])


def describe(config: Config, origins: Dict[str, str]) -> str:
    """The configuration as a table: key, value, origin."""
    rows = [(name, repr(value), origins[name]) for name, value in configuration.flat(config).items()]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = ["{:{}}  {:{}}  {}".format(name, widths[0], value, widths[1], origin) for name, value, origin in rows]
    return "\n".join(lines + ["", f"config_hash  {configuration.config_hash(config)}"])
