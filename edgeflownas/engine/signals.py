"""SIGTERM, SIGUSR1 (SLURM's warning ahead of the limit) and SIGINT ask for a stop at the next safe point."""

import signal
from types import FrameType
from typing import Any, Dict, Optional

from edgeflownas.errors import UserError

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C (SIGINT)"}


class StoppedEarly(UserError):
    """A signal came before anything of the run was touched. Ends the program with the signal's exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {NAMES[signal.Signals(number)]} before training began; nothing was changed")
        self.exit_code = 128 + number


class StopSignals:
    """`with StopSignals() as stop:`; `stop.requested` is true once one has come. A second SIGINT stops at once."""

    def __init__(self) -> None:
        self.received: Optional[int] = None
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

    def check(self) -> None:
        """Ends the preparations: `StoppedEarly` if a signal has come."""
        if self.received is not None:
            raise StoppedEarly(self.received)

    def _handle(self, number: int, _frame: Optional[FrameType]) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> "StopSignals":
        for number in HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
