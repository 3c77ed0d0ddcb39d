"""Search spaces that the tests share: the shipped ones, others that nothing in `nas` may fail on, and random ones."""

from hypothesis import strategies as st

from edgeflownas.nas.search_space import DEPTH, KERNEL, Block, SearchSpace, get_space

V1, V2 = get_space("edgeflownet_v1"), get_space("edgeflownet_v2")

# 3- and 2-option blocks: 6 paths in a cycle.
MIXED = SearchSpace(
    "mixed",
    (
        Block("A", DEPTH, (1, 2, 3)),
        Block("B", KERNEL, (5, 3)),
        Block("C", KERNEL, (7, 5, 3)),
        Block("D", DEPTH, (1, 2)),
        Block("E", KERNEL, (7, 5, 3)),
    ),
)
# 1, 4 and 2 options: 4 paths.
ODD = SearchSpace("odd", (Block("One", DEPTH, (2,)), Block("Four", DEPTH, (1, 2, 3, 4)), Block("Two", KERNEL, (3, 5))))
SINGLE = SearchSpace("single", (Block("Only", KERNEL, (7, 5, 3)),))
# More options than digits.
WIDE = SearchSpace("wide", (Block("Wide", DEPTH, tuple(range(1, 12))), Block("Two", KERNEL, (3, 5))))

SPACES = {"v1": V1, "v2": V2, "mixed": MIXED, "odd": ODD, "single": SINGLE}

_KERNEL_OPTIONS = (7, 5, 3, 1, ((3, 1), (3, 2)), ((3, 1), (3, 1)), ((5, 2),))


@st.composite
def random_spaces(draw, most_blocks=12):
    """1 to 12 blocks of 1 to 4 options: up to 12 paths in a cycle."""

    def block(number):
        kind = draw(st.sampled_from([DEPTH, KERNEL]))
        options = st.sampled_from(_KERNEL_OPTIONS) if kind == KERNEL else st.integers(0, 9)
        return Block(f"B{number}", kind, tuple(draw(st.lists(options, min_size=1, max_size=4, unique=True))))

    count = draw(st.integers(1, most_blocks))
    return SearchSpace(draw(st.sampled_from(["one", "other"])), tuple(block(number) for number in range(count)))


def codes_of(space):
    """Any code of the space, as a tuple."""
    return st.tuples(*(st.sampled_from(block.values) for block in space.blocks))
