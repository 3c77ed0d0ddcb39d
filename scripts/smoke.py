"""Two epochs of the whole training chain, then a check of the manifest: what `tox -e smoke` runs.

Data: the FC2 set in the folder FC2_ROOT if that is set, else a small synthetic one in data/synthetic_fc2.
Prints each command before running it, so that it can be repeated by hand, and stops at the first that fails.
Uses the standard library only.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYNTHETIC = "data/synthetic_fc2"


def run(*args):
    """Run `python ARGS` in the repository; a failure ends the smoke run with the same exit code."""
    print("$ python " + " ".join(shlex.quote(arg) for arg in args), flush=True)
    status = subprocess.call([sys.executable, *args], cwd=str(ROOT))
    if status != 0:
        print(f"smoke: FAILED, exit code {status}", flush=True)
        sys.exit(status if status > 0 else 128 - status)


def data_folder():
    """FC2_ROOT, or the synthetic set, made anew so that a half-written or old one is never trained on."""
    given = os.environ.get("FC2_ROOT")
    if given:
        print(f"smoke: data: FC2_ROOT={given}", flush=True)
        return given
    shutil.rmtree(str(ROOT / SYNTHETIC), ignore_errors=True)
    run("-m", "edgeflownas.data.synthetic", "--out", SYNTHETIC, "--train", "64", "--test", "8", "--seed", "1")
    return SYNTHETIC


def main():
    base_path = data_folder()
    run(
        "wrappers/run_supernet_train.py",
        "--gpu_device",
        "0",
        "--num_epochs",
        "2",
        "--batch_size",
        "32",
        "--lr",
        "1e-4",
        "--config",
        "configs/supernet_fc2_180x240.yaml",
        "--fast_mode",
        "--base_path",
        base_path,
        *sys.argv[1:],
    )
    run("-m", "edgeflownas.nas.check_manifest", "--path", "outputs/supernet/train_manifest.json")
    print("smoke: passed", flush=True)


if __name__ == "__main__":
    main()
