"""Numbers as URDF writes them.

In: attributes of elements. Out: finite numbers of the right count, or one line that names the element.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from flyball.base import InputError
from flyball.robots.models.facts import multiply
from flyball.robots.models.markup import Document
from flyball.robots.models.mjcf import HUGE
from flyball.robots.models.model import Array


@dataclass
class Numbers:
    """Reads the numbers of one document."""

    source: Document

    def number(self, e: Element, key: str, default: float | None = None, largest: float = HUGE) -> float:
        """One number; without a default it has to be there."""
        text = e.get(key)
        if text is None:
            if default is None:
                raise InputError(f"no {key}", where=self.source.at(e))
            return default
        return float(self._words(e, key, text, 1, largest)[0])

    def vector(self, e: Element, key: str, n: int, default: str | None = None) -> Array:
        """n numbers; without a default they have to be there."""
        text = e.get(key, default)
        if text is None:
            raise InputError(f"no {key}", where=self.source.at(e))
        return self._words(e, key, text, n)

    def _words(self, e: Element, key: str, text: str, n: int, largest: float = HUGE) -> Array:
        try:
            values = np.array([float(word) for word in text.split()])
        except ValueError:
            values = np.zeros(0)
        if len(values) != n or not np.isfinite(values).all():
            what = "a number" if n == 1 else f"{n} numbers"
            raise InputError(f"{key}={text[:60]!r}", where=self.source.at(e, key), allowed=what)
        if np.abs(values).max() > largest:
            raise InputError(f"{key}={text[:60]!r}", where=self.source.at(e, key), allowed=f"up to {largest:g}")
        return values

    def origin(self, e: Element) -> tuple[Array, Array]:
        """Pose that an element's ``origin`` states: position (3,) and quaternion wxyz (4,)."""
        origin = e.find("origin")
        if origin is None:
            return np.zeros(3), np.array([1.0, 0, 0, 0])
        half = self.vector(origin, "rpy", 3, "0 0 0") / 2
        quat = np.array([1.0, 0, 0, 0])
        for k in (2, 1, 0):  # about fixed axes: first roll, then pitch, then yaw
            turn = np.zeros(4)
            turn[0], turn[1 + k] = np.cos(half[k]), np.sin(half[k])
            quat = multiply(quat, turn)
        return self.vector(origin, "xyz", 3, "0 0 0"), quat if np.any(half) else np.array([1.0, 0, 0, 0])
