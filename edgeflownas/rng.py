"""Random numbers as pure functions of (purpose, seed, index).

No generator is kept between calls: the random numbers of step `t` come from a new
`numpy.random.RandomState([seed, stream, t])`, whose stream NumPy has frozen. So a resumed run draws the same numbers as
an uninterrupted one, on every supported NumPy version.
"""

import numpy as np

# Do not change these numbers: every run depends on them.
STREAMS = {
    "cycle": 0,  # codes of a fair cycle, index = step
    "pool": 1,  # evaluation pool, index = number of the start table
    "order": 2,  # order of the training samples, index = epoch
    "crop": 3,  # crop offsets of the training samples, index = epoch
    "bn": 4,  # samples for BN recalibration
    "holdout": 5,  # validation samples held out of the training list
    "init": 6,  # initial weights, index = CRC-32 of the variable's name
    "synthetic": 7,  # synthetic FC2, index = sample, or none for the whole set
    "random_codes": 8,  # codes drawn for checks and `--random N`; index 1: images of the shape check
    "uniform": 9,  # codes of `supernet_mode: uniform`, index = step
    "bootstrap_codes": 10,  # codes of a bootstrap
    "bootstrap_samples": 11,  # validation samples of a bootstrap
    "permutation": 12,  # orders of a permutation test
    "calibration": 13,  # training samples that calibrate an int8 export
}


def stream(purpose: str, seed: int, *index: int) -> np.random.RandomState:
    """A new generator for a purpose (a key of `STREAMS`), a seed and an index (non-negative, below 2**32)."""
    return np.random.RandomState([seed, STREAMS[purpose]] + list(index))
