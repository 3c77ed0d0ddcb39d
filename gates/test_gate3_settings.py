"""Gate 3, settings: ways to run a cycle, speed-ups that must change nothing, and one run with every key changed.

`gates/keys.py` has the changed values; `gates/gate3_runs.py` the runs.
"""

import itertools
import json

import numpy as np
import pytest

from gates import dataset, oracles, recompute, runs, spaces
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import assert_succeeded
from gates.gate3_runs import MID_EPOCH_STEP, STANDSTILL
from gates.keys import CHANGED, CHANGED_RUN
from gates.package_objects import flat, slope
from gates.recompute import EPE_FLOAT32, LOSS_FLOAT32

PATHS = spaces.chosen().paths
HISTORY, PER_ARCH = "eval_epe_history.csv", "eval_epe_per_arch.csv"
HEIGHT, WIDTH, PIECE = CHANGED["data.input_height"], CHANGED["data.input_width"], CHANGED["train.micro_batch_size"]
HOW = {"flow_clip": CHANGED["data.flow_clip"], "kind": CHANGED["train.loss"]}


def adam_of(step):
    """Adam's first moment before and after a cycle."""
    return [runs.adam_slots(stored)[0] for stored in (step.before, step.after)]


@clause("G3.25a")
def test_sequential_cycles_train_the_same(data, whole, variants):
    """Codes and batches are those of the fused run; each loss is NumPy's, and close to the fused run's."""
    folder = variants / "sequential"
    events, fused = runs.trace(folder, "cycle"), runs.trace(whole, "cycle")[:MID_EPOCH_STEP]
    for key in ("codes", "batch", "batches_seen", "forward", "backward", "optimizer_step"):
        assert_equal(what=key, got=[event[key] for event in events], want=[event[key] for event in fused])
    for step in recompute.kept_steps(data, folder, folder):
        want = recompute.path_losses(step)
        assert_close(
            what="losses", got=step.event["path_losses"], want=want, rtol=LOSS_FLOAT32, step=step.event["step"]
        )
    losses = [[event["loss"] for event in one] for one in (events, fused)]
    assert_close(what="losses of the steps", got=losses[0], want=losses[1], rtol=1e-3)
    assert_equal(what="first loss", got=losses[0][0] == pytest.approx(losses[1][0], rel=LOSS_FLOAT32), want=True)


@clause("G3.25b")
def test_pieces_of_a_batch_are_normalised_by_themselves(data, variants):
    """With micro-batches of one sample, a path's loss is the mean over the pieces, each with its own BN; one optimizer
    step per cycle."""
    folder = variants / "pieces"
    for event in runs.trace(folder, "cycle"):
        passes = [event[key] for key in ("forward", "backward", "optimizer_step")]
        assert_equal(what="passes and steps", got=passes, want=[PATHS, PATHS, 1], step=event["step"])
        fair = spaces.chosen().fair(event["codes"])
        assert_true(what="codes", ok=fair, got=event["codes"], want="every option equally often", step=event["step"])
    step = next(recompute.kept_steps(data, folder, folder))
    want, whole_batch = recompute.path_losses(step, piece=1), recompute.path_losses(step)
    assert_close(what="losses", got=step.event["path_losses"], want=want, rtol=LOSS_FLOAT32)
    far = np.abs(np.array(whole_batch) / want - 1).max()
    assert_true(what="change by one piece", ok=far > 20 * LOSS_FLOAT32, got=far, want="far more than tolerated")


@clause("G3.25c")
def test_one_code_alone_is_trained_by_the_same_trainer(data, samples, whole, variants):
    """A cycle has one path; variable names and batches are the supernet's; the code's own EPE is scored."""
    folder, space = variants / "alone", spaces.chosen()
    code = space.fair_codes(1)[0].tolist()
    events = runs.trace(folder, "cycle")
    assert_equal(what="codes", got=[event["codes"] for event in events], want=[[code]] * MID_EPOCH_STEP)
    assert_equal(what="forward", got=[event["forward"] for event in events], want=[1] * MID_EPOCH_STEP)
    want = [event["batch"] for event in runs.trace(whole, "cycle")[:MID_EPOCH_STEP]]
    assert_equal(what="batches", got=[event["batch"] for event in events], want=want)
    stored = runs.tensors(runs.prefix(folder, "last"))
    own = {name for name in spaces.expected_variables(space, runs.CHANNELS) if _belongs(name, space, code)}
    got = {
        name for name in stored if name.split("/")[-1] in ("kernel", "gamma", "beta", "moving_mean", "moving_variance")
    }
    assert_equal(what="variables", got=sorted(got), want=sorted(own))
    for step in recompute.kept_steps(data, folder, folder):
        got, want = step.event["path_losses"], recompute.path_losses(step)
        assert_close(what="loss", got=got, want=want, rtol=LOSS_FLOAT32, step=step.event["step"])
    manifest = json.loads((folder / "train_manifest.json").read_text())
    assert_equal(what="digest of the space", got=manifest["search_space"]["digest"], want=space.digest)
    rows = runs.table(folder / PER_ARCH)
    assert_equal(what="scored", got=[row["arch_code"] for row in rows], want=["".join(map(str, code))])
    assert_true(what="mean", ok="mean_epe_1" in runs.table(folder / HISTORY)[0], got="no column", want="mean_epe_1")


def _belongs(name, space, code):
    """Whether the subnet `code` has the variable: a shared one, or one of an option that the code chooses."""
    block = space.block(name.split("/")[1])
    scope = name.split("/")[2]
    if block is None or scope == "bn":
        return True
    return scope == block.scope(code[space.names.index(block.name)])


@clause("G3.26")
def test_fast_mode_threads_and_prefetch_change_no_bit(after_three, variants):
    """Compares three epochs with --fast_mode, one reader thread and one prefetched batch with the plain run. A longer
    run has scalars at every hundredth step."""
    from gates.gate3_runs import assert_same_run

    fast = variants / "fast"
    assert_same_run(fast, after_three)
    steps = [scalar_steps(folder) for folder in (after_three, fast)]
    assert_equal(what="steps with TensorBoard scalars, plain and fast", got=steps, want=[[0, 10], [0]])
    got = scalar_steps(variants / "hundred")
    assert_equal(what="steps with TensorBoard scalars, fast, of 101", got=got, want=[0, 100])


def scalar_steps(folder):
    """The steps for which TensorBoard's events have the loss."""
    from edgeflownas.tfcompat import tf

    found = set()
    for path in (folder / "tensorboard").glob("events.out.tfevents.*"):
        for event in tf.train.summary_iterator(str(path)):
            if any(value.tag == "train/loss" for value in event.summary.value):
                found.add(event.step)
    return sorted(found)


# ---- the run with every key changed


@pytest.fixture(scope="module")
def other(changed):
    """(run folder, data folder, samples in list order)."""
    done = runs.ends(changed)[0]
    assert_succeeded(done)
    data = dataset.found(changed / CHANGED["data.base_path"], changed / CHANGED["data.list_dir"])
    return changed / CHANGED_RUN, data.folder, data.train


def held_out(folder, data, names):
    """The scored validation samples in list order, identified by the recorded zero-flow EPE."""
    recorded = runs.column(folder / HISTORY, "zero_flow_epe")[-1]
    size = CHANGED["eval.num_samples"]
    lengths = [dataset.zero_flow_epe(dataset.centre_crops(data, [name], HEIGHT, WIDTH).flow) for name in names]
    fits = [
        chosen
        for chosen in itertools.combinations(range(len(names)), size)
        if abs(np.mean([lengths[i] for i in chosen]) / recorded - 1) < EPE_FLOAT32
    ]
    assert_equal(what="sets of samples with this zero-flow EPE", got=len(fits), want=1)
    return [names[i] for i in fits[0]]


def trained(folder):
    """Names of the samples that were fed."""
    return sorted({name for event in runs.trace(folder, "cycle") for name, _, _ in event["batch"]})


@clause("G3.27a")
def test_changed_data_keys(other):
    """Checks paths, lists, holdout, crop size and batch size: six samples train, and four of the same list do not."""
    folder, data, names = other
    for event in runs.trace(folder, "cycle"):
        want = dataset.read_crops(data, event["batch"], HEIGHT, WIDTH).digest(PIECE)
        assert_equal(what="digests", got=set(event["batches_seen"]), want={want}, step=event["step"])
        assert_equal(what="samples of a batch", got=len(event["batch"]), want=CHANGED["train.batch_size"])
    scored = held_out(folder, data, names)
    assert_equal(what="training samples", got=len(trained(folder)), want=len(names) - CHANGED["data.holdout"])
    assert_equal(what="training samples that are scored", got=sorted(set(trained(folder)) & set(scored)), want=[])
    want = spaces.expected_variables(spaces.chosen(), CHANGED["network.init_channels"])
    stored = runs.tensors(runs.prefix(folder, "last"))
    got = {name: stored[name].shape for name in want if name in stored}
    assert_equal(what="shapes of the variables", got=sorted(got.items()), want=sorted(want.items()))


@clause("G3.27b")
def test_changed_cycle_keys(other):
    """With uniform paths, micro-batches of one, l1 and another flow_clip, losses and gradient slope are NumPy's."""
    folder, data, _ = other
    codes = [event["codes"] for event in runs.trace(folder, "cycle")]
    fair = [spaces.chosen().fair(one) for one in codes]
    assert_true(what="cycles", ok=not all(fair), got=codes, want="uniform paths, which are rarely fair")
    assert_equal(what="paths of a cycle", got={len(one) for one in codes}, want={PATHS})
    drawn = [len({tuple(code) for code in one}) for one in codes]
    assert_equal(what="different codes in the most varied cycle", got=max(drawn), want=PATHS)
    looked_at = 0
    for step in recompute.kept_steps(data, folder, folder, HEIGHT, WIDTH):
        want = recompute.path_losses(step, PIECE, **HOW)
        assert_close(
            what="losses", got=step.event["path_losses"], want=want, rtol=LOSS_FLOAT32, step=step.event["step"]
        )
        if step.after is None:
            continue
        looked_at += 1
        weights = {name: value.astype(np.float64) for name, value in runs.weights_of(step.before).items()}
        applied = runs.applied_gradient(*adam_of(step))
        scale = step.event["global_grad_norm_before"] / np.linalg.norm(flat(applied))
        draw = np.random.RandomState(9)
        direction = {name: draw.normal(0, 1, value.shape) for name, value in weights.items()}
        decay = sum(CHANGED["train.wd"] * np.sum(weights[n] * direction[n]) for n in weights if n.endswith("/kernel"))
        want = slope(weights, direction, step.event["codes"], step.batch, PIECE, **HOW) + decay
        got = scale * sum(np.sum(applied[name] * direction[name]) for name in weights)
        norm = step.event["global_grad_norm_before"]
        assert_close(what="slope of what Adam got", got=got, want=want, atol=2e-4 * norm)
    assert_equal(what="steps looked at", got=looked_at, want=1)


@clause("G3.27c")
def test_changed_optimisation_keys(other):
    """Checks learning rate, length of the cosine, clip and weight decay by Adam's step between two checkpoints, and by
    the tables."""
    folder, data, names = other
    epochs, total = len(runs.table(folder / HISTORY)), CHANGED["train.num_epochs"] * 2
    want = [oracles.cosine(step, CHANGED["train.lr"], total) for step in range(2 * epochs)]
    assert_close(what="rates", got=runs.column(folder / "train_steps.csv", "lr"), want=want, rtol=runs.REAL)
    step = [step for step in recompute.kept_steps(data, folder, folder, HEIGHT, WIDTH) if step.after is not None][-1]
    number = step.event["step"]
    applied = runs.applied_learning_rate(step.before, step.after, number)
    assert_close(what="rate that Adam applied", got=applied, want=want[number], rtol=1e-3, step=number)
    length = np.linalg.norm(flat(runs.applied_gradient(*adam_of(step))))
    assert_le(what="norm that Adam got", got=length, want=CHANGED["train.grad_clip"], atol=2e-5)
    norms = [runs.column(folder / "train_steps.csv", f"grad_norm_{when}") for when in ("before", "after")]
    clipped = np.minimum(norms[0], CHANGED["train.grad_clip"])
    assert_close(what="norms after the clip", got=norms[1], want=clipped, rtol=2e-5)
    assert_close(what="the last of them", got=length, want=norms[1][number], rtol=2e-5)
    # For kernels of options that no path of the cycle used, Adam's gradient is only the decay, scaled by the clip.
    first, kernels = runs.applied_gradient(*adam_of(step)), _kernels_without_a_path(step)
    assert_true(what="kernels that no path used", ok=len(kernels) > 2, got=kernels, want="some, with uniform paths")
    for name in kernels:
        want = CHANGED["train.wd"] * step.before[name].astype(np.float64) * norms[1][number] / norms[0][number]
        atol = 1e-3 * np.abs(want).max()
        assert_close(what="decay that Adam got for " + name, got=first[name], want=want, atol=atol)
    decay = recompute.decay_term(runs.weights_of(step.before), CHANGED["train.wd"])
    got = runs.column(folder / "train_steps.csv", "l2_loss")[number]
    assert_close(what="l2_loss", got=got, want=decay, rtol=runs.REAL, step=number)


def _kernels_without_a_path(step):
    """The kernels of all options that no code of the cycle chooses."""
    found = []
    for block, taken in zip(spaces.chosen().blocks, zip(*step.event["codes"])):
        for value in set(range(len(block.options))) - set(taken):
            scope = f"supernet/{block.name}/{block.scope(value)}/"
            found += [name for name in step.before if name.startswith(scope) and name.endswith("/kernel")]
    return sorted(found)


@clause("G3.27d")
def test_changed_evaluation_keys(other):
    """Checks six subnets, three BN batches of two, and three samples. The gates do not know the BN batches, so one of
    all ways to pair the six training samples must give the recorded EPEs."""
    folder, data, names = other
    size, batches = CHANGED["eval.batch_size"], CHANGED["eval.bn_recal_batches"]
    rows = [row for row in runs.table(folder / PER_ARCH) if row["epoch"] == runs.table(folder / HISTORY)[-1]["epoch"]]
    assert_equal(what="subnets", got=len({row["arch_code"] for row in rows}), want=CHANGED["eval.pool_size"])
    assert_equal(what="bn_recal_batches", got={row["bn_recal_batches"] for row in rows}, want={str(batches)})
    assert_equal(what="num_samples", got={row["num_samples"] for row in rows}, want={str(CHANGED["eval.num_samples"])})
    weights = recompute.weights_at(runs.prefix(folder, "last"))
    truth = dataset.centre_crops(data, held_out(folder, data, names), HEIGHT, WIDTH)
    fits = list(recompute.matchings(trained(folder), size))
    assert_equal(what="ways to pair the training samples", got=(len(fits), len(fits[0])), want=(15, batches))
    for row in rows[:3]:
        code, recorded = list(map(int, row["arch_code"])), float(row["epe"])
        epe = [_epe(weights, code, data, pairs, truth) for pairs in fits]
        fits = [pairs for pairs, value in zip(fits, epe) if abs(value / recorded - 1) < EPE_FLOAT32]
        closest = min(epe, key=lambda value: abs(value - recorded))
        assert_true(what="pairings that fit the EPE", ok=fits, got=closest, want=f"one with {recorded}", code=code)


def _epe(weights, code, data, batches, truth):
    images = [dataset.centre_crops(data, names, HEIGHT, WIDTH).images for names in batches]
    return recompute.epe(weights, code, images, truth)


@clause("G3.27e")
def test_changed_early_stop_keys(other):
    """No improvement exceeds min_delta, so the run ends two evaluations after the first. The shipped values would not
    end it."""
    folder, _, _ = other
    curve = runs.column(folder / HISTORY, f"mean_epe_{CHANGED['eval.pool_size']}").tolist()
    want = oracles.first_stop(curve, CHANGED["eval.patience"], CHANGED["eval.min_delta"])
    manifest = json.loads((folder / "train_manifest.json").read_text())
    assert_equal(what="end", got=(manifest["status"], len(curve)), want=("early_stopped", want))
    assert_equal(what="evaluations", got=want, want=1 + CHANGED["eval.patience"])
    assert_le(what="evaluations, of epochs scheduled", got=len(curve), want=CHANGED["train.num_epochs"] - 1)
    assert_equal(what="stop by the shipped patience", got=oracles.first_stop(curve, 15, 0.002), want=None)


@clause("G3.28a")
def test_load_checkpoint_starts_from_the_other_run_s_weights(changed):
    """After one step at a learning rate of 1e-30, every weight has the bits of the other run's last checkpoint."""
    assert_succeeded(runs.ends(changed)[1])
    parent, child = changed / CHANGED_RUN, changed / CHANGED["runtime.output_dir"] / "child"
    want, got = [runs.weights_of(runs.tensors(runs.prefix(folder, "last"))) for folder in (parent, child)]
    different = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert_equal(what="weights that are not the other run's", got=different, want=[])
    stored = runs.tensors(runs.prefix(child, "last"))
    assert_equal(what="steps of the new run", got=int(stored["global_step"]), want=1)
    rate = runs.column(child / "train_steps.csv", "lr")[0]
    assert_close(what="rate of the new run's first step", got=rate, want=STANDSTILL["train.lr"], rtol=1e-3)


@clause("G3.28b")
def test_loading_weights_that_do_not_exist_is_an_error(changed):
    done = runs.ends(changed)[2]
    assert_equal(what="exit code", got=done.code, want=2, stderr=done.err[-200:])
    assert_contains(what="error", got=done.err.strip().splitlines()[-1], want="nobody")
    assert_equal(
        what="folder of the run", got=(changed / "nowhere" / "child" / "train_manifest.json").exists(), want=False
    )
