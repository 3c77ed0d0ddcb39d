"""The supernet: EdgeFlowNet-bilinear with nine choice blocks (four depths, five head kernels).

    images [B, H, W, 6] -> E0 /2 -> E1 /4 -> EB0 -> Down1 /8 -> EB1 -> Down2 /16 -> DB0 -> Up1 /8 -> DB1 -> Up2 /4
    Up2 -> H0Out                 out_0 [B, H/4, W/4, 4]
    Up2 -> up -> H1 -> H1Out     out_1 [B, H/2, W/2, 4]
    H1  -> up -> H2 -> H2Out     out_2 [B, H,   W,   4]

Channels 0 and 1 are flow (x, y, full-resolution pixels), 2 and 3 their uncertainty. Sizes are rounded up at each
stride;
every upsampling returns to exactly its encoder stage's size. With C = `init_channels` (32) the widths are C, 2C, 4C,
8C on
the way down, and back to C/2 in H2. Variable names do not depend on the code: `supernet/EB0/deep2/block1/conv1/kernel`.
Source: EdgeFlowNet (Pinnamaraju Raju et al., 2024), and the supernet training plan, section 4.
"""

from collections import OrderedDict
from typing import List, Tuple, Union

from edgeflownas.nas.search_space import SPACE, Block, SearchSpace
from edgeflownas.network.layers import Conv, Variables, conv2d, upsample
from edgeflownas.network.routing import FairPaths, Norm, Option, Paths, SinglePath, each
from edgeflownas.tfcompat import tf

OUT_CHANNELS = 4
SCOPE = "supernet"


def stage_sizes(height: int, width: int) -> List[Tuple[int, int]]:
    """Sizes of the input and of the four encoder stages, /1 to /16, rounded up."""
    sizes = [(height, width)]
    for _ in range(4):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


FIXED_KERNELS = {"E0": 7, "E1": 5, "Down1": 3, "Down2": 3, "Up1": 3, "Up2": 3}
OUTPUTS = ("H0Out", "H1Out", "H2Out")  # bare convolutions; every other one is followed by batch norm


def channel_table(c: int) -> "OrderedDict[str, Tuple[int, int]]":
    """Channels in and out of every place in the network, a fixed layer or a choice block's options."""
    return OrderedDict(
        [
            ("E0", (6, c)),
            ("E1", (c, 2 * c)),
            ("EB0", (2 * c, 2 * c)),
            ("Down1", (2 * c, 4 * c)),
            ("EB1", (4 * c, 4 * c)),
            ("Down2", (4 * c, 8 * c)),
            ("DB0", (8 * c, 8 * c)),
            ("Up1", (8 * c, 4 * c)),
            ("DB1", (4 * c, 4 * c)),
            ("Up2", (4 * c, 2 * c)),
            ("H0Out", (2 * c, OUT_CHANNELS)),
            ("H1", (2 * c, c)),
            ("H1Out", (c, OUT_CHANNELS)),
            ("H2", (c, c // 2)),
            ("H2Out", (c // 2, OUT_CHANNELS)),
        ]
    )


def residual_scopes(block: Block, value: int) -> List[str]:
    """Variable scopes of the residual blocks of one option of a depth block, in order."""
    depth = block.options[value]
    return [f"{SCOPE}/{block.name}/deep{depth}/block{i + 1}" for i in range(depth)]


def kernel_scope(block: Block, value: int) -> str:
    """Variable scope of one option of a kernel block."""
    return f"{SCOPE}/{block.name}/k{block.options[value]}/conv"


class Supernet:
    """The variables of all subnets, and the forward pass of any of them.

    `Supernet(32).forward(images, FairPaths(codes, space), BatchStatistics(net.variables))`.
    """

    def __init__(self, init_channels: int = 32, space: SearchSpace = SPACE) -> None:
        self.space = space
        self.widths = channel_table(init_channels)
        self.variables = Variables(*self._layers())

    def forward(self, images: tf.Tensor, route: Union[FairPaths, SinglePath], norm: Norm) -> List[List[tf.Tensor]]:
        """`images` [B, H, W, 6] in [-1, 1]; H and W static, 64 or more.

        Returns, per scale from coarse to fine (H/4, H/2, H), one tensor [B, h, w, 4] per path, in path order.
        """
        height, width = images.shape.as_list()[1:3]
        if height is None or width is None or min(height, width) < 64 or images.shape.as_list()[3] != 6:
            raise ValueError(f"images: got {images.shape}, want [B, H, W, 6] with H and W of 64 or more")
        size = stage_sizes(height, width)

        def bn_relu(name: str, paths: Paths, towards: str) -> Paths:
            paths = route.towards(towards, paths) if towards else paths
            return each(paths, lambda x: tf.nn.relu(norm(f"{SCOPE}/{name}/bn", x)))

        def layer(name: str, paths: Paths, stride: int = 1, grow_to: int = 0, towards: str = "") -> Paths:
            kernel = self.variables.trained[f"{SCOPE}/{name}/conv/kernel"]
            convolved = each(paths, lambda x: conv2d(upsample(x, *size[grow_to]) if grow_to else x, kernel, stride))
            return bn_relu(name, convolved, towards)

        def choice(name: str, paths: Paths) -> Paths:
            return route.choose(name, paths, self._option(name), norm, self._norms_inside(name))

        def head(name: str, paths: Paths, grow_to: int, towards: str) -> Paths:
            option = self._option(name)  # paths are reordered before they are upsampled: a quarter of the copying
            paths = route.choose(
                name, paths, lambda value, x, bn: option(value, upsample(x, *size[grow_to]), bn), norm, ()
            )
            return bn_relu(name, paths, towards)

        x = layer("E0", Paths([images], None), stride=2)  # [B, H/2, W/2, C]
        x = layer("E1", x, stride=2)  # [B, H/4, W/4, 2C]
        x = choice("EB0", x)
        x = choice("EB1", layer("Down1", x, stride=2))  # [B, H/8, W/8, 4C]
        x = choice("DB0", layer("Down2", x, stride=2, towards="DB0"))  # [B, H/16, W/16, 8C]
        x = choice("DB1", layer("Up1", x, grow_to=3, towards="DB1"))  # [B, H/8, W/8, 4C]
        x = layer("Up2", x, grow_to=2, towards="H0Out")  # [B, H/4, W/4, 2C]
        out_0 = choice("H0Out", x)  # [B, H/4, W/4, 4]
        x = head("H1", x, grow_to=1, towards="H1Out")  # [B, H/2, W/2, C]
        out_1 = choice("H1Out", x)  # [B, H/2, W/2, 4]
        x = head("H2", x, grow_to=0, towards="H2Out")  # [B, H, W, C/2]
        out_2 = choice("H2Out", x)  # [B, H, W, 4]
        return [route.in_path_order(out) for out in (out_0, out_1, out_2)]

    def _option(self, name: str) -> Option:
        """The function of a choice block: (value of the code, x, norm) -> result."""
        block = self.space.blocks[self.space.position(name)]

        def deep(value: int, x: tf.Tensor, norm: Norm) -> tf.Tensor:
            for scope in residual_scopes(block, value):
                x = self._residual(scope, x, norm)
            return x

        def kernel(value: int, x: tf.Tensor, norm: Norm) -> tf.Tensor:
            return conv2d(x, self.variables.trained[kernel_scope(block, value) + "/kernel"])

        return deep if block.kind == "depth" else kernel

    def _residual(self, scope: str, x: tf.Tensor, norm: Norm) -> tf.Tensor:
        """conv 3x3, BN, ReLU, conv 3x3, BN, add, ReLU; the size stays."""
        kernels = [self.variables.trained[f"{scope}/conv{i}/kernel"] for i in (1, 2)]
        y = tf.nn.relu(norm(scope + "/bn1", conv2d(x, kernels[0])))
        y = norm(scope + "/bn2", conv2d(y, kernels[1]))
        return tf.nn.relu(x + y)

    def _norms_inside(self, name: str) -> List[str]:
        """The batch norms that belong to the options of a block; a kernel block's norm follows it and is shared."""
        block = self.space.blocks[self.space.position(name)]
        if block.kind != "depth":
            return []
        return [
            f"{scope}/bn{i}"
            for value in range(len(block.options))
            for scope in residual_scopes(block, value)
            for i in (1, 2)
        ]

    def _layers(self) -> Tuple[List[Conv], "OrderedDict[str, int]"]:
        """All convolutions and batch norms, fixed layers and every option of every block."""
        convs: List[Conv] = []
        norms: "OrderedDict[str, int]" = OrderedDict()
        blocks = {block.name: block for block in self.space.blocks}
        for name, (inputs, outputs) in self.widths.items():
            if name in FIXED_KERNELS:
                convs.append(Conv(f"{SCOPE}/{name}/conv", FIXED_KERNELS[name], inputs, outputs))
            elif blocks[name].kind == "depth":
                for value in range(len(blocks[name].options)):
                    for scope in residual_scopes(blocks[name], value):
                        for i in (1, 2):
                            convs.append(Conv(f"{scope}/conv{i}", 3, inputs, outputs))
                            norms[f"{scope}/bn{i}"] = outputs
            else:
                for value, kernel in enumerate(blocks[name].options):
                    convs.append(Conv(kernel_scope(blocks[name], value), kernel, inputs, outputs))
            if name not in OUTPUTS and (name in FIXED_KERNELS or blocks[name].kind == "kernel"):
                norms[f"{SCOPE}/{name}/bn"] = outputs
        return convs, norms
