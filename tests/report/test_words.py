"""Numbers in words."""

import datetime

from edgeflownas.reporting.words import age_seconds, percent, time_span

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
    assert [time_span(seconds) for seconds in (40, 720, 12000, 190800)] == ["40 s", "12 min", "3 h 20 min", "2 d 5 h"]
    assert age_seconds("2024-05-06T08:00:00Z", NOW) == 300 and age_seconds("Monday", NOW) is None
