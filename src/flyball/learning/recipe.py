"""What every learning method is and makes.

In: features of observations and coded action chunks, as arrays. Out: a ``TrainedPolicy``: a file that runs without a
trainer, and a state that training may go on from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.base import PluginTable, digest_of

recipes = PluginTable("recipe", "flyball.recipes", {"flow": "flyball.learning.flow:train"})

Progress: TypeAlias = Callable[[int, int, float], None]
"""Called now and then with (gradient steps done, gradient steps in all, smoothed loss)."""


@dataclass(frozen=True)
class TrainedPolicy:
    """What training made.

    Attributes:
      onnx: the policy file; ``flyball.policies.learned.LearnedPolicy`` runs it.
      state: what a warm start needs; same bits for the same data, configuration and seed.
      steps: gradient steps of this training, without those of a warm start's past.
      frames: observations trained on.
      loss: (step, smoothed training loss) in normalised units, from first to last.
      labels: small facts for the artifact: producer, method, frames, steps, parents.
    """

    onnx: bytes
    state: bytes
    steps: int
    frames: int
    loss: tuple[tuple[int, float], ...]
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of the policy file (hex)."""
        return digest_of(self.onnx)


class Recipe(Protocol):
    """A learning method: one callable of this shape per folder."""

    def __call__(
        self,
        features: NDArray[np.float32],
        codes: NDArray[np.float32],
        config: Any,
        *,
        seed: int,
        told: tuple[str, ...] = (),
        spec_hash: str = "",
        history: int = 0,
        warm_start: Path | bytes | None = None,
        progress: Progress | None = None,
    ) -> TrainedPolicy:
        """Learn codes (N, h, b) from features (N, f)."""
