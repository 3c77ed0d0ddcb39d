"""Gate 3: training and evaluation loop. Runs as in `gates/chains.py`; single cycles and evaluations in this process.
Their
fixtures are in `gates/conftest.py`.

What a run says of itself (trace, tables) is set against what it cannot help leaving: Adam's slots and powers in its
checkpoints, the data files, and plain NumPy (`gates/oracles.py`) on the restored weights.
"""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflownas import config as configuration
from edgeflownas.engine.early_stop import EarlyStop
from gates import chains, in_process, oracles, runs
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.chains import EPOCHS, FIRST_EPOCHS, MID_EPOCH_STEP, RUN, STEPS, assert_same_run
from gates.commands import ROOT, assert_succeeded
from gates.in_process import FAIR, SCRIPT, SCRIPT_BEST, SCRIPT_PATIENCE, flat, noise_batch, parts_of_the_network, slope
from gates.runs import REAL, STEPS_PER_EPOCH

HISTORY, PER_ARCH = "eval_epe_history.csv", "eval_epe_per_arch.csv"


# ---- the cycle


@clause("G3.1")
def test_trace_shows_three_passes_and_one_step(whole):
    events = runs.trace(whole, "cycle")
    assert_equal(what="cycles traced", got=[event["step"] for event in events], want=list(range(STEPS)))
    for event in events:
        passes = {name: event[name] for name in ("forward", "backward", "optimizer_step")}
        assert_equal(got=passes, want={"forward": 3, "backward": 3, "optimizer_step": 1}, step=event["step"])
        assert_equal(what="global_step", got=event["global_step"], want=event["step"] + 1)
        assert_equal(what="losses of paths", got=len(event["path_losses"]), want=3, step=event["step"])
        options = [sorted(column) for column in zip(*event["codes"])]
        assert_equal(what="options trained", got=options, want=[[0, 1, 2]] * 9, step=event["step"])


@clause("G3.2")
def test_beta_powers_count_the_cycles(whole, resumed, after_three, midway):
    runs_at = [
        (whole, STEPS),
        (resumed, STEPS),
        (after_three, FIRST_EPOCHS * STEPS_PER_EPOCH),
        (midway / "mid_epoch", MID_EPOCH_STEP),
    ]
    for folder, cycles_run in runs_at:
        stored = runs.tensors(runs.prefix(folder, "last"))
        assert_equal(what="rows of train_steps.csv", got=len(runs.table(folder / "train_steps.csv")), want=cycles_run)
        assert_equal(what="global_step", got=int(stored["global_step"]), want=cycles_run)
        for name, beta in (("beta1_power", 0.9), ("beta2_power", 0.999)):
            steps = np.log(float(stored[name])) / np.log(beta) - 1
            assert_close(what="optimizer steps by " + name, got=steps, want=cycles_run, atol=0.01, unit="steps")


@clause("G3.3")
def test_applied_gradient_is_the_mean_of_three_paths(training):
    """Adam's first moment after one step is a tenth of what was applied. Its slope along a random direction in each
    option's
    weights must be the mean of three NumPy losses', one per path, by finite differences."""
    training.graph.initialize(training.session, 7)
    images, flow = noise_batch(1)
    weights = {name: value.astype(np.float64) for name, value in training.values(training.graph.trained).items()}
    result = training.graph.run(training.session, FAIR, images, flow, 1e-3)
    scale = result.grad_norm_before / result.grad_norm_after
    decay = {name: 4e-5 * value if name.endswith("/kernel") else 0.0 for name, value in weights.items()}
    applied = {
        name: moment.astype(np.float64) * 10 * scale - decay[name] for name, moment in training.slots()[0].items()
    }
    parts = parts_of_the_network(weights)
    assert_equal(what="options and the shared part", got=len(parts), want=28)
    draw = np.random.RandomState(3)
    for part, names in sorted(parts.items()):
        direction = {name: draw.normal(0, 1, weights[name].shape) for name in names}
        want = slope(weights, direction, FAIR, images, flow)
        norm = np.sqrt(sum(np.sum(applied[name] ** 2) for name in names))
        assert_true(what="gradient of " + part, ok=norm > 0, got=norm, want="more than 0: the part is trained")
        assert_close(
            what="slope of " + part,
            got=sum(np.sum(applied[name] * direction[name]) for name in names),
            want=want,
            atol=0.01 * norm,
            rtol=0.01,
        )


@clause("G3.4")
def test_the_paths_see_the_same_batch(data, whole, midway):
    """By the digests of what was fed, recomputed from the data files; and by the losses, recomputed by NumPy."""
    for event in runs.trace(whole, "cycle"):
        want = runs.read_crops(data, event["batch"]).digest()
        assert_equal(what="digests of the batch", got=event["batches_seen"], want=[want] * 3, step=event["step"])
    stored = runs.weights_of(runs.tensors(runs.prefix(midway / "mid_epoch", "last")))
    event = runs.trace(whole, "cycle")[MID_EPOCH_STEP]
    batch = runs.read_crops(data, event["batch"])
    for code, got in zip(event["codes"], event["path_losses"]):
        want = oracles.loss(oracles.Network(stored, code).forward(batch.images), batch.flow)
        assert_close(what="loss of the path", got=got, want=want, rtol=1e-3, step=event["step"], code=code)


@clause("G3.5")
def test_norm_after_clipping_is_at_most_five(whole, resumed):
    for folder in (resumed, whole):
        after = runs.column(folder / "train_steps.csv", "grad_norm_after")
        assert_equal(what="steps", got=len(after), want=STEPS)
        assert_le(what="grad_norm_after", got=after, want=5.0)
        traced = [event["global_grad_norm_after"] for event in runs.trace(folder, "cycle")]
        assert_le(what="global_grad_norm_after in the trace", got=traced, want=5.0)
    # What was really applied between the last two checkpoints.
    (_, earlier), (_, later) = runs.generations(whole)[-2:]
    moments = [runs.adam_slots(runs.tensors(path))[0] for path in (earlier, later)]
    applied = np.linalg.norm(flat(runs.applied_gradient(*moments)))
    assert_le(what="norm of the gradient that Adam got", got=applied, want=5.0, atol=1e-3)
    assert_close(what="norm of the gradient that Adam got", got=applied, want=after[-1], rtol=1e-3)


@clause("G3.6")
def test_clip_gives_the_smaller_norm_and_keeps_the_direction(training):
    graph, session = training
    graph.initialize(session, 7)
    draw = np.random.RandomState(5)
    for size in (0.4, 4.9, 5.1, 300.0):
        weights, first = training.values(graph.trained), training.slots()[0]
        given_gradient = in_process.noise_of_norm(draw, weights, size)
        training.load(graph.gradient_sums, given_gradient.values())
        before, after, _, _ = graph.apply(session, 1e-3)
        total = flat(
            {
                name: value + (4e-5 * weights[name].astype(np.float64) if name.endswith("/kernel") else 0)
                for name, value in given_gradient.items()
            }
        )
        applied = flat(runs.applied_gradient(first, training.slots()[0]))
        norm = np.linalg.norm(total)
        assert_close(what="norm before", got=before, want=norm, rtol=1e-5)
        assert_close(what="norm after", got=after, want=min(norm, 5.0), rtol=1e-4, before=norm)
        assert_le(what="norm after", got=after, want=5.0, before=norm)
        assert_close(
            what="norm of what was applied", got=np.linalg.norm(applied), want=min(norm, 5.0), rtol=1e-4, before=norm
        )
        cosine = total @ applied / norm / np.linalg.norm(applied)
        assert_close(
            what="cosine between the gradient and what was applied", got=cosine, want=1.0, atol=1e-6, before=norm
        )


@clause("G3.7a")
def test_learning_rate_follows_the_cosine(whole, midway):
    chains.assert_on_the_cosine(whole)
    chains.assert_last_rate(midway / "mid_epoch", MID_EPOCH_STEP)


@clause("G3.7b")
def test_learning_rate_follows_the_cosine_across_a_resume(resumed):
    chains.assert_on_the_cosine(resumed)


@clause("G3.8")
def test_adam_with_weight_decay_is_numpy_s(training):
    graph, session = training
    graph.initialize(session, 7)
    # Weights at which decay shows beside rounding: with no gradient of the data, all that Adam gets is 4e-5 times them.
    large = {
        name: np.float32(1e3) * (value + np.float32(1e-3)) for name, value in training.values(graph.trained).items()
    }
    training.load(graph.trained, large.values())
    graph.clear(session)
    norm = graph.apply(session, 1e-3)[0]
    assert_le(what="norm of the decay", got=norm, want=4.9)  # not clipped
    for name, moment in training.slots()[0].items():
        decay = 4e-5 if name.endswith("/kernel") else 0.0
        assert_close(
            what="10 m of " + name, got=moment * np.float64(10), want=decay * large[name].astype(np.float64), rtol=1e-5
        )
    graph.initialize(session, 7)
    weights = training.values(graph.trained)
    first = second = {name: np.zeros(value.shape) for name, value in weights.items()}
    for step, lr in enumerate((1e-3, 7e-4, 4e-4)):
        result = graph.run(session, FAIR, *noise_batch(step), lr=lr)
        want = oracles.adam_step(weights, training.values(graph.gradient_sums), first, second, step, lr)
        got = training.values(graph.trained)
        assert_close(
            what="norms",
            got=[result.grad_norm_before, result.grad_norm_after],
            want=[want.norm_before, want.norm_after],
            rtol=1e-4,
            step=step,
        )
        for name in weights:
            moved = np.abs(want.weights[name] - weights[name]).max()
            assert_close(
                what="update of " + name,
                got=got[name] - weights[name].astype(np.float64),
                want=want.weights[name] - weights[name],
                atol=0.01 * moved + 2e-7,
                step=step,
            )
        weights, first, second = got, want.first, want.second


# ---- evaluation


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
def test_statistics_are_the_plain_mean_over_eight_batches(evaluated):
    """Each application's statistics are those of a subnet that uses the layer, and each such subnet's are among
    them."""
    assert_equal(what="batches run for re-estimation", got=evaluated.batches_estimated, want=8)
    for layer, applications in evaluated.used.items():
        plain = [np.concatenate(one[layer]) for one in evaluated.plain_statistics if layer in one]
        used = [np.concatenate(pair).astype(np.float64) for pair in applications]
        far = np.array([[np.abs(got - want).max() / (np.abs(want).max() + 1e-3) for want in plain] for got in used])
        assert_le(what="distance from the nearest plain mean, " + layer, got=far.min(axis=1), want=2e-3)
        assert_le(what="plain mean from the nearest that was used, " + layer, got=far.min(axis=0), want=2e-3)


@clause("G3.10b")
def test_evaluation_leaves_every_variable_as_it_was(evaluated):
    assert_true(what="variables", ok=len(evaluated.before) > 300, got=len(evaluated.before), want="all of them")
    different = [
        i
        for i, (a, b) in enumerate(zip(evaluated.before, evaluated.after))
        if np.asarray(a).tobytes() != np.asarray(b).tobytes()
    ]
    assert_equal(what="variables that an evaluation changed", got=different, want=[])


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
    assert_close(
        what="std_epe_12", got=runs.column(whole / HISTORY, "std_epe_12"), want=epe.std(axis=1), rtol=1e-4, unit="px"
    )


@clause("G3.12")
def test_epe_is_numpy_s(whole, evaluated):
    rows = {row["arch_code"]: float(row["epe"]) for row in runs.table(whole / PER_ARCH) if row["epoch"] == str(EPOCHS)}
    assert_equal(what="codes", got=sorted(rows), want=sorted(evaluated.codes))
    recorded = [rows[code] for code in evaluated.codes]
    assert_close(what="recorded EPE, of this evaluation", got=recorded, want=evaluated.epe, rtol=1e-5, unit="px")
    assert_close(
        what="EPE, of NumPy on the same predictions",
        got=recorded,
        want=evaluated.epe_of_predictions,
        rtol=1e-5,
        unit="px",
    )
    assert_close(
        what="EPE, of NumPy's network on the same weights", got=recorded, want=evaluated.plain_epe, rtol=2e-3, unit="px"
    )


@clause("G3.13a")
def test_pool_is_stratified(whole):
    codes = json.loads((whole / "eval_pool_12.json").read_text())["codes"]
    values = [[int(value) for value in code.split(",")] for code in codes]
    assert_equal(what="distinct codes", got=len(set(codes)), want=12)
    counts = [[column.count(option) for option in range(3)] for column in zip(*values)]
    assert_equal(what="uses of each option", got=counts, want=[[4, 4, 4]] * 9)


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


# ---- resume, and the specification's commands


@clause("G3.16a")
def test_global_step_is_continuous_across_the_resume(resumed, after_three):
    last = FIRST_EPOCHS * STEPS_PER_EPOCH
    before = int(runs.tensors(runs.prefix(after_three, "last"))["global_step"])
    assert_equal(what="global_step at the stop", got=before, want=last)
    assert_equal(
        what="steps", got=runs.column(resumed / "train_steps.csv", "step", int).tolist(), want=list(range(STEPS))
    )
    assert_equal(
        what="global_step in the trace",
        got=[event["global_step"] for event in runs.trace(resumed, "cycle")],
        want=list(range(1, STEPS + 1)),
    )
    assert_equal(
        what="global_step of the epochs",
        got=runs.column(resumed / HISTORY, "global_step", int).tolist(),
        want=[STEPS_PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)],
    )
    after = int(runs.tensors(runs.prefix(resumed, "last"))["global_step"])
    assert_equal(what="global_step at the end", got=after, want=STEPS)
    resumes = json.loads((resumed / "train_manifest.json").read_text())["resumes"]
    assert_equal(what="resumes in the manifest", got=[entry["global_step"] for entry in resumes], want=[last])


@clause("G3.16b")
def test_no_cycle_and_no_batch_is_repeated_or_skipped(whole, resumed):
    want = [(event["codes"], event["batch"], event["batches_seen"]) for event in runs.trace(whole, "cycle")]
    events = runs.trace(resumed, "cycle")
    for event, (codes, batch, digests) in zip(events, want):
        assert_equal(what="codes", got=event["codes"], want=codes, step=event["step"])
        assert_equal(what="batch", got=event["batch"], want=batch, step=event["step"])
        assert_equal(what="digests of what was fed", got=event["batches_seen"], want=digests, step=event["step"])
    assert_equal(what="cycles", got=len(events), want=STEPS)
    for epoch in range(EPOCHS):
        part = events[epoch * STEPS_PER_EPOCH : (epoch + 1) * STEPS_PER_EPOCH]
        names = [name for event in part for name, _, _ in event["batch"]]
        assert_equal(
            what="different samples in the epoch", got=len(set(names)), want=STEPS_PER_EPOCH * runs.BATCH, epoch=epoch
        )
    different = len({str(event["codes"]) for event in events})
    assert_true(what="different cycles", ok=different > STEPS - 2, got=different, want=f"more than {STEPS - 2}")


@clause("G3.17")
def test_resumed_run_equals_the_uninterrupted_one(whole, resumed):
    assert_same_run(resumed, whole)


@clause("G3.18")
def test_run_stopped_in_mid_epoch_equals_the_uninterrupted_one(whole, midway):
    stop, sigterm, last = runs.ends(midway)
    assert_succeeded(stop)
    assert_equal(what="exit code after SIGTERM", got=sigterm.code, want=143, stderr=sigterm.err[-300:])
    assert_succeeded(last)
    at = runs.generations(midway / "mid_epoch")[-1][0]
    assert_equal(
        what="epoch and position of the stop",
        got=divmod(at["step"], STEPS_PER_EPOCH),
        want=divmod(MID_EPOCH_STEP, STEPS_PER_EPOCH),
    )
    assert_true(
        what="position of the stop",
        ok=at["step"] % STEPS_PER_EPOCH and at["evaluations"] == 1,
        got=at["step"],
        want="a step within an epoch",
    )
    assert_same_run(midway / RUN, whole)


@clause("G3.19")
def test_the_three_commands_in_one_folder(commands):
    for done in runs.ends(commands):
        assert_succeeded(done)
    first = commands / "after_train"
    assert_equal(what="cycles of the first command", got=len(runs.trace(first, "cycle")), want=30)
    trained, scored = chains.contents(first), chains.contents(commands / "after_eval")
    assert_equal(what="files that supernet_eval changed", got=chains.differing(trained, scored), want=[])
    archives = list((commands / RUN / "previous").iterdir())
    assert_equal(what="archives", got=len(archives), want=1)
    lost = chains.differing(scored, chains.contents(archives[0]))
    assert_equal(what="what the earlier commands left, lost or changed", got=lost, want=[])
    run = commands / RUN
    assert_equal(what="epochs", got=runs.column(run / HISTORY, "epoch", int).tolist(), want=[1, 2, 3, 4, 5])
    assert_equal(what="steps", got=runs.column(run / "train_steps.csv", "step", int).tolist(), want=list(range(150)))
    assert_equal(what="pool", got=(run / "eval_pool_12.json").exists(), want=True)
    tensors = {which: len(runs.tensors(runs.prefix(run, which))) for which in ("best", "last")}
    assert_true(what="tensors", ok=min(tensors.values()) > 300, got=tensors, want="every tensor of a run, in both")


@clause("G3.20")
def test_supernet_eval_scores_the_pool_and_saves_its_table(commands):
    done, folder = runs.ends(commands)[1], commands / "after_eval"
    assert_succeeded(done)
    rows = runs.table(folder / "subnet_scores.csv")
    trained = runs.table(folder / PER_ARCH)
    assert_equal(
        what="codes", got=sorted(row["arch_code"] for row in rows), want=sorted(row["arch_code"] for row in trained)
    )
    epe = {row["arch_code"]: float(row["epe"]) for row in trained}
    assert_close(
        what="EPE, of the training's own evaluation",
        got=[float(row["epe"]) for row in rows],
        want=[epe[row["arch_code"]] for row in rows],
        rtol=1e-4,
        unit="px",
    )
    assert_equal(what="bn_recal_batches", got=[row["bn_recal_batches"] for row in rows], want=["8"] * 12)
    by_rank = sorted(rows, key=lambda row: int(row["rank"]))
    assert_equal(
        what="ranks",
        got=[row["arch_code"] for row in by_rank],
        want=[row["arch_code"] for row in sorted(rows, key=lambda row: float(row["epe"]))],
    )
    for row in rows:
        line = next((line for line in done.out.splitlines() if "  {}  ".format(row["arch_code"]) in line), "")
        assert_contains(what="line printed", got=line, want="bn_recal_batches=8", code=row["arch_code"])
