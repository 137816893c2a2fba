"""Where a turn's work runs. In: picklable calls. Out: futures. ``LocalExecutor`` uses processes of this machine; a cluster
executor offers the same three methods.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol

from flyball.fleet.lifeline import end_with_parent


class Executor(Protocol):
    """What ``concurrent.futures`` calls an executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a call somewhere."""

    def shutdown(self) -> None:
        """Wait for what runs, then free everything."""


class LocalExecutor:
    """Worker processes on this machine, each with one thread; they end with their parent, however it dies."""

    def __init__(self, workers: int) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        self._pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        return self._pool.submit(fn, *args)

    def shutdown(self) -> None:
        self._pool.shutdown(cancel_futures=True)
