"""Gate 3, one cycle: passes, gradient, clip, learning rate, Adam, losses and moving averages.

Compares what a run reports (trace, tables) with independent evidence: Adam's slots and beta powers in its checkpoints,
the data files, and NumPy (`gates/oracles.py`) on the restored weights.
"""

import numpy as np

from gates import dataset, gate3_runs, oracles, recompute, runs, spaces
from gates.asserts import assert_close, assert_equal, assert_le, assert_true, clause
from gates.gate3_runs import EPOCHS, FIRST_EPOCHS, MID_EPOCH_STEP, STEPS
from gates.keys import CHANGED, CHANGED_RUN
from gates.package_objects import (
    applied_gradient_sum,
    flat,
    noise_batch,
    noise_of_norm,
    package_space,
    parts_of_the_network,
    slope,
    training_graph,
)
from gates.recompute import LOSS_FLOAT32
from gates.runs import STEPS_PER_EPOCH

PATHS, FAIR = spaces.chosen().paths, spaces.chosen().fair_codes()
SLOPE = 1e-4  # tolerance of float32 gradients against float64 differences, relative to the norm; measured 2e-5


@clause("G3.1")
def test_trace_shows_three_passes_and_one_step(whole):
    events = runs.trace(whole, "cycle")
    assert_equal(what="cycles traced", got=[event["step"] for event in events], want=list(range(STEPS)))
    for event in events:
        passes = {name: event[name] for name in ("forward", "backward", "optimizer_step")}
        want = {"forward": PATHS, "backward": PATHS, "optimizer_step": 1}  # three each in v1
        assert_equal(got=passes, want=want, step=event["step"])
        assert_equal(what="global_step", got=event["global_step"], want=event["step"] + 1)
        assert_equal(what="losses of paths", got=len(event["path_losses"]), want=PATHS, step=event["step"])
        fair = spaces.chosen().fair(event["codes"])
        assert_true(what="codes", ok=fair, got=event["codes"], want="every option equally often", step=event["step"])


@clause("G3.1b")
def test_step_t_trains_cycle_t_of_arch_seed(whole, resumed, variants):
    """Compares with the package's sequence, whose digest gate 2 checks: for seed 42, across a resume, and for another
    arch_seed."""
    from edgeflownas.nas.fair_sampler import fair_cycle

    for folder, seed in ((whole, 42), (resumed, 42), (variants / "arch_seed", 43)):
        events = runs.trace(folder, "cycle")
        want = [fair_cycle(seed, step, package_space()).tolist() for step in range(len(events))]
        assert_equal(what="codes", got=[event["codes"] for event in events], want=want, run=folder.name)


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
def test_applied_gradient_is_the_mean_of_the_paths(training):
    """Adam's first moment after one step is a tenth of the applied gradient. For each option, the applied gradient's
    slope along a random direction must be that of the mean of the paths' NumPy losses, by finite differences."""
    training.graph.initialize(training.session, 7)
    batch = noise_batch(1)
    weights = {name: value.astype(np.float64) for name, value in training.values(training.graph.trained).items()}
    result, _ = training.cycle(FAIR, batch, 1e-3)
    applied = applied_gradient_sum(training, weights, result, runs.WD)
    parts = parts_of_the_network(weights)
    assert_equal(what="options and the shared part", got=len(parts), want=sum(spaces.chosen().counts) + 1)
    draw = np.random.RandomState(3)
    for part, names in sorted(parts.items()):
        direction = {name: draw.normal(0, 1, weights[name].shape) for name in names}
        want = slope(weights, direction, FAIR, batch)
        norm = np.sqrt(sum(np.sum(applied[name] ** 2) for name in names))
        assert_true(what="gradient of " + part, ok=norm > 0, got=norm, want="more than 0: the part is trained")
        got = sum(np.sum(applied[name] * direction[name]) for name in names)
        assert_close(what="slope of " + part, got=got, want=want, atol=SLOPE * norm, rtol=SLOPE)


@clause("G3.4")
def test_the_paths_see_the_same_batch(data, whole):
    """The traced digests of the batches agree with digests recomputed from the data files."""
    for event in runs.trace(whole, "cycle"):
        want = dataset.read_crops(data, event["batch"]).digest()
        assert_equal(what="digests of the batch", got=event["batches_seen"], want=[want] * PATHS, step=event["step"])


@clause("G3.5")
def test_norm_after_clipping_is_at_most_five(whole, resumed):
    for folder in (resumed, whole):
        after = runs.column(folder / "train_steps.csv", "grad_norm_after")
        assert_equal(what="steps", got=len(after), want=STEPS)
        assert_le(what="grad_norm_after", got=after, want=5.0)
        traced = [event["global_grad_norm_after"] for event in runs.trace(folder, "cycle")]
        assert_le(what="global_grad_norm_after in the trace", got=traced, want=5.0)
    # The gradient that Adam applied between the last two checkpoints.
    (_, earlier), (_, later) = runs.generations(whole)[-2:]
    moments = [runs.adam_slots(runs.tensors(path))[0] for path in (earlier, later)]
    applied = np.linalg.norm(flat(runs.applied_gradient(*moments)))
    assert_le(what="norm of the gradient that Adam got", got=applied, want=5.0, atol=5e-5)
    assert_close(what="norm of the gradient that Adam got", got=applied, want=after[-1], rtol=1e-5)


@clause("G3.6")
def test_clip_gives_the_smaller_norm_and_keeps_the_direction(training):
    graph, session = training
    graph.initialize(session, 7)
    draw = np.random.RandomState(5)
    for size in (0.4, 4.9, 5.1, 300.0):
        weights, first = training.values(graph.trained), training.slots()[0]
        given_gradient = noise_of_norm(draw, weights, size)
        training.load(graph.gradient_sums, given_gradient.values())
        before, after, _, _ = graph.apply(session, 1e-3)
        total = flat(
            {
                name: value + (runs.WD * weights[name].astype(np.float64) if name.endswith("/kernel") else 0)
                for name, value in given_gradient.items()
            }
        )
        applied = flat(runs.applied_gradient(first, training.slots()[0]))
        norm = np.linalg.norm(total)
        assert_close(what="norm before", got=before, want=norm, rtol=1e-5)
        assert_close(what="norm after", got=after, want=min(norm, 5.0), rtol=2e-5, before=norm)
        assert_le(what="norm after", got=after, want=5.0, before=norm)
        assert_close(
            what="norm of what was applied", got=np.linalg.norm(applied), want=min(norm, 5.0), rtol=2e-5, before=norm
        )
        cosine = total @ applied / norm / np.linalg.norm(applied)
        assert_close(
            what="cosine between the gradient and what was applied", got=cosine, want=1.0, atol=1e-6, before=norm
        )


@clause("G3.7a")
def test_learning_rate_follows_the_cosine(whole, midway):
    gate3_runs.assert_on_the_cosine(whole)
    gate3_runs.assert_last_rate(midway / "mid_epoch", MID_EPOCH_STEP)


@clause("G3.7b")
def test_learning_rate_follows_the_cosine_across_a_resume(resumed):
    gate3_runs.assert_on_the_cosine(resumed)


@clause("G3.8")
def test_adam_with_weight_decay_is_numpy_s(training):
    graph, session = training
    graph.initialize(session, 7)
    # Weights so large that decay exceeds rounding. Without a gradient of the loss, Adam gets only 4e-5 times them.
    large = {
        name: np.float32(1e3) * (value + np.float32(1e-3)) for name, value in training.values(graph.trained).items()
    }
    training.load(graph.trained, large.values())
    graph.clear(session)
    norm = graph.apply(session, 1e-3)[0]
    assert_le(what="norm of the decay", got=norm, want=4.9)  # not clipped
    for name, moment in training.slots()[0].items():
        decay = runs.WD if name.endswith("/kernel") else 0.0
        assert_close(
            what="10 m of " + name, got=moment * np.float64(10), want=decay * large[name].astype(np.float64), rtol=1e-5
        )
    graph.initialize(session, 7)
    weights = training.values(graph.trained)
    first = second = {name: np.zeros(value.shape) for name, value in weights.items()}
    for step, lr in enumerate((1e-3, 7e-4, 4e-4)):
        result, _ = training.cycle(FAIR, noise_batch(step), lr)
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


# ---- losses and moving averages, from kept checkpoints


@clause("G3.22a")
def test_every_path_s_loss_is_numpy_s(data, whole, midway, after_three):
    """Checks the steps whose weights are kept, in the first, second, fourth and fifth epoch. The flow of every batch
    exceeds the clip."""
    seen = []
    for folder in (midway / "mid_epoch", after_three, whole):
        for step in recompute.kept_steps(data, folder, whole):
            seen.append(step.event["step"])
            assert_true(
                what="largest flow", ok=np.abs(step.batch.flow).max() > 50, got=0, want="more than the clip of 50 px"
            )
            want = recompute.path_losses(step)
            assert_close(
                what="losses", got=step.event["path_losses"], want=want, rtol=LOSS_FLOAT32, step=step.event["step"]
            )
    assert_true(what="steps looked at", ok=len(set(seen)) > 4, got=sorted(set(seen)), want="more than four")


@clause("G3.22b")
def test_the_loss_columns_are_the_paths_and_the_weights(data, whole, midway):
    table = whole / "train_steps.csv"
    events = runs.trace(whole, "cycle")
    mean = [np.mean(event["path_losses"]) for event in events]
    assert_close(what="loss", got=runs.column(table, "loss"), want=mean, rtol=runs.REAL)
    by_epoch = np.reshape(mean, (EPOCHS, STEPS_PER_EPOCH)).mean(axis=1)
    got = runs.column(whole / "eval_epe_history.csv", "train_loss")
    assert_close(what="train_loss of the epochs", got=got, want=by_epoch, rtol=runs.REAL)
    for folder in (midway / "mid_epoch", whole):
        for step in recompute.kept_steps(data, folder, whole):
            number = step.event["step"]
            want = recompute.decay_term(runs.weights_of(step.before), runs.WD)
            assert_close(
                what="l2_loss", got=runs.column(table, "l2_loss")[number], want=want, rtol=runs.REAL, step=number
            )


@clause("G3.22c")
def test_the_norm_before_the_clip_and_its_share_are_recorded(data, whole, variants):
    """Recomputes the norm |g| as the slope along g / |g|, by finite differences along the applied direction. In one run
    all steps are clipped, in another some.

    Measured difference: 8.5e-4 on TensorFlow 1.15. The applied gradient is computed from float32 slots.
    """
    step = [step for step in recompute.kept_steps(data, whole, whole) if step.after is not None][-1]
    weights = {name: value.astype(np.float64) for name, value in runs.weights_of(step.before).items()}
    first = [runs.adam_slots(stored)[0] for stored in (step.before, step.after)]
    applied = runs.applied_gradient(*first)
    length = np.linalg.norm(flat(applied))
    direction = {name: value / length for name, value in applied.items()}
    decay = sum(
        float(np.sum(runs.WD * weights[name] * value)) for name, value in direction.items() if name.endswith("/kernel")
    )
    want = slope(weights, direction, step.event["codes"], step.batch) + decay
    got = step.event["global_grad_norm_before"]
    assert_close(what="norm before the clip", got=got, want=want, rtol=2e-3, step=step.event["step"])
    for folder, clip in ((whole, runs.CLIP), (variants / "alone", gate3_runs.SOMETIMES_CLIPPED)):
        got = runs.column(folder / "eval_epe_history.csv", "clip_share")
        before = runs.column(folder / "train_steps.csv", "grad_norm_before")[: len(got) * STEPS_PER_EPOCH]
        want = (before.reshape(-1, STEPS_PER_EPOCH) > clip).mean(axis=1)
        assert_close(what="clip_share", got=got, want=want, atol=1e-6, run=folder.name)
    assert_true(what="share of steps clipped", ok=0 < want[0] < 1, got=want, want="some, in the second run")


@clause("G3.39")
def test_moving_averages_keep_nine_tenths(data, whole, midway, changed):
    """Each cycle updates them once, by the mean over the paths that use the layer. An evaluation between two cycles
    does not change them. In the changed run, paths are uniform and run in micro-batches: a layer that no path uses
    keeps its bits. Measured difference: 2e-6."""
    uniform, crop = changed / CHANGED_RUN, (CHANGED["data.input_height"], CHANGED["data.input_width"])
    strict = [(step, 0) for run in (midway / "mid_epoch", whole) for step in recompute.kept_steps(data, run, whole)]
    others = recompute.kept_steps(changed / CHANGED["data.base_path"], uniform, uniform, *crop)
    steps = strict + [(step, CHANGED["train.micro_batch_size"]) for step in others]
    steps, unused = [(step, piece) for step, piece in steps if step.after is not None], 0
    assert_equal(what="steps looked at", got=len(steps), want=3)
    for step, piece in steps:
        for name, want in recompute.moving_averages(step, piece).items():
            if want is step.before[name]:
                unused += 1
                same = step.after[name].tobytes() == want.tobytes()
                assert_true(what=name + ", unused", ok=same, got=step.after[name], want=want)
            atol = 1e-5 * (np.abs(want).max() + 1e-2)
            assert_close(what=name, got=step.after[name], want=want, atol=atol, step=step.event["step"])
    assert_true(what="averages of unused layers", ok=unused > 2, got=unused, want="some, with uniform paths")


@clause("G3.25d")
def test_every_way_to_run_a_cycle_gives_the_same_gradient():
    """Checks the slope along a random direction in all weights for sequential, micro-batches, both, uniform, l1 and
    another flow_clip. A sequential cycle needs one session run per path."""
    uniform = np.stack([FAIR[0], FAIR[0], FAIR[-1]] + [FAIR[1]] * (PATHS - 3))
    ways = (
        ({"train.cycle_mode": "sequential"}, FAIR, 0, {}),
        ({"train.cycle_mode": "sequential", "train.micro_batch_size": 1}, FAIR, 1, {}),
        ({"train.micro_batch_size": 1, "train.loss": "l1"}, FAIR, 1, {"kind": "l1"}),
        ({"train.supernet_mode": "uniform", "data.flow_clip": 0.0}, uniform, 0, {"flow_clip": 0.0}),
    )
    draw = np.random.RandomState(4)
    for settings, codes, piece, how in ways:
        training = training_graph(**settings)
        training.graph.initialize(training.session, 7)
        batch = noise_batch(2)
        weights = {name: value.astype(np.float64) for name, value in training.values(training.graph.trained).items()}
        result, session_runs = training.cycle(codes, batch, 1e-3)
        applied = applied_gradient_sum(training, weights, result, runs.WD)
        direction = {name: draw.normal(0, 1, value.shape) for name, value in weights.items()}
        want = slope(weights, direction, codes, batch, piece, **how)
        got = sum(np.sum(applied[name] * direction[name]) for name in weights)
        norm = np.linalg.norm(flat(applied))
        assert_close(what="slope", got=got, want=want, atol=SLOPE * norm, rtol=SLOPE, settings=settings)
        losses = [oracles.path_loss(weights, code, *batch, piece=piece, **how) for code in codes]
        assert_close(what="losses", got=result.path_losses, want=losses, rtol=LOSS_FLOAT32, settings=settings)
        alone = "sequential" in settings.values() or "uniform" in settings.values()
        least = (PATHS if alone else 1) * (runs.BATCH if piece else 1)
        most = least + 2 + (runs.BATCH if alone and piece else 0)  # each micro-batch of several passes is added up
        runs_in_bounds = least <= session_runs <= most
        assert_true(what="runs of the session", ok=runs_in_bounds, got=session_runs, want=f"{least} to {most}")
        training.session.close()
