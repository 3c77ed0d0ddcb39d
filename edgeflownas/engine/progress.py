"""Shows a run's progress and remaining time: bars on a terminal, a few plain lines in a log. Built on tqdm."""

import logging
import sys
import time
from typing import Any, Callable, Optional

from tqdm import tqdm

BAR = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}{postfix} |{bar}|"  # text before the bar, to fit a narrow terminal
LINE_SECONDS = 900.0  # between log lines within an epoch, so that the log of 200 epochs stays small
log = logging.getLogger("edgeflownas")


def duration(seconds: float) -> str:
    """Seconds as text: `2d 03:04` from one day on, else `03:04:05`."""
    whole = int(seconds)
    if whole >= 86400:
        return f"{whole // 86400}d {whole % 86400 // 3600:02d}:{whole % 3600 // 60:02d}"
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class Progress:
    """Progress of one run: `last_epoch` epochs of `steps_per_epoch` cycles, each followed by an evaluation."""

    def __init__(self, steps_per_epoch: int, last_epoch: int) -> None:
        self.steps_per_epoch, self.last_epoch = steps_per_epoch, last_epoch
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._cycle_seconds: Optional[float] = None
        self._eval_seconds = 0.0
        self._last_line = time.monotonic()

    def start_epoch(self, epoch: int, position: int) -> None:
        """Starts the bar of an epoch. `epoch` counts from 0; `position` is the number of its cycles already done."""
        if self._terminal:
            self._bar = tqdm(
                total=self.steps_per_epoch,
                initial=position,
                unit="cycle",
                leave=False,
                desc=f"epoch {epoch + 1}/{self.last_epoch}",
                bar_format=BAR,
            )

    def cycle(self, epoch: int, position: int, loss: float, lr: float, seconds: float) -> None:
        """Reports a finished cycle and its duration. `epoch` counts from 0, and `position` within the epoch, too."""
        known = self._cycle_seconds
        self._cycle_seconds = seconds if known is None else 0.95 * known + 0.05 * seconds
        if self._bar is not None:
            words = f"loss {loss:.3f}, lr {lr:.2g}, ends in {self.eta(epoch, position)}"
            self._bar.set_postfix_str(words, refresh=False)  # update() draws, at a limited rate
            self._bar.update()
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            log.info(
                "epoch %d/%d, cycle %d/%d: loss %.4f, lr %.3g, %.2f cycles/s, run ends in %s",
                epoch + 1,
                self.last_epoch,
                position + 1,
                self.steps_per_epoch,
                loss,
                lr,
                1.0 / self._cycle_seconds,
                self.eta(epoch, position),
            )

    def eta(self, epoch: int, position: int) -> str:
        """The remaining time after this cycle. It includes evaluations once one has been timed."""
        cycles = (self.last_epoch - epoch) * self.steps_per_epoch - position - 1
        evaluations = self.last_epoch - epoch
        return duration(cycles * (self._cycle_seconds or 0.0) + evaluations * self._eval_seconds)

    def start_evaluation(self, epoch: int, batches: int) -> None:
        """Starts the bar of an evaluation of `batches` validation batches. `epoch` counts from 0."""
        self.close()
        if self._terminal:
            self._bar = tqdm(total=batches, unit="batch", leave=False, desc=f"evaluation after epoch {epoch + 1}")

    def evaluated(self, batches: int) -> None:
        """Reports the number of validation batches scored so far."""
        if self._bar is not None:
            self._bar.update(batches - self._bar.n)

    def end_evaluation(self, seconds: float) -> None:
        """Reports the duration of the finished evaluation."""
        self._eval_seconds = seconds
        self.close()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Checking:
    """A `callback(done, total)` that draws a bar, on a terminal only. It first calls `check()`, which may raise."""

    def __init__(self, what: str, check: Optional[Callable[[], None]] = None) -> None:
        self._what, self._check = what, check
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._check is not None:
            self._check()
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._what, unit="sample", leave=False, disable=not sys.stderr.isatty())
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
