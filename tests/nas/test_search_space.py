"""Search spaces: their tables against the specification, what their digest tells apart, narrowing, and refusals."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeflownas.config import load
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import describe, parse, space_of, to_text
from edgeflownas.nas.cost import subnet_cost, supernet_parameters
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.fair_sampler import FairnessCounts, fair_cycle, uniform_paths
from edgeflownas.nas.search_space import DEPTH, KERNEL, Block, SearchSpace, get_space, require_same_space
from edgeflownas.network.layer_table import layer_table
from tests.nas.nas_spaces import V1, V2, codes_of, random_spaces

SEEDS = st.integers(0, 2**32 - 1)
DEEP, HEAD = ["Deep1", "Deep2", "Deep3"], ["3x3", "5x5"]

# DESIGN, section 4, spelled out.
V2_MEANING = {
    "E0": ["7x7", "5x5", "3x3"],
    "E1": ["5x5", "3x3", "3x3 3x3/2"],
    "EB0": DEEP,
    "EB1": DEEP,
    "DB0": DEEP,
    "DB1": DEEP,
    "H0Out": HEAD,
    "H1": HEAD,
    "H1Out": HEAD,
    "H2": HEAD,
    "H2Out": HEAD,
}


def test_v2_is_what_the_specification_says():
    found = {block.name: [block.label(value) for value in block.values] for block in V2.blocks}
    assert list(found.items()) == list(V2_MEANING.items())
    assert [block.kind for block in V2.blocks] == [KERNEL] * 2 + [DEPTH] * 4 + [KERNEL] * 5
    assert V2.blocks[1].convolutions(2) == ((3, 1), (3, 2))
    assert (V2.size, V2.num_paths, V1.size, V1.num_paths) == (23328, 6, 19683, 3)
    assert describe("21000011111", V2)["E1"] == "3x3" and describe("22000011111", V2)["E1"] == "3x3 3x3/2"


def test_digests_are_recorded():
    """A digest must not change, because files of that space would become unreadable; a new table needs a new name."""
    assert V1.digest == "a2918d5c18716a45e4bc8affc02074b129ce2ed6abe3c05d1ed16144b14019f5"
    assert V2.digest == "440015a7c3e8e8365fed775dd61330c516b6109eace88b3b59fca92d90bef7b7"


# ---- random spaces


@given(space=random_spaces(), data=st.data())
def test_any_code_of_any_space_survives_its_spellings(space, data):
    code = data.draw(codes_of(space))
    text = to_text(code, space)
    assert text == ",".join(map(str, code))
    assert parse(code, space) == parse(np.array(code), space) == parse(list(code), space) == code
    assert parse("".join(map(str, code)), space) == code
    if len(code) > 1:
        assert parse(text, space) == code
    with pytest.raises(ValueError, match=f"length={len(code)} required, got {len(code) + 1}"):
        parse(code + (0,), space)
    position = data.draw(st.integers(0, len(code) - 1))
    options = len(space.blocks[position].options)
    with pytest.raises(ValueError, match=rf"position {position} \(block B{position}\), found {options} "):
        parse(code[:position] + (options,) + code[position + 1 :], space)


@given(space=random_spaces(), seed=SEEDS, t=SEEDS)
def test_every_cycle_of_any_space_is_strictly_fair_and_of_the_least_length(space, seed, t):
    codes = fair_cycle(seed, t, space)
    paths = len(codes)
    counts = FairnessCounts(space)
    counts.add(codes)
    assert counts.gap() == 0
    for block in space.blocks:
        assert counts.as_dict()[block.name] == [paths // len(block.options)] * len(block.options)
    shorter = [n for n in range(1, paths) if all(n % len(block.options) == 0 for block in space.blocks)]
    assert shorter == [] and np.array_equal(codes, fair_cycle(seed, t, space))
    assert uniform_paths(seed, t, space).shape == codes.shape
    assert all(parse(code, space) for code in uniform_paths(seed, t, space))


def _changes(space, position):
    """The space with one thing changed at a block: name, kind, options, their order, the order of blocks."""
    block = space.blocks[position]

    def with_block(other):
        return space._replace(blocks=space.blocks[:position] + (other,) + space.blocks[position + 1 :])

    yield with_block(block._replace(name=block.name + "x"))
    yield with_block(block._replace(kind="other"))
    yield with_block(block._replace(options=block.options + (11,)))
    yield with_block(block._replace(options=block.options[:-1]))
    yield with_block(block._replace(options=(11,) + block.options[1:]))
    yield space._replace(blocks=space.blocks + (block,))
    if len(block.options) > 1:
        yield with_block(block._replace(options=block.options[::-1]))
    if len(space.blocks) > 1:
        yield space._replace(blocks=space.blocks[1:] + space.blocks[:1])


@given(space=random_spaces(), data=st.data())
def test_the_digest_tells_every_change_apart_and_no_narrowing(space, data):
    position = data.draw(st.integers(0, len(space.blocks) - 1))
    changed = list(_changes(space, position))
    assert len({space.digest} | {other.digest for other in changed}) == 1 + len(changed)
    narrow = space.narrowed(data.draw(codes_of(space)))
    assert narrow.identity() == space.identity() and narrow.label == space.label
    require_same_space(space.identity(), narrow, "it")
    for other in changed + [space._replace(name="third")]:
        for one, two in ((space, other), (other, space)):
            with pytest.raises(UserError) as caught:
                require_same_space(one.identity(), two, "it")
            assert f"it is of the search space {one.label}, expected {two.label}: " in str(caught.value)


@given(space=random_spaces(), seed=SEEDS, data=st.data())
def test_a_narrowed_space_has_one_code_and_one_path(space, seed, data):
    code = data.draw(codes_of(space))
    narrow = space.narrowed(code)
    assert (narrow.arch_code, space.arch_code) == (code, None)
    assert (narrow.size, narrow.num_paths, narrow.names) == (1, 1, space.names)
    assert parse(code, narrow) == code and describe(code, narrow) == describe(code, space)
    other = data.draw(codes_of(space))
    if other != code:
        with pytest.raises(ValueError, match="value must be in {"):
            parse(other, narrow)
    for drawn in (fair_cycle(seed, 3, narrow), uniform_paths(seed, 3, narrow), build_pool(seed, 1, narrow)):
        assert drawn.tolist() == [list(code)]
    counts = FairnessCounts(narrow)
    counts.add([code, code])
    assert counts.gap() == 0 and set(map(tuple, counts.as_dict().values())) == {(2,)}


@pytest.mark.parametrize("space", [V1, V2], ids=["v1", "v2"])
@settings(max_examples=30)
@given(data=st.data(), channels=st.integers(2, 9))
def test_a_narrowed_space_costs_what_its_code_costs_in_the_whole(space, data, channels):
    code = data.draw(codes_of(space))
    narrow = space.narrowed(code)
    alone = layer_table(channels, narrow)
    whole = subnet_cost(code, layer_table(channels, space), space, 67, 93)
    assert subnet_cost(code, alone, narrow, 67, 93) == whole
    assert supernet_parameters(alone) == whole.parameters


# ---- names and stored identities


@pytest.mark.parametrize(
    "name, said",
    [
        ("edgeflownet_v3", "network.space: there is no search space 'edgeflownet_v3'; did you mean edgeflownet_v"),
        ("", "there is no search space ''; choose one of edgeflownet_v1, edgeflownet_v2"),
    ],
)
def test_an_unknown_space_is_named_with_the_nearest(name, said):
    with pytest.raises(UserError) as caught:
        get_space(name)
    assert said in str(caught.value)


@pytest.mark.parametrize("stored", [{}, [], "edgeflownet_v1", {"name": "edgeflownet_v1"}, {"name": 1, "digest": 2}, 0])
def test_what_is_no_identity_is_refused(stored):
    with pytest.raises(UserError, match="^it: expected the name and digest of a search space, found"):
        require_same_space(stored, V1, "it")


def test_a_file_without_a_space_is_of_v1():
    require_same_space(None, V1, "it")
    with pytest.raises(UserError, match=f"it is of the search space {V1.label}, expected {V2.label}"):
        require_same_space(None, V2, "it")


# ---- the configuration's space


def configured(**network):
    return load(None, {f"network.{name}": value for name, value in network.items()})[0].network


def test_a_configuration_names_its_space_and_narrows_it():
    assert space_of(load()[0].network) is V1
    assert space_of(configured(space="edgeflownet_v2")) is V2
    for spelled in ("000022222", "0,0,0,0,2,2,2,2,2"):
        assert space_of(configured(arch_code=spelled)).arch_code == (0, 0, 0, 0, 2, 2, 2, 2, 2)
    assert space_of(configured(space="edgeflownet_v2", arch_code="22000011111")).identity() == V2.identity()


@pytest.mark.parametrize(
    "code, said",
    [
        ("00002222", "length=9 required, got 8"),
        ("0000222222", "length=9 required, got 10"),
        ("000022223", r"position 8 \(block H2Out\), found '3'"),
        ("00,0022222", "length=9 required, got 2"),
        ("0,0,0,0,2,2,2,2,2,", "length=9 required, got 10"),
        (" 000022222", "length=9 required, got 10"),
    ],
)
def test_a_wrong_code_of_a_configuration_is_a_user_error(code, said):
    with pytest.raises(UserError, match=f"^network.arch_code: arch code: .*{said}"):
        space_of(configured(arch_code=code))


def test_a_code_without_quotes_in_yaml_is_refused_with_advice(tmp_path):
    path = tmp_path / "a.yaml"
    octal = "'000022222' is no plain decimal number, YAML would read 9362: .* quote a text"
    number = "network.arch_code: expected text, found 111111111; put it in quotes$"
    for text, said in (("000022222", octal), ("111111111", number)):
        path.write_text(f"network:\n  arch_code: {text}\n")
        with pytest.raises(UserError, match=said):
            load(str(path))
    path.write_text('network:\n  arch_code: "000022222"\n')
    assert space_of(load(str(path))[0].network).arch_code == (0, 0, 0, 0, 2, 2, 2, 2, 2)


@pytest.mark.parametrize("size", [2, 3, 12])
def test_a_pool_of_more_than_the_one_code_is_refused(size):
    with pytest.raises(UserError, match=f"leaves one subnet, found a pool of {size}; set --eval_pool_size 1$"):
        build_pool(42, size, space_of(configured(arch_code="000022222")))


# ---- space and network


@pytest.mark.parametrize("space", [V1, V2], ids=["v1", "v2"])
def test_every_block_that_the_network_never_visits_is_an_error(space):
    extra = space._replace(blocks=space.blocks + (Block("Foo", KERNEL, (3, 5, 7)),))
    with pytest.raises(UserError, match=f"^search space {space.name}: the network never visits block Foo$"):
        layer_table(4, extra)


@pytest.mark.parametrize("name", V1.names)
def test_every_visit_without_a_block_is_an_error(name):
    without = V1._replace(blocks=tuple(block for block in V1.blocks if block.name != name))
    with pytest.raises(UserError, match=f"the network visits {name}, but there is no such block$"):
        layer_table(4, without)


@pytest.mark.parametrize("name", ["E0", "E1", "EB0", "Down1", "Up2", "H0Out", "H2"])
def test_a_block_of_another_kind_than_the_network_s_is_an_error(name):
    kind = DEPTH if name not in ("EB0",) else KERNEL
    blocks = tuple(block for block in V1.blocks if block.name != name) + (Block(name, kind, (1, 2)),)
    with pytest.raises(UserError, match=f"block {name}: the network has a .* choice there, found the kind '{kind}'"):
        layer_table(4, V1._replace(blocks=blocks))


@pytest.mark.parametrize(
    "block, said",
    [
        (Block("Down1", KERNEL, (3, 3)), "block Down1 has the option 3x3 twice"),
        (Block("Down1", KERNEL, (3, ((3, 1),))), "block Down1 has the option 3x3 twice"),
        (Block("Down1", KERNEL, ()), "block Down1 has no options"),
        (Block("EB0", DEPTH, (4,)), "there are two blocks EB0"),
    ],
)
def test_options_and_blocks_that_would_share_weights_are_errors(block, said):
    with pytest.raises(UserError, match=f"^search space edgeflownet_v1: {said}$"):
        layer_table(4, V1._replace(blocks=V1.blocks + (block,)))


@given(data=st.data())
@settings(max_examples=30)
def test_any_kernels_may_stand_at_any_convolution(data):
    """The network accepts any options of the right kind."""
    blocks = list(V1.blocks)
    for name in data.draw(st.lists(st.sampled_from(["E0", "E1", "Down1", "Down2", "Up1", "Up2"]), unique=True)):
        options = st.sampled_from([7, 5, 3, 1, ((3, 1), (3, 2)), ((5, 1), (3, 1), (3, 3))])
        blocks.append(Block(name, KERNEL, tuple(data.draw(st.lists(options, min_size=1, max_size=3, unique=True)))))
    space = SearchSpace("any", tuple(data.draw(st.permutations(blocks))))
    layers = layer_table(4, space)
    assume(space.blocks != V1.blocks)
    assert sorted(layer.name for layer in layers if layer.block) == sorted(space.names)
    names = [conv.name for layer in layers for value in layer.values for conv in layer.convolutions(value)]
    assert len(set(names)) == len(names), "no two options share a variable"
