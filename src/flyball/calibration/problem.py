"""A fitting problem: parameters in, residuals out, many parameter vectors at once.

In: a scene, recordings prepared for replay, the parameters to fit. Out: residuals between what an engine replays open
loop and what was measured, labelled by episode and regime. One call puts every (parameter vector, recording) pair into
its own world of one rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines import Simulation, engines
from flyball.scenes import Parameter, Scene

Array = NDArray[np.float64]

_ENGINE_KINDS = ("body", "geom", "joint", "actuator", "tendon")


class Problem(Protocol):
    """What a fitter needs to know."""

    parameters: tuple[Parameter, ...]
    """What is fitted; a vector (p,) is in this order."""
    groups: Mapping[str, NDArray[np.str_]]
    """Kind of group -> label of every residual, (m,); at least ``episode``."""

    def residuals(self, values: Array) -> Array:
        """Scaled residuals of k parameter vectors: (k, p) -> (k, m). A failed world gives large finite ones."""

    def errors(self, values: Array) -> Array:
        """Error of every episode in the unit of the report: (k, p) -> (k, episodes), in order of first label."""


@dataclass(frozen=True)
class Compared:
    """A measured signal and the engine fields it is compared with.

    Attributes:
      signal: name in the episode and in ``sensor:SIGNAL.bias`` bindings.
      field: readable engine field; several when the signal is made of several, e.g. one per joint.
      size: elements that are compared; of each field as many leading ones.
      scale: a residual of this size counts as one [unit of the signal].
      noise: standard deviation of the measurement [unit of the signal].
    """

    signal: str
    field: str | tuple[str, ...]
    size: int
    scale: float
    noise: float

    @property
    def fields(self) -> tuple[str, ...]:
        """The engine fields, in the order of the signal's elements."""
        return (self.field,) if isinstance(self.field, str) else self.field

    @property
    def each(self) -> int:
        """Leading elements compared of each field."""
        return self.size // len(self.fields)


@dataclass(frozen=True)
class Replay:
    """A recording prepared for open-loop replay; time 0 is the start.

    Attributes:
      name: of the episode, unique.
      regime: what kind of recording it is, e.g. ``kp 100``; groups of regimes can be left out of a fit.
      start: joint -> (position, velocity) in the conventions of ``Simulation.place`` and ``push``.
      control_t: times of the controls [s], (j,), increasing.
      controls: (j, nu), linear in between, held before and after.
      settings: known values of parameters in this recording, path -> value.
      t: times of the measurements [s], (s,), increasing, from 0.
      measured: (s, Compared.size).
      hold: a control is held until the next one, instead of linear in between: the mean over each substep is applied.
      robot: which robot it was; robots of one kind share what they share.
    """

    name: str
    regime: str
    start: Mapping[str, tuple[Array, Array]]
    control_t: Array
    controls: Array
    settings: Mapping[str, float]
    t: Array
    measured: Array
    hold: bool = False
    robot: str = ""


@dataclass
class ReplayProblem:
    """Replays recordings in an engine; a ``Problem``.

    Attributes:
      scene: holds every parameter; those not fitted and not known from a recording are nominal.
      compared: the one signal that is compared.
      replays: the recordings.
      paths: the parameters to fit.
      engine: name in the ``flyball.engines`` table.
      timestep: of the engine [s]; 0: as authored.
      threads: CPU threads of the engine.
      stride: every how many-th measurement is compared.
      worlds: most worlds per rollout; bounds memory.
      unit_size: errors are reported in multiples of this [unit of the signal].
      steps: substeps simulated so far.
    """

    scene: Scene
    compared: Compared
    replays: Sequence[Replay]
    paths: Sequence[str]
    engine: str = "mujoco"
    timestep: float = 0.0
    threads: int = 1
    stride: int = 1
    worlds: int = 2048
    unit_size: float = 1.0
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.replays:
            raise InputError("no recordings to replay", where=self.scene.name)
        self.parameters = tuple(self.scene.parameter(p) for p in self.paths)
        sampled = [np.arange(0, len(r.t), self.stride) for r in self.replays]
        self._episode = np.concatenate([np.full(len(s), i) for i, s in enumerate(sampled)])
        self._t = np.concatenate([r.t[s] for r, s in zip(self.replays, sampled, strict=True)])
        self._measured = np.concatenate([r.measured[s] for r, s in zip(self.replays, sampled, strict=True)])
        of = np.repeat(self._episode, self.compared.size)
        self.groups: Mapping[str, NDArray[np.str_]] = {
            "episode": np.array([r.name for r in self.replays])[of],
            "regime": np.array([r.regime for r in self.replays])[of],
        }
        self._options: dict[str, float | str] = {"timestep": self.timestep} if self.timestep else {}
        self._simulations: dict[int, Simulation] = {}
        self._own = own_values(self.scene, self._simulation(len(self.replays)))

    def predict(self, values: Array) -> Array:
        """What would have been measured: (k, p), or (k, recordings, p) for each its own -> (k, samples, size)."""
        values = np.atleast_2d(np.asarray(values, float))
        chunk = max(1, self.worlds // len(self.replays))
        return np.concatenate([self._replay(values[i : i + chunk]) for i in range(0, len(values), chunk)])

    @property
    def measured(self) -> Array:
        """What was measured, (samples, size)."""
        return self._measured

    @property
    def episode(self) -> NDArray[np.int64]:
        """Which recording every sample is of, (samples,)."""
        return np.asarray(self._episode)

    @property
    def step_s(self) -> float:
        """Length of a substep [s]."""
        return self._simulation(len(self.replays)).timestep

    @property
    def elapsed(self) -> Array:
        """Time of every sample since the start of its recording [s], (samples,)."""
        return self._t

    def residuals(self, values: Array) -> Array:
        """(predicted - measured) / scale, (k, samples * size)."""
        return self._scaled(self.predict(values))

    def _scaled(self, predicted: Array) -> Array:
        r = (predicted - self._measured) / self.compared.scale
        # A world that blew up must lose against every healthy one, and must not poison sums with NaN.
        return np.clip(np.nan_to_num(r, nan=1e3), -1e3, 1e3).reshape(len(r), -1)

    def errors(self, values: Array) -> Array:
        """Mean distance between predicted and measured per recording, in ``unit_size``, (k, recordings)."""
        return self.errors_of(self.predict(values))

    def errors_of(self, predicted: Array) -> Array:
        """The same of what was predicted, (k, samples, size) -> (k, recordings)."""
        r = self._scaled(predicted).reshape(len(predicted), -1, self.compared.size)
        d = np.linalg.norm(r, axis=2) * (self.compared.scale / self.unit_size)
        return np.stack([d[:, self._episode == i].mean(axis=1) for i in range(len(self.replays))], axis=1)

    def _simulation(self, n: int) -> Simulation:
        if n not in self._simulations:
            if len(self._simulations) >= 8:  # sizes repeat: chunks are full but for the last
                self._simulations.pop(next(iter(self._simulations)))
            self._simulations[n] = engines.load(self.engine)().open(
                self.scene, n, threads=self.threads, options=self._options
            )
        return self._simulations[n]

    def _replay(self, values: Array) -> Array:
        k, e = len(values), len(self.replays)
        sim = self._simulation(k * e)
        # World i * e + j replays recording j with vector i.
        full = self.scene.nominal(k * e)
        for path in {p for r in self.replays for p in r.settings}:
            own = self.scene.parameter(path).nominal
            full[path] = np.tile([r.settings.get(path, own) for r in self.replays], k)
        for j, p in enumerate(self.parameters):
            full[p.path] = np.repeat(values[:, j], e) if values.ndim == 2 else values[:, :, j].ravel()
        changes, delay, bias = bind(self.scene, self._own, full, self.compared)
        sim.reset()
        sim.set(changes)
        for joint in self.replays[0].start:
            position = np.tile(np.stack([r.start[joint][0] for r in self.replays]), (k, 1))
            field, each = f"joint:{joint}.position", self.compared.each
            if field in self.compared.fields:
                at = each * self.compared.fields.index(field)
                position[:, :each] -= bias[:, at : at + each]  # the start was measured with the same biased sensor
            sim.place(joint, position)
            sim.push(joint, np.tile(np.stack([r.start[joint][1] for r in self.replays]), (k, 1)))
        steps = int(np.ceil(max(r.t[-1] for r in self.replays) / sim.timestep)) + 1
        fields, each = self.compared.fields, self.compared.each
        first = sim.read(fields)
        seen = sim.rollout(self._controls(delay, steps, sim.timestep), 1, dict.fromkeys(fields, "last"))
        self.steps += steps * k * e
        parts = [np.concatenate([first[f][:, None, :each], seen[f][..., :each]], axis=1) for f in fields]
        track = np.concatenate(parts, axis=2).reshape(k, e, steps + 1, -1)
        when = self._t / sim.timestep
        i = np.minimum(when.astype(int), steps - 1)
        w = (when - i)[:, None]
        out = track[:, self._episode, i] * (1 - w) + track[:, self._episode, i + 1] * w
        return out + bias.reshape(k, e, -1)[:, self._episode]

    def _controls(self, delay: Array, steps: int, dt: float) -> Array:
        """Delayed controls of all worlds, (n, steps, nu). Worlds that share recording and delay share the work."""
        e, times = len(self.replays), np.arange(steps) * dt
        out = np.empty((len(delay), steps, self.replays[0].controls.shape[1]))
        if out.shape[2] == 0:
            return out
        table: dict[tuple[int, float], Array] = {}
        for world, d in enumerate(delay):
            key = (world % e, float(d))
            if key not in table:
                r = self.replays[key[0]]
                table[key] = _held(r, times - d, dt) if r.hold else _linear(r, times - d)
            out[world] = table[key]
        return out


def _linear(r: Replay, times: Array) -> Array:
    """Controls at these times, linear in between, (n, nu)."""
    return np.stack([np.interp(times, r.control_t, c) for c in r.controls.T], axis=1)


def _held(r: Replay, times: Array, dt: float) -> Array:
    """Mean of held controls over [time, time + dt], (n, nu): smooth in the delay, unlike the control at one time."""
    low = min(times[0], r.control_t[0]) - dt
    knots = np.concatenate([[low], r.control_t, [max(times[-1] + dt, r.control_t[-1]) + dt]])
    values = np.concatenate([r.controls[:1], r.controls])
    area = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values * np.diff(knots)[:, None], axis=0)])
    return np.stack([np.interp(times + dt, knots, a) - np.interp(times, knots, a) for a in area.T], axis=1) / dt


def bind(
    scene: Scene, own: Mapping[str, Array | None], values: Mapping[str, Array], compared: Compared
) -> tuple[dict[str, Array], Array, Array]:
    """What parameter values do to a replay.

    Args:
      own: the model's own value of every bound engine field, (1, k); None when the engine lacks the field.
      values: path -> (n,), every parameter of the scene.

    Returns:
      Engine fields to set, (n, k); command delay [s], (n,); bias of the compared signal, (n, size).

    Raises:
      Unsupported: a parameter would change a field that the engine lacks. Scaling by 1 and adding 0 change nothing.
    """
    n = len(next(iter(values.values())))
    fields: dict[str, Array] = {}
    delay, bias = np.zeros(n), np.zeros((n, compared.size))
    for p in scene.parameters:
        for b in p.binds:
            v = values[p.path]
            if b.target == "command.delay":
                delay = v
            elif b.target == f"sensor:{compared.signal}.bias":
                bias[:, b.index] = v
            elif b.target in own:
                model = own[b.target]
                if model is None:
                    if not np.all(v == {"scale": 1.0, "add": 0.0}.get(b.how, np.nan)):
                        raise Unsupported(f"{p.path} needs the field {b.target!r}", where=f"engine of {scene.name}")
                    continue
                x = fields.setdefault(b.target, np.repeat(model, n, axis=0))
                x[:, b.index] = {"set": v, "scale": x[:, b.index] * v, "add": x[:, b.index] + v}[b.how]
    return fields, delay, bias


def own_values(scene: Scene, sim: Simulation) -> dict[str, Array | None]:
    """The model's own value of every engine field that the scene binds, (1, k); None when the engine lacks it."""
    own: dict[str, Array | None] = {}
    for target in {b.target for p in scene.parameters for b in p.binds}:
        if target.partition(":")[0] in _ENGINE_KINDS:
            try:
                own[target] = sim.get(target)[:1].copy()
            except Unsupported:
                own[target] = None
    return own
