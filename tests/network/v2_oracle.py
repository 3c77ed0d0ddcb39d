"""edgeflownet_v2 in plain NumPy, written out layer by layer from DESIGN 4: the second space's counterpart of
`gates.oracles.Network`, from which it takes the operations and nothing of the order of blocks."""

import numpy as np

from gates import oracles

E0_KERNEL = {0: 7, 1: 5, 2: 3}
HEAD_KERNEL = {0: 3, 1: 5}


def dilated(kernel, rate):
    """[k, k, C, D] with rate - 1 zeros between its entries: a dilated convolution is a plain one by this kernel."""
    k = kernel.shape[0]
    wide = np.zeros((rate * (k - 1) + 1,) * 2 + kernel.shape[2:])
    wide[::rate, ::rate] = kernel
    return wide


class V2Network(oracles.Network):
    """The subnet of one code: E0, E1, EB0, EB1, DB0, DB1, H0Out, H1, H1Out, H2, H2Out."""

    def forward(self, images):
        """As `oracles.Network.forward`."""
        x = images.astype(np.float64) / 127.5 - 1
        full = x.shape[1:3]
        e0 = self._bn_relu("E0", oracles.conv(x, self._weight(f"E0/k{E0_KERNEL[self.code[0]]}/conv"), 2))
        e1 = self._deep("EB0", 2, self._bn_relu("E1", self._e1(e0)))
        e2 = self._deep("EB1", 3, self._layer("Down1", e1, 2))
        d = self._deep("DB0", 4, self._layer("Down2", e2, 2))
        d = self._deep("DB1", 5, self._layer("Up1", oracles.upsample(d, *e2.shape[1:3])))
        d = self._layer("Up2", oracles.upsample(d, *e1.shape[1:3]))
        h1 = self._bn_relu("H1", self._head("H1", 7, oracles.upsample(d, *e0.shape[1:3])))
        h2 = self._bn_relu("H2", self._head("H2", 9, oracles.upsample(h1, *full)))
        return [self._head("H0Out", 6, d), self._head("H1Out", 8, h1), self._head("H2Out", 10, h2)]

    def _weight(self, name):
        return self.weights[f"supernet/{name}/kernel"]

    def _e1(self, x):
        if self.code[1] < 2:
            return oracles.conv(x, self._weight(f"E1/k{(5, 3)[self.code[1]]}/conv"), 2)
        x = oracles.conv(x, self._weight("E1/k3_k3d2/conv1"), 2)
        x = np.maximum(self._norm("supernet/E1/k3_k3d2/bn1", x), 0)
        return oracles.conv(x, dilated(self._weight("E1/k3_k3d2/conv2"), 2))

    def _head(self, place, position, x):
        return oracles.conv(x, self._weight(f"{place}/k{HEAD_KERNEL[self.code[position]]}/conv"))
