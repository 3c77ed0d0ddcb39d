"""The factor on the loss that keeps small gradients alive in float16 (Micikevicius et al., Mixed Precision Training,
2018).

A power of two, so in float32 it changes no bit. Unlike the usual dynamic scale it never skips a step: a cycle whose
gradient
overflows is run again at half the scale, so every cycle is trained and the options' counts stay equal.
"""

import dataclasses

GROW_AFTER = 2000  # cycles in a row that fitted
HIGHEST = 2.0**24


@dataclasses.dataclass
class LossScale:
    """Part of a run's state, so that a resume goes on with it exactly."""

    value: float = 2.0**15
    fitted: int = 0  # cycles in a row since the last change

    def fits(self) -> None:
        """A cycle's gradient was finite: doubles the scale after many of those."""
        self.fitted += 1
        if self.fitted >= GROW_AFTER:
            self.value, self.fitted = min(2.0 * self.value, HIGHEST), 0

    def lower(self) -> bool:
        """A cycle's gradient was not finite: halves the scale. False if it is 1, so that the scale cannot be the
        reason."""
        if self.value <= 1.0:
            return False
        self.value, self.fitted = 0.5 * self.value, 0
        return True
