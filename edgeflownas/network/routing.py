"""Routes the paths of several codes through one network; nothing is computed twice. Built on `layers`.

A fair cycle uses every option of a choice block equally often, so it is a permutation. Before each choice block the
paths are reordered into slots: slot `o` holds the path that chose option `o`. Then option `o` is applied to slot `o`.
No result is masked or discarded. `FairPaths` does this for P codes at once. `SinglePath` runs one arbitrary
code and executes only the chosen branches.
"""

from typing import Callable, List, NamedTuple, Optional, Sequence, Union

from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.network.layers import BatchStatistics, StoredStatistics
from edgeflownas.tfcompat import tf

Norm = Union[BatchStatistics, StoredStatistics]
Option = Callable[[int, tf.Tensor, Norm], tf.Tensor]


class Paths(NamedTuple):
    """One tensor per path, in the slot order of choice block `block`; before the first choice one tensor for all paths.

    `shared`: paths may share tensors; true up to the second choice.
    """

    tensors: List[tf.Tensor]
    block: Optional[int]
    shared: bool


def on_each_path(paths: Paths, function: Callable[[tf.Tensor], tf.Tensor]) -> Paths:
    """Applies a shared layer to every path; computes paths that share a tensor only once."""
    done = {}  # tensor name -> result
    for tensor in paths.tensors:
        if tensor.name not in done:
            done[tensor.name] = function(tensor)
    return paths._replace(tensors=[done[tensor.name] for tensor in paths.tensors])


class FairPaths:
    """Routes P codes that together use every option of every block equally often.

    `codes` is an int32 tensor [P, blocks], one row per path; P is a multiple of the space's `num_paths`.
    """

    def __init__(self, codes: tf.Tensor, space: SearchSpace) -> None:
        self.space = space
        self.num_paths = codes.shape.as_list()[0]
        # path_in[b][slot]: the path in that slot of block b; slot_of[b][path]: the inverse.
        self._path_in = [tf.argsort(codes[:, b], stable=True) for b in range(len(space.blocks))]
        self._slot_of = [tf.math.invert_permutation(order) for order in self._path_in]

    def choose(self, name: str, paths: Paths, option: Option, norm: Norm, inside: Sequence[str]) -> Paths:
        """Applies `option(value, x, norm)` of block `name` to each path according to its code.

        `inside` names the batch norms inside the block's options.
        """
        block = self.space.position(name)
        values = self.space.blocks[block].values
        repeats = self.num_paths // len(values)
        if paths.block is None:  # one input for all paths: each option is computed once
            x = paths.tensors[0]
            results = [option(value, x, norm) for value in values]
            return Paths([result for result in results for _ in range(repeats)], block, shared=True)
        slots = self.towards(name, paths).tensors
        return Paths([option(values[slot // repeats], x, norm) for slot, x in enumerate(slots)], block, shared=False)

    def towards(self, name: str, paths: Paths) -> Paths:
        """Reorders the paths to the slot order of block `name`, so that `choose` need not reorder them.

        Call it before a batch norm, to save memory. The batch norm's gradient keeps its input, so the reordered copy is
        kept in place of the original; after the batch norm, both would be kept. Do not call it while paths share
        tensors: the batch norm would then be computed for each path.
        """
        block = self.space.position(name)
        if paths.block == block:
            return paths
        return Paths(self._arrange(paths, self._path_in[block]), block, shared=False)

    def in_path_order(self, paths: Paths) -> List[tf.Tensor]:
        """One tensor per path, in the order of `codes`."""
        return self._arrange(paths, tf.range(self.num_paths))

    def _arrange(self, paths: Paths, path_in: tf.Tensor) -> List[tf.Tensor]:
        """The tensors in the order in which place `i` holds path `path_in[i]`."""
        if self.num_paths == 1:
            return paths.tensors
        return _reorder(paths.tensors, tf.gather(self._slot_of[paths.block], path_in))


def _reorder(tensors: Sequence[tf.Tensor], source: tf.Tensor) -> List[tf.Tensor]:
    """Permutes tensors: place `i` of the result is `tensors[source[i]]`.

    The gradient is the inverse permutation, because the gradient of `tf.gather` (adding slices to zeros) is slower.
    """

    def rows(values: Sequence[tf.Tensor], order: tf.Tensor) -> List[tf.Tensor]:
        shape = values[0].shape.as_list()
        stacked = tf.stack(values)  # the only copy: slices of the first axis share its memory
        begins = tf.unstack(tf.pad(tf.expand_dims(order, 1), [[0, 0], [0, len(shape)]]))
        size, row = tf.constant([1] + [-1] * len(shape)), tf.constant([-1 if n is None else n for n in shape])
        return [tf.reshape(tf.slice(stacked, begin, size), row) for begin in begins]

    @tf.custom_gradient
    def permute(*values: tf.Tensor):  # type: ignore
        def gradient(*results: tf.Tensor) -> List[tf.Tensor]:
            return rows(results, tf.math.invert_permutation(source))

        return rows(values, source), gradient

    return list(permute(*tensors))


class SinglePath:
    """Routes one code, given at run time as an int32 tensor [1, blocks]; only the chosen branches run."""

    def __init__(self, codes: tf.Tensor, space: SearchSpace) -> None:
        self.space = space
        self.num_paths = 1
        self._codes = codes

    def choose(self, name: str, paths: Paths, option: Option, norm: Norm, inside: Sequence[str]) -> Paths:
        """Applies `option(value, x, norm)` of block `name` for the value in the code."""
        block = self.space.position(name)
        x, values = paths.tensors[0], self.space.blocks[block].values
        if len(values) == 1:  # a narrowed block has no branches
            return Paths([option(values[0], x, norm)], block, shared=False)

        def branch(value: int) -> List[tf.Tensor]:
            if not isinstance(norm, BatchStatistics):
                return [option(value, x, norm)]
            # A branch must return its statistics as results, and all branches must return lists of the same form.
            noted = BatchStatistics(norm.variables, norm.parameters)
            outputs = [option(value, x, noted)]
            for layer in inside:
                outputs.extend(noted.noted[layer][0] if layer in noted.noted else noted.unused(layer))
            return outputs

        branches = [lambda value=value: branch(value) for value in values]
        results = tf.switch_case(self._codes[0, block], branches)
        results = results if isinstance(results, (list, tuple)) else [results]
        if isinstance(norm, BatchStatistics):
            for i, layer in enumerate(inside):
                norm.note(layer, *results[1 + 3 * i : 4 + 3 * i])
        return Paths([results[0]], block, shared=False)

    def towards(self, name: str, paths: Paths) -> Paths:
        """Returns `paths` unchanged, because one path has only one order."""
        return paths

    def in_path_order(self, paths: Paths) -> List[tf.Tensor]:
        """The tensor of the only path, as a list."""
        return paths.tensors
