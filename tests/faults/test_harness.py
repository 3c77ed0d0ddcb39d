"""The harness of the planted faults, and its table. `python -m tests.faults` takes hours, this about a minute."""

import ast
import collections
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeflownas import signoff
from gates import asserts, clauses
from tests.faults import harness
from tests.faults.harness import ClauseResult, fault_result
from tests.faults.table import FAULTS, Fault

KERNELS = "edgeflownas/nas/search_space.py", "_KERNELS = (7, 5, 3)"
HEADING = asserts.heading("G1.10") + ": "


def fault(name="made-up", clause="G1.10", old=KERNELS[1], new="_KERNELS = (3, 5, 7)", says=", want ", file=KERNELS[0]):
    return Fault(name, file, clause, "a fault of this test", old, new, says)


# ---- the table


def test_every_clause_has_a_fault_and_every_fault_a_clause():
    known = [clause.id for clause in clauses.TABLE.clauses]
    assert {each.clause for each in FAULTS} == set(known)
    assert len(FAULTS) >= 45
    assert [each.gate for each in FAULTS] == [clauses.TABLE.get(each.clause).gate for each in FAULTS]


def test_ids_and_sentences_are_one_of_a_kind():
    for column in ("id", "sentence"):
        values = [getattr(each, column) for each in FAULTS]
        assert sorted(set(values)) == sorted(values)
    assert not {each.id for each in FAULTS} & {each.clause for each in FAULTS}


def test_no_two_faults_are_the_same_change():
    planted = collections.defaultdict(list)
    for each in FAULTS:
        text = (harness.ROOT / each.file).read_text(encoding="utf-8")
        planted[each.file, text.replace(each.old, each.new)].append(each.id)
    assert [ids for ids in planted.values() if len(ids) > 1] == []


@pytest.mark.parametrize("each", FAULTS, ids=lambda each: each.id)
def test_a_fault_fits_the_present_source(each):
    assert (harness.ROOT / each.file).read_text(encoding="utf-8").count(each.old) == 1
    assert each.new != each.old and each.says
    assert each.file.split("/")[0] in harness.COPIED


@pytest.mark.parametrize("each", [each for each in FAULTS if each.file.endswith(".py")], ids=lambda each: each.id)
def test_a_planted_fault_is_still_a_program(each):
    text = (harness.ROOT / each.file).read_text(encoding="utf-8").replace(each.old, each.new)
    compile(text, each.file, "exec")


# ---- what becomes of a fault


@pytest.mark.parametrize(
    "status,text,want",
    [
        ("failed", HEADING + "meaning got 3, want 7 (exact)", "caught"),
        ("passed", "", "missed"),
        ("skipped", "no GPU", "broken"),
        ("not run", "", "broken"),
        ("failed", "meaning got 3, want 7", "broken"),
        ("failed", asserts.heading("G1.9") + ": meaning got 3, want 7", "broken"),
        ("failed", HEADING + "ImportError: no such module", "broken"),
        ("failed", HEADING + "exit code got 0, want 2 (exact) [stderr='']", "caught"),
        ("failed", HEADING + "exit code of both got 1, want 0 (exact)", "broken"),
        ("failed", HEADING + "AssertionError: exit code got -9, want 143 (exact)", "broken"),
        ("failed", HEADING + "the refusal got 'error: exit code got 1', want text containing 'lr'", "caught"),
        (
            "failed",
            HEADING + "exit code got 1, want 0 (exact) [last_line_of_stderr='check_manifest FAILED: 1 of 33']",
            "broken",
        ),
        ("failed", HEADING + "exit code got 2, want 0 (exact) [last_line_of_stderr='error: no such key']", "broken"),
        (
            "failed",
            HEADING + "exit code got 1, want 0 (exact) [last_line_of_stderr=\"NameError: name 'x' is not defined\"]",
            "broken",
        ),
        (
            "failed",
            HEADING + "AssertionError: exit code got 1, want 0 (exact) [command='python a.py --lr 1', "
            "last_line_of_stderr='tensorflow.python.framework.errors_impl.NotFoundError: key']",
            "broken",
        ),
    ],
)
def test_only_the_named_clause_failing_for_the_named_reason_counts(status, text, want):
    assert fault_result(fault(), ClauseResult(status, text)).outcome == want


def test_a_fault_that_stops_the_program_names_the_words():
    result = ClauseResult("failed", HEADING + "ValueError: upsample: 3x3 cannot become 5x5")
    assert fault_result(fault(says="ValueError: upsample:"), result).outcome == "caught"
    assert fault_result(fault(says="ValueError: images:"), result).outcome == "broken"


def test_a_fault_that_ends_a_command_names_the_code_or_the_words():
    ended = ClauseResult("failed", HEADING + "exit code got 2, want 0 (exact) [last_line_of_stderr='error: no key a']")
    for says, outcome in (("exit code got 2, want 0", "caught"), ("no key a", "caught"), ("exit code got 1", "broken")):
        assert fault_result(fault(says=says), ended).outcome == outcome
    crashed = ClauseResult("failed", HEADING + "exit code got 1, want 0 (exact) [last_line_of_stderr='KeyError: 3']")
    for says, outcome in (("exit code got 1, want 0", "broken"), ("KeyError: 3", "caught")):
        assert fault_result(fault(says=says), crashed).outcome == outcome


def test_every_comparison_of_an_exit_code_says_so():
    """By these words the harness tells a command's end from other comparisons."""
    compared = []
    for path in sorted((harness.ROOT / "gates").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                named = {keyword.arg: keyword.value for keyword in call.keywords}
                if getattr(named.get("got"), "attr", "") in ("code", "returncode"):
                    compared.append(ast.literal_eval(named["what"]))
    assert len(compared) > 10 and all(what.startswith("exit code") for what in compared)


@pytest.mark.parametrize("old,times", [("no such text", 0), ("Block(", 10)])
def test_a_text_that_is_not_there_once_is_broken(tmp_path, old, times):
    (tmp_path / "table.py").write_text("Block(\n" * times)
    with pytest.raises(harness.Broken, match=f"occurs {times} times"):
        harness.plant(fault(old=old, file="table.py"), tmp_path)


# ---- the whole of it, on a clause that needs a second


@pytest.fixture(scope="module")
def results():
    planted = [
        fault("caught"),
        fault("harmless", new="_KERNELS = (7, 5, 3)  # a comment"),
        fault("no-program", new="_KERNELS = (7, 5, 3"),
        fault("another-reason", says="the wrong words"),
        fault("gone", old="no such text"),
    ]
    return {each.id: result for each, result in harness.run(planted, jobs=2)}


@pytest.mark.parametrize(
    "name,outcome,reason",
    [
        ("caught", "caught", "want [('EB0', 'Deep1')"),
        ("harmless", "missed", "G1.10 passed"),
        ("no-program", "broken", "the gate's tests do not load"),
        ("another-reason", "broken", "fails for another reason"),
        ("gone", "broken", "occurs 0 times"),
    ],
)
def test_outcomes_of_planted_faults(results, name, outcome, reason):
    assert results[name].outcome == outcome
    assert reason in results[name].reason


def test_a_clause_that_fails_anyway_judges_nothing(monkeypatch, capsys):
    copy = harness.copy_project
    monkeypatch.setattr(harness, "signed", lambda gate: False)
    monkeypatch.setattr(harness, "copy_project", lambda target: (copy(target), harness.plant(fault(), target))[0])
    [(_, result)] = harness.run([fault(old="_DEPTHS = (1, 2, 3)", new="_DEPTHS = (0, 1, 2)")], jobs=1)
    assert result.outcome == "broken" and result.reason.startswith("without a fault, too: failed")
    assert "1 do not pass" in capsys.readouterr().out


def test_what_is_signed_on_this_tensorflow_needs_no_run_without_faults(monkeypatch, tmp_path):
    monkeypatch.delenv(signoff.RECORDS_VARIABLE, raising=False)
    source = tmp_path / "edgeflownas/code.txt"
    source.parent.mkdir()
    source.write_text("the source")
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "tensorflow_version", lambda: "2.0")
    assert not harness.signed(1)
    for version, signed in (("1.15", False), ("2.0", True)):
        environment = signoff.Environment(None, None, {"tensorflow": version}, "a card", False, None)
        signoff.write_record(1, tmp_path, "passed", [], environment, signoff.source_files(tmp_path))
        assert harness.signed(1) == signed
    monkeypatch.setattr(harness, "run_clauses", None)
    assert harness.without_faults([fault()], tmp_path, tmp_path, ThreadPoolExecutor(1)) == {}
    source.write_text("another source")
    assert not harness.signed(1)


def test_a_long_run_goes_on_where_it_stopped(monkeypatch, tmp_path):
    tried, outcomes = [], {"a": "caught", "b": "missed"}
    monkeypatch.setattr(harness, "copy_project", lambda target: target)
    monkeypatch.setattr(harness, "without_faults", lambda *_: {})
    monkeypatch.setattr(harness, "tensorflow_version", lambda: "2.0")

    def try_fault(each, clean, scratch):
        tried.append(each.id)
        return harness.FaultResult(outcomes[each.id], "why")

    monkeypatch.setattr(harness, "try_fault", try_fault)
    both, out = [fault(name="a"), fault(name="b")], tmp_path / "out"
    harness.run(both, 1, out)
    found = harness.run(both, 1, out)
    assert tried == ["a", "b", "b"] and [result.outcome for _, result in found] == ["caught", "missed"]
    harness.run([fault(name="a", new="another change")], 1, out)
    assert tried[-1] == "a"  # another row: tried anew
    last = harness.ended(out)["b"]
    assert (last.outcome, last.tensorflow, len(out.read_text().splitlines())) == ("missed", "2.0", 4)


# ---- the command


def test_exit_code_and_last_line(monkeypatch, capsys):
    for outcome, code in (("caught", 0), ("missed", 1), ("broken", 1)):
        monkeypatch.setattr(
            harness,
            "run",
            lambda chosen, jobs, out, outcome=outcome: [
                (each, harness.FaultResult(outcome if each is chosen[0] else "caught", "why")) for each in chosen
            ],
        )
        assert harness.main(["--gate", "1"]) == code
        lines = capsys.readouterr().out.splitlines()
        count = sum(each.gate == 1 for each in FAULTS)
        assert lines[-1].startswith(f"faults: {count - code} of {count} caught")
        assert (lines[0].startswith(outcome.upper())) == bool(code)


def test_selection(capsys):
    assert [each.id for each in harness.select(None, ["exit-code"])] == ["exit-code"]
    assert {each.clause for each in harness.select(2, ["G2.6", "G1.1"])} == {"G2.6"}
    assert harness.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FAULTS)
    for wrong in (["--only", "no-such-fault"], ["--gate", "5"], ["--gate", "1", "--only", "G2.6"], ["--jobs", "0"]):
        with pytest.raises(SystemExit) as stopped:
            harness.main(wrong)
        assert stopped.value.code == 2
