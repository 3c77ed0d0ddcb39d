"""The types that the doctor's checks share: a finding, and the run that they examine."""

import os
from typing import NamedTuple

from edgeflownas.command_line import Request
from edgeflownas.config import Config

OK, WARN, FAIL = "ok", "warn", "FAIL"
FC2_TRAIN = 22232  # training samples of FC2, used if the data cannot be counted


class Finding(NamedTuple):
    """One line: the level (OK, WARN or FAIL), the subject, what was found, and what to do."""

    level: str
    what: str
    found: str
    advice: str = ""


class Examined:
    """The run that the checks examine, and results of earlier checks that later ones use."""

    def __init__(self, config: Config, full: bool, request: Request) -> None:
        self.config, self.full, self.request = config, full, request
        self.train_samples = FC2_TRAIN
        self.tensorflow_starts = True
        self.gpu_is_safe = True  # whether it is safe to compute on the GPU
        self.rank = 0  # among the started ranks; rank 0 alone checks what they share

    @property
    def output_dir(self) -> str:
        """`runtime.output_dir`, or the nearest folder above it that exists."""
        path = os.path.abspath(self.config.runtime.output_dir)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path
