"""Gate 3, stops and resumes: exact continuation after every kind of stop; what is refused; the three commands."""

import itertools
import json
import math
import signal
import threading

import numpy as np

from gates import gate3_runs, runs, spaces
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import assert_last_line_refuses, assert_succeeded
from gates.gate3_runs import EPOCHS, FIRST_EPOCHS, MID_EPOCH_STEP, OTHER_DATA, RUN, STEPS, assert_same_run
from gates.package_objects import noise_batch
from gates.runs import STEPS_PER_EPOCH

HISTORY, PER_ARCH = "eval_epe_history.csv", "eval_epe_per_arch.csv"


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
    assert_equal(what="cycles", got=len(events), want=STEPS)
    for event, (codes, batch, digests) in zip(events, want):
        assert_equal(what="codes", got=event["codes"], want=codes, step=event["step"])
        assert_equal(what="batch", got=event["batch"], want=batch, step=event["step"])
        assert_equal(what="digests of what was fed", got=event["batches_seen"], want=digests, step=event["step"])
    different = len({str(event["codes"]) for event in events})
    assert_true(what="different cycles", ok=different > STEPS - 2, got=different, want=f"more than {STEPS - 2}")


@clause("G3.17")
def test_resumed_run_equals_the_uninterrupted_one(whole, resumed):
    assert_same_run(resumed, whole)


@clause("G3.18")
def test_run_stopped_in_mid_epoch_equals_the_uninterrupted_one(whole, midway):
    stop, _, sigterm, last = runs.ends(midway)
    assert_succeeded(stop)
    assert_equal(what="exit code after SIGTERM", got=sigterm.code, want=143, stderr=sigterm.err[-300:])
    assert_succeeded(last)
    at = runs.generations(midway / "mid_epoch")[-1][0]["step"]
    assert_equal(what="step of the stop, within an epoch", got=at, want=MID_EPOCH_STEP)
    assert_true(what="position in the epoch", ok=at % STEPS_PER_EPOCH, got=at % STEPS_PER_EPOCH, want="not its start")
    assert_same_run(midway / RUN, whole)


@clause("G3.19")
def test_the_three_commands_in_one_folder(commands):
    for done in runs.ends(commands):
        assert_succeeded(done)
    first = commands / "after_train"
    assert_equal(what="cycles of the first command", got=len(runs.trace(first, "cycle")), want=30)
    trained, scored = gate3_runs.contents(first), gate3_runs.contents(commands / "after_eval")
    assert_equal(what="files that supernet_eval changed", got=gate3_runs.differing(trained, scored), want=[])
    archives = list((commands / RUN / "previous").iterdir())
    assert_equal(what="archives", got=len(archives), want=1)
    lost = gate3_runs.differing(scored, gate3_runs.contents(archives[0]))
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
        rtol=runs.REAL,
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


# ---- kills, signals, damage


@clause("G3.29")
def test_kill_9_costs_only_what_was_not_committed(whole, midway):
    """The killed run had rows after its checkpoint, and the resume cut them back. Later rows are those of `whole`."""
    killed = midway / "killed"
    assert_equal(what="exit code", got=runs.ends(midway)[1].code, want=-9)
    committed = runs.generations(killed)[-1][0]["step"]
    assert_equal(what="step of the checkpoint", got=committed, want=MID_EPOCH_STEP)
    rows = len(runs.table(killed / "train_steps.csv"))
    assert_true(what="rows written when the kill came", ok=rows > committed, got=rows, want=f"more than {committed}")
    for which in ("last", "best"):
        stored = runs.restored_by_plain_saver(runs.prefix(killed, which))
        assert_true(what=f"tensors of {which}", ok=len(stored) > 300, got=len(stored), want="all of a run's")
    resumes = json.loads((midway / RUN / "train_manifest.json").read_text())["resumes"]
    at = [entry["global_step"] for entry in resumes]
    assert_equal(what="steps from which it went on", got=at[:2], want=[MID_EPOCH_STEP, MID_EPOCH_STEP])
    for name in ("train_steps.csv", "debug_trace.jsonl", HISTORY, PER_ARCH):
        got, want = [(folder / name).read_text() for folder in (midway / RUN, whole)]
        assert_equal(what=f"{name} at the end, line by line", got=got.splitlines(), want=want.splitlines())


@clause("G3.30")
def test_each_signal_commits_and_has_its_exit_code(midway, signalled):
    """The exit codes are 143, 130 and 138; for two signals, that of either. The run does not go on to the end of its
    epoch. Checkpoint, tables, counts and manifest are at the same step. A second signal asks for the same stop, except
    a second SIGINT."""
    stops = (
        (runs.ends(midway)[2], midway / "terminated", (143,), STEPS_PER_EPOCH),
        (runs.ends(signalled)[1], signalled / "after_130", (130,), runs.SAMPLES),
        (runs.ends(signalled)[2], signalled / "after_138", (138,), runs.SAMPLES),
        (runs.ends(signalled)[3], signalled / "two_signals", (138, 143), runs.SAMPLES),
    )
    for done, folder, codes, steps in stops:
        name = folder.name
        assert_true(what="exit code", ok=done.code in codes, got=done.code, want=f"{codes}", stderr=done.err[-300:])
        step, seen = len(runs.table(folder / "train_steps.csv")), int((folder.parent / f"{name}.rows").read_text())
        assert_true(what="rows at the signal", ok=runs.far_from_its_end(seen, steps), got=seen, want="far from the end")
        assert_le(what="rows after the signal", got=step - seen, want=runs.SOON, stop=name)
        stored = runs.tensors(runs.prefix(folder, "last"))
        assert_equal(what="step of the checkpoint", got=int(stored["global_step"]), want=step, stop=name)
        assert_equal(what="cycles in the trace", got=len(runs.trace(folder, "cycle")), want=step, stop=name)
        manifest = json.loads((folder / "train_manifest.json").read_text())
        got = (manifest["status"], manifest["global_step"])
        assert_equal(what="status and step in the manifest", got=got, want=("interrupted", step), stop=name)
        assert_counts(folder, step, 1 if name == "two_signals" else spaces.chosen().paths)
    after = [event["step"] for event in runs.trace(signalled / "after_138", "cycle")]
    assert_equal(what="steps across the resume", got=after, want=list(range(len(after))))
    pairs = set(itertools.product(STOPS, repeat=2)) - {(signal.SIGINT, signal.SIGINT)}
    ended = {pair: after_signals(pair) for pair in sorted(pairs)}
    wrong = {pair: code for pair, code in ended.items() if code not in [128 + number for number in pair]}
    assert_equal(what="pairs of signals that do not stop as one does", got=wrong, want={})


STOPS = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)


def after_signals(numbers):
    """The exit code that the package's handlers ask for after these signals to this thread; or the exception."""
    from edgeflownas.engine.signals import StopSignals

    with StopSignals() as stop:
        try:
            for number in numbers:
                signal.pthread_kill(threading.main_thread().ident, number)
        except KeyboardInterrupt as error:
            return repr(error)
        return stop.exit_code


def assert_counts(folder, cycles, paths):
    """Asserts fairness_counts.json of a run that was stopped at any step; with one path, each block has one option."""
    __tracebackhide__ = True
    recorded = json.loads((folder / "fairness_counts.json").read_text())
    blocks = [(block.name, 1 if paths == 1 else len(block.options)) for block in spaces.chosen().blocks]
    want = {name: [cycles * paths // options] * options for name, options in blocks}
    assert_equal(what="cycles counted", got=recorded["cycles"], want=cycles, folder=folder.name)
    assert_equal(what="counts", got=recorded["counts"], want=want, folder=folder.name)
    assert_equal(what="fairness_gap", got=recorded["fairness_gap"], want=0, folder=folder.name)


@clause("G3.31")
def test_damaged_newest_checkpoint_falls_back_with_a_warning(whole, odd_ends):
    done = runs.end_of(odd_ends, "damaged")
    assert_succeeded(done)
    newest = runs.generations(whole)[-1][1].split("/")[-2]
    assert_contains(what="warning", got=done.err, want=newest)
    resumes = json.loads((odd_ends / "damaged" / "train_manifest.json").read_text())["resumes"]
    assert_equal(what="step of the checkpoint used", got=resumes[-1]["global_step"], want=STEPS - 1)
    assert_same_run(odd_ends / "damaged", whole)


# ---- what a resume refuses


@clause("G3.32a")
def test_nothing_to_resume_from_is_an_error(odd_ends):
    """Neither with no checkpoint nor with only damaged ones does --resume start a new run."""
    assert_last_line_refuses(runs.end_of(odd_ends, "nothing"), "no checkpoint to go on from", "nothing")
    left = [path for path in (odd_ends / "nothing").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert_equal(what="files left", got=[str(path) for path in left], want=[])
    assert_last_line_refuses(runs.end_of(odd_ends, "ruined"), "no checkpoint to go on from", "checksum")
    assert_equal(what="steps", got=len(runs.table(odd_ends / "ruined" / "train_steps.csv")), want=STEPS)


@clause("G3.32b")
def test_changed_training_maths_is_refused_with_the_keys(odd_ends):
    words = (
        "train.wd was 4e-05, is 0.5",
        "train.grad_clip was 5.0, is 3.0",
        "--allow_changed train.wd,train.grad_clip",
    )
    assert_last_line_refuses(runs.end_of(odd_ends, "finished", 2), *words)


@clause("G3.32c")
def test_other_data_is_refused(odd_ends):
    """Data that differ in one thing only are refused: layout, order, samples, split, size. The same data elsewhere are
    not."""
    assert_succeeded(runs.end_of(odd_ends, "finished", 1))
    for number, _ in enumerate(("layout", *OTHER_DATA), 3):
        assert_last_line_refuses(runs.end_of(odd_ends, "finished", number), "data.fingerprint")
    scored = runs.end_of(odd_ends, "finished", number + 1)
    assert_last_line_refuses(scored, "trained on other samples", "--other_data")


@clause("G3.32d")
def test_resuming_a_finished_run_does_no_step_and_says_so(odd_ends):
    first, again = runs.end_of(odd_ends, "finished"), runs.end_of(odd_ends, "finished", 1)
    assert_succeeded(first)
    assert_succeeded(again)
    assert_contains(what="log", got=again.err, want="nothing to do")
    folder = odd_ends / "finished"
    assert_equal(what="steps", got=len(runs.table(folder / "train_steps.csv")), want=STEPS_PER_EPOCH)
    assert_equal(what="evaluations", got=len(runs.table(folder / HISTORY)), want=1)
    status = json.loads((folder / "train_manifest.json").read_text())["status"]
    assert_equal(what="status", got=status, want="completed")


@clause("G3.33")
def test_second_run_on_a_folder_is_refused(signalled):
    """The second run starts while the first one is paused."""
    second = runs.ends(signalled)[0]
    assert_last_line_refuses(second, "outputs/supernet")
    steps = runs.column(signalled / "after_130" / "train_steps.csv", "step", int).tolist()
    assert_equal(what="steps of the first run", got=steps, want=list(range(len(steps))))
    assert_equal(what="archives", got=(signalled / RUN / "previous").exists(), want=False)


# ---- what is not finite


@clause("G3.34a")
def test_non_finite_loss_ends_the_run_ahead_of_the_weights(odd_ends):
    """At a learning rate of 1e30 the loss of the first step is finite, and that of the second is not."""
    done, folder = runs.end_of(odd_ends, "diverging"), odd_ends / "diverging"
    assert_equal(what="exit code", got=done.code, want=1, stderr=done.err[-300:])
    line = done.err.strip().splitlines()[-1]
    for phrase in ("error: step 1: ", "not finite", "samples train/"):
        assert_contains(what="the error", got=line, want=phrase)
    losses = runs.column(folder / "train_steps.csv", "loss")
    assert_true(what="losses recorded", ok=len(losses) == 1 and np.isfinite(losses[0]), got=losses, want="one, finite")
    stored = runs.restored_by_plain_saver(runs.prefix(folder, "last"))
    assert_equal(what="step of the last checkpoint", got=int(stored["global_step"]), want=1)
    bad = [name for name, value in stored.items() if not np.all(np.isfinite(value))]
    assert_equal(what="tensors that are not finite", got=bad, want=[])
    manifest = json.loads((folder / "train_manifest.json").read_text())
    assert_equal(what="status", got=manifest["status"], want="failed")


@clause("G3.34b")
def test_non_finite_loss_or_gradient_leaves_every_variable(training):
    """Tests the graph itself, with a NaN in the flow and with an infinite gradient sum."""
    from edgeflownas.errors import RunFailed

    graph, session = training.graph, training.session
    graph.initialize(session, 7)
    images, flow = noise_batch(1)
    flow[0, 5, 7, 1] = math.nan
    before = training.everything()
    said = []
    for poison in ("loss", "gradient"):
        try:
            if poison == "loss":
                graph.run(session, spaces.chosen().fair_codes(), images, flow, 1e-3)
            else:
                graph.clear(session)
                sums = {name: np.zeros_like(value) for name, value in training.values(graph.trained).items()}
                sums[sorted(sums)[3]].flat[0] = math.inf
                training.load(graph.gradient_sums, sums.values())
                graph.apply(session, 1e-3)
            said.append(f"{poison}: no error")
        except RunFailed as error:
            said.append(str(error)[:40])
        after = training.everything()
        different = [name for name in before if before[name].tobytes() != after[name].tobytes()]
        assert_equal(what="variables that changed", got=different, want=[], not_finite=poison)
    for poison, text in zip(("the loss is not finite", "the gradient is not finite"), said):
        assert_contains(what="error", got=text, want=poison)
