"""Gate 3, data: order, crops and seeds of the batches that were fed; and every error for bad data.

The trace has a digest of every batch; `gates/dataset.py` reads the files and recomputes the digests.
"""

import itertools
import re

import numpy as np

from gates import bad_data, dataset, recompute, runs
from gates.asserts import assert_close, assert_contains, assert_equal, assert_true, clause
from gates.commands import assert_succeeded
from gates.runs import BATCH, STEPS_PER_EPOCH
from gates.weights import assert_glorot


def fed(data, folder):
    """[epoch][position] = (name, top, left) of a small run; asserts each batch's digest."""
    events = runs.trace(folder, "cycle")
    for event in events:
        want = dataset.read_crops(data, event["batch"]).digest()
        got = set(event["batches_seen"])
        assert_equal(what="digests of what was fed", got=got, want={want}, step=event["step"], run=folder.name)
    crops = [tuple(crop) for event in events for crop in event["batch"]]
    size = STEPS_PER_EPOCH * BATCH
    return [crops[start : start + size] for start in range(0, len(crops), size)]


@clause("G3.21a")
def test_each_epoch_is_a_new_permutation_of_all_samples(data, samples, whole):
    orders = [[name for name, _, _ in epoch] for epoch in fed(data, whole)]
    for number, order in enumerate(orders):
        assert_equal(what="samples of the epoch", got=sorted(order), want=sorted(samples.train), epoch=number)
    for a, b in itertools.combinations(range(len(orders)), 2):
        assert_true(
            what="orders", ok=orders[a] != orders[b], got=orders[a], want="another in every epoch", epochs=(a, b)
        )
    in_list = [order for order in orders if order in (samples.train, sorted(samples.train))]
    assert_equal(what="orders that are the list's", got=in_list, want=[])


@clause("G3.21b")
def test_crops_reach_every_offset(data, whole):
    """There are 40 crops and 4 x 5 offsets. A correct stream misses a row or a column with a chance below 1e-3, and the
    seed is fixed."""
    crops = [crop for epoch in fed(data, whole) for crop in epoch]
    tops, lefts = sorted({crop[1] for crop in crops}), sorted({crop[2] for crop in crops})
    assert_equal(what="tops", got=tops, want=list(range(dataset.FRAME_HEIGHT - runs.HEIGHT + 1)))
    assert_equal(what="lefts", got=lefts, want=list(range(dataset.FRAME_WIDTH - runs.WIDTH + 1)))
    for name in {crop[0] for crop in crops}:
        own = {crop[1:] for crop in crops if crop[0] == name}
        assert_true(what="corners over the epochs", ok=len(own) > 1, got=own, want="more than one", sample=name)
    for epoch in fed(data, whole):
        corners = {crop[1:] for crop in epoch}
        assert_true(what="corners within an epoch", ok=len(corners) > 2, got=corners, want="not the same for all")


@clause("G3.21c")
def test_incomplete_last_batch_is_dropped(data, samples, variants):
    """Eight samples in batches of three give two steps per epoch, with six different samples."""
    events = runs.trace(variants / "pieces", "cycle")
    assert_equal(what="epochs of the steps", got=[event["epoch"] for event in events], want=[1, 1, 2])
    for event in events:
        want = dataset.read_crops(data, event["batch"]).digest(piece=1)
        assert_equal(what="digests of the pieces", got=set(event["batches_seen"]), want={want}, step=event["step"])
    names = [crop[0] for event in events[:2] for crop in event["batch"]]
    assert_equal(what="different samples in the epoch", got=len(set(names) & set(samples.train)), want=6)


def _first_weights(folder):
    """The initial weights without beta. At a learning rate of 1e-30 the last checkpoint still has them."""
    stored = runs.tensors(runs.prefix(folder, "last"))
    first = {name: value for name, value in runs.weights_of(stored).items() if not name.endswith("/beta")}
    moved = [abs(value).max() for name, value in runs.weights_of(stored).items() if name.endswith("/beta")]
    assert_true(what="largest first beta", ok=max(moved) < 1e-25, got=max(moved), want="0, but for steps of 1e-30")
    return first


@clause("G3.23")
def test_seed_decides_weights_order_and_crops_but_no_codes(data, variants):
    first, other = variants / "first", variants / "seed"
    weights, others = _first_weights(first), _first_weights(other)
    assert_glorot(weights)
    assert_glorot(others)
    same = [name for name in weights if name.endswith("/kernel") and np.array_equal(weights[name], others[name])]
    assert_equal(what="kernels that another seed leaves", got=same, want=[])
    crops, other_crops = fed(data, first)[0], fed(data, other)[0]
    assert_true(what="order", ok=[c[0] for c in crops] != [c[0] for c in other_crops], got="the same", want="another")
    corners, other_corners = [{crop[0]: crop[1:] for crop in one} for one in (crops, other_crops)]
    assert_true(what="corners", ok=corners != other_corners, got="the same", want="others")
    codes = [[event["codes"] for event in runs.trace(folder, "cycle")] for folder in (first, other)]
    assert_equal(what="codes", got=codes[1], want=codes[0])
    pools = [[row["arch_code"] for row in runs.table(folder / "eval_epe_per_arch.csv")] for folder in (first, other)]
    assert_equal(what="pool", got=pools[1], want=pools[0])


@clause("G3.24")
def test_arch_seed_decides_codes_and_pool_but_nothing_else(data, whole, variants):
    first, other = variants / "first", variants / "arch_seed"
    weights, others = _first_weights(first), _first_weights(other)
    different = [name for name in weights if not np.array_equal(weights[name], others[name])]
    assert_equal(what="first weights that another arch_seed changes", got=different, want=[])
    assert_equal(what="crops", got=fed(data, other), want=fed(data, first))
    assert_equal(what="crops of the longer run's first epoch", got=fed(data, first)[0], want=fed(data, whole)[0])
    codes = [[event["codes"] for event in runs.trace(folder, "cycle")] for folder in (first, other, whole)]
    assert_true(what="codes", ok=codes[0] != codes[1], got="the same", want="others")
    assert_equal(what="codes of the longer run's first epoch", got=codes[0], want=codes[2][:STEPS_PER_EPOCH])
    pools = [{row["arch_code"] for row in runs.table(folder / "eval_epe_per_arch.csv")} for folder in (first, other)]
    assert_true(what="pool", ok=pools[0] != pools[1], got="the same", want="another")


# ---- other layouts, and bad data


@clause("G3.36")
def test_folders_are_the_other_layout_of_the_data(data, odd_ends):
    """With train/ and val/ and no lists, a run trains on train/ and scores the centre crops of val/."""
    done = next(done for done in runs.ends(odd_ends) if "--output_dir layout" in done.command)
    assert_succeeded(done)
    folder, source = odd_ends / "layout", odd_ends / "folders"
    trained = [name for event in runs.trace(folder, "cycle") for name, _, _ in event["batch"]]
    names = {
        part: sorted(f"{part}/{path.name[:7]}" for path in (source / part).glob("*.flo")) for part in ("train", "val")
    }
    assert_equal(what="samples of the epoch", got=sorted(trained), want=names["train"])
    assert_equal(what="what was fed", got=len(fed(source, folder)[0]), want=runs.SAMPLES)
    truth = dataset.centre_crops(source, names["val"]).flow
    got = runs.column(folder / "eval_epe_history.csv", "zero_flow_epe")
    assert_close(what="zero-flow EPE of val/", got=got, want=[dataset.zero_flow_epe(truth)], rtol=recompute.EPE_FLOAT32)


def assert_named(case, done):
    """Asserts exit code 2 and an error line that names the file, what was expected and what was found."""
    __tracebackhide__ = True
    assert_equal(what="exit code", got=done.code, want=2, case=case.name, stderr=done.err[-300:])
    line = done.err.strip().splitlines()[-1]
    assert_true(what="error", ok=line.startswith("error: "), got=line, want="a line that begins with `error: `")
    for phrase in (case.file, *case.says):
        assert_contains(what="error", got=line, want=phrase, case=case.name)


def assert_not_begun(folder, case):
    """Asserts that the folder has no file of a run; hidden files belong to the lock."""
    __tracebackhide__ = True
    left = [path.name for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    assert_equal(what="files of a run", got=left, want=[], case=case.name)


@clause("G3.35a")
def test_bad_files_are_found_before_training_starts(bad_starts):
    for case, done in zip(bad_data.AT_START, runs.ends(bad_starts)):
        assert_named(case, done)
        assert_not_begun(bad_starts / "out", case)


@clause("G3.35b")
def test_bad_lists_are_refused(bad_lists):
    for case, done in zip(bad_data.LISTS, runs.ends(bad_lists)):
        assert_named(case, done)


@clause("G3.35c")
def test_verify_data_finds_what_only_decoding_shows(bad_contents):
    for case, done in zip(bad_data.INSIDE, runs.ends(bad_contents)):
        assert_named(case, done)
        assert_not_begun(bad_contents / "verified", case)


@clause("G3.35d")
def test_bad_content_fails_at_its_batch_for_one_reader_and_for_many(whole, bad_contents):
    """Without --verify_data the error is the same with one thread and with eight; no sample replaces a bad one. In a
    run resumed within its second epoch, the error names the bad sample and no other."""
    *ends, begun, resumed = runs.ends(bad_contents)[len(bad_data.INSIDE) :]
    assert_equal(what="runs", got=len(ends), want=2 * len(bad_data.INSIDE))
    for case, one, many in zip(bad_data.INSIDE, ends[::2], ends[1::2]):
        assert_named(case, one)
        said = [done.err.strip().splitlines()[-1] for done in (one, many)]
        assert_equal(what="error with eight threads", got=said[1], want=said[0], case=case.name)
    assert_succeeded(begun)
    bad = bad_data.met_after_resume(whole)
    assert_named(bad_data.Case("met after a resume", bad + bad_data.FLOW, None), resumed)
    named = set(re.findall("train/[0-9]{7}", resumed.err.strip().splitlines()[-1]))
    assert_equal(what="samples that the error names", got=named, want={bad})
