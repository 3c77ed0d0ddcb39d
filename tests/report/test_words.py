"""Numbers in words, and the fake runs' own way of writing them."""

import datetime

import fake_run

from edgeflownas.reporting.words import age_seconds, duration, percent
from edgeflownas.run.artifacts import real

NOW = datetime.datetime(2024, 5, 6, 8, 5, tzinfo=datetime.timezone.utc)


def test_words():
    assert [percent(share) for share in (0.0, 0.0001, 0.3333, 0.99999, 1.0, 1.5)] == [
        "0%",
        "~0.1%",
        "~33.3%",
        "~99.9%",
        "100%",
        "~150.0%",
    ]
    assert [duration(seconds) for seconds in (40, 720, 12000, 190800)] == ["40 s", "12 min", "3 h 20 min", "2 d 5 h"]
    assert age_seconds("2024-05-06T08:00:00Z", NOW) == 300 and age_seconds("Monday", NOW) is None


def test_the_fake_reals_are_written_as_the_trainer_writes_them():
    assert [fake_run.real(value) for value in (0.1, 1e-4, 5.0)] == [real(value) for value in (0.1, 1e-4, 5.0)]
    assert fake_run.real(1 / 3) == "0.33333334"
