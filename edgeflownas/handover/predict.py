"""`edgeflownas predict RUN CODE FRAME0 FRAME1 --out DIR`: the flow of pairs of the user's own images.

Built on `Supernet.predict`. Per pair it writes a `.flo` in pixels of the images, a colour picture with wheel and scale,
and the same over the first image.
"""

import os
import shlex
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from edgeflownas.data.flow_io import write_flo
from edgeflownas.errors import DataError, UserError, run_cli
from edgeflownas.files import os_errors
from edgeflownas.handover.named_run import code_of, named_run, run_parser
from edgeflownas.handover.picture_file import read_picture
from edgeflownas.scoring.supernet_eval import REESTIMATED, STORED

SUFFIXES = (".flo", "_flow.png", "_overlay.png")

EPILOG = """\
Images of any one size from 64x64 pixels up: PNG, JPEG or PPM; RGB, grey or palette. They are padded at the right and \
bottom by repetition, to the next size that the network strides over as over its training crops, and the flow is \
cropped back; a pair of the run's own size is not padded. The flow is that of the evaluation: BN statistics are \
re-estimated on the run's training samples. With --statistics stored, of an extracted subnet, no data set is needed.

Per pair, named after its first image: .flo, _flow.png, _overlay.png.

examples:
  one pair
    outputs/supernet 000001000 frame0.png frame1.png --out flow
  many, a pair of files per line
    outputs/supernet/small 000001000 --pairs pairs.txt --out flow --statistics stored
"""


class Pair(NamedTuple):
    """Two pictures and the common name of their result files."""

    name: str
    frame0: str
    frame1: str


def main(argv: Optional[List[str]] = None) -> int:
    """Predicts one pair or many, and returns the exit code."""
    parser, group = run_parser(
        "predict", "Writes the flow of pairs of images, by any subnet of a run.", EPILOG, "the run"
    )
    group.add_argument("code", metavar="CODE", help="the subnet, in digits")
    group.add_argument("frames", metavar="FRAME", nargs="*", help="the first and the second image")
    group.add_argument(
        "--pairs", metavar="FILE", help="instead: two files per line, quoted if they have spaces; # comments"
    )
    group.add_argument(
        "--out", metavar="DIR", required=True, help="folder of the results; nothing in it is overwritten"
    )
    group.add_argument(
        "--statistics",
        choices=(REESTIMATED, STORED),
        default=REESTIMATED,
        help="BN statistics: reestimated over training batches (default), or, of a run of one subnet, its stored ones",
    )
    args = parser.parse_args(argv)
    pairs = _pairs(args.frames, args.pairs)
    _check_free(args.out, pairs)
    run = named_run(args)
    code = code_of(args.code, run.space)
    _predict(run.folder, code, pairs, args, run.settings)
    return 0


def _pairs(frames: List[str], file: Optional[str]) -> List[Pair]:
    """The pairs of the command line. UserError unless it, or every line of the file, names two images."""
    if file is None:
        if len(frames) != 2:
            raise UserError(f"expected FRAME0 and FRAME1, or --pairs FILE, found {len(frames)} images (see --help)")
        return [Pair(_stem(frames[0]), frames[0], frames[1])]
    if frames:
        raise UserError("--pairs names the images; leave FRAME0 and FRAME1 out")
    with os_errors(f"read {file}"), open(file, "rb") as handle:
        lines = handle.read().decode("utf-8-sig", "replace").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{file} line {number}: {error}") from error
        if words and len(words) != 2:
            raise UserError(f"{file} line {number}: expected two files, found {len(words)}; quote names with spaces")
        found += [words] if words else []
    if not found:
        raise UserError(f"{file}: expected two files per line, found none")
    # Numbered, because images of several folders may have the same names.
    return [Pair(f"{number:04d}_{_stem(words[0])}", words[0], words[1]) for number, words in enumerate(found)]


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _check_free(out: str, pairs: List[Pair]) -> None:
    """UserError if a result file exists already."""
    for pair in pairs:
        for suffix in SUFFIXES:
            path = os.path.join(out, pair.name + suffix)
            if os.path.lexists(path):
                raise UserError(f"{path} exists; name another --out, or move it away")


def _predict(folder: str, code: str, pairs: List[Pair], args: Any, settings: Dict[str, Any]) -> None:
    # TensorFlow takes seconds to import, so the first pair is read before it.
    frames = read_picture(pairs[0].frame0), read_picture(pairs[0].frame1)
    from edgeflownas.engine.progress import Checking
    from edgeflownas.scoring.supernet import Supernet

    stored = args.statistics == STORED
    checking = Checking("checking files")
    with Supernet.load(
        folder, args.checkpoint, settings, checking, stored_statistics=stored, with_data=not stored
    ) as supernet:
        print(
            f"{folder}, checkpoint {args.checkpoint}, {code}: epoch {supernet.epoch}, step {supernet.step}", flush=True
        )
        for number, pair in enumerate(pairs):
            if number:
                frames = read_picture(pair.frame0), read_picture(pair.frame1)
            try:
                flow = supernet.predict(code, *frames)
            except DataError:
                raise  # the message names the training sample
            except UserError as error:
                raise UserError(f"{pair.frame0}, {pair.frame1}: {error}") from error
            write_results(args.out, pair.name, flow, frames[0], f"{code}, {os.path.basename(pair.frame0)}")
            length = np.hypot(flow[..., 0], flow[..., 1])
            print(
                f"{os.path.join(args.out, pair.name)}{SUFFIXES[0]}  {flow.shape[1]}x{flow.shape[0]}  "
                f"flow of {length.mean():.2f} px on average, at most {length.max():.2f} px",
                flush=True,
            )


def write_results(out: str, name: str, flow: np.ndarray, frame0: np.ndarray, title: str) -> None:
    """Writes `.flo` and both pictures of one pair into the folder `out`. UserError for disk errors."""
    from edgeflownas.handover.flow_picture import flow_picture, overlay

    paths = [os.path.join(out, name + suffix) for suffix in SUFFIXES]
    with os_errors(f"write into {out}"):
        os.makedirs(out, exist_ok=True)
        write_flo(paths[0], flow)
        for path, content in zip(paths[1:], (flow_picture(flow, title), overlay(flow, frame0, title))):
            with open(path, "wb") as handle:
                handle.write(content)


if __name__ == "__main__":
    run_cli(main)
