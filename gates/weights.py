"""The check of initial weights, on plain arrays."""

from typing import Dict

import numpy as np

from gates.asserts import assert_close, assert_equal, assert_le, assert_true


def assert_glorot(first: Dict[str, np.ndarray]) -> None:
    """Asserts that kernels are Glorot-uniform and drawn independently, gammas and variances 1, and the rest 0.

    Of n values, the largest must be within 20 / n of the bound, and mean and mean square must be within five standard
    deviations of the distribution's; a correct kernel fails each with a chance below 1e-6.
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
