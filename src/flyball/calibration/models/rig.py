"""A robot model as a rig, built at run time.

In: a robot model and the layout of its recordings. Out: ``ModelRig``: a scene whose parameters are the model's joints,
drives and links, and replays of episodes in it. Every measured joint is compared; commands reach the actuators of the
joints that they name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.calibration.models.parameters import LEVELS, Driven, mechanism, parameters
from flyball.calibration.models.recording import Layout, joint_start, layout_of, noise_of, tracks
from flyball.calibration.problem import Compared, Replay
from flyball.calibration.rigs import Fold
from flyball.episodes import Episode
from flyball.robots.models import Imported
from flyball.scenes import Parameter, Scene

Array = NDArray[np.float64]

NOISE = 3e-4
"""Of an encoder that nobody described [rad or m]."""
SAMPLES = 250
"""Measurements of a recording that take part in a fit."""
_FOLDS = 5
_QUIET = 2e-5
"""No sensor is taken to be better than this [rad or m]."""


@dataclass(frozen=True)
class ModelRig:
    """A robot model with parameters; see ``flyball.calibration.rigs.Rig``.

    Attributes:
      layout: how recordings name and order what they hold.
      driven: facts of the measured joints, in the order of the comparison.
      notes: what was assumed.
    """

    name: str
    scene: Scene
    engine: str
    levels: tuple[tuple[str, ...], ...]
    compared: Compared
    layout: Layout
    driven: tuple[Driven, ...]
    stride: int = 1
    notes: tuple[str, ...] = ()
    method: Literal["least-squares", "cma-es"] = "least-squares"
    unit: str = "rad"

    @property
    def unit_size(self) -> float:
        """Errors are root mean squares over joints."""
        return float(np.sqrt(self.compared.size))

    def matches(self, episode: Episode) -> bool:
        """Whether the episode names this robot's joints."""
        try:
            layout_of(episode, [d.joint for d in self.driven])
        except InputError:
            return False
        return True

    def replay(self, episode: Episode) -> Replay:
        """The episode, prepared; see ``flyball.calibration.rigs.Rig``."""
        name = str(episode.labels.get("file") or episode.labels.get("episode_index") or episode.log_digest[:12])
        control_t, commands, t, measured = tracks(episode, self.layout, name)
        start = {d.joint: joint_start(t, measured[:, i]) for i, d in enumerate(self.driven)}
        columns = [self.layout.commands.index(d.joint) if d.joint in self.layout.commands else -1 for d in self.driven]
        controls = np.zeros((len(control_t), len(self._actuators)))
        for d, column in zip(self.driven, columns, strict=True):
            if d.actuator and column >= 0:
                controls[:, self._actuators.index(d.actuator)] = commands[:, column]
        regime = str(episode.labels.get("regime") or episode.task or "")
        return Replay(
            name, regime, start, control_t, controls, {}, t, measured, hold=True, robot=episode.robot or "",
        )  # fmt: skip

    def folds(self, replays: Sequence[Replay]) -> list[Fold]:
        """Every regime held out once; of a single regime, a few groups of its recordings."""
        regimes = sorted({r.regime for r in replays})
        names = [r.name for r in replays]
        if len(regimes) > 1:
            groups = {g: tuple(r.name for r in replays if r.regime == g) for g in regimes}
        else:
            k = min(_FOLDS, len(names))
            groups = {", ".join(names[i::k]): tuple(names[i::k]) for i in range(k)}
        return [Fold(g, tuple(n for n in names if n not in out), out) for g, out in groups.items()]

    @property
    def _actuators(self) -> tuple[str, ...]:
        return self.layout.actuators


def measured_by(rig: ModelRig, replays: Sequence[Replay]) -> ModelRig:
    """The rig with the noise of the sensors in these recordings, and a stride that leaves as many samples as count."""
    noise = float(np.median([[noise_of(q) for q in r.measured.T] for r in replays]))
    stride = max(1, int(np.median([len(r.t) for r in replays])) // SAMPLES)
    return replace(rig, compared=replace(rig.compared, noise=max(noise, _QUIET)), stride=stride)


def model_rig(
    imported: Imported,
    layout: Layout,
    *,
    engine: str = "mujoco",
    extra: Sequence[str] = (),
    changes: Mapping[str, Parameter] | None = None,
) -> ModelRig:
    """A rig from a model and the layout of its recordings.

    Args:
      extra: kinds of parameters to fit besides the ladder's.
      changes: path -> the parameter to have instead.
    """
    model = imported.model
    driven = mechanism(model, imported.compile(), layout.joints)
    kinds = parameters(model, driven, layout.position, extra)
    made = {p.path: p for ps in kinds.values() for p in ps} | dict(changes or {})
    levels, paths = [], []
    for i, level in enumerate(LEVELS):
        more = [*level, *(extra if i == 1 else ())]
        paths += [p.path for kind in dict.fromkeys(more) for p in kinds.get(kind, ()) if p.path not in paths]
        levels.append(tuple(paths))
    fields = tuple(f"joint:{d.joint}.position" for d in driven)
    compared = Compared(layout.position, fields, len(fields), scale=0.02, noise=NOISE)
    scene = Scene(imported.name, imported.mjcf, tuple(made.values()), assets=imported.assets)
    return ModelRig(imported.name, scene, engine, tuple(levels), compared, layout, tuple(driven))
