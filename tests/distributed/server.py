"""Starts the ranks of tiny runs by fork, so that ranks that will be killed cost no import: `python -m
tests.distributed.server DATA RANKS WORD...`, where the words are those of every run.

A line of JSON on stdin, {"runs", "environments", "log"}, starts one process per environment; the answers on stdout are
{"pids"} at once, and {"ended"} when all have ended: [rank, status, seconds since the start], in the order of their
ends. Each rank makes all `runs`, one after the other, with one connection: a run is a list of {"folder", "words",
"plants"}, one per rank. How each run ended is a line of JSON in the rank's log. TensorFlow 1 survives a fork after the
graph is built, TensorFlow 2 only before.
"""

import json
import os
import sys
import time
from unittest import mock

from edgeflownas import config as configuration
from edgeflownas.data.fc2_index import build_index
from edgeflownas.data.shards import Shard
from edgeflownas.engine import exchange
from edgeflownas.engine import trainer as trainer_module
from tests.distributed import plants
from tests.reliability import lab as lab_module
from tests.reliability import tiny
from tests.reliability.lab import Lab
from tests.torture.server import plain


class _Graphs(lab_module._Remembered):
    """The cycle's graph of the first run, each time with the exchange of the present one."""

    def __call__(self, config, space, link):
        graph = super().__call__(config, space, link)
        graph.exchange = link
        return graph


def main():
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    data, ranks = sys.argv[1], int(sys.argv[2])
    lab = Lab(data)
    lab.parts["CycleGraph"] = _Graphs(lab.parts["CycleGraph"].make)
    trainer_module.session_config = plain(trainer_module.session_config)
    if trainer_module.tf.__version__.startswith("1."):
        _build(lab, data, ranks)
    for line in sys.stdin:
        request, began = json.loads(line), time.monotonic()
        pids = []
        for rank in range(len(request["environments"])):
            pids.append(os.fork())
            if not pids[-1]:
                _run(lab, rank, request)
        print(json.dumps({"pids": pids}), flush=True)
        ended = []
        while len(ended) < len(pids):
            pid, status = os.wait()
            ended.append([pids.index(pid), status, time.monotonic() - began])
        print(json.dumps({"ended": ended}), flush=True)


def _build(lab, data, ranks):
    """The graph, but no session yet, and no connection."""
    words = (tiny.flags(data, "unused") + sys.argv[3:])[1::2]
    config, _ = configuration.load(None, dict(word.split("=", 1) for word in words))
    link = exchange.LOCAL
    if ranks > 1:
        import horovod.tensorflow as hvd

        link = exchange.HorovodExchange.__new__(exchange.HorovodExchange)
        link._hvd, link.rank, link.size, link.local_rank = hvd, 0, ranks, 0
    index = build_index(config.data, config.train.seed)
    with mock.patch.object(lab.tf, "Session", lambda **kwargs: None), lab.patched():
        trainer_module.Trainer(config, "unused", index, trainer_module.Limits(), link)


def _take_place(lab, shard):
    """What was built for rank 0, ahead of the fork, becomes this rank's."""
    for train in lab.parts["train_pipeline"].made:
        train._shard = shard
    for val, _ in lab.parts["evaluation_pipelines"].made:
        val.rounds = shard.rounds(val.num_batches)


def _run(lab, rank, request):
    os.environ.update(request["environments"][rank])
    log = os.open(f"{request['log']}.{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 70
    _take_place(lab, Shard(rank, len(request["environments"])))
    try:
        for number, run in enumerate(request["runs"]):
            mine, last = run[rank], number == len(request["runs"]) - 1
            kept = [] if last else [mock.patch.object(exchange.HorovodExchange, "close", lambda self: None)]
            planted = [getattr(plants, name)(*arguments) for name, *arguments in mine["plants"]]
            outcome = lab.run(mine["folder"], *mine["words"], plants=planted + kept)
            code = outcome.code
            with open(f"{request['log']}.{rank}.jsonl", "a") as ends:
                ends.write(json.dumps(outcome._asdict()) + "\n")
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
