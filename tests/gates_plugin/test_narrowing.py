"""Every way of narrowing a gate run signs nothing; order between gates; runs that the plugin must leave alone."""

import shutil

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("gates", "-m", "gate1", "-k", "water"),
        ("gates/test_gate1.py",),
        ("gates/test_gate1.py::test_water",),
        ("gates/test_gate1.py::test_water[G1.1]", "-m", "gate1"),
        ("gates", "-m", "gate1", "--lf"),
        ("gates", "-m", "gate1", "--sw"),
        ("gates", "-m", "gate1", "-x"),
        ("gates", "-m", "gate1", "--maxfail=3"),
        ("gates", "-m", "gate1", "--deselect", "gates/test_other.py"),
        ("gates", "-m", "gate1", "--ignore=gates/test_gate2.py"),
        ("gates", "-m", "gate1", "--ignore-glob=nothing*"),
        ("gates", "-m", "gate1 and clause"),
        ("gates", "-m", "gate1", "-o", "console_output_style=count"),
        ("gates", "-m", "gate1", "-c", "pytest.ini"),
        ("gates", "-m", "gate1", "-x", "-n", "2"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_narrowed_run_passes_but_signs_nothing(mini, arguments):
    result = mini.pytest(*arguments)
    assert result.code == 10, result.text
    assert "1 passed" in result.text
    assert not list((mini.root / "outputs/gates").glob("gate*.json"))


@pytest.mark.parametrize("option", ["--setup-only", "--setup-plan"])
def test_runs_without_calling_the_tests_sign_nothing(mini, option):
    assert mini.pytest("gates", "-m", "gate1", option).code in (5, 10)
    assert mini.signed() == []


def test_narrowed_failure_is_failed_and_leaves_the_records(mini):
    mini.replace("gates/test_gate2.py", "got=3", "got=4")
    mini.sign(1, 2)
    assert mini.pytest("gates/test_gate2.py", "-k", "ice").code == 1
    assert mini.signed() == [1, 2]


def test_narrowed_last_failed_after_a_failure(mini):
    mini.replace("gates/test_gate2.py", "got=3", "got=4")
    mini.sign(1)
    assert mini.pytest("gates", "-m", "gate2").code == 1
    mini.replace("gates/test_gate2.py", "got=4", "got=3")
    result = mini.pytest("gates", "-m", "gate2", "--lf")
    assert result.code == 10 and "without G2.1" in result.text, result.text


def test_a_selected_clause_reproduces_by_its_id(mini):
    result = mini.pytest("gates", "-m", "gate2", "-k", "[G2.2]")
    assert result.code == 10 and "test_gate2.py ." in result.text and "1 passed" in result.text, result.text


def test_earlier_gates_without_a_sign_off_run_first(mini):
    result = mini.pytest("gates", "-m", "gate2")
    assert result.code == 0, result.text
    assert result.text.index("gate 1: the basis") < result.text.index("gate 2: network")
    assert mini.signed() == [1, 2]
    again = mini.pytest("gates", "-m", "gate2")
    assert again.code == 0 and "it is not run again" in again.text and "test_gate1" not in again.text


def test_a_source_edit_makes_earlier_gates_run_again(mini):
    mini.sign(1, 2)
    mini.write("edgeflownas/code.txt", "edited")
    assert mini.signed() == []
    result = mini.pytest("gates", "-m", "gate2")
    assert result.code == 0 and "not run again" not in result.text
    assert mini.signed() == [1, 2]


def test_an_edited_record_makes_its_gate_run_again(mini):
    mini.sign(1, 2)
    mini.replace("outputs/gates/gate1.json", '"device": "a card"', '"device": "another"')
    result = mini.pytest("gates", "-m", "gate2")
    assert result.code == 0 and "not run again" not in result.text
    assert mini.record(1)["device"] == "CPU" and mini.signed() == [1, 2]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])
def test_stopping_early_keeps_the_order(mini, workers):
    mini.replace("gates/test_gate1.py", "got=1", "got=0")
    result = mini.pytest("gates", "-m", "gate2", "-x", *workers)
    assert result.code == 11 and result.last == "gates: BLOCKED: gate1 failed, gate2 blocked", result.text
    mini.replace("gates/test_gate1.py", "got=0", "got=1")
    result = mini.pytest("gates", "-m", "gate2", "-x", *workers)
    assert result.code == 10 and result.last == "gates: PARTIAL: gate1 partial, gate2 partial", result.text


def test_unknown_gate_is_refused_in_one_line(mini):
    result = mini.pytest("gates", "-m", "gate7")
    assert result.code == 4 and result.lines == ["ERROR: there is no gate7; gates: gate1, gate2"]


def test_other_tests_are_left_alone(mini):
    mini.write("tests/test_unit.py", "def test_one():\n    assert 1\n")
    for arguments in (["tests"], ["."], ["tests", "-n", "2"]):
        result = mini.pytest(*arguments)
        assert result.code == 0 and "1 passed" in result.text and "gates:" not in result.text, result.text
    assert not (mini.root / "outputs").exists()


def test_gates_and_other_tests_do_not_mix(mini):
    mini.write("tests/test_unit.py", "def test_one():\n    assert 1\n")
    result = mini.pytest("tests", "gates")
    assert result.code == 4 and "gates run on their own" in result.text


def test_gate_tests_run_only_as_gates(mini):
    shutil.move(str(mini.root / "gates/test_gate1.py"), str(mini.root / "gates/test_sneak.py"))
    result = mini.pytest("--pyargs", "test_sneak", "-o", "pythonpath=gates")
    assert result.code == 4 and "run only as gates" in result.text, result.text


def test_another_root_folder_does_not_make_them_ordinary_tests(mini):
    result = mini.pytest("gates", "--rootdir", str(mini.root.parent))
    assert result.code == 4 and "run only as gates" in result.text, result.text
    assert "passed" not in result.text and not (mini.root / "outputs").exists()


def test_listing_runs_nothing_and_needs_no_order(mini):
    result = mini.pytest("gates", "--collect-only", "-q", "-m", "gate2")
    assert result.code == 0 and "test_fire[G2.1]" in result.text and "test_water" not in result.text, result.text
    assert not (mini.root / "outputs").exists()


def test_a_plain_assertion_and_an_exception_carry_id_and_sentence(mini):
    mini.replace("gates/test_gate2.py", 'assert_equal(what="fire", got=2, want=2)', "assert 5 == 6")
    mini.replace("gates/test_gate2.py", 'assert_equal(what="ice", got=3, want=3)', "{}['ice']")
    result = mini.pytest("gates")
    assert result.code == 1
    assert "- G2.1 fire is hot: assert 5 == 6" in result.text, result.text
    assert "- G2.2 ice is cold: KeyError: 'ice'" in result.text


def test_hypothesis_works_inside_a_clause(mini):
    mini.write(
        "gates/test_gate1.py",
        """
        from hypothesis import given, settings, strategies as st
        from gates.asserts import assert_le, clause

        @clause("G1.1")
        @settings(deadline=None)
        @given(n=st.integers(0, 9))
        def test_water(n):
            assert_le(got=n, want=9)
        """,
    )
    assert mini.pytest("gates", "-m", "gate1", "-p", "_hypothesis_pytestplugin").code == 0


def test_status_verify_and_their_codes(mini):
    result = mini.module("verify")
    assert result.code == 13 and "gate 1 is missing" in result.text, result.text
    mini.sign(1, 2)
    assert "gate 3 is missing" in mini.module("verify").text
    status = mini.module("status")
    assert status.code == 0 and [line.split()[2] for line in status.lines] == ["valid", "valid", "missing", "missing"]
    (mini.root / "outputs/gates/gate1.json").write_text("{")
    assert mini.module("verify").code == 14
    mini.write("edgeflownas/new.txt", "new")
    assert mini.module("status").lines[1].split()[2] == "stale"
    mini.sign(1)
    assert mini.module("verify").code == 12
    mini.sign(2)
    mini.sign(1, device="another")
    assert mini.module("verify").code == 15
