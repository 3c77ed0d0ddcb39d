"""What first weights and single updates must be, from nothing but arrays."""

from typing import Dict

import numpy as np

from gates.asserts import assert_close, assert_equal, assert_le, assert_true


def assert_glorot(first: Dict[str, np.ndarray]) -> None:
    """Kernels are uniform within Glorot's bounds, each drawn for itself; gamma and variances are 1, the rest 0.

    The largest of n values reaches the bound up to 20 / n of it, and mean and mean square lie within five standard
    deviations (a chance of less than 1e-6 each) of those of the distribution.
    """
    __tracebackhide__ = True
    seen = {}
    for name, value in first.items():
        part = name.split("/")[-1]
        if part != "kernel":
            want = 1.0 if part in ("gamma", "moving_variance") else 0.0
            assert_equal(what=name, got=np.unique(value).tolist(), want=[want])
            continue
        height, width, inputs, outputs = value.shape
        limit = np.sqrt(6 / (height * width * (inputs + outputs)))
        share = value.astype(np.float64).ravel() / limit
        n = share.size
        assert_le(what=f"largest |value| of {name}, in bounds", got=np.abs(share).max(), want=1.0, atol=1e-6)
        assert_true(
            what=f"largest |value| of {name}",
            ok=np.abs(share).max() > 1 - 20 / n,
            got=np.abs(share).max(),
            want="near 1",
        )
        assert_close(what="mean of " + name, got=share.mean(), want=0, atol=5 * np.sqrt(1 / 3 / n))
        assert_close(what="mean square of " + name, got=np.mean(share**2), want=1 / 3, atol=5 * np.sqrt(4 / 45 / n))
        beginning = tuple(np.round(share[:8], 5))
        assert_true(
            what="values of " + name, ok=beginning not in seen, got=seen.get(beginning), want="no other kernel's"
        )
        seen[beginning] = name
