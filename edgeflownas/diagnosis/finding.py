"""What the doctor's checks share: a finding, and what they look at."""

import os
from typing import NamedTuple

from edgeflownas.command_line import Request
from edgeflownas.config import Config

OK, WARN, FAIL = "ok", "warn", "FAIL"
FC2_TRAIN = 22232  # samples, where the data cannot be counted


class Finding(NamedTuple):
    """One line: how it stands, what was looked at, what was found, and what to do."""

    level: str
    what: str
    found: str
    advice: str = ""


class Examined:
    """What the checks look at, and what one of them learns for the next."""

    def __init__(self, config: Config, full: bool, request: Request) -> None:
        self.config, self.full, self.request = config, full, request
        self.train_samples = FC2_TRAIN
        self.tensorflow_starts = True
        self.gpu_is_safe = True  # to compute on
        self.rank = 0  # among processes that a launcher has started; the first one alone looks at what they share

    @property
    def output_dir(self) -> str:
        """The run's folder, or the nearest folder above it that exists."""
        path = os.path.abspath(self.config.runtime.output_dir)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path
