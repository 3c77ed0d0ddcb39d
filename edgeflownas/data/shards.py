"""The data of one of several ranks: its part of each training batch, its share of the evaluation batches. Plain Python.

The batches are those of a single process, so that the results do not depend on the number of ranks.
"""

from typing import Any, List, NamedTuple, Optional, Sequence


class Shard(NamedTuple):
    """The share of rank `rank` of `ranks`. By default everything."""

    rank: int = 0
    ranks: int = 1

    def of_batches(self, items: Sequence[Any], batch_size: int) -> List[Any]:
        """The rank-th of `ranks` equal parts of each batch of `items`. Raises ValueError if it has no equal parts."""
        if batch_size % self.ranks or len(items) % batch_size:
            raise ValueError(f"{len(items)} items in batches of {batch_size} have no {self.ranks} equal parts")
        part = batch_size // self.ranks
        starts = range(self.rank * part, len(items), batch_size)
        return [item for start in starts for item in items[start : start + part]]

    def rounds(self, num_batches: int) -> List[Optional[int]]:
        """The batch number of each evaluation round, None if the last round has no batch left for this rank.

        Every rank has the same number of rounds.
        """
        turns = range(self.rank, -(-num_batches // self.ranks) * self.ranks, self.ranks)
        return [batch if batch < num_batches else None for batch in turns]


WHOLE = Shard()
