"""A gate signs only with one attempt per clause, also under plugins that repeat tests. Spaces are signed separately."""

import json

import pytest

# Like pytest-rerunfailures: failed attempts are reported as "rerun", the last attempt with its result.
RERUNS = """
    from _pytest.runner import runtestprotocol

    def pytest_addoption(parser):
        parser.addoption("--reruns", type=int, default=0)

    def pytest_runtest_protocol(item, nextitem):
        for attempt in range(3):
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            if not any(report.failed for report in reports):
                break
            item._initrequest()
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        return True
    """
FLAKY = """
    from pathlib import Path
    from gates.asserts import assert_equal, clause

    @clause("G1.1")
    def test_water():
        tried = Path("tried")
        first = not tried.exists()
        tried.touch()
        assert_equal(what="water", got=0 if first else 1, want=1)
    """


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["", "-n 2"])
def test_a_second_attempt_that_passes_signs_nothing(mini, options):
    mini.write("repeats.py", RERUNS)
    mini.write("gates/test_gate1.py", FLAKY)
    result = mini.pytest("gates", "-m", "gate1", "-p", "repeats", *options)
    assert result.code == 10 and "more than one attempt at G1.1" in result.text, result.text
    assert not list((mini.root / "outputs/gates").glob("gate*.json"))


def test_a_gate_after_one_with_two_attempts_is_blocked(mini):
    mini.write("repeats.py", RERUNS)
    mini.write("gates/test_gate1.py", FLAKY)
    result = mini.pytest("gates", "-p", "repeats")
    assert result.code == 11 and mini.signed() == [], result.text


def test_the_option_alone_narrows_the_run(mini):
    mini.write("repeats.py", RERUNS)
    result = mini.pytest("gates", "-m", "gate1", "-p", "repeats", "--reruns", "1")
    assert result.code == 10 and "--reruns" in result.last + result.text, result.text
    assert mini.signed() == []


def test_a_plugin_that_repeats_nothing_narrows_nothing(mini):
    mini.write("repeats.py", RERUNS)
    assert mini.pytest("gates", "-m", "gate1", "-p", "repeats").code == 0
    assert mini.signed() == [1]


def test_another_space_is_signed_by_itself(mini):
    mini.replace("gates/test_gate1.py", "got=1", "got=__import__('os').environ['EDGEFLOWNAS_GATE_SPACE']")
    mini.replace("gates/test_gate1.py", "want=1", "want='edgeflownet_v2'")
    result = mini.pytest("gates", "-m", "gate1", "--space", "edgeflownet_v2", "-n", "2")
    assert result.code == 0, result.text
    assert [path.name for path in (mini.root / "outputs/gates").iterdir() if path.suffix == ".json"] == []
    record = json.loads((mini.root / "outputs/gates/edgeflownet_v2/gate1.json").read_text())
    assert record["space"] == "edgeflownet_v2"
    assert "valid" in mini.module("status", "--space", "edgeflownet_v2").lines[0]
    assert "missing" in mini.module("status").lines[0]
    assert mini.pytest("gates", "-m", "gate1", "--space", "edgeflownet_v9").code == 4


def test_attestation_is_a_statement_of_all_gates(mini):
    mini.sign(1, 2, 3, 4)
    target = mini.root / "statement.json"
    result = mini.module("verify", "--attestation", str(target))
    assert result.code == 0, result.text
    stated = json.loads(target.read_text())
    assert stated["_type"] == "https://in-toto.io/Statement/v1"
    assert stated["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert stated["subject"] == [{"name": "edgeflownas", "digest": {"sha256": mini.record(4)["fingerprint"]}}]
    predicate = stated["predicate"]
    assert predicate["result"] == "PASSED" and predicate["failedTests"] == []
    names = [entry["name"] for entry in predicate["configuration"]]
    assert {"gate1.json", "gate4.json", "gates/test_gate1.py"} <= set(names) and len(set(names)) == len(names)
    assert all(len(entry["digest"]["sha256"]) == 64 for entry in predicate["configuration"])


def test_attestation_is_not_written_without_a_sign_off(mini):
    target = mini.root / "statement.json"
    assert mini.module("verify", "--attestation", str(target)).code == 13
    mini.sign(1, 2, 3, 4)
    mini.write("edgeflownas/code.txt", "another source")
    assert mini.module("verify", "--attestation", str(target)).code == 12
    assert not target.exists()
