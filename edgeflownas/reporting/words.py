"""Texts for shares, durations, ages and manifest values."""

import datetime
import json
import math
from typing import Any, Optional


def percent(share: float) -> str:
    """`~37.0%`, rounded; exact at 0% and 100%."""
    if not math.isfinite(share):
        return "not a finite share"
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}%"
    text = f"{100 * share:.1f}"
    return "~{}%".format({"0.0": "0.1", "100.0": "99.9"}.get(text, text) if 0 < share < 1 else text)


def time_span(seconds: float) -> str:
    """`2 d 5 h`, `3 h 20 min`, `12 min`, `40 s`."""
    minutes = int(round(seconds / 60))
    if seconds < 90:
        return f"{int(round(seconds))} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = int(round(seconds / 3600))
    return f"{minutes // 60} h {minutes % 60} min" if hours < 36 else f"{hours // 24} d {hours % 24} h"


def age_seconds(stamp: str, now: datetime.datetime) -> Optional[float]:
    """Seconds from an ISO time of the manifest (UTC if it has no zone) to `now`; None if it is not an ISO time."""
    try:
        time = datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.timezone.utc)
    return (now - time).total_seconds()


def show(value: Any) -> str:
    """A manifest value as one line of text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {show(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(show(inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)
