"""The picture of how time grows with the work."""

from typing import Any, Dict

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first


def draw_scaling(sweeps: Dict[str, Any], title: str, path: str) -> None:
    """One panel per sweep of `parts.scaling`: medians, their range, and the straight line."""
    import statistics

    figure, axes = plt.subplots(1, len(sweeps), figsize=(4 * len(sweeps), 3.2), squeeze=False)
    for axis, (name, sweep) in zip(axes[0], sweeps.items()):
        xs, times = list(sweep["seconds"]), list(sweep["seconds"].values())
        medians = [statistics.median(values) for values in times]
        axis.plot([0, max(xs)], [sweep["fixed"], sweep["fixed"] + sweep["slope"] * max(xs)], color="0.7", linewidth=1)
        axis.errorbar(
            xs,
            medians,
            [[m - min(v) for m, v in zip(medians, times)], [max(v) - m for m, v in zip(medians, times)]],
            fmt="o",
            markersize=4,
            color="tab:blue",
            capsize=2,
        )
        axis.set(xlabel=name, ylabel="seconds per cycle", xlim=(0, None), ylim=(0, None))
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
