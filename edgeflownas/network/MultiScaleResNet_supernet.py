"""The supernet: EdgeFlowNet-bilinear, with choice blocks of the search space in place of some layers.

    images [B, H, W, 6] -> E0 /2 -> E1 /4 -> EB0 -> Down1 /8 -> EB1 -> Down2 /16 -> DB0 -> Up1 /8 -> DB1 -> Up2 /4
    Up2 -> H0Out                 out_0 [B, H/4, W/4, 4]
    Up2 -> up -> H1 -> H1Out     out_1 [B, H/2, W/2, 4]
    H1  -> up -> H2 -> H2Out     out_2 [B, H,   W,   4]

Channels 0 and 1 are flow (x, y, full-resolution pixels), 2 and 3 their uncertainty. Each stride rounds sizes up;
each upsampling returns to exactly the size of its encoder stage. Kernels and widths are in `layer_table`. Variable
names do not depend on the code: `supernet/EB0/deep2/block1/conv1/kernel`. Built on `layers` and `routing`.
Source: EdgeFlowNet (Pinnamaraju Raju et al., 2024), and the supernet training plan, section 4.
"""

from collections import OrderedDict
from typing import Dict, List, Tuple, Union

from edgeflownas.nas.search_space import DEPTH, SearchSpace
from edgeflownas.network.layer_table import IMAGE_CHANNELS, IMAGES, OUTPUTS, SMALLEST, Layer, layer_table
from edgeflownas.network.layers import Variables, conv2d, upsample
from edgeflownas.network.routing import FairPaths, Norm, Option, Paths, SinglePath, on_each_path
from edgeflownas.tfcompat import tf


def stage_sizes(height: int, width: int) -> List[Tuple[int, int]]:
    """Sizes (height, width) of the input and of the four encoder stages, /1 to /16, rounded up."""
    sizes = [(height, width)]
    for _ in range(4):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class SupernetGraph:
    """The variables of all subnets of a space, and the forward pass of any of them.

    `SupernetGraph(32, space).forward(images, FairPaths(codes, space), BatchStatistics(net.variables))`.
    """

    def __init__(self, init_channels: int, space: SearchSpace) -> None:
        """Creates the variables. UserError if the space does not fit the network (`layer_table`)."""
        self.space = space
        self.layers = layer_table(init_channels, space)
        convolutions = [conv for layer in self.layers for value in layer.values for conv in layer.convolutions(value)]
        norms: "OrderedDict[str, int]" = OrderedDict()
        for layer in self.layers:
            own = [layer.norm] if layer.norm else []
            norms.update((norm, layer.place.outputs) for norm in layer.norms_inside() + own)
        self.variables = Variables(convolutions, norms)

    def forward(self, images: tf.Tensor, route: Union[FairPaths, SinglePath], norm: Norm) -> List[List[tf.Tensor]]:
        """The outputs for `images` [B, H, W, 6] in [-1, 1]. ValueError unless H and W are static and 64 or more.

        Returns for each scale, from coarse to fine (H/4, H/2, H), one tensor [B, h, w, 4] per path, in path order.
        """
        height, width, channels = images.shape.as_list()[1:]
        if height is None or width is None or min(height, width) < SMALLEST or channels != IMAGE_CHANNELS:
            raise ValueError(f"images: got {images.shape}, want [B, H, W, 6] with H and W of {SMALLEST} or more")
        sizes = stage_sizes(height, width)
        results: Dict[str, Paths] = {IMAGES: Paths([images], None, shared=True)}
        for layer in self.layers:
            paths = results[layer.place.source]
            option = self._option(layer, sizes[layer.place.stage])
            if layer.block is None:
                paths = on_each_path(paths, lambda x, option=option: option(0, x, norm))
            else:
                paths = route.choose(layer.name, paths, option, norm, layer.norms_inside())
            results[layer.name] = self._normed(layer, paths, route, norm) if layer.norm else paths
        return [route.in_path_order(results[name]) for name in OUTPUTS]

    def _normed(self, layer: Layer, paths: Paths, route: Union[FairPaths, SinglePath], norm: Norm) -> Paths:
        """Reorders the paths for the choice block that reads them next, then applies batch norm and ReLU."""
        following = [other.name for other in self.layers if other.block and other.place.source == layer.name]
        if following and not paths.shared:
            paths = route.towards(following[0], paths)
        return on_each_path(paths, lambda x: tf.nn.relu(norm(layer.norm, x)))

    def _option(self, layer: Layer, size: Tuple[int, int]) -> Option:
        """The function of a layer: (value of the code, x, norm) -> result with `size` (height, width)."""

        def residual_blocks(value: int, x: tf.Tensor, norm: Norm) -> tf.Tensor:
            kernels = norm.parameters
            for scope in layer.residual_scopes(value):  # conv, BN, ReLU, conv, BN, add, ReLU; the size stays
                y = tf.nn.relu(norm(f"{scope}/bn1", conv2d(x, kernels[f"{scope}/conv1/kernel"])))
                y = norm(f"{scope}/bn2", conv2d(y, kernels[f"{scope}/conv2/kernel"]))
                x = tf.nn.relu(x + y)
            return x

        def convolutions(value: int, x: tf.Tensor, norm: Norm) -> tf.Tensor:
            kernels = norm.parameters
            if layer.upsampled:  # after the reordering of the paths, which then copies a quarter
                x = upsample(x, *size)
            first, *others = layer.convolutions(value)
            x = conv2d(x, kernels[f"{first.name}/kernel"], layer.stride, first.dilation)
            for conv, scope in zip(others, layer.norms(value)):
                x = conv2d(tf.nn.relu(norm(scope, x)), kernels[f"{conv.name}/kernel"], dilation=conv.dilation)
            return x

        return residual_blocks if layer.place.kind == DEPTH else convolutions
