"""Gate 2: the network of every code, and the search spaces by name."""

import itertools

import numpy as np
import pytest

from gates import oracles, spaces
from gates.asserts import assert_close, assert_contains, assert_equal, assert_true, clause
from gates.commands import assert_succeeded, run
from gates.package_objects import Subnets, images, refusal_of_a_space, variables_of, variables_with_code_built_in
from gates.weights import assert_glorot

SPACE = spaces.chosen()
BLOCKS = SPACE.names
ODD = (71, 83)  # odd at the input and at /2, /4 and /8
# Odd at one encoder stage each, by height and by width: the input, /2, /4, /8 or /16.
ODD_SIZES = ((95, 80), (94, 95), (92, 94), (88, 92), (80, 88))
# Tolerance of the network in float32 against NumPy in float64, relative to the largest output. Measured: 2e-6 to 6e-6.
FLOAT32 = 2e-5


@pytest.fixture(scope="module")
def full():
    """The supernet of the specification, 32 channels."""
    subnets = Subnets(32, [(180, 240), ODD])
    yield subnets
    subnets.session.close()


@pytest.fixture(scope="module")
def twenty(full):
    """[(code, its three outputs)] of twenty random codes at 180x240, batch 2."""
    numbers = np.random.RandomState(20).permutation(SPACE.size)[:20]
    codes = np.stack(np.unravel_index(numbers, SPACE.counts), axis=1)
    pixels = images(1, 180, 240)
    return [(tuple(code.tolist()), full.run(code, pixels)) for code in codes]


@pytest.fixture(scope="module")
def narrow():
    """A narrow supernet at many input sizes: sizes do not depend on the width."""
    subnets = Subnets(2, [(172, 224)] + list(ODD_SIZES))
    yield subnets
    subnets.session.close()


@clause("G2.1")
def test_twenty_random_codes_run_forward(twenty):
    assert_equal(what="different codes", got=len({code for code, _ in twenty}), want=20)
    options = {(position, value) for code, _ in twenty for position, value in enumerate(code)}
    assert_equal(what="options used", got=len(options), want=sum(SPACE.counts))
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
    __tracebackhide__ = True
    outputs = subnets.run(SPACE.baseline, images(2, height, width))
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
    """Tries all other values at each position of three codes. A head's option affects only the outputs after it."""
    pixels = images(3, *ODD)
    reaches = {"H0Out": [0], "H1": [1, 2], "H1Out": [1], "H2": [2], "H2Out": [2]}
    for code in map(tuple, SPACE.fair_codes()[:3].tolist()):
        before = full.run(code, pixels)
        for position, block in enumerate(SPACE.blocks):
            for value in sorted(set(range(len(block.options))) - {code[position]}):
                after = full.run(code[:position] + (value,) + code[position + 1 :], pixels)
                changed = [scale for scale in range(3) if not np.array_equal(before[scale], after[scale])]
                want = reaches.get(block.name, [0, 1, 2])
                what = f"outputs that change with {block.name}"
                assert_equal(what=what, got=changed, want=want, code=code, value=value)


@clause("G2.4")
def test_variables_do_not_depend_on_the_code():
    """Graphs built for two different codes have exactly the names and shapes of the design, as checkpoints need."""
    want = sorted(spaces.expected_variables(SPACE, 4).items())
    for code in (SPACE.fair_codes()[0].tolist(), SPACE.fair_codes()[-1].tolist()):
        got = variables_with_code_built_in(code, 4)
        assert_equal(what="number of variables", got=len(got), want=len(want), code=code)
        for found, expected in zip(got, want):
            assert_equal(what="variable", got=found, want=expected, code=code)


@clause("G2.5")
def test_parameter_count(full):
    want = spaces.trained_scalars(SPACE)
    assert_equal(what="parameters by the gates' own table", got=want, want=SPACE.parameters)
    graph_count = sum(int(np.prod(variable.shape.as_list())) for variable in full.net.variables.trained.values())
    assert_equal(what="trained scalars in the graph", got=graph_count, want=want)
    assert_equal(what="parameter_count", got=full.net.variables.parameter_count, want=want)


def assert_numpy_s(subnets, code, pixels, outputs=None):
    """Asserts that the three outputs of `code` are those of `gates/oracles.py` (NumPy, float64). Runs the code alone if
    no outputs are given."""
    __tracebackhide__ = True
    outputs = outputs or subnets.run(code, pixels)
    for scale, want in enumerate(oracles.Network(subnets.weights(), code).forward(pixels)):
        atol = FLOAT32 * np.abs(want).max()
        assert_close(what=f"output {scale}", got=outputs[scale], want=want, atol=atol, unit="px", code=code)


@clause("G2.6")
def test_baseline_is_the_plain_network(full):
    """Uses an input size that is odd at nearly every stage."""
    assert_numpy_s(full, SPACE.baseline, images(4, *ODD))


@clause("G2.6b")
def test_every_option_is_the_plain_network_s(narrow):
    for number, code in enumerate(SPACE.fair_codes().tolist()):
        assert_numpy_s(narrow, code, images(5, *ODD_SIZES[number % len(ODD_SIZES)]))


@clause("G2.7")
def test_model_shape_check_command(tmp_path):
    done = run(
        "python -m edgeflownas.nas.model_shape_check --h 180 --w 240 --batch 2 --samples 20" + spaces.flag(), tmp_path
    )
    assert_succeeded(done)
    lines = done.out.splitlines()
    right = [line for line in lines if line.endswith("45x60 90x120 180x240  finite, ok")]
    assert_equal(what="codes reported as right", got=len({line.split()[0] for line in right}), want=20)
    assert_contains(what="verdict", got=lines[-1], want="model_shape_check passed: 20 of 20 codes")


# ---- first weights, and the spaces by name


@clause("G2.15")
def test_first_weights_are_glorot_uniform(full):
    assert_glorot(full.first)
    again, other = full.initial(5), full.initial(6)
    for name, value in full.first.items():
        assert_equal(what=name + " of the same seed", got=again[name], want=value, seed=5)
        if name.endswith("/kernel"):
            assert_true(what=name, ok=not np.array_equal(other[name], value), got="the same", want="others", seed=6)


@clause("G2.16")
def test_each_named_space_is_the_design_s():
    """Names, kinds and options in order, and all variables, are those of the gates' own table."""
    for name, space in spaces.SPACES.items():
        done = variables_of(name, 4)
        want = sorted((variable, shape) for variable, shape in spaces.expected_variables(space, 4).items())
        assert_equal(what="blocks", got=done[0], want=[(b.name, b.kind, b.labels) for b in space.blocks], space=name)
        assert_equal(what="variables", got=done[1], want=want, space=name)


@clause("G2.16b")
def test_each_named_space_computes_the_plain_network(monkeypatch):
    """Also for spaces not under test: every option alone, and every path of a fair cycle in one session run."""
    for name, space in spaces.SPACES.items():
        monkeypatch.setenv(spaces.VARIABLE, name)
        subnets, pixels = Subnets(2, [ODD]), images(6, *ODD)
        codes = space.fair_codes(1)[::-1]
        fused = subnets.run_fused(codes, pixels)
        for path, code in enumerate(codes.tolist()):
            assert_numpy_s(subnets, code, pixels, [scale[path] for scale in fused])
        for code in codes.tolist() if space != SPACE else ():  # the other one's are G2.6b's
            assert_numpy_s(subnets, code, pixels)
        subnets.session.close()


@clause("G2.17")
def test_a_space_that_the_network_does_not_visit_cannot_be_built():
    """A block that is never visited, of each kind and at each place, and each visit without a block are errors that
    name the block."""
    assert_equal(what="refusal of the space itself", got=refusal_of_a_space(lambda blocks: blocks), want="")
    for place, kind in itertools.product(range(len(BLOCKS) + 1), ("depth", "kernel")):

        def one_more(blocks, place=place, kind=kind):
            like = next(block for block in blocks if block.kind == kind)
            return blocks[:place] + [like._replace(name="H3Out")] + blocks[place:]

        got = refusal_of_a_space(one_more)
        assert_contains(what="refusal of one block more", got=got, want="H3Out", place=place, kind=kind)
    must = spaces.places_without_a_fixed_layer()
    assert_true(what="blocks to leave out", ok=set(must) <= set(BLOCKS), got=BLOCKS, want="all of " + ", ".join(must))
    for lost in must:
        got = refusal_of_a_space(lambda blocks, lost=lost: [block for block in blocks if block.name != lost])
        assert_contains(what="refusal of one block less", got=got, want=lost, left_out=lost)
