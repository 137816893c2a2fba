"""The robot's spool: logs that are durable here until the hub says that they are durable there.

In: finished logs, each the attempt (order id, index). Out: what is still to be sent, what is done. An attempt is done
from the moment its log is in the spool; the log leaves the spool only after the acknowledgement is in the ledger, so
that a kill at any moment neither loses nor repeats it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from flyball.base.durable import Ledger, make_folder, move_durably, remove_durably


@dataclass(frozen=True)
class Spooled:
    """A log in the spool.

    Attributes:
      order, index: the attempt.
      digest: sha256 of the log.
      path: where it is.
    """

    order: str
    index: int
    digest: str
    path: Path


class Spool:
    """The spool in a robot's home folder; one holder at a time."""

    def __init__(self, home: Path) -> None:
        self._folder = make_folder(home / "spool")
        self._recording = make_folder(home / "recording")
        for left in self._recording.iterdir():  # an attempt that a kill cut off: it is run again
            left.unlink()
        self._ledger = Ledger(home / "acknowledged.jsonl")
        self._acknowledged: dict[str, set[int]] = {}
        for row in self._ledger.rows:
            self._acknowledged.setdefault(row["order"], set()).add(row["index"])
        for log in self.pending():  # acknowledged, but a kill came before the deletion
            if log.index in self._acknowledged.get(log.order, ()):
                remove_durably(log.path)

    def recording(self, order: str, index: int) -> Path:
        """Where to record an attempt."""
        return self._recording / f"{order}.{index}.mcap"

    def finish(self, order: str, index: int, recorded: Path) -> Spooled:
        """Take a recorded log. It is durable and the attempt is done when this returns."""
        with open(recorded, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            os.fsync(f.fileno())
        log = Spooled(order, index, digest, self._folder / f"{order}.{index}.{digest}.mcap")
        move_durably(recorded, log.path)
        return log

    def pending(self) -> list[Spooled]:
        """Logs that the hub has not acknowledged, in order."""
        out = []
        for path in self._folder.glob("*.mcap"):
            order, index, digest, _ = path.name.rsplit(".", 3)
            out.append(Spooled(order, int(index), digest, path))
        return sorted(out, key=lambda s: (s.order, s.index))

    def acknowledged(self, log: Spooled) -> None:
        """The hub has it: write that down, then forget the log."""
        self._ledger.append({"order": log.order, "index": log.index, "sha256": log.digest})
        self._acknowledged.setdefault(log.order, set()).add(log.index)
        remove_durably(log.path)

    def done(self, order: str) -> set[int]:
        """Indices of an order's attempts that are done, whether acknowledged yet or not."""
        return self._acknowledged.get(order, set()) | {s.index for s in self.pending() if s.order == order}

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()
