"""The cosine against exact values, a 50-digit reference and its own symmetry."""

import decimal
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflownas.engine.schedule import cosine_lr

PI = decimal.Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def exact_lr(t, lr, total_steps):
    """The formula in 50 digits, the cosine by its series."""
    with decimal.localcontext() as context:
        context.prec = 50
        x = PI * t / total_steps
        term = total = decimal.Decimal(1)
        for n in range(1, 60):
            term *= -x * x / ((2 * n - 1) * (2 * n))
            total += term
        return decimal.Decimal(lr) / 2 * (1 + total)


@given(st.data())
def test_every_step_agrees_with_50_digits(data):
    total_steps = data.draw(st.integers(1, 10**6))
    t = data.draw(st.integers(0, total_steps - 1))
    lr = data.draw(st.floats(1e-6, 10.0))
    found = cosine_lr(t, lr, total_steps)
    assert type(found) is float
    assert abs(decimal.Decimal(found) - exact_lr(t, lr, total_steps)) <= decimal.Decimal(lr) * decimal.Decimal(4e-16)


def test_known_values():
    assert cosine_lr(0, 1e-4, 111200) == 1e-4
    assert cosine_lr(0, 1e-4, 1) == 1e-4
    assert cosine_lr(2, 0.5, 4) == pytest.approx(0.25, rel=1e-15)
    assert cosine_lr(1, 1.0, 3) == pytest.approx(0.75, rel=1e-15)
    assert cosine_lr(2, 1.0, 3) == pytest.approx(0.25, rel=1e-15)


@pytest.mark.parametrize("total_steps", [2, 7, 1009])
def test_it_falls_at_every_step_and_stays_above_zero(total_steps):
    rates = [cosine_lr(t, 1e-4, total_steps) for t in range(total_steps)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == total_steps and rates[-1] > 0
    last = 1e-4 * math.sin(math.pi / 2 / total_steps) ** 2
    assert rates[-1] == pytest.approx(last, rel=1e-9)


def test_numpy_numbers_give_the_same_bits():
    assert cosine_lr(np.int64(5), np.float64(1e-4), np.int64(11)) == cosine_lr(5, 1e-4, 11)
    assert type(cosine_lr(np.int64(5), np.float32(1e-4), np.int64(11))) is float


@pytest.mark.parametrize("t, total_steps", [(-1, 5), (5, 5), (6, 5), (0, 0), (0, -1)])
def test_a_step_outside_the_schedule_is_refused(t, total_steps):
    with pytest.raises(ValueError, match=f"^learning rate: step must be from 0 to {total_steps - 1}, got {t}$"):
        cosine_lr(t, 1e-4, total_steps)
