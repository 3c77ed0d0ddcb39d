"""The section on how far to trust the ranking of a run's pool. Compares it with the subnets' costs, the noise of the
samples, and the previous evaluations. Built on `edgeflownas.statistics`."""

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeflownas.nas.arch_codec import parse
from edgeflownas.nas.cost import subnet_cost
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.network.layer_table import layer_table
from edgeflownas.reporting.document import Bullets, Heading, Paragraph, Part
from edgeflownas.run.epe_samples import EpeSamples, read_epe_samples
from edgeflownas.run.read import Run
from edgeflownas.statistics.effects import BlockEffects, block_effects
from edgeflownas.statistics.intervals import CONFIDENCE, Interval, tau_over_codes
from edgeflownas.statistics.paired import behind_best, separated_pairs
from edgeflownas.statistics.ranks import kendall_tau_b
from edgeflownas.statistics.stability import LR_SHARE, Stability, ranking_stability

SHOWN = 12  # largest number of codes in a list


def parts(run: Run) -> List[Part]:
    """The section's parts; none for a pool of fewer than three subnets or if an EPE is not finite."""
    if run.subnets is None or len(run.subnets.codes) < 3 or not np.isfinite(run.subnets.epe).all():
        return []
    options = options_in_words(run.subnets.codes, run.subnets.epe[-1], run.space)
    items = _against_costs(run) + _separation(run) + _over_time(run)
    note = (
        "Whether this ranking agrees with stand-alone training needs a separate study: `edgeflownas fidelity`. "
        f"Intervals: {100 * CONFIDENCE:.0f}%, over the choice of subnets."
    )
    return [Heading("What the ranking is worth", 3), Paragraph(note), Bullets(items + [options])]


def stability(run: Run) -> Stability:
    """The stability over the evaluations with a learning rate above `LR_SHARE` of its start."""
    assert run.subnets is not None
    start = float(run.get("config.train.lr"))
    return ranking_stability(run.subnets.epe, run.numbers.lr, start, int(run.get("arch_seed")))


def _tau(value: float, interval: Interval) -> str:
    if not np.isfinite(value):
        return "none, all are level"
    within = f" ({interval.low:.2f} to {interval.high:.2f})" if np.isfinite(interval.low) else ""
    return f"~{value:.2f}{within}"


def _against_costs(run: Run) -> List[str]:
    assert run.subnets is not None
    config = {key: int(run.get(f"config.{key}")) for key in ("data.input_height", "data.input_width")}
    layers = layer_table(int(run.get("config.network.init_channels")), run.space)
    costs = [subnet_cost(parse(code, run.space), layers, run.space, *config.values()) for code in run.subnets.codes]
    epe, seed = run.subnets.epe[-1], int(run.get("arch_seed"))
    found = []
    for name, values in (("parameters", [c.parameters for c in costs]), ("multiply-adds", [c[1] for c in costs])):
        dearest = -np.array(values, np.float64)
        found.append(f"{name} {_tau(float(kendall_tau_b(dearest, epe)), tau_over_codes(dearest, epe, seed))}")
    return [
        f"Kendall's tau between the last ranking and a ranking by cost alone, the most expensive first: "
        f"{', '.join(found)}. If it is near 1 or -1, the supernet has only ranked costs."
    ]


def _last_samples(run: Run) -> Optional[EpeSamples]:
    """EPE per sample of the last evaluation; None if it was not recorded or a value is not finite."""
    stored = read_epe_samples(run.folder, run.space)
    usable = stored is not None and stored.last_epoch == int(run.last.epoch) and bool(np.all(np.isfinite(stored.last)))
    return stored if usable else None


def behind_best_in_words(run: Run) -> Optional[Dict[str, str]]:
    """{code: EPE behind the best code, with paired error, in words} for the pool; None without EPE per sample."""
    stored = _last_samples(run)
    if stored is None:
        return None
    codes = ["".join(map(str, code)) for code in stored.codes.tolist()]
    found = behind_best(stored.last)
    return {code: gap_in_words(*values) for code, *values in zip(codes, found.gap, found.error, found.level)}


def gap_in_words(gap: float, error: float, level: bool) -> str:
    """`~0.0123 +- ~0.0040`, and whether the subnet is tied with the best; `best` for no gap."""
    if gap == 0:
        return "best"
    within = f" +- ~{error:.4f}" if np.isfinite(error) else ", error unknown from one sample"
    return f"~{gap:.4f}{within}{', tied with the best' if level else ''}"


def _separation(run: Run) -> List[str]:
    stored = _last_samples(run)
    if stored is None:
        return []
    apart = separated_pairs(stored.last)
    codes = ["".join(map(str, code)) for code in stored.codes[behind_best(stored.last).level].tolist()]
    more = f" and {len(codes) - SHOWN} more" if len(codes) > SHOWN else ""
    best = (
        "The best one is ahead of every other by more than that."
        if len(codes) == 1
        else f"Not significantly different from the best one: {', '.join(f'`{code}`' for code in codes[:SHOWN])}{more} "
        "(itself included)."
    )
    return [
        f"{apart.separated} of {apart.pairs} pairs of subnets differ by more than chance among the "
        f"{stored.last.shape[1]} samples allows (paired difference, 5%). {best}"
    ]


def _over_time(run: Run) -> List[str]:
    found = stability(run)
    if not len(found.tau):
        return []
    return [
        f"From one evaluation to the next, tau is {_tau(found.mean, found.interval)} on average over the "
        f"{int(found.counted.sum())} evaluations while the learning rate was above {100 * LR_SHARE:.0f}% of its start. "
        "Later the weights hardly change, and neither does any ranking."
    ]


def options_in_words(codes: Sequence[str], epe: np.ndarray, space: SearchSpace) -> str:
    """A sentence on the options significantly better than all others of their block; `epe` [codes], at least three."""
    fit = _fit_options(codes, epe, space)
    better = [f"{block} {label}" for block, label in _better_options(fit, space)]
    how = f"a linear model {'over all blocks' if fit.joint else 'for each block'}, {len(codes)} subnets"
    if not better:
        return f"No option of any block is better than its others outside a 95% interval ({how})."
    return f"Better than every other option of its block, outside a 95% interval ({how}): {', '.join(better)}."


def better_options(codes: Sequence[str], epe: np.ndarray, space: SearchSpace) -> List[Tuple[str, str]]:
    """(block, label) of the options that `options_in_words` names; none for under three codes or EPE not finite."""
    if len(codes) < 3 or not np.isfinite(epe).all():
        return []
    return _better_options(_fit_options(codes, epe, space), space)


def _fit_options(codes: Sequence[str], epe: np.ndarray, space: SearchSpace) -> BlockEffects:
    return block_effects(np.array([parse(code, space) for code in codes]), epe)


def _better_options(fit: BlockEffects, space: SearchSpace) -> List[Tuple[str, str]]:
    return [(block.name, block.label(option)) for block, option in zip(space.blocks, fit.better) if option is not None]
