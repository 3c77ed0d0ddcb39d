"""`edgeflownas export RUN`: float and int8 TFLite files of a run of one subnet, compared with TensorFlow.

Built on `tflite` (files), `Supernet` (TensorFlow's flow, the samples) and `vela`. The results of all checks and
measurements are in export.json beside the files.
"""

import argparse
import os
from typing import Any, Dict, List, Optional

from edgeflownas.arguments import positive
from edgeflownas.errors import RunFailed, UserError, run_cli
from edgeflownas.files import appearing, atomic_write_json, sha256_of
from edgeflownas.handover import vela
from edgeflownas.handover.measure import TENSORFLOW, calibration_samples, measure
from edgeflownas.handover.named_run import NamedRun, named_run, run_parser
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.run.folder import EXPORT_RECORD, EXPORTED, FLOAT_MODEL, INT8_MODEL
from edgeflownas.run.handover import Export

CALIBRATION = 100  # samples
TENSORFLOW_1 = "1."  # how its versions begin; its converter is not supported

EPILOG = f"""\
The input size is the run's own; batch norm is folded, by the statistics that the checkpoint stores. Input: both \
frames, RGB, scaled to [-1, 1]. Output: flow in pixels, x first, at full size. The int8 file has int8 at both ends; \
scale and zero point are in {EXPORT_RECORD}. Checked: the float file equals TensorFlow, the int8 file holds no float, \
both hold no other operators than a microcontroller's compiler knows. Measured: the EPE of TensorFlow and of both \
files on the same validation samples; what they need in flash, and the largest activation, a lower bound of their SRAM.

examples:
  both files
    outputs/supernet/small --int8
  with the estimate of Arm's compiler for a board with 1,432 KiB
    outputs/supernet/small --int8 --vela --arena_kib 1432

exit codes:
  0   done
  1   a file is not what it must be: nothing was written
  2   an error that you can fix, explained in one line
"""


def main(argv: Optional[List[str]] = None) -> int:
    """Exports one run and returns the exit code."""
    parser, group = run_parser(
        "export", "Writes TFLite files of an extracted subnet. On TensorFlow 2.", EPILOG, "a run of one subnet"
    )
    group.add_argument("--int8", action="store_true", help="also an int8 file")
    group.add_argument(
        "--calibration",
        type=positive,
        default=CALIBRATION,
        metavar="N",
        help="training samples by which the int8 file is quantised (default: %(default)s, or all if there are fewer)",
    )
    group.add_argument("--vela", action="store_true", help="add the estimate of Arm's compiler, if it is installed")
    group.add_argument("--accelerator", default="ethos-u55-64", metavar="NAME", help="for Vela (default: %(default)s)")
    group.add_argument(
        "--optimise",
        choices=("Performance", "Size"),
        default="Performance",
        help="what Vela optimises (default: %(default)s); Size needs less SRAM and may take several times as long",
    )
    group.add_argument("--arena_kib", type=positive, metavar="KIB", help="limit of Vela's arena (default: its own)")
    args = parser.parse_args(argv)
    if args.vela and not args.int8:
        raise UserError("--vela goes with --int8: it compiles the int8 file")
    program = vela.find() if args.vela else ""
    run = named_run(args)
    if run.space.arch_code is None:
        raise UserError(
            f"{run.folder} is a supernet; take a subnet out of it first: edgeflownas extract {run.folder} CODE OUT"
        )
    _print(_export(run, args, program), run.folder)
    return 0


def _export(run: NamedRun, args: argparse.Namespace, program: str) -> Export:
    from edgeflownas.engine.progress import Checking
    from edgeflownas.scoring.supernet import Supernet
    from edgeflownas.tfcompat import tf

    if tf.__version__.startswith(TENSORFLOW_1):
        raise UserError(
            f"export needs TensorFlow 2, found {tf.__version__}: give the same command in an environment of the extra "
            "tf2 (Python 3.9 or later); it reads this run folder as it is"
        )
    with Supernet.load(
        run.folder, args.checkpoint, run.settings, Checking("checking files"), stored_statistics=True
    ) as supernet:
        return _write(supernet, run.folder, args, program)


def _write(supernet: Any, folder: str, args: argparse.Namespace, program: str) -> Export:
    """Makes and checks the files in a temporary folder, then moves it into place. RunFailed if a check fails."""
    with appearing(os.path.join(folder, EXPORTED), replace=True) as temporary:
        record = _make(supernet, temporary, args, program)
        atomic_write_json(os.path.join(temporary, EXPORT_RECORD), record._asdict())
    return record


def _make(supernet: Any, folder: str, args: argparse.Namespace, program: str) -> Export:
    from edgeflownas.handover import tflite
    from edgeflownas.run.provenance import versions
    from edgeflownas.tfcompat import tf

    config, space, generation = supernet.config, supernet.space, supernet.generation
    chosen = calibration_samples(supernet.index.train, config.train.seed, args.calibration) if args.int8 else []
    images = (image[None] for _, batch, _ in supernet.read(chosen) for image in tflite.scaled(batch)) if chosen else ()
    contents = {FLOAT_MODEL: tflite.convert(config, space, generation.prefix)}
    if args.int8:
        contents[INT8_MODEL] = tflite.convert(config, space, generation.prefix, images)
    found = measure(supernet, {name: tflite.Runner(content) for name, content in contents.items()})
    if not found.difference[FLOAT_MODEL] <= found.tolerance:
        raise RunFailed(
            f"{FLOAT_MODEL} differs from TensorFlow by {found.difference[FLOAT_MODEL]:.1e} px, want at most "
            f"{found.tolerance:.1e}; nothing was written; export with the locked version of TensorFlow"
        )
    types = {FLOAT_MODEL: tflite.FLOAT_TYPES, INT8_MODEL: tflite.INT8_TYPES}
    models = {
        name: tflite.describe(name, content, found.epe[name], types[name])._asdict()
        for name, content in contents.items()
    }
    for name, content in contents.items():
        with open(os.path.join(folder, name), "wb") as handle:
            handle.write(content)
    wanted = vela.Wanted(args.accelerator, args.optimise, args.arena_kib)
    return Export(
        space=space.identity(),
        arch_code=to_digits(space.arch_code, space),
        checkpoint={
            "generation": generation.name,
            "epoch": supernet.epoch,
            "global_step": supernet.step,
            "sha256": generation.sha256,
        },
        dataset=supernet.index.fingerprint,
        input_size=[config.data.input_height, config.data.input_width],
        **supernet.cost(space.arch_code)._asdict(),
        epe=found.epe[TENSORFLOW],
        zero_flow_epe=found.zero_flow_epe,
        num_samples=found.num_samples,
        largest_difference=found.difference[FLOAT_MODEL],
        tolerance=found.tolerance,
        float_model=models[FLOAT_MODEL],
        int8_model=models.get(INT8_MODEL),
        calibration=[
            {"name": sample.name, "frame0": sha256_of(sample.img0), "frame1": sha256_of(sample.img1)}
            for sample in chosen
        ],
        vela=vela.estimate(program, os.path.join(folder, INT8_MODEL), wanted) if program else None,
        versions=versions(tf.__version__),
    )


def _print(record: Export, folder: str) -> None:
    print(
        "{} of {}, {}, epoch {}: {:,} parameters, {:,} multiply-adds at {}x{} (height x width)".format(
            record.arch_code,
            folder,
            record.checkpoint["generation"],
            record.checkpoint["epoch"],
            record.parameters,
            record.multiply_adds,
            *record.input_size,
        )
    )
    if record.calibration:
        print(f"calibrated on {len(record.calibration)} training samples")
    print("{:<14}{:>9}{:>12}{:>16}{:>20}".format("", "EPE px", "file bytes", "weights bytes", "largest activation"))
    print(f"{TENSORFLOW:<14}{record.epe:>9.4f}")
    for model in filter(None, (record.float_model, record.int8_model)):
        print("{file:<14}{epe:>9.4f}{size:>12,}{weights:>16,}{largest_activation:>20,}".format(**model))
    print(
        f"EPE on {record.num_samples} validation samples, zero flow {record.zero_flow_epe:.4f} px; the float file "
        f"differs from TensorFlow by {record.largest_difference:.1e} px at most (tolerance {record.tolerance:.1e})"
    )
    if record.int8_model:
        print("int8 file: " + ends_in_words(record.int8_model))
    if record.vela:
        print(vela.in_words(record.vela))
    print(f"files {os.path.join(folder, EXPORTED)}")


def ends_in_words(model: Dict[str, Any]) -> str:
    """The types, scales and zero points of an int8 file's input and output, in words."""
    return "; ".join(
        "{} {}, real = {:.6g} * (stored - {})".format(name, end["type"].lower(), end["scale"], end["zero_point"])
        for name, end in (("input", model["input"]), ("output", model["output"]))
    )


if __name__ == "__main__":
    run_cli(main)
