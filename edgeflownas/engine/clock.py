"""Measures the time of an epoch and its throughput, of all ranks and of each. Built on `exchange`."""

import dataclasses
from typing import Any, Dict

from edgeflownas.engine.exchange import LocalExchange
from edgeflownas.engine.run_state import RunState
from edgeflownas.run.rows import TimingRow


@dataclasses.dataclass
class EpochClock:
    """The time that this process has spent in the current epoch."""

    cycles: int = 0
    seconds: float = 0.0
    input_seconds: float = 0.0  # the part spent waiting for data
    exchange_seconds: float = 0.0  # the part spent in exchanges, including the wait for the slowest rank

    def row(self, state: RunState, eval_seconds: float) -> TimingRow:
        rate, share = (self.cycles / self.seconds, self.input_seconds / self.seconds) if self.seconds else (0.0, 0.0)
        return TimingRow(state.evaluations, state.step, self.seconds, eval_seconds, rate, share)

    def throughput(self, exchange: LocalExchange, batch_size: int) -> Dict[str, Any]:
        """The epoch's throughput, as the manifest stores it. Every rank must call it.

        A rank's own rate leaves out its time in exchanges, so the slowest rank has the lowest rate.
        """
        rows = exchange.gather_rows([self.seconds, self.exchange_seconds])
        samples = self.cycles * batch_size
        longest = max(rows[:, 0])
        return {
            "ranks": exchange.size,
            "samples_per_second": samples / longest if longest else 0.0,
            "samples_per_second_by_rank": [
                samples / exchange.size / (seconds - waited) if seconds > waited else 0.0 for seconds, waited in rows
            ],
            "exchange_seconds": [float(waited) for waited in rows[:, 1]],
        }
