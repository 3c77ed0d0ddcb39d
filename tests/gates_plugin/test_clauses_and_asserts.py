"""The clause table, the message grammar of the assertions, and `python -m gates`."""

import re

import numpy as np
import pytest

from gates import EXIT_CODES, MEANINGS, STATE_CODES, asserts, clauses, controller, demands
from gates.clauses import Clause, Table


def message(function, **arguments):
    with pytest.raises(AssertionError) as caught:
        function(**arguments)
    return str(caught.value)


def test_size_of_the_clause_table():
    assert [len(clauses.TABLE.of(gate)) for gate in clauses.TABLE.gates] == [21, 23, 86, 33]
    assert clauses.TABLE.gates == sorted(clauses.GATE_TITLES) == [1, 2, 3, 4]


def test_ids_are_in_order_and_sentences_are_sentences():
    for gate in clauses.TABLE.gates:
        numbers = [re.match(r"G\d\.(\d+)([a-z]?)$", clause.id).groups() for clause in clauses.TABLE.of(gate)]
        order = [(int(number), letter) for number, letter in numbers]
        assert order == sorted(order)
        assert {number for number, _ in order} == set(range(1, order[-1][0] + 1))
    assert all(not clause.sentence.endswith(".") and clause.source for clause in clauses.TABLE.clauses)
    assert len({clause.sentence for clause in clauses.TABLE.clauses}) == len(clauses.TABLE.clauses)


def test_every_demand_has_a_clause_or_a_reason_and_every_clause_a_demand():
    ids = [clause.id for clause in clauses.TABLE.clauses]
    assert demands.problems(ids) == []
    assert demands.problems(ids + ["G4.99"]) == ["no demand names the clause G4.99"]
    assert demands.problems(ids[1:]) == [f"the demands name {ids[0]}, which is no clause"]
    assert all(bool(demand.clauses) != bool(demand.reason) for demand in demands.DEMANDS)


def test_a_demand_with_neither_is_a_problem(monkeypatch):
    ids = [clause.id for clause in clauses.TABLE.clauses]
    monkeypatch.setattr(demands, "DEMANDS", demands.DEMANDS + [demands.Demand("spec/09", "1", "fly", (), "")])
    assert demands.problems(ids) == ["spec/09 1 has neither a clause nor a reason"]


@pytest.mark.parametrize(
    "rows, skips, what",
    [
        ((Clause("G1.1", 1, "a", "s"), Clause("G1.1", 1, "b", "s")), {}, "repeated"),
        ((Clause("G2.1", 1, "a", "s"),), {}, "G1.x"),
        ((Clause("G1.1", 1, "", "s"),), {}, "sentence"),
        ((Clause("G1.1", 1, "a", "s"),), {"G1.2": "why"}, "names no clause"),
    ],
)
def test_a_wrong_table_is_refused(rows, skips, what):
    with pytest.raises(ValueError, match=what):
        Table(rows, skips)


def test_outcomes_have_different_codes_that_pytest_does_not_use_otherwise():
    assert set(EXIT_CODES) == set(MEANINGS) == set(controller.SEVERITY) - {"error"}
    assert len(set(EXIT_CODES.values())) == 6
    shared = {
        "passed": pytest.ExitCode.OK,
        "failed": pytest.ExitCode.TESTS_FAILED,
        "empty": pytest.ExitCode.NO_TESTS_COLLECTED,
    }
    for name, code in EXIT_CODES.items():
        assert code == shared[name] if name in shared else code not in [int(used) for used in pytest.ExitCode]
    assert len(set(STATE_CODES.values())) == len(STATE_CODES) == 6


def test_message_grammar_inside_a_clause(monkeypatch):
    monkeypatch.setattr(asserts, "table", Table((Clause("G2.8", 2, "counts are equal", "s"),)))

    @asserts.clause("G2.8")
    def check(value):
        asserts.assert_close(what="EPE", got=value, want=1.5, atol=1e-3, unit="px", seed=42, code="000000000")
        return value

    assert message(check, value=1.6) == (
        "G2.8 counts are equal: EPE got 1.6, want 1.5 (tolerance 0.001, px) [seed=42, code='000000000']\n"
        "  reproduce: python -m pytest gates -m gate2 -k '[G2.8]'"
    )
    assert check(1.5) == 1.5 and asserts.checked() == "EPE got 1.5, want 1.5"
    assert message(asserts.assert_equal, got=1, want=2) == "got 1, want 2 (exact)"


def test_equal():
    asserts.assert_equal(got=(1, 2), want=(1, 2))
    asserts.assert_equal(got=np.arange(6).reshape(2, 3), want=np.arange(6).reshape(2, 3))
    left, right = np.zeros((5, 7)), np.zeros((5, 7))
    right[3, 4] = 2
    assert "1 of 35 differ, first at (3, 4): 0.0 and 2.0" in message(asserts.assert_equal, got=left, want=right)
    assert "got shape (5, 7), want shape (7, 5)" in message(asserts.assert_equal, got=left, want=right.T)
    assert "differ" in message(asserts.assert_equal, got=np.array([np.nan]), want=np.array([np.nan]))
    assert "differ" in message(asserts.assert_equal, got=np.array(3), want=np.array(4))


@pytest.mark.parametrize(
    "got, want",
    [(1.01, 1), (np.nan, np.nan), (np.inf, np.inf), ([1, 2], [1, 2.1]), ([1], [1, 1]), ([], []), ([1, np.nan], [1, 1])],
)
def test_not_close(got, want):
    message(asserts.assert_close, got=got, want=want, atol=1e-3)


def test_close_reports_the_worst_element():
    asserts.assert_close(got=[1, 2], want=[1, 2.0005], atol=1e-3)
    asserts.assert_close(got=1000.5, want=1000, rtol=1e-3)
    assert "got 3 at (1,) of (3,), want 9" in message(asserts.assert_close, got=[1, 3, 5], want=[1, 9, 6], atol=0.1)


def test_le_and_contains_and_true():
    asserts.assert_le(got=[4.9, 5.0], want=5.0)
    asserts.assert_contains(got="--help text", want="help")
    asserts.assert_true(ok=[1], got="x", want="something")
    assert "got 5.1, want at most 5 (px)" == message(asserts.assert_le, got=[1, 5.1], want=5.0, unit="px")
    message(asserts.assert_le, got=[], want=5.0)
    message(asserts.assert_le, got=[1, np.nan], want=5.0)
    message(asserts.assert_contains, got="abc", want="x")
    message(asserts.assert_true, ok=[], got=[], want="a row")


def test_clause_table_is_printed(capsys):
    from gates.__main__ import main

    assert main(["clauses"]) == 0
    plain = capsys.readouterr().out.splitlines()
    assert len(plain) == len(clauses.TABLE.clauses)
    assert main(["clauses", "--markdown"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| G")]
    assert [row.split(" | ")[0] for row in rows] == ["| " + clause.id for clause in clauses.TABLE.clauses]


def test_help_explains_every_outcome(capsys):
    from gates.__main__ import main

    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"{name} +{code} ", text) for name, code in EXIT_CODES.items())
    assert all(f"{name} {code}" in text for name, code in STATE_CODES.items())
