"""A writer of a small, difficult FlyingChairs2 set, and a reader; both follow the format and do not use the package.

Every training and validation sample has a region whose flow exceeds the training clip of 50 px. The order of the list
files is neither the order of the sample numbers nor that of the lines. Frames are only a few pixels larger than the
crop, so that few crops reach every offset.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 64, 67  # of the crops
FRAME_HEIGHT, FRAME_WIDTH = 67, 71
IMAGE_0, IMAGE_1, FLOW = "-img_0.png", "-img_1.png", "-flow_01.flo"


class DataSet(NamedTuple):
    """A set on disk; `train` and `val` are names like "train/0000003", in the order of the list files."""

    folder: Path
    train: List[str]
    val: List[str]


def texture(draw: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """A random frame, uint8 [h, w, 3]: blobs of about eight pixels, and noise."""
    coarse = draw.uniform(0, 255, (height // 8 + 2, width // 8 + 2, 3))
    large = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return np.clip(large + draw.normal(0, 20, large.shape), 0, 255).astype(np.uint8)


def flow_field(draw: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """A random flow in pixels, float32 [h, w, 2]: a slope of some pixels, and a quarter of the frame with 55 to 90 px,
    positive or negative."""
    y, x = np.mgrid[0:height, 0:width]
    field = np.stack([draw.normal(0, 4) + draw.normal(0, 0.1) * x, draw.normal(0, 4) + draw.normal(0, 0.1) * y], axis=2)
    top, left = draw.randint(8, height // 3), draw.randint(8, width // 3)
    far = draw.uniform(55, 90, 2) * draw.choice([-1, 1], 2)
    field[top : top + height // 2, left : left + width // 2] = far
    return field.astype(np.float32)


def write_flow(path: Path, flow: np.ndarray) -> None:
    """Writes a flow in the Middlebury format: PIEH as a float, width, height, then (u, v) row by row."""
    size = np.array([flow.shape[1], flow.shape[0]], "<i4").tobytes()
    path.write_bytes(np.array([202021.25], "<f4").tobytes() + size + flow.astype("<f4").tobytes())


def write_sample(folder: Path, name: str, seed: int, height: int = FRAME_HEIGHT, width: int = FRAME_WIDTH) -> None:
    """Writes the three files of one sample."""
    draw = np.random.RandomState([77, seed])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for suffix in (IMAGE_0, IMAGE_1):
        Image.fromarray(texture(draw, height, width)).save(str(folder / (name + suffix)), "PNG")
    write_flow(folder / (name + FLOW), flow_field(draw, height, width))


def write_lists(folder: Path, lines: Sequence[str], train: Sequence[int], val: Sequence[int]) -> None:
    """Writes the three list files to `folder`; they name the samples by paths of another machine."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [f"/elsewhere/data/FlyingChairs2/{name}{IMAGE_0}" for name in lines]
    (folder / "FC2_dirnames.txt").write_text("\n".join(entries) + "\n")
    (folder / "FC2_train.txt").write_text("".join(f"{index}\n" for index in train))
    (folder / "FC2_test.txt").write_text("".join(f"{index}\n" for index in val))


def make(folder: Path, train: int, val: int, seed: int = 1, lists: Any = None, size: Any = None) -> DataSet:
    """Writes a set, its list files to `lists` (default: `folder`). `size` is (height, width) of the frames."""
    height, width = size or (FRAME_HEIGHT, FRAME_WIDTH)
    names = [f"train/{10 + 7 * number:07d}" for number in range(train + val)]
    for number, name in enumerate(names):
        write_sample(folder, name, 1000 * seed + number, height, width)
    order = np.random.RandomState([3, seed])
    lines = [names[i] for i in order.permutation(len(names))]
    indices = order.permutation(len(names)).tolist()
    write_lists(lists or folder, lines, indices[:train], indices[train:])
    return DataSet(folder, [lines[i] for i in indices[:train]], [lines[i] for i in indices[train:]])


def found(folder: Path, lists: Any = None) -> DataSet:
    """Reads the names of the set that `make` wrote to `folder` from its list files."""
    where = lists or folder
    entries = (where / "FC2_dirnames.txt").read_text().split()
    names = ["/".join(entry.split("/")[-2:])[: -len(IMAGE_0)] for entry in entries]
    train, val = [
        [names[int(i)] for i in (where / f"FC2_{part}.txt").read_text().split()] for part in ("train", "test")
    ]
    return DataSet(folder, train, val)


def as_folders(source: DataSet, target: Path) -> DataSet:
    """Copies the samples to `target` in the other layout: the folders train/ and val/ without list files."""
    parts = []
    for split, names in (("train", source.train), ("val", source.val)):
        (target / split).mkdir(parents=True)
        for name in names:
            for suffix in (IMAGE_0, IMAGE_1, FLOW):
                shutil.copy(str(source.folder / (name + suffix)), str(target / split))
        parts.append(sorted(f"{split}/{name.split('/')[-1]}" for name in names))
    return DataSet(target, *parts)


# ---- reading


class Crops(NamedTuple):
    """A batch of crops: images uint8 [B, H, W, 6], flow float32 [B, H, W, 2] in pixels."""

    images: np.ndarray
    flow: np.ndarray

    def digest(self, piece: int = 0) -> str:
        """The trace's SHA-256 of the batch: chained over pieces of `piece` samples (0: the batch is one piece)."""
        size, seen = piece or len(self.images), ""
        for start in range(0, len(self.images), size):
            part = slice(start, start + size)
            fed = self.images[part].tobytes() + self.flow[part].tobytes()
            seen = hashlib.sha256(seen.encode("ascii") + fed).hexdigest()
        return seen

    def part(self, start: int, stop: int) -> "Crops":
        return Crops(self.images[start:stop], self.flow[start:stop])


def read_pair(folder: Path, name: str) -> Tuple[np.ndarray, np.ndarray]:
    """Reads a whole sample: (frames uint8 [h, w, 6], flow float32 [h, w, 2])."""
    frames = [np.array(Image.open(str(folder / (name + suffix)))) for suffix in (IMAGE_0, IMAGE_1)]
    content = (folder / (name + FLOW)).read_bytes()
    width, height = np.frombuffer(content, "<i4", 2, 4)
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)
    return np.concatenate(frames, axis=2), flow


def read_crops(folder: Path, crops: Sequence[Sequence[Any]], height: int = HEIGHT, width: int = WIDTH) -> Crops:
    """Reads the batch of the crops (name, top, left)."""
    pairs = [
        (read_pair(folder, name), slice(top, top + height), slice(left, left + width)) for name, top, left in crops
    ]
    return Crops(
        np.stack([pair[0][y, x] for pair, y, x in pairs]),
        np.ascontiguousarray(np.stack([pair[1][y, x] for pair, y, x in pairs])),
    )


def centre_crops(folder: Path, names: Sequence[str], height: int = HEIGHT, width: int = WIDTH) -> Crops:
    """Reads the batch of the samples' centre crops."""
    crops = []
    for name in names:
        size = read_pair(folder, name)[1].shape
        crops.append((name, (size[0] - height) // 2, (size[1] - width) // 2))
    return read_crops(folder, crops, height, width)


def zero_flow_epe(flow: np.ndarray) -> float:
    """The EPE of an all-zero flow, in pixels."""
    return float(np.mean(np.sqrt(np.sum(flow.astype(np.float64) ** 2, axis=-1))))
