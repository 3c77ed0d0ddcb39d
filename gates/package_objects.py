"""The gates' access to objects of the package: networks, single cycles, a run with scripted scores.

Most of `gates/` uses only commands and files. The results of these objects are computed again in NumPy. The package is
imported inside functions, so that an error in it fails clauses instead of preventing pytest from starting.
"""

import io
import itertools
import logging
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from gates import oracles, runs, spaces
from gates.commands import ROOT


def package_space() -> Any:
    """The package's object for the space under test."""
    from edgeflownas.nas.search_space import get_space

    return get_space(spaces.chosen().name)


def small_config(**settings_given: Any) -> Any:
    """The configuration of the small runs."""
    from edgeflownas import config as configuration

    settings = dict(runs.small_settings(), **settings_given)
    return configuration.load(str(ROOT / runs.CONFIG), settings)[0]


# ---- the network


def images(seed: int, height: int, width: int) -> np.ndarray:
    """Two random images, uint8 [2, H, W, 6]."""
    return np.random.RandomState(seed).randint(0, 256, (2, height, width, 6)).astype(np.uint8)


class Subnets:
    """Runs single subnets of one supernet at several input sizes. Gammas and betas of batch norm are random, so that
    they have an effect."""

    def __init__(self, init_channels: int, sizes: Sequence[Tuple[int, int]], seed: int = 5) -> None:
        from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
        from edgeflownas.tfcompat import tf

        with tf.Graph().as_default():
            self.net = SupernetGraph(init_channels, package_space())
            self.code = tf.placeholder(tf.int32, [1, len(spaces.chosen().blocks)])
            self._images = {size: tf.placeholder(tf.uint8, (2,) + size + (6,)) for size in sizes}
            self._outputs = {size: self._forward(fed) for size, fed in self._images.items()}
            self.session = tf.Session()
            self.first = self.initial(seed)
            self._randomise_affine()

    def initial(self, seed: int) -> Dict[str, np.ndarray]:
        """Initialises every variable, also the moving averages. Returns {name: value}."""
        self.net.variables.initialize(self.session, seed)
        return self.session.run({variable.op.name: variable for variable in self.net.variables.all()})

    def _forward(self, fed: Any) -> Any:
        from edgeflownas.network.layers import BatchStatistics
        from edgeflownas.network.routing import SinglePath
        from edgeflownas.tfcompat import tf

        route = SinglePath(self.code, package_space())
        return self.net.forward(tf.cast(fed, tf.float32) / 127.5 - 1, route, BatchStatistics(self.net.variables))

    def _randomise_affine(self) -> None:
        draw = np.random.RandomState(8)
        affine = [variable for name, variable in self.net.variables.trained.items() if not name.endswith("/kernel")]
        feed = {variable.initial_value: draw.uniform(0.5, 1.5, variable.shape.as_list()) for variable in affine}
        self.session.run([variable.initializer for variable in affine], feed)

    def run(self, code: Sequence[int], pixels: np.ndarray) -> List[np.ndarray]:
        """The three outputs [B, h, w, 4] of one code, from coarse to fine."""
        size = pixels.shape[1:3]
        feed = {self._images[size]: pixels, self.code: [code]}
        return [paths[0] for paths in self.session.run(self._outputs[size], feed)]

    def run_fused(self, codes: np.ndarray, pixels: np.ndarray) -> List[List[np.ndarray]]:
        """The three outputs, each a list with one array per path, of a fair cycle's codes in one session run."""
        from edgeflownas.network.layers import BatchStatistics
        from edgeflownas.network.routing import FairPaths
        from edgeflownas.tfcompat import tf

        with self.session.graph.as_default():
            route = FairPaths(tf.constant(codes), package_space())
            scaled = tf.constant(pixels.astype(np.float32) / 127.5 - 1)
            return self.session.run(self.net.forward(scaled, route, BatchStatistics(self.net.variables)))

    def weights(self) -> Dict[str, np.ndarray]:
        """{name: array} of every trained variable."""
        return self.session.run(dict(self.net.variables.trained))


def variables_with_code_built_in(code: Sequence[int], init_channels: int) -> List[Tuple[str, Tuple[int, ...]]]:
    """Sorted (name, shape) of all variables of a graph that is built for one constant code."""
    from edgeflownas.network.layers import BatchStatistics
    from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
    from edgeflownas.network.routing import SinglePath
    from edgeflownas.tfcompat import tf

    with tf.Graph().as_default():
        net = SupernetGraph(init_channels, package_space())
        route = SinglePath(tf.constant([code]), package_space())
        net.forward(tf.placeholder(tf.float32, [1, 64, 65, 6]), route, BatchStatistics(net.variables))
        return sorted((variable.op.name, tuple(variable.shape.as_list())) for variable in tf.global_variables())


def variables_of(space: str, init_channels: int) -> Tuple[List[Any], List[Tuple[str, Tuple[int, ...]]]]:
    """([(block, kind, labels of its options)], sorted (name, shape) of all variables) of a named space."""
    from edgeflownas.nas.search_space import get_space
    from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
    from edgeflownas.tfcompat import tf

    named = get_space(space)
    blocks = [(block.name, block.kind, [block.label(i) for i in block.values]) for block in named.blocks]
    with tf.Graph().as_default():
        SupernetGraph(init_channels, named)
        return blocks, sorted((made.op.name, tuple(made.shape.as_list())) for made in tf.global_variables())


def refusal_of_a_space(change: Any) -> str:
    """The error of building the network with `change(the space's blocks)`; "" if there is none."""
    from edgeflownas.errors import UserError
    from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
    from edgeflownas.tfcompat import tf

    space = package_space()
    with tf.Graph().as_default():
        try:
            SupernetGraph(2, space._replace(blocks=tuple(change(list(space.blocks)))))
        except UserError as error:
            return str(error)
    return ""


# ---- single cycles


class Counting:
    """A session that counts its runs."""

    def __init__(self, session: Any) -> None:
        self.session, self.runs = session, 0

    def run(self, *arguments: Any, **named: Any) -> Any:
        self.runs += 1
        return self.session.run(*arguments, **named)


class Cycles(NamedTuple):
    """A training graph of the small configuration in this process."""

    graph: Any
    session: Any

    def values(self, variables: Any) -> Dict[str, np.ndarray]:
        """{name: value} of variables that are in the order of the trained ones, with these names."""
        return self.session.run(dict(zip(self.graph.net.variables.trained, variables)))

    def everything(self) -> Dict[str, np.ndarray]:
        """{name: value} of every variable that a checkpoint holds."""
        return self.session.run({variable.op.name: variable for variable in self.graph.saved})

    def slots(self) -> List[Dict[str, np.ndarray]]:
        """Adam's first and second moments, each {name: value}."""
        trained = self.graph.net.variables.trained.items()
        return self.session.run(
            [{name: self.graph.adam.get_slot(weight, slot) for name, weight in trained} for slot in ("m", "v")]
        )

    def load(self, variables: Any, values: Any) -> None:
        """Sets variables in one session run."""
        feed = {variable.initializer.inputs[1]: value for variable, value in zip(variables, values)}
        self.session.run([variable.initializer for variable in variables], feed)

    def cycle(self, codes: np.ndarray, batch: Any, lr: float) -> Tuple[Any, int]:
        """Runs one cycle. Returns its result and the number of session runs."""
        counting = Counting(self.session)
        return self.graph.run(counting, codes, batch[0], batch[1], lr), counting.runs


def training_graph(**settings: Any) -> Cycles:
    """The training graph of the small configuration."""
    from edgeflownas.engine.cycle import CycleGraph
    from edgeflownas.tfcompat import tf

    with tf.Graph().as_default():
        graph = CycleGraph(small_config(**settings), package_space())
        session = tf.Session()
    return Cycles(graph, session)


def noise_batch(seed: int) -> Tuple[np.ndarray, np.ndarray]:
    """Random images and a flow; a fifth of the flow values exceed the training clip."""
    draw = np.random.RandomState(seed)
    shape = (runs.BATCH, runs.HEIGHT, runs.WIDTH)
    return draw.randint(0, 256, shape + (6,)).astype(np.uint8), draw.normal(0, 40, shape + (2,)).astype(np.float32)


def flat(values: Dict[str, np.ndarray]) -> np.ndarray:
    """All values of {name: array} as one vector."""
    return np.concatenate([value.ravel() for value in values.values()])


def noise_of_norm(draw: np.random.RandomState, like: Dict[str, np.ndarray], norm: float) -> Dict[str, np.ndarray]:
    """{name: float32 noise of the shape of `like[name]`} with the global norm `norm`."""
    noise = {name: draw.normal(0, 1, value.shape) for name, value in like.items()}
    length = np.linalg.norm(flat(noise))
    return {name: (value * norm / length).astype(np.float32) for name, value in noise.items()}


def slope(
    weights: Dict[str, np.ndarray], direction: Dict[str, np.ndarray], codes: Any, batch: Any, piece: int = 0, **how: Any
) -> float:
    """Derivative of the mean loss of `codes` along `direction` {name: array}, by central differences in float64.

    The two points are only 2e-6 apart: the loss has kinks (ReLU, absolute value), and a longer step would cross some.
    """
    size, losses = 1e-6 / np.linalg.norm(flat(direction)), []
    for sign in (1, -1):
        moved = dict(weights, **{name: weights[name] + sign * size * part for name, part in direction.items()})
        losses.append(np.mean([oracles.path_loss(moved, code, *batch, piece=piece, **how) for code in codes]))
    return float((losses[0] - losses[1]) / (2 * size))


def applied_gradient_sum(training: Cycles, weights: Dict[str, np.ndarray], result: Any, wd: float) -> Dict[str, Any]:
    """The averaged gradient of the loss without decay, from Adam's first moment after its first step, with clip and
    decay undone."""
    scale = result.grad_norm_before / result.grad_norm_after
    decay = {name: wd * value if name.endswith("/kernel") else 0.0 for name, value in weights.items()}
    return {name: moment.astype(np.float64) * 10 * scale - decay[name] for name, moment in training.slots()[0].items()}


def parts_of_the_network(names: Any) -> Dict[str, List[str]]:
    """{part: names of its weights}; a part is one option of a block, or "shared"."""
    scopes = {f"{block.name}/{block.scope(i)}" for block in spaces.chosen().blocks for i in range(len(block.options))}
    parts: Dict[str, List[str]] = {}
    for name in names:
        option = "/".join(name.split("/")[1:3])
        parts.setdefault(option if option in scopes else "shared", []).append(name)
    return parts


# ---- a run on scripted scores

# Epoch 3 is the best, although it improves by less than min_delta; later epochs do not improve, and the patience of 4
# ends the run after epoch 6. From epoch 4 the EPE is that of zero flow, 36.4 px; the third such evaluation, in epoch 6,
# shows that the supernet collapsed after it had learned.
SCRIPT, SCRIPT_PATIENCE, SCRIPT_BEST, SCRIPT_COLLAPSE = [5.0, 3.0, 2.999, 36.0, 37.0, 36.5, 0.5], 4, 3, 6


class Scripted(NamedTuple):
    """The result of a run that trained normally, but whose evaluations had the EPEs of `SCRIPT`."""

    folder: Any
    status: str
    evaluations: int
    weights: List[Dict[str, np.ndarray]]  # after each epoch, read from the session
    warnings: List[str]


def run_script(data: Path, folder: Path):
    """Trains in `folder` with scripted scores until early stop. Returns a `Scripted`."""
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
    said, log = io.StringIO(), logging.getLogger("edgeflownas")
    handler = logging.StreamHandler(said)
    handler.setLevel(logging.WARNING)
    log.addHandler(handler)
    try:
        trainer.start(None)
        status = trainer.run(StopSignals(), lambda: None)
    finally:
        trainer.close()
        log.removeHandler(handler)
    return Scripted(folder, status, trainer.state.evaluations, taken, said.getvalue().splitlines())
