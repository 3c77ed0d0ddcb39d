"""A table of kinds of bad data: how to spoil a good set, and what the error must say (design, section 9)."""

import os
import shutil
import zlib
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence, Tuple

import numpy as np

from gates import dataset, runs, spaces
from gates.gate3_runs import MID_EPOCH_STEP

FLOW, PNG_0, PNG_1 = dataset.FLOW, dataset.IMAGE_0, dataset.IMAGE_1


class Case(NamedTuple):
    """`spoil(data set)` changes the files; the error must contain `file` and each of `says`."""

    name: str
    file: str
    spoil: Callable[[dataset.DataSet], Any]
    says: Tuple[str, ...] = ("expected", "found")


def _file(data: dataset.DataSet, suffix: str, split: str = "train") -> Path:
    """The file with this suffix of a split's second sample."""
    return data.folder / (getattr(data, split)[1] + suffix)


def _with(suffix: str, change: Callable[[bytes], bytes], split: str = "train") -> Callable[[dataset.DataSet], Any]:
    """A `spoil` function that changes the bytes of a file of the second sample."""

    def spoil(data: dataset.DataSet) -> None:
        path = _file(data, suffix, split)
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _value(value: float) -> Callable[[bytes], bytes]:
    """Puts a value into the last pixel of the flow, which not every crop contains."""
    return lambda content: content[:-8] + np.array([value], "<f4").tobytes() + content[-4:]


def _header(width: int, height: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:4] + np.array([width, height], "<i4").tobytes() + content[12:]


def _flip(content: bytes) -> bytes:
    """Flips a bit in the middle of the pixels; all lengths stay the same."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _wrong_sum(content: bytes) -> bytes:
    """Makes the checksum of the pixels' chunk wrong; the pixels stay valid."""
    end = content.rindex(b"IEND") - 4
    wrong = zlib.crc32(content[end - 12 : end]) ^ 5
    return content[: end - 4] + wrong.to_bytes(4, "big") + content[end:]


def _other_size(data: dataset.DataSet) -> None:
    from PIL import Image

    frame = dataset.texture(np.random.RandomState(1), dataset.FRAME_HEIGHT, dataset.FRAME_WIDTH + 2)
    Image.fromarray(frame).save(str(_file(data, PNG_1)), "PNG")


def _small(data: dataset.DataSet) -> None:
    dataset.write_sample(data.folder, data.train[1], 5, runs.HEIGHT - 1, dataset.FRAME_WIDTH)


def _outside(suffix: str, name: str) -> Callable[[dataset.DataSet], Any]:
    """A `spoil` function that moves a file of the second sample to the folder `name` beside the data root, and leaves a
    link."""

    def spoil(data: dataset.DataSet) -> None:
        path, away = _file(data, suffix), data.folder.with_name(name) / "away"
        away.parent.mkdir()
        shutil.move(str(path), str(away))
        path.symlink_to(away)

    return spoil


W, H = dataset.FRAME_WIDTH, dataset.FRAME_HEIGHT
BESIDE = "data_old"  # a folder beside the data root `data`
AT_START = (
    Case("first image missing", PNG_0, lambda data: _file(data, PNG_0).unlink()),
    Case("second image missing", PNG_1, lambda data: _file(data, PNG_1).unlink()),
    Case("flow missing", FLOW, lambda data: _file(data, FLOW).unlink()),
    Case("PNG of 0 bytes", PNG_0, _with(PNG_0, lambda content: b"")),
    Case("PNG cut", PNG_1, _with(PNG_1, lambda content: content[: len(content) // 2])),
    Case("flow of 0 bytes", FLOW, _with(FLOW, lambda content: b"")),
    Case("flow of a header", FLOW, _with(FLOW, lambda content: content[:12])),
    Case("flow cut", FLOW, _with(FLOW, lambda content: content[:-4])),
    Case("flow with trailing bytes", FLOW, _with(FLOW, lambda content: content + b"1234")),
    Case("flow of another magic number", FLOW, _with(FLOW, lambda content: b"HEIP" + content[4:])),
    Case("flow with sides swapped", FLOW, _with(FLOW, _header(H, W)), (f"{W}x{H}", f"{H}x{W}")),
    Case("frames of different sizes", PNG_1, _other_size, (f"{W}x{H}", f"{W + 2}x{H}")),
    Case("frame smaller than the crop", PNG_0, _small, (f"{runs.WIDTH}x{runs.HEIGHT}", f"{W}x{runs.HEIGHT - 1}")),
    Case("flow outside the data root", FLOW, _outside(FLOW, "elsewhere"), ("expected", "elsewhere/away")),
    # As text, this path begins with the root's.
    Case("frame in a folder beside the root", PNG_1, _outside(PNG_1, BESIDE), ("expected", f"{BESIDE}/away")),
)
INSIDE = (
    Case("PNG with a flipped bit", PNG_0, _with(PNG_0, _flip)),
    Case("PNG with a wrong checksum", PNG_1, _with(PNG_1, _wrong_sum)),
    Case("NaN in the flow", FLOW, _with(FLOW, _value(float("nan")))),
    Case("infinity in the flow", FLOW, _with(FLOW, _value(float("-inf")))),
    Case("flow beyond 1e9", FLOW, _with(FLOW, _value(1.5e9))),
    Case("validation PNG with a flipped bit", PNG_1, _with(PNG_1, _flip, "val")),
)


def _line(name: str, change: Callable[[list], Any]) -> Callable[[dataset.DataSet], Any]:
    """A `spoil` function that changes the lines of a list file."""

    def spoil(data: dataset.DataSet) -> None:
        path = data.folder / name
        lines = path.read_text().splitlines()
        change(lines)
        path.write_text("\n".join(lines) + "\n")

    return spoil


def _both(data: dataset.DataSet) -> None:
    index = (data.folder / "FC2_train.txt").read_text().split()[0]
    with open(str(data.folder / "FC2_test.txt"), "a") as list_file:
        list_file.write(index + "\n")


def _parent(data: dataset.DataSet) -> None:
    path = data.folder / "FC2_dirnames.txt"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("train/", "../train/")
    path.write_text("\n".join(lines) + "\n")


def _train_outside(data: dataset.DataSet) -> None:
    """Moves train/ to a folder beside the data root, and leaves a link."""
    away = data.folder.with_name(BESIDE)
    shutil.move(str(data.folder / "train"), str(away))
    (data.folder / "train").symlink_to(away)


TRAIN, TEST, NAMES = "FC2_train.txt", "FC2_test.txt", "FC2_dirnames.txt"
LISTS = (
    Case("index out of range", TRAIN, _line(TRAIN, lambda lines: lines.append("11")), ("expected", "11", "line 9")),
    Case("index repeated", TRAIN, _line(TRAIN, lambda lines: lines.append(lines[2])), ("expected", "line 9", "line 3")),
    Case("index in both lists", TEST, _both, ("expected", TRAIN, "line 4")),
    Case(
        "index that is no number", TEST, _line(TEST, lambda lines: lines.append("-1")), ("expected", "'-1'", "line 4")
    ),
    Case("path that leaves the root", NAMES, _parent, ("expected", "..", "line 3")),
    Case("folder that leaves the root", NAMES, _train_outside, ("expected", "line 1", BESIDE)),
    Case("sample named twice", NAMES, _line(NAMES, lambda lines: lines.append(lines[0])), ("expected", "line 12")),
    Case("list missing", TEST, lambda data: (data.folder / TEST).unlink(), ("expected",)),
    Case("no training sample", "training", _line(TRAIN, lambda lines: lines.clear()), ("expected",)),
)


ALONE = "".join(map(str, spaces.chosen().baseline))  # a single subnet, because its graph is built quickly
BASE = f"--deterministic --output_dir out --arch_code {ALONE} --eval_pool_size 1"


def make_cases(folder: Path, data: Path, cases: Tuple[Case, ...], *words: str, more: Sequence[str] = ()) -> None:
    """Spoils a copy of `data` for each case and runs training on it once with each of `words`. All cases run with the
    first of `words` first; then each case runs with the others; last come the commands `more`."""
    commands = []
    for number, case in enumerate(cases):
        copy = folder / f"case{number}" / "data"
        shutil.copytree(str(data), str(copy))
        case.spoil(dataset.found(copy))
    places = [os.path.join(f"case{number}", "data") for number in range(len(cases))]
    base = f"{BASE} --max_epochs 1"
    commands += [f"{runs.small_train(Path(place))} {base} {words[0]}" for place in places]
    commands += [f"{runs.small_train(Path(place))} {base} {word}" for place in places for word in words[1:]]
    runs.batch(folder, commands + list(more))


def make_starts(folder: Path, data: Path) -> None:
    make_cases(folder, data, AT_START, "")


def make_lists(folder: Path, data: Path) -> None:
    make_cases(folder, data, LISTS, "")


def make_contents(folder: Path, data: Path, whole: Path) -> None:
    """Also spoils a sample of a run that stopped in its second epoch, and resumes it."""
    begun = folder / "begun"
    shutil.copytree(str(data), str(begun))
    train = f"{runs.small_train(Path('begun'))} {BASE} --output_dir stopped --max_steps"
    words = "--verify_data --output_dir verified", "--num_workers 1", "--num_workers 8"
    make_cases(folder, data, INSIDE, *words, more=[f"{train} {MID_EPOCH_STEP}"])
    path = begun / (met_after_resume(whole) + FLOW)
    path.write_bytes(_value(float("nan"))(path.read_bytes()))
    runs.batch(folder, [f"{train} {MID_EPOCH_STEP + 1} --resume"])


def met_after_resume(whole: Path) -> str:
    """A sample of the batch after `MID_EPOCH_STEP` that is not in the batch of the same place in the first epoch."""
    batches = [{name for name, _, _ in event["batch"]} for event in runs.trace(whole, "cycle")]
    return min(batches[MID_EPOCH_STEP] - batches[MID_EPOCH_STEP % runs.STEPS_PER_EPOCH])
