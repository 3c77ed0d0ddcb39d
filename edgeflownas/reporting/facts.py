"""The verdict's lines and other facts about one run, in words. Built on `verdict` and `engine.learning`.

Recorded reals are shown exactly as in their file; computed ones are rounded and marked with a tilde (~).
"""

import datetime
import math
import re
import shlex
from typing import Dict, List, Optional, Tuple

import numpy as np

from edgeflownas.engine import learning
from edgeflownas.reporting import verdict
from edgeflownas.reporting.words import age_seconds, percent, show, time_span
from edgeflownas.run import folder as names
from edgeflownas.run.checkpoint import CheckpointStore
from edgeflownas.run.manifest import COMPLETED, EARLY_STOPPED, FAILED, INTERRUPTED, RUNNING, UNSIGNED
from edgeflownas.run.read import Run
from edgeflownas.statistics.stability import LR_SHARE

Item = Tuple[str, str, str]  # (tone, name, text)
# A run with status running is probably dead if its manifest is older than both of these:
STALE_EPOCHS = 3  # times the duration of an epoch
STALE_SECONDS = 1800.0
SIGNING_GATE = 3  # a long run needs a sign-off of this gate


def level_and_trend(run: Run) -> Tuple[str, str]:
    """(level, trend) of the recorded history, the two parts of the verdict; see `learning` and `verdict`."""
    means = run.numbers.mean_epe.tolist()
    wait = int(run.last.early_stop_wait) if run.history else 0
    return (
        learning.level(means, run.numbers.zero_flow_epe.tolist()),
        verdict.trend(means, wait, int(run.get("config.eval.patience")), float(run.get("config.eval.min_delta"))),
    )


def headline(run: Run) -> verdict.Headline:
    """The verdict in a few words; for a failed run it begins with "Failed"."""
    result = verdict.headline(*level_and_trend(run))
    if run.get("status") == FAILED:
        return verdict.Headline("Failed. Until then: " + result.word[0].lower() + result.word[1:], "bad")
    return result


def verdict_items(run: Run, now: datetime.datetime) -> List[Item]:
    """The lines of the verdict, most important first."""
    items = [_accuracy(run)] + _status(run, now) + [_clip(run)] + ([] if run.alone else [_fairness(run)])
    items += _ranking(run) + [_data(run)] + _input(run) + [_signed(run)]
    return items


def _accuracy(run: Run) -> Item:
    level, trend = level_and_trend(run)
    tone = verdict.headline(level, trend).tone
    if run.history is None:
        return tone, "Accuracy", "nothing has been measured yet: the first evaluation follows the first epoch"
    text = "best {} **{}** px at epoch {}, {} of the **{}** px of an all-zero flow on the same samples"
    epe = "EPE" if run.alone else "mean EPE"
    text = text.format(
        epe, run.last.best_mean_epe, run.last.best_epoch, percent(best_ratio(run)), run.last.zero_flow_epe
    )
    trouble = learning.collapse(level, str(run.last.mean_epe))
    text += f"; {trouble}" if trouble else ""
    return tone, "Accuracy", text + (_movement(run) if trend != learning.UNKNOWN else "")


def _movement(run: Run) -> str:
    window = run.numbers.mean_epe[-verdict.TREND_WINDOW :]
    change = verdict.slope(window.tolist())
    moved = "{} by ~{:.2g} px from one to the next (fitted)".format("rose" if change > 0 else "fell", abs(change))
    text = ". Over the last {} evaluations it {}; {} of the {} evaluations of early stop's patience are used"
    return text.format(
        len(window),
        moved if math.isfinite(change) else "was not always finite",
        run.last.early_stop_wait,
        run.get("config.eval.patience"),
    )


def best_ratio(run: Run) -> float:
    """The lowest ratio of mean EPE to zero-flow EPE of any evaluation."""
    return min(learning.ratio(mean, zero) for mean, zero in zip(run.numbers.mean_epe, run.numbers.zero_flow_epe))


def _status(run: Run, now: datetime.datetime) -> List[Item]:
    status = str(run.get("status"))
    again = f"start it again with `--resume`: `{resume_command(run)}`"
    where = f"at {progress(run)}"
    if status == RUNNING:
        age = age_seconds(str(run.get("updated")), now)
        epoch_time = epoch_seconds(run) or 0.0
        if age is not None and age > max(STALE_SECONDS, STALE_EPOCHS * epoch_time):
            return [
                (
                    "bad",
                    "Status",
                    f"says running, but its manifest was last updated {time_span(age)} ago; it may have been killed",
                ),
                ("open", "Next", "if no process is at work, " + again),
            ]
        return [
            ("open", "Status", f"running, {where}{_remaining(run, epoch_time)}"),
            ("open", "Next", _advice(run) or "wait; this report is written anew after each evaluation"),
        ]
    if status == FAILED:
        return [
            ("bad", "Status", f"**failed** {where}{_reason(run)}"),
            (
                "bad",
                "Next",
                f"read the last lines of `{names.LOG}`, fix the cause; "
                + (_start(run) or "the last checkpoint is good: " + again),
            ),
        ]
    if status == INTERRUPTED:
        return [("fair", "Status", f"interrupted {where}"), ("fair", "Next", again)]
    done = {
        COMPLETED: COMPLETED,
        EARLY_STOPPED: "stopped early: no improvement by more than {} px in {} evaluations".format(
            run.get("config.eval.min_delta"), run.get("config.eval.patience")
        ),
    }.get(status, status)
    return [("good", "Status", f"{done}, {where}"), _finished_next(run)]


def _finished_next(run: Run) -> Item:
    advice = _advice(run)
    if advice:
        return "bad", "Next", advice
    if level_and_trend(run)[0] in (learning.UNKNOWN, learning.WEAK):
        return "open", "Next", LONGER
    command = f"`python -m edgeflownas.nas.supernet_eval {shlex.quote(str(run.folder))}"
    if run.alone:
        return "good", "Next", f"score it from `supernet_best`: {command}`"
    command += " --random 500`"
    return "good", "Next", f"score any subnets from `supernet_best`: {command}"


def _advice(run: Run) -> str:
    """Advice if the accuracy is bad, else an empty text."""
    level, trend = level_and_trend(run)
    if level in (learning.COLLAPSED, learning.COLLAPSED_LATE):
        best = " (`supernet_best` is still good)" if level == learning.COLLAPSED_LATE else ""
        return (
            f"do not use it for ranking{best}; look at the samples below, the loss and the gradient norms, check the "
            "data with `--verify_data`, and start a new run with a lower `--lr` and another `--experiment_name`"
        )
    if level == learning.WEAK and trend == verdict.PLATEAUED:
        return "it stopped improving far too high: look at the samples, the clipped steps and `train.lr`"
    return ""


def _start(run: Run) -> str:
    """Advice if there is no checkpoint to resume from, else an empty text."""
    begun = CheckpointStore(str(run.folder / names.CHECKPOINTS)).committed
    return "" if begun else f"there is no checkpoint yet, start it again: `{run.get('command')}`"


def _reason(run: Run) -> str:
    reason = run.manifest.get("error")  # only a run that failed with a message has one
    return ": " + " ".join(str(reason).split()) if reason else ""


LONGER = (
    "it ended before it was clearly better than no flow: start a new run with a larger `--num_epochs` and another "
    "`--experiment_name`"
)


def resume_command(run: Run) -> str:
    """The command that continues the run to its end: the manifest's, else the first command with --resume and without
    --max_epochs and --max_steps."""
    recorded = run.manifest.get("resume_command")
    if recorded:
        return str(recorded)
    command = re.sub(r" --max_(epochs|steps)[ =]\d+", "", str(run.get("command")))
    return command if "--resume" in command.split() else command + " --resume"


def progress(run: Run) -> str:
    """`step 5550 of 111000 (10 of 200 epochs)`, from train_steps.csv."""
    steps = len(run.steps) if run.steps else 0
    return "step {} of {} ({} of {} epochs)".format(
        steps, run.get("total_steps"), steps // int(run.get("steps_per_epoch")), run.get("num_epochs")
    )


def epoch_seconds(run: Run) -> Optional[float]:
    """Seconds per epoch including its evaluation, median of the last five epochs; None before the first."""
    if run.timing is None:
        return None
    return float(np.median((run.timing.numbers.train_seconds + run.timing.numbers.eval_seconds)[-5:]))


def _remaining(run: Run, seconds: float) -> str:
    steps = len(run.steps) if run.steps else 0
    left = (int(run.get("total_steps")) - steps) / float(run.get("steps_per_epoch"))
    return f"; ~{time_span(left * seconds)} to go at the pace of the last epochs" if seconds and left > 0 else ""


def _clip(run: Run) -> Item:
    share = clip_share(run)
    if share is None:
        return "open", "Gradient clip", "no step yet"
    word, tone = verdict.clipping(share)
    text = "{}: at {} the clip shortened the gradient in {} of all steps".format(
        word, run.get("grad_clip"), percent(share)
    )
    if run.history is not None:
        text += " (share in the last epoch: {})".format(run.last.clip_share)
    if tone != "good":
        text += "; the length of the step is set by the clip and Adam, not by the gradient"
    return tone, "Gradient clip", text


def clip_share(run: Run) -> Optional[float]:
    """The share of recorded steps whose gradient norm was above the clip; None before the first step."""
    if run.steps is None:
        return None
    return float(np.mean(run.steps.numbers.grad_norm_before > float(run.get("grad_clip"))))


def largest_gap(run: Run) -> int:
    """The largest fairness gap recorded so far."""
    recorded = int(run.fairness.fairness_gap) if run.fairness else 0
    return max([recorded] + run.numbers.fairness_gap.astype(int).tolist())


def _fairness(run: Run) -> Item:
    if run.fairness is None and run.history is None:
        return "open", "Fairness", "not counted yet"
    text, tone = verdict.fairness(str(run.get("config.train.supernet_mode")), largest_gap(run))
    return tone, "Fairness", text


def taus(run: Run) -> List[float]:
    """Kendall's tau of the subnets' ranks between each evaluation and the one before; one value fewer than
    evaluations."""
    if run.subnets is None:
        return []
    rank = run.subnets.rank.tolist()
    return [verdict.kendall_tau(a, b) for a, b in zip(rank, rank[1:])]


def _ranking(run: Run) -> List[Item]:
    counted = run.numbers.lr > LR_SHARE * float(run.get("config.train.lr"))
    values = [tau for tau, counts in zip(taus(run), counted[1:]) if counts][-5:]
    if not values or math.isnan(values[0]):
        return []
    mean = sum(values) / len(values)
    stable = mean >= verdict.STABLE_TAU
    text = (
        f"Kendall tau of the {run.pool_size} subnets between consecutive evaluations: ~{mean:.2f} on average over the "
        f"last {len(values)} at a learning rate above {100 * LR_SHARE:.0f}% of its start"
    )
    text += "" if stable else "; the order of the subnets still changes much"
    learned = level_and_trend(run)[0] == learning.LEARNED
    text += "" if learned else "; it says nothing as long as the supernet has not learned"
    return [("open" if not learned else "good" if stable else "fair", "Ranking", text)]


def data_source(run: Run) -> str:
    """The samples that the EPE was measured on, in words."""
    count = run.last.num_samples if run.history else run.get("dataset.val")
    if int(run.get("config.data.holdout")):
        return f"{count} samples held out of the training list"
    source = str(run.get("dataset.source"))
    if source == "synthetic":
        return f"{count} synthetic samples, which are not FC2"
    return "{} samples of {}".format(
        count, {"lists": "FC2_test (`FC2_test.txt`)", "folders": "the folder `val/`"}.get(source, source)
    )


def _data(run: Run) -> Item:
    worth = "good for ranking subnets, no independent test result"
    synthetic = run.get("dataset.source") == "synthetic"
    if synthetic:
        worth = "they show that a run works, not which subnet is better on real frames"
    elif run.alone:
        worth = "no independent test result"
    text = "measured on {} under `{}`, trained on {}; {}".format(
        data_source(run), run.get("dataset.base_path"), run.get("dataset.train"), worth
    )
    return ("open" if synthetic else "good", "Data", text)


def _input(run: Run) -> List[Item]:
    if run.timing is None:
        return []
    share = float(run.timing.numbers.input_wait_share[-1])
    if not share > verdict.INPUT_WAIT_SHARE:
        return []
    return [
        (
            "fair",
            "Input",
            "{} of the last epoch's training time was spent waiting for data; raise `runtime.num_workers` or "
            "use a faster disk".format(run.timing.row(-1).input_wait_share),
        )
    ]


def gate_words(run: Run) -> Dict[str, str]:
    """{gate: its state} when the run was started or last resumed, from the manifest."""
    return {str(gate): show(state) for gate, state in run.get("gates").items() if gate != UNSIGNED}


def unsigned(run: Run) -> bool:
    """True unless the gate that long runs need was valid at the start or last resume."""
    return gate_words(run).get(f"gate{SIGNING_GATE}") != "valid"


def _signed(run: Run) -> Item:
    words = ", ".join("{} {}".format(gate.replace("gate", "gate "), word) for gate, word in gate_words(run).items())
    commit = "commit `{}`{}".format(
        str(run.get("git_commit"))[:12], ", **with uncommitted changes**" if run.get("git_dirty") else ""
    )
    if unsigned(run):
        return (
            "fair",
            "Sign-off",
            "**unsigned**{}: gate {} was not valid at the start ({}); {}".format(
                " (`--unsigned` was given)" if run.get("gates").get(UNSIGNED) else "",
                SIGNING_GATE,
                words or "no gate recorded",
                commit,
            ),
        )
    return ("fair" if run.get("git_dirty") else "good"), "Sign-off", f"{words}; {commit}"
