"""Gate 3, evaluation: re-estimation, EPE, pool, history, early stop, best and last, and `supernet_eval`."""

import itertools
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflownas import config as configuration
from edgeflownas.engine.early_stop import EarlyStop
from gates import dataset, oracles, recompute, runs, spaces
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import ROOT, assert_last_line_refuses, assert_succeeded
from gates.gate3_runs import EPOCHS, FIRST_EPOCHS, RUN
from gates.package_objects import SCRIPT, SCRIPT_BEST, SCRIPT_COLLAPSE, SCRIPT_PATIENCE
from gates.recompute import EPE_FLOAT32
from gates.runs import REAL, STEPS_PER_EPOCH

HISTORY, PER_ARCH = "eval_epe_history.csv", "eval_epe_per_arch.csv"


@clause("G3.9")
def test_every_subnet_logs_eight_batches(whole):
    rows, events = runs.table(whole / PER_ARCH), runs.trace(whole, "subnet")
    assert_equal(what="rows", got=len(rows), want=12 * EPOCHS)
    assert_equal(what="bn_recal_batches in the file", got=sorted({row["bn_recal_batches"] for row in rows}), want=["8"])
    logged = [(event["epoch"], event["arch_code"], event["bn_recal_batches"]) for event in events]
    assert_equal(
        what="subnets in the trace", got=logged, want=[(int(row["epoch"]), row["arch_code"], 8) for row in rows]
    )
    log = [line for line in (whole / "train.log").read_text().splitlines() if "mean EPE of 12 subnets" in line]
    assert_equal(what="evaluations in train.log", got=len(log), want=EPOCHS)
    for line in log:
        assert_contains(what="train.log", got=line, want="bn_recal_batches=8")


@clause("G3.10a")
def test_epe_is_that_of_the_plain_mean_over_eight_batches_of_training_images(whole, samples):
    """Recomputes every subnet's EPE at the last epoch from weights and data files (`gates/recompute.py`). Statistics of
    validation images, or of one batch less, must give another EPE."""
    rows = [row for row in runs.table(whole / PER_ARCH) if row["epoch"] == str(EPOCHS)]
    codes = [row["arch_code"] for row in rows]
    last = runs.prefix(whole, "last")
    want = recompute.pool_epe(samples, last, codes)
    assert_close(what="EPE", got=[float(row["epe"]) for row in rows], want=want, rtol=EPE_FLOAT32, unit="px")
    weights, truth = recompute.weights_at(last), dataset.centre_crops(samples.folder, samples.val)
    for wrong in (samples.val, samples.train[:-1]):
        batches = recompute.one_by_one(samples.folder, wrong)
        far = abs(recompute.epe(weights, list(map(int, codes[0])), batches, truth) / want[0] - 1)
        assert_true(what="change by other samples", ok=far > 20 * EPE_FLOAT32, got=far, want="far more than tolerated")


@clause("G3.10b")
def test_evaluations_leave_no_trace_in_training(after_three, variants):
    """A run whose three evaluations used other subnets, batches and samples has the same bits in every saved tensor."""
    prefixes = runs.prefix(after_three, "last"), runs.prefix(variants / "other_evaluation", "last")
    want, got = map(runs.tensors, prefixes)
    assert_equal(what="tensors", got=sorted(got), want=sorted(want))
    different = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert_equal(what="tensors that differ", got=different, want=[])
    rows = runs.table(variants / "other_evaluation" / PER_ARCH)
    assert_equal(what="rows of another evaluation", got=len(rows), want=6 * FIRST_EPOCHS)


@clause("G3.11a")
def test_every_epoch_writes_its_row(whole):
    rows = runs.table(whole / HISTORY)
    assert_equal(what="epochs", got=[row["epoch"] for row in rows], want=[str(epoch + 1) for epoch in range(EPOCHS)])
    for row in rows:
        values = [float(row[name]) for name in ("mean_epe_12", "std_epe_12")]
        assert_true(
            what="mean and std",
            ok=np.all(np.isfinite(values)) and min(values) > 0,
            got=values,
            want="finite and above 0",
            epoch=row["epoch"],
        )
        assert_equal(what="fairness_gap", got=row["fairness_gap"], want="0", epoch=row["epoch"])


@clause("G3.11b")
def test_mean_and_std_are_those_of_the_subnets(whole):
    epe = runs.column(whole / PER_ARCH, "epe").reshape(EPOCHS, 12)
    means = runs.column(whole / HISTORY, "mean_epe_12")
    assert_close(what="mean_epe_12", got=means, want=epe.mean(axis=1), rtol=REAL, unit="px")
    ranks = runs.column(whole / PER_ARCH, "rank", int).reshape(EPOCHS, 12)
    want = [[1 + sum(other < value for other in row) for value in row] for row in epe]
    assert_equal(what="ranks, 1 the lowest EPE", got=ranks.tolist(), want=want)
    assert_close(
        what="std_epe_12", got=runs.column(whole / HISTORY, "std_epe_12"), want=epe.std(axis=1), rtol=1e-4, unit="px"
    )


@clause("G3.12")
def test_best_checkpoint_is_scored_as_recorded(whole, samples):
    """Compares the EPE of three subnets with NumPy's at the best checkpoint; evaluation must not clip the flow."""
    row = min(runs.table(whole / HISTORY), key=lambda row: float(row["mean_epe_12"]))
    recorded = [one for one in runs.table(whole / PER_ARCH) if one["epoch"] == row["epoch"]][:3]
    truth = dataset.centre_crops(samples.folder, samples.val).flow
    assert_true(what="validation flow", ok=np.abs(truth).max() > 50, got=np.abs(truth).max(), want="beyond the clip")
    want = recompute.pool_epe(samples, runs.prefix(whole, "best"), [one["arch_code"] for one in recorded])
    got = [float(one["epe"]) for one in recorded]
    assert_close(what="EPE at the best checkpoint", got=got, want=want, rtol=EPE_FLOAT32, unit="px", epoch=row["epoch"])


@clause("G3.40")
def test_epe_is_kept_per_sample(whole, scripted, samples):
    """Compares the EPE [subnets, samples], in list order, with NumPy's, for the last and the best evaluation, which
    differ: in a run whose first evaluation is the best, and in one with a new best in each of the first three."""
    best = int(np.argmin(runs.column(whole / HISTORY, "mean_epe_12"))) + 1
    assert_kept_per_sample(whole, samples, EPOCHS, best)
    assert_kept_per_sample(scripted.folder, samples, scripted.evaluations, SCRIPT_BEST)


def assert_kept_per_sample(run, samples, last, best):
    """Asserts eval_epe_samples.npz of a run, given the epochs of its last and best evaluation."""
    __tracebackhide__ = True
    found = np.load(str(run / "eval_epe_samples.npz"), allow_pickle=False)
    pool = pool_of(run)
    assert_equal(what="epochs", got=(int(found["last_epoch"]), int(found["best_epoch"])), want=(last, best))
    assert_equal(what="codes", got=found["codes"].tolist(), want=pool)
    assert_equal(what="samples", got=[str(name) for name in found["names"]], want=samples.val)
    images = recompute.one_by_one(samples.folder, samples.train)
    for which in ("last", "best"):
        assert_equal(what="shape of " + which, got=found[which].shape, want=(12, len(samples.val)))
        weights = recompute.weights_at(runs.prefix(run, which))
        for row in (0, 11):
            want = [
                recompute.epe(weights, pool[row], images, dataset.centre_crops(samples.folder, [name]))
                for name in samples.val
            ]
            assert_close(what=f"EPE of {which}", got=found[which][row], want=want, rtol=EPE_FLOAT32, unit="px", row=row)


@clause("G3.38")
def test_zero_flow_epe_is_the_mean_length_of_the_flow(whole, samples, scores, scripted):
    """The warning of a collapse after learning comes at the third evaluation near zero flow in a row, not before."""
    want = dataset.zero_flow_epe(dataset.centre_crops(samples.folder, samples.val).flow)
    got = runs.column(whole / HISTORY, "zero_flow_epe")
    assert_close(what="zero_flow_epe", got=got, want=[want] * EPOCHS, rtol=EPE_FLOAT32, unit="px")
    got = runs.column(scores / "codes.csv", "zero_flow_epe")
    assert_close(what="zero_flow_epe of the table", got=got, want=[want] * len(got), rtol=EPE_FLOAT32, unit="px")
    assert_equal(what="num_samples", got=sorted(set(runs.column(whole / HISTORY, "num_samples", int))), want=[3])
    warned = [line for line in (whole / "train.log").read_text().splitlines() if "has learned no flow" in line]
    means = runs.column(whole / HISTORY, "mean_epe_12")
    assert_true(
        what="a mean near zero flow's", ok=means[-1] > 0.98 * want, got=means, want="one that must be warned of"
    )
    assert_true(what="warnings", ok=warned, got=warned, want="a supernet that has learned nothing is said to have not")
    zero = runs.column(scripted.folder / HISTORY, "zero_flow_epe")
    assert_close(
        what="zero_flow_epe of the scripted run", got=zero, want=[want] * scripted.evaluations, rtol=EPE_FLOAT32
    )
    near = [epoch for epoch, epe in enumerate(SCRIPT, 1) if 0.98 * want < epe < 1.02 * want]
    assert_equal(what="epochs near zero flow's in the script", got=near[-3:], want=list(range(4, SCRIPT_COLLAPSE + 1)))
    warned = [line.split(":")[0] for line in scripted.warnings if "zero flow" in line]
    assert_equal(what="warnings of a collapse after learning", got=warned, want=[f"epoch {SCRIPT_COLLAPSE}"])


@clause("G3.13a")
def test_pool_is_stratified(whole):
    values = pool_of(whole)
    assert_equal(what="distinct codes", got=len(set(map(tuple, values))), want=12)
    counts = [[column.count(option) for option in range(n)] for column, n in zip(zip(*values), spaces.chosen().counts)]
    want = [[12 // n] * n for n in spaces.chosen().counts]  # four times each in v1
    assert_equal(what="uses of each option", got=counts, want=want)


@clause("G3.13c")
def test_pool_confounds_no_two_blocks(whole):
    """Recomputes Cramer's V of each pair of blocks over the pool."""
    table, squares, missing = np.array(pool_of(whole)), [], 0
    for (a, n), (b, m) in itertools.combinations(enumerate(spaces.chosen().counts), 2):
        seen = np.zeros((n, m))
        np.add.at(seen, (table[:, a], table[:, b]), 1)
        expected = 12 / (n * m)
        squares.append(float(np.sum((seen - expected) ** 2) / expected / 12 / (min(n, m) - 1)))
        missing += int(np.sum(seen == 0))
    pairs = sum(n * m for n, m in itertools.combinations(spaces.chosen().counts, 2))
    if spaces.chosen().name == spaces.DEFAULT:
        assert_equal(what="option pairs", got=pairs, want=324)
    largest_sum, largest_v, most_missing = POOL_DESIGN[spaces.chosen().name]
    assert_le(what="sum of squared V", got=sum(squares), want=largest_sum)
    assert_le(what="largest V", got=np.sqrt(max(squares)), want=largest_v, atol=1e-9)
    assert_le(what="option pairs that no code has", got=missing, want=most_missing)


# Sum of squared V, largest V and missing option pairs that a pool of twelve can reach (measured: 3.375, 0.5, 14 and
# 3.653, 0.5, 21).
POOL_DESIGN = {"edgeflownet_v1": (3.4, 0.5, 19), "edgeflownet_v2": (3.7, 0.5, 24)}


def pool_of(folder):
    """The pool's codes, as lists of integers."""
    codes = json.loads((folder / "eval_pool_12.json").read_text())["codes"]
    return [[int(value) for value in code.split(",")] for code in codes]


@clause("G3.13b")
def test_pool_is_the_same_throughout(whole, resumed, after_three, midway):
    pool = (whole / "eval_pool_12.json").read_bytes()
    for folder in (resumed, after_three, midway / RUN):
        assert_equal(what="pool file", got=(folder / "eval_pool_12.json").read_bytes(), want=pool)
    codes = [code.replace(",", "") for code in json.loads(pool.decode("utf-8"))["codes"]]
    for folder in (whole, resumed):
        scored = [row["arch_code"] for row in runs.table(folder / PER_ARCH)]
        assert_equal(what="codes scored, epoch by epoch", got=scored, want=codes * EPOCHS)


# ---- early stop, best and last


@clause("G3.14")
def test_early_stop_on_simulated_curves(scripted):
    evaluation = configuration.load(str(ROOT / runs.CONFIG), {})[0].eval
    assert_equal(
        what="patience and min_delta shipped", got=(evaluation.patience, evaluation.min_delta), want=(15, 0.002)
    )
    seen = {True: 0, False: 0}
    # Steps of 1/4096 px: exact in binary, below (8) and above (9) the 0.002 of the rule.
    curves = st.lists(st.one_of(st.integers(-9, 4), st.sampled_from([-8, -9, -1, 0, 1])), min_size=10, max_size=60)

    @settings(max_examples=300)
    @given(curves, st.booleans())
    def drawn(moves, slow):
        heights = np.cumsum([0] + [max(move, -1) if slow else move for move in moves])
        curve = [8 + int(height) / 4096 for height in heights]
        counter = EarlyStop(evaluation.patience, evaluation.min_delta)
        got = next((number for number, value in enumerate(curve, 1) if counter.update(value)), None)
        want = oracles.first_stop(curve, 15, 0.002)
        seen[want is not None] += 1
        assert_equal(what="evaluation after which to stop", got=got, want=want, curve=curve)

    drawn()
    assert_true(
        what="curves that stop and that do not", ok=min(seen.values()) > 20, got=seen, want="more than 20 of each"
    )
    assert_equal(
        what=f"a trainer on the curve {SCRIPT}",
        got=(scripted.status, scripted.evaluations),
        want=("early_stopped", oracles.first_stop(SCRIPT, SCRIPT_PATIENCE, 0.002)),
    )


@clause("G3.15a")
def test_best_and_last_restore_with_a_plain_saver(whole, scripted):
    for folder in (whole, scripted.folder):
        for which in ("best", "last"):
            got = runs.restored_by_plain_saver(runs.prefix(folder, which))
            assert_equal(what="tensors restored from " + which, got=sorted(got), want=sorted(scripted.weights[0]))
            bad = [name for name, value in got.items() if not np.all(np.isfinite(value))]
            assert_equal(what="tensors that are not finite in " + which, got=bad, want=[])


@clause("G3.15b")
def test_best_and_last_belong_to_the_right_epochs(whole, scripted):
    for which, epoch in (("best", SCRIPT_BEST), ("last", scripted.evaluations)):
        stored, want = runs.tensors(runs.prefix(scripted.folder, which)), scripted.weights[epoch - 1]
        different = [name for name in want if not np.array_equal(stored[name], want[name])]
        assert_equal(what=f"tensors of {which} unlike those of epoch {epoch}", got=different, want=[])
    means = runs.column(whole / HISTORY, "mean_epe_12")
    for which, epoch in (("best", int(np.argmin(means)) + 1), ("last", EPOCHS)):
        step = int(runs.tensors(runs.prefix(whole, which))["global_step"])
        assert_equal(what="global_step of " + which, got=step, want=epoch * STEPS_PER_EPOCH, means=means.tolist())


# ---- supernet_eval


@clause("G3.37a")
def test_supernet_eval_scores_the_codes_that_it_is_given(whole, samples, scores):
    """The EPEs for --codes and --codes_file are NumPy's at the requested checkpoint, best or last."""
    for done in runs.ends(scores)[:5]:
        assert_succeeded(done)
    codes = ["".join(map(str, code)) for code in spaces.chosen().fair_codes(4)[:2]]
    best, last = [int(runs.tensors(runs.prefix(whole, which))["global_step"]) for which in ("best", "last")]
    assert_true(what="steps of best and last", ok=best != last, got=(best, last), want="two, else this proves nothing")
    for name, which in (("codes.csv", "best"), ("file.csv", "last")):
        rows = {row["arch_code"]: float(row["epe"]) for row in runs.table(scores / name)}
        assert_equal(what="codes", got=sorted(rows), want=sorted(codes), table=name)
        want = recompute.pool_epe(samples, runs.prefix(whole, which), codes)
        got = [rows[code] for code in codes]
        assert_close(what=f"EPE of {which}", got=got, want=want, rtol=EPE_FLOAT32, unit="px", table=name)


@clause("G3.37b")
def test_supernet_eval_scores_random_codes(whole, samples, scores):
    rows, others = [runs.table(scores / name) for name in ("random.csv", "other.csv")]
    codes = [row["arch_code"] for row in rows]
    assert_equal(what="distinct codes", got=len(set(codes)), want=3)
    assert_true(
        what="codes of another seed", ok=set(codes) != {row["arch_code"] for row in others}, got=codes, want="others"
    )
    counts = spaces.chosen().counts
    valid = [len(code) == len(counts) and all(int(v) < n for v, n in zip(code, counts)) for code in codes]
    assert_true(what="codes", ok=all(valid), got=codes, want="codes of the space")
    want = recompute.pool_epe(samples, runs.prefix(whole, "last"), codes[:1])[0]
    assert_close(what="EPE", got=float(rows[0]["epe"]), want=want, rtol=EPE_FLOAT32, unit="px", code=codes[0])
    assert_equal(what="bn_recal_batches asked for", got={row["bn_recal_batches"] for row in others}, want={"3"})


@clause("G3.37c")
def test_supernet_eval_scores_the_pool_of_the_last_checkpoint(whole, scores):
    rows = {row["arch_code"]: float(row["epe"]) for row in runs.table(scores / "pool.csv")}
    recorded = [row for row in runs.table(whole / PER_ARCH) if row["epoch"] == str(EPOCHS)]
    got, want = [rows.get(row["arch_code"], 0) for row in recorded], [float(row["epe"]) for row in recorded]
    assert_close(what="EPE of the pool", got=got, want=want, rtol=runs.REAL, unit="px")


@clause("G3.37d")
def test_a_table_has_rows_of_one_kind_only(scores):
    """A second command on a table is refused unless checkpoint, settings and data are those of its rows. The refusal
    names each that differs. The first command again scores nothing."""
    other, same = runs.ends(scores)[5:]
    steps = [int(runs.tensors(runs.prefix(scores / "run", which))["global_step"]) for which in ("best", "last")]
    differing = (
        ("checkpoint.global_step", *steps),
        ("settings.bn_recal_batches", 8, 3),
        ("settings.num_samples", 0, 2),  # 0: all
        ("settings.batch_size", 1, 2),
    )
    words = [f"{name} {there} there, {now} now" for name, there, now in differing]
    assert_last_line_refuses(other, *words, "dataset.other_data")
    assert_succeeded(same)
    assert_contains(what="the first command again", got=same.out, want="2 of 2 codes are in codes.csv already")
    rows = [(row["bn_recal_batches"], row["num_samples"]) for row in runs.table(scores / "codes.csv")]
    assert_equal(what="BN batches and samples of the rows", got=rows, want=[("8", "3")] * 2)
