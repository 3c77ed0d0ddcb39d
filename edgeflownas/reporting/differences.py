"""Differences of two runs in the pool's mean EPE at the best evaluation, with paired errors over the samples.

The error is that of the validation samples alone. Another seed also changes a run, perhaps by more; only a second run
of each shows it. Built on `statistics.paired`.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeflownas.reporting.document import Grid, Heading, Paragraph, Part
from edgeflownas.run.epe_samples import read_epe_samples
from edgeflownas.run.read import Run
from edgeflownas.statistics.paired import is_beyond, paired_error


class Difference(NamedTuple):
    """Mean EPE of run `a` minus that of run `b`, and its paired error, px. `beyond`: significant."""

    gap: float
    error: float
    samples: int
    beyond: bool


def difference(a: Run, b: Run) -> Optional[Difference]:
    """The difference at each run's best evaluation. None unless both have finite EPE per sample on the same samples."""
    stored = [read_epe_samples(run.folder, run.space) for run in (a, b)]
    found = [one for one in stored if one is not None and len(one.best) and np.all(np.isfinite(one.best))]
    if len(found) < 2 or found[0].names != found[1].names:
        return None
    x, y = [one.best.astype(np.float64).mean(axis=0) for one in found]
    gap, error = float(np.mean(x - y)), paired_error(x, y)
    return Difference(gap, error, len(x), bool(is_beyond(np.array(gap), np.array(error), len(x))))


def level_with(runs: Sequence[Run], best: Run, names: Sequence[str]) -> List[str]:
    """The names of the other runs whose difference to `best` is known and not significant."""
    found = [(name, difference(run, best)) for name, run in zip(names, runs) if run is not best]
    return [name for name, one in found if one is not None and not one.beyond]


def parts(runs: Sequence[Tuple[str, Run]]) -> List[Part]:
    """A table of all pairs of runs; nothing for a single run."""
    rows = []
    for i, (name_a, a) in enumerate(runs):
        for name_b, b in runs[:i]:
            found = difference(b, a)
            rows.append([name_b, name_a] + (_words(found) if found else ["", "not on the same samples, or not kept"]))
    if not rows:
        return []
    return [
        Heading("Differences"),
        Paragraph(
            "Mean EPE of the first run's pool minus that of the second's, each at its best evaluation, and the paired "
            "standard error over the validation samples (5%). Another seed would move both runs as well: that is not "
            "in this error."
        ),
        Grid(("run", "run", "difference, px", "is it more than chance?"), rows, plain=(0, 1, 2, 3)),
    ]


def _words(found: Difference) -> List[str]:
    answer = "yes" if found.beyond else "no: tied"
    return [f"~{found.gap:+.4f} +- ~{found.error:.4f}", f"{answer} ({found.samples} samples)"]
