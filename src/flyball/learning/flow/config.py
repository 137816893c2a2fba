"""Every number of the method, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from flyball.base import InputError

METHODS = ("flow", "regression")


@dataclass(frozen=True)
class FlowConfig:
    """How to train.

    Attributes:
      method: ``flow`` (many answers possible, noise picks one) or ``regression`` (one answer, near the median).
      steps: gradient steps.
      batch: frames per step.
      width: units per hidden layer.
      depth: hidden layers.
      time_features: size of the embedding of flow time; even.
      integration_steps: Euler steps from noise to chunk in the exported graph.
      learning_rate: peak of the schedule; warm-up, then cosine to zero.
      warm_up: steps over which the learning rate rises.
      weight_decay: of AdamW, on weight matrices and biases alike.
      clip_norm: largest norm of the gradient of all weights.
      ema: decay of the running mean of weights that is exported; shorter at the start.
      knee: normalised error at which the loss turns from square to absolute (pseudo-Huber). Small: medians, sharp at
        mode switches; large: means.
      feature_noise: standard deviation of noise added to normalised features in training.
      threads: torch threads during training. More than one pays only on an idle machine.
    """

    method: str = "flow"
    steps: int = 1500
    batch: int = 256
    width: int = 256
    depth: int = 3
    time_features: int = 16
    integration_steps: int = 6
    learning_rate: float = 4e-3
    warm_up: int = 100
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema: float = 0.998
    knee: float = 0.3
    feature_noise: float = 0.0
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.method not in METHODS:
            raise InputError(f"no method named {self.method!r}", where="FlowConfig.method", allowed=", ".join(METHODS))
        ranges: dict[str, tuple[tuple[str, ...], Callable[[float], bool]]] = {
            ">= 1": (("steps", "batch", "width", "depth", "integration_steps", "threads"), lambda x: x >= 1),
            "2, 4, 6, ...": (("time_features",), lambda x: x >= 2 and x % 2 == 0),
            "> 0": (("learning_rate", "clip_norm", "knee"), lambda x: 0 < x < math.inf),
            ">= 0": (("warm_up", "weight_decay", "feature_noise"), lambda x: 0 <= x < math.inf),
            "0 <= ema < 1": (("ema",), lambda x: 0 <= x < 1),
        }
        for allowed, (names, good) in ranges.items():
            for name in names:
                if not good(getattr(self, name)):
                    raise InputError(
                        f"{getattr(self, name)!r} is out of range", where=f"FlowConfig.{name}", allowed=allowed
                    )
