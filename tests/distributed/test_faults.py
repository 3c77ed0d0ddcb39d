"""What happens to one rank only: all stop together, or the others end in seconds, with the last commit good."""

import os
import shutil
import signal

import pytest

from tests.distributed.crew import left
from tests.reliability import tiny
from tests.reliability.snapshot import differences, snapshot
from tests.reliability.test_signals import contents

WITHIN = 10.0  # seconds in which the others end
EVERY_STEP = ("--save_every_steps", "1")


def test_a_signal_to_one_rank_stops_all_at_the_same_step(two, reference, tmp_path):
    """In a cycle and in an evaluation, whichever rank gets it; then the run goes on to the same bits."""
    ended = two.runs(
        [
            two.one(tmp_path, plants={1: [("signal_at_cycle", 1, signal.SIGTERM)]}),
            two.one(tmp_path, "--resume", plants={1: [("signal_at_cycle", 4, signal.SIGINT)]}),
            two.one(tmp_path, "--resume", plants={0: [("signal_in_evaluation", 2, signal.SIGUSR1)]}),
            two.one(tmp_path, "--resume"),
        ]
    )
    assert [[outcome.code for outcome in rank] for rank in ended.outcomes] == [[143, 130, 138, 0]] * 2, ended
    stops = [outcome.stderr.strip().splitlines()[-1] for outcome in ended.outcomes[0][:3]]
    assert [line.split(", committed")[0] for line in stops] == [
        "stopped by SIGTERM after step 2",
        "stopped by Ctrl-C (SIGINT) after step 5",
        "stopped by SIGUSR1 after step 7",  # there was no round of the evaluation left to stop at
    ]
    assert differences(left(tmp_path), reference) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_not_finite_on_one_rank_stops_all(two, reference, tmp_path, rank):
    ended = two.runs([two.one(tmp_path, plants={rank: [("nan_at_cycle", 4)]}), two.one(tmp_path, "--resume")])
    for failed, resumed in ended.outcomes:
        assert failed.code == 1 and "step 4: the loss is not finite" in failed.error
        assert "the checkpoint of step 3 is good" in failed.error
        assert resumed.code == 0
    assert differences(left(tmp_path), reference) == []


# The victim, the step of the last checkpoint, and how it dies.
KILLS = {
    "training": (1, 4, ("signal_at_cycle", 4, signal.SIGKILL)),
    "exchange": (1, 4, ("kill_in_exchange", 19)),  # that of the fifth cycle
    "evaluation": (0, 6, ("signal_in_evaluation", 2, signal.SIGKILL)),
    "commit": (0, 2, ("kill_in_commit", 3)),
}


@pytest.mark.parametrize("where", KILLS)
def test_a_rank_that_dies_ends_the_others_in_seconds(two, reference, tmp_path, where):
    victim, step, plant = KILLS[where]
    ended = two.run(tmp_path, *EVERY_STEP, plants={victim: [plant]})
    other = 1 - victim
    assert (ended.codes[victim], ended.codes[other]) == (-signal.SIGKILL, 2), ended
    said = ended.outcomes[other][0].error
    assert f"error: rank {other}: another rank has ended" in said
    assert f"the checkpoint of step {step} is good" in said
    assert ended.seconds[other] - ended.seconds[victim] < WITHIN
    assert two.run(tmp_path, "--resume", *EVERY_STEP).codes == [0, 0]
    assert differences(_tensors(tmp_path), {key: reference[key] for key in _tensors(tmp_path)}) == []


def _tensors(folder):
    """The parts that do not depend on how often a checkpoint was made."""
    return {key: value for key, value in left(folder).items() if key not in ("last state: lengths",)}


def test_a_rank_that_stalls_is_given_up_with_all_stacks(two, tmp_path):
    timeout = ("--set", "runtime.exchange_timeout=12")
    ended = two.run(tmp_path, *timeout, plants={1: [("stall_at_cycle", 4, 30)]})
    assert ended.codes == [75, 2], ended
    for words in (ended.logs[0], open(str(tmp_path / "train.log")).read()):
        assert "rank 0: the other ranks did not come to the exchange within 12 s" in words
        assert "Thread 0x" in words and "_train_cycle" in words
    assert ended.seconds[0] < ended.seconds[1]
    assert snapshot(str(tmp_path))["last state: step"] == "3"


def test_a_full_disk_on_rank_0_ends_all_with_the_last_commit_good(two, reference, tmp_path):
    ended = two.run(tmp_path, *EVERY_STEP, plants={0: [("full_disk", 3)]})
    assert ended.codes == [2, 2], ended
    assert "No space left on device" in ended.outcomes[0][0].error
    assert "another rank has ended" in ended.outcomes[1][0].error
    assert snapshot(str(tmp_path))["last state: step"] == "2"


def test_a_damaged_file_is_named_by_the_rank_that_reads_it(two, reference, tmp_path):
    """The second sample of the second batch is rank 1's. Both ranks read the same folder."""
    name = reference["debug_trace.jsonl"][1]["batch"][1][0]
    path = os.path.join(two.data, name + "-img_0.png")
    sound = open(path, "rb").read()
    _flip(path)
    try:
        ended = two.run(tmp_path)
    finally:
        with open(path, "wb") as file:
            file.write(sound)
    assert ended.codes == [2, 2], ended
    assert path in ended.outcomes[1][0].error
    assert "another rank has ended" in ended.outcomes[0][0].error


def _flip(path):
    content = bytearray(open(path, "rb").read())
    content[len(content) // 2] ^= 255
    with open(path, "wb") as file:
        file.write(content)


def test_ranks_that_differ_are_refused_before_the_first_step(two, one, tmp_path):
    """Each difference is named, on every rank alike, and nothing is written."""
    other_data, run, behind = tiny.make_data(tmp_path / "other", 8), tmp_path / "run", tmp_path / "behind"
    assert one.run(run, "--max_steps", "2").codes == [0]
    shutil.copytree(str(run), str(behind), symlinks=True)
    assert one.run(run, "--resume", "--max_steps", "4").codes == [0]
    before, fresh = contents(str(run)), tmp_path / "fresh"
    v2 = ["--space", "edgeflownet_v2", "--set", "eval.pool_size=6"]
    differing = {
        "train.lr: 0.5 on rank 0, 0.4 on rank 1": two.one(fresh, per_rank={1: ["--set", "train.lr=0.4"]}),
        "--max_steps: None on rank 0, 4 on rank 1": two.one(fresh, per_rank={1: ["--max_steps", "4"]}),
        "data.fingerprint": two.one(fresh, per_rank={1: ["--set", f"data.base_path={other_data}"]}),
        "network.space": two.one(fresh, per_rank={1: v2}),
        "the step to go on from: 4 on rank 0, 2 on rank 1": two.one(run, "--resume", folders={1: behind}),
        "does not divide into 2 ranks": two.one(fresh, "--set", "train.batch_size=3"),
    }
    ended = two.runs(list(differing.values()))
    for rank in ended.outcomes:
        assert len(rank) == len(differing), ended
        for words, outcome in zip(differing, rank):
            assert outcome.code == 2 and words in outcome.error, outcome
    assert not os.path.exists(str(fresh)) or contents(str(fresh)) == {}
    assert contents(str(run)) == before
