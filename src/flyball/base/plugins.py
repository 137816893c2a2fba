"""Plug-in tables: a name leads to an object, loaded when asked for.

In-tree entries are ``name -> "module:attribute"``; packages outside add theirs through an entry-point group
(``flyball.engines``, ``flyball.formats``, ``flyball.payloads``, ``flyball.checks``, ``flyball.tasks``, ...).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from flyball.base.errors import Missing, NotPossible


@cache
def _outside(group: str) -> Mapping[str, str]:
    """Entries of other packages, name -> "module:attribute"; finding them takes milliseconds."""
    return {e.name: e.value for e in entry_points(group=group)}


class PluginTable:
    """Named plug-ins of one kind.

    Args:
      kind: what an entry is, for messages ("engine").
      group: entry-point group searched besides the in-tree entries.
      entries: in-tree entries, name -> "module:attribute".
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._entries, *_outside(self.group)})

    def load(self, name: str) -> Any:
        """The object behind a name.

        Raises:
          Missing: unknown name.
          NotPossible: the module needs a library that is not installed.
        """
        target = self._entries.get(name) or _outside(self.group).get(name)
        if target is None:
            raise Missing.named(self.kind, name, self.names())
        module, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as err:
            if (err.name or "").startswith("flyball"):
                raise
            raise NotPossible(
                f"{self.kind} {name!r} needs the Python package {err.name!r}", run_next=f"pip install {err.name}"
            ) from err
