"""The strict-fairness sampler: the codes that step `t` trains, and counts of how often each option was trained.

A fair cycle has P = `space.num_paths` codes, in which every block uses each of its options equally often. For a block
of P options this is a uniform permutation. Sampling is a pure function of (seed, t), without any state. Built on `rng`.
Source: FairNAS (Chu et al., 2019), strict fairness.

    python -m edgeflownas.nas.fair_sampler --cycles 300 --seed 42 --check
"""

import hashlib
import os
import subprocess
import sys
from typing import Any, Dict, Iterable, List, Optional, Tuple

import numpy as np

from edgeflownas.arguments import Parser
from edgeflownas.config import KEYS
from edgeflownas.errors import UserError, run_cli
from edgeflownas.files import atomic_write_json, os_errors
from edgeflownas.nas.arch_codec import parse
from edgeflownas.nas.search_space import SearchSpace, get_space
from edgeflownas.rng import stream

DEFAULT_OUTPUT = "outputs/supernet/fair_sampler_check.json"
_SECOND_PROCESS_SECONDS = 300
_PROBLEMS_SHOWN = 10


def fair_cycle(seed: int, t: int, space: SearchSpace, purpose: str = "cycle") -> np.ndarray:
    """The codes of fair cycle `t`, int32 [P, blocks]: a row per path, a column per block.

    Each cycle has its own generator, `RandomState([seed, STREAMS[purpose], t])`, which draws one permutation of P
    per block, in table order. Raises ValueError if `seed` or `t` is negative, TypeError if it is not an integer.
    """
    rng = stream(purpose, seed, t)
    # A block with n < P options uses permutation % n: each option occurs P/n times, in uniformly random order.
    columns = [np.array(block.values)[rng.permutation(space.num_paths) % len(block.values)] for block in space.blocks]
    return np.stack(columns, axis=1).astype(np.int32)


def uniform_paths(seed: int, t: int, space: SearchSpace) -> np.ndarray:
    """P independent, uniform codes for step `t`, int32 [P, blocks]: the single-path-one-shot baseline."""
    rng = stream("uniform", seed, t)
    # The dtype is fixed, because the drawn numbers depend on it.
    draws = [rng.randint(options, size=space.num_paths, dtype=np.int32) for options in space.num_options]
    columns = [np.array(block.values, np.int32)[draw] for block, draw in zip(space.blocks, draws)]
    return np.stack(columns, axis=1)


def sequence_digest(seed: int, cycles: int, space: SearchSpace) -> str:
    """SHA-256 (hex) of fair cycles 0 .. `cycles` - 1 as little-endian int32 [cycles, P, blocks], C order."""
    return _digest(fair_cycle(seed, t, space) for t in range(cycles))


def _digest(drawn: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for codes in drawn:
        digest.update(codes.astype("<i4").tobytes(order="C"))
    return digest.hexdigest()


class FairnessCounts:
    """Counts how often each option of each block was trained, in Python ints, which never overflow."""

    def __init__(self, space: SearchSpace, counts: Optional[Dict[str, List[int]]] = None) -> None:
        """Starts from `counts` (as `as_dict` returns them) or from zero. ValueError if they do not fit the space."""
        self._space = space
        self._counts = [[0] * options for options in space.num_options]
        if counts is not None:
            self._counts = _checked_counts(counts, space)

    @classmethod
    def from_dict(cls, counts: Dict[str, List[int]], space: SearchSpace) -> "FairnessCounts":
        """The inverse of `as_dict`. Raises ValueError if the counts do not fit the space."""
        return cls(space, counts)

    def add(self, codes: Iterable[Any]) -> None:
        """Counts the codes [n, blocks]. ValueError for a wrong code; no code is counted then."""
        parsed = [parse(code, self._space) for code in codes]
        for code in parsed:
            for counts, block, value in zip(self._counts, self._space.blocks, code):
                counts[block.values.index(value)] += 1

    def gap(self) -> int:
        """`fairness_gap`: the largest over all blocks of (most minus least used option's count)."""
        return max(max(counts) - min(counts) for counts in self._counts)

    def as_dict(self) -> Dict[str, List[int]]:
        """A copy of the counts, {block name: [uses of each option]}, in code order."""
        return {name: list(counts) for name, counts in zip(self._space.names, self._counts)}


def _checked_counts(counts: Any, space: SearchSpace) -> List[List[int]]:
    if not isinstance(counts, dict) or set(counts) != set(space.names):
        found = ", ".join(map(str, counts)) if isinstance(counts, dict) else type(counts).__name__
        raise ValueError(f"fairness counts: expected {', '.join(space.names)}, found {found:.200}")
    for block in space.blocks:
        uses, options = counts[block.name], len(block.values)
        if not isinstance(uses, (list, tuple)) or len(uses) != options or not all(map(_is_count, uses)):
            raise ValueError(
                f"fairness counts of block {block.name}: expected {options} whole numbers "
                f"from 0, found {str(uses):.100}"
            )
    return [list(counts[name]) for name in space.names]


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0  # a bool is not a count


# ---- the check behind `--check`


def check(cycles: int, seed: int, space: SearchSpace) -> Dict[str, Any]:
    """Checks that cycles 0 .. `cycles` - 1 are fair and reproducible. Returns the record for the check file."""
    drawn = [fair_cycle(seed, t, space) for t in range(cycles)]
    counts = FairnessCounts(space)
    gaps, problems = _count(drawn, counts, space)
    if any(not np.array_equal(fair_cycle(seed, t, space), drawn[t]) for t in reversed(range(cycles))):
        problems.append("drawn again, in reverse order, a cycle differs: the sampler keeps a state")
    digest = _digest(drawn)
    second = _digest_of_second_process(cycles, seed, space)
    if second != digest:
        problems.append(f"a second process gives the sequence {second}, this one {digest}")
    return {
        "passed": not problems,
        "problems": problems,
        "cycles": cycles,
        "seed": seed,
        "space": space.identity(),
        "num_paths": space.num_paths,
        "fairness_gap": counts.gap(),
        "largest_gap_after_any_cycle": max(gaps),
        "counts": counts.as_dict(),
        "sequence_sha256": digest,
        "second_process_sha256": second,
        "byte_identical": second == digest,
    }


def _count(drawn: List[np.ndarray], counts: FairnessCounts, space: SearchSpace) -> Tuple[List[int], List[str]]:
    """Adds each cycle to `counts`. Returns (fairness_gap after each cycle, problems)."""
    gaps: List[int] = []
    problems: List[str] = []
    want = (space.num_paths, len(space.blocks))
    for t, codes in enumerate(drawn):
        if codes.shape != want or codes.dtype != np.int32:
            problems.append(f"cycle {t}: {codes.dtype} {codes.shape} instead of int32 {want}")
        alone = FairnessCounts(space)
        try:
            alone.add(codes)
            counts.add(codes)
        except ValueError as error:
            problems.append(f"cycle {t}: {error}")
        gaps.append(counts.gap())
        if alone.gap() or gaps[-1]:
            problems.append(f"cycle {t}: fairness_gap {alone.gap()} within it, {gaps[-1]} after it, not 0")
    return gaps, problems


def _digest_of_second_process(cycles: int, seed: int, space: SearchSpace) -> str:
    """The digest printed by a new interpreter with another hash seed, or the reason why it printed none."""
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed, PYTHONPATH=search_path)
    command = [sys.executable, "-m", "edgeflownas.nas.fair_sampler", f"--cycles={cycles}", f"--seed={seed}"]
    command.append(f"--space={space.name}")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECOND_PROCESS_SECONDS)
    except subprocess.TimeoutExpired:
        return f"nothing in {_SECOND_PROCESS_SECONDS} seconds"
    if done.returncode:
        last_line = (done.stderr.strip() or "no message").splitlines()[-1]
        return f"nothing (exit code {done.returncode}: {last_line})"
    return done.stdout.strip()


# ---- command line


def _print_record(record: Dict[str, Any], output: str) -> None:
    for name, counts in record["counts"].items():
        print(f"{name:<8} {counts}")
    print(
        f"fairness_gap {record['fairness_gap']} after {record['cycles']} cycles of seed {record['seed']}, "
        f"{record['largest_gap_after_any_cycle']} at most after any single cycle"
    )
    print(f"sha256 {record['sequence_sha256']} of the sequence")
    print(f"sha256 {record['second_process_sha256']} in a second process with another hash seed")
    for problem in record["problems"][:_PROBLEMS_SHOWN]:
        print(f"problem: {problem}")
    verdict = "passed" if record["passed"] else "FAILED"
    print(f"fair_sampler check {verdict}: {len(record['problems'])} problems; record in {output}")


def main(argv: Optional[List[str]] = None) -> int:
    """Entry point. Returns 0, or 1 if the check fails."""
    parser = Parser("python -m edgeflownas.nas.fair_sampler", "Check a sequence of fair cycles, or print its SHA-256.")
    parser.add_argument("--cycles", type=int, default=300, help="how many cycles (default 300)")
    parser.add_argument("--seed", type=int, default=42, help="train.arch_seed of a run (default 42)")
    parser.add_argument(
        "--check", action="store_true", help="check fairness after each cycle, and that another process draws the same"
    )
    parser.add_argument("--space", default=KEYS["network.space"].default, help="search space (default: %(default)s)")
    parser.add_argument("--output", default=DEFAULT_OUTPUT, help="check's record (default %(default)s)")
    args = parser.parse_args(argv)
    if args.cycles < 1:
        raise UserError(f"--cycles: expected at least 1, found {args.cycles}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed: expected 0 to {2**32 - 1}, found {args.seed}")
    space = get_space(args.space)
    if not args.check:
        print(sequence_digest(args.seed, args.cycles, space))
        return 0
    record = check(args.cycles, args.seed, space)
    with os_errors(f"make the folder of {args.output}"):
        os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
    atomic_write_json(args.output, record)
    _print_record(record, args.output)
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    run_cli(main)
