"""The rule whether the supernet has learned, and that training log and report use the same words."""

import datetime
import logging
import math
from unittest import mock

import pytest
from pretended_run import collapsed, collapsed_late, learning, write_long_run

from edgeflownas import config as configuration
from edgeflownas.engine.learning import COLLAPSED, COLLAPSED_LATE, LEARNED, UNKNOWN, WEAK, level, ratio
from edgeflownas.engine.trainer import Limits, Trainer
from edgeflownas.reporting import facts
from edgeflownas.run.read import read_run

ZERO = 8.0


@pytest.mark.parametrize(
    "ratios, expected",
    [
        ((), UNKNOWN),
        ((1.2,), UNKNOWN),
        ((1.2, 1.0, 0.96, 0.96), UNKNOWN),
        ((1.2, 1.0, 0.96, 0.96, 0.95), COLLAPSED),
        ((1.2, 1.0, 0.96, 0.96, 0.9499), WEAK),
        ((math.nan,) * 5, COLLAPSED),
        ((math.inf,) * 5, COLLAPSED),
        ((0.81,), WEAK),
        ((0.8,), LEARNED),
        ((0.5, 0.96, 0.96, 0.96), COLLAPSED_LATE),
        ((0.5, 0.96, 0.96), LEARNED),
        ((0.5, 0.96, 0.94, 0.96), LEARNED),
        ((0.5, math.nan, math.nan, math.nan), COLLAPSED_LATE),
    ],
)
def test_level(ratios, expected):
    assert level([ratio * ZERO for ratio in ratios], [ZERO] * len(ratios)) == expected


def test_level_uses_the_zero_flow_epe_of_the_same_evaluation():
    assert level([4.0, 6.0], [4.0, 9.0]) == LEARNED  # 6 of 9, though 4 is the lowest


def test_a_zero_flow_epe_of_zero_is_no_success():
    assert ratio(0.0, 0.0) == math.inf


def log_of_the_last_evaluation(run, caplog):
    """What the trainer logs after the last evaluation of a run, without training."""
    trainer = Trainer.__new__(Trainer)
    trainer.folder, trainer.config, trainer.limits = str(run.folder), configuration.load()[0], Limits()
    trainer.state = mock.Mock(is_best=False)
    trainer.pool, trainer.progress = run.subnets.codes, mock.Mock(eta=lambda *_: "00:00:00")
    with caplog.at_level(logging.INFO, "edgeflownas"):
        trainer._log_evaluation(run.history.values()[-1], 1.0)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("means, said", [(collapsed, True), (collapsed_late, True), (learning, False)])
def test_the_report_says_of_a_collapse_what_the_log_says(tmp_path, monkeypatch, caplog, means, said):
    monkeypatch.setattr(logging.getLogger("edgeflownas"), "propagate", True)
    run = read_run(write_long_run(tmp_path / "run", means=means))
    items = {name: text for _, name, text in facts.verdict_items(run, datetime.datetime.now(datetime.timezone.utc))}
    logged = log_of_the_last_evaluation(run, caplog)
    assert len(logged) == said
    for line in logged:
        assert line.startswith("epoch 12: ") and line[len("epoch 12: ") :].split(" (last ")[0] in items["Accuracy"]
