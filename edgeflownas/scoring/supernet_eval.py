"""The command that scores subnets of a finished or running run: its evaluation pool or any codes. Never trains.

    python -m edgeflownas.nas.supernet_eval --config supernet_fc2_180x240 --eval_only --bn_recal_batches 8

Built on `scoring.supernet`. Writes a row per subnet to `subnet_scores.csv`. The same command continues a stopped one.
"""

import argparse
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

from edgeflownas import config as configuration
from edgeflownas.arguments import Parser, positive
from edgeflownas.command_line import config_parser, overrides
from edgeflownas.config import Config
from edgeflownas.device import choose_device
from edgeflownas.engine.learning import COLLAPSED_RATIO, ratio
from edgeflownas.engine.run_state import RunState
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import UserError, run_cli
from edgeflownas.files import os_errors
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.run.folder import CHECKPOINTS, SCORES, find_run, run_folder, scores_name

REESTIMATED, STORED = "reestimated", "stored"
ROWS_SHOWN = 50  # lines of the printed table; the file has them all
FRONT_SHOWN = 12  # printed codes of a front
# Configuration keys that this command uses. All other values come from the run's checkpoint.
USED_KEYS = (
    "data.base_path", "data.list_dir", "eval.bn_recal_batches", "eval.batch_size", "eval.num_samples",
    "runtime.gpu_device", "runtime.deterministic", "runtime.num_workers", "runtime.output_dir",
    "runtime.experiment_name",
)  # fmt: skip

EPILOG = """\
The run is the one in the configuration's output folder (--output_dir, --experiment_name). Its checkpoint knows how it \
was trained: a key that neither --config nor the command line names is taken from there, and one that they name must \
agree, except for eval.*, paths and runtime, which are free.

Beside FILE.csv: FILE.json, what the rows belong to (checkpoint, settings, data), and FILE.png, EPE against parameters \
and against multiply-adds. Codes that FILE.csv already has are not scored again; SIGINT and SIGTERM stop after the \
batch at hand.

examples:
  the pool
    --config supernet_fc2_180x240 --eval_only --bn_recal_batches 8
  two codes, last weights
    --experiment_name x --checkpoint last --codes 000001000,012001210 --output a.csv
  a sample of the space
    --experiment_name x --random 500 --output sample.csv

exit codes:
  0   done
  1   an EPE is not finite
  2   an error that you can fix, explained in one line
  130, 138, 143   stopped by SIGINT, SIGUSR1, SIGTERM: the same command continues
"""


def _parser() -> Parser:
    parser = config_parser(
        "python -m edgeflownas.nas.supernet_eval",
        "Scores subnets of a trained supernet: BN statistics are "
        "re-estimated for each, then its EPE is measured on the validation samples.",
        EPILOG,
        used=USED_KEYS.__contains__,
    )
    group = parser.add_argument_group("this evaluation")
    group.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="run folder, or an experiment's name; else --output_dir and --experiment_name",
    )
    group.add_argument(
        "--eval_only",
        action="store_true",
        help="accepted because the specification spells it; this program only evaluates, with or without it",
    )
    group.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="which weights (default: best, the epoch with the lowest mean EPE; before the first evaluation, the last)",
    )
    what = group.add_mutually_exclusive_group()
    what.add_argument("--codes", metavar="CODE,...", help="score these codes, in digits (default: the evaluation pool)")
    what.add_argument(
        "--codes_file", metavar="FILE", help="score the codes in this file, one per line; # starts a comment"
    )
    what.add_argument(
        "--random",
        type=positive,
        metavar="N",
        help="score N random codes, drawn as whole fair cycles: balanced, and fast to score; a larger N continues a "
        "smaller one",
    )
    group.add_argument("--random_seed", type=int, metavar="S", help="seed of --random (default: 0)")
    group.add_argument(
        "--statistics",
        choices=(REESTIMATED, STORED),
        default=REESTIMATED,
        help="BN statistics: reestimated over training batches (default), or, of a run of one subnet, those that its "
        "checkpoint holds; the table then says 0 BN batches and has a name of its own",
    )
    group.add_argument(
        "--other_data",
        action="store_true",
        help="score on another data set than the run's, the one of --base_path and --list_dir: its validation samples, "
        "BN statistics from its training samples; the record says so, and the table has a name of its own",
    )
    group.add_argument("--output", metavar="FILE.csv", help=f"the table (default: {SCORES} in the run folder)")
    return parser


def requested_codes(args: argparse.Namespace, space: SearchSpace) -> Optional[List[str]]:
    """The codes that the command line names, in digits and each once; None for the pool. UserError: a wrong code."""
    if args.random_seed is not None and args.random is None:
        raise UserError("--random_seed goes with --random N")
    if args.random is not None:
        seed = args.random_seed or 0
        if not 0 <= seed < 2**32:
            raise UserError(f"--random_seed: expected 0 to {2**32 - 1}, found {seed}")
        if args.random > space.size:
            raise UserError(f"--random: expected at most {space.size}, the number of subnets, found {args.random}")
        return [to_digits(code, space) for code in random_codes(seed, args.random, space)]
    if args.codes is not None:
        return _digits([("--codes", text) for text in _split(args.codes, space)], space)
    if args.codes_file is not None:
        with os_errors(f"read {args.codes_file}"), open(args.codes_file, "rb") as handle:
            lines = handle.read().decode("utf-8-sig", "replace").splitlines()
        named = [
            (f"{args.codes_file} line {number}", line.split("#")[0].strip()) for number, line in enumerate(lines, 1)
        ]
        named = [(where, text) for where, text in named if text]
        if not named:
            raise UserError(f"{args.codes_file}: expected a code per line, found none")
        return _digits(named, space)
    return None


def _split(text: str, space: SearchSpace) -> List[str]:
    # "0,1,2,0,0,1,2,1,0" is one code, spelled with commas.
    blocks = len(space.blocks)
    return [text] if text.count(",") == blocks - 1 and len(text) < 3 * blocks else text.split(",")


def _digits(named: List[Tuple[str, str]], space: SearchSpace) -> List[str]:
    codes: Dict[str, None] = {}
    for where, text in named:
        try:
            codes[to_digits(text, space)] = None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
    return list(codes)


def main(argv: Optional[List[str]] = None) -> int:
    """Scores the requested codes that are not scored yet. Returns the exit code."""
    args = _parser().parse_args(argv)
    config, origins = configuration.load(args.config, overrides(args))
    folder = find_run(args.run) if args.run else run_folder(config)
    codes = requested_codes(args, _space_of_run(folder, args.checkpoint))
    settings = asked_settings(config, origins)
    if args.other_data and "data.base_path" not in settings:
        raise UserError("--other_data goes with --base_path, the folder of the other data set")
    choose_device(config.runtime.gpu_device, config.runtime.deterministic)
    with StopSignals() as stop:
        return _evaluate(folder, args, settings, codes, stop)


def asked_settings(config: Config, origins: Dict[str, str]) -> Dict[str, Any]:
    """The keys that a file or the command line sets, and all of `runtime.*`. Other keys come from the run."""
    values = configuration.flat(config)
    return {
        name: values[name] for name, origin in origins.items() if origin != "default" or name.startswith("runtime.")
    }


def _space_of_run(folder: str, checkpoint: str) -> SearchSpace:
    """The search space of a run, read without importing TensorFlow."""
    generation = CheckpointStore(os.path.join(folder, CHECKPOINTS)).load(checkpoint)
    return RunState.from_dict(generation.state, generation.path).space


def _evaluate(
    folder: str, args: argparse.Namespace, settings: Dict[str, Any], codes: Optional[List[str]], stop: StopSignals
) -> int:
    # Imported late, because TensorFlow takes seconds to import.
    from edgeflownas.engine.progress import Checking
    from edgeflownas.run.score_table import ScoreTable
    from edgeflownas.scoring.supernet import Interrupted, Supernet

    stored = args.statistics == STORED
    with Supernet.load(
        folder,
        args.checkpoint,
        settings,
        Checking("checking files"),
        stored_statistics=stored,
        other_data=args.other_data,
    ) as supernet:
        wanted = codes if codes is not None else [to_digits(code, supernet.space) for code in supernet.pool]
        title = _title(supernet, folder, args.checkpoint)
        print(title, flush=True)
        other = supernet.index.fingerprint if args.other_data else ""
        if other:
            print(
                f"on other data than the run's: {supernet.config.data.base_path}, fingerprint {other[:12]}", flush=True
            )
        output = args.output or os.path.join(folder, scores_name(stored, other))
        with ScoreTable(output, belongs_to(supernet, args.other_data), supernet.space) as table:
            missing = [code for code in wanted if code not in table]
            if len(missing) < len(wanted):
                print(f"{len(wanted) - len(missing)} of {len(wanted)} codes are in {output} already")
            try:
                for results in supernet.stream(missing, lambda: stop.requested, _Bar()):
                    table.add(results)
                    _print_progress(table, results, wanted)
            except (Interrupted, KeyboardInterrupt):
                print(
                    f"stopped with {sum(code in table for code in wanted)} of {len(wanted)} codes scored; the same "
                    "command continues"
                )
                return int(stop.exit_code)
            _finish(table, title, supernet.space)
    return 0


def belongs_to(supernet: Any, other_data: bool = False) -> Dict[str, Any]:
    """What determines a row besides its code: weights, settings and data."""
    evaluation, generation = supernet.config.eval, supernet.generation
    dataset, path = supernet.index.fingerprint, os.path.abspath(supernet.config.data.base_path)
    return {
        "space": supernet.space.identity(),
        "checkpoint": {
            "generation": generation.name,
            "epoch": supernet.epoch,
            "global_step": supernet.step,
            "sha256": generation.sha256,
        },
        "settings": {
            "bn_recal_batches": 0 if supernet.stored_statistics else evaluation.bn_recal_batches,
            "batch_size": evaluation.batch_size,
            "num_samples": evaluation.num_samples,
        },
        "dataset": {"other_data": path, "fingerprint": dataset} if other_data else dataset,
    }


def _title(supernet: Any, folder: str, checkpoint: str) -> str:
    note = (
        ", which is the last: nothing is evaluated yet"
        if checkpoint == "best" and supernet.generation.best is None
        else ""
    )
    return f"{folder}, checkpoint {checkpoint}{note}: epoch {supernet.epoch}, step {supernet.step}"


class _Bar:
    """A progress bar for each group of codes, on a terminal only."""

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if done == 1:
            self._bar = tqdm(total=total, desc="scoring", unit="batch", leave=False, disable=not sys.stderr.isatty())
        self._bar.update()
        if done == total:
            self._bar.close()


def _print_progress(table: Any, results: Any, wanted: List[str]) -> None:
    done = sum(code in table for code in wanted)
    for number, result in enumerate(results, done - len(results) + 1):
        print(
            "{:>{width}}/{}  {}  EPE {:.4f} px  bn_recal_batches={}".format(
                number, len(wanted), result.arch_code, result.epe, result.bn_recal_batches, width=len(str(len(wanted)))
            ),
            flush=True,
        )


def _finish(table: Any, title: str, space: SearchSpace) -> None:
    """Prints the ranking and draws the picture."""
    import numpy as np

    from edgeflownas.reporting.ranking import options_in_words
    from edgeflownas.scoring.score_plot import draw

    ranked = table.ranked()
    _print_ranking(table, ranked, space)
    mean = sum(row.epe for row in ranked) / len(ranked)
    if ratio(mean, ranked[0].zero_flow_epe) >= COLLAPSED_RATIO:
        print(
            "these subnets are no better than predicting no motion: the supernet has collapsed or has not learned yet, "
            "and their order and the fronts below mean nothing"
        )
    print(
        f"mean EPE {mean:.4f} px, zero flow {ranked[0].zero_flow_epe:.4f} px, {ranked[0].num_samples} samples, "
        + (
            f"{ranked[0].bn_recal_batches} BN batches per subnet"
            if ranked[0].bn_recal_batches
            else "stored BN statistics"
        )
    )
    doubtful = _print_fronts(table, ranked)
    if len(ranked) >= 3:
        print(options_in_words([row.arch_code for row in ranked], np.array([row.epe for row in ranked]), space))
    draw(table.plot, ranked, title, space, doubtful)
    print(f"table {table.path}\nplot  {table.plot}")


def _print_ranking(table: Any, ranked: List[Any], space: SearchSpace) -> None:
    from edgeflownas.reporting.ranking import gap_in_words
    from edgeflownas.statistics.paired import behind_best

    behind: Dict[str, str] = {}
    samples = table.samples()
    if samples is not None:
        found = behind_best(samples)
        rows = zip(table.rows, found.gap, found.error, found.level)
        behind = {row.arch_code: gap_in_words(*values) for row, *values in rows}
    print(
        "\n{:>5}  {:<{width}}  {:>9}  {:>11}  {:>14}  behind the best, px".format(
            "rank", "arch_code", "EPE px", "parameters", "multiply-adds", width=len(space.blocks)
        )
    )
    for row in ranked[:ROWS_SHOWN]:
        print(
            f"{row.rank:>5}  {row.arch_code}  {row.epe:>9.4f}  {row.parameters:>11,}  {row.multiply_adds:>14,}  "
            f"{behind.get(row.arch_code, 'unknown')}"
        )
    if len(ranked) > ROWS_SHOWN:
        print(f"  ... and {len(ranked) - ROWS_SHOWN} more")


def _print_fronts(table: Any, ranked: List[Any]) -> Dict[str, List[str]]:
    """Prints the Pareto fronts. Returns, for each cost, the codes whose lead is inside its paired error."""
    from edgeflownas.scoring.score_plot import COSTS, front, unsure

    samples = table.samples()
    place = {row.arch_code: number for number, row in enumerate(table.rows)}
    doubtful = {}
    for label, cost in COSTS.items():
        best = front(ranked, cost)
        codes = [row.arch_code for row in best]
        doubtful[label] = [] if samples is None else unsure(best, {code: samples[place[code]] for code in codes})
        shown = [f"{code}{'~' if code in doubtful[label] else ''}" for code in codes[:FRONT_SHOWN]]
        more = f" and {len(codes) - FRONT_SHOWN} more" if len(codes) > FRONT_SHOWN else ""
        print(f"Pareto front of EPE and {label}, cheapest first: {' '.join(shown)}{more}")
    if any(doubtful.values()):
        print("~ its lead over the next cheaper one of the front is inside its paired error")
    return doubtful


if __name__ == "__main__":
    run_cli(main)
