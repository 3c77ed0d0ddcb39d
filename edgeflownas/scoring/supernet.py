"""A trained supernet as a Python object: load a run, score any of its subnets.

    from edgeflownas.api import Supernet

    with Supernet.load("outputs/supernet", checkpoint="best") as supernet:
        for result in supernet.evaluate(["000001000", "2,1,0,0,1,2,2,1,0"]):
            print(result.arch_code, result.epe, result.parameters, result.multiply_adds)

Built on `engine.evaluate`. Importing this module imports TensorFlow. To choose a GPU, set CUDA_VISIBLE_DEVICES before.
"""

import os
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.data.fc2_index import FC2Index, Sample, build_index
from edgeflownas.data.pipeline import EvalPipeline
from edgeflownas.engine.evaluate import Interrupted, Scorer, Scores, StoredScorer, read_batches, score_codes
from edgeflownas.engine.run_state import RunState
from edgeflownas.engine.session import evaluation_pipelines, session_config
from edgeflownas.errors import RunFailed, UserError
from edgeflownas.nas.arch_codec import parse, to_digits
from edgeflownas.nas.cost import Cost, subnet_cost
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
from edgeflownas.run.checkpoint import CheckpointStore, Generation
from edgeflownas.run.folder import CHECKPOINTS, pool_name
from edgeflownas.run.pool import load_pool
from edgeflownas.scoring.frames import paired
from edgeflownas.scoring.grouping import groups
from edgeflownas.tfcompat import restore, tf

__all__ = ["Interrupted", "Result", "Supernet"]

CHUNK = 12  # single codes per pass over the validation data, so that a batch is decoded once for all of them
PREFETCH = 2  # batches, as in the trainer's evaluation
FREE_SECTION = "eval."  # its keys may differ from the run's: they say how a subnet is scored


class Result(NamedTuple):
    """The score of one subnet. EPE in pixels; `multiply_adds` per image pair of the run's input size."""

    arch_code: str  # digits: "012001210"
    epe: float
    zero_flow_epe: float  # of a flow of zeros on the same samples
    parameters: int
    multiply_adds: int
    bn_recal_batches: int  # 0: stored statistics
    num_samples: int
    epe_samples: np.ndarray  # float32 [num_samples], in validation order; `epe` is their mean


class Supernet:
    """The weights of one checkpoint, ready to score subnets. Made by `load`; `close` frees the session."""

    def __init__(
        self,
        config: Config,
        generation: Generation,
        state: RunState,
        index: Optional[FC2Index],
        pool: np.ndarray,
        stored_statistics: bool = False,
    ) -> None:
        self.config, self.generation, self.state, self.index = config, generation, state, index
        self.space = state.space
        self.pool = pool  # int32 [pool_size, blocks]
        self.stored_statistics = stored_statistics
        self._scorers: Dict[Tuple[int, int, int], Scorer] = {}
        self._statistics: Dict[Tuple[int, ...], np.ndarray] = {}
        self._bn_batches: List[Any] = []
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._session = tf.Session(config=session_config(config))  # before the graph, as in the trainer
            self._net = SupernetGraph(config.network.init_channels, self.space)
            if index is not None:
                self._val, self._bn = evaluation_pipelines(config, index)
            saver = tf.train.Saver(self._net.variables.all())
            try:
                restore(saver, self._session, generation.prefix)
            except tf.errors.OpError as error:
                self._session.close()
                raise UserError(
                    f"cannot restore {generation.prefix}: {str(error).splitlines()[0]}; if the run goes on meanwhile, "
                    "try again"
                ) from error

    @classmethod
    def load(
        cls,
        run_folder: str,
        checkpoint: str = "best",
        settings: Optional[Dict[str, Any]] = None,
        progress: Optional[Callable[[int, int], None]] = None,
        choose: Optional[Callable[[Config, FC2Index], Sequence[Sample]]] = None,
        stored_statistics: bool = False,
        other_data: bool = False,
        with_data: bool = True,
    ) -> "Supernet":
        """Opens a run's "best" or "last" checkpoint. Before the first evaluation, "best" is the last one.

        settings           {"section.key": value}, replaces values of the run's configuration. Only paths, `runtime.*`
                           and `eval.*` (how a subnet is scored) may differ from the run.
        progress           `progress(done, total)` is called during the data check.
        choose             `choose(config, index)` returns the samples to score, instead of the first
                           `eval.num_samples` of the validation set.
        stored_statistics  Scores with the stored moving averages, without BN recalibration. For a run of one subnet.
        other_data         Accepts another data set than the run's.
        with_data          False: opens no data set, which is enough for `predict` with stored statistics.

        Raises UserError: no such run, damaged checkpoint, other configuration, other data.
        """
        generation = CheckpointStore(os.path.join(run_folder, CHECKPOINTS)).load(checkpoint)
        state = RunState.from_dict(generation.state, generation.path)
        config = _with_settings(state.config, settings or {}, run_folder)
        if stored_statistics and state.space.arch_code is None:
            raise UserError(
                f"{run_folder} is a supernet: its moving averages are a mixture of all subnets and fit none; leave out "
                "--statistics stored, or extract the subnet first: edgeflownas extract"
            )
        pool = _pool(run_folder, state, config)
        if not with_data:
            return cls(config, generation, state, None, pool, stored_statistics)
        index = build_index(config.data, config.train.seed, progress=progress)
        if index.fingerprint != state.dataset and not other_data:
            raise UserError(
                f"{run_folder} was trained on other samples than those in {config.data.base_path} (fingerprint "
                f"{state.dataset[:12]}..., found {index.fingerprint[:12]}...); name its "
                "data with --base_path and --list_dir, or score it on these with --other_data"
            )
        if choose is not None:
            index = index._replace(val=tuple(choose(config, index)))
            config = replace(config, eval=replace(config.eval, num_samples=0))
        return cls(config, generation, state, index, pool, stored_statistics)

    @property
    def epoch(self) -> int:
        """Epochs that had been evaluated when the checkpoint was made."""
        return self.state.evaluations

    @property
    def step(self) -> int:
        """Cycles that had been trained when the checkpoint was made."""
        return self.state.step

    def cost(self, code: Any) -> Cost:
        """A subnet's parameters and its multiply-adds per image pair of the run's size. ValueError: wrong code."""
        data = self.config.data
        return subnet_cost(code, self._net.layers, self.space, data.input_height, data.input_width)

    def evaluate(self, codes: Sequence[Any]) -> List[Result]:
        """Scores subnets, given in any spelling of an arch code. Returns the results in the order of `codes`.

        Each subnet gets BN recalibration over `eval.bn_recal_batches` training batches, then EPE on the validation
        samples. Codes that fit together run at once (`grouping.py`); their scores may differ in the last digits from
        those of codes that run alone. Raises ValueError for a wrong code, DataError for a damaged file, RunFailed if
        an EPE is not finite.
        """
        found = {result.arch_code: result for chunk in self.stream(codes) for result in chunk}
        return [found[to_digits(code, self.space)] for code in codes]

    def stream(
        self,
        codes: Sequence[Any],
        stop: Callable[[], bool] = lambda: False,
        progress: Optional[Callable[[int, int], None]] = None,
    ) -> Iterator[List[Result]]:
        """Like `evaluate`, but yields results of some codes at a time, each code once. Never yields partial results.

        `progress(done, total)` is called for each validation batch that is scored for the current codes. The run's
        whole pool runs at once, and so does each group of other codes. Codes without a group run one by one, `CHUNK`
        per pass over the data. Raises `Interrupted` once `stop()` is true.
        """
        rows = np.array([parse(code, self.space) for code in codes], np.int32).reshape(-1, len(self.space.blocks))
        if np.array_equal(rows, self.pool):
            yield self._results(rows, self._score(rows, len(rows), stop, progress))
            return
        alone: List[np.ndarray] = []
        for group in groups(_distinct(rows), self.space):
            if len(group.codes) == 1:
                alone.append(group.codes[0])
            else:
                scores = self._score(group.codes, len(group.codes), stop, progress)
                yield self._results(group.codes[: len(group.positions)], scores)
        for first in range(0, len(alone), CHUNK):
            part = np.array(alone[first : first + CHUNK])
            yield self._results(part, self._score(part, 1, stop, progress))

    def score_alone(self, codes: Sequence[Any], stop: Callable[[], bool] = lambda: False) -> Scores:
        """EPE of each code and sample. Every code runs alone, so its score has the same bits in any list.

        Raises as `evaluate`, and `Interrupted` once `stop()` is true.
        """
        rows = np.array([parse(code, self.space) for code in codes], np.int32)
        return self._score(rows, 1, stop, None)

    def statistics(self, code: Any) -> np.ndarray:
        """The BN means and variances with which a subnet is scored, as one vector. `Scorer.by_layer` splits it."""
        row = parse(code, self.space)
        if row not in self._statistics:
            with self._graph.as_default():
                data = self.config.data
                scorer = self._scorer(1, data.input_height, data.input_width)
                self._read_bn_batches()
                self._statistics[row] = scorer.recalibrate(self._session, np.array([row], np.int32), self._bn_batches)
        return self._statistics[row]

    def statistics_by_layer(self, code: Any) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
        """`statistics` as (mean, variance) by the name of each batch norm."""
        data = self.config.data
        vector = self.statistics(code)
        return self._scorer(1, data.input_height, data.input_width).by_layer(vector)

    @property
    def validation(self) -> Tuple[Sample, ...]:
        """The samples on which subnets are scored, in their order."""
        return self.index.val[: self.config.eval.num_samples or None]

    def read(self, samples: Sequence[Sample]) -> Iterator[Tuple[List[str], np.ndarray, np.ndarray]]:
        """Yields batches of the centre crops of `samples`: names, images uint8 [B, H, W, 6], flow [B, H, W, 2]."""
        data, evaluation = self.config.data, self.config.eval
        with self._graph.as_default():
            sizes = (
                evaluation.batch_size,
                data.input_height,
                data.input_width,
                self.config.runtime.num_workers,
                PREFETCH,
            )
            pipeline = EvalPipeline(samples, *sizes)
        for number, (images, flow) in enumerate(read_batches(self._session, pipeline)):
            yield [sample.name for sample, _, _ in pipeline.batch(number)], images, flow

    def flow(self, code: Any, images: np.ndarray) -> np.ndarray:
        """The flow [B, H, W, 2] in pixels, x first, of `images` uint8 [B, H, W, 6], without padding."""
        return self._run(code, images, lambda scorer: scorer.predictions)[0]

    def outputs(self, code: Any, images: np.ndarray) -> List[np.ndarray]:
        """The three outputs [B, h, w, 4] of a subnet, from coarse to fine; `images` uint8 [B, H, W, 6]."""
        return [paths[0] for paths in self._run(code, images, lambda scorer: scorer.outputs)]

    def predict(self, code: Any, frame0: np.ndarray, frame1: np.ndarray) -> np.ndarray:
        """The flow from `frame0` to `frame1`, float32 [H, W, 2] in pixels, x first.

        The frames are uint8 RGB [H, W, 3] with sides of at least 64 pixels. Their edge is repeated at the right and
        bottom, so that the network strides over them as over training crops. A pair of the run's own size is not
        padded. Raises ValueError for a wrong code, UserError for unfit frames, DataError for a damaged file among the
        BN recalibration samples, RunFailed if the flow is not finite.
        """
        data = self.config.data
        images = paired(frame0, frame1, data.input_height, data.input_width)
        flow = self.flow(code, images[None])[0, : frame0.shape[0], : frame0.shape[1]]
        if not np.all(np.isfinite(flow)):
            raise RunFailed(f"the flow of {to_digits(code, self.space)} is not finite: its weights have diverged")
        return flow

    def _run(self, code: Any, images: np.ndarray, fetch: Callable[[Scorer], Any]) -> Any:
        """The values of what `fetch` selects from the graph of one code, at the size of `images`."""
        row, statistics = parse(code, self.space), self.statistics(code)
        with self._graph.as_default():
            scorer = self._scorer(1, *images.shape[1:3])
        feed = {scorer.codes: [row], scorer.statistics: statistics, scorer.images: images}
        return self._session.run(fetch(scorer), feed)

    def close(self) -> None:
        """Frees the session. The object cannot be used afterwards."""
        self._session.close()

    def __enter__(self) -> "Supernet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scorer(self, num_paths: int, height: int, width: int) -> Scorer:
        key = (num_paths, height, width)
        if key not in self._scorers:
            kind = StoredScorer if self.stored_statistics else Scorer
            self._scorers[key] = kind(self._net, height, width, num_paths)
        return self._scorers[key]

    def _read_bn_batches(self) -> None:
        if not self._bn_batches and not self.stored_statistics:
            self._bn_batches = list(read_batches(self._session, self._bn))

    def _score(
        self, rows: np.ndarray, num_paths: int, stop: Callable[[], bool], progress: Optional[Callable[[int, int], None]]
    ) -> Scores:
        def scored(batches: int) -> None:
            if progress is not None:
                progress(batches, self._val.num_batches)

        with self._graph.as_default():
            data = self.config.data
            scorer = self._scorer(num_paths, data.input_height, data.input_width)
            self._read_bn_batches()
            return score_codes(
                self._session,
                scorer,
                rows,
                self._bn_batches,
                read_batches(self._session, self._val),
                stop=stop,
                progress=scored,
            )

    def _results(self, rows: np.ndarray, scores: Scores) -> List[Result]:
        costs = [self.cost(row) for row in rows]
        return [
            Result(
                to_digits(row, self.space),
                float(epe),
                scores.zero_flow_epe,
                cost.parameters,
                cost.multiply_adds,
                scores.bn_batches,
                scores.num_samples,
                samples,
            )
            for row, epe, samples, cost in zip(rows, scores.epe, scores.epe_samples, costs)
        ]


def _distinct(rows: np.ndarray) -> np.ndarray:
    """The rows without repetitions, in the order of their first occurrence."""
    first = {row.tobytes(): position for position, row in reversed(list(enumerate(rows)))}
    return rows[sorted(first.values())]


def _pool(run_folder: str, state: RunState, config: Config) -> np.ndarray:
    """The run's own pool, or a new one if the settings change its size."""
    size = config.eval.pool_size
    if size != state.config.eval.pool_size:
        return build_pool(config.train.arch_seed, size, state.space)
    return load_pool(os.path.join(run_folder, pool_name(size)), size, state.space)


def _with_settings(stored: Config, settings: Dict[str, Any], run_folder: str) -> Config:
    """The run's configuration with `settings`. Raises UserError that names each key that may not differ but does."""
    sections = configuration.to_dict(stored)
    for name, value in settings.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    config = configuration.from_dict(sections, "settings")
    differing = [name for name in configuration.diff(stored, config) if not name.startswith(FREE_SECTION)]
    if differing:
        old, new = configuration.flat(stored), configuration.flat(config)
        raise UserError(
            "the run in {} has another configuration: {}; give these keys the values it was trained with, or "
            "leave them out (and --config with them) to take them from the checkpoint".format(
                run_folder, "; ".join(f"{name} was {old[name]!r}, is {new[name]!r}" for name in differing)
            )
        )
    return config
