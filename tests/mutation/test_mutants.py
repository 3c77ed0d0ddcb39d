"""All mutants of a small module; and a mutation run continues where it stopped."""

import ast
import json
import sys
from pathlib import Path

import pytest

from tests.mutation import __main__ as mutation

pytestmark = pytest.mark.skipif(sys.version_info < (3, 9), reason="positions and texts of ast: Python 3.9")

SMALL = '''"""Words 1 + 1."""


def f(a: int, b: int = 3) -> float:
    log.info("not %d", 2)
    if not a < b and b:
        raise ValueError("no", a)
    return g(a, b - 1, key=True) / -b
'''


@pytest.fixture
def found(tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    return mutation.mutants(tmp_path, "small.py")


def test_every_change_is_made_once_and_none_of_words(found):
    assert sorted((mutant.line, mutant.kind, mutant.old, mutant.new) for mutant in found) == sorted(
        [
            (4, "constant", "3", "4"),
            (6, "condition", "not a < b and b", "(not (not a < b and b))"),
            (6, "logic", "not a < b and b", "((not a < b) or (b))"),
            (6, "sign", "not a < b", "(a < b)"),
            (6, "comparison", "a < b", "(a) <= (b)"),
            (8, "arithmetic", "g(a, b - 1, key=True) / -b", "(g(a, b - 1, key=True)) * (-b)"),
            (8, "exchanged", "a, b - 1", "b - 1, a"),
            (8, "arithmetic", "b - 1", "(b) + (1)"),
            (8, "constant", "1", "2"),
            (8, "left out", "key=True", ""),
            (8, "constant", "True", "False"),
            (8, "sign", "-b", "(b)"),
        ]
    )


def test_each_is_a_program_and_another_one(found, tmp_path):
    for mutant in found:
        (tmp_path / "small.py").write_text(SMALL)
        mutant.apply(tmp_path)
        changed = (tmp_path / "small.py").read_text()
        ast.parse(changed)
        assert changed != SMALL
    with pytest.raises(ValueError, match="another text"):
        found[-1]._replace(old="other").apply(tmp_path)


def test_a_larger_sample_begins_with_the_smaller_one():
    few, many = mutation.sampled(5, 7), mutation.sampled(9, 7)
    assert many[:5] == few and len({mutant.id for mutant in many}) == 9
    assert mutation.sampled(5, 8) != few


def test_a_run_goes_on_where_it_stopped(found, tmp_path, monkeypatch, capsys):
    asked = []

    def run_one(mutant, clean, scratch):
        asked.append(mutant.id)
        survived = mutant.kind == "sign"
        return mutation.Ended(
            mutant.id, mutation.SURVIVED if survived else mutation.KILLED, "G3.1" * (not survived), 1.0
        )

    monkeypatch.setattr(mutation, "run_one", run_one)
    monkeypatch.setattr(mutation, "copy_project", lambda target: target)
    monkeypatch.setattr(mutation, "_failed", lambda copy, gate: "")
    out = tmp_path / "out"
    mutation.run(found[:4], out, 1)
    ends = mutation.run(found, out, 1)
    assert asked == [mutant.id for mutant in found] and len(out.read_text().splitlines()) == len(found)
    assert json.loads(out.read_text().splitlines()[0])["outcome"] == "killed"
    assert mutation.report(found, ends) == 1
    assert capsys.readouterr().out.endswith("mutants: 10 of 12 killed by gates 2 and 3 (83.3%)\n")


def test_a_mutant_runs_gate_3_only_if_gate_2_passes(found, tmp_path, monkeypatch):
    clean, gates = tmp_path / "clean", []
    clean.mkdir()
    (clean / "small.py").write_text(SMALL)

    def failed(copy, gate):
        gates.append((gate, (Path(copy) / "small.py").read_text() == SMALL))
        return {2: "", 3: "G3.8"}[gate]

    monkeypatch.setattr(mutation, "_failed", failed)
    ended = mutation.run_one(found[0], clean, tmp_path)
    assert (ended.outcome, ended.by, gates) == ("killed", "G3.8", [(2, False), (3, False)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "small.py"]
