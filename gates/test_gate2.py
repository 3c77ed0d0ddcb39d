"""Gate 2: the network of every code, and the fair sampler."""

import hashlib
import itertools
import json

import numpy as np
import pytest

from edgeflownas.nas.fair_sampler import FairnessCounts, fair_cycle
from gates import chi_square, oracles
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import assert_succeeded, run

BLOCKS = ("EB0", "EB1", "DB0", "DB1", "H0Out", "H1", "H1Out", "H2", "H2Out")
BASELINE = (0, 0, 0, 0, 0, 1, 0, 0, 0)
ODD = (71, 83)  # odd at the input and at /2, /4 and /8
# Odd at one encoder stage each, by height and by width: the input, /2, /4, /8 or /16.
ODD_SIZES = ((95, 80), (94, 95), (92, 94), (88, 92), (80, 88))

# SHA-256 of the codes of cycles 0..299 of seed 42, little-endian int32 [300, 3, 9]: RandomState's stream is frozen.
SEQUENCE_SHA256 = "59168872541a2c9e636d7d075fde6009f3e42a0a6cc4b86a863235ecb556fe18"


@pytest.fixture(scope="module")
def full():
    """The supernet of the specification, 32 channels."""
    from gates.helpers_network import Subnets

    subnets = Subnets(32, [(180, 240), ODD])
    yield subnets
    subnets.session.close()


@pytest.fixture(scope="module")
def twenty(full):
    """[(code, its three outputs)] of twenty random codes at 180x240, batch 2."""
    from gates.helpers_network import images

    numbers = np.random.RandomState(20).permutation(3**9)[:20]
    codes = np.stack(np.unravel_index(numbers, [3] * 9), axis=1)
    pixels = images(1, 180, 240)
    return [(tuple(code.tolist()), full.run(code, pixels)) for code in codes]


@pytest.fixture(scope="module")
def narrow():
    """A narrow supernet at many input sizes: sizes do not depend on the width."""
    from gates.helpers_network import Subnets

    subnets = Subnets(2, [(172, 224)] + list(ODD_SIZES))
    yield subnets
    subnets.session.close()


@pytest.fixture(scope="module")
def cycles():
    """Cycles 0..299 of seed 42, [300, 3, 9]."""
    return np.stack([fair_cycle(42, t) for t in range(300)])


@clause("G2.1")
def test_twenty_random_codes_run_forward(twenty):
    assert_equal(what="different codes", got=len({code for code, _ in twenty}), want=20)
    options = {(position, value) for code, _ in twenty for position, value in enumerate(code)}
    assert_equal(what="options used", got=len(options), want=27)
    for code, outputs in twenty:
        for scale, output in enumerate(outputs):
            bad = int(np.sum(~np.isfinite(output)))
            assert_equal(what="values that are not finite", got=bad, want=0, code=code, output=scale)
            assert_true(
                what="largest |value|", ok=np.abs(output).max() > 0, got=0, want="more than 0", code=code, output=scale
            )


@clause("G2.2a")
def test_output_sizes_at_180x240(twenty):
    for code, outputs in twenty:
        assert_equal(
            what="output shapes",
            got=[output.shape for output in outputs],
            want=[(2, 45, 60, 4), (2, 90, 120, 4), (2, 180, 240, 4)],
            code=code,
        )


def assert_sizes(subnets, height, width, want):
    from gates.helpers_network import images

    __tracebackhide__ = True
    outputs = subnets.run(BASELINE, images(2, height, width))
    assert_equal(
        what="output shapes",
        got=[output.shape for output in outputs],
        want=[(2,) + size + (4,) for size in want],
        input=(height, width),
    )


@clause("G2.2b")
def test_output_sizes_at_172x224(narrow):
    assert_sizes(narrow, 172, 224, [(43, 56), (86, 112), (172, 224)])


@clause("G2.2c")
def test_output_sizes_where_the_encoder_is_odd(narrow):
    odd_at = set()
    for height, width in ODD_SIZES:
        by_axis = []
        for axis, size in enumerate((height, width)):
            stages = [size]
            for _ in range(4):
                stages.append(-(-stages[-1] // 2))
            odd_at |= {(axis, stage) for stage, extent in enumerate(stages) if extent % 2}
            by_axis.append(stages)
        assert_sizes(narrow, height, width, [(by_axis[0][stage], by_axis[1][stage]) for stage in (2, 1, 0)])
    assert_equal(what="(axis, stage) pairs that were odd", got=len(odd_at), want=10)


@clause("G2.3")
def test_each_position_of_the_code_changes_the_output(full):
    """Each of both other values at each position, from three codes. A head's option reaches the outputs behind it
    only."""
    from gates.helpers_network import images

    pixels = images(3, *ODD)
    reaches = {"H0Out": [0], "H1": [1, 2], "H1Out": [1], "H2": [2], "H2Out": [2]}
    for code in ((0, 1, 2, 0, 1, 2, 0, 1, 2), (1, 2, 0, 1, 2, 0, 1, 2, 0), (2, 0, 1, 2, 0, 1, 2, 0, 1)):
        before = full.run(code, pixels)
        for position, name in enumerate(BLOCKS):
            for value in sorted({0, 1, 2} - {code[position]}):
                after = full.run(code[:position] + (value,) + code[position + 1 :], pixels)
                changed = [scale for scale in range(3) if not np.array_equal(before[scale], after[scale])]
                assert_equal(
                    what=f"outputs that change with {name}",
                    got=changed,
                    want=reaches.get(name, [0, 1, 2]),
                    code=code,
                    value=value,
                )


@clause("G2.4")
def test_variables_do_not_depend_on_the_code():
    """Two graphs with a code built in; and every name and shape is the design's, for checkpoints outlive the code."""
    from edgeflownas.nas.search_space import SPACE
    from edgeflownas.network.layers import BatchStatistics
    from edgeflownas.network.MultiScaleResNet_supernet import Supernet
    from edgeflownas.network.routing import SinglePath
    from edgeflownas.tfcompat import tf
    from gates.helpers_network import expected_variables

    want = sorted((name, shape) for name, shape in expected_variables(4).items())
    for code in ((0,) * 9, (2, 1, 2, 1, 2, 1, 2, 1, 2)):
        with tf.Graph().as_default():
            net = Supernet(4)
            net.forward(
                tf.placeholder(tf.float32, [1, 64, 65, 6]),
                SinglePath(tf.constant([code]), SPACE),
                BatchStatistics(net.variables),
            )
            got = sorted((variable.op.name, tuple(variable.shape.as_list())) for variable in tf.global_variables())
        assert_equal(what="number of variables", got=len(got), want=len(want), code=code)
        for found, expected in zip(got, want):
            assert_equal(what="variable", got=found, want=expected, code=code)


@clause("G2.5")
def test_parameter_count(full):
    graph_count = sum(int(np.prod(variable.shape.as_list())) for variable in full.net.variables.trained.values())
    assert_equal(what="trained scalars in the graph", got=graph_count, want=12122016)
    assert_equal(what="parameter_count", got=full.net.variables.parameter_count, want=12122016)


@clause("G2.6")
def test_baseline_is_the_plain_network(full):
    """Against `gates/oracles.py`, NumPy in float64, at a size that is odd at nearly every stage."""
    from gates.helpers_network import images

    pixels = images(4, *ODD)
    outputs = full.run(BASELINE, pixels)
    for scale, want in enumerate(oracles.Network(full.weights(), BASELINE).forward(pixels)):
        assert_close(
            what=f"output {scale}",
            got=outputs[scale],
            want=want,
            atol=5e-4 * np.abs(want).max(),
            rtol=5e-4,
            unit="px",
            code=BASELINE,
        )


@clause("G2.7")
def test_model_shape_check_command(tmp_path):
    done = run("python -m edgeflownas.nas.model_shape_check --h 180 --w 240 --batch 2 --samples 20", tmp_path)
    assert_succeeded(done)
    lines = done.out.splitlines()
    right = [line for line in lines if line.endswith("45x60 90x120 180x240  finite, ok")]
    assert_equal(what="codes reported as right", got=len({line.split()[0] for line in right}), want=20)
    assert_contains(what="verdict", got=lines[-1], want="model_shape_check passed: 20 of 20 codes")


# ---- sampler


@clause("G2.8")
def test_each_option_is_used_once_per_cycle(cycles):
    for block, name in enumerate(BLOCKS):
        got = [int(np.sum(cycles[:, :, block] == option)) for option in range(3)]
        assert_equal(what=f"uses of {name}'s options", got=got, want=[300, 300, 300], seed=42)


@clause("G2.9")
def test_gap_is_zero_after_every_cycle(cycles):
    """By a count of our own, and by the project's, which must also see a gap where there is one."""
    uses, counts = np.zeros((9, 3), int), FairnessCounts()
    for t, codes in enumerate(cycles):
        for code in codes:
            uses[np.arange(9), code] += 1
        counts.add(codes)
        gaps = {"own count": int((uses.max(axis=1) - uses.min(axis=1)).max()), "fairness_gap": counts.gap()}
        assert_equal(what="gap", got=gaps, want={"own count": 0, "fairness_gap": 0}, seed=42, cycle=t)
    counts.add(cycles[0, :2])
    assert_equal(what="fairness_gap after two paths of a cycle", got=counts.gap(), want=1)
    counts.add(cycles[0, :1])
    assert_equal(what="fairness_gap after a path twice", got=counts.gap(), want=2)


@clause("G2.10")
def test_sequence_is_the_same_in_every_process(tmp_path, cycles):
    program = (
        "import sys; from edgeflownas.nas.fair_sampler import fair_cycle; "
        "sys.stdout.write(''.join(fair_cycle(42, t).tobytes().hex() for t in range(300)))"
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
    assert_equal(what="shape and type", got=(cycles.shape, cycles.dtype.name), want=((300, 3, 9), "int32"))
    got = hashlib.sha256(cycles.astype("<i4").tobytes()).hexdigest()
    assert_equal(what="SHA-256", got=got, want=SEQUENCE_SHA256, seed=42, cycles=300)


@clause("G2.12")
def test_different_seeds_give_different_sequences():
    seeds = list(range(100)) + [2**31, 2**32 - 1]
    sequences = {np.stack([fair_cycle(seed, t) for t in range(5)]).tobytes() for seed in seeds}
    assert_equal(what="different sequences", got=len(sequences), want=len(seeds))


@pytest.fixture(scope="module")
def permutations():
    """Which of the six permutations each block of 6000 cycles has, [6000, 9], 0..5."""
    number = {order: i for i, order in enumerate(itertools.permutations(range(3)))}
    drawn = [fair_cycle(7, t) for t in range(6000)]
    return np.array([[number.get(tuple(column), 6) for column in codes.T.tolist()] for codes in drawn])


# Chance that a right sampler fails a clause: below 1e-6, shared by its chi-square tests.
FALSE_ALARM = 1e-6


@clause("G2.13a")
def test_all_six_permutations_occur_equally_often(permutations):
    for block, name in enumerate(BLOCKS):
        counts = np.bincount(permutations[:, block], minlength=6)
        assert_equal(
            what="kinds of permutations of " + name, got=int(np.sum(counts > 0)), want=6, counts=counts.tolist()
        )
        p = chi_square.p_value(counts)
        assert_true(
            what="p of equal chances of " + name,
            ok=p >= FALSE_ALARM / 9,
            got=p,
            want="at least 1e-6 / 9",
            counts=counts.tolist(),
        )


@clause("G2.13b")
def test_permutations_of_different_blocks_are_independent(permutations):
    """All 36 pairs of blocks: each of the 6 x 6 pairs of permutations equally often. And no cycle repeats the one
    before."""
    for a, b in itertools.combinations(range(9), 2):
        joint = np.bincount(permutations[:, a] * 7 + permutations[:, b], minlength=49).reshape(7, 7)[:6, :6]
        p = chi_square.p_value(joint)
        assert_true(
            what=f"p of independence of {BLOCKS[a]} and {BLOCKS[b]}",
            ok=p >= FALSE_ALARM / 36,
            got=p,
            want="at least 1e-6 / 36",
            largest=int(joint.max()),
            smallest=int(joint.min()),
        )
    repeats = int(np.sum(np.all(permutations[1:] == permutations[:-1], axis=1)))
    assert_le(what="cycles that repeat the one before", got=repeats, want=1)  # chance of two: below 1e-6


@clause("G2.14")
def test_fair_sampler_command(tmp_path):
    done = run("python -m edgeflownas.nas.fair_sampler --cycles 300 --seed 42 --check", tmp_path)
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
        "sequence_sha256": SEQUENCE_SHA256,
        "counts": {name: [300, 300, 300] for name in BLOCKS},
    }
    assert_equal(what="record", got={key: record.get(key) for key in want}, want=want)
