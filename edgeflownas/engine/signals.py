"""Stop signals: SIGTERM, SIGUSR1 (SLURM's warning before the time limit) and SIGINT request a stop at a safe point.

Several ranks must stop at the same point, so a signal takes effect once all of them know of it.
"""

import signal
from types import FrameType
from typing import Any, Dict, Iterable, Optional

from edgeflownas.errors import UserError

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C (SIGINT)"}


class StoppedEarly(UserError):
    """A signal came before the run was changed. The program ends with the signal's exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {NAMES[signal.Signals(number)]} before training began; nothing was changed")
        self.exit_code = 128 + number


class StopSignals:
    """Use as `with StopSignals() as stop:`. A signal sets `stop.requested`. A second SIGINT raises KeyboardInterrupt.

    Set `shared` if there are several ranks: a signal then sets only `received`; `agree` sets `requested` on all ranks.
    """

    def __init__(self) -> None:
        self.received = 0  # number of the signal that this process received; 0: none
        self.agreed: Optional[int] = None  # number of the signal to stop for
        self.shared = False
        self._before: Dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self.agreed is not None

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal: 143, 138 or 130."""
        return 128 + (self.agreed or 0)

    @property
    def name(self) -> str:
        """The name of the signal, for messages."""
        return NAMES[signal.Signals(self.agreed or 0)]

    def agree(self, ranks: Iterable[float]) -> None:
        """Takes each rank's signal number, 0 for none, the same list on all ranks. All stop for the first signal."""
        come = [int(number) for number in ranks if number]
        if come and self.agreed is None:
            self.agreed = come[0]

    def raise_if_received(self) -> None:
        """Raises `StoppedEarly` if a signal has come. For use before training begins."""
        number = self.agreed or self.received
        if number:
            raise StoppedEarly(number)

    def _handle(self, number: int, _frame: Optional[FrameType]) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        if not self.shared:
            self.agreed = number

    def __enter__(self) -> "StopSignals":
        for number in HANDLED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
