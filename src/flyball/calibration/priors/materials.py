"""Friction of pairs of materials.

In: two materials. Out: ``FrictionPrior``: published coefficients and the range that spans them. The table is
``materials.toml``.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from flyball.base import Missing


@dataclass(frozen=True)
class FrictionPrior:
    """Coulomb friction between two materials, dry.

    Attributes:
      materials: in alphabetical order.
      low, high: smallest and largest published coefficient, static or kinetic.
      nominal: middle of these by ratio; simulators have one coefficient for both.
      sources: documents.
      note: what to mind.
    """

    materials: tuple[str, str]
    low: float
    nominal: float
    high: float
    sources: tuple[str, ...]
    note: str = ""


def friction(one: str, two: str) -> FrictionPrior:
    """The coefficient between two materials, in any order.

    Raises:
      Missing: naming the nearest pairs.
    """
    name = _name((one, two))
    if name not in _table():
        raise Missing.named("pair of materials", name, _table(), where="priors")
    return _table()[name]


def _name(pair: tuple[str, str]) -> str:
    one, two = sorted(x.strip().casefold().replace("aluminum", "aluminium").replace("teflon", "ptfe") for x in pair)
    return f"{one} on {two}"


@functools.cache
def _table() -> dict[str, FrictionPrior]:
    data = tomllib.loads(files(__package__).joinpath("materials.toml").read_text("utf-8"))
    out = {}
    for row in data["pair"]:
        every = [x for v in row["values"] for k in ("static", "kinetic") for x in v.get(k, ())]
        low, high = float(min(every)), float(max(every))
        sources = tuple(dict.fromkeys(data["sources"][v["source"]] for v in row["values"]))
        one, two = row["materials"]
        out[_name((one, two))] = FrictionPrior(
            (one, two), low, float(np.sqrt(low * high)), high, sources, row.get("note", "")
        )
    return out
