"""Estimates the cost of an int8 file on an Ethos-U, with Arm's compiler Vela.

Vela is an optional program (`pip install ethos-u-vela`, Python 3.10 and later). It runs as a process, so it can be in
another environment. Its figures are estimates at compile time; nothing is measured on a board.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, NamedTuple, Optional

from edgeflownas.errors import UserError

KIB = 1024
TIMEOUT = 3600


class Wanted(NamedTuple):
    """Vela's settings."""

    accelerator: str
    optimise: str  # "Performance" or "Size"
    arena_kib: Optional[int]  # limit of the arena; None = that of the memory mode


def find() -> str:
    """The path of the program, on PATH or beside this Python. UserError if there is none."""
    beside = os.path.join(os.path.dirname(sys.executable), "vela")
    found = shutil.which("vela") or (beside if os.access(beside, os.X_OK) else None)
    if found is None:
        raise UserError(
            "--vela: expected the program vela on PATH, found none; install it with pip install ethos-u-vela "
            "(Python 3.10 or later, also in an environment of its own), or leave --vela out"
        )
    return found


def estimate(program: str, model: str, wanted: Wanted) -> Dict[str, Any]:
    """Compiles the file `model`. Returns Vela's estimate with all settings it depends on. UserError if Vela fails."""
    with tempfile.TemporaryDirectory(prefix="edgeflownas-vela-") as folder:
        words = [program, model, "--output-dir", folder, "--accelerator-config", wanted.accelerator]
        words += ["--optimise", wanted.optimise]
        words += ["--arena-cache-size", str(wanted.arena_kib * KIB)] if wanted.arena_kib else []
        _run(words)
        (summary,) = [name for name in os.listdir(folder) if "_summary_" in name and name.endswith(".csv")]
        with open(os.path.join(folder, summary), newline="", encoding="utf-8") as handle:
            row = list(csv.DictReader(handle))[-1]
    flash = float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"])
    return {
        "note": "an estimate at compile time, not a measurement",
        "version": _run([program, "--version"]).strip(),
        "accelerator": wanted.accelerator,
        "system_config": row["system_config"],
        "memory_mode": row["memory_mode"],
        "optimise": wanted.optimise,
        "arena_limit_kib": wanted.arena_kib,
        "clock_hz": float(row["core_clock"]),
        "cycles": int(float(row["cycles_total"])),
        "milliseconds": 1000.0 * float(row["inference_time"]),
        "sram_kib": float(row["sram_memory_used"]),
        "flash_kib": flash,
    }


def _run(words: List[str]) -> str:
    """The output, stdout and stderr, of a command. UserError if it fails or takes too long."""
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"vela has not ended after {TIMEOUT:g} s; look at: {' '.join(words)}")
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()]
        raise UserError(
            f"vela refuses: {said[-1] if said else 'exit code'} ({done.returncode}); look at: {' '.join(words)}"
        )
    return done.stdout


def in_words(found: Dict[str, Any]) -> str:
    """The estimate as one line for the terminal."""
    limit = f"{found['arena_limit_kib']} KiB" if found["arena_limit_kib"] else "the memory mode's own"
    return (
        f"Vela {found['version']} estimates, at compile time, for {found['accelerator']} ({found['system_config']}, "
        f"{found['memory_mode']}, optimise {found['optimise']}, arena limit {limit}): {found['cycles']:,} cycles, "
        f"{found['milliseconds']:.0f} ms, {found['sram_kib']:,.0f} KiB SRAM, {found['flash_kib']:,.0f} KiB flash"
    )
