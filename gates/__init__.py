"""The gates: four stages of acceptance tests. A complete pass signs a stage off; otherwise it blocks the next one.

`pytest gates -m gate2` runs gate 2, and first each earlier gate without a valid sign-off. `pytest gates` runs all four.
Built on pytest; `python -m gates --help` explains the outcomes and their exit codes.
"""

# Outcome -> exit code. pytest's own 2, 3, 4 and 6 keep their meaning (interrupted, internal error, usage error).
EXIT_CODES = {"passed": 0, "failed": 1, "empty": 5, "partial": 10, "blocked": 11, "stale": 12}
MEANINGS = {
    "passed": "every clause ran and passed; the gate is signed off",
    "failed": "a clause failed; the gate loses its sign-off if the run was complete",
    "empty": "no clause ran",
    "partial": "all clauses that ran passed, but not all ran, or the run was narrowed (-k, a node id, -x, a repeated "
    "clause ...): nothing is signed",
    "blocked": "an earlier gate did not pass, so this one was not run",
    "stale": "the source changed while the gate ran: nothing is signed",
}
# State of a record -> exit code of `python -m gates verify`.
STATE_CODES = {"valid": 0, "failed": 1, "stale": 12, "missing": 13, "edited": 14, "broken": 15}
