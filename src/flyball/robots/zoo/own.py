"""The robots that Flyball builds from primitives, as models among those found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flyball import __version__
from flyball.robots.licences import Licence
from flyball.robots.zoo import flyarm, flybase, flycell, flyquad
from flyball.robots.zoo.found import FoundModel, Search

OWN = {"flyarm": flyarm.mjcf, "flycell": flycell.mjcf, "flybase": flybase.mjcf, "flyquad": flyquad.mjcf}
"""Name -> MJCF of the whole robot."""


def own(where: Search) -> Iterator[FoundModel]:
    """Our own robots; they lie nowhere on disk."""
    for name, mjcf in OWN.items():
        licence = Licence("Apache-2.0", "package metadata")
        yield FoundModel(f"flyball/{name}", "mjcf", Path(f"{name}.xml"), __version__, licence, mjcf=mjcf())
