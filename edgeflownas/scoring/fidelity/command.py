"""The command `edgeflownas fidelity`: plan, run, report, bn. Built on the modules of these names and `work`."""

import argparse
import os
import re
import sys
from typing import Any, List, Optional

from edgeflownas.arguments import Parser, positive
from edgeflownas.device import choose_device
from edgeflownas.engine.progress import duration
from edgeflownas.engine.signals import StopSignals
from edgeflownas.errors import UserError, run_cli
from edgeflownas.scoring.fidelity import bn
from edgeflownas.scoring.fidelity.plan import PLAN, Plan, find_plan, make_plan, read_plan, same_plan, write_plan
from edgeflownas.scoring.fidelity.study import read_study

STEPS = 8  # measured for the estimate
EPILOG = """\
A study file names the supernet's configuration, the codes, the seeds and the budgets; see configs/fidelity_quick.yaml.

examples:
  fix what will be compared, and see how long it takes
    plan configs/fidelity_quick.yaml
  train and score what is missing, two at a time; the same command goes on after any stop
    run configs/fidelity_quick.yaml --workers 2 --unsigned
  one task of a SLURM array of 20
    run configs/fidelity_quick.yaml --task $SLURM_ARRAY_TASK_ID --of 20
  the report, from the folder alone
    report outputs/fidelity/quick
  how much of a ranking is BN re-estimation
    bn outputs/supernet

exit codes:
  0   done
  1   a training run failed
  2   an error that you can fix, explained in one line
  3   runs are still missing: the same command goes on (run)
  130, 138, 143   stopped by SIGINT, SIGUSR1, SIGTERM: the same command goes on
"""
MISSING = 3


def _parser() -> Parser:
    parser = Parser(
        "python -m edgeflownas.scoring.fidelity.command",
        "Compares a supernet's ranking with stand-alone training, by a protocol that is fixed before anything is "
        "trained.",
        EPILOG,
    )
    commands = parser.add_subparsers(dest="command", metavar="plan|run|report|bn")
    commands.required = True
    plan = _sub(parser, commands, "plan", "fix codes, seeds, budgets, split and statistics; estimate the time")
    plan.add_argument("study", metavar="STUDY.yaml")
    plan.add_argument(
        "--steps",
        type=_count,
        default=STEPS,
        metavar="N",
        help="steps that are measured for the estimate; 0: no estimate (default: %(default)s)",
    )
    run = _sub(parser, commands, "run", "train and score what is missing")
    run.add_argument("study", metavar="STUDY", help="STUDY.yaml or the study's folder")
    run.add_argument("--workers", type=positive, default=1, metavar="N", help="trainers at a time (default: 1)")
    run.add_argument("--task", type=_count, metavar="I", help="take only the I-th of --of shares, from 0")
    run.add_argument("--of", type=positive, metavar="N", help="number of shares")
    run.add_argument("--unsigned", action="store_true", help="train although gate 3 has no sign-off; manifests say so")
    report = _sub(parser, commands, "report", "write the report; needs the folders only")
    report.add_argument("study", metavar="STUDY", help="STUDY.yaml or the study's folder")
    table = _sub(parser, commands, "bn", "rank change of a run's pool with the number of BN batches")
    table.add_argument("run", metavar="RUN", help="run folder")
    table.add_argument("--checkpoint", choices=("best", "last"), default="last", help="default: %(default)s")
    table.add_argument(
        "--batches", default=",".join(map(str, bn.BATCHES)), metavar="N,...", help="default: %(default)s"
    )
    table.add_argument("--gpu_device", default="0", metavar="N", help="GPU number; -1: CPU (default: 0)")
    return parser


def _sub(parent: Parser, commands: Any, name: str, text: str) -> Parser:
    made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    made.prog = f"{parent.prog} {name}"
    return made


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text!r}")
    return int(text)


def main(argv: Optional[List[str]] = None) -> int:
    """Runs one of the sub-commands. Returns the exit code."""
    args = _parser().parse_args(argv)
    return {"plan": _plan, "run": _run, "report": _report, "bn": _bn}[args.command](args)


def _plan(args: argparse.Namespace) -> int:
    from edgeflownas.scoring.fidelity.estimate import estimate

    study = read_study(args.study)
    made = make_plan(study)
    path = os.path.join(study.output, PLAN)
    if os.path.exists(path):
        standing = read_plan(study.output)
        changed = same_plan(made, standing)
        if changed:
            raise UserError(
                f"{path}: a plan does not change once it stands, and {', '.join(changed)} would; put the study back, "
                "or name another output"
            )
        print(f"{path} stands already, and says the same")
        made = standing
    else:
        made = write_plan(made, estimate(made, args.steps) if args.steps else None)
    _describe(made)
    return 0


def _describe(plan: Plan) -> None:
    document = plan.document
    print(f"plan {os.path.join(plan.folder, PLAN)}, digest {plan.digest[:16]}")
    print(f"codes {len(plan.counted)} in the statistic, {len(plan.codes) - len(plan.counted)} beside it")
    print(
        f"runs  {len(plan.runs)}: " + ", ".join(f"{len(plan.of_kind(k))} {k}" for k in ("strict", "uniform", "alone"))
    )
    print("split {training} training, {watched} watched, {scored} scored ({source})".format(**document["split"]))
    if document.get("estimate"):
        hours = document["estimate"]["hours"]
        print(f"time  about {duration(3600 * hours)} for one worker that has the machine alone")


def _run(args: argparse.Namespace) -> int:
    from edgeflownas.scoring.fidelity.work import Work, left_over

    if (args.task is None) != (args.of is None) or (args.of is not None and args.task >= args.of):
        raise UserError("--task I goes with --of N, and I is one of 0 to N-1")
    plan = find_plan(args.study)
    with StopSignals() as stop:
        work = Work(plan, args.task or 0, args.of or 1, args.unsigned, lambda line: print(line, flush=True))
        outcome = work.run(args.workers, stop)
        if stop.requested:
            print("stopped; the same command goes on")
            return int(stop.exit_code)
    for line in outcome.failed:
        print(f"failed: {line}", file=sys.stderr)
    for name in outcome.busy:
        print(f"{name}: another process has it")
    missing = left_over(plan, outcome, work.share)
    print(missing or f"all {len(work.share)} runs are trained and scored; edgeflownas fidelity report {plan.folder}")
    return 1 if outcome.failed else MISSING if missing else 0


def _report(args: argparse.Namespace) -> int:
    from edgeflownas.scoring.fidelity.report import write_report

    plan = find_plan(args.study)
    path, verdict = write_report(plan)
    print("{}\n{}\n{}".format(verdict, path, path.with_suffix(".html")))
    return 0


def _bn(args: argparse.Namespace) -> int:
    words = args.batches.split(",")
    if not all(re.fullmatch(r"[0-9]{1,6}", word) and int(word) > 0 for word in words) or len(words) < 2:
        raise UserError(f"--batches: expected at least two whole numbers such as 8,32,128, found {args.batches!r}")
    choose_device(args.gpu_device)
    print(bn.words(bn.table(args.run, args.checkpoint, sorted({int(word) for word in words}))))
    return 0


if __name__ == "__main__":
    run_cli(main)
