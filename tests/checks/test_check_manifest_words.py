"""The exact texts of check_manifest's checks for a good run, and for faults at the limit of what is allowed."""

import json
import os
import re

import pytest
from pretended_run import write_run
from run_tampering import RESUME, both, cell, counts, failed, manifest, read, remove, resumed, rows, said, setting

from edgeflownas.checks.check_manifest import CHECKS, main
from edgeflownas.checks.folder import Wrong, expect, expect_close
from edgeflownas.errors import UserError

pytest_plugins = ["run_copies"]

HISTORY, ARCH, STEPS = "eval_epe_history.csv", "eval_epe_per_arch.csv", "train_steps.csv"


# ---- a good run

# A run of four epochs of three steps, 17 training and 5 validation samples; the third epoch is the best.
COMPLETED = {
    "manifest: fields": "all 31 fields, of the right types",
    "manifest: origins of the configuration": "every key has its origin",
    "manifest: agrees with its configuration": "seed 42, arch_seed 42, num_epochs 4, input_shape [67, 83, 6], "
    "optimizer adam, lr 0.0001, lr_schedule cosine, wd 4e-05, grad_clip 5.0",
    "manifest: steps and epochs": "step 12 of 12, 3 per epoch",
    "manifest: git commit": "0123456789012345678901234567890123456789",
    "manifest: versions, device, command": "TensorFlow 1.15.5, NumPy 1.18.5, Python 3.7.17, CPU",
    "manifest: data set": "17 training and 5 validation samples",
    "manifest: network": "435,588 parameters, 9 choice blocks",
    "manifest: gates": "gate1 valid, gate2 valid, gate3 stale, gate4 missing, unsigned True",
    "manifest: status": "completed",
    "fairness: counts": "12 cycles of 3 paths, fairness_gap 0",
    "fairness: gap at every evaluation": "0 at each of 4 evaluations",
    "steps: none missing, none twice": "steps 0 to 11",
    "steps: learning rate": "cosine from 0.0001 over 12 steps",
    "steps: gradient clip": "largest grad_norm_after 4.99995, clip 5.0",
    "steps: losses": "finite at all 12 steps",
    "evaluations: pool": "eval_pool_12.json has 12 distinct codes that use every option equally often",
    "evaluations: none missing, none twice": "4 evaluations, epoch by epoch",
    "evaluations: done as configured": "bn_recal_batches=8, 5 samples",
    "evaluations: subnets and ranks": "12 codes in each of 4 evaluations",
    "evaluations: EPE per sample": "5 samples, epochs 4 and 3",
    "evaluations: mean and std": "of 4 evaluations agree with eval_epe_per_arch.csv",
    "evaluations: zero flow": "8.25 px",
    "evaluations: best": "epoch 3, mean EPE 5.25 px",
    "evaluations: early stop": "wait 1 of 15",
    "evaluations: training columns": "4 epochs agree with train_steps.csv",
    "checkpoints: last": "gen-000000012-0004, step 12, sizes and checksums match",
    "checkpoints: best": "gen-000000009-0003, epoch 3, sizes and checksums match",
    "checkpoints: names": "supernet_last.ckpt and supernet_best.ckpt lead to their generations",
    "checkpoints: state": "configuration, data and best are the manifest's",
    "checkpoints: lengths of the tables": "4 tables have the lengths noted in the checkpoint",
    "folder: files": "supernet_training_report.md, train.log, timing.csv, tensorboard, eval_samples.npz",
}


def test_what_is_said_of_a_completed_run(run):
    found = said(run)
    stored = json.loads(read(os.path.join(run, "train_manifest.json")))
    assert found.pop("manifest: config_hash recomputes") == stored["config_hash"]
    assert found.pop("manifest: times and resumes") == "{} to {}, 0 resumes".format(
        stored["started"], stored["updated"]
    )
    assert found == COMPLETED


@pytest.mark.parametrize(
    "details, words",
    [
        (
            {"epochs": 0, "status": "interrupted"},
            {
                "manifest: steps and epochs": "step 0 of 12, 3 per epoch",
                "steps: none missing, none twice": "no step yet",
                "steps: gradient clip": "largest grad_norm_after 0.0, clip 5.0",
                "steps: losses": "finite at all 0 steps",
                "evaluations: zero flow": "no evaluation yet",
                "evaluations: best": "no evaluation yet",
                "evaluations: early stop": "wait 0 of 15",
                "checkpoints: last": "gen-000000000-0001, step 0, sizes and checksums match",
                "checkpoints: best": "gen-000000000-0001, the last: nothing is evaluated yet",
                "folder: files": "supernet_training_report.md, train.log, timing.csv, tensorboard",
            },
        ),
        (
            {"epochs": 0, "extra_steps": 1, "status": "interrupted"},
            {
                "steps: none missing, none twice": "steps 0 to 0",
                "manifest: steps and epochs": "step 1 of 12, 3 per epoch",
            },
        ),
        (
            {"mode": "uniform", "epochs": 2, "extra_steps": 1, "status": "interrupted"},
            {
                "manifest: steps and epochs": "step 7 of 12, 3 per epoch",
                "fairness: counts": "7 cycles of 3 paths, fairness_gap 9",
                "fairness: gap at every evaluation": "not checked: uniform mode",
                "evaluations: best": "epoch 2, mean EPE 6.5 px",
            },
        ),
        (
            {"epochs": 5, "num_epochs": 7, "patience": 2, "status": "early_stopped"},
            {"manifest: status": "early_stopped", "evaluations: early stop": "wait 2 of 2"},
        ),
        (
            {"epochs": 2, "status": "running"},
            {"manifest: status": "running; rows after the last checkpoint are allowed"},
        ),
    ],
    ids=lambda value: str(value)[:70] if "epochs" in value else "",
)
def test_what_is_said_of_other_good_runs(tmp_path, details, words):
    folder = str(write_run(tmp_path, **details))
    assert failed(folder) == {}
    found = said(folder)
    assert {name: found[name] for name in words} == words


def test_the_verdict_counts_the_checks(run, capsys):
    path = os.path.join(run, "train_manifest.json")
    assert main(["--path", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    manifest: fields: all 31 fields, of the right types"
    assert lines[-1] == "check_manifest passed: 34 checks, " + path and len(lines) == 35 == len(CHECKS) + 1
    setting("seed", 43)(run)
    assert main(["--path", path]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "FAIL  manifest: agrees with its configuration: got seed 43, want 42"
    assert lines[-1] == "check_manifest FAILED: 1 of 34 checks, " + path


# ---- faults, to the word


def truncate_table(name):
    return lambda folder: os.truncate(os.path.join(folder, name), 0)


# (check, what is done, what the check must say; `*` is anything)
REFUSALS = [
    (
        "manifest: fields",
        manifest(lambda stored: [stored.pop("wd"), stored.pop("best")]),
        "got no field wd, best, want all of 31",
    ),
    ("manifest: fields", setting("wd", 0), "got wd 0, want a value of type float"),
    (
        "manifest: origins of the configuration",
        manifest(lambda stored: stored["config_origins"].update({"train.lr": ""})),
        None,
    ),
    ("manifest: steps and epochs", setting("dataset.train", 0), "got dataset.train 0, want at least 1"),
    ("manifest: steps and epochs", setting("steps_per_epoch", 0), "got steps_per_epoch 0, want at least 1"),
    ("manifest: steps and epochs", setting("dataset.train", 14), "got steps_per_epoch 3, want 2"),
    ("manifest: steps and epochs", setting("global_step", -1), "got global_step -1, want at least 0"),
    ("manifest: steps and epochs", setting("global_step", 13), "got global_step 13, want at most total_steps 12"),
    ("manifest: steps and epochs", setting("global_step", 11), "got epoch 4, want 3"),
    ("manifest: git commit", setting("git_dirty", 0), "got git_dirty 0, want true or false"),
    ("manifest: git commit", setting("git_commit", "a" * 39), None),
    ("manifest: git commit", setting("git_commit", "g" * 40), None),
    (
        "manifest: versions, device, command",
        setting("versions.numpy", "one"),
        "got versions.numpy 'one', want a version",
    ),
    ("manifest: versions, device, command", setting("versions.platform", ""), "got versions.platform '', want a text"),
    ("manifest: data set", setting("dataset.val", 0), "got dataset.val 0, want at least 1"),
    ("manifest: data set", setting("dataset.train", 0), "got dataset.train 0, want at least 1"),
    ("manifest: data set", setting("dataset.fingerprint", "A" * 64), None),
    ("manifest: data set", setting("dataset.base_path", 3), "got dataset.base_path 3, want a value of type str"),
    (
        "manifest: gates",
        setting("gates.gate1", None),
        "got gate1 None, want one of valid, missing, stale, edited, broken, failed",
    ),
    (
        "manifest: gates",
        setting("gates.gate4", 4),
        "got gate4 4, want one of valid, missing, stale, edited, broken, failed",
    ),
    ("manifest: gates", setting("gates.gate2", "VALID"), None),
    ("manifest: status", setting("steps_per_epoch", 0), "got steps_per_epoch 0, want at least 1"),
    ("manifest: status", setting("status", "interrupted"), "got status interrupted, want completed"),
    (
        "manifest: status",
        setting("total_steps", 13),
        "got status completed, want a status of an unfinished run: it is at step 12",
    ),
    (
        "manifest: times and resumes",
        setting("resumes", [dict(RESUME, status_before="well")]),
        "got resume 1: status_before 'well', want a status",
    ),
    (
        "manifest: times and resumes",
        setting("resumes", [dict(RESUME, global_step=13)]),
        "got resume 1: global_step 13, want a step of the run",
    ),
    (
        "manifest: times and resumes",
        setting("resumes", [dict(RESUME, global_step=-1)]),
        "got resume 1: global_step -1, want a step of the run",
    ),
    (
        "manifest: times and resumes",
        setting("resumes", [dict(RESUME, time="2001")]),
        "got resume 1 '2001', want a time like 2026-02-16T09:30:00Z",
    ),
    ("manifest: times and resumes", setting("resumes", [dict(RESUME, command=1)]), None),
    (
        "manifest: times and resumes",
        setting("resumes", [dict(RESUME, changed=[1])]),
        "got changed [1], want names of keys",
    ),
    ("manifest: times and resumes", setting("resumes", [3]), "got a resume 3, want a time of type str"),
    ("fairness: counts", counts(lambda stored: stored.update(cycles=-1)), "got cycles -1, want a whole number"),
    ("fairness: counts", counts(lambda stored: stored.update(cycles=True)), "got cycles True, want a whole number"),
    ("fairness: counts", counts(lambda stored: stored.update(cycles=12.0)), "got cycles 12.0, want a whole number"),
    (
        "fairness: counts",
        counts(lambda stored: stored.pop("fairness_gap")),
        "*fairness_counts.json: expected supernet_mode, cycles, fairness_gap, counts, space, found no fairness_gap",
    ),
    ("fairness: counts", counts(lambda stored: stored["counts"]["EB0"].append(0)), None),
    (
        "fairness: gap at every evaluation",
        cell(HISTORY, 3, "fairness_gap", "1"),
        "got fairness_gap of the evaluations [0, 0, 0, 1], want [0, 0, 0, 0]",
    ),
    ("steps: none missing, none twice", cell(STEPS, 0, "epoch", "2"), "got step 0: epoch 2, want 1"),
    ("steps: none missing, none twice", cell(STEPS, 2, "epoch", "2"), "got step 2: epoch 2, want 1"),
    ("steps: none missing, none twice", cell(STEPS, 3, "epoch", "1"), "got step 3: epoch 1, want 2"),
    (
        "steps: none missing, none twice",
        rows(STEPS, lambda body: body[:-1]),
        "got 11 rows, want 12, as the last checkpoint says",
    ),
    (
        "steps: none missing, none twice",
        rows(STEPS, lambda body: body + ["12,5,0,0,0,0,0"]),
        "got 13 rows, want 12, as the last checkpoint says",
    ),
    ("steps: none missing, none twice", setting("steps_per_epoch", 0), "got steps_per_epoch 0, want at least 1"),
    (
        "steps: none missing, none twice",
        cell(STEPS, 0, "step", "0.0"),
        "got train_steps.csv line 2: step '0.0', want a whole number",
    ),
    (
        "steps: learning rate",
        rows(STEPS, lambda body: body + ["12,5,0,0,0,0,0"]),
        "got 13 steps, want at most total_steps 12",
    ),
    ("steps: learning rate", setting("total_steps", 0), "got total_steps 0, want at least 1"),
    ("steps: learning rate", cell(STEPS, 0, "lr", "0.00010001"), "got step 0: lr 0.00010001, want 0.0001"),
    ("steps: learning rate", cell(STEPS, 11, "lr", "0.000001704"), None),
    (
        "steps: gradient clip",
        cell(STEPS, 0, "grad_norm_after", "-0.1"),
        "got step 0: grad_norm_after -0.1, want at most 5.0",
    ),
    (
        "steps: gradient clip",
        cell(STEPS, 11, "grad_norm_after", "5.1"),
        "got step 11: grad_norm_after 5.1, want at most 5.0",
    ),
    (
        "steps: gradient clip",
        both(cell(STEPS, 0, "grad_norm_before", "4.0"), cell(STEPS, 0, "grad_norm_after", "4.001")),
        "got step 0: grad_norm_after 4.001, want 4.0",
    ),
    ("steps: losses", cell(STEPS, 5, "l2_loss", "-0.001"), "got step 5: l2_loss -0.001, want 0 or more"),
    ("steps: losses", cell(STEPS, 11, "loss", "inf"), "got train_steps.csv line 13: loss 'inf', want a finite number"),
    (
        "evaluations: none missing, none twice",
        cell(HISTORY, 0, "global_step", "2"),
        "got epoch 1: global_step 2, want 3",
    ),
    (
        "evaluations: none missing, none twice",
        rows(HISTORY, lambda body: body[:-1]),
        "got 3 rows, want 4, as the last checkpoint says",
    ),
    ("evaluations: none missing, none twice", setting("steps_per_epoch", 0), "got steps_per_epoch 0, want at least 1"),
    (
        "evaluations: done as configured",
        cell(HISTORY, 0, "bn_recal_batches", "7"),
        "got *eval_epe_history.csv line 2: bn_recal_batches 7, want 8",
    ),
    (
        "evaluations: done as configured",
        cell(ARCH, 47, "num_samples", "4"),
        "got *eval_epe_per_arch.csv line 49: num_samples 4, want 5",
    ),
    ("evaluations: done as configured", setting("dataset.val", 0), "got dataset.val 0, want at least 1"),
    ("evaluations: subnets and ranks", cell(ARCH, 0, "epoch", "2"), None),
    ("evaluations: subnets and ranks", cell(ARCH, 47, "global_step", "11"), None),
    ("evaluations: subnets and ranks", rows(ARCH, lambda body: body[:-1]), "got number of rows 47, want 48"),
    ("evaluations: mean and std", cell(HISTORY, 3, "mean_epe_12", "5.6"), "got epoch 4: mean_epe_12 5.6, want 5.*"),
    ("evaluations: mean and std", cell(HISTORY, 0, "std_epe_12", "9.0"), "got epoch 1: std_epe_12 9.0, want 0.*"),
    ("evaluations: mean and std", rows(ARCH, lambda body: body[:-1]), "got 47 scores, want 12 for each of 4 rows"),
    (
        "evaluations: zero flow",
        cell(HISTORY, 3, "zero_flow_epe", "8.2502"),
        "got epoch 1: zero_flow_epe 8.25, want 8.2502",
    ),
    (
        "evaluations: zero flow",
        both(*[cell(HISTORY, i, "zero_flow_epe", "-1.0") for i in range(4)]),
        "got zero_flow_epe -1.0, want 0 or more",
    ),
    ("evaluations: best", cell(HISTORY, 0, "best_epoch", "2"), "got epoch 1: best_epoch 2, want 1"),
    ("evaluations: best", cell(HISTORY, 3, "best_mean_epe_12", "5.2"), "got epoch 4: best_mean_epe_12 5.2, want 5.25"),
    ("evaluations: best", setting("best", None), "got best null, want epoch 3"),
    ("evaluations: best", setting("best.global_step", 8), "got best global_step 8, want 9"),
    ("evaluations: early stop", cell(HISTORY, 0, "early_stop_wait", "1"), "got epoch 1: early_stop_wait 1, want 0"),
    (
        "evaluations: early stop",
        setting("status", "early_stopped"),
        "got status early_stopped at wait 1, want early_stopped from 15 on",
    ),
    (
        "evaluations: training columns",
        cell(HISTORY, 0, "global_step", "0"),
        "got epoch 1 ends at step 0, want a step of train_steps.csv",
    ),
    (
        "evaluations: training columns",
        cell(HISTORY, 3, "global_step", "13"),
        "got epoch 4 ends at step 13, want a step of train_steps.csv",
    ),
    ("evaluations: training columns", cell(HISTORY, 1, "train_loss", "1.0"), "got epoch 2: train_loss 1.0, want *"),
    (
        "checkpoints: last",
        both(setting("global_step", 11), setting("status", "completed")),
        "got step of the last checkpoint 12, want 11",
    ),
    ("checkpoints: state", setting("steps_per_epoch", 4), "got steps_per_epoch of the checkpoint 3, want 4"),
    ("checkpoints: state", setting("best.epoch", 4), None),
    ("checkpoints: lengths of the tables", remove(STEPS), "got no train_steps.csv, want * bytes"),
    ("checkpoints: lengths of the tables", truncate_table(STEPS), "got train_steps.csv of 0 bytes, want * bytes"),
    (
        "folder: files",
        both(remove("train.log"), remove("timing.csv")),
        "got no train.log, timing.csv, want all of supernet_training_report.md, train.log, timing.csv, tensorboard, "
        "eval_samples.npz",
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)), ids=lambda i: f"{i} {REFUSALS[i][0]}")
def test_what_is_said_of_a_fault(run, number):
    check, tamper, words = REFUSALS[number]
    tamper(run)
    found = failed(run)
    assert check in found, found
    assert words is None or re.fullmatch(re.escape(words).replace(r"\*", ".*"), found[check]), found[check]


def test_a_shortened_flag_is_no_flag(run):
    with pytest.raises(UserError, match="unknown flag --pat; did you mean --path"):
        main(["--pat", os.path.join(run, "train_manifest.json")])


# ---- a resume that changed a setting (--allow_changed): what came before it followed other values


SINCE = "; not checked before step 6, where a resume changed the settings"
# (check, keys changed, a fault just before the change, the same just after it, what is said without the second)
CHANGED = [
    (
        "steps: learning rate",
        ["train.lr"],
        cell(STEPS, 5, "lr", "0.5"),
        cell(STEPS, 6, "lr", "0.5"),
        "cosine from 0.0001 over 12 steps" + SINCE,
    ),
    ("steps: learning rate", ["train.num_epochs"], cell(STEPS, 5, "lr", "0.5"), cell(STEPS, 6, "lr", "0.5"), None),
    (
        "steps: gradient clip",
        ["train.grad_clip"],
        cell(STEPS, 5, "grad_norm_after", "6.0"),
        cell(STEPS, 6, "grad_norm_after", "6.0"),
        "largest grad_norm_after 4.99995, clip 5.0" + SINCE,
    ),
    (
        "evaluations: training columns",
        ["train.grad_clip"],
        cell(HISTORY, 1, "clip_share", "0.1"),
        cell(HISTORY, 2, "clip_share", "0.1"),
        "4 epochs agree with train_steps.csv",
    ),
    (
        "evaluations: done as configured",
        ["eval.bn_recal_batches"],
        cell(HISTORY, 1, "bn_recal_batches", "7"),
        cell(HISTORY, 2, "bn_recal_batches", "7"),
        "bn_recal_batches=8, 5 samples" + SINCE,
    ),
    (
        "evaluations: done as configured",
        ["eval.num_samples"],
        cell(ARCH, 23, "num_samples", "4"),
        cell(ARCH, 24, "num_samples", "4"),
        None,
    ),
    (
        "evaluations: done as configured",
        ["data.fingerprint"],
        cell(ARCH, 23, "num_samples", "4"),
        cell(ARCH, 24, "num_samples", "4"),
        None,
    ),
    (
        "evaluations: zero flow",
        ["data.holdout"],
        cell(HISTORY, 1, "zero_flow_epe", "9.0"),
        cell(HISTORY, 2, "zero_flow_epe", "9.0"),
        "8.25 px" + SINCE,
    ),
    (
        "evaluations: zero flow",
        ["data.input_height"],
        cell(HISTORY, 1, "zero_flow_epe", "-9.0"),
        cell(HISTORY, 2, "zero_flow_epe", "9.0"),
        None,
    ),
    (
        "evaluations: early stop",
        ["eval.min_delta"],
        cell(HISTORY, 3, "early_stop_wait", "9"),
        None,
        "not checked: a resume changed eval.min_delta",
    ),
    (
        "fairness: gap at every evaluation",
        ["train.supernet_mode"],
        cell(HISTORY, 1, "fairness_gap", "1"),
        None,
        "not checked: strict_fairness mode",
    ),
]


@pytest.mark.parametrize("number", range(len(CHANGED)), ids=lambda i: "{0[0]} {0[1][0]}".format(CHANGED[i]))
def test_what_came_before_a_change_is_not_held_against_the_new_value(run, number):
    check, keys, before, after, words = CHANGED[number]
    assert check not in failed(run)
    before(run)
    assert check in failed(run), "the fault is none"
    resumed(keys)(run)
    assert check not in failed(run)
    assert words is None or said(run)[check] == words
    if after is not None:
        after(run)
        assert check in failed(run)


def test_the_last_of_several_resumes_counts_and_only_if_it_changed_the_key(run):
    cell(STEPS, 7, "lr", "0.5")(run)
    steps = [(3, ["train.lr"]), (8, ["train.lr", "train.wd"]), (9, ["train.wd"])]
    manifest(
        lambda stored: stored.update(
            resumes=[dict(RESUME, time=stored["started"], changed=keys, global_step=at) for at, keys in steps]
        )
    )(run)
    assert said(run)["steps: learning rate"].endswith(
        "; not checked before step 8, where a resume changed the settings"
    )
    assert said(run)["steps: gradient clip"].endswith("clip 5.0")
    assert said(run)["manifest: times and resumes"].endswith(", 3 resumes")


def test_after_a_change_of_the_mode_only_the_sum_of_the_counts_is_known(run):
    def moved(stored):
        stored["counts"]["EB0"][0] += 1
        stored["counts"]["EB0"][1] -= 1
        stored["fairness_gap"] = 2

    counts(moved)(run)
    assert "fairness: counts" in failed(run)
    resumed(["train.arch_seed"])(run)
    assert said(run)["fairness: counts"] == "12 cycles of 3 paths, fairness_gap 2"
    counts(lambda stored: stored["counts"]["EB0"].__setitem__(2, 13))(run)
    assert failed(run)["fairness: counts"].startswith("got sum of counts ")


# ---- the words themselves


def test_long_values_are_shortened_to_160_characters():
    for length, shown in ((160, "x" * 160), (161, "x" * 157 + "...")):
        assert str(Wrong("x" * length, 1)) == f"got {shown}, want 1"


@pytest.mark.parametrize("got, want", [(True, 1), (1, 1.0), ("1", 1), (None, 0), ([1], [True]), ({"a": 1}, {"a": 1.0})])
def test_equal_means_of_the_same_type_too(got, want):
    expect("it", want, want)
    with pytest.raises(Wrong, match="^got it "):
        expect("it", got, want)


def test_close_means_within_float32_and_never_nan():
    for want in (1.0, -1.0, 3e5):
        for share, inside in ((1.9e-6, True), (2.1e-6, False)):
            for sign in (1, -1):
                got = want * (1 + sign * share)
                if inside:
                    expect_close("it", got, want)
                else:
                    with pytest.raises(Wrong, match="^got it "):
                        expect_close("it", got, want)
    expect_close("it", 0.0, 0.0)
    expect_close("it", 0.25, 0.0, absolute=0.25)
    for got, want in ((float("nan"), 1.0), (1.0, float("nan")), (1e-300, 0.0)):
        with pytest.raises(Wrong):
            expect_close("it", got, want)
