"""Early stop against a plain reference that looks at the whole history, on simulated curves and across a resume."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflownas.engine.early_stop import EarlyStop

NAN, INF = float("nan"), float("inf")


def reference(history, patience, min_delta):
    """(best, wait, stop) after the whole history, computed from the history alone."""
    counted = []
    for index, value in enumerate(history):
        if math.isfinite(value) and (not counted or value < history[counted[-1]] - min_delta):
            counted.append(index)
    wait = len(history) - 1 - counted[-1] if counted else len(history)
    return (history[counted[-1]] if counted else None), wait, wait >= patience


VALUES = st.one_of(st.sampled_from([1.0, 0.875, 0.75, 0.625, 0.5]), st.floats(0, 10), st.sampled_from([NAN, INF, -INF]))


@given(st.lists(VALUES, max_size=40), st.integers(1, 6), st.sampled_from([0.0, 0.002, 0.125]), st.integers(0, 40))
def test_every_update_agrees_with_the_reference_also_across_a_resume(history, patience, min_delta, cut):
    stop = EarlyStop(patience, min_delta)
    for seen, value in enumerate(history):
        if seen == cut:
            stop = EarlyStop(patience, min_delta, **json.loads(json.dumps(stop.as_dict(), allow_nan=False)))
        told = stop.update(value)
        assert (stop.best, stop.wait, told) == reference(history[: seen + 1], patience, min_delta)
        assert stop.stopped == told and stop.as_dict() == {"best": stop.best, "wait": stop.wait}


def evaluations_until_stop(curve, patience=15, min_delta=0.002):
    stop = EarlyStop(patience, min_delta)
    for count, value in enumerate(curve, 1):
        if stop.update(value):
            return count
    return None


@pytest.mark.parametrize(
    "curve, want",
    [
        ([5.0] * 40, 16),  # the first counts, fifteen more do not
        ([5.0] * 15, None),
        ([5.0] + [9.0] * 20, 16),  # rising
        ([10.0 - 0.1 * i for i in range(60)], None),  # falling all the time
        (
            [5.0] * 15 + [4.9] + [5.0] * 14,
            None,
        ),  # improves at the last chance; then 14 evaluations, one too few to stop
        ([5.0] * 15 + [4.9] + [5.0] * 15, 31),
        ([5.0 - 0.001 * i for i in range(60)], None),  # a slow decline adds up
        ([5.0] + [4.9985] * 30, 16),  # better, but by too little, is no improvement
        ([5.0, 4.9985] + [4.9975] * 30, 18),  # counted against 5.0, not against 4.9985
        ([NAN] * 30, 15),  # no value ever counted as an improvement
        ([NAN, 5.0] + [NAN] * 30, 17),
        ([5.0] * 10 + [NAN] * 6 + [1.0], 16),  # NaN uses the patience up
        ([5.0] * 10 + [-INF] + [4.0] + [INF] * 14, None),
    ],
    ids=range(13),
)
def test_simulated_curves(curve, want):
    assert evaluations_until_stop(curve) == want


@pytest.mark.parametrize(
    "value, counts", [(0.75, False), (np.nextafter(0.75, 0.0), True), (0.8125, False), (1.0, False)]
)
def test_an_improvement_is_more_than_min_delta(value, counts):
    stop = EarlyStop(15, 0.25, best=1.0, wait=3)
    stop.update(value)
    assert (stop.best, stop.wait) == ((value, 0) if counts else (1.0, 4))


def test_the_state_is_plain_numbers():
    stop = EarlyStop(15, 0.002)
    assert stop.as_dict() == {"best": None, "wait": 0} and stop.stopped is False
    assert stop.update(np.float32(2.5)) is False
    assert type(stop.as_dict()["best"]) is float and type(stop.as_dict()["wait"]) is int


def test_a_restored_count_knows_that_it_has_stopped():
    assert EarlyStop(15, 0.002, best=3.0, wait=15).stopped is True
    assert EarlyStop(15, 0.002, best=3.0, wait=14).stopped is False


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 0.002), "patience must be at least 1, got 0"),
        ((1, -0.001), "min_delta must be finite and at least 0, got -0.001"),
        ((1, NAN), "min_delta must be finite and at least 0, got nan"),
        ((1, INF), "min_delta must be finite and at least 0"),
        ((1, 0.0, NAN), "best must be finite or None, got nan"),
        ((1, 0.0, INF), "best must be finite or None, got inf"),
        ((1, 0.0, 1.0, -1), "wait must be at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^early stop: {message}"):
        EarlyStop(*arguments)
