"""The NVIDIA GPUs of this machine, and whether a TensorFlow can compute on them. Asks `nvidia-smi`; needs no
TensorFlow."""

import csv
import subprocess
from typing import List, NamedTuple, Optional, Tuple

from edgeflownas.errors import UserError

QUERY = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
TIMEOUT = 60  # seconds; a broken driver can make nvidia-smi hang

# Stock TensorFlow 1.15 is built for CUDA 10.0, which ends before Ampere.
FIRST_UNKNOWN_TO_CUDA_10 = (8, 0)
# Linux drivers: the oldest that runs CUDA 10.0, and CUDA 12.
OLDEST_DRIVER = {1: (410, 48), 2: (525, 60)}


class Gpu(NamedTuple):
    """One GPU as the driver describes it; `capability` None if the driver does not tell."""

    name: str
    capability: Optional[Tuple[int, ...]]
    driver: Tuple[int, ...]


class Verdict(NamedTuple):
    """Whether TensorFlow computes correctly there; if not, `reason` and what to do."""

    works: bool
    reason: str
    advice: str


def gpus() -> List[Gpu]:
    """All GPUs in the driver's order; empty without `nvidia-smi`. UserError if it is there and does not work."""
    try:
        done = subprocess.run(
            QUERY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT, universal_newlines=True
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"nvidia-smi cannot be run: {error.strerror or error}; mend the NVIDIA driver")
    except subprocess.TimeoutExpired:
        raise UserError(f"nvidia-smi gave no answer in {TIMEOUT} seconds; restart the NVIDIA driver")
    if done.returncode:
        said = " ".join(done.stdout.split()) or "nothing"
        raise UserError(
            f"nvidia-smi failed (exit code {done.returncode}, it said: {said:.200}); mend or update the NVIDIA driver"
        )
    return [_gpu(cells) for cells in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if cells]


def _gpu(cells: List[str]) -> Gpu:
    if len(cells) != 3 or not _numbers(cells[2]):
        raise UserError("nvidia-smi: expected name, compute_cap, driver_version, found {!r}".format(", ".join(cells)))
    return Gpu(cells[0], _numbers(cells[1]) or None, _numbers(cells[2]))


def _numbers(text: str) -> Tuple[int, ...]:
    """ "8.6" -> (8, 6); () if it is no version."""
    parts = text.strip().split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def judge(gpu: Gpu, tensorflow: str, nvidia_build: bool) -> Verdict:
    """Whether TensorFlow of version `tensorflow` computes correctly on this GPU; `nvidia_build`: NVIDIA's fork of
    1.15."""
    stock_1 = tensorflow.startswith("1.") and not nvidia_build
    oldest = OLDEST_DRIVER[1 if stock_1 else 2]
    if gpu.driver[:2] < oldest:
        return Verdict(
            False,
            f"driver {_dotted(gpu.driver)} is older than {_dotted(oldest)}, which the CUDA of TensorFlow {tensorflow} "
            "needs",
            "update the NVIDIA driver",
        )
    if gpu.capability is None:
        return Verdict(
            True, "the driver does not tell its compute capability", "check that it is below 8.0" if stock_1 else ""
        )
    if stock_1 and gpu.capability >= FIRST_UNKNOWN_TO_CUDA_10:
        return Verdict(
            False,
            f"compute capability {_dotted(gpu.capability)}: stock TensorFlow {tensorflow} (CUDA 10.0) hangs or "
            "computes wrong results on it",
            "use the TensorFlow 2 stack (or NVIDIA's build of 1.15), an older GPU, or --gpu_device -1",
        )
    return Verdict(True, f"compute capability {_dotted(gpu.capability)}, driver {_dotted(gpu.driver)}", "")


def _dotted(numbers: Tuple[int, ...]) -> str:
    return ".".join(str(number) for number in numbers)
