"""What a world's values do in a simulated cell.

In: a task, values by path. Out: fields of the engine and of pictures, the command path, event thresholds, what befalls
the observation. Paths are parameters of the scene or fields as ``flyball.scenes.targets`` has them; each has its effect
or is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.scenes.observation import Effects, effects
from flyball.scenes.routing import Own, route
from flyball.scenes.targets import KINDS, field_of
from flyball.tasks.task import Task, Values

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Assignment:
    """Values by what they do in n cells.

    Attributes:
      engine: ``kind:NAME.field`` -> (n, k).
      visual: fields that only pictures show, likewise.
      delay: from command to motor [s], (n,).
      play: of every joint command [rad], (n,).
      limits: threshold of each event, (n,); infinite where nothing sets it.
      bias, std: of the task's own sensors, signal -> (n, size).
      effects: what else befalls signals.
    """

    engine: dict[str, Array]
    visual: dict[str, Array]
    delay: Array
    play: Array
    limits: dict[str, Array]
    bias: dict[str, Array]
    std: dict[str, Array]
    effects: dict[str, Effects]

    def noiseless(self) -> dict[str, Effects]:
        """``effects`` without what is random."""
        return {
            name: replace(e, noise=0 * e.noise, walk=0 * e.walk, dropout=0 * e.dropout)
            for name, e in self.effects.items()
        }


def assign(task: Task, values: Values, n: int, own: Own) -> Assignment:
    """Sort values by what they do.

    A field of a signal that a value names (``sensor:object.pose.noise``) takes the place of the task's own.

    Args:
      values: path -> (n,).
      own: the model's own value of a field.

    Raises:
      Missing: no such parameter, signal, event or element.
      Unsupported: a field that nobody can set, or a binding that means nothing here; names the path.
      InputError: an impossible value.
    """
    scene, sizes = task.scene, {s.name: s.size for s in task.embodiment.observations}
    to = route(values, own, variations=scene.variations, scene=scene)
    bias = {name: np.zeros((n, size)) for name, size in sizes.items()}
    std = {
        name: np.tile(np.asarray(task.noise.get(name, (0.0,) * size), float), (n, 1)) for name, size in sizes.items()
    }
    late = dict(to.observation)
    for path, x in to.sensors.items():
        field = field_of(path)
        if field is not None and field.field in ("bias", "noise") and field.name in sizes:
            (bias if field.field == "bias" else std)[field.name][:, field.index] = x
        elif field is None or field.target not in to.observation:
            late.setdefault(path, x)
    for path in to.observation:
        field = field_of(path)
        if field is not None and field.field in ("bias", "noise") and field.name in sizes:
            at = slice(None) if field.index is None else field.index
            (bias if field.field == "bias" else std)[field.name][:, at] = 0.0
    named = {f.name for path in late if (f := field_of(path))}
    befalls = {name: e for name, e in effects(sizes, late, n).items() if name in named} if late else {}
    delay, play, limits = _cell(task, to.parameters, n)
    return Assignment(to.engine, to.visual, delay, play, limits, bias, std, befalls)


def _cell(task: Task, values: Mapping[str, Array], n: int) -> tuple[Array, Array, dict[str, Array]]:
    """Delay and play of the command path, thresholds of events."""
    delay, play = np.zeros(n), np.zeros(n)
    limits = {r.name: np.full(n, np.inf) for r in task.event_rules}
    for p in task.scene.parameters:
        for b in p.binds:
            kind, _, rest = b.target.partition(":")
            event = rest.removesuffix(".threshold")
            if b.target == "command.delay":
                delay = values[p.path]
            elif b.target == "command.play":
                play = values[p.path]
            elif kind == "event" and event in limits:
                limits[event] = values[p.path]
            elif kind not in (*KINDS, "start"):
                allowed = ["command.delay", "command.play", "start:NAME", *(f"event:{e}.threshold" for e in limits)]
                raise Unsupported(
                    f"{p.path} is bound to {b.target!r}",
                    where=f"task {task.name}",
                    allowed=", ".join([*allowed, *(f"{k}:NAME.field" for k in KINDS)]),
                )
    return delay, play, limits
