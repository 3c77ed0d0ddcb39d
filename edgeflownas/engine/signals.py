"""SIGTERM, SIGUSR1 (SLURM's warning ahead of the limit) and SIGINT ask for a stop at the next safe point.

Of several ranks all must stop at the same point, so a signal counts there once all of them know of it.
"""

import signal
from types import FrameType
from typing import Any, Dict, Iterable, Optional

from edgeflownas.errors import UserError

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C (SIGINT)"}


class StoppedEarly(UserError):
    """A signal came before anything of the run was touched. Ends the program with the signal's exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {NAMES[signal.Signals(number)]} before training began; nothing was changed")
        self.exit_code = 128 + number


class StopSignals:
    """`with StopSignals() as stop:`; `stop.requested` is true once one has come. A second SIGINT stops at once.

    `shared` is for one of several ranks: a signal that has come `here` is then `requested` after `agree`.
    """

    def __init__(self) -> None:
        self.here = 0  # the signal that has come to this process; 0: none
        self.received: Optional[int] = None  # the one to stop by
        self.shared = False
        self._before: Dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """143, 138 or 130: 128 and the number of the signal."""
        return 128 + (self.received or 0)

    @property
    def name(self) -> str:
        """The signal that has come, in words."""
        return NAMES[signal.Signals(self.received or 0)]

    def agree(self, ranks: Iterable[float]) -> None:
        """Takes what has come to each rank, the same on all of them: they stop by the first."""
        come = [int(number) for number in ranks if number]
        if come and self.received is None:
            self.received = come[0]

    def check(self) -> None:
        """Ends the preparations: `StoppedEarly` if a signal has come."""
        number = self.received or self.here
        if number:
            raise StoppedEarly(number)

    def _handle(self, number: int, _frame: Optional[FrameType]) -> None:
        if self.here == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.here = number
        if not self.shared:
            self.received = number

    def __enter__(self) -> "StopSignals":
        for number in HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
