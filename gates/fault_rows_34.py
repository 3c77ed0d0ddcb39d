"""Planted faults for gates 3 and 4; `gates/fault_table.py` explains the columns."""

GATE_3 = ()
GATE_4 = ()
