"""The fair sampler against plain references: exact fairness, recorded bytes, uniformity, independence, purity; its
command.

The chi-square tests run on fixed seeds, so they pass or fail for good; were the seeds random, a right sampler would
fail one of them less than once in 10^6 (each of the at most 100 statistics has a limit at 10^-9).
"""

import hashlib
import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflownas import rng
from edgeflownas.errors import UserError
from edgeflownas.nas import fair_sampler
from edgeflownas.nas.fair_sampler import FairnessCounts, fair_cycle, sequence_digest, uniform_paths
from tests.nas.nas_spaces import MIXED, SPACES, V1, codes_of

# Recorded on both stacks; a change of any of them changes every run.
CYCLES_300_SEED_42 = "59168872541a2c9e636d7d075fde6009f3e42a0a6cc4b86a863235ecb556fe18"
UNIFORM_300_SEED_42 = "992cfdd501d7fed62aa41f91608c153c897f5ab7d0b79e52f70e1b159652ee8a"

SEEDS = st.integers(0, 2**32 - 1)
STEPS = st.integers(0, 2**32 - 1)


# ---- fairness and purity


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
@given(seed=SEEDS, t=STEPS)
def test_a_cycle_uses_every_option_of_every_block_equally_often(space, seed, t):
    codes = fair_cycle(seed, t, space)
    assert codes.shape == (space.num_paths, len(space.blocks)) and codes.dtype == np.int32
    for column, options in zip(codes.T, space.num_options):
        assert sorted(column) == sorted(list(range(options)) * (space.num_paths // options))


@given(seed=SEEDS, t=STEPS)
def test_a_cycle_is_what_its_definition_says(seed, t):
    generator = np.random.RandomState([seed, 0, t])
    want = np.transpose([generator.permutation(3) for _ in V1.blocks])
    assert np.array_equal(fair_cycle(seed, t, V1), want)
    generator = np.random.RandomState([seed, 1, t])
    assert np.array_equal(fair_cycle(seed, t, V1, "pool").T, [generator.permutation(3) for _ in V1.blocks])


def test_recorded_cycles():
    assert fair_cycle(42, 0, V1).tolist() == [
        [1, 0, 1, 1, 1, 2, 2, 2, 0],
        [0, 2, 2, 0, 2, 0, 1, 0, 2],
        [2, 1, 0, 2, 0, 1, 0, 1, 1],
    ]
    assert sequence_digest(42, 300, V1) == CYCLES_300_SEED_42


@pytest.mark.parametrize("space", [V1, MIXED], ids=["v1", "mixed"])
def test_the_digest_is_of_little_endian_int32_in_c_order(space):
    cycles = np.stack([fair_cycle(7, t, space) for t in range(5)])
    assert sequence_digest(7, 5, space) == hashlib.sha256(np.ascontiguousarray(cycles, "<i4").tobytes()).hexdigest()


def test_cycles_do_not_depend_on_what_was_drawn_before():
    want = {(seed, t): fair_cycle(seed, t, V1).tobytes() for seed in (0, 42) for t in range(40)}
    order = list(want) * 3
    random.Random(5).shuffle(order)
    np.random.seed(1)
    for number, (seed, t) in enumerate(order):
        uniform_paths(seed, t, V1)
        np.random.random(number % 7)
        assert fair_cycle(seed, t, V1).tobytes() == want[seed, t]


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(3)
    want = np.random.random(4).tolist()
    np.random.seed(3)
    fair_cycle(42, 0, V1)
    uniform_paths(42, 0, V1)
    assert np.random.random(4).tolist() == want


def test_a_changed_cycle_does_not_change_the_next_draw():
    fair_cycle(42, 5, V1)[:] = 9
    assert fair_cycle(42, 5, V1).max() == 2


def test_seeds_steps_and_purposes_give_different_sequences():
    def sequence(seed, purpose="cycle"):
        return b"".join(fair_cycle(seed, t, V1, purpose).tobytes() for t in range(20))

    sequences = [sequence(seed) for seed in range(50)] + [sequence(seed, "pool") for seed in range(50)]
    assert len(set(sequences)) == 100
    assert len({fair_cycle(42, t, V1).tobytes() for t in range(500)}) == 500


@pytest.mark.parametrize("draw", [fair_cycle, uniform_paths])
@pytest.mark.parametrize(
    "seed, t, error",
    [(-1, 0, ValueError), (0, -1, ValueError), (2**32, 0, ValueError), (0, 2**32, ValueError), (0, 1.0, TypeError)],
)
def test_a_seed_or_step_out_of_range_is_an_error(draw, seed, t, error):
    with pytest.raises(error):
        draw(seed, t, V1)


# ---- statistics

# Upper quantiles of chi-square at 10^-9, by degrees of freedom.
LIMIT = {2: 41.45, 5: 50.70, 35: 110.31}
PERMUTATIONS = list(itertools.permutations(range(3)))


def chi_square(drawn, kinds):
    """(statistic, degrees of freedom) of `drawn`, ints below `kinds`, against the uniform law."""
    counts = np.bincount(drawn, minlength=kinds)
    assert len(counts) == kinds
    expected = len(drawn) / kinds
    return float(((counts - expected) ** 2 / expected).sum()), kinds - 1


def permutation_numbers(cycles):
    """[n, 3, blocks] cycles to [n, blocks]: which of the six permutations it is."""
    number = {permutation: i for i, permutation in enumerate(PERMUTATIONS)}
    return np.array([[number[tuple(column)] for column in codes.T] for codes in cycles])


def suspicious(cycles):
    """The statistics beyond their limit: each block's permutations, and those of every two blocks together, of one
    block in successive cycles."""
    numbers = permutation_numbers(cycles)
    blocks = range(numbers.shape[1])
    drawn = {f"block {b}": (numbers[:, b], 6) for b in blocks}
    drawn.update(
        {f"blocks {a} and {b}": (numbers[:, a] * 6 + numbers[:, b], 36) for a, b in itertools.combinations(blocks, 2)}
    )
    drawn.update({f"block {b}, cycle after cycle": (numbers[:-1:2, b] * 6 + numbers[1::2, b], 36) for b in blocks})
    found = {name: chi_square(*arguments) for name, arguments in drawn.items()}
    return [name for name, (statistic, freedom) in found.items() if statistic > LIMIT[freedom]]


def test_all_permutations_occur_equally_often_and_independently():
    cycles = [fair_cycle(42, t, V1) for t in range(2000)]
    assert all(len(set(column)) == 6 for column in permutation_numbers(cycles).T)
    assert suspicious(cycles) == []


def test_sequences_of_neighbouring_seeds_are_independent():
    # [cycle, path, block of seed 42 or of seed 43]
    cycles = [np.concatenate([fair_cycle(42, t, V1)[:, :2], fair_cycle(43, t, V1)[:, :2]], axis=1) for t in range(2000)]
    assert suspicious(cycles) == []


def shared(codes, t):
    codes[:, 4] = codes[:, 1]
    return codes


def complement(codes, t):
    codes[:, 4] = 2 - codes[:, 1]
    return codes


def rotations_only(codes, t):
    return (codes[:1] + np.arange(3)[:, None]) % 3


def first_block_slow(codes, t):
    codes[:, 0] = fair_cycle(42, t // 2, V1)[:, 0]
    return codes


@pytest.mark.parametrize(
    "fault, caught",
    [
        (shared, "blocks 1 and 4"),
        (complement, "blocks 1 and 4"),
        (rotations_only, "block 0"),
        (first_block_slow, "block 0, cycle after cycle"),
    ],
)
def test_the_statistics_catch_a_sampler_that_is_fair_but_not_random(fault, caught):
    cycles = [fault(fair_cycle(42, t, V1), t) for t in range(2000)]
    assert all(sorted(column) == [0, 1, 2] for codes in cycles for column in codes.T)
    assert caught in suspicious(cycles)


def test_a_small_block_of_a_mixed_space_draws_all_its_arrangements():
    # Block B, two options in six paths: 20 arrangements; chi-square of 19 degrees of freedom, limit at 10^-9: 81.2.
    drawn = [tuple(fair_cycle(42, t, MIXED)[:, 1]) for t in range(2000)]
    arrangements = sorted(set(drawn))
    assert len(arrangements) == 20
    assert chi_square([arrangements.index(one) for one in drawn], 20)[0] < 81.2


# ---- the uniform baseline


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
@given(seed=SEEDS, t=STEPS)
def test_uniform_paths_are_codes_drawn_by_their_own_stream(space, seed, t):
    codes = uniform_paths(seed, t, space)
    assert codes.shape == (space.num_paths, len(space.blocks)) and codes.dtype == np.int32
    generator = np.random.RandomState([seed, rng.STREAMS["uniform"], t])
    want = [generator.randint(0, options, space.num_paths, np.int32) for options in space.num_options]
    assert np.array_equal(codes, np.transpose(want))


def test_recorded_uniform_paths():
    assert uniform_paths(42, 0, V1).tolist() == [
        [2, 1, 2, 0, 1, 1, 2, 1, 1],
        [1, 2, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 2, 1, 2, 2, 2, 0],
    ]
    drawn = b"".join(uniform_paths(42, t, V1).tobytes() for t in range(300))
    assert hashlib.sha256(drawn).hexdigest() == UNIFORM_300_SEED_42


def test_uniform_paths_are_uniform_and_not_fair():
    codes = np.stack([uniform_paths(42, t, V1) for t in range(1500)])
    for block in range(9):
        assert chi_square(codes[:, :, block].ravel(), 3)[0] < LIMIT[2]
        # Two paths of one cycle agree in a third of the cycles; never in a fair one. Exact to 10^-9: 1500/3 +- 113.
        assert abs((codes[:, 0, block] == codes[:, 1, block]).sum() - 500) < 113
    counts = FairnessCounts(V1)
    counts.add(codes.reshape(-1, 9))
    assert counts.gap() > 0


# ---- counts


@pytest.mark.parametrize("space", [V1, MIXED], ids=["v1", "mixed"])
@given(data=st.data())
def test_counts_and_gap_are_the_plain_ones(space, data):
    codes = data.draw(st.lists(codes_of(space), max_size=20))
    split = data.draw(st.integers(0, len(codes)))
    counts = FairnessCounts(space)
    counts.add(codes[:split])
    counts.add(np.array(codes[split:], np.int32).reshape(-1, len(space.blocks)))
    want = {
        block.name: [sum(code[i] == value for code in codes) for value in range(len(block.options))]
        for i, block in enumerate(space.blocks)
    }
    assert counts.as_dict() == want and list(counts.as_dict()) == list(space.names)
    assert counts.gap() == max(max(uses) - min(uses) for uses in want.values())
    again = FairnessCounts.from_dict(json.loads(json.dumps(counts.as_dict())), space)
    assert again.as_dict() == want


def test_the_gap_is_within_a_block_not_across_blocks():
    # Six paths: a 3-option block has two uses of each option, a 2-option block three.
    counts = FairnessCounts(MIXED)
    counts.add(fair_cycle(42, 0, MIXED))
    assert counts.as_dict() == {"A": [2, 2, 2], "B": [3, 3], "C": [2, 2, 2], "D": [3, 3], "E": [2, 2, 2]}
    assert counts.gap() == 0
    counts.add(["00000"])
    assert counts.gap() == 1


def test_counts_do_not_overflow_and_do_not_share_their_lists():
    start = {block.name: [2**63 - 1] * 3 for block in V1.blocks}
    counts = FairnessCounts(V1, start)
    counts.add(fair_cycle(42, 0, V1))
    assert counts.as_dict()["H2"] == [2**63] * 3 and counts.gap() == 0
    assert start["H2"] == [2**63 - 1] * 3
    counts.as_dict()["H2"][0] = 0
    assert counts.gap() == 0


def test_a_wrong_code_counts_nothing():
    counts = FairnessCounts(V1)
    with pytest.raises(ValueError, match=r"value must be in \{0,1,2\}, position 8 \(block H2Out\), found 3"):
        counts.add([[0] * 9, [0] * 8 + [3]])
    with pytest.raises(ValueError, match="length=9 required, got 5"):
        counts.add(fair_cycle(42, 0, MIXED))
    assert counts.gap() == 0 and counts.as_dict()["EB0"] == [0, 0, 0]


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"A": [1, 2]}, r"block A: expected 3 whole numbers from 0, found \[1, 2\]"),
        ({"B": [1, 2, 3]}, "block B: expected 2 whole numbers"),
        ({"E": [1, 2, -1]}, "block E: expected 3 whole"),
        ({"E": [1, 2, 1.0]}, "block E"),
        ({"E": [1, 2, True]}, "block E"),
        ({"E": "123"}, "block E"),
        ({"E": None}, "block E"),
        ({"F": [1, 2, 3]}, "expected A, B, C, D, E, found A, B, C, D, E, F"),
    ],
)
def test_counts_of_another_space_are_refused(changed, message):
    counts = dict(FairnessCounts(MIXED).as_dict(), **changed)
    with pytest.raises(ValueError, match=f"^fairness counts.*{message}") as caught:
        FairnessCounts.from_dict(counts, MIXED)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("counts, found", [({}, ""), ([], "list"), ({"A": [0, 0, 0]}, "A"), (7, "int")])
def test_what_is_no_table_of_counts_is_refused(counts, found):
    with pytest.raises(ValueError, match=f"^fairness counts: expected A, B, C, D, E, found {found}$"):
        FairnessCounts(MIXED, counts)


def test_zero_is_a_count():
    assert FairnessCounts(MIXED, FairnessCounts(MIXED).as_dict()).gap() == 0


# ---- the check and the command line


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "edgeflownas.nas.fair_sampler", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=120,
        **options,
    )


def test_the_command_checks_300_cycles_and_writes_its_record(tmp_path):
    output = tmp_path / "new" / "folders" / "check.json"
    done = run("--cycles", "300", "--seed", "42", "--check", "--output", str(output))
    assert (done.returncode, done.stderr) == (0, "")
    assert "EB0      [300, 300, 300]\n" in done.stdout and "H2Out    [300, 300, 300]\n" in done.stdout
    assert "fairness_gap 0 after 300 cycles of seed 42, 0 at most after any single cycle" in done.stdout
    assert done.stdout.count(CYCLES_300_SEED_42) == 2
    assert done.stdout.endswith(f"fair_sampler check passed: 0 problems; record in {output}\n")
    assert json.loads(output.read_text(encoding="utf-8")) == {
        "passed": True,
        "problems": [],
        "cycles": 300,
        "seed": 42,
        "space": V1.identity(),
        "num_paths": 3,
        "fairness_gap": 0,
        "largest_gap_after_any_cycle": 0,
        "counts": {name: [300, 300, 300] for name in V1.names},
        "sequence_sha256": CYCLES_300_SEED_42,
        "second_process_sha256": CYCLES_300_SEED_42,
        "byte_identical": True,
    }
    assert [path.name for path in output.parent.iterdir()] == ["check.json"]


def test_without_check_main_prints_the_digest_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(str(tmp_path))
    assert fair_sampler.main(["--seed", "7", "--cycles", "5"]) == 0
    assert capsys.readouterr().out == sequence_digest(7, 5, V1) + "\n"
    assert fair_sampler.main([]) == 0
    assert capsys.readouterr().out == CYCLES_300_SEED_42 + "\n"
    assert list(tmp_path.iterdir()) == []


def test_check_writes_to_the_folder_of_the_supernet_by_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(str(tmp_path))
    assert fair_sampler.main(["--check", "--cycles", "2"]) == 0
    assert (tmp_path / "outputs" / "supernet" / "fair_sampler_check.json").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:9] == [f"{name:<8} [2, 2, 2]" for name in V1.names]
    assert lines[9] == "fairness_gap 0 after 2 cycles of seed 42, 0 at most after any single cycle"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--cycles", "0"], "--cycles: expected at least 1, found 0"),
        (["--seed", "-1"], "--seed: expected 0 to 4294967295, found -1"),
        (["--seed", str(2**32)], "--seed: expected 0 to 4294967295, found 4294967296"),
    ],
)
def test_wrong_numbers_are_user_errors(argv, message):
    with pytest.raises(UserError) as caught:
        fair_sampler.main(argv)
    assert str(caught.value) == message
    assert fair_sampler.main(["--cycles", "1", "--seed", "0"]) == fair_sampler.main(["--seed", str(2**32 - 1)]) == 0


def test_an_abbreviated_flag_is_refused():
    with pytest.raises(UserError, match=r"unknown flag --cyc; did you mean --cycles\?"):
        fair_sampler.main(["--cyc", "3"])


def test_an_output_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="cannot make the folder of .*file/check.json"):
        fair_sampler.main(["--check", "--cycles", "1", "--output", str(tmp_path / "file" / "check.json")])
    with pytest.raises(UserError, match="cannot write"):
        fair_sampler.main(["--check", "--cycles", "1", "--output", str(tmp_path)])


def plant(monkeypatch, fault):
    """`fault` as the sampler, in this process and in the second one."""
    monkeypatch.setattr(fair_sampler, "fair_cycle", fault)
    monkeypatch.setattr(
        fair_sampler,
        "_digest_of_second_process",
        lambda cycles, seed, space: fair_sampler._digest(fault(seed, t, space) for t in range(cycles)),
    )


def unfair_once(seed, t, space):
    codes = fair_cycle(seed, t, space)
    if t == 2:
        codes[0, 5] = codes[1, 5]
    return codes


def evens_out(seed, t, space):
    # Unfair in cycles 0 and 1, fair in their sum.
    codes = fair_cycle(seed, 0, space)
    codes[:, 3] = [[0, 0, 1], [2, 2, 1], [0, 1, 2]][min(t, 2)]
    return codes


def too_large(seed, t, space):
    return fair_cycle(seed, t, space) + np.int32(t == 2)


def wide(seed, t, space):
    return fair_cycle(seed, t, space).astype(np.int64)


def two_paths(seed, t, space):
    return fair_cycle(seed, t, space)[:2]


def six_paths(seed, t, space):
    return np.concatenate([fair_cycle(seed, t, space)] * 2)


@pytest.mark.parametrize(
    "fault, problem",
    [
        (unfair_once, "cycle 2: fairness_gap 2 within it, 2 after it, not 0"),
        (evens_out, "cycle 0: fairness_gap 2 within it, 2 after it, not 0"),
        (too_large, "cycle 2: arch code: value must be in {0,1,2}, position"),
        (wide, "cycle 0: int64 (3, 9) instead of int32 (3, 9)"),
        (two_paths, "cycle 0: int32 (2, 9) instead of int32 (3, 9)"),
        (six_paths, "cycle 0: int32 (6, 9) instead of int32 (3, 9)"),
    ],
)
def test_the_check_fails_on_an_unfair_sampler(fault, problem, tmp_path, monkeypatch, capsys):
    plant(monkeypatch, fault)
    output = tmp_path / "check.json"
    assert fair_sampler.main(["--check", "--cycles", "5", "--output", str(output)]) == 1
    record = json.loads(output.read_text(encoding="utf-8"))
    assert record["passed"] is False and record["byte_identical"] is True
    assert record["problems"][0].startswith(problem)
    printed = capsys.readouterr().out
    assert f"problem: {problem}" in printed and "fair_sampler check FAILED: " in printed


def test_the_check_reports_the_largest_gap_even_if_it_closes_again(monkeypatch):
    plant(monkeypatch, evens_out)
    record = fair_sampler.check(3, 42, V1)
    assert (record["fairness_gap"], record["largest_gap_after_any_cycle"]) == (0, 2)
    assert record["problems"] == [
        "cycle 0: fairness_gap 2 within it, 2 after it, not 0",
        "cycle 1: fairness_gap 2 within it, 0 after it, not 0",
    ]


def test_the_check_fails_on_a_sampler_with_a_state(monkeypatch):
    calls = itertools.count()
    want = sequence_digest(42, 4, V1)
    monkeypatch.setattr(fair_sampler, "_digest_of_second_process", lambda *_: want)
    monkeypatch.setattr(
        fair_sampler, "fair_cycle", lambda seed, t, space: fair_cycle(seed, t + next(calls) // 4, space)
    )
    assert fair_sampler.check(4, 42, V1)["problems"] == [
        "drawn again, in reverse order, a cycle differs: the sampler keeps a state"
    ]


def test_the_check_fails_if_the_second_process_draws_another_sequence(monkeypatch):
    own, other = sequence_digest(43, 3, V1), sequence_digest(42, 3, V1)
    monkeypatch.setattr(fair_sampler, "fair_cycle", lambda seed, t, space: fair_cycle(seed + 1, t, space))
    record = fair_sampler.check(3, 42, V1)
    assert (record["sequence_sha256"], record["second_process_sha256"]) == (own, other)
    assert record["byte_identical"] is False and record["passed"] is False
    assert record["problems"] == [f"a second process gives the sequence {other}, this one {own}"]


@pytest.mark.parametrize("own, other", [(None, "1"), ("1", "2"), ("0", "1")])
def test_the_second_process_has_another_hash_seed(own, other, monkeypatch, tmp_path):
    monkeypatch.chdir(str(tmp_path))  # the package is found from anywhere
    seen = {}

    def spy(command, real=subprocess.run, **options):
        seen.update(options)
        return real(command, **options)

    if own is None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    else:
        monkeypatch.setenv("PYTHONHASHSEED", own)
    monkeypatch.setattr(fair_sampler.subprocess, "run", spy)
    assert fair_sampler._digest_of_second_process(2, 42, V1) == sequence_digest(42, 2, V1)
    assert seen["env"]["PYTHONHASHSEED"] == other


def test_a_second_process_that_fails_fails_the_check(monkeypatch):
    monkeypatch.setattr(fair_sampler.sys, "executable", "/bin/false")
    assert fair_sampler._digest_of_second_process(2, 42, V1) == "nothing (exit code 1: no message)"
    monkeypatch.undo()
    found = fair_sampler._digest_of_second_process(0, 42, V1)
    assert found == "nothing (exit code 2: error: --cycles: expected at least 1, found 0)"


def test_of_a_failed_second_process_the_last_line_is_told(monkeypatch, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho first >&2\necho second >&2\necho last >&2\nexit 3\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(fair_sampler.sys, "executable", str(interpreter))
    assert fair_sampler._digest_of_second_process(2, 42, V1) == "nothing (exit code 3: last)"


def test_a_second_process_that_hangs_fails_the_check(monkeypatch):
    monkeypatch.setattr(fair_sampler, "_SECOND_PROCESS_SECONDS", 0.001)
    assert fair_sampler._digest_of_second_process(2, 42, V1) == "nothing in 0.001 seconds"


def test_at_most_ten_problems_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fair_sampler, "fair_cycle", wide)
    assert fair_sampler.main(["--check", "--cycles", "15", "--output", str(tmp_path / "check.json")]) == 1
    printed = capsys.readouterr().out
    assert printed.count("problem: ") == 10 and "check FAILED: 15 problems; " in printed
