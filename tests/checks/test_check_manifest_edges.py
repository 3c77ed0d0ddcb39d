"""check_manifest at its limits: values just allowed pass, values just not allowed fail; and unfinished runs."""

import os

import pytest
from pretended_run import write_run
from run_tampering import RESUME, both, cell, counts, failed, manifest, read, resumed, rows, said, setting, write

from edgeflownas.checks.check_manifest import run_checks
from edgeflownas.errors import UserError

pytest_plugins = ["run_copies"]

HISTORY, ARCH, STEPS = "eval_epe_history.csv", "eval_epe_per_arch.csv", "train_steps.csv"


# ---- just allowed, just not


def test_norms_of_nothing_below_one_and_exactly_the_clip(run):
    for step, (before, after) in enumerate([("0.0", "0.0"), ("0.5", "0.5"), ("5.0", "5.0"), ("6.0", "5.0")]):
        both(cell(STEPS, step, "grad_norm_before", before), cell(STEPS, step, "grad_norm_after", after))(run)
    cell(STEPS, 4, "l2_loss", "0.0")(run)
    assert said(run)["steps: gradient clip"] == "largest grad_norm_after 5.0, clip 5.0"
    assert not {"steps: gradient clip", "steps: losses"} & set(failed(run))


def test_a_norm_of_exactly_the_clip_is_not_clipped(run):
    for step in range(3):
        both(cell(STEPS, step, "grad_norm_before", "5.0"), cell(STEPS, step, "grad_norm_after", "5.0"))(run)
    for name, value in (("grad_norm_before_mean", "5.0"), ("grad_norm_after_max", "5.0"), ("clip_share", "0.0")):
        cell(HISTORY, 0, name, value)(run)
    assert "evaluations: training columns" not in failed(run)


def test_resumes_at_the_first_and_at_the_last_step_and_times_that_rise(run):
    times = [f"2026-01-01T00:00:0{second}Z" for second in range(4)]
    manifest(
        lambda stored: stored.update(
            started=times[0],
            updated=times[3],
            resumes=[dict(RESUME, time=time, global_step=at) for time, at in zip(times[1:3], (0, 12))],
        )
    )(run)
    assert failed(run) == {}
    assert said(run)["manifest: times and resumes"] == "2026-01-01T00:00:00Z to 2026-01-01T00:00:03Z, 2 resumes"
    setting("updated", times[1])(run)
    assert failed(run)["manifest: times and resumes"] == (
        "got resume 2 2026-01-01T00:00:02Z, after updated 2026-01-01T00:00:01Z, want times that rise"
    )


def test_two_subnets_may_have_the_same_epe(run):
    values = [line.split(",")[3:5] for line in read(os.path.join(run, ARCH)).splitlines()[1:13]]
    by_rank = sorted(range(12), key=lambda i: int(values[i][1]))
    cell(ARCH, by_rank[5], "epe", values[by_rank[4]][0])(run)
    assert "evaluations: subnets and ranks" not in failed(run)
    cell(ARCH, by_rank[5], "epe", "0.5")(run)
    assert failed(run)["evaluations: subnets and ranks"].startswith("got epoch 1: EPE by rank [")


@pytest.mark.parametrize(
    "value, words",
    [
        ("0.5", None),
        ("0.0", "got epoch 1: EPE 0.0, want more than 0"),
        ("-0.5", "got epoch 1: EPE -0.5, want more than 0"),
    ],
)
def test_the_best_subnet_has_an_epe_above_zero(run, value, words):
    ranks = [line.split(",")[4] for line in read(os.path.join(run, ARCH)).splitlines()[1:13]]
    cell(ARCH, ranks.index("1"), "epe", value)(run)
    assert failed(run).get("evaluations: subnets and ranks") == words


@pytest.mark.parametrize("off, inside", [(8e-6, True), (-8e-6, True), (3e-5, False), (-3e-5, False)])
def test_a_small_spread_of_large_values_has_their_rounding(run, off, inside):
    std = float(read(os.path.join(run, HISTORY)).splitlines()[1].split(",")[3])
    cell(HISTORY, 0, "std_epe_12", repr(std + off))(run)
    assert ("evaluations: mean and std" not in failed(run)) == inside


@pytest.mark.parametrize("value", ["0.0", "0.5"])
def test_a_flow_of_zeros_may_be_right(run, value):
    both(*[cell(HISTORY, row, "zero_flow_epe", value) for row in range(4)])(run)
    assert "evaluations: zero flow" not in failed(run) and said(run)["evaluations: zero flow"] == value + " px"


def test_the_last_zero_flow_epe_is_the_one_told(run):
    cell(HISTORY, 3, "zero_flow_epe", "8.25001")(run)
    assert said(run)["evaluations: zero flow"] == "8.25001 px"


def test_of_equal_means_the_first_is_the_best(run):
    cell(HISTORY, 3, "mean_epe_12", "5.25")(run)
    assert "evaluations: best" not in failed(run) and "checkpoints: best" not in failed(run)


def test_no_best_before_the_first_evaluation(tmp_path):
    folder = str(write_run(tmp_path, epochs=0, status="interrupted"))
    setting("best", {"epoch": 0, "global_step": 0, "mean_epe": 1.0})(folder)
    assert failed(folder)["evaluations: best"] == 'got best {"epoch": 0, "global_step": 0, "mean_epe": 1.0}, want null'


def test_no_evaluation_after_the_early_stop_unless_the_patience_was_changed(tmp_path):
    folder = str(write_run(tmp_path, epochs=6, num_epochs=7, patience=2, status="early_stopped"))
    assert failed(folder)["evaluations: early stop"] == "got an evaluation of epoch 6, want none after the early stop"
    resumed(["eval.patience"], at=15)(folder)
    assert "evaluations: early stop" not in failed(folder)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff", b"[" * 100000], ids=lambda content: repr(content[:9]))
def test_damaged_counts_are_named(run, content):
    with open(os.path.join(run, "fairness_counts.json"), "wb") as handle:
        handle.write(content)
    assert "fairness_counts.json is damaged, not JSON: " in failed(run)["fairness: counts"]


def test_a_manifest_that_is_not_there_is_named_with_the_reason(tmp_path):
    path = str(tmp_path / "train_manifest.json")
    with pytest.raises(UserError) as caught:
        run_checks(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: No such file or directory; --path wants the train_manifest.json of a run folder"
    )


# ---- a run that goes on


def test_a_running_run_may_be_ahead_of_its_checkpoint_but_not_behind(tmp_path):
    folder = str(write_run(tmp_path, epochs=2, status="running"))
    whole = {name: read(os.path.join(folder, name)) for name in (STEPS, HISTORY, "fairness_counts.json")}
    for table, check, words in (
        (STEPS, "steps: none missing, none twice", "got 5 rows, want 6, as the last checkpoint says"),
        (HISTORY, "evaluations: none missing, none twice", "got 1 rows, want 2, as the last checkpoint says"),
    ):
        rows(table, lambda body: body[:-1])(folder)
        assert failed(folder)[check] == words
        assert (
            f"of {os.path.getsize(os.path.join(folder, table))} bytes, want "
            in failed(folder)["checkpoints: lengths of the tables"]
        )
        write(os.path.join(folder, table), whole[table])
    counts(lambda stored: stored.update(cycles=7))(folder)
    assert failed(folder)["fairness: counts"] == "got cycles 7, want at most the 6 of train_steps.csv"
    write(os.path.join(folder, "fairness_counts.json"), whole["fairness_counts.json"])
    assert failed(folder) == {}
    rows(STEPS, lambda body: body[:-1])(folder)
    assert failed(folder)["checkpoints: last"] == "got step 6, want at most the 5 of the steps' file"


# ---- a resume that has not committed yet: its manifest is ahead of the checkpoint in what it changed


def other_decay(stored):
    """Another weight decay, as after a resume with --allow_changed train.wd."""
    stored["config"]["train"]["wd"] = stored["wd"] = 0.25
    stored["config_origins"]["train.wd"] = "command line"


@pytest.mark.parametrize(
    "changed, status, accepted",
    [
        ([["train.wd"]], "running", True),
        ([["train.wd"]], "failed", True),
        ([["train.wd"]], "interrupted", False),
        ([], "running", False),
        ([["train.lr"]], "running", False),
        ([["train.lr"], ["train.wd"]], "running", True),
        ([["train.wd"], ["train.lr"]], "running", False),
        ([["x"], ["train.wd"], ["train.lr"]], "running", False),
        ([["x"], ["y"], ["train.wd"]], "running", True),
        ([["train.wd"], ["y"], ["z"]], "running", False),
    ],
)
def test_the_checkpoint_may_lack_what_the_last_resume_changed(tmp_path, changed, status, accepted):
    folder = str(write_run(tmp_path, epochs=2, status="running"))
    manifest(
        lambda stored: stored.update(
            status=status,
            resumes=[dict(RESUME, time=stored["started"], changed=keys, global_step=3) for keys in changed],
        )
    )(folder)
    manifest(other_decay)(folder)
    found = failed(folder).get("checkpoints: state")
    assert found == (None if accepted else "got another train.wd in the checkpoint than in the manifest, want the same")
