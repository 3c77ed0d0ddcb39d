"""check_manifest: a consistent run passes, each check fails on a fault planted for it, and nothing makes it crash."""

import json
import os
import subprocess
import sys

import pytest
from pretended_run import write_run
from run_tampering import (
    cell,
    counts,
    edit_json,
    epe_of_a_sample,
    failed,
    flip_a_bit,
    link,
    manifest,
    raise_count,
    read,
    remove,
    rows,
    setting,
    swap_files,
    tie_ranks,
    truncate,
    write,
)

from edgeflownas.checks.check_manifest import CHECKS, main, run_checks
from edgeflownas.errors import UserError

pytest_plugins = ["run_copies"]

HISTORY, ARCH, STEPS = "eval_epe_history.csv", "eval_epe_per_arch.csv", "train_steps.csv"
HASH = "ab" * 32
RESUME = {
    "time": "2001-01-01T00:00:00Z",
    "status_before": "interrupted",
    "global_step": 3,
    "changed": [],
    "command": "x",
    "gates": {},
}


def without_runtime(fields):
    """Takes away what says whether the run states its number of ranks, and the number."""
    fields["config"]["runtime"] = None
    del fields["ranks"]


# (the check that must fail, what is done to the run)
FAULTS = [
    ("manifest: fields", setting("wd", "4e-5")),
    ("manifest: config_hash recomputes", setting("config_hash", HASH)),
    ("manifest: config_hash recomputes", setting("config.train.lr", 0.5)),
    ("manifest: config_hash recomputes", setting("config.train.optimizer", "sgd")),
    ("manifest: config_hash recomputes", manifest(without_runtime)),
    ("manifest: origins of the configuration", manifest(lambda fields: fields["config_origins"].pop("train.lr"))),
    ("manifest: origins of the configuration", setting("config.data.flow_clip", 51.0)),
    ("manifest: agrees with its configuration", setting("seed", 43)),
    ("manifest: agrees with its configuration", setting("arch_seed", 43)),
    ("manifest: agrees with its configuration", setting("input_shape", [67, 83, 3])),
    ("manifest: agrees with its configuration", setting("lr", 0.5)),
    ("manifest: agrees with its configuration", setting("wd", 0.5)),
    ("manifest: agrees with its configuration", setting("grad_clip", 6.0)),
    ("manifest: agrees with its configuration", setting("optimizer", "sgd")),
    ("manifest: agrees with its configuration", setting("lr_schedule", "step")),
    ("manifest: agrees with its configuration", setting("num_epochs", 5)),
    ("manifest: fields", manifest(lambda fields: fields.pop("ranks"))),
    ("manifest: agrees with its configuration", setting("ranks", 0)),
    ("manifest: agrees with its configuration", setting("ranks", 2)),
    ("manifest: agrees with its configuration", setting("ranks", True)),
    ("manifest: steps and epochs", setting("steps_per_epoch", 4)),
    ("manifest: steps and epochs", setting("total_steps", 13)),
    ("manifest: steps and epochs", setting("epoch", 3)),
    ("manifest: steps and epochs", setting("global_step", 13)),
    ("manifest: git commit", setting("git_commit", "unknown")),
    ("manifest: git commit", setting("git_commit", "0" * 40)),
    ("manifest: git commit", setting("git_commit", "0123456789" * 4 + "\n")),
    ("manifest: versions, device, command", setting("versions.tensorflow", "")),
    ("manifest: versions, device, command", setting("device", " ")),
    ("manifest: versions, device, command", setting("command", "")),
    ("manifest: data set", setting("dataset.fingerprint", "5e")),
    ("manifest: data set", setting("dataset.source", "magic")),
    ("manifest: data set", setting("dataset.base_path", "here")),
    ("manifest: network", setting("parameter_count", 12122016)),
    ("manifest: network", setting("search_space.digest", HASH)),
    ("manifest: network", setting("search_space.blocks", [])),
    ("manifest: gates", setting("gates.gate3", "fine")),
    ("manifest: gates", setting("gates.unsigned", "no")),
    ("manifest: status", setting("status", "running late")),
    ("manifest: status", setting("status", "failed")),
    ("manifest: times and resumes", setting("started", "yesterday")),
    ("manifest: times and resumes", setting("updated", "1999-12-31T23:59:59Z")),
    ("manifest: times and resumes", setting("resumes", [RESUME])),
    ("fairness: counts", counts(raise_count)),
    ("fairness: counts", counts(lambda fields: fields.update(cycles=11))),
    ("fairness: counts", counts(lambda fields: fields.update(fairness_gap=1))),
    ("fairness: counts", counts(lambda fields: fields.update(supernet_mode="uniform"))),
    ("fairness: counts", counts(lambda fields: fields["counts"].pop("H2Out"))),
    ("fairness: counts", counts(lambda fields: fields["space"].update(digest=HASH))),
    ("fairness: counts", remove("fairness_counts.json")),
    ("fairness: gap at every evaluation", cell(HISTORY, 1, "fairness_gap", "1")),
    ("steps: none missing, none twice", rows(STEPS, lambda body: body[:5] + body[6:])),
    ("steps: none missing, none twice", rows(STEPS, lambda body: body[:5] + body[4:])),
    ("steps: none missing, none twice", rows(STEPS, lambda body: body[:-1])),
    ("steps: none missing, none twice", cell(STEPS, 4, "epoch", "3")),
    ("steps: learning rate", cell(STEPS, 7, "lr", "0.0001")),
    ("steps: gradient clip", cell(STEPS, 3, "grad_norm_after", "5.000001")),
    ("steps: gradient clip", cell(STEPS, 3, "grad_norm_before", "1.0")),
    ("steps: losses", cell(STEPS, 3, "loss", "nan")),
    ("steps: losses", cell(STEPS, 3, "l2_loss", "-1.0")),
    ("evaluations: pool", remove("eval_pool_12.json")),
    (
        "evaluations: pool",
        lambda folder: edit_json(os.path.join(folder, "eval_pool_12.json"), lambda fields: fields["codes"].reverse()),
    ),
    ("evaluations: none missing, none twice", rows(HISTORY, lambda body: body[:1] + body[2:])),
    ("evaluations: none missing, none twice", rows(HISTORY, lambda body: body[:2] + body[1:])),
    ("evaluations: none missing, none twice", rows(HISTORY, lambda body: body[:1] + body[2:0:-1] + body[3:])),
    ("evaluations: none missing, none twice", rows(HISTORY, lambda body: body[:-1])),
    ("evaluations: none missing, none twice", rows(HISTORY, lambda body: [])),
    ("evaluations: none missing, none twice", cell(HISTORY, 2, "global_step", "8")),
    ("evaluations: none missing, none twice", remove(HISTORY)),
    ("evaluations: done as configured", cell(HISTORY, 2, "bn_recal_batches", "7")),
    ("evaluations: done as configured", cell(ARCH, 20, "bn_recal_batches", "7")),
    ("evaluations: done as configured", cell(ARCH, 20, "num_samples", "4")),
    ("evaluations: subnets and ranks", cell(ARCH, 13, "arch_code", "000001000")),
    ("evaluations: subnets and ranks", rows(ARCH, lambda body: body[:13] + body[14:])),
    ("evaluations: subnets and ranks", rows(ARCH, tie_ranks)),
    ("evaluations: subnets and ranks", cell(ARCH, 13, "rank", "13")),
    ("evaluations: subnets and ranks", cell(ARCH, 13, "space", "edgeflownet_v2:0123456789ab")),
    ("evaluations: subnets and ranks", cell(ARCH, 13, "epoch", "1")),
    ("evaluations: subnets and ranks", cell(ARCH, 13, "global_step", "3")),
    ("evaluations: EPE per sample", epe_of_a_sample(0.01)),
    ("evaluations: EPE per sample", epe_of_a_sample(0.0, last_epoch=3)),
    ("evaluations: EPE per sample", epe_of_a_sample(0.0, best_epoch=2)),
    ("evaluations: mean and std", cell(HISTORY, 1, "mean_epe_12", "6.5001")),
    ("evaluations: mean and std", cell(HISTORY, 1, "std_epe_12", "0.5")),
    ("evaluations: zero flow", cell(HISTORY, 0, "zero_flow_epe", "8.26")),
    ("evaluations: best", cell(HISTORY, 3, "best_mean_epe_12", "5.5")),
    ("evaluations: best", cell(HISTORY, 3, "best_epoch", "4")),
    ("evaluations: best", setting("best.epoch", 4)),
    ("evaluations: best", setting("best.global_step", 12)),
    ("evaluations: best", setting("best.mean_epe", 5.5)),
    ("evaluations: best", setting("best", None)),
    ("evaluations: early stop", cell(HISTORY, 3, "early_stop_wait", "0")),
    ("evaluations: early stop", setting("status", "early_stopped")),
    ("evaluations: training columns", cell(HISTORY, 1, "train_loss", "7.0")),
    ("evaluations: training columns", cell(HISTORY, 1, "lr", "0.0001")),
    ("evaluations: training columns", cell(HISTORY, 1, "grad_norm_before_mean", "7.0")),
    ("evaluations: training columns", cell(HISTORY, 1, "grad_norm_after_max", "1.0")),
    ("evaluations: training columns", cell(HISTORY, 1, "clip_share", "0.5")),
    ("checkpoints: last", truncate("last")),
    ("checkpoints: last", flip_a_bit),
    ("checkpoints: last", swap_files),
    ("checkpoints: last", link("last", "generations/{gens[0]}")),
    ("checkpoints: best", truncate("best")),
    ("checkpoints: names", link("supernet_best.ckpt.index", "last/model.ckpt.index")),
    ("checkpoints: names", link("supernet_last.ckpt.index", "last/best/model.ckpt.index")),
    ("checkpoints: names", link("generations/{gens[1]}/best", ".")),
    ("checkpoints: names", remove("checkpoints/supernet_best.ckpt.data-00000-of-00001")),
    ("checkpoints: state", setting("dataset.fingerprint", HASH)),
    ("checkpoints: state", setting("config.train.wd", 0.1)),
    ("checkpoints: lengths of the tables", rows(STEPS, lambda body: body + ["12,5,0,0,0,0,0"])),
    ("folder: files", remove("supernet_training_report.md")),
    ("folder: files", remove("eval_samples.npz")),
]


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"epochs": 0, "status": "interrupted"},
        {"epochs": 2, "num_epochs": 4, "extra_steps": 1, "status": "interrupted"},
        {"mode": "uniform"},
        {"epochs": 5, "num_epochs": 7, "patience": 2, "status": "early_stopped"},
        {"epochs": 2, "num_epochs": 4, "status": "running"},
        {"epochs": 1, "extra_steps": 2, "status": "failed"},
        {"ranks": 5, "overrides": {"runtime.distributed": True, "train.micro_batch_size": 1}},
    ],
    ids=str,
)
def test_a_consistent_run_passes(tmp_path, details):
    folder = str(write_run(tmp_path, **details))
    assert failed(folder) == {}
    assert main(["--path", os.path.join(folder, "train_manifest.json")]) == 0


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=lambda i: f"{i} {FAULTS[i][0]}")
def test_a_fault_fails_its_check(run, number):
    check, tamper = FAULTS[number]
    tamper(run)
    found = failed(run)
    assert check in found, f"the fault was overlooked; what failed: {found}"
    assert "\n" not in found[check]


def test_every_check_has_a_fault():
    assert {check for check, _ in FAULTS} == {check.name for check in CHECKS}


def test_the_best_checkpoint_of_another_epoch_is_found(run):
    """A whole, verified generation that claims to be best without having the lowest mean."""
    path = os.path.join(run, "eval_epe_history.csv")
    cell(HISTORY, 1, "mean_epe_12", "5.0")(run)
    assert "epoch of the best checkpoint 3, want 2" in failed(run)["checkpoints: best"], read(path)


def test_a_run_that_goes_on_may_be_ahead_of_its_checkpoint(tmp_path):
    folder = str(write_run(tmp_path, epochs=2, num_epochs=4, status="running"))
    last = read(str(tmp_path / STEPS)).splitlines()[-1].split(",")
    rate = 0.5 * 1e-4  # step 6 of 12 is half-way down the cosine
    rows(STEPS, lambda body: body + [",".join(["6", "3", repr(rate)] + last[3:])])(str(tmp_path))
    assert failed(str(tmp_path)) == {}
    setting("status", "interrupted")(str(tmp_path))
    assert {"steps: none missing, none twice", "checkpoints: lengths of the tables"} <= set(failed(folder))


def test_steps_before_an_accepted_change_are_not_held_against_the_new_value(run):
    """Steps before a resume with --allow_changed train.lr followed another learning rate."""
    rates = [line.split(",")[2] for line in read(os.path.join(run, STEPS)).splitlines()[1:]]
    cell(STEPS, 1, "lr", "0.5".ljust(len(rates[1]), "0"))(run)  # the file keeps its length
    assert set(failed(run)) == {"steps: learning rate"}

    def resumed(fields):
        fields["resumes"] = [dict(RESUME, time=fields["started"], changed=["train.lr"])]

    manifest(resumed)(run)
    assert failed(run) == {}
    cell(STEPS, 3, "lr", "0.5".ljust(len(rates[3]), "0"))(run)
    assert set(failed(run)) == {"steps: learning rate"}


def _leaves(value, path=()):
    """Paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield path + (key,)
        yield from _leaves(part, path + (key,))


def _at(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


@pytest.mark.parametrize("wrong", [None, True, -1, "x", [7]], ids=repr)
def test_no_wrong_value_crashes_it(run, wrong):
    """A wrong value in any field of the manifest, however deep, fails a check or is harmless, but never crashes."""
    path = os.path.join(run, "train_manifest.json")
    original = json.loads(read(path))
    for leaf in _leaves(original):
        fields = json.loads(read(path))
        _at(fields, leaf)[leaf[-1]] = wrong
        tampered = os.path.join(run, "tampered.json")
        with open(tampered, "w") as handle:
            json.dump(fields, handle)
        outcomes = run_checks(tampered)
        # Paths, runtime keys and values that only a person can judge may be any text or number. Null is an empty text.
        free = (
            leaf[0] in ("config_origins", "initial_weights")
            or leaf[:2] in (("config", "runtime"), ("config", "data"))
            or leaf
            in (
                ("git_dirty",),
                ("gates", "unsigned"),
                ("device",),
                ("command",),
                ("versions", "platform"),
                ("versions", "edgeflownas"),
                ("dataset", "val"),
            )
        )
        empty = wrong is None and _at(original, leaf)[leaf[-1]] == ""
        if not free and not empty and json.dumps(_at(original, leaf)[leaf[-1]]) != json.dumps(wrong):
            assert not all(outcome.passed for outcome in outcomes), f"{leaf} = {wrong!r} was overlooked"


def test_each_missing_field_is_named(run):
    path = os.path.join(run, "train_manifest.json")
    original = json.loads(read(path))
    required = [name for name in original if name != "initial_weights"]
    assert {"seed", "config_hash", "git_commit", "input_shape", "optimizer", "lr_schedule", "wd", "grad_clip"} < set(
        required
    )
    for name in required:
        write(path, json.dumps({key: value for key, value in original.items() if key != name}))
        assert name in failed(run)["manifest: fields"]
        assert main(["--path", path]) == 1


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "3", '{"seed": NaN}', "\xff", "[" * 100000], ids=lambda text: repr(text)[:12]
)
def test_an_unreadable_manifest_is_one_line_and_exit_code_2(tmp_path, content):
    path = str(tmp_path / "train_manifest.json")
    if content is not None:
        with open(path, "w", encoding="latin-1") as handle:
            handle.write(content)
    with pytest.raises(UserError) as caught:
        main(["--path", path])
    assert "train_manifest.json" in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("table", [HISTORY, ARCH, STEPS])
@pytest.mark.parametrize("content", ["", "x", "a,b\n", "\n", "\0\0\0\n"], ids=repr)
def test_no_damaged_table_crashes_it(run, table, content):
    write(os.path.join(run, table), content)
    assert failed(run)


def test_the_command_prints_a_line_per_check_and_does_not_import_tensorflow(run):
    program = (
        "import sys; from edgeflownas.checks.check_manifest import main; status = main(sys.argv[1:]);"
        "assert 'tensorflow' not in sys.modules; sys.exit(status)"
    )
    remove("train.log")(run)
    done = subprocess.run(
        [sys.executable, "-c", program, "--path", os.path.join(run, "train_manifest.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and not done.stderr
    assert len(lines) == len(CHECKS) + 1
    assert [line.split()[0] for line in lines[:-1]].count("FAIL") == 1
    assert lines[-1].startswith(f"check_manifest FAILED: 1 of {len(CHECKS)} checks")
