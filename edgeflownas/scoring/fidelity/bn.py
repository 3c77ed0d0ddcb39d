"""Measures how the number of BN recalibration batches changes the ranking of a pool. Built on `scoring.supernet`."""

from typing import List, NamedTuple, Sequence

import numpy as np

from edgeflownas.statistics.paired import critical, paired_errors
from edgeflownas.statistics.ranks import kendall_tau_b

BATCHES = (8, 32, 128)


class Row(NamedTuple):
    """One number of batches compared with the reference: how far EPE and ranking differ."""

    batches: int
    mean_epe: float
    largest_change: float  # of a subnet's EPE, px
    tau: float
    largest_rank_change: int
    swapped: int  # pairs in another order
    swapped_outside: int  # of these, pairs whose difference is outside its paired error here and in the reference


def compare(batches: Sequence[int], epe: Sequence[np.ndarray]) -> List[Row]:
    """A row per number of batches. `epe` has an EPE per sample [codes, samples] for each; the last is the reference."""
    return [_row(number, one.astype(np.float64), epe[-1].astype(np.float64)) for number, one in zip(batches, epe)]


def _row(batches: int, epe: np.ndarray, reference: np.ndarray) -> Row:
    means, wanted = epe.mean(axis=1), reference.mean(axis=1)
    left, right = np.triu_indices(len(means), 1)
    swapped = (means[left] - means[right]) * (wanted[left] - wanted[right]) < 0
    outside = swapped.copy()
    for table in (epe, reference):
        gap = np.abs(table.mean(axis=1)[left] - table.mean(axis=1)[right])
        outside &= gap > critical(table.shape[1]) * paired_errors(table)[left, right]
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (means, wanted)]
    return Row(
        batches,
        float(means.mean()),
        float(np.abs(means - wanted).max()),
        float(kendall_tau_b(means, wanted)),
        int(np.abs(ranks[0] - ranks[1]).max()),
        int(np.sum(swapped)),
        int(np.sum(outside)),
    )


def table(run_folder: str, checkpoint: str, batches: Sequence[int]) -> List[Row]:
    """Scores a run's pool after each number of BN batches. Needs TensorFlow. Raises as `Supernet.load`."""
    from edgeflownas.scoring.supernet import Supernet

    epe = []
    for number in batches:
        with Supernet.load(run_folder, checkpoint, {"eval.bn_recal_batches": number}) as supernet:
            epe.append(supernet.score_alone(list(supernet.pool)).epe_samples)
    return compare(batches, epe)


def words(rows: Sequence[Row]) -> str:
    """The table as text."""
    last = rows[-1].batches
    lines = [
        f"{'BN batches':>10}  {'mean EPE px':>11}  {'largest change px':>17}  {'tau':>5}  {'rank moves':>10}  "
        f"{'pairs swapped':>13}  {'outside error':>13}   (against {last} batches)"
    ]
    for row in rows:
        lines.append(
            f"{row.batches:>10}  {row.mean_epe:>11.4f}  {row.largest_change:>17.4f}  {row.tau:>5.2f}  "
            f"{row.largest_rank_change:>10}  {row.swapped:>13}  {row.swapped_outside:>13}"
        )
    return "\n".join(lines)
