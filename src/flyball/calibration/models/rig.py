"""A robot model as a rig, built at run time.

In: a robot model and the layout of its recordings. Out: ``ModelRig``: a scene whose parameters are the model's joints,
drives and links, and replays of episodes in it. Every measured joint is compared; commands reach the actuators of the
joints that they name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.calibration.audit import Audit
from flyball.calibration.models.parameters import KINDS, LEVELS, Driven, mechanism, parameters
from flyball.calibration.models.recording import Layout, audited, joint_start, layout_of, noise_of, tracks
from flyball.calibration.models.settings import Settings, apply, kinds_of, without
from flyball.calibration.problem import Compared, Replay
from flyball.calibration.rigs import Fold
from flyball.episodes import Episode
from flyball.robots.models import Imported
from flyball.scenes import Scene

Array = NDArray[np.float64]

NOISE = 3e-4
"""Of an encoder that nobody described [rad or m]."""
SAMPLES = 250
"""Measurements of a recording that take part in a fit."""
_FOLDS = 5
_QUIET = 2e-5
"""No sensor is taken to be better than this [rad or m]."""


@dataclass
class ModelRig:
    """A robot model with parameters; see ``flyball.calibration.rigs.Rig``.

    Attributes:
      layout: how recordings name and order what they hold.
      driven: facts of the measured joints, in the order of the comparison.
      joints: all hinges and slides of the model.
      notes: what was assumed.
    """

    name: str
    scene: Scene
    engine: str
    levels: tuple[tuple[str, ...], ...]
    compared: Compared
    layout: Layout
    driven: tuple[Driven, ...]
    joints: tuple[str, ...]
    stride: int = 1
    notes: tuple[str, ...] = ()
    method: Literal["least-squares", "cma-es"] = "least-squares"
    unit: str = "rad"
    unit_size: float = field(init=False, default=1.0)
    priors: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.unit_size = float(np.sqrt(self.compared.size))  # errors are root mean squares over joints

    def matches(self, episode: Episode) -> bool:
        """Whether the episode is of these joints."""
        try:
            return self.layout_in(episode).joints == self.layout.joints
        except InputError:
            return False

    def layout_in(self, episode: Episode, where: str = "") -> Layout:
        """How this episode orders its columns."""
        layout = layout_of(
            episode, self.joints, [d.joint for d in self.driven if d.actuator], position=self.layout.position,
            command=self.layout.command, where=where,
        )  # fmt: skip
        return replace(layout, actuators=self.layout.actuators)

    def audit(self, episode: Episode) -> Audit:
        """What the episode is worth for this robot."""
        name = name_of(episode)
        return audited(episode, self.layout_in(episode, name), self.driven, name)

    def replay(self, episode: Episode) -> Replay:
        """The episode, prepared; see ``flyball.calibration.rigs.Rig``."""
        name = name_of(episode)
        layout = self.layout_in(episode, name)
        if layout.joints != self.layout.joints:
            raise InputError(
                f"it measures {', '.join(layout.joints)}", where=name, allowed=", ".join(self.layout.joints)
            )
        control_t, commands, t, measured = tracks(episode, layout, name)
        start = {d.joint: joint_start(t, measured[:, i]) for i, d in enumerate(self.driven)}
        controls = np.zeros((len(control_t), len(layout.actuators)))
        for d in self.driven:
            if d.actuator and d.joint in layout.commands:
                controls[:, layout.actuators.index(d.actuator)] = commands[:, layout.commands.index(d.joint)]
        regime = str(episode.labels.get("regime") or episode.task or "")
        return Replay(name, regime, start, control_t, controls, {}, t, measured, hold=True, robot=episode.robot)

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


def name_of(episode: Episode) -> str:
    """What a recording is called."""
    for key in ("file", "episode_index"):
        if (label := episode.labels.get(key)) is not None:
            return str(label)
    return episode.log_digest[:12] or "recording"


def measured_by(rig: ModelRig, replays: Sequence[Replay]) -> ModelRig:
    """The rig with the noise of the sensors in these recordings, and a stride that leaves as many samples as count."""
    noise = float(np.median([[noise_of(q) for q in r.measured.T] for r in replays]))
    stride = max(1, int(np.median([len(r.t) for r in replays])) // SAMPLES)
    return replace(rig, compared=replace(rig.compared, noise=max(noise, _QUIET)), stride=stride)


def model_rig(
    imported: Imported, layout: Layout, *, engine: str = "mujoco", settings: Settings | None = None,
    guessed: Sequence[str] = (),
) -> ModelRig:  # fmt: skip
    """A rig from a model and the layout of its recordings.

    Args:
      guessed: joints whose drives are not the model's own.

    Raises:
      InputError: the settings do not fit the model.
    """
    settings, model = settings or Settings(), imported.model
    driven = mechanism(model, imported.compile(), layout.joints)
    layout = replace(layout, actuators=tuple(model.actuators))
    extra = kinds_of(settings)
    kinds = parameters(model, driven, layout.position, extra, guessed)
    asked = {path.rpartition(".")[2] for path in settings.parameters} & KINDS.keys()
    more = parameters(model, driven, layout.position, (*extra, *asked), guessed)
    listed = {p.path for ps in kinds.values() for p in ps} | settings.parameters.keys()
    known = {p.path: p for ps in more.values() for p in ps if p.path in listed}
    made, fixed, own = apply(settings, known, layout.joints)
    gone = fixed | {p.path for k in settings.leave for p in kinds.get(k, ())}
    levels: list[tuple[str, ...]] = []
    for i, level in enumerate(LEVELS):
        paths = [p.path for kind in level for p in kinds.get(kind, ())]
        if i == 1:
            paths += [p.path for kind in extra for p in kinds.get(kind, ())]
            paths += [p for p in (*settings.parameters, *own) if p in made]
        before = levels[-1] if levels else ()
        levels.append(tuple(dict.fromkeys((*before, *paths))))
    fields = tuple(f"joint:{d.joint}.position" for d in driven)
    compared = Compared(layout.position, fields, len(fields), scale=0.02, noise=NOISE)
    scene = Scene(imported.name, imported.mjcf, tuple(made.values()), assets=imported.assets)
    joints = tuple(j.name for j in model.joints.values() if j.kind in ("hinge", "slide"))
    notes = tuple(f"{j}: the model has no drive, so a servo of a few hertz was put there" for j in guessed)
    rungs = without(levels, gone)
    if not rungs:
        raise InputError("nothing is left to fit", where=settings.where)
    return ModelRig(imported.name, scene, engine, rungs, compared, layout, tuple(driven), joints, notes=notes)
