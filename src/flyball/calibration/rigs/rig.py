"""The protocol of a rig and the table of rigs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from flyball.base import Missing, PluginTable
from flyball.calibration.problem import Compared, Replay
from flyball.episodes import Episode
from flyball.scenes import Scene

rigs = PluginTable(
    "rig",
    "flyball.rigs",
    {
        "servo-pendulum": "flyball.calibration.rigs.servo:ServoPendulum",
        "tossed-cube": "flyball.calibration.rigs.cube:TossedCube",
    },
)


@dataclass(frozen=True)
class Fold:
    """A split of recordings for a held-out error.

    Attributes:
      name: what is held out, e.g. ``kp 800``.
      train, test: names of replays.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


class Rig(Protocol):
    """A physical set-up: its scene, and how its recordings are replayed in it."""

    name: str
    scene: Scene
    """Nominal values are what is known before any recording: data sheet, or the simulator's defaults."""
    engine: str
    """Engine used for fitting, name in ``flyball.engines``."""
    levels: tuple[tuple[str, ...], ...]
    """Ladder of models: the parameters fitted at each level, simplest first. Climbed while it pays on held-out data."""
    priors: Mapping[str, tuple[float, float]]
    """What is known of parameters besides their range: path -> value and standard deviation, a share where ``log``."""
    method: Literal["least-squares", "cma-es"]
    compared: Compared
    unit: str
    """Unit of reported errors, e.g. ``rad``."""
    unit_size: float
    """One such unit in the unit of the compared signal."""
    stride: int
    """Every how many-th measurement takes part in a fit."""

    def matches(self, episode: Episode) -> bool:
        """Whether the episode was recorded on this rig, by its embodiment, signals and labels."""

    def replay(self, episode: Episode) -> Replay:
        """The episode, prepared.

        Raises:
          InputError, Missing: it cannot be replayed, and why.
        """

    def folds(self, replays: Sequence[Replay]) -> list[Fold]:
        """How recordings are held out, each fold once fitted without its test recordings."""


def rig_for(episode: Episode, names: Sequence[str] | None = None) -> str:
    """Name of the rig that an episode was recorded on, "" for none."""
    for name in rigs.names() if names is None else names:
        if name not in rigs.names():
            raise Missing.named("rig", name, rigs.names())
        if rigs.load(name)().matches(episode):
            return name
    return ""


def no_recordings(rig: str | None, names: Sequence[str], place: Path) -> Missing:
    """The error of a workspace that has no episodes of a rig, or of any."""
    return Missing(
        f"no recordings of {rig or 'any rig'}",
        where=str(place),
        allowed=f"episodes of {', '.join(names)}",
        run_next=f"flyball ingest DIR --workspace {place}",
    )
