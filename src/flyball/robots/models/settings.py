"""Settings of a whole model that MuJoCo's XML has and other formats do not: the viewer's, statistics, sizes.

In: MJCF. Out: what its author wrote in ``<visual>``, ``<statistic>`` and ``<size>``, as texts by place; and back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element, SubElement

from flyball.base import InputError

PLACES = (
    "visual/global",
    "visual/quality",
    "visual/headlight",
    "visual/map",
    "visual/scale",
    "visual/rgba",
    "statistic",
    "size",
)
"""Elements below the root whose attributes are settings."""
_SIZES = ("memory", "njmax", "nconmax", "nuserdata")
"""Of ``<size>``; the others count elements."""
_WORD = re.compile(r"[a-z_0-9]+$")


def settings(root: Element) -> dict[str, dict[str, str]]:
    """Place -> attribute -> text, of an MJCF root; later elements override earlier ones, as MuJoCo has it."""
    out: dict[str, dict[str, str]] = {}
    for place in PLACES:
        found: dict[str, str] = {}
        for e in root.iterfind(place):
            found |= {k: v for k, v in e.items() if place != "size" or k in _SIZES}
        if found:
            out[place] = found
    return out


def put(root: Element, told: Mapping[str, Mapping[str, str]], where: str) -> None:
    """Append settings to an MJCF root.

    Raises:
      InputError: no such place, or an attribute that is no word.
    """
    for place, attributes in told.items():
        if place not in PLACES:
            raise InputError(f"settings of {place[:60]!r}", where=where, allowed=", ".join(PLACES))
        parent = root
        for tag in place.split("/"):
            found = parent.find(tag)
            parent = SubElement(parent, tag) if found is None else found
        for key, text in attributes.items():
            if not _WORD.match(key) or (place == "size" and key not in _SIZES):
                raise InputError(f"{place} has no {key[:60]!r}", where=where, allowed=f"attributes of <{place}>")
            parent.set(key, text)
