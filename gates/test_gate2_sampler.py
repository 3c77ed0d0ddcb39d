"""Gate 2: the fair sampler, its counts, and the independent paths that are its control."""

import hashlib
import itertools
import json

import numpy as np
import pytest

from edgeflownas.nas import fair_sampler
from edgeflownas.nas.search_space import get_space
from gates import chi_square, spaces
from gates.asserts import assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import assert_succeeded, run
from gates.package_objects import package_space

SPACE = spaces.chosen()
BLOCKS = SPACE.names


def fair_cycle(seed, t):
    """Codes of cycle `t`, [paths, blocks]."""
    return fair_sampler.fair_cycle(seed, t, package_space())


@pytest.fixture(scope="module")
def cycles():
    """Cycles 0..299 of seed 42, [300, paths, blocks]."""
    return np.stack([fair_cycle(42, t) for t in range(300)])


@clause("G2.8")
def test_each_option_is_used_equally_often(cycles):
    for position, block in enumerate(SPACE.blocks):
        count = len(block.options)
        got = [int(np.sum(cycles[:, :, position] == option)) for option in range(count)]
        want = [300 * SPACE.paths // count] * count  # 300 each in v1
        assert_equal(what=f"uses of {block.name}'s options", got=got, want=want, seed=42)


@clause("G2.9")
def test_gap_is_zero_after_every_cycle(cycles):
    """Counts the options itself and with the project's counter, which must also report a gap if there is one."""
    counts = fair_sampler.FairnessCounts(package_space())
    uses = [np.zeros(count, int) for count in SPACE.counts]
    for t, codes in enumerate(cycles):
        for code in codes:
            for block, value in zip(uses, code):
                block[value] += 1
        counts.add(codes)
        gaps = {"own count": max(int(block.max() - block.min()) for block in uses), "fairness_gap": counts.gap()}
        assert_equal(what="gap", got=gaps, want={"own count": 0, "fairness_gap": 0}, seed=42, cycle=t)
    want = {name: block.tolist() for name, block in zip(BLOCKS, uses)}
    assert_equal(what="uses after 300 cycles", got=counts.as_dict(), want=want)
    for space in spaces.SPACES.values():
        assert_counted(space)


def assert_counted(space):
    """Asserts what the project's counter says of a fair cycle, of parts of one and of equal codes, for a named space:
    in one whose blocks have different numbers of options, equal counts are not a gap of 0."""
    __tracebackhide__ = True
    codes = space.fair_codes()
    counts = fair_sampler.FairnessCounts(get_space(space.name))
    for part, want in ((codes, 0), (codes[:2], 1), (codes[:1], 2)):
        counts.add(part)
        assert_equal(what="fairness_gap", got=counts.gap(), want=want, space=space.name, codes_added=len(part))
    counts = fair_sampler.FairnessCounts(get_space(space.name))  # independent paths of one cycle may have equal codes
    first, second = codes[:2]
    counts.add(np.stack([first, second, first, first]))
    want = {
        name: [3 * (value == first[position]) + (value == second[position]) for value in range(space.counts[position])]
        for position, name in enumerate(space.names)
    }
    assert_equal(what="uses of three equal codes and another", got=counts.as_dict(), want=want, space=space.name)
    want = max(max(uses) - min(uses) for uses in want.values())
    assert_equal(what="fairness_gap after them", got=counts.gap(), want=want, space=space.name)


@clause("G2.10")
def test_sequence_is_the_same_in_every_process(tmp_path, cycles):
    program = (
        "import sys; from edgeflownas.nas.fair_sampler import fair_cycle; "
        f"from edgeflownas.nas.search_space import get_space; space = get_space('{SPACE.name}'); "
        "sys.stdout.write(''.join(fair_cycle(42, t, space).tobytes().hex() for t in range(300)))"
    )
    want = cycles.tobytes().hex()
    for hash_seed in ("0", "1", "4294967295", "random"):
        done = run(f'python -c "{program}"', tmp_path, {"PYTHONHASHSEED": hash_seed})
        assert_succeeded(done)
        same = len(done.out) == len(want) and done.out == want
        assert_true(
            what="bytes of 300 cycles", ok=same, got="others", want="those of this process", hash_seed=hash_seed
        )


@clause("G2.11")
def test_sequence_has_the_recorded_digest(cycles):
    assert_equal(
        what="shape and type", got=(cycles.shape, cycles.dtype.name), want=((300, SPACE.paths, len(BLOCKS)), "int32")
    )
    got = hashlib.sha256(cycles.astype("<i4").tobytes()).hexdigest()
    assert_equal(what="SHA-256", got=got, want=SPACE.sequence, seed=42, cycles=300)


@clause("G2.12")
def test_different_seeds_give_different_sequences():
    seeds = list(range(100)) + [2**31, 2**32 - 1]
    sequences = {np.stack([fair_cycle(seed, t) for t in range(5)]).tobytes() for seed in seeds}
    assert_equal(what="different sequences", got=len(sequences), want=len(seeds))


@clause("G2.12b")
def test_a_cycle_is_a_pure_function_of_seed_and_step(cycles):
    for t in (299, 0, 150, 7, 7, 298):
        assert_equal(what="cycle alone, out of order", got=fair_cycle(42, t), want=cycles[t], step=t)
    distinct = len({codes.tobytes() for codes in cycles})
    assert_true(what="different cycles", ok=distinct >= 299, got=distinct, want="299 or 300")


@pytest.fixture(scope="module")
def arrangements():
    """{block: (number of the arrangement in each of 6000 cycles, number of arrangements)}."""
    drawn = np.stack([fair_cycle(7, t) for t in range(6000)])
    numbers = {}
    for position, block in enumerate(SPACE.blocks):
        column = sorted(list(range(len(block.options))) * (SPACE.paths // len(block.options)))
        kinds = {order: i for i, order in enumerate(sorted(set(itertools.permutations(column))))}
        of_block = [kinds.get(tuple(one), len(kinds)) for one in drawn[:, :, position].tolist()]
        numbers[block.name] = (np.array(of_block), len(kinds))
    return numbers


@pytest.fixture(scope="module")
def uniform():
    """The uniform paths of 2000 cycles, [cycles, paths, blocks]."""
    return np.stack([fair_sampler.uniform_paths(7, t, package_space()) for t in range(2000)])


# A correct sampler fails a test of a clause with a chance below 1e-6, divided among that test's chi-square figures.
FALSE_ALARM = 1e-6


def assert_equally_often(what, drawn, kinds, figures):
    """Asserts that the numbers `drawn`, each below `kinds`, come from equal chances."""
    __tracebackhide__ = True
    p, want = chi_square.p_value(np.bincount(drawn, minlength=kinds)), FALSE_ALARM / figures
    assert_true(what=what, ok=p >= want, got=p, want=f"at least {want:g}")


@clause("G2.13a")
def test_all_arrangements_occur_equally_often(arrangements, uniform):
    """Uniform paths need not be permutations: each path has every option equally often."""
    for name, (drawn, kinds) in arrangements.items():
        counts = np.bincount(drawn, minlength=kinds)
        assert_equal(what="arrangements of " + name, got=int(np.sum(counts > 0)), want=kinds, counts=counts.tolist())
        assert_equally_often("p of equal chances of " + name, drawn, kinds, len(BLOCKS))
    for (position, name), path in itertools.product(enumerate(BLOCKS), range(SPACE.paths)):
        assert_equally_often(
            f"p of equal chances of {name} in uniform path {path}",
            uniform[:, path, position],
            SPACE.counts[position],
            len(BLOCKS) * SPACE.paths,
        )


@clause("G2.13b")
def test_arrangements_of_different_blocks_are_independent(arrangements, uniform):
    """Tests all pairs of blocks, by the first path's options and by whole cycles. No cycle repeats the previous one.
    Of uniform paths, tests all pairs of a block in a path with any other."""
    pairs = list(itertools.combinations(BLOCKS, 2))
    for first, second in pairs:
        (a, kinds_a), (b, kinds_b) = arrangements[first], arrangements[second]
        joint = np.bincount(a * kinds_b + b, minlength=kinds_a * kinds_b)
        # Cells with fewer than five counts on average say little, so arrangements are merged into six groups.
        groups = [np.minimum(np.arange(kinds) * 6 // kinds, 5) for kinds in (kinds_a, kinds_b)]
        table = np.zeros((6, 6))
        np.add.at(table, (groups[0].repeat(kinds_b), np.tile(groups[1], kinds_a)), joint[: kinds_a * kinds_b])
        sizes = np.outer(*[np.bincount(group, minlength=6) for group in groups]) / (kinds_a * kinds_b)
        statistic = float(np.sum((table - 6000 * sizes) ** 2 / (6000 * sizes)))
        p, want = chi_square.tail(statistic, 35), FALSE_ALARM / len(pairs)
        assert_true(what=f"p of independence of {first} and {second}", ok=p >= want, got=p, want=f"at least {want:g}")
    drawn = np.stack([numbers for numbers, _ in arrangements.values()], axis=1)
    repeats = int(np.sum(np.all(drawn[1:] == drawn[:-1], axis=1)))
    assert_le(what="cycles that repeat the one before", got=repeats, want=1)  # chance of two: below 1e-6
    places = list(itertools.product(range(SPACE.paths), range(len(BLOCKS))))
    pairs = list(itertools.combinations(places, 2))
    for (path, block), (other_path, other) in pairs:
        options = SPACE.counts[other]
        assert_equally_often(
            f"p of independence of {BLOCKS[block]} in uniform path {path} and {BLOCKS[other]} in path {other_path}",
            uniform[:, path, block] * options + uniform[:, other_path, other],
            SPACE.counts[block] * options,
            len(pairs),
        )
    repeats = int(np.sum(np.all(uniform[1:] == uniform[:-1], axis=(1, 2))))
    assert_equal(what="uniform cycles that repeat the one before", got=repeats, want=0)


@clause("G2.14")
def test_fair_sampler_command(tmp_path):
    done = run("python -m edgeflownas.nas.fair_sampler --cycles 300 --seed 42 --check" + spaces.flag(), tmp_path)
    assert_succeeded(done)
    assert_contains(what="verdict", got=done.out.splitlines()[-1], want="fair_sampler check passed")
    path = tmp_path / "outputs" / "supernet" / "fair_sampler_check.json"
    assert_true(what="check file", ok=path.is_file(), got="none", want=str(path.relative_to(tmp_path)))
    record = json.loads(path.read_text(encoding="utf-8"))
    want = {
        "passed": True,
        "cycles": 300,
        "seed": 42,
        "fairness_gap": 0,
        "sequence_sha256": SPACE.sequence,
        "counts": {name: [300 * SPACE.paths // n] * n for name, n in zip(BLOCKS, SPACE.counts)},
    }
    assert_equal(what="record", got={key: record.get(key) for key in want}, want=want)
