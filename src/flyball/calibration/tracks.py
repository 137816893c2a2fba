"""Replays to look at: what was measured against what a fit that had not seen it predicts, with its band.

In: a rig, recordings and the scores of its folds. Out: ``Track``s of the worst and of the median held-out recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.problem import Replay
from flyball.calibration.recordings import Score, checked_folds, problem_of
from flyball.calibration.rigs import Rig

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Track:
    """One signal of one held-out recording.

    Attributes:
      name: of the recording.
      rank: ``worst`` or ``median`` of all held-out recordings, by error.
      fold: what was held out when it was predicted.
      signal: what is shown; of several components the one that is worst.
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
    rig: Rig, replays: Sequence[Replay], scores: Sequence[Score], *, labels: Sequence[str] = (), most: int = 500
) -> list[Track]:
    """The worst and the median held-out recording.

    Args:
      replays: all recordings, as they were scored.
      scores: one per fold, in the order of the rig's folds.
      labels: names of the compared signal's components; default: their numbers.
      most: samples kept per track.
    """
    held = [
        (float(error), name, k)
        for k, (fold, score) in enumerate(zip(checked_folds(rig, replays), scores, strict=True))
        for name, error in zip(_in_order(replays, fold.test), score.by_recording, strict=True)
    ]
    held.sort(reverse=True)
    chosen = {"worst": held[0], "median": held[len(held) // 2]}
    if len(held) == 1:
        chosen.pop("median")
    return [_track(rig, replays, scores[k], name, rank, error, labels, most)
            for rank, (error, name, k) in chosen.items()]  # fmt: skip


def _in_order(replays: Sequence[Replay], names: Sequence[str]) -> list[str]:
    return [r.name for r in replays if r.name in names]


def _track(
    rig: Rig, replays: Sequence[Replay], score: Score, name: str, rank: str, error: float, labels: Sequence[str],
    most: int,
) -> Track:  # fmt: skip
    learned = score.learned
    problem = problem_of(rig, [r for r in replays if r.name == name], learned.problem.paths)
    predicted = problem.predict(learned.best[None])[0]
    low, high = learned.bands.limits(problem.predict(learned.samples(learned.tracks)), problem.elapsed)
    c = int(np.argmax(np.abs(predicted - problem.measured).mean(axis=0)))
    inside = (problem.measured >= low) & (problem.measured <= high)
    keep = np.unique(np.linspace(0, len(predicted) - 1, min(most, len(predicted))).astype(int))
    shown = (x[keep, c] for x in (problem.measured, predicted, low, high))
    several = rig.compared.size > 1
    part = f" {labels[c] if c < len(labels) else c}" if several else ""
    return Track(
        name, rank, score.error.name, rig.compared.signal + part, rig.unit if rig.unit_size == 1.0 else "",
        error, float(inside.mean()), problem.elapsed[keep], *shown,
    )  # fmt: skip
