"""Writes the reports: `supernet_training_report.md` and `.html` of one run, `supernet_comparison.md` and `.html` of
several. Built on `run_report` and `compare`."""

import datetime
import os
from pathlib import Path
from typing import List, Optional, Sequence, Union

from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_text, os_errors
from edgeflownas.reporting.document import Figure, Part, to_html, to_markdown
from edgeflownas.run.folder import REPORT, REPORT_IMAGES
from edgeflownas.run.read import read_run

COMPARISON = "supernet_comparison.md"
Folder = Union[str, Path]


def write_report(run_folder: Folder, output: Optional[Folder] = None, now: Optional[datetime.datetime] = None) -> Path:
    """Writes the report on a run, finished or not, into its folder (or `output`). Returns the Markdown file's path.

    UserError or DataError, naming the file, if a file of the folder is missing or damaged; an older report then stays.
    """
    from edgeflownas.reporting.run_report import build  # imports the plots

    run = read_run(Path(run_folder))
    title, parts = build(run, now or datetime.datetime.now(datetime.timezone.utc))
    return write_document(Path(output) if output is not None else run.folder, REPORT, title, parts)


def write_comparison(run_folders: Sequence[Folder], output: Folder) -> Path:
    """Writes the comparison of two or more runs into `output`. Returns the Markdown file's path. Errors as for
    `write_report`; UserError for a run named twice or runs of different search spaces."""
    from edgeflownas.reporting.compare import build

    folders = [Path(folder) for folder in run_folders]
    resolved = [folder.resolve() for folder in folders]
    for number, folder in enumerate(resolved):
        if folder in resolved[:number]:
            raise UserError(f"{folders[number]}: this run is named twice; a comparison needs different runs")
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        if run.space.identity() != runs[0].space.identity():
            raise UserError(
                f"{run.folder} is of the search space {run.space.label}, {runs[0].folder} of {runs[0].space.label}: "
                "their codes name other subnets; compare runs of one space"
            )
    title, parts = build(runs)
    return write_document(Path(output), COMPARISON, title, parts)


def write_document(folder: Path, name: str, title: str, parts: List[Part]) -> Path:
    """Writes `name` (.md), the same as .html, and the images. Returns the Markdown file's path."""
    images = folder / REPORT_IMAGES
    with os_errors(f"write the plots into {images}"):
        images.mkdir(parents=True, exist_ok=True)
        for part in parts:
            if isinstance(part, Figure):
                # Atomic, but without fsync, because a plot lost in a power cut is drawn again.
                temporary = images / f".{part.name}.tmp-{os.getpid()}"
                temporary.write_bytes(part.png)
                os.replace(str(temporary), str(images / (part.name + ".png")))
    path = folder / name
    atomic_write_text(str(path.with_suffix(".html")), to_html(title, parts))
    atomic_write_text(str(path), to_markdown(title, parts, REPORT_IMAGES))
    return path
