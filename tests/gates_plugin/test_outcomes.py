"""The six outcomes of a gate run, told apart in exit code, last line and JUnit XML, serial and under xdist."""

import os
import signal
import subprocess
import sys
import time

import pytest

SERIAL_AND_XDIST = pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "xdist"])


def outcomes(mini, name="out.xml"):
    return {
        suite: element.find("properties/property[@name='outcome']").get("value")
        for suite, element in mini.junit(name).items()
    }


def verdict(mini, gate, name="out.xml"):
    """Type of the error that the JUnit suite carries for a gate as a whole, None if it passed."""
    case = mini.junit(name)[gate].find(f"testcase[@name='{gate} outcome']")
    error = case.find("error")
    return None if error is None else error.get("type")


def before_assertion(mini, gate, statement):
    """Puts a statement in front of the last assertion of the gate's file."""
    path = mini.root / f"gates/test_gate{gate}.py"
    head, tail = path.read_text().rsplit("    assert_equal(", 1)
    path.write_text(f"{head}    {statement}\n    assert_equal({tail}")


def wait_for_start(mini, run):
    """Waits until the gate's test has made the file `started`, or the run has ended."""
    while not (mini.root / "started").exists() and run.poll() is None:
        time.sleep(0.05)


@SERIAL_AND_XDIST
def test_passed_signs_every_gate(mini, workers):
    result = mini.pytest("gates", "--junitxml=out.xml", *workers)
    assert result.code == 0, result.text
    assert result.last == "gates: PASSED: gate1 passed, gate2 passed"
    assert mini.signed() == [1, 2]
    assert outcomes(mini) == {"gate1": "passed", "gate2": "passed"}
    assert verdict(mini, "gate2") is None
    names = [case.get("name") for case in mini.junit("out.xml")["gate2"].findall("testcase")]
    assert sorted(names) == ["gate2 outcome", "test_fire[G2.1]", "test_ice[G2.2]"]
    record = mini.record(2)
    assert [(row["id"], row["status"], row["text"]) for row in record["clauses"]] == [
        ("G2.1", "passed", "fire got 2, want 2"),
        ("G2.2", "passed", "ice got 3, want 3"),
    ]
    assert record["device"] == "CPU" and record["versions"]["tensorflow"] == "0.mini" and record["require_gpu"] is False
    assert record["previous"] == mini.record(1)["digest"]


@SERIAL_AND_XDIST
def test_failed_names_the_clause_and_takes_the_sign_off(mini, workers):
    mini.replace("gates/test_gate2.py", "got=3", "got=4, step=7")
    mini.sign(1, 2)
    result = mini.pytest("gates", "-m", "gate2", "--junitxml=out.xml", *workers)
    assert result.code == 1, result.text
    assert result.last == "gates: FAILED: gate1 passed, gate2 failed"
    assert "G2.2 ice is cold: ice got 4, want 3 (exact) [step=7]" in result.text
    assert "reproduce: python -m pytest gates -m gate2 -k '[G2.2]'" in result.text
    assert mini.signed() == [1]
    assert mini.record(2)["outcome"] == "failed"
    assert verdict(mini, "gate2") == "failed"


@SERIAL_AND_XDIST
def test_blocked_gate_is_not_run_and_is_red(mini, workers):
    mini.replace("gates/test_gate1.py", "got=1", "got=0")
    result = mini.pytest("gates", "-m", "gate2", "--junitxml=out.xml", *workers)
    assert result.code == 11, result.text
    assert result.last == "gates: BLOCKED: gate1 failed, gate2 blocked"
    assert "test_fire" not in result.text and not (mini.root / "outputs/gates/gate2.json").exists()
    assert outcomes(mini) == {"gate1": "failed", "gate2": "blocked"}
    assert verdict(mini, "gate2") == "blocked"


def test_all_gates_with_the_first_broken_is_failed(mini):
    mini.replace("gates/test_gate1.py", "got=1", "got=0")
    result = mini.pytest("gates")
    assert result.code == 1
    assert result.last == "gates: FAILED: gate1 failed, gate2 blocked"


@SERIAL_AND_XDIST
def test_empty_when_nothing_matches(mini, workers):
    result = mini.pytest("gates", "-k", "nothing", "--junitxml=out.xml", *workers)
    assert result.code == 5, result.text
    assert result.last == "gates: EMPTY: gate1 empty, gate2 empty"
    assert verdict(mini, "gate1") == "empty"


@SERIAL_AND_XDIST
def test_empty_when_the_gate_has_no_test(mini, workers):
    (mini.root / "gates/test_gate1.py").unlink()
    result = mini.pytest("gates", "-m", "gate1", *workers)
    assert result.code == 5, result.text
    assert mini.signed() == []


@SERIAL_AND_XDIST
def test_partial_signs_nothing(mini, workers):
    result = mini.pytest("gates", "-m", "gate1", "-k", "water", "--junitxml=out.xml", *workers)
    assert result.code == 10, result.text
    assert result.last == "gates: PARTIAL: gate1 partial"
    assert mini.signed() == []
    assert verdict(mini, "gate1") == "partial"


@SERIAL_AND_XDIST
def test_stale_when_the_source_changes_meanwhile(mini, workers):
    before_assertion(mini, 1, "open('edgeflownas/code.txt', 'a').write('x')")
    result = mini.pytest("gates", "--junitxml=out.xml", *workers)
    assert result.code == 12, result.text
    assert result.last == "gates: STALE: gate1 stale, gate2 blocked"
    assert "edgeflownas/code.txt was changed" in result.text
    assert mini.signed() == [] and not (mini.root / "outputs/gates/gate1.json").exists()
    assert outcomes(mini) == {"gate1": "stale", "gate2": "blocked"}


def test_a_gate_file_that_cannot_be_imported_fails(mini):
    mini.write("gates/test_gate1.py", "import no_such_module_anywhere\n")
    result = mini.pytest("gates", "-m", "gate1")
    assert result.code == 1, result.text
    assert result.last == "gates: FAILED: gate1 failed"


def test_a_session_that_dies_fails_and_takes_the_sign_off(mini):
    before_assertion(mini, 1, "import os; os._exit(0)")
    mini.sign(1)
    result = mini.pytest("gates", "-m", "gate1")
    assert result.code == 1, result.text
    assert "left no report" in result.text
    assert mini.record(1)["outcome"] == "failed"


def test_a_worker_that_dies_fails(mini):
    before_assertion(mini, 1, "import os; os._exit(0)")
    assert mini.pytest("gates", "-m", "gate1", "-n", "1").code == 1
    assert mini.signed() == []


def test_undeclared_skip_signs_nothing(mini):
    before_assertion(mini, 2, "import pytest; pytest.skip('no ice')")
    result = mini.pytest("gates")
    assert result.code == 10, result.text
    assert "without G2.2" in result.text and mini.signed() == [1]


def test_declared_skip_is_signed_with_its_reason(mini):
    mini.replace("mini_clauses.py", "SKIPS = {}", "SKIPS = {'G2.2': 'no freezer'}")
    before_assertion(mini, 2, "import pytest; pytest.skip('no freezer')")
    result = mini.pytest("gates")
    assert result.code == 0, result.text
    assert mini.record(2)["clauses"][1]["text"] == "Skipped: no freezer"


def test_declared_skip_that_runs_fails(mini):
    mini.replace("mini_clauses.py", "SKIPS = {}", "SKIPS = {'G2.2': 'no freezer'}")
    result = mini.pytest("gates")
    assert result.code == 1, result.text
    assert "G2.2 is listed as a skip, but it ran" in result.text


def test_every_clause_skipped_is_empty(mini):
    mini.replace("mini_clauses.py", "SKIPS = {}", "SKIPS = {'G1.1': 'no water'}")
    before_assertion(mini, 1, "import pytest; pytest.skip('no water')")
    assert mini.pytest("gates", "-m", "gate1").code == 5


@pytest.mark.parametrize(
    "what, change",
    [
        ("G2.2 has no test", ('@clause("G2.2")', "")),
        ("G2.1 has two tests", ('@clause("G2.2")', '@clause("G2.1")')),
        ("test_ice[G2.9] has no clause of the table", ('@clause("G2.2")', '@clause("G2.9")')),
        ("test_ice has no clause of the table", ('@clause("G2.2")', "")),
        ("test_ice[G1.1] stands in the file of another gate", ('@clause("G2.2")', '@clause("G1.1")')),
    ],
)
def test_tests_and_table_must_match_one_to_one(mini, what, change):
    mini.replace("gates/test_gate2.py", *change)
    result = mini.pytest("gates")
    assert result.code == 4, result.text
    assert what in result.text
    assert result.last == "gates: ERROR: gate1 passed, gate2 error"
    assert mini.signed() == [1]


def test_tests_and_table_must_match_under_xdist_too(mini):
    mini.replace("gates/test_gate2.py", '@clause("G2.2")', "")
    result = mini.pytest("gates", "-n", "2")
    assert result.code == 4, result.text
    assert "test_ice has no clause of the table" in result.text and "G2.2 has no test" in result.text
    assert mini.signed() == [1]


def test_one_clause_is_one_case(mini):
    parametrised = 'import pytest\n@clause("G2.2")\n@pytest.mark.parametrize("n", [1, 2])'
    mini.replace("gates/test_gate2.py", '@clause("G2.2")', parametrised)
    mini.replace("gates/test_gate2.py", "(tmp_path)", "(n)")
    result = mini.pytest("gates")
    assert result.code == 4 and "test_ice is parametrised: one clause is one case" in result.text, result.text


def test_an_interrupt_ends_the_run_and_leaves_the_records(mini):
    before_assertion(mini, 2, "open('started', 'w').close(); import time; time.sleep(60)")
    mini.sign(1, 2)
    run = mini.start("gates", "-m", "gate2")
    wait_for_start(mini, run)
    os.killpg(run.pid, signal.SIGINT)
    text = run.communicate(timeout=60)[0]
    assert run.returncode == 2, text
    assert "gates: ERROR: gate1 passed, gate2 error" in text and "interrupted" in text
    assert mini.signed() == [1, 2]


def test_two_gate_runs_at_once(mini):
    wait = "open('started', 'w').close()\n    import os, time\n    while not os.path.exists('release'): time.sleep(0.1)"
    before_assertion(mini, 1, wait)
    first = mini.start("gates", "-m", "gate1")
    try:
        wait_for_start(mini, first)
        second = mini.pytest("gates", "-m", "gate1")
        assert second.code == 4, second.text
        assert second.lines == [f"ERROR: another gate run is at work on {mini.root}; wait for it to end"]
    finally:
        mini.write("release", "")
        text = first.communicate(timeout=60)[0]
    assert first.returncode == 0, text
    assert mini.signed() == [1]


def test_the_lock_of_a_dead_process_does_not_block(mini):
    (mini.root / "outputs/gates").mkdir(parents=True)
    code = (
        "import filelock, time; lock = filelock.FileLock('outputs/gates/.lock'); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=str(mini.root), stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert mini.pytest("gates", "-m", "gate1").code == 4
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert mini.pytest("gates", "-m", "gate1").code == 0


def test_require_gpu(mini):
    result = mini.pytest("gates", "-m", "gate1", "--require_gpu")
    assert result.code == 4
    assert result.lines == ["ERROR: --require_gpu: no visible GPU (device: CPU); nothing was run"]
    mini.environment["MINI_GPUS"] = "Tesla:0"
    assert mini.pytest("gates", "-m", "gate1", "--require_gpu").code == 0
    record = mini.record(1)
    assert record["device"] == "Tesla:0" and record["require_gpu"] is True
