"""One FC2 sample (two frames and the flow between them): its files, a quick check and a full check."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from edgeflownas.data.flow_io import read_flo, read_flo_header
from edgeflownas.data.png_file import read_png, read_png_header
from edgeflownas.errors import DataError

IMG0, IMG1, FLOW = "-img_0.png", "-img_1.png", "-flow_01.flo"
_READERS = 16  # Threads; checks wait for the disk, not for the processor.

Progress = Callable[[int, int], None]  # (samples done, samples in all)


class Sample(NamedTuple):
    """Absolute paths and frame size (pixels) of one sample. `name` is "train/0000014", unique in a set."""

    name: str
    img0: str
    img1: str
    flow: str
    height: int
    width: int


def sample_files(root: str, name: str) -> Tuple[str, str, str]:
    """Paths of the first frame, the second frame and the flow of the sample `name` below `root`."""
    stem = os.path.join(root, *name.split("/"))
    return stem + IMG0, stem + IMG1, stem + FLOW


def probe(root: str, name: str, check: bool) -> Sample:
    """The sample `name` below `root`, a real path, with its size from the `.flo` header.

    `check` also reads both ends of the PNGs, compares the sizes of all three files and refuses links out of `root`.
    Raises DataError if a file that is read is missing, damaged or of a wrong size.
    """
    files = sample_files(root, name)
    width, height = read_flo_header(files[2])
    if check:
        for path in files:
            if os.path.islink(path) and not is_inside(os.path.realpath(path), root):
                raise DataError(
                    f"{path}: expected a file below the data root {root}, found a link to {os.path.realpath(path)}"
                )
        size = read_png_header(files[0])
        _expect_size(files[1], read_png_header(files[1]), files[0], size)
        _expect_size(files[2], (width, height), files[0], size)
    return Sample(name, files[0], files[1], files[2], height, width)


def is_inside(path: str, root: str) -> bool:
    """Whether a real path is `root` or below it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def check_crop(samples: Sequence[Sample], height: int, width: int) -> None:
    """Raises DataError for the first sample whose frames are smaller than a crop of height x width."""
    for sample in samples:
        if sample.height < height or sample.width < width:
            raise DataError(
                f"{sample.img0}: expected frames of at least the crop {width}x{height} (width x height), "
                f"found {sample.width}x{sample.height}"
            )


def verify_sample(sample: Sample) -> None:
    """Decodes all three files and compares every checksum and size. Raises DataError for the first fault."""
    size = (sample.width, sample.height)
    read_png(sample.img0, size)
    read_png(sample.img1, size)
    read_flo(sample.flow, size)


def verify_all(samples: Sequence[Sample], workers: int = 0, progress: Optional[Progress] = None) -> None:
    """`verify_sample` for all samples with `workers` threads (0 = one per processor).

    Checks every sample first. Then raises one DataError with the first fault in full and the names of all bad samples.
    """
    faults = map_in_threads(_fault, samples, workers or os.cpu_count() or 1, progress)
    bad = [(sample.name, fault) for sample, fault in zip(samples, faults) if fault is not None]
    if len(bad) == 1:
        raise DataError(bad[0][1])
    if bad:
        raise DataError(
            "{} -- bad samples in all: {} ({})".format(bad[0][1], len(bad), ", ".join(name for name, _ in bad))
        )


def map_in_threads(
    function: Callable, items: Sequence, workers: int = _READERS, progress: Optional[Progress] = None
) -> List:
    """`[function(item) for item in items]`, in threads. Raises the error of the first item that has one."""
    results = []
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for done, future in enumerate(futures, 1):
                results.append(future.result())
                if progress is not None:
                    progress(done, len(items))
        finally:
            for future in futures:
                future.cancel()
    return results


def _fault(sample: Sample) -> Optional[str]:
    try:
        verify_sample(sample)
    except DataError as error:
        return str(error)
    return None


def _expect_size(path: str, size: Tuple[int, int], other: str, expected: Tuple[int, int]) -> None:
    if size != expected:
        raise DataError(
            f"{path}: expected {expected[0]}x{expected[1]} (width x height) as in {other}, found {size[0]}x{size[1]}"
        )
