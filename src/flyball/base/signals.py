"""Signals: named, specified, stamped arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SignalSpec:
    """What a signal is.

    Attributes:
      name: dotted name, e.g. ``joint.position``.
      shape: shape of one sample.
      dtype: numpy dtype name.
      unit: SI unit of each element ("" for dimensionless); one for all elements, or one each, separated by spaces.
      rate_hz: nominal rate, 0 when irregular [Hz].
      frame: coordinate frame the values are expressed in, "" when not geometric.
      low: smallest allowed value per element (broadcasts to shape); None when unbounded.
      high: largest allowed value per element (broadcasts to shape); None when unbounded.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    unit: str = ""
    rate_hz: float = 0.0
    frame: str = ""
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        return int(np.prod(self.shape, dtype=int))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; ``from_json`` is its inverse."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "unit": self.unit,
            "rate_hz": self.rate_hz,
            "frame": self.frame,
            "low": None if self.low is None else list(self.low),
            "high": None if self.high is None else list(self.high),
        }

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> SignalSpec:
        """Inverse of ``to_json``."""
        return cls(
            name=d["name"],
            shape=tuple(d["shape"]),
            dtype=d["dtype"],
            unit=d["unit"],
            rate_hz=d["rate_hz"],
            frame=d["frame"],
            low=None if d["low"] is None else tuple(d["low"]),
            high=None if d["high"] is None else tuple(d["high"]),
        )


@dataclass(frozen=True)
class Timed:
    """A recorded signal.

    Attributes:
      spec: what it is.
      t_ns: time stamps [ns], shape (n,), int64, non-decreasing.
      values: samples, shape (n, *spec.shape).
    """

    spec: SignalSpec
    t_ns: NDArray[np.int64]
    values: NDArray[Any]
