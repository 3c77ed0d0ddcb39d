"""The records of a run, for people and for programs, agree to the last digit, and the log stays small."""

import functools
import glob
import io
import logging

import numpy as np
import pytest
from tqdm import tqdm

from edgeflownas.engine import progress as progress_module
from edgeflownas.engine.progress import Progress, duration
from edgeflownas.engine.records import Records, ranks
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import get_space
from edgeflownas.run.rows import EvaluationRow, StepRow, columns, real
from edgeflownas.run.tables import read_table
from edgeflownas.tfcompat import tf

SPACE = get_space("edgeflownet_v1")
POOL = build_pool(42, 12, SPACE)


def step_row(step):
    return StepRow(step, 1 + step // 5, *np.random.RandomState(step).uniform(0, 9, len(StepRow._fields) - 2).tolist())


def evaluation_row(epoch):
    draw = np.random.RandomState(100 + epoch).uniform(0, 9, len(EvaluationRow._fields)).tolist()
    return EvaluationRow(*draw)._replace(
        epoch=epoch,
        global_step=5 * epoch,
        fairness_gap=0,
        best_epoch=1,
        early_stop_wait=0,
        bn_recal_batches=8,
        num_samples=3,
    )


def events(folder):
    """{tag: {step: value}} of all scalars that TensorBoard keeps, in file order, purged at session starts."""
    found = {}
    for path in sorted(glob.glob(str(folder / "tensorboard" / "*"))):
        for event in tf.train.summary_iterator(path):
            if event.session_log.status == tf.SessionLog.START:
                for values in found.values():
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                assert event.step not in found.setdefault(value.tag, {}), f"two values of {value.tag} at one step"
                found[value.tag][event.step] = value.simple_value
    return found


def write(folder, first, last, lengths=None):
    records = Records(str(folder), SPACE, 12, False, scalar_every=1, flush_every=200)
    if lengths is not None:
        records.cut_back(lengths)
    records.open_events(first, False)
    noted = None
    for step in range(first, last):
        records.cycle(step_row(step))
        if step % 5 == 4:
            epe = np.random.RandomState(step).uniform(1, 2, 12)
            records.evaluation(evaluation_row(1 + step // 5), POOL, epe)
            noted = records.lengths()
    records.close()
    return noted


def test_tensorboard_and_tables_agree_to_the_last_digit_also_after_a_resume(tmp_path):
    noted = write(tmp_path, 0, 5)
    write(tmp_path, 5, 8, noted)  # three cycles that no checkpoint knows of
    write(tmp_path, 5, 15, noted)  # the resume
    scalars = events(tmp_path)
    steps = read_table(tmp_path / "train_steps.csv", StepRow)
    assert steps.numbers.step.tolist() == list(range(15))
    for step, row in enumerate(zip(*steps.texts)):
        for name, text in list(zip(steps.names, row))[2:]:
            assert real(scalars["train/" + name][step]) == text
    history = read_table(tmp_path / "eval_epe_history.csv", EvaluationRow, 12)
    assert history.texts.epoch == ["1", "2", "3"]
    for row in zip(*history.texts):
        for name, text in list(zip(history.names, row))[2:]:
            assert np.float32(text) == np.float32(scalars["eval/" + name][int(row[1]) - 1])
    assert set(scalars) == {"train/" + name for name in columns(StepRow)[2:]} | {
        "eval/" + name for name in columns(EvaluationRow, 12)[2:]
    }
    assert set(map(len, scalars.values())) == {15, 3}


def test_ranks_are_a_permutation_with_ties_in_pool_order():
    assert ranks(np.array([2.0, 1.0, 2.0, 0.5])).tolist() == [3, 2, 4, 1]


@pytest.mark.parametrize("seconds,text", [(0, "00:00:00"), (3723.9, "01:02:03"), (200000, "2d 07:33")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_log_of_200_epochs_stays_under_100_kb(monkeypatch, caplog):
    """Four days of 555 cycles an epoch, a cycle every three seconds, not on a terminal."""
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(progress_module.log, "propagate", True)
    progress = Progress(555, 200)
    with caplog.at_level(logging.INFO, "edgeflownas"):
        for epoch in range(200):
            progress.start_epoch(epoch, 0)
            for position in range(555):
                clock[0] += 3.0
                progress.cycle(epoch, position, 1.23456, 9.8e-5, 3.0)
            progress.start_evaluation(epoch, 500)
            progress.end_evaluation(60.0)
    size = sum(len(record.getMessage()) + len("2026-11-22 21:15:49,837 INFO \n") for record in caplog.records)
    assert 200 < len(caplog.records) and size < 100 * 1024
    assert "run ends in" in caplog.records[0].getMessage()
    assert progress.eta(199, 554) == "00:01:00"


def test_the_words_of_the_bar_fit_a_terminal_of_80_columns(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(progress_module.sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(progress_module, "tqdm", functools.partial(tqdm, mininterval=0, ncols=80))
    progress = Progress(555, 200)
    progress.start_epoch(149, 230)
    progress.cycle(149, 230, 13.7625, 9.87e-05, 4.0)
    progress.close()
    lines = [line for line in screen.getvalue().split("\r") if "loss" in line]
    assert lines[-1].startswith("epoch 150/200: 231/555, ") and "loss 13.762, lr 9.9e-05, ends in 1d 07:" in lines[-1]
    assert max(len(line) for line in lines) <= 80
