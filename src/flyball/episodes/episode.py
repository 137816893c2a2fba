"""An episode: one attempt at something, with everything that was sensed and sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import Missing, Timed

Origin = Literal["fleet", "teleoperation", "script", "simulation", "world_model"]
Outcome = Literal["success", "failure", "aborted", "unknown"]


@dataclass(frozen=True)
class Event:
    """Something that happened at one moment.

    Attributes:
      t_ns: when, on the clock of the episode's signals [ns].
      name: e.g. ``crushed``, ``supervisor.stop``.
      text: details for people.
    """

    t_ns: int
    name: str
    text: str = ""


@dataclass(frozen=True)
class Frames:
    """A camera's stream: encoded pictures, back to back in a blob of their own (the store's kind ``frames``).

    Attributes:
      name: signal name, e.g. ``camera.wrist``.
      encoding: of each picture: ``jpeg``, ``png``; ``h264``, ``h265``, ``vp9``, ``av1`` (one access unit each, Annex B
        for the first two); or ``raw:`` with a pixel format: ``rgb8 bgr8 rgba8 bgra8 mono8 mono16 32FC1``.
      height, width: of a picture [pixels], 0 when unknown before decoding.
      blob: digest of the blob.
      t_ns: time stamps [ns], shape (n,), non-decreasing.
      start, stop: picture i is ``blob[start[i]:stop[i]]``, shape (n,), int64.
      key: whether picture i can be decoded alone, shape (n,), bool.
    """

    name: str
    encoding: str
    height: int
    width: int
    blob: str
    t_ns: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    key: NDArray[np.bool_]


@dataclass(frozen=True)
class Episode:
    """One attempt.

    Attributes:
      embodiment: name of the body.
      robot: which robot, e.g. ``robot-01`` ("" when unknown).
      task: e.g. ``lift-fragile-v1`` ("" when unknown).
      instruction: what was asked, in words.
      origin: where it comes from.
      outcome: judged by ``Task.judge`` on the logged signals, never by hand.
      group: what happened, for failures, e.g. ``slipped`` ("" when not judged).
      signals: name -> recorded signal.
      frames: name -> a camera's pictures.
      events: in order of time.
      release: digest of the release that drove the robot ("" for none).
      scene: digest of the scene ("" for real or unknown).
      seed: seed of the attempt, -1 when there was none.
      log_digest: sha256 of the raw log it was cut from ("" when it never was a log).
      labels: further searchable facts, e.g. ``{"turn": 2, "kp": 100}``.
    """

    embodiment: str
    robot: str = ""
    task: str = ""
    instruction: str = ""
    origin: Origin = "fleet"
    outcome: Outcome = "unknown"
    group: str = ""
    signals: Mapping[str, Timed] = field(default_factory=dict)
    frames: Mapping[str, Frames] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    release: str = ""
    scene: str = ""
    seed: int = -1
    log_digest: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)

    def signal(self, name: str) -> Timed:
        """The signal of that name.

        Raises:
          Missing: naming the signals there are.
        """
        if name not in self.signals:
            raise Missing.named("signal", name, self.signals, where=f"episode of {self.robot or self.embodiment}")
        return self.signals[name]
