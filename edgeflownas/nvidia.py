"""Lists the NVIDIA GPUs and whether a TensorFlow version supports them. Built on `nvidia-smi`, without TensorFlow."""

import csv
import re
import subprocess
from typing import List, NamedTuple, Optional, Sequence, Tuple

from edgeflownas.errors import UserError

QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,uuid,compute_cap", "--format=csv,noheader"]
OLD_QUERY = [QUERY[0], QUERY[1].replace(",compute_cap", ""), QUERY[2]]  # for drivers up to 470, without compute_cap
TIMEOUT = 60  # seconds; a broken driver can make nvidia-smi hang

# Stock TensorFlow 1.15 is built for CUDA 10.0, which does not support Ampere and later (compute capability 8 and up).
FIRST_UNKNOWN_TO_CUDA_10 = (8,)
# Ampere GPUs by name, for drivers that do not report the capability. Later GPUs need drivers that do.
AMPERE = re.compile(r"\b(A100|A800|A40|A30|A16|A10G?|A2|RTX A\d{4}|RTX 30\d0)\b")
# The oldest Linux driver for CUDA 10.0 (stock TensorFlow 1) and CUDA 12 (TensorFlow 2 and NVIDIA's build of 1.15).
OLDEST_DRIVER = {1: (410, 48), 2: (525, 60)}


class Gpu(NamedTuple):
    """One GPU as the driver reports it; `capability` is None if the driver does not report it."""

    name: str
    capability: Optional[Tuple[int, ...]]
    driver: Tuple[int, ...]
    uuid: str = ""


class Support(NamedTuple):
    """Whether TensorFlow computes correctly on a GPU, the reason, and what to do (may be empty)."""

    works: bool
    reason: str
    advice: str


def gpus() -> List[Gpu]:
    """All GPUs in the driver's order; none if there is no `nvidia-smi`. UserError if `nvidia-smi` fails."""
    try:
        code, text = _ask(QUERY)
        if code and "compute_cap" in text:
            code, text = _ask(OLD_QUERY)
    except FileNotFoundError:
        return []
    if code:
        said = " ".join(text.split()) or "nothing"
        raise UserError(
            f"nvidia-smi failed (exit code {code}, it said: {said:.200}); repair or update the NVIDIA driver"
        )
    return [_gpu(cells) for cells in csv.reader(text.splitlines(), skipinitialspace=True) if cells]


def _ask(query: List[str]) -> Tuple[int, str]:
    """(exit code, output) of nvidia-smi. FileNotFoundError if there is none; UserError if it cannot run or hangs."""
    try:
        done = subprocess.run(
            query, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT, universal_newlines=True
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"nvidia-smi cannot be run: {error.strerror or error}; repair the NVIDIA driver")
    except subprocess.TimeoutExpired:
        raise UserError(f"nvidia-smi gave no answer in {TIMEOUT} seconds; restart the NVIDIA driver")
    return done.returncode, done.stdout


def _gpu(cells: List[str]) -> Gpu:
    if len(cells) not in (3, 4) or not _numbers(cells[1]):
        raise UserError(
            "nvidia-smi: expected name, driver_version, uuid, compute_cap, found {!r}".format(", ".join(cells))
        )
    capability = _numbers(cells[3]) if len(cells) == 4 else ()
    if not capability and AMPERE.search(cells[0]):
        capability = FIRST_UNKNOWN_TO_CUDA_10
    return Gpu(cells[0], capability or None, _numbers(cells[1]), cells[2])


def chosen(found: Sequence[Gpu], visible: Sequence[str]) -> List[Gpu]:
    """The GPUs of `found` that `visible`, the entries of CUDA_VISIBLE_DEVICES, names by number or identifier.

    An unknown identifier (MIG) stands for all GPUs. UserError for a number that does not exist.
    """
    some: List[Gpu] = []
    for entry in visible:
        if entry.isdigit() and int(entry) >= len(found):
            raise UserError(f"no number {entry} among {len(found)}; choose another --gpu_device")
        same = [gpu for gpu in found if gpu.uuid and gpu.uuid.startswith(entry)]
        some += [found[int(entry)]] if entry.isdigit() else same or list(found)
    return some


def _numbers(text: str) -> Tuple[int, ...]:
    """Parses a version: "8.6" -> (8, 6); () if it is none."""
    parts = text.strip().split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def is_nvidia_build() -> bool:
    """Whether NVIDIA's own build of TensorFlow 1.15 is installed. It supports newer GPUs and needs Python 3.8."""
    try:
        from importlib import metadata
    except ImportError:  # Python 3.7
        return False
    try:
        return bool(metadata.version("nvidia-tensorflow"))
    except metadata.PackageNotFoundError:
        return False


def miscomputes(gpu: Gpu, tensorflow: str, nvidia_build: bool) -> bool:
    """Whether TensorFlow hangs or computes wrong results on this GPU: stock 1.15 on Ampere and later."""
    stock_1 = tensorflow.startswith("1.") and not nvidia_build
    return stock_1 and gpu.capability is not None and gpu.capability >= FIRST_UNKNOWN_TO_CUDA_10


def support_of(gpu: Gpu, tensorflow: str, nvidia_build: bool) -> Support:
    """Whether TensorFlow of version `tensorflow` computes correctly on this GPU; `nvidia_build`: NVIDIA's fork of
    1.15."""
    stock_1 = tensorflow.startswith("1.") and not nvidia_build
    oldest = OLDEST_DRIVER[1 if stock_1 else 2]
    if gpu.driver[:2] < oldest:
        return Support(
            False,
            f"driver {_dotted(gpu.driver)} is older than {_dotted(oldest)}, which the CUDA of TensorFlow {tensorflow} "
            "needs",
            "update the NVIDIA driver",
        )
    if gpu.capability is None:
        return Support(
            True, "the driver does not tell its compute capability", "check that it is below 8.0" if stock_1 else ""
        )
    if miscomputes(gpu, tensorflow, nvidia_build):
        return Support(
            False,
            f"compute capability {_dotted(gpu.capability)}: stock TensorFlow {tensorflow} (CUDA 10.0) hangs or "
            "computes wrong results on it",
            "use the TensorFlow 2 stack (or NVIDIA's build of 1.15), an older GPU, or --gpu_device -1",
        )
    return Support(True, f"compute capability {_dotted(gpu.capability)}, driver {_dotted(gpu.driver)}", "")


def _dotted(numbers: Tuple[int, ...]) -> str:
    return ".".join(str(number) for number in numbers)


def refuse_wrong_results(visible: Sequence[str], tensorflow: str) -> None:
    """UserError if TensorFlow would compute wrong results on a visible GPU. Does nothing without nvidia-smi."""
    try:
        shown = chosen(gpus(), visible)
    except UserError:  # without a working driver TensorFlow sees no GPU either, and the trainer warns of that
        return
    for gpu in shown:
        if miscomputes(gpu, tensorflow, is_nvidia_build()):
            support = support_of(gpu, tensorflow, False)
            raise UserError(
                f"{gpu.name}: {support.reason}; {support.advice}; to train on it all the same: --allow_unsupported_gpu"
            )
