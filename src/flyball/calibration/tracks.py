"""Replays to look at: what was measured against what a fit that had not seen it predicts, with its band.

In: held-out recordings as they were predicted, one ``Held`` per fold. Out: ``Track``s of the worst and of the median
held-out recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Held:
    """The recordings that a fold holds out, and what the others say of them.

    Attributes:
      fold: name of the fold.
      names: of its recordings.
      errors: of each, in the unit of the report, (recordings,).
      recording: which of them a sample belongs to, (samples,).
      elapsed: time of every sample since the start of its recording [s], (samples,).
      measured, predicted: by the best fit, (samples, size).
      low, high: the 90 % band, (samples, size).
    """

    fold: str
    names: tuple[str, ...]
    errors: Array
    recording: NDArray[np.int_]
    elapsed: Array
    measured: Array
    predicted: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class Track:
    """One signal of one held-out recording.

    Attributes:
      name: of the recording.
      rank: ``worst`` or ``median`` of all held-out recordings, by error.
      fold: what was held out when it was predicted.
      signal: what is shown; of several components one of the worst, see ``_shown``.
      unit: of the values.
      error: of the recording, in the unit of the report.
      inside: share of the recording's measurements within the 90 % band.
      t: time since the start [s], (n,).
      measured, predicted, low, high: (n,); the band is 90 % of what the samples, the discrepancy and the noise allow.
    """

    name: str
    rank: str
    fold: str
    signal: str
    unit: str
    error: float
    inside: float
    t: Array
    measured: Array
    predicted: Array
    low: Array
    high: Array

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Track:
        """Inverse of ``to_json``."""
        values: dict[str, Any] = {k: np.array(v, float) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


def held_out_tracks(
    folds: Sequence[Held], signal: str, *, components: Sequence[str] = (), unit: str = "", most: int = 500
) -> list[Track]:
    """The worst and the median held-out recording; one when there is only one.

    Args:
      signal: that was compared; its components' names, default their numbers; its unit.
      most: samples kept per track.
    """
    ranked = sorted(((h.errors[i], h.names[i], h, i) for h in folds for i in range(len(h.names))), key=lambda r: -r[0])
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2]} if len(ranked) > 1 else {"worst": ranked[0]}
    out = []
    for rank, (error, name, h, i) in chosen.items():
        mine = np.flatnonzero(h.recording == i)
        c = _shown(h.measured[mine], h.predicted[mine])
        inside = (h.measured[mine] >= h.low[mine]) & (h.measured[mine] <= h.high[mine])
        keep = mine[np.unique(np.linspace(0, len(mine) - 1, min(most, len(mine))).astype(int))]
        part = f" {components[c] if c < len(components) else c}" if h.measured.shape[1] > 1 else ""
        shown = (x[keep, c] for x in (h.measured, h.predicted, h.low, h.high))
        out.append(
            Track(name, rank, h.fold, signal + part, unit, float(error), float(inside.mean()), h.elapsed[keep], *shown)
        )
    return out


def _shown(measured: Array, predicted: Array) -> int:
    """The component that moves most among those that are off by at least two thirds of what the worst one is."""
    off = np.abs(predicted - measured).mean(axis=0)
    return int(np.argmax(np.where(off >= off.max() / 1.5, np.ptp(measured, axis=0), -1.0)))
