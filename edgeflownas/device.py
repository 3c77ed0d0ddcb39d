"""Chooses the device and kernels of TensorFlow by environment variables. Must run before TensorFlow is imported."""

import os
import re
from typing import List

from edgeflownas.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NUMBER = re.compile(r"(?:/?(?:device:)?(?:cuda|gpu):)?([0-9]{1,3})", re.IGNORECASE)
_IDENTIFIER = re.compile(r"(GPU|MIG)-\S+")


def choose_device(gpu_device: str, deterministic: bool = False, distributed: bool = False) -> None:
    """Makes only the GPUs `gpu_device` visible to TensorFlow; none for "-1", for "" and in deterministic mode.

    Numbers count within CUDA_VISIBLE_DEVICES if a queue has set it: with "3,5", number 1 is GPU 5. A rank of several
    leaves all GPUs visible and takes its own later (`rank_device`). Deterministic mode also turns off oneDNN's kernels.
    UserError for a wrong text, or a number that CUDA_VISIBLE_DEVICES does not have.
    """
    wanted = asked_for(gpu_device)
    if deterministic:
        # On TensorFlow 2 the last bits of oneDNN's gradients depend on the memory addresses of tensors.
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    if deterministic or not wanted:
        os.environ[VISIBLE] = "-1"
    elif VISIBLE not in os.environ:
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order in which nvidia-smi counts
        if not distributed:
            os.environ[VISIBLE] = ",".join(wanted)
    elif distributed:
        return
    else:
        shown = visible()
        if shown and any(entry.isdigit() and int(entry) >= len(shown) for entry in wanted):
            raise UserError(
                f"--gpu_device {gpu_device}: {VISIBLE}={os.environ[VISIBLE]} shows {len(shown)} of the GPUs, and "
                f"numbers count within these, from 0; choose one below {len(shown)}"
            )
        chosen = [shown[int(entry)] if entry.isdigit() else entry for entry in wanted if shown]
        os.environ[VISIBLE] = ",".join(chosen) or "-1"


def asked_for(gpu_device: str) -> List[str]:
    """The GPUs named by "0,1", "cuda:1" or identifiers, in CUDA's spelling; none for "-1" and "". Else UserError."""
    if gpu_device.strip() in ("", "-1"):
        return []
    entries = []
    for part in gpu_device.split(","):
        number = _NUMBER.fullmatch(part.strip())
        if not number and not _IDENTIFIER.fullmatch(part.strip()):
            raise UserError(f"--gpu_device {gpu_device!r}: expected the number of a GPU, such as 0, or -1 for the CPU")
        entries.append(str(int(number.group(1))) if number else part.strip())
    return entries


def rank_device(local_rank: int) -> str:
    """The GPU of a rank, as a number among the visible GPUs: its local rank.

    If only one GPU is visible, because a queue shows each rank its own, it is 0. UserError if there are too few GPUs.
    """
    shown = visible()
    if len(shown) == 1:
        return "0"
    if shown and local_rank >= len(shown):
        raise UserError(
            f"{VISIBLE}={os.environ[VISIBLE]} shows {len(shown)} GPUs, which is too few for local rank {local_rank}; "
            "start one rank per GPU, or show more"
        )
    return str(local_rank)


def visible() -> List[str]:
    """The entries of CUDA_VISIBLE_DEVICES that CUDA uses: those before the first one of another form."""
    shown: List[str] = []
    for entry in os.environ.get(VISIBLE, "").split(","):
        if not re.fullmatch("[0-9]+", entry.strip()) and not _IDENTIFIER.fullmatch(entry.strip()):
            break
        shown.append(entry.strip())
    return shown
