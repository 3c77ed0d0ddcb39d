"""`edgeflownas extract RUN CODE OUT`: makes one subnet of a supernet a run folder, after a comparison of the two.

    RUN's checkpoint  ->  the weights of CODE, its recalibrated BN statistics as moving averages  ->  OUT

OUT is a run of the narrowed space that has trained no step, so every command that takes a run accepts it. It is made in
a temporary folder, read back, compared with the supernet's path, and then renamed. Built on `Trainer` and `Supernet`.
"""

import dataclasses
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from edgeflownas import config as configuration
from edgeflownas import signoff
from edgeflownas.config import Config
from edgeflownas.errors import RunFailed, UserError, run_cli
from edgeflownas.files import appearing, write_text
from edgeflownas.handover.named_run import code_of, named_run, run_parser
from edgeflownas.run.folder import CHECKPOINTS, CONFIG, LOG, MANIFEST, run_folder, utc_now
from edgeflownas.run.handover import Parent

if TYPE_CHECKING:
    from edgeflownas.data.fc2_index import FC2Index
    from edgeflownas.scoring.supernet import Supernet

COMPARED = 4  # validation samples on which the two networks must agree
# Relative to an output's largest value (at least 1 px). Allows another order of summation, but no wrong statistic.
# Measured on TensorFlow 2.21, one CPU, three random codes of edgeflownet_v1 with random weights: no difference at all.
TOLERANCE = 2e-5

EPILOG = """\
OUT is a run folder of the narrowed space: it holds the weights of CODE alone, its BN statistics, re-estimated as they \
are for scoring, as moving averages, and a manifest whose `parents` names the run, the checkpoint and its digests. It \
is finished only if all three outputs equal the supernet's on real validation samples.

examples:
  the best code of a run
    outputs/supernet 000001000 outputs/supernet/small
  score it, by the stored and by re-estimated statistics
    edgeflownas eval outputs/supernet/small --statistics stored
    edgeflownas eval outputs/supernet/small
  train on from it
    edgeflownas train --config outputs/supernet/small/config.yaml --experiment_name small_on
    --load_checkpoint --resume_experiment_name small

exit codes:
  0   done
  1   the extracted subnet is not the supernet's: nothing was written
  2   an error that you can fix, explained in one line
"""


class _Source(NamedTuple):
    """The parts taken from the supernet."""

    config: Config  # of the subnet's run; `extract` sets its folder
    index: "FC2Index"
    generation: Any
    statistics: Dict[str, Tuple[np.ndarray, np.ndarray]]  # batch norm -> mean, variance
    images: np.ndarray  # validation samples, uint8 [B, H, W, 6]
    outputs: List[np.ndarray]  # of the supernet's path on these images, coarse to fine, [B, h, w, 4]
    parent: Parent


def main(argv: Optional[List[str]] = None) -> int:
    """Extracts one subnet and returns the exit code."""
    parser, group = run_parser(
        "extract",
        "Takes one subnet out of a supernet: a run folder that can be trained on, scored, predicted with and exported.",
        EPILOG,
        "the supernet's run",
    )
    group.add_argument("code", metavar="CODE", help="the subnet, in digits")
    group.add_argument("out", metavar="OUT", help="the new run folder; must not exist, or be empty")
    args = parser.parse_args(argv)
    out = _new_folder(args.out)
    run = named_run(args)
    code = code_of(args.code, run.space)
    command = " ".join(shlex.quote(word) for word in ["edgeflownas", "extract"] + list(argv or sys.argv[1:]))
    from edgeflownas.engine.progress import Checking
    from edgeflownas.reporting.write import write_report
    from edgeflownas.scoring.supernet import Supernet

    with Supernet.load(run.folder, args.checkpoint, run.settings, Checking("checking files")) as supernet:
        parent, cost = extract(supernet, run.folder, code, out, args.checkpoint, command), supernet.cost(code)
    write_report(out)
    differences = ", ".join(f"{value:.1e}" for value in parent.difference)
    print(
        f"{code} of {run.folder}, checkpoint {args.checkpoint} (epoch {parent.epoch}, step {parent.global_step}): "
        f"{cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds\n"
        f"all three outputs equal the supernet's on {len(parent.samples)} validation samples: largest difference "
        f"{differences} px (tolerance {', '.join(f'{value:.1e}' for value in parent.tolerance)})\nrun folder {out}"
    )
    return 0


def extract(supernet: "Supernet", run: str, code: str, out: str, checkpoint: str, command: str) -> Parent:
    """Makes the run folder `out` for a subnet of the loaded `run`. RunFailed if the outputs of the two differ."""
    source = _take(supernet, run, code, checkpoint)
    output_dir, name = os.path.split(out)
    runtime = dataclasses.replace(source.config.runtime, output_dir=output_dir or ".", experiment_name=name)
    source = source._replace(config=dataclasses.replace(source.config, runtime=runtime))
    run_folder(source.config)  # UserError for a name that a run cannot have
    with appearing(out) as folder:
        manifest = _write(source, folder, command, os.path.join(out, CONFIG))
        parent = _proved(source, folder, code)
        manifest.update(parents=[parent._asdict()] + _parents_of(run))
    return parent


def _take(supernet: "Supernet", run: str, code: str, checkpoint: str) -> _Source:
    from edgeflownas.nas.arch_codec import parse

    config, generation = supernet.config, supernet.generation
    samples, images, _ = next(supernet.read(supernet.validation[:COMPARED]))
    digits = "".join(str(value) for value in parse(code, supernet.space))
    config = dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, arch_code=digits),
        eval=dataclasses.replace(config.eval, pool_size=1),
    )
    parent = Parent(
        run=os.path.abspath(run),
        checkpoint=checkpoint,
        generation=generation.name,
        sha256=generation.sha256,
        space=supernet.space.identity(),
        arch_code=digits,
        epoch=supernet.epoch,
        global_step=supernet.step,
        bn_recal_batches=config.eval.bn_recal_batches,
        difference=[],
        tolerance=[],
        samples=samples,
    )
    by_layer, outputs = supernet.statistics_by_layer(code), supernet.outputs(code, images)
    return _Source(config, supernet.index, generation, by_layer, images, outputs, parent)


def _write(source: _Source, folder: str, command: str, config_path: str) -> Any:
    """Lets the trainer write a run of no steps into `folder`. Returns its manifest."""
    from edgeflownas.engine.signals import StopSignals
    from edgeflownas.engine.trainer import Limits, Trainer
    from edgeflownas.run.manifest import Manifest
    from edgeflownas.run.provenance import machine, write_config
    from edgeflownas.tfcompat import device_names
    from edgeflownas.train_supernet import manifest_fields

    config = source.config
    defaults = {name: key.default for name, key in configuration.KEYS.items()}
    origins = {
        name: "default" if value == defaults[name] else source.parent.run
        for name, value in configuration.flat(config).items()
    }
    trainer = Trainer(config, folder, source.index, Limits(max_steps=0))
    try:
        gates: Dict[str, Any] = dict(signoff.states_for_manifest(trainer.space.name), unsigned=False)
        fields = manifest_fields(config, origins, source.index, trainer)
        resume = ["python", "-m", "edgeflownas.train_supernet", "--config", config_path, "--resume"]
        words = " ".join(shlex.quote(word) for word in resume)
        fields.update(machine(), resume_command=f"cd {shlex.quote(os.getcwd())} && {words}")
        invocation = {"command": command, "device": device_names(), "gates": gates, "ranks": 1}
        write_config(folder, config)
        manifest = Manifest.create(
            folder, initial_weights=source.generation.path, unsupported_gpu_allowed=False, **fields, **invocation
        )
        trainer.start(source.generation)
        _store(trainer, source.statistics)
        status = trainer.run(StopSignals(), lambda: None)
        manifest.update(status=status, **trainer.state.standing())
    finally:
        trainer.close()
    parent = source.parent
    write_text(
        os.path.join(folder, LOG),
        f"{utc_now()} INFO {parent.arch_code} extracted from {parent.run}, {parent.generation}\n",
    )
    return manifest


def _store(trainer: Any, statistics: Dict[str, Tuple[np.ndarray, np.ndarray]]) -> None:
    """Sets the moving averages to these statistics."""
    feed, initializers = {}, []
    for name, values in statistics.items():
        for part, value in zip(("moving_mean", "moving_variance"), values):
            variable = trainer.graph.net.variables.moving.get(f"{name}/{part}")
            if variable is not None:  # the supernet also has statistics of other options
                feed[variable.initial_value] = value
                initializers.append(variable.initializer)
    trainer.session.run(initializers, feed)


def _proved(source: _Source, folder: str, code: str) -> Parent:
    """Reads the run in `folder` and compares its outputs. Returns the parent with differences. RunFailed: too large."""
    from edgeflownas.engine.run_state import RunState
    from edgeflownas.run.checkpoint import CheckpointStore
    from edgeflownas.scoring.supernet import Supernet

    generation = CheckpointStore(os.path.join(folder, CHECKPOINTS)).load("last")
    state = RunState.from_dict(generation.state, generation.path)
    pool = np.array([state.space.arch_code], np.int32)
    with Supernet(state.config, generation, state, None, pool, stored_statistics=True) as alone:
        outputs = alone.outputs(code, source.images)
    difference = [float(np.abs(one - other).max()) for one, other in zip(outputs, source.outputs)]
    tolerance = [TOLERANCE * max(1.0, float(np.abs(want).max())) for want in source.outputs]
    if not all(got <= allowed for got, allowed in zip(difference, tolerance)):  # NaN fails, too
        raise RunFailed(
            f"the extracted subnet {code} is not the supernet's: its outputs differ by {difference} px, want at most "
            f"{tolerance}; nothing was written; check the run with: edgeflownas check"
        )
    return source.parent._replace(difference=difference, tolerance=tolerance)


def _parents_of(run: str) -> List[Any]:
    from edgeflownas.run.manifest import Manifest

    return list(Manifest.open(run).fields.get("parents", [])) if Manifest.exists(run) else []


def _new_folder(out: str) -> str:
    """`out` without a slash at its end. UserError if a file or a folder that is not empty is there."""
    out = os.path.normpath(out)
    if os.path.lexists(out) and not (os.path.isdir(out) and not os.listdir(out)):
        raise UserError(f"{out}: expected a new folder, found {_what(out)}; choose another OUT")
    return out


def _what(path: str) -> str:
    if not os.path.isdir(path):
        return "a file"
    return "a run" if os.path.exists(os.path.join(path, MANIFEST)) else "a folder with files in it"


if __name__ == "__main__":
    run_cli(main)
