"""The command line that extract, predict and export share, built on `command_line`. Imports no TensorFlow."""

import argparse
import os
from typing import Any, Dict, NamedTuple, Tuple

from edgeflownas import config as configuration
from edgeflownas.arguments import Parser
from edgeflownas.command_line import config_parser, overrides
from edgeflownas.device import choose_device
from edgeflownas.engine.run_state import RunState
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.run.folder import CHECKPOINTS, find_run
from edgeflownas.scoring.supernet_eval import asked_settings

# The configuration keys that these commands use. All other values come from the run's checkpoint.
USED_KEYS = (
    "data.base_path", "data.list_dir", "eval.bn_recal_batches", "eval.batch_size", "eval.num_samples",
    "runtime.gpu_device", "runtime.deterministic", "runtime.num_workers",
)  # fmt: skip


def run_parser(name: str, description: str, epilog: str, run: str) -> Tuple[Parser, Any]:
    """(a parser with RUN, --checkpoint and the configuration's flags, its group for the command's own flags)."""
    parser = config_parser(f"edgeflownas {name}", description, epilog, used=USED_KEYS.__contains__)
    parser.usage = None  # argparse's own usage names the positional arguments
    group = parser.add_argument_group("this command")
    group.add_argument("run", metavar="RUN", help=run + ": its folder, or an experiment's name")
    group.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which weights (default: best; before the first evaluation, the last)",
    )
    return parser, group


class NamedRun(NamedTuple):
    """The run that a command line names, and the settings that it gives for this process by key."""

    folder: str
    settings: Dict[str, Any]
    space: SearchSpace


def named_run(args: argparse.Namespace) -> NamedRun:
    """Finds the run and chooses the device, before TensorFlow's import. UserError: no run, damaged, another space."""
    config, origins = configuration.load(args.config, overrides(args))
    folder = find_run(args.run)
    generation = CheckpointStore(os.path.join(folder, CHECKPOINTS)).load(args.checkpoint)
    space = RunState.from_dict(generation.state, generation.path).space
    choose_device(config.runtime.gpu_device, config.runtime.deterministic)
    return NamedRun(folder, asked_settings(config, origins), space)


def code_of(text: str, space: SearchSpace) -> str:
    """The code in digits. UserError for a wrong code."""
    try:
        return to_digits(text, space)
    except ValueError as error:
        raise UserError(f"CODE: {error}") from error
