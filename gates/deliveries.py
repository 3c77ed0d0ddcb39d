"""The runs of gate 4: the smoke run at full size, and a small long run, refused and then started with --unsigned."""

import json
import os
import subprocess
from pathlib import Path
from typing import Dict, List, Optional

from edgeflownas import signoff
from edgeflownas.data.synthetic import make_dataset
from gates import dataset, runs
from gates.commands import ROOT

RUN = Path("outputs") / "supernet"
SMOKE = (
    f"{runs.TRAIN} --gpu_device 0 --num_epochs 2 --batch_size 32 --lr 1e-4 --config {runs.CONFIG} --fast_mode "
    "--base_path data"
)


def git(*words: str) -> List[str]:
    """The words that git prints."""
    return subprocess.run(
        ("git", "-C", str(ROOT)) + words, stdout=subprocess.PIPE, check=True, universal_newlines=True
    ).stdout.split()


def make_smoke(folder: Path) -> None:
    """The specification's command on synthetic frames of 384x512, as FC2's."""
    make_dataset(str(folder / "data"), 32, 8, 1)
    before = git("rev-parse", "HEAD")
    runs.logged(folder, SMOKE)
    # HEAD when the run began; and, should someone commit meanwhile, what it became.
    (folder / "heads").write_text(" ".join(before + git("rev-list", f"{before[0]}..HEAD")))


def write_record(gate: int, outcome: str, files: Optional[Dict[str, str]] = None) -> None:
    """A gate's record for `files`, the present source if None, without any clause."""
    environment = signoff.Environment("0" * 40, False, {}, "CPU", False, None)
    signoff.write_record(gate, ROOT, outcome, [], environment, files or signoff.source_files(ROOT))


def _present_records(folder: Path) -> None:
    """Gate records for the present source: gate 1 passed, gate 2 failed, gate 3 and 4 never run."""
    before = os.environ.get(signoff.RECORDS_VARIABLE)
    os.environ[signoff.RECORDS_VARIABLE] = str(folder)
    try:
        write_record(1, "passed")
        write_record(2, "failed")
    finally:
        os.environ.pop(signoff.RECORDS_VARIABLE)
        if before is not None:
            os.environ[signoff.RECORDS_VARIABLE] = before


def make_long_run(folder: Path) -> None:
    """Refused first; then the same with --unsigned."""
    data, source = dataset.make(folder / "data", runs.SAMPLES, runs.VALIDATION).folder, signoff.source_files(ROOT)
    _present_records(folder / "records")
    environment = {signoff.RECORDS_VARIABLE: str(folder / "records")}
    runs.logged(folder, runs.small_train(data), environment)
    (folder / "left.json").write_text(json.dumps(sorted(path.name for path in (folder / RUN).glob("[!.]*"))))
    runs.logged(folder, runs.small_train(data) + " --unsigned", environment)
    changed = signoff.first_difference(source, signoff.source_files(ROOT))
    (folder / "gate1").write_text("stale" if changed else "valid")
