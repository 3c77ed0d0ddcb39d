"""Makes a synthetic FlyingChairs2: textured shapes moving over a textured background, with exact flow.

    python -m edgeflownas.data.synthetic --out DIR --train 64 --test 16 --seed 1

DIR then has FC2's own format: list files in DIR, frames and flow in DIR/train/. Built on `scene.py`, which draws the
samples.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Dict, List, Optional

from PIL import Image
from tqdm import tqdm

from edgeflownas.arguments import Parser
from edgeflownas.data import scene
from edgeflownas.data.fc2_index import DATASET, DIRNAMES, RECORD, TRAIN_LIST, VAL_LIST
from edgeflownas.data.fc2_sample import IMG0, sample_files
from edgeflownas.data.flow_io import write_flo
from edgeflownas.errors import UserError, run_cli

FORMAT = 3  # Increase it when the same parameters give other pixels.
MAX_SAMPLES = 10**7  # Names have seven digits.
MIN_SIDE = 16


def make_dataset(
    out: str,
    train: int,
    test: int,
    seed: int,
    height: int = 384,
    width: int = 512,
    workers: int = 1,
    show_progress: bool = False,
    max_shift: Optional[float] = None,
) -> bool:
    """Writes a set of `train` + `test` samples with frames of height x width pixels to the folder `out`.

    `max_shift` as in `scene.draw`. The same parameters give the same bytes, with any number of `workers` (processes).
    Returns False and writes nothing if `out` already holds exactly this set. Raises UserError if `out` has any other
    content, or if a parameter is out of range.
    """
    wanted = _record(train, test, seed, height, width, max_shift)
    if _is_finished(out, wanted):
        return False
    os.makedirs(os.path.join(out, "train"), exist_ok=True)
    total = train + test
    write = partial(_write_sample, out, seed, height, width, max_shift)
    with tqdm(total=total, unit="sample", disable=None if show_progress else True) as bar:
        if workers == 1:
            for number in range(total):
                write(number)
                bar.update()
        else:
            with ProcessPoolExecutor(workers) as pool:
                for _ in pool.map(write, range(total), chunksize=4):
                    bar.update()
    _write_lines(os.path.join(out, DIRNAMES), [f"/Datasets/{DATASET}/{_name(number)}{IMG0}" for number in range(total)])
    _write_lines(os.path.join(out, TRAIN_LIST), [str(number) for number in range(train)])
    _write_lines(os.path.join(out, VAL_LIST), [str(number) for number in range(train, total)])
    # Written last, because it marks the set as finished.
    _write_lines(os.path.join(out, RECORD), [json.dumps(wanted, indent=2, sort_keys=True)])
    return True


def _record(train: int, test: int, seed: int, height: int, width: int, max_shift: Optional[float]) -> Dict[str, Any]:
    """The parameters as dataset.json stores them. Raises UserError if one is out of range."""
    if train < 1 or test < 0 or train + test > MAX_SAMPLES:
        raise UserError(
            f"expected --train of at least 1, --test of at least 0 and {MAX_SAMPLES} in all, found {train} and {test}"
        )
    if not 0 <= seed < 2**32:
        raise UserError(f"expected --seed in 0..{2**32 - 1}, found {seed}")
    if min(height, width) < MIN_SIDE:
        raise UserError(f"expected --height and --width of at least {MIN_SIDE}, found {height} and {width}")
    if max_shift is not None and not 0.0 < max_shift <= 1000.0:
        raise UserError(f"expected --max_shift above 0 and up to 1000, found {max_shift}")
    return {
        "format": FORMAT,
        "train": train,
        "test": test,
        "seed": seed,
        "height": height,
        "width": width,
        "max_shift": max_shift,
    }


def _is_finished(out: str, wanted: Dict[str, Any]) -> bool:
    """Whether `out` holds the wanted set. False if it is empty or missing; raises UserError for anything else."""
    if not os.path.lexists(out) or (os.path.isdir(out) and not os.listdir(out)):
        return False
    advice = "remove it or give another --out"
    if not os.path.isdir(out):
        raise UserError(f"{out}: expected a folder, found a file; {advice}")
    try:
        with open(os.path.join(out, RECORD), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        raise UserError(
            f"{out}: expected an empty folder or a finished set, found files without {RECORD}: a set that "
            f"was interrupted, or something else; {advice}"
        ) from None
    except ValueError as error:
        raise UserError(f"{os.path.join(out, RECORD)}: expected JSON, found: {error}; {advice}") from None
    if found != wanted:
        raise UserError(f"{out}: expected an empty folder or the set {wanted}, found the set {found}; {advice}")
    for number in range(int(wanted["train"] + wanted["test"])):
        for path in sample_files(out, _name(number)):
            if not os.path.isfile(path):
                raise UserError(f"{path}: expected a file of the finished set, found none; {advice}")
    return True


def _name(number: int) -> str:
    return f"train/{number:07d}"


def _write_sample(out: str, seed: int, height: int, width: int, max_shift: Optional[float], number: int) -> None:
    drawn = scene.draw(seed, number, height, width, max_shift)
    img0, img1, flow = sample_files(out, _name(number))
    # Fast compression: noise does not shrink much, and strong compression would take longer than drawing.
    Image.fromarray(drawn.frame0).save(img0, "PNG", compress_level=1)
    Image.fromarray(drawn.frame1).save(img1, "PNG", compress_level=1)
    write_flo(flow, drawn.flow)


def _write_lines(path: str, lines: List[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("".join(line + "\n" for line in lines))


def _parser() -> Parser:
    parser = Parser(
        "python -m edgeflownas.data.synthetic",
        "Writes a synthetic FlyingChairs2 for smoke tests: textured shapes that move over a textured background by "
        "affine "
        "motions, with exact flow, in exactly FC2's file format, list files included.",
        "The same parameters always give the same pixels and flow. A finished identical set is left as it is; anything "
        "else in DIR is an error. Frames must be at least as large as the training crop.\n\n"
        "example:\n"
        "  python -m edgeflownas.data.synthetic --out /tmp/fc2 --train 64 --test 16 --seed 1\n"
        "  python -m edgeflownas.train_supernet --base_path /tmp/fc2 --max_steps 10\n",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--train", required=True, type=int, metavar="N", help="training samples (FC2_train.txt)")
    parser.add_argument("--test", required=True, type=int, metavar="M", help="validation samples (FC2_test.txt)")
    parser.add_argument("--seed", required=True, type=int, metavar="S", help="another seed, another set")
    parser.add_argument("--height", type=int, default=384, help="of the frames, pixels (default 384, as FC2)")
    parser.add_argument("--width", type=int, default=512, help="of the frames, pixels (default 512, as FC2)")
    parser.add_argument(
        "--max_shift",
        type=float,
        metavar="PX",
        help="shifts spread evenly up to so many pixels (default: as in FC2, mostly short with a long tail, "
        f"up to {scene.LONGEST:.0f}); for small frames",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes (default: one per processor, here %(default)s); no influence on the result",
    )
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    args = _parser().parse_args(argv)
    if args.workers < 1:
        raise UserError(f"expected --workers of at least 1, found {args.workers}")
    made = make_dataset(
        args.out,
        args.train,
        args.test,
        args.seed,
        args.height,
        args.width,
        args.workers,
        show_progress=True,
        max_shift=args.max_shift,
    )
    print(
        "{}: {} training and {} validation samples of {}x{} {}".format(
            args.out,
            args.train,
            args.test,
            args.width,
            args.height,
            "written" if made else "are already there, finished and with the same parameters; nothing to do",
        )
    )
    return 0


if __name__ == "__main__":
    run_cli(main)
