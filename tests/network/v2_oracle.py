"""edgeflownet_v2 in plain NumPy: the gates' written-out network, on the gates' own table of that space."""

import numpy as np

from gates import oracles, spaces


def dilated(kernel, rate):
    """[k, k, C, D] with rate - 1 zeros between its entries: a dilated convolution is a plain one by this kernel."""
    k = kernel.shape[0]
    wide = np.zeros((rate * (k - 1) + 1,) * 2 + kernel.shape[2:])
    wide[::rate, ::rate] = kernel
    return wide


class V2Network(oracles.Network):
    """The subnet of one code of edgeflownet_v2, whatever space the gates are run on."""

    def __init__(self, weights, code, statistics=None):
        super().__init__(weights, code, statistics)
        self.space = spaces.V2
        self.chosen = dict(zip(self.space.names, map(int, code)))
