"""Processes that read logs side by side. In: logs in order. Out: what reading each gave, in the same order.

A process that dies (a library crashes on a hostile log, the system runs out of memory) takes only the log with it that
killed it: what was in flight is read again, one by one until the culprit is found. Processes end with their parent,
however it ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any

from flyball.base.workspace import Workspace
from flyball.episodes.arrivals import Arrival
from flyball.episodes.taking import Maps, Setting, Taken, take

AHEAD = 4
"""Logs per process that are handed out before the first of them is done."""


@dataclass(frozen=True)
class Died:
    """Reading this log killed its process."""


class Readers:
    """Reading processes; 0 for none: logs are then read by the caller's.

    Args:
      workers: how many.
      setting: how they read. A judge that cannot be pickled keeps everything in this process.
    """

    def __init__(self, workers: int, setting: Setting) -> None:
        self.setting = setting
        self.workers = workers if _can_travel(setting) else 0
        self._pool: ProcessPoolExecutor | None = None

    def in_order(
        self,
        groups: list[list[Arrival]],
        maps: Callable[[], Maps],
        workspace: Workspace,
        stop: Callable[[], bool] | None,
    ) -> Iterator[Taken | Died]:
        """Read logs; one result for each.

        Args:
          groups: which; a process reads one group at a time.
          maps: the channel maps as they are at the moment.
          workspace: of this process.
          stop: asked before each group; after a yes no further group is begun.
        """
        if self.workers == 0:
            for group in groups:
                if stop is not None and stop():
                    return
                yield from take(workspace, self.setting, group, maps())
            return
        waiting = deque(groups)
        flying: deque[tuple[list[Arrival], Future[Any]]] = deque()
        while True:
            if stop is not None and stop():
                waiting.clear()
            while waiting and len(flying) < self.workers * AHEAD:
                group = waiting.popleft()
                flying.append((group, self._submit(group, maps())))
            if not flying:
                return
            group, future = flying.popleft()
            try:
                yield from future.result()
            except BrokenProcessPool:
                for arrival in group:
                    yield self._alone(arrival, maps())
                flying = deque((g, self._submit(g, maps()) if _failed(f) else f) for g, f in flying)

    def close(self) -> None:
        """End the processes; what they were reading is read another time."""
        if self._pool is not None:
            processes = list((getattr(self._pool, "_processes", None) or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for p in processes:
                p.terminate()
            for p in processes:
                p.join()
            self._pool = None

    def _submit(self, group: list[Arrival], maps: Maps) -> Future[Any]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(self.setting,)
            )
        try:
            return self._pool.submit(_take, group, maps)
        except BrokenProcessPool as err:
            failed: Future[Any] = Future()
            failed.set_exception(err)
            return failed

    def _alone(self, arrival: Arrival, maps: Maps) -> Taken | Died:
        """Read the log while no other is read: if that kills the process, it is the one."""
        self.close()
        try:
            (taken,) = self._submit([arrival], maps).result()
            return taken
        except BrokenProcessPool:
            self.close()
            return Died()


_at_work: tuple[Workspace, Setting] | None = None


def _begin(setting: Setting) -> None:
    """Set up a reading process."""
    global _at_work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _at_work = (Workspace(setting.workspace, create=False), setting)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _failed(future: Future[Any]) -> bool:
    """Whether a group is to be read again: what was done before the process died is kept."""
    return not future.done() or future.cancelled() or isinstance(future.exception(), BrokenProcessPool)


def _take(group: list[Arrival], maps: Maps) -> list[Taken]:
    assert _at_work is not None
    workspace, setting = _at_work
    return take(workspace, setting, group, maps)


def _can_travel(setting: Setting) -> bool:
    try:
        pickle.dumps(setting)
    except Exception:
        return False
    return True
