"""Early stop: counts consecutive evaluations without an improvement of more than `min_delta`."""

import math
from typing import Any, Dict, Optional


class EarlyStop:
    """Stops after `patience` consecutive values that are not below `best` by more than `min_delta`.

    `best` is the last improvement, None before the first. `wait` counts the values since. A smaller improvement leaves
    `best` unchanged, so a slow decline counts once it exceeds `min_delta` in total.
    """

    def __init__(self, patience: int, min_delta: float, best: Optional[float] = None, wait: int = 0) -> None:
        """`best` and `wait` continue an earlier count (see `as_dict`). Raises ValueError for values out of range."""
        if patience < 1:
            raise ValueError(f"early stop: patience must be at least 1, got {patience}")
        if not 0.0 <= min_delta < math.inf:
            raise ValueError(f"early stop: min_delta must be finite and at least 0, got {min_delta}")
        if best is not None and not math.isfinite(best):
            raise ValueError(f"early stop: best must be finite or None, got {best}")
        if wait < 0:
            raise ValueError(f"early stop: wait must be at least 0, got {wait}")
        self.patience = patience
        self.min_delta = min_delta
        self.best = best
        self.wait = wait

    def update(self, value: float) -> bool:
        """Takes the value of one evaluation (lower is better); returns whether to stop.

        An improvement is `value < best - min_delta` (float64). The first finite value is one. NaN and infinity never
        are.
        """
        value = float(value)
        if math.isfinite(value) and (self.best is None or value < self.best - self.min_delta):
            self.best = value
            self.wait = 0
        else:
            self.wait += 1
        return self.stopped

    @property
    def stopped(self) -> bool:
        """Whether the patience is used up. Also valid for a restored count."""
        return self.wait >= self.patience

    def as_dict(self) -> Dict[str, Any]:
        """{"best", "wait"}: `EarlyStop(patience, min_delta, **state)` continues from it."""
        return {"best": self.best, "wait": self.wait}
