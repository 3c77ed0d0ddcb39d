"""The learning rate as a pure function of the step."""

import math


def cosine_lr(t: int, lr: float, total_steps: int) -> float:
    """`0.5 * lr * (1 + cos(pi * t / T))` in float64: `lr` at step 0, almost 0 at the last step, T - 1.

    `total_steps` is T, the steps of the whole schedule. Raises ValueError unless 0 <= t < T. Source: SGDR (Loshchilov
    and Hutter, 2017), without restarts.
    """
    if not 0 <= t < total_steps:
        raise ValueError(f"learning rate: step must be from 0 to {total_steps - 1}, got {t}")
    return 0.5 * float(lr) * (1.0 + math.cos(math.pi * t / total_steps))
