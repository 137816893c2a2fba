"""Where a turn's work runs. In: picklable calls. Out: futures.

``LocalExecutor`` uses processes of this machine; a cluster's executor offers the same two methods.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Protocol

from flyball.base import NotPossible
from flyball.fleet.lifeline import end_with_parent

TRIES = 4
"""A call whose worker was killed is run again; after so many tries it is taken for the reason."""


class Executor(Protocol):
    """What ``concurrent.futures`` calls an executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a call somewhere."""

    def shutdown(self) -> None:
        """Wait for what runs, then free everything."""


class LocalExecutor:
    """Worker processes on this machine, each with one thread; they end with their parent, however it dies.

    When a worker is killed, what ran is run again on fresh workers.
    """

    def __init__(self, workers: int) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        self._workers, self._lock = workers, threading.Lock()
        self._pool = self._fresh()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        out: Future[Any] = Future()
        self._try(out, TRIES, fn, args)
        return out

    def shutdown(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _fresh(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers, mp_context=get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
        )

    def _try(self, out: Future[Any], tries: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        pool = self._pool

        def done(inner: Future[Any]) -> None:
            error = inner.exception()
            if not isinstance(error, BrokenProcessPool):
                out.set_exception(error) if error is not None else out.set_result(inner.result())
            else:
                again()

        def again() -> None:
            if tries <= 1:
                why = f"{fn.__name__} lost its worker process {TRIES} times (killed, or out of memory?)"
                out.set_exception(NotPossible(why, run_next="the same command goes on from here"))
                return
            with self._lock:
                if self._pool is pool:
                    self._pool = self._fresh()
            self._try(out, tries - 1, fn, args)

        try:
            pool.submit(fn, *args).add_done_callback(done)
        except BrokenProcessPool:
            again()
