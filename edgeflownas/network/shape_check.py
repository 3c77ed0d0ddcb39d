"""Runs random subnets forward and checks the size and the finiteness of their three outputs.

    python -m edgeflownas.nas.model_shape_check --h 180 --w 240 --batch 2 --samples 20

Builds one graph with untrained weights and feeds it each code. Only the chosen branches run. Built on `SinglePath`.
"""

import argparse
from typing import Any, List, Optional, Tuple

import numpy as np

from edgeflownas.arguments import Parser, positive
from edgeflownas.config import KEYS
from edgeflownas.device import choose_device
from edgeflownas.errors import UserError, run_cli
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import SearchSpace, get_space
from edgeflownas.network.layer_table import OUT_CHANNELS, SMALLEST
from edgeflownas.rng import stream

SCALES = (4, 2, 1)  # divisors of the input's size, per output from coarse to fine


def expected_shapes(batch: int, height: int, width: int) -> List[Tuple[int, int, int, int]]:
    """The shapes of the outputs: [B, H/4, W/4, 4], [B, H/2, W/2, 4], [B, H, W, 4], rounded up."""
    return [(batch, -(-height // scale), -(-width // scale), OUT_CHANNELS) for scale in SCALES]


def problems(outputs: List[np.ndarray], want: List[Tuple[int, int, int, int]]) -> List[str]:
    """The faults of one code's outputs, in words; empty if there are none."""
    found = [f"{len(outputs)} outputs, want {len(want)}"] if len(outputs) != len(want) else []
    for number, (output, shape) in enumerate(zip(outputs, want)):
        if output.shape != shape:
            found.append(f"output {number} is {list(output.shape)}, want {list(shape)}")
        elif not np.all(np.isfinite(output)):
            found.append(f"output {number} has {np.sum(~np.isfinite(output))} values that are not finite")
    return found


def forward(
    codes: np.ndarray, space: SearchSpace, batch: int, height: int, width: int, seed: int, channels: int
) -> Any:
    """Yields the three outputs of each code, for one random batch and random weights from `seed`."""
    from edgeflownas.network.layers import BatchStatistics
    from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
    from edgeflownas.network.routing import SinglePath
    from edgeflownas.tfcompat import tf

    images = stream("random_codes", seed, 1).uniform(-1.0, 1.0, (batch, height, width, 6)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        net = SupernetGraph(channels, space)
        fed = tf.placeholder(tf.float32, images.shape, "images")
        code = tf.placeholder(tf.int32, [1, len(space.blocks)], "code")
        outputs = net.forward(fed, SinglePath(code, space), BatchStatistics(net.variables))
        net.variables.initialize(session, seed)
        for row in codes:
            yield [paths[0] for paths in session.run(outputs, {fed: images, code: row[None]})]


def _parser() -> Parser:
    parser = Parser(
        "python -m edgeflownas.nas.model_shape_check",
        "Run random subnets forward and check their outputs: H/4 x W/4, H/2 x W/2 and "
        "H x W (rounded up) with 4 channels, all finite. Exit code 1 if one is wrong.",
    )
    parser.add_argument("--h", type=positive, default=180, help="height of the images in pixels (default %(default)s)")
    parser.add_argument("--w", type=positive, default=240, help="width of the images in pixels (default %(default)s)")
    parser.add_argument("--batch", type=positive, default=2, help="images per batch (default %(default)s)")
    parser.add_argument("--samples", type=positive, default=20, help="number of random codes (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of codes, images and weights (default %(default)s)")
    parser.add_argument(
        "--init_channels", type=positive, default=32, help="width of the supernet, even (default %(default)s)"
    )
    parser.add_argument("--space", default=KEYS["network.space"].default, help="search space (default: %(default)s)")
    parser.add_argument("--gpu_device", default="0", help="GPU number; -1: CPU (default %(default)s)")
    return parser


def _check_arguments(args: argparse.Namespace, space: SearchSpace) -> None:
    for flag, value in (("--h", args.h), ("--w", args.w)):
        if value < SMALLEST:
            raise UserError(f"{flag}: expected at least {SMALLEST} pixels, found {value}")
    if args.samples > space.size:
        raise UserError(f"--samples: expected at most {space.size}, the number of subnets, found {args.samples}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed: expected 0 to {2**32 - 1}, found {args.seed}")
    if args.init_channels < 2:
        raise UserError(f"--init_channels: expected at least 2, found {args.init_channels}")


def main(argv: Optional[List[str]] = None) -> int:
    """Prints a line per code and a verdict. Returns 0, or 1 if an output is wrong."""
    args = _parser().parse_args(argv)
    space = get_space(args.space)
    _check_arguments(args, space)
    choose_device(args.gpu_device)
    codes = random_codes(args.seed, args.samples, space)
    want = expected_shapes(args.batch, args.h, args.w)
    failed = 0
    for code, outputs in zip(codes, forward(codes, space, args.batch, args.h, args.w, args.seed, args.init_channels)):
        found = problems(outputs, want)
        failed += bool(found)
        sizes = " ".join("{}x{}".format(*output.shape[1:3]) for output in outputs)
        print(
            "{}  {}  {}".format(to_digits(code, space), sizes, "FAIL: " + "; ".join(found) if found else "finite, ok"),
            flush=True,
        )
    print(
        "model_shape_check {}: {} of {} codes are right; batch {}, input {}x{}, want {}".format(
            "FAILED" if failed else "passed",
            args.samples - failed,
            args.samples,
            args.batch,
            args.h,
            args.w,
            " ".join("{}x{}".format(*shape[1:3]) for shape in want),
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    run_cli(main)
