"""The dynamic loss scale of mixed precision, which keeps small gradients from underflowing in float16.

Source: Micikevicius et al., Mixed Precision Training, 2018. The scale is a power of two, so it changes no bit in
float32. Unlike the usual dynamic scale it never skips a step: a cycle whose gradient overflows runs again at half the
scale. So every cycle is trained, and all options are trained equally often.
"""

import dataclasses

GROW_AFTER = 2000  # consecutive cycles with a finite gradient, after which the scale doubles
HIGHEST = 2.0**24


@dataclasses.dataclass
class LossScale:
    """The current scale. It is part of the run's state, so that a resume continues exactly."""

    value: float = 2.0**15
    fitted: int = 0  # consecutive cycles with a finite gradient since the last change

    def count_finite(self) -> None:
        """Counts a cycle with a finite gradient. Doubles the scale after GROW_AFTER of them, up to HIGHEST."""
        self.fitted += 1
        if self.fitted >= GROW_AFTER:
            self.value, self.fitted = min(2.0 * self.value, HIGHEST), 0

    def halve(self) -> bool:
        """Halves the scale after a gradient that is not finite. Returns False if it is 1 and cannot be the cause."""
        if self.value <= 1.0:
            return False
        self.value, self.fitted = 0.5 * self.value, 0
        return True
