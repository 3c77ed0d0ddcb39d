"""The planted faults as data: what is broken where, and the clause that must fail because of it.

A row is (id, file, clause, sentence, exact old text, new text) and, where the clause must fail otherwise than by
comparing what was computed, the words that its failure must contain: those of an exception, or of a command that ends
with another code than 0 (`exit code got 1, want 2`). The old text occurs exactly once. `python -m tests.faults` plants
them one at a time; `tests/faults/test_harness.py` checks the table itself.
"""

from typing import NamedTuple, Tuple

from tests.faults.rows_1 import GATE_1
from tests.faults.rows_2 import GATE_2
from tests.faults.rows_3_classes import GATE_3_CLASSES
from tests.faults.rows_3_cycles import GATE_3_CYCLES
from tests.faults.rows_3_ranks import GATE_3_RANKS
from tests.faults.rows_3_runs import GATE_3_RUNS
from tests.faults.rows_3_settings import GATE_3_SETTINGS
from tests.faults.rows_3_stops import GATE_3_STOPS
from tests.faults.rows_4 import GATE_4
from tests.faults.rows_strangers_data import STRANGERS_DATA
from tests.faults.rows_strangers_network import STRANGERS_NETWORK
from tests.faults.rows_strangers_runs import STRANGERS_RUNS

GATE_3 = GATE_3_CYCLES + GATE_3_SETTINGS + GATE_3_RUNS + GATE_3_STOPS + GATE_3_RANKS + GATE_3_CLASSES
COMPARISON = ", want "  # what a comparison of the gates says


class Fault(NamedTuple):
    """One fault. `says` is what the clause's failure must contain. By default that is any comparison, except of an
    exit code other than 0."""

    id: str
    file: str
    clause: str
    sentence: str
    old: str
    new: str
    says: str = COMPARISON

    @property
    def gate(self) -> int:
        return int(self.clause[1:].split(".")[0])


STRANGERS = STRANGERS_NETWORK + STRANGERS_DATA + STRANGERS_RUNS
FAULTS: Tuple[Fault, ...] = tuple(Fault(*row) for row in GATE_1 + GATE_2 + GATE_3 + GATE_4 + STRANGERS)
