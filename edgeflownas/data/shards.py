"""What one of several processes reads: its part of each training batch, its share of an evaluation's batches. Plain
Python.

Batches stay those of one process, so that what is computed does not depend on the number of processes.
"""

from typing import Any, List, NamedTuple, Optional, Sequence


class Shard(NamedTuple):
    """Rank `rank` of `ranks`; of one process, everything."""

    rank: int = 0
    ranks: int = 1

    def of_batches(self, items: Sequence[Any], batch_size: int) -> List[Any]:
        """The rank-th of `ranks` equal parts of each batch of `items`. ValueError if batches have no equal parts."""
        if batch_size % self.ranks or len(items) % batch_size:
            raise ValueError(f"{len(items)} items in batches of {batch_size} have no {self.ranks} equal parts")
        part = batch_size // self.ranks
        starts = range(self.rank * part, len(items), batch_size)
        return [item for start in starts for item in items[start : start + part]]

    def rounds(self, num_batches: int) -> List[Optional[int]]:
        """The batch of each round of an evaluation, None in a last round that has none left. As many on every rank."""
        turns = range(self.rank, -(-num_batches // self.ranks) * self.ranks, self.ranks)
        return [batch if batch < num_batches else None for batch in turns]


WHOLE = Shard()
