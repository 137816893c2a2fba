"""A workspace: the folder in which one fleet's loop lives.

In: a path. Out: its parts (inbox, store, reports, ...) and its ``Store``. Creating is safe to repeat and to race.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from flyball.base.durable import make_folder, write_durably
from flyball.base.errors import InputError, Missing
from flyball.base.store import Store, locked

_SETTINGS = b"# A Flyball workspace: logs dropped into inbox/ ingest themselves.\nlayout = 1\n"


class Workspace:
    """Create or open a workspace.

    Args:
      path: a workspace, an empty folder, or a path that does not exist yet.
      create: make it when it is not there.
      clock_ns: wall clock for what gets stored [ns].

    Attributes:
      inbox: logs dropped here ingest themselves. Deliver by rename; names that end in ``.part`` are left alone.
      quarantine: files of the inbox that could not be read, each beside its reason.
      reports: documents for people.
      tuf: update repository.

    Raises:
      InputError: a file, a folder that holds something else, or one that cannot be written.
      Missing: no workspace there and ``create`` is false.
    """

    def __init__(self, path: Path | str, *, create: bool = True, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.path = Path(path).expanduser()
        self._clock_ns = clock_ns
        self.inbox = self.path / "inbox"
        self.quarantine = self.path / "quarantine"
        self.reports = self.path / "reports"
        self.tuf = self.path / "tuf"
        settings = self.path / "flyball.toml"
        if not settings.exists():
            self._refuse_foreign(create)
        else:
            _settings(settings)  # what cannot be read is not touched
        try:
            make_folder(self.path)
            if not settings.exists():
                with locked(self.path / ".create.lock"):
                    if not settings.exists():
                        write_durably(settings, _SETTINGS)  # first: a folder with anything else in it is not ours
            for folder in (self.inbox, self.quarantine, self.reports, self.tuf):
                make_folder(folder)
        except OSError as err:
            raise InputError(f"cannot be made a workspace ({err.strerror})", where=str(self.path)) from err
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InputError("not writable", where=str(self.path), allowed="a folder you may write to")
        self.settings: dict[str, Any] = _settings(settings)

    @cached_property
    def store(self) -> Store:
        """The workspace's store."""
        return Store(self.path, clock_ns=self._clock_ns)

    def _refuse_foreign(self, create: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError("not a folder", where=str(self.path), allowed="a workspace, or a new or empty folder")
        try:
            # Hidden names do not count: another process may be creating the same workspace this moment.
            foreign = self.path.is_dir() and any(not p.name.startswith(".") for p in self.path.iterdir())
        except OSError as err:
            raise InputError(f"cannot be read ({err.strerror})", where=str(self.path)) from err
        if foreign and not (self.path / "flyball.toml").exists():
            raise InputError(
                "not a Flyball workspace, and not empty", where=str(self.path), allowed="a new or empty folder"
            )
        if not create and not (self.path / "flyball.toml").exists():
            raise Missing("no workspace here", where=str(self.path), run_next=f"flyball ingest --workspace {self.path}")


def _settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise InputError(f"not valid TOML ({err})", where=str(path)) from err
