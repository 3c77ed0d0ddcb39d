"""Gate 3, several processes. See `table.py`."""

_EXCHANGE = "edgeflownas/engine/exchange.py"

GATE_3_RANKS = (
    (
        "mean-over-the-ranks",
        _EXCHANGE,
        "G3.46a",
        "gradients, statistics and losses are averaged over the ranks",
        "grouped_allreduce(tensors, op=self._hvd.Sum)",
        "grouped_allreduce(tensors, op=self._hvd.Average)",
    ),
    (
        "parts-swapped",
        "edgeflownas/data/shards.py",
        "G3.46b",
        "the ranks take each other's part of a batch",
        "starts = range(self.rank * part,",
        "starts = range((self.ranks - 1 - self.rank) * part,",
    ),
    (
        "parts-interleaved",
        "edgeflownas/data/shards.py",
        "G3.46b",
        "a batch is dealt out to the ranks sample by sample",
        "        part = batch_size // self.ranks\n"
        "        starts = range(self.rank * part, len(items), batch_size)\n"
        "        return [item for start in starts for item in items[start : start + part]]",
        "        return list(items[self.rank :: self.ranks])",
    ),
    (
        "dead-peer-unsaid",
        _EXCHANGE,
        "G3.46c",
        "a rank whose peer has died does not say so",
        "another rank has ended (",
        "the exchange failed (",
    ),
    (
        "differing-ranks-accepted",
        "edgeflownas/engine/agreement.py",
        "G3.46d",
        "the ranks do not compare their configurations",
        "    ranks = exchange.gather(own)\n",
        "    ranks = [own]\n",
    ),
    (
        "timeout-ignored",
        _EXCHANGE,
        "G3.46e",
        "a rank waits longer than runtime.exchange_timeout",
        "threading.Timer(self._timeout,",
        "threading.Timer(100 * self._timeout,",
    ),
)
