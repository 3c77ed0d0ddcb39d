"""Checks a run folder: its manifest and its other files, against each other and against the specification.

    python -m edgeflownas.nas.check_manifest --path outputs/supernet/train_manifest.json

Prints a line per check. Changes nothing. Built on `RunFolder` and the check modules, without TensorFlow.
"""

import os
from typing import Callable, List, NamedTuple, Optional, Tuple

from edgeflownas.arguments import Parser
from edgeflownas.checks import checkpoints, cycles, evaluations, manifest
from edgeflownas.checks.folder import RunFolder, Wrong, wrong_cell
from edgeflownas.errors import UserError, run_cli
from edgeflownas.run.folder import MANIFEST, find_run
from edgeflownas.run.tables import WrongCell

DEFAULT_PATH = "outputs/supernet/" + MANIFEST


class Check(NamedTuple):
    """A named check. `function(run)` returns what it found, as text, or raises `Wrong` or `UserError`."""

    name: str
    function: Callable[[RunFolder], str]


CHECKS = (
    Check("manifest: fields", manifest.fields),
    Check("manifest: config_hash recomputes", manifest.config_hash),
    Check("manifest: origins of the configuration", manifest.config_origins),
    Check("manifest: agrees with its configuration", manifest.agreement),
    Check("manifest: steps and epochs", manifest.schedule),
    Check("manifest: git commit", manifest.commit),
    Check("manifest: versions, device, command", manifest.environment),
    Check("manifest: data set", manifest.dataset),
    Check("manifest: network", manifest.network),
    Check("manifest: gates", manifest.gates),
    Check("manifest: status", manifest.status),
    Check("manifest: times and resumes", manifest.times),
    Check("fairness: counts", cycles.fairness),
    Check("fairness: gap at every evaluation", cycles.fairness_gaps),
    Check("steps: none missing, none twice", cycles.step_rows),
    Check("steps: learning rate", cycles.learning_rate),
    Check("steps: gradient clip", cycles.gradient_clip),
    Check("steps: losses", cycles.losses),
    Check("evaluations: pool", evaluations.pool_file),
    Check("evaluations: none missing, none twice", evaluations.history_rows),
    Check("evaluations: done as configured", evaluations.history_settings),
    Check("evaluations: subnets and ranks", evaluations.subnets),
    Check("evaluations: EPE per sample", evaluations.epe_samples),
    Check("evaluations: mean and std", evaluations.mean_and_std),
    Check("evaluations: zero flow", evaluations.zero_flow),
    Check("evaluations: best", evaluations.best_columns),
    Check("evaluations: early stop", evaluations.early_stop),
    Check("evaluations: training columns", cycles.epoch_summaries),
    Check("checkpoints: last", checkpoints.last_checkpoint),
    Check("checkpoints: best", checkpoints.best_checkpoint),
    Check("checkpoints: names", checkpoints.prefixes),
    Check("checkpoints: state", checkpoints.stored_state),
    Check("checkpoints: lengths of the tables", checkpoints.lengths),
    Check("folder: files", checkpoints.files),
)


class Outcome(NamedTuple):
    """The result of a check; `text` says what was found, and after a failure also what was wanted."""

    name: str
    passed: bool
    text: str


def run_checks(manifest_path: str) -> Tuple[Outcome, ...]:
    """Runs every check on the run of this manifest. UserError if the manifest cannot be read."""
    run = RunFolder(manifest_path)
    outcomes: List[Outcome] = []
    for check in CHECKS:
        try:
            outcomes.append(Outcome(check.name, True, check.function(run)))
        except WrongCell as error:
            outcomes.append(Outcome(check.name, False, str(wrong_cell(error))))
        except (Wrong, UserError) as error:
            outcomes.append(Outcome(check.name, False, str(error)))
    return tuple(outcomes)


def main(argv: Optional[List[str]] = None) -> int:
    """Prints the outcomes. Returns 0, or 1 if a check failed."""
    parser = Parser(
        "python -m edgeflownas.nas.check_manifest",
        "Check a run folder: manifest, fairness counts, histories and checkpoints, each by itself and "
        "against the others. A line per check says what was found; a failed one also what was wanted. "
        "Exit code 0: all is right; 1: a check failed; 2: the manifest cannot be read.",
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder, or an experiment's name")
    parser.add_argument("--path", help=f"the same by the run's manifest (default: {DEFAULT_PATH})")
    args = parser.parse_args(argv)
    if args.run and args.path:
        raise UserError("RUN and --path name the same; give one of them")
    path = os.path.join(find_run(args.run), MANIFEST) if args.run else args.path or DEFAULT_PATH
    outcomes = run_checks(path)
    for outcome in outcomes:
        print("{:<4}  {}: {}".format("ok" if outcome.passed else "FAIL", outcome.name, outcome.text))
    failed = sum(not outcome.passed for outcome in outcomes)
    verdict = f"FAILED: {failed} of {len(outcomes)} checks" if failed else f"passed: {len(outcomes)} checks"
    print(f"check_manifest {verdict}, {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_cli(main)
