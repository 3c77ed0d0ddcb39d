"""The pictures of a fidelity report. Each public function returns the bytes of a PNG. Built on `reporting.canvas`."""

from typing import Any, List, Optional, Sequence

import numpy as np

from edgeflownas.reporting.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, RED, SKY, epoch_axis, look, panels, png
from edgeflownas.scoring.fidelity.analysis import Agreement, AtBudget, epe_of
from edgeflownas.scoring.fidelity.evidence import Evidence, SupernetEvidence
from edgeflownas.scoring.fidelity.plan import STRICT
from edgeflownas.statistics.intervals import tau_over_codes
from edgeflownas.statistics.ranks import kendall_tau_b
from edgeflownas.statistics.stability import LR_SHARE

_COLOURS = {"strict": BLUE, "uniform": ORANGE, "cost": GREY}
_EPOCH_RESAMPLES = 500  # bootstrap resamples per evaluation, for the band


def scatter(evidence: Evidence, budgets: Sequence[AtBudget]) -> bytes:
    """Supernet EPE against stand-alone EPE, a panel per budget. Error bars in x and y are one sd over seeds."""
    with look():
        figure, axes = panels(1, len(budgets), 4.8, sharey=True)
        for place, found in zip(axes, budgets):
            _scatter(place, evidence, found)
            place.set(title=f"{found.alone.budget:g} times the cycles", xlabel="EPE of the code trained alone, px")
        axes[0].set_ylabel("EPE in the strict supernet, px")
        figure.tight_layout()
        return png(figure)


def _scatter(place: Any, evidence: Evidence, found: AtBudget) -> None:
    strict = [one for one in evidence.supernets if one.run.kind == STRICT]
    groups = [(found.alone.codes, BLUE, "o")]
    beside = [code.arch_code for code in evidence.plan.codes if not code.counts]
    whole = evidence.alone[found.alone.budget]
    groups.append(([code for code in beside if code in whole.codes], RED, "D"))
    for codes, colour, marker in groups:
        if not codes:
            continue
        alone = whole.of(list(codes)).epe.mean(axis=2)
        inside = np.stack([epe_of(one, list(codes)).mean(axis=1) for one in strict])
        place.errorbar(
            alone.mean(axis=0),
            inside.mean(axis=0),
            xerr=_sd(alone),
            yerr=_sd(inside),
            fmt=marker,
            color=colour,
            ecolor=GREY,
            elinewidth=1.0,
            markersize=5,
        )
        for code, x, y in zip(codes, alone.mean(axis=0), inside.mean(axis=0)):
            place.annotate(code, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7.5, color=BLACK)


def _sd(values: np.ndarray) -> Optional[np.ndarray]:
    return np.std(values, axis=0, ddof=1) if len(values) > 1 else None


def over_epochs(evidence: Evidence, found: AtBudget) -> Optional[bytes]:
    """Tau of each supernet evaluation with stand-alone EPE. None if no evaluation pool equals the study's codes."""
    shown = [one for one in evidence.supernets if one.epochs is not None]
    if not shown:
        return None
    with look():
        figure, (place,) = panels(1, 1, 4.2)
        for supernet in shown:
            _epochs(place, evidence, supernet, found)
        place.axhline(0, color=GREY, linewidth=1.0)
        place.set(ylim=(-1.05, 1.05), xlabel="epoch of the supernet", title="Kendall's tau with stand-alone EPE")
        place.legend(loc="lower left", ncol=2)
        figure.tight_layout()
        return png(figure)


def _epochs(place: Any, evidence: Evidence, supernet: SupernetEvidence, found: AtBudget) -> None:
    assert supernet.epochs is not None
    columns = [evidence.plan.counted.index(code) for code in found.alone.codes]
    epe, seed = supernet.epochs.epe[:, columns], int(evidence.plan.document["statistics"]["seed"])
    taus = [float(kendall_tau_b(row, found.truth)) for row in epe]
    bands = [tau_over_codes(row, found.truth, seed, _EPOCH_RESAMPLES) for row in epe]
    colour = _COLOURS[supernet.run.kind]
    place.plot(supernet.epochs.epoch, taus, color=colour, label=supernet.name)
    low, high = [band.low for band in bands], [band.high for band in bands]
    place.fill_between(supernet.epochs.epoch, low, high, color=colour, alpha=0.15, linewidth=0)
    epoch_axis(place, supernet.epochs.epoch[0], supernet.epochs.epoch[-1])
    late = supernet.epochs.epoch[supernet.epochs.lr <= LR_SHARE * evidence.plan.config.train.lr]
    if len(late) and supernet.run.kind == STRICT:
        place.axvline(late[0], color=GREY, linestyle=":", linewidth=1.2, label="learning rate below 5%")


def over_budgets(budgets: Sequence[AtBudget]) -> bytes:
    """Tau of each supernet against the stand-alone budget, with intervals, and the ceiling between seeds."""
    with look():
        figure, (place,) = panels(1, 1, 4.2)
        names = [one.name for one in budgets[0].strict + budgets[0].uniform]
        for number, name in enumerate(names):
            rows = [one for found in budgets for one in found.strict + found.uniform if one.name == name]
            at = np.arange(len(rows)) + 0.06 * (number - (len(names) - 1) / 2)
            style = {"color": _COLOURS[rows[0].kind], "marker": "os^Dv<>"[number % 7]}
            place.errorbar(at, [one.tau for one in rows], yerr=_reach(rows), capsize=3, label=name, **style)
        ceilings = [found.ceiling for found in budgets]
        place.plot(
            np.arange(len(budgets)), ceilings, color=GREEN, linestyle="--", marker="_", label="stand-alone seeds"
        )
        place.axhline(0, color=GREY, linewidth=1.0)
        place.set(ylim=(-1.05, 1.05), xticks=np.arange(len(budgets)), title="Kendall's tau with stand-alone EPE")
        place.set_xticklabels([f"{found.alone.budget:g}" for found in budgets])
        place.set_xlabel("stand-alone budget, times the supernet's cycles")
        place.legend(loc="lower left", ncol=2)
        figure.tight_layout()
        return png(figure)


def controls(found: AtBudget) -> bytes:
    """Tau of every ranking at one budget, with its interval over codes: supernets, costs, and the ceiling."""
    rows = found.strict + found.uniform + found.costs
    with look():
        figure, (place,) = panels(1, 1, 1.2 + 0.42 * len(rows))
        for y, one in enumerate(rows):
            place.errorbar(
                [one.tau], [y], xerr=_reach([one]), fmt="o", color=_COLOURS[one.kind], capsize=3, markersize=6
            )
        if found.ceiling is not None:
            place.axvline(found.ceiling, color=SKY, linestyle="--", label="between stand-alone seeds")
            place.legend(loc="lower left")
        place.axvline(0, color=GREY, linewidth=1.0)
        place.set(xlim=(-1.05, 1.05), yticks=range(len(rows)), xlabel="Kendall's tau with stand-alone EPE")
        place.set_yticklabels([one.name for one in rows])
        place.invert_yaxis()
        figure.tight_layout()
        return png(figure)


def _reach(rows: List[Agreement]) -> np.ndarray:
    """[2, rows]: the length of each interval below and above tau."""
    below = [max(0.0, one.tau - one.tau_codes.low) for one in rows]
    above = [max(0.0, one.tau_codes.high - one.tau) for one in rows]
    return np.nan_to_num(np.array([below, above]))
