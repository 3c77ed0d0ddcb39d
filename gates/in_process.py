"""The trainer's own parts in this process, watched from outside: single cycles, one evaluation, a run with scripted
scores.

What they compute is computed again in NumPy, on weights from checkpoints and on crops read from the files.
"""

import itertools
from pathlib import Path
from typing import Any, Dict, List, NamedTuple
from unittest import mock

import numpy as np

from edgeflownas import config as configuration
from gates import oracles, runs
from gates.asserts import assert_equal
from gates.commands import ROOT


def small_config(**settings_given):
    return configuration.load(str(ROOT / runs.CONFIG), dict(runs.SMALL, **settings_given))[0]


class Cycles(NamedTuple):
    """A training graph of the small configuration in this process."""

    graph: Any
    session: Any

    def values(self, variables):
        """{name: value} of variables in the order of the trained ones."""
        return self.session.run(dict(zip(self.graph.net.variables.trained, variables)))

    def slots(self):
        """Adam's first and second moments."""
        trained = self.graph.net.variables.trained.items()
        return self.session.run(
            [{name: self.graph.adam.get_slot(weight, slot) for name, weight in trained} for slot in ("m", "v")]
        )

    def load(self, variables, values):
        """Sets variables, in one run."""
        feed = {variable.initializer.inputs[1]: value for variable, value in zip(variables, values)}
        self.session.run([variable.initializer for variable in variables], feed)


def training_graph():
    """The training graph of the small configuration."""
    from edgeflownas.engine.cycle import CycleGraph
    from edgeflownas.tfcompat import tf

    with tf.Graph().as_default():
        graph = CycleGraph(small_config())
        session = tf.Session()
    return Cycles(graph, session)


def noise_batch(seed):
    draw = np.random.RandomState(seed)
    shape = (runs.BATCH, runs.HEIGHT, runs.WIDTH)
    return draw.randint(0, 256, shape + (6,)).astype(np.uint8), draw.normal(0, 9, shape + (2,)).astype(np.float32)


def flat(values):
    """All values of {name: array} as one vector."""
    return np.concatenate([value.ravel() for value in values.values()])


def noise_of_norm(draw, like, norm):
    """{name: float32 noise of the shape of `like[name]`}, all of it together of length `norm`."""
    noise = {name: draw.normal(0, 1, value.shape) for name, value in like.items()}
    length = np.linalg.norm(flat(noise))
    return {name: (value * norm / length).astype(np.float32) for name, value in noise.items()}


FAIR = np.array([[0, 1, 2, 0, 1, 2, 0, 1, 2], [1, 2, 0, 2, 0, 1, 1, 2, 0], [2, 0, 1, 1, 2, 0, 2, 0, 1]], np.int32)


def slope(weights, direction, codes, images, flow):
    """Derivative of the mean loss of `codes` along `direction` {name: array}, by central differences in float64."""
    size, losses = 1e-6, []
    for sign in (1, -1):
        moved = dict(weights, **{name: weights[name] + sign * size * part for name, part in direction.items()})
        losses.append(sum(oracles.loss(oracles.Network(moved, code).forward(images), flow) for code in codes) / 3)
    return (losses[0] - losses[1]) / (2 * size)


def parts_of_the_network(names):
    """{part: names of its weights}: every option of every block, and what all paths share."""
    parts: Dict[str, List[str]] = {}
    for name in names:
        words = name.split("/")
        option = words[1] + "/" + words[2] if words[2].startswith(("deep", "k")) else "shared"
        parts.setdefault(option, []).append(name)
    return parts


class Evaluated(NamedTuple):
    """One evaluation of the uninterrupted run's last checkpoint, watched from outside and done again in NumPy."""

    codes: List[str]
    epe: np.ndarray  # [12] what the trainer's evaluation gave
    before: List[np.ndarray]  # every saved variable, and after the evaluation
    after: List[np.ndarray]
    used: Dict[str, List[Any]]  # layer -> (mean, variance) of each application, as fed for scoring
    batches_estimated: int  # batches that were run for re-estimation
    epe_of_predictions: np.ndarray  # [12] NumPy on the predictions and the flow files
    plain_statistics: List[oracles.Statistics]  # per code: the plain mean over eight batches, by NumPy
    plain_epe: np.ndarray  # [12] EPE of NumPy's network with them


def watched_evaluation(trainer):
    """Runs the trainer's own evaluation; (scores, statistics fed, batches re-estimated)."""
    fed, estimated = [], []
    errors, batch_statistics = trainer.scorer.errors, trainer.scorer.batch_statistics

    def watch_errors(session, codes, statistics, batch):
        fed.append(statistics)
        return errors(session, codes, statistics, batch)

    def watch_statistics(session, codes, images):
        estimated.append(images)
        return batch_statistics(session, codes, images)

    trainer.scorer.errors, trainer.scorer.batch_statistics = watch_errors, watch_statistics
    scores = trainer.score_pool()
    return scores, fed[0], estimated


def by_layer(vector, applications, channels):
    """Takes the vector of statistics apart: layer -> [(mean, variance)] of its applications."""
    used, start = {}, 0
    for name, times in applications.items():
        size = channels[name]
        pieces = [vector[start + i * size : start + (i + 1) * size] for i in range(2 * times)]
        used[name] = list(zip(pieces[::2], pieces[1::2]))
        start += 2 * times * size
    assert_equal(what="length of the statistics", got=len(vector), want=start)
    return used


def evaluate_again(data: Path, run_folder: Path, scratch: Path):
    """Evaluates the last checkpoint of `run_folder` with a trainer's own graph, and in NumPy."""
    trainer, applications = watched_trainer(data, scratch)
    names = [[f"train/{runs.SAMPLES + i:07d}" for i in part] for part in ((0, 1), (2,))]
    truth = [runs.centre_crops(data, part) for part in names]
    flow = np.concatenate([batch.flow for batch in truth])
    try:
        trainer.saver.restore(trainer.session, runs.prefix(run_folder, "last"))
        # Away from where the run's evaluations may have left them: one that overwrote them would write the same values
        # again.
        moving = list(trainer.graph.net.variables.moving.values())
        Cycles(trainer.graph, trainer.session).load(moving, [value + 1 for value in trainer.session.run(moving)])
        before = trainer.session.run(trainer.graph.saved)
        scores, vector, estimated = watched_evaluation(trainer)
        after = trainer.session.run(trainer.graph.saved)
        predicted = [trainer.scorer.predict(trainer.session, trainer.pool, vector, batch.images) for batch in truth]
        bn = [runs.centre_crops(data, [sample.name for sample, _, _ in trainer.bn_pipeline.batch(i)]) for i in range(8)]
    finally:
        trainer.close()
    assert_equal(what="images of the re-estimation", got=np.stack(estimated[:8]), want=np.stack([b.images for b in bn]))
    pool = [list(map(int, code)) for code in trainer.pool]
    statistics, plain_epe = plain_evaluation(
        runs.weights_of(runs.tensors(runs.prefix(run_folder, "last"))), pool, bn, truth
    )
    return Evaluated(
        ["".join(map(str, code)) for code in pool],
        scores.epe,
        before,
        after,
        by_layer(vector, applications, trainer.graph.net.variables.norms),
        len(estimated),
        np.array([oracles.epe(path, flow) for path in np.concatenate(predicted, axis=1)]),
        statistics,
        plain_epe,
    )


def watched_trainer(data: Path, folder: Path):
    """A trainer of the small configuration, and how often its pool graph applies each layer: the layout of the
    statistics."""
    from edgeflownas.data.fc2_index import build_index
    from edgeflownas.engine import evaluate
    from edgeflownas.engine.trainer import Limits, Trainer

    applications: Dict[str, int] = {}

    class Watched(evaluate.StoredStatistics):
        def __init__(self, variables, vector, times):
            applications.update(times)
            super().__init__(variables, vector, times)

    config = small_config(**{"data.base_path": str(data), "runtime.deterministic": True})
    with mock.patch.object(evaluate, "StoredStatistics", Watched):
        return Trainer(config, str(folder), build_index(config.data, 42), Limits()), applications


def plain_evaluation(weights, pool, bn, truth):
    """NumPy alone: statistics of each code as the plain mean over the batches, and its EPE with them."""
    statistics, epe = [], []
    for code in pool:
        noted = []
        for batch in bn:
            network = oracles.Network(weights, code)
            network.forward(batch.images)
            noted.append(network.noted)
        mean = {
            name: tuple(np.mean([one[name][part] for one in noted], axis=0) for part in (0, 1)) for name in noted[0]
        }
        statistics.append(mean)
        flows = [
            oracles.residual_sums(oracles.Network(weights, code, mean).forward(batch.images))[-1] for batch in truth
        ]
        epe.append(oracles.epe(np.concatenate(flows)[..., :2], np.concatenate([batch.flow for batch in truth])))
    return statistics, np.array(epe)


# Epoch 3 is the best, although it counts for no improvement; then nothing more, and the patience of 3 ends it after
# epoch 5.
SCRIPT, SCRIPT_PATIENCE, SCRIPT_BEST = [5.0, 3.0, 2.999, 3.5, 3.25, 1.0, 0.5], 3, 3


class Scripted(NamedTuple):
    """A run that trained as ever, while its evaluations' EPE were those of `SCRIPT`."""

    folder: Any
    status: str
    evaluations: int
    weights: List[Dict[str, np.ndarray]]  # after each epoch, taken from the session


def run_script(data: Path, folder: Path):
    """Trains in `folder` until early stop ends it."""
    from edgeflownas.data.fc2_index import build_index
    from edgeflownas.engine.signals import StopSignals
    from edgeflownas.engine.trainer import Limits, Trainer

    config = small_config(
        **{
            "data.base_path": str(data),
            "eval.patience": SCRIPT_PATIENCE,
            "train.num_epochs": 7,
            "runtime.deterministic": True,
        }
    )
    trainer = Trainer(config, str(folder), build_index(config.data, 42), Limits())
    taken: List[Dict[str, np.ndarray]] = []
    scores = itertools.chain(SCRIPT)
    evaluate = trainer.score_pool

    def score_pool(stop=lambda: False):
        taken.append(trainer.session.run({variable.op.name: variable for variable in trainer.graph.saved}))
        return evaluate(stop)._replace(epe=np.full(12, next(scores)))

    trainer.score_pool = score_pool
    try:
        trainer.start(None)
        status = trainer.run(StopSignals(), lambda: None)
    finally:
        trainer.close()
    return Scripted(folder, status, trainer.state.evaluations, taken)
