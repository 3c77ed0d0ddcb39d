"""Search spaces that the tests share: the real one, and others that nothing in `nas` may fail on."""

from edgeflownas.nas.search_space import SPACE, Block, SearchSpace

# 3- and 2-option blocks: 6 paths in a cycle.
MIXED = SearchSpace(
    (
        Block("A", "depth", (1, 2, 3)),
        Block("B", "kernel", (5, 3)),
        Block("C", "kernel", (7, 5, 3)),
        Block("D", "depth", (1, 2)),
        Block("E", "kernel", (7, 5, 3)),
    )
)
# 1, 4 and 2 options: 4 paths.
ODD = SearchSpace((Block("One", "depth", (2,)), Block("Four", "depth", (1, 2, 3, 4)), Block("Two", "kernel", (3, 5))))
SINGLE = SearchSpace((Block("Only", "kernel", (7, 5, 3)),))
# More options than digits.
WIDE = SearchSpace((Block("Wide", "depth", tuple(range(1, 12))), Block("Two", "kernel", (3, 5))))

SPACES = {"nine": SPACE, "mixed": MIXED, "odd": ODD, "single": SINGLE}
