"""The policy protocol: observation in, action chunk out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.robots import Observation


@dataclass(frozen=True)
class ActionChunk:
    """Actions for the next control periods.

    Attributes:
      actions: shape (h, a) for one robot, (n, h, a) for a batch.
      dt_s: time between two actions [s].
      confidence: 0 to 1; NaN when the policy has no opinion.
    """

    actions: NDArray[np.float64]
    dt_s: float
    confidence: float = float("nan")


class Policy(Protocol):
    """Observation in, action chunk out. As stateless as possible; what state there is, ``reset`` clears."""

    def reset(self, instruction: str, seed: int) -> None:
        """Begin an episode. The seed decides everything random the policy does until the next reset."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next actions. Observation values may carry a leading batch axis; the chunk then does too."""
