"""A robot's body as data: what it observes, what it accepts, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import Missing, SignalSpec, digest_of


@dataclass(frozen=True)
class Joint:
    """One joint.

    Attributes:
      name: unique within the embodiment.
      kind: ``revolute`` or ``prismatic``.
      low, high: position limits [rad or m].
      velocity: speed limit [rad/s or m/s].
      effort: torque or force limit [N m or N].
    """

    name: str
    kind: str
    low: float
    high: float
    velocity: float
    effort: float


@dataclass(frozen=True)
class Embodiment:
    """A body and its interface.

    Attributes:
      name: e.g. ``flyarm-5``.
      joints: in the order of the joint signals.
      observations: what the robot reports each control period.
      actions: what it accepts; an action is the concatenation of these signals, shape (a,).
      model_digest: sha256 of the model file the joints came from.
      safe_action: an action that is harmless from rest, shape (a,); NaN means "stay where you are".
    """

    name: str
    joints: tuple[Joint, ...]
    observations: tuple[SignalSpec, ...]
    actions: tuple[SignalSpec, ...]
    model_digest: str
    safe_action: tuple[float, ...]

    @property
    def action_size(self) -> int:
        """Length of an action."""
        return sum(s.size for s in self.actions)

    def action_limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(low, high) of an action, each of shape (a,); infinite where unbounded."""
        low = [np.broadcast_to(-np.inf if s.low is None else np.array(s.low), s.shape).ravel() for s in self.actions]
        high = [np.broadcast_to(np.inf if s.high is None else np.array(s.high), s.shape).ravel() for s in self.actions]
        return np.concatenate(low).astype(float), np.concatenate(high).astype(float)

    def action_slice(self, name: str) -> slice:
        """Where one action signal sits within an action."""
        start = 0
        for s in self.actions:
            if s.name == name:
                return slice(start, start + s.size)
            start += s.size
        raise Missing.named("action signal", name, [s.name for s in self.actions], where=self.name)

    def spec_hash(self) -> str:
        """Digest of everything a policy relies on: names, shapes, units, order and limits."""
        return digest_of(self)
