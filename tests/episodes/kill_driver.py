"""Runs ingest on a workspace and dies by ``kill -9`` before or after its k-th durable operation.

Usage: kill_driver.py WORKSPACE K ACKNOWLEDGED. K = 0 never dies and prints the number of points. The names of files
that ``ingest`` has reported as done are appended to the file ACKNOWLEDGED.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path

from flyball.base.workspace import Workspace
from flyball.episodes import ingest as ingest_module

points = 0


def point(last: int) -> None:
    global points
    points += 1
    if points == last:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(function, last):
    def call(*args, **kwargs):
        point(last)
        result = function(*args, **kwargs)
        point(last)
        return result

    return call


def run(path: Path, last: int, acknowledged: Path) -> None:
    for name in ("fsync", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name), last))  # pathlib calls these too

    class Connection(sqlite3.Connection):
        def execute(self, sql, *args):
            if sql.split()[0] not in ("BEGIN", "COMMIT", "INSERT", "CREATE", "PRAGMA"):
                return super().execute(sql, *args)
            return counted(super().execute, last)(sql, *args)

    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)
    ingest_module.BATCH_FILES = 2  # so that four files make more than one batch
    w = Workspace(path)
    names = sorted(p.name for p in w.inbox.iterdir())

    def tell(done: int, _: int) -> None:
        with open(acknowledged, "a") as f:
            f.write(names[done - 1] + "\n")
        point(last)

    ingest_module.ingest(w, progress=tell)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    print(points)
