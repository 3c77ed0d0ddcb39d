"""Starts tiny training runs by fork, so that a process that will be killed costs no import: `python -m
tests.torture.server DATA`.

A line of JSON on stdin, {"folder", "words", "log"}, starts a run; the answers on stdout are {"pid"} at once and
{"status"} when
it has ended. Each run is a process of its own that executes `train_supernet.main`. TensorFlow 1 survives a fork after
the graph
is built, TensorFlow 2 only before.
"""

import json
import os
import sys
from unittest import mock

from edgeflownas import config as configuration
from edgeflownas.data.fc2_index import build_index
from edgeflownas.engine import trainer as trainer_module
from tests.reliability import tiny
from tests.reliability.lab import Lab


def main():
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    data = sys.argv[1]
    lab = Lab(data)
    trainer_module.session_config = plain(trainer_module.session_config)
    if trainer_module.tf.__version__.startswith("1."):
        _build(lab, data)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(lab, request)
        _answer(pid=pid)
        _answer(status=os.waitpid(pid, 0)[1])


def plain(session_config):
    """Without TensorFlow's graph optimizer, which takes most of a short run's time."""

    def without(*arguments):
        made = session_config(*arguments)
        made.graph_options.rewrite_options.disable_meta_optimizer = True
        made.graph_options.optimizer_options.opt_level = -1
        return made

    return without


def _build(lab, data):
    """The graph, but no session yet."""
    words = tiny.flags(data, "unused")[1::2]
    config, _ = configuration.load(None, dict(word.split("=", 1) for word in words))
    index = build_index(config.data, config.train.seed)
    with mock.patch.object(lab.tf, "Session", lambda **kwargs: None), lab.patched():
        trainer_module.Trainer(config, "unused", index, trainer_module.Limits())


def _run(lab, request):
    code = 70
    try:
        log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        outcome = lab.run(request["folder"], *request["words"])
        os.write(log, outcome.stderr.encode("utf-8"))
        code = outcome.code
    finally:
        os._exit(code)


def _answer(**answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
