"""Gate 3, several processes: two of them on this machine, on Horovod, as a launcher starts them."""

import json

from gates import dataset, ranks, runs
from gates.asserts import assert_contains, assert_equal, assert_true, clause
from gates.commands import assert_refused, assert_succeeded
from gates.gate3_runs import comparable_state

ONE, FIRST, SECOND, STALLED_0, STALLED_1, KILLED, LEFT, REFUSED_0, REFUSED_1 = range(
    9
)  # the commands of `make_two_ranks`
TABLES = ("eval_epe_history.csv", "eval_epe_per_arch.csv", "train_steps.csv", "fairness_counts.json")


@clause("G3.46a")
def test_two_processes_compute_the_bits_of_one(two_ranks):
    for done in runs.ends(two_ranks)[: SECOND + 1]:
        assert_succeeded(done)
    one, two = two_ranks / "one", two_ranks / "two"
    want = runs.tensors(runs.prefix(one, "last"))
    got = runs.tensors(runs.prefix(two, "last"))
    assert_equal(what="tensors", got=sorted(got), want=sorted(want))
    different = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert_equal(what="tensors that differ", got=different, want=[])
    for name in TABLES:
        assert_equal(what=name, got=(two / name).read_bytes(), want=(one / name).read_bytes())
    states = [comparable_state(runs.generations(folder)[-1][0]) for folder in (two, one)]
    for key in sorted(set(states[1]) - {"lengths"}):
        assert_equal(what="state, " + key, got=states[0].get(key), want=states[1][key])
    recorded = [json.loads((folder / "train_manifest.json").read_text())["ranks"] for folder in (two, one)]
    assert_equal(what="ranks in the manifest", got=recorded, want=[2, 1])


@clause("G3.46b")
def test_a_process_is_fed_its_part(two_ranks):
    """Rank 0, which writes the trace, gets the first half of every batch; the losses of G3.46a are of both halves."""
    events = runs.trace(two_ranks / "two", "cycle")
    assert_equal(what="cycles", got=len(events), want=ranks.STEPS)
    for event in events:
        want = dataset.read_crops(two_ranks / "data", event["batch"][: ranks.PART]).digest()
        assert_equal(what="digests of the part", got=set(event["batches_seen"]), want={want}, step=event["step"])


@clause("G3.46c")
def test_a_process_that_dies_ends_the_other(two_ranks):
    assert_refused(runs.ends(two_ranks)[LEFT], "another rank has ended")
    state, prefix = runs.generations(two_ranks / ranks.RUN)[-1]
    assert_equal(what="step of the last checkpoint", got=state["step"], want=ranks.STEPS)
    assert_equal(what="global_step in it", got=int(runs.tensors(prefix)["global_step"]), want=ranks.STEPS)


@clause("G3.46d")
def test_processes_that_differ_are_refused(two_ranks):
    for done in runs.ends(two_ranks)[REFUSED_0 : REFUSED_1 + 1]:
        assert_refused(done, "train.lr", f"{runs.LR} on rank 0", "1.0 on rank 1")
    left = [path.name for path in (two_ranks / "refused").rglob("*")] if (two_ranks / "refused").exists() else []
    assert_equal(what="files left", got=left, want=[])


@clause("G3.46e")
def test_a_process_that_stalls_is_given_up(two_ranks):
    done = runs.ends(two_ranks)[STALLED_0]
    assert_equal(what="exit code", got=done.code, want=75, stderr=done.err[-300:])
    assert_contains(what="stderr", got=done.err, want=f"within {ranks.TIMEOUT} s (runtime.exchange_timeout)")
    stacks = done.err.count("hread 0x")
    assert_true(what="stacks", ok=stacks > 1, got=stacks, want="that of every thread")
