"""Progress of long work. In: what the work reports. Out: a live display on a terminal, log lines elsewhere.

The loop reports through ``stage``, ``advance`` and ``note``; it never prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO


class LogProgress:
    """One line per stage and note, for logs and pipes.

    Args:
      stream: where lines go.
      clock: seconds, for elapsed times.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._start = clock()

    def __enter__(self) -> LogProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def stage(self, name: str, total: int = 0) -> None:
        """A stage begins; ``total`` units of work when known."""
        self.note(name)

    def advance(self, done: int = 1) -> None:
        """So many more units of the current stage are done."""

    def at(self, done: int, total: int) -> None:
        """So many units of the current stage are done, of so many in all."""

    def note(self, text: str) -> None:
        """Something worth telling the user now."""
        print(f"[{self._clock() - self._start:7.1f} s] {text}", file=self._stream, flush=True)


class LiveProgress(LogProgress):
    """A progress bar with the current stage; notes scroll past above it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: Any = None

    def __enter__(self) -> LiveProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def stage(self, name: str, total: int = 0) -> None:
        """A stage begins."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name.replace("[", "\\["), total=total or None)

    def advance(self, done: int = 1) -> None:
        """So many more units are done."""
        if self._task is not None:
            self._bar.advance(self._task, done)

    def at(self, done: int, total: int) -> None:
        """So many units are done, of so many."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        line = f"{self._clock() - self._start:7.1f} s  {text}"
        self._bar.console.print(line, highlight=False, markup=False)  # "[0.2, 0.6]" is text here


def progress() -> LogProgress:
    """The display that suits stderr."""
    return LiveProgress() if sys.stderr.isatty() else LogProgress()
