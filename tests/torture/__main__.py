"""`python -m tests.torture [--kills N] [--rank_kills N] [--seed S]`: kills a training run over and over, then one of
two ranks, then lets a run live long."""

import argparse
import random
import sys
import tempfile
import time

from edgeflownas.errors import UserError, run_cli
from tests.reliability import tiny
from tests.torture.kills import COMMIT, CYCLES, ROWS, START, Failure, torture

SAMPLES = 24  # 12 steps an epoch, with a commit at each: most of a process's life is not its start


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=100, metavar="N", help="SIGKILLs of a real process (default: %(default)s)"
    )
    parser.add_argument(
        "--rank_kills",
        type=int,
        default=30,
        metavar="N",
        help="SIGKILLs of one of two ranks, where Horovod is installed (default: %(default)s)",
    )
    parser.add_argument(
        "--cycles",
        type=int,
        default=2000,
        metavar="N",
        help="cycles of the long run, 20 evaluations in all (default: %(default)s); 0: none",
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="of the moments of the kills (default: drawn and printed)"
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    data, began = tiny.make_data(tempfile.mkdtemp(prefix="torture-data-"), SAMPLES), time.monotonic()
    print(f"seed {seed}", flush=True)
    try:
        if arguments.kills:
            tally = torture(data, arguments.kills, seed, lambda line: print(line, flush=True))
            for where in (COMMIT, ROWS, CYCLES, START):
                print(f"{tally[where]:5d}  {where}")
            print(
                "{:5d}  kills in {} runs, {:.0f} s: every resume worked, every end has the same bytes".format(
                    sum(tally.values()) - tally["runs"], tally["runs"], time.monotonic() - began
                ),
                flush=True,
            )
        if arguments.rank_kills:
            _kill_ranks(arguments.rank_kills, seed)
        if arguments.cycles:
            _live_long(arguments.cycles)
    except Failure as failure:
        raise UserError(f"torture, seed {seed}: {failure}")
    return 0


def _kill_ranks(kills, seed):
    from gates.clauses import NO_HOROVOD, SKIPS
    from tests.torture.ranks import torture_ranks

    if SKIPS:
        print(f"no kills of ranks: {NO_HOROVOD}")
        return
    began, data = time.monotonic(), tiny.make_data(tempfile.mkdtemp(prefix="torture-ranks-data-"))
    runs = torture_ranks(data, kills, seed, lambda line: print(line, flush=True))
    print(f"{kills} kills of one of two ranks in {runs} runs, {time.monotonic() - began:.0f} s", flush=True)


def _live_long(cycles):
    """Prints what a run of so many cycles and 20 evaluations holds; `Failure` if it grows."""
    from tests.torture.growth import GROWTH_MIB, growth, measure

    seen = measure(tempfile.mkdtemp(prefix="torture-long-"), cycles, 20)
    operations, mib = growth(seen)
    print(
        f"{cycles} cycles, {len(seen)} evaluations: graph of {seen[-1][0]} operations, {operations:+d}; "
        f"{seen[-1][1]:.1f} MiB, {mib:+.1f} since a quarter of the run"
    )
    if operations or mib > GROWTH_MIB:
        raise Failure(f"a long run grows: want no operation and at most {GROWTH_MIB} MiB")


if __name__ == "__main__":
    run_cli(main, sys.argv[1:])
