"""The report of studies with a known truth: the verdict's word, and that invalid runs are not averaged in."""

import os
import shutil

import numpy as np
import pytest

from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.scoring.fidelity.analysis import at_budget, holdout_pairs, seed_pairs, tie_gap
from edgeflownas.scoring.fidelity.evidence import gather
from edgeflownas.scoring.fidelity.plan import read_plan
from edgeflownas.scoring.fidelity.report import write_report
from edgeflownas.scoring.fidelity.runs import last_checkpoint
from edgeflownas.scoring.fidelity.scores import score_path, write_scores
from edgeflownas.statistics.ranks import kendall_tau_b
from tests.scoring.pretended_study import Truth, make_data, planned, pretend, pretend_all, score, write_study


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A whole study, one budget; tests copy it."""
    folder = tmp_path_factory.mktemp("pristine")
    plan = planned(write_study(folder, make_data(folder), budgets="[1]"))
    pretend_all(plan, truth_of(plan))
    return plan


@pytest.fixture(scope="module")
def before(pristine):
    return at_budget(gather(pristine), 1)


@pytest.fixture
def plan(pristine, tmp_path):
    shutil.copytree(pristine.folder, str(tmp_path / "study"), symlinks=True)
    return read_plan(str(tmp_path / "study"))


def truth_of(plan, **details):
    return Truth([code.arch_code for code in plan.codes], **details)


def report(plan):
    path, title = write_report(plan)
    return path.read_text(encoding="utf-8"), title


def run_named(plan, name):
    return next(run for run in plan.runs if run.name == name)


def alone(plan, code, seed):
    return run_named(plan, f"alone-{code}-b1-s{seed}")


def test_the_numbers_are_those_of_the_scores(plan):
    found = at_budget(gather(plan), 1)
    truth = truth_of(plan)
    scores = {run.name: truth.scores(plan, run).epe["unseen"].astype(float).mean(1) for run in plan.runs}
    means = np.array([[scores[alone(plan, code, seed).name][0] for code in plan.counted] for seed in (1, 2)])
    np.testing.assert_allclose(found.truth, means.mean(0))
    assert found.sd == pytest.approx(np.sqrt(np.mean(np.var(means, axis=0, ddof=1))))
    gaps = np.abs(found.truth[:, None] - found.truth[None, :])[np.triu_indices(6, 1)]
    assert found.resolved == (int(np.sum(gaps > tie_gap(found.sd))), 15)
    for agreement, name in zip(found.strict + found.uniform, ("strict-s42", "strict-s43", "uniform-s42")):
        assert agreement.tau == pytest.approx(float(kendall_tau_b(scores[name][:6], found.truth)))
    cost = dict(zip([one.name for one in found.costs], found.costs))["parameters"]
    parameters = [code.parameters for code in plan.codes if code.counts]
    assert cost.tau == pytest.approx(-float(kendall_tau_b(parameters, found.truth)))


def test_a_good_supernet_is_strong_and_every_part_of_the_report_is_there(plan):
    text, title = report(plan)
    assert title.startswith("strong: ")
    for words in ("Kendall's tau", "over samples", "parameters", "multiply-adds", "uniform, seed 42", "the ceiling"):
        assert words in text
    images = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(images) == 3
    for image in images:
        with open(os.path.join(plan.folder, image), "rb") as handle:
            assert handle.read(8) == b"\x89PNG\r\n\x1a\n"
    assert "left out" not in text


@pytest.mark.parametrize(
    "details, word",
    [
        ({"uniform_noise": 0.01}, "weak"),
        ({"supernet_noise": 1.0, "zero": 90.0}, "none"),
        ({"seed_noise": 0.3}, "void"),
        ({"zero": 3.1}, "void"),
    ],
    ids=str,
)
def test_the_words_of_other_studies(plan, details, word):
    truth = truth_of(plan, **details)
    for run in plan.runs:
        score(plan, run, truth)
    assert report(plan)[1].startswith(word + ": ")


def interrupt(plan, run):
    shutil.rmtree(plan.run_folder(run))
    pretend(plan, run, epochs=1, status="interrupted")
    score(plan, run, truth_of(plan))


def change(plan, run):
    shutil.rmtree(plan.run_folder(run))
    pretend(plan, run, overrides=dict(plan.settings(run), **{"train.wd": 0.125}))
    score(plan, run, truth_of(plan))


def damage_weights(plan, run):
    with open(last_checkpoint(plan, run).prefix + ".index", "a") as handle:
        handle.write("more")


def damage_table(plan, run):
    path = os.path.join(plan.run_folder(run), "eval_epe_per_arch.csv")
    with open(path) as handle:
        text = handle.read()
    with open(path, "w") as handle:
        handle.write(text.replace(",1,", ",2,", 1))


def damage_scores(plan, run):
    with open(score_path(plan, run), "r+b") as handle:
        handle.seek(200)
        handle.write(b"\x00\x01\x02\x03")


def better_scores(plan, run):
    """Lowers an EPE in a file that stays readable, so that only the stored digest shows it."""
    path = score_path(plan, run)
    with np.load(path) as archive:
        values = dict(archive)
    values["samples_unseen"] -= 1
    np.savez_compressed(path, **values)


def scores_of_another_checkpoint(plan, run):
    generation = last_checkpoint(plan, run)
    other = {name: dict(entry, sha256="0" * 64) for name, entry in generation.files.items()}
    write_scores(plan, run, truth_of(plan).scores(plan, run), generation._replace(files=other))


def remove(plan, run):
    shutil.rmtree(plan.run_folder(run))


def remove_scores(plan, run):
    os.unlink(score_path(plan, run))


PROBLEMS = [
    (interrupt, "interrupted: status interrupted, step 1 of 2"),
    (change, "not trained as planned: train.wd differs"),
    (damage_weights, "damaged: "),
    (damage_table, "damaged: "),
    (damage_scores, "scores damaged"),
    (better_scores, "scores damaged: their content does not match their digest"),
    (scores_of_another_checkpoint, "scored from another checkpoint"),
    (remove, "not started"),
    (remove_scores, "not scored"),
]


@pytest.mark.parametrize("spoil, reason", PROBLEMS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_unsound_run_is_named_and_its_code_is_in_no_figure(plan, before, spoil, reason):
    code = plan.counted[3]
    spoil(plan, alone(plan, code, 2))
    evidence = gather(plan)
    assert [name for name, _ in evidence.problems] == [f"alone-{code}-b1-s2"]
    assert evidence.problems[0][1].startswith(reason), evidence.problems
    after = at_budget(evidence, 1)
    assert after.alone.codes == [one for one in plan.counted if one != code]
    np.testing.assert_array_equal(after.truth, np.delete(before.truth, 3))


def test_the_report_names_what_it_left_out_and_gives_no_verdict(plan):
    damage_weights(plan, run_named(plan, "strict-s43"))
    remove_scores(plan, alone(plan, plan.counted[0], 1))
    assert [one.name for one in at_budget(gather(plan), 1).strict] == ["strict, seed 42"]
    text, title = report(plan)
    assert title == "open: 2 of 17 runs are missing or may not be used"
    assert f"| `alone-{plan.counted[0]}-b1-s1` | not scored |" in text and "| `strict-s43` | damaged: " in text


def test_a_report_of_nothing_says_what_is_missing(tmp_path, pristine):
    os.makedirs(str(tmp_path / "study"))
    shutil.copy(os.path.join(pristine.folder, "plan.json"), str(tmp_path / "study"))
    text, title = report(read_plan(str(tmp_path / "study")))
    assert title.startswith("open: 17 of 17") and text.count("not started") == 17


def test_seeds_and_holdout_are_compared_without_stand_alone_runs(tmp_path):
    data = make_data(tmp_path)
    path = write_study(
        tmp_path, data, {"data.holdout": 2}, alone_seeds="[]", uniform_seeds="[]", strict_seeds="[1, 2, 3]"
    )
    plan = planned(path)
    for run in plan.runs:
        pretend(plan, run, val=2)
        score(plan, run, truth_of(plan))
    evidence = gather(plan)
    assert evidence.problems == []
    assert [pair.name for pair in seed_pairs(evidence)] == [f"strict, seeds {a} and {b}" for a, b in ("12", "13", "23")]
    held = holdout_pairs(evidence)
    assert len(held) == 3 and all(pair.tau > 0.9 and pair.codes.contains(pair.tau) for pair in held)
    text, title = report(plan)
    assert title.startswith("no verdict") and "FC2_test against the holdout" in text and "Stability" in text


def test_the_store_is_only_read(plan):
    """A report needs the folders only, leaves them as they are, and does not change by itself."""
    run = plan.runs[0]
    store = CheckpointStore(os.path.join(plan.run_folder(run), "checkpoints"))
    before = store.load("last"), sorted(os.listdir(plan.run_folder(run)))
    assert report(plan) == report(read_plan(plan.folder))
    assert (store.load("last"), sorted(os.listdir(plan.run_folder(run)))) == before
