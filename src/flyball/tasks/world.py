"""A batch of simulated robot cells: engine, command path, sensors, inspection station.

In: a task, parameter values per world, seeds. Out: observations and logs as a real cell would give them.
Demonstrations, calibration replays, paired evaluation and the virtual robots (n = 1) all run on this.
Everything random in world i comes from seed i alone, so it is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from flyball.base import InputError
from flyball.engines import engines
from flyball.scenes import Camera
from flyball.scenes.observation import Observer
from flyball.scenes.targets import field_of
from flyball.tasks.assignment import assign
from flyball.tasks.feeds import Feeds
from flyball.tasks.task import Controller, Judgement, Task, Values
from flyball.tasks.views import Views

if TYPE_CHECKING:
    from flyball.engines.rendering import Kind

Array = NDArray[np.float64]

_WORLDS = 1 << 62
"""How many world numbers there are."""


@dataclass(frozen=True)
class Unmodelled:
    """Differences of a reality that no scene parameter describes.

    Attributes:
      timestep: of the engine [s]; None: as authored.
      cone: ``elliptic`` or ``pyramidal`` friction; None: as authored.
      backlash_rad: play of every joint command [rad], added to what the scene describes.
    """

    timestep: float | None = None
    cone: str | None = None
    backlash_rad: float = 0.0

    def options(self) -> dict[str, float | str]:
        """Engine options."""
        out: dict[str, float | str] = {}
        if self.timestep is not None:
            out["timestep"] = self.timestep
        if self.cone is not None:
            out["cone"] = self.cone
        return out


@dataclass(frozen=True)
class Attempts:
    """n logged attempts.

    Attributes:
      signals: observation and action signals, name -> (n, T, size).
      events: per world, (time [s], name).
      values: the parameters the worlds had, path -> (n,).
    """

    signals: Mapping[str, Array]
    events: Sequence[Sequence[tuple[float, str]]]
    values: Values = field(default_factory=dict)

    def one(self, i: int) -> dict[str, Array]:
        """Signals of world i: name -> (T, size)."""
        return {k: x[i] for k, x in self.signals.items()}

    def judge(self, task: Task) -> list[Judgement]:
        """The task's judgement of each."""
        return [task.judge(self.one(i), [e for _, e in self.events[i]]) for i in range(len(self.events))]


class World:
    """n cells of one task.

    Args:
      task: what is attempted.
      n: number of worlds.
      engine: name in the ``flyball.engines`` table.
      threads: CPU threads of the engine.
      unmodelled: what this reality has that the scene does not describe.
      cameras: that watch, or their names in the scene or its model: each adds ``pixels/NAME`` (n, height, width, 3)
        uint8 to the observation, as a real camera of its rate, delay, losses and noise would have delivered it.
      pictures: what the cameras deliver, see ``Renderer.render``; what is not ``rgb`` is called ``KIND/NAME``.
      backend, preset: how pictures are drawn, as for ``flyball.engines.rendering.Renderer``.
    """

    def __init__(
        self,
        task: Task,
        n: int,
        *,
        engine: str = "mujoco",
        threads: int = 1,
        unmodelled: Unmodelled | None = None,
        cameras: Sequence[Camera | str] = (),
        pictures: Sequence[Kind] = ("rgb",),
        backend: str = "auto",
        preset: str = "fast",
    ) -> None:
        self.task, self.n = task, n
        self.unmodelled = unmodelled or Unmodelled()
        self.simulation = engines.load(engine)().open(task.scene, n, threads=threads, options=self.unmodelled.options())
        self.dt = 1.0 / task.control_hz
        self.every = round(self.dt / self.simulation.timestep)
        if abs(self.every * self.simulation.timestep - self.dt) > 1e-9:
            raise InputError(
                f"time step {self.simulation.timestep} does not divide the control period {self.dt}", where=task.name
            )
        self.steps = round(task.horizon_s * task.control_hz)
        given = [c for c in cameras if isinstance(c, Camera)]
        self.views = Views(task.scene, n, given, backend=backend, preset=preset)
        self.feeds = Feeds(self.views, cameras, pictures, self.dt, self.simulation.timestep)
        self._authored: dict[str, Array] = {}
        self._reads = dict(task.reads) | {f: "all" for r in task.event_rules for f in r.fields}
        self._reads |= self.feeds.reads(self.simulation)

    # episodes ---------------------------------------------------------------------------------------------

    def reset(
        self,
        values: Values,
        seeds: Sequence[int],
        starts: Mapping[str, Array] | None = None,
        *,
        progress: float = 1.0,
    ) -> dict[str, Array]:
        """Begin n attempts.

        Args:
          values: path -> (n,), parameters of the scene or fields (``geom:box.friction[0]``). What is left out is as the
            scene's variations draw it from the world's seed, or nominal.
          seeds: one per world.
          starts: start states to use instead of the task's own draw, joint name -> (n, nq).
          progress: of the variations' curriculum, 0 to 1.

        Returns:
          The first observation, signal -> (n, size).

        Raises:
          Missing: the scene has no such parameter, signal or element.
          Unsupported: a field that neither engine nor renderer can set, by name.
        """
        return self._begin(values, seeds, starts, progress=progress)

    def _begin(
        self,
        values: Values,
        seeds: Sequence[int],
        starts: Mapping[str, Array] | None,
        *,
        progress: float = 1.0,
        noisy: bool = True,
    ) -> dict[str, Array]:
        scene, sim = self.task.scene, self.simulation
        for path in values:
            if field_of(path) is None:
                scene.parameter(path)  # a misspelt one must not be nominal in silence
        worlds = np.array([int(s) % _WORLDS for s in seeds], np.int64)
        drawn = scene.draw_worlds(0, worlds, progress=progress) if scene.variations else scene.nominal(self.n)
        self.values = drawn | {k: np.asarray(v, float) for k, v in values.items()}
        rngs = [np.random.Generator(np.random.Philox(key=int(s))) for s in seeds]
        self._is = given = assign(self.task, self.values, self.n, self._own)
        self._half_play = (given.play + self.unmodelled.backlash_rad)[:, None] / 2
        befalls = given.effects if noisy else given.noiseless()
        self._observer = Observer(befalls, self.dt, 0, worlds) if befalls else None
        self.views.vary(given.visual)
        sim.reset()
        sim.set(given.engine)
        own_starts = self.task.starts(self.values, rngs)
        self.starts = dict(own_starts) | dict(starts or {})
        for joint, position in self.starts.items():
            sim.place(joint, position)
        width = {s.name: s.size for s in self.task.embodiment.observations}
        self._noise = {
            name: np.stack([r.standard_normal((self.steps + 1, k)) for r in rngs]) for name, k in width.items()
        }
        self._k = 0
        self._sent = np.repeat(self.task.rest_action(self.values)[:, None], 2, axis=1)
        self._queue = self._sent.copy()
        self._keep = max(2, int(np.ceil(given.delay.max() / self.dt)) + 2)
        self._arriving: dict[int, tuple[NDArray[np.int64], Array]] = {}
        self._filter = {f: None for r in self.task.event_rules for f in r.fields}
        self.events: list[list[tuple[float, str]]] = [[] for _ in range(self.n)]
        self.traces: dict[str, Array] = {}  # what the last call watched, filtered, (n, substeps)
        self.feeds.begin(sim, worlds, noisy=noisy)
        return self._observe(sim.read(list(self.task.reads)), noisy) | self.feeds.read()

    def step(self, action: Array) -> dict[str, Array]:
        """Send actions (n, a) for one control period; returns the observation at its end, signal -> (n, size)."""
        controls = self._controls(action[:, None])
        raw = self.simulation.step(controls, self._reads)
        self._inspect({f: raw[f][:, None] for r in self.task.event_rules for f in r.fields})
        self._k += 1
        self.feeds.advance(raw)
        return self._observe(self._reduced(raw)) | self.feeds.read()

    def replay(
        self,
        values: Values,
        actions: Array,
        starts: Mapping[str, Array],
        seeds: Sequence[int] | None = None,
    ) -> Attempts:
        """Send logged actions open loop, in one call of the engine.

        Args:
          values: parameter path -> (n,).
          actions: (n, T, a).
          starts: joint name -> (n, nq).
          seeds: sensor noise is added when given, else observations are clean (biases stay).

        Returns:
          Attempts whose observation k is the one that action k answered, as in a log.
        """
        first = self._begin(values, list(seeds or range(self.n)), starts, noisy=seeds is not None)
        raw = self.simulation.rollout(self._controls(actions), self.every, self._reads)
        self._inspect({f: raw[f] for r in self.task.event_rules for f in r.fields})
        later, reduced = [], self._reduced(raw)
        for k in range(actions.shape[1] - 1):
            self._k = k + 1
            self.feeds.advance({f: x[:, k] for f, x in raw.items()})
            seen = self._observe({f: x[:, k] for f, x in reduced.items()}, noisy=seeds is not None)
            later.append(seen | self.feeds.read())
        signals = {name: np.stack([first[name], *(o[name] for o in later)], axis=1) for name in first}
        return Attempts(signals | self.action_signals(actions), self.events, self.values)

    def run(
        self,
        controller: Controller,
        values: Values,
        seeds: Sequence[int],
        starts: Mapping[str, Array] | None = None,
        *,
        progress: float = 1.0,
    ) -> Attempts:
        """Run whole attempts in closed loop: observation in, action (n, a) out, every control period; see ``reset``."""
        observation = self.reset(values, seeds, starts, progress=progress)
        seen: dict[str, list[Array]] = {name: [] for name in observation}
        actions = []
        low, high = self.task.embodiment.action_limits()
        for _ in range(self.steps):
            for name, x in observation.items():
                seen[name].append(x)
            actions.append(np.clip(controller(observation), low, high))
            observation = self.step(actions[-1])
        signals = {name: np.stack(x, axis=1) for name, x in seen.items()}
        return Attempts(signals | self.action_signals(np.stack(actions, axis=1)), self.events, self.values)

    def see(self, camera: Camera | str | None = None, kinds: Sequence[Kind] = ("rgb",)) -> dict[str, NDArray[Any]]:
        """Pictures of the cells as they are now, kind -> (n, height, width, ...); see ``Renderer.render``.

        What the variations do to lights, materials and the camera's pose is seen; delay and noise of the camera are
        not.

        Args:
          camera: or the name of one of the scene or the model; None: an overview of the first cell.
        """
        return self.views.see(self.simulation, camera, kinds)

    def close(self) -> None:
        """Free what drawing holds."""
        self.views.close()

    # parts of the cell ------------------------------------------------------------------------------------

    def _own(self, target: str) -> Array:
        """The model's own value of a field, (n, k), whatever an earlier reset has set."""
        if target not in self._authored:
            field = field_of(target)
            seen = field is not None and field.visual
            self._authored[target] = self.views.own(target) if seen else self.simulation.get(target)
        return self._authored[target]

    def _observe(self, raw: Mapping[str, Array], noisy: bool = True) -> dict[str, Array]:
        clean = self.task.sense(raw)
        out = {}
        for name, x in clean.items():
            out[name] = x + self._is.bias[name]
            if noisy:
                out[name] = out[name] + self._is.std[name] * self._noise[name][:, self._k]
        return out if self._observer is None else self._observer(out)

    def _controls(self, actions: Array) -> Array:
        """Engine controls per substep, (n, T*every, nu), of actions (n, T, a) that arrive after the delay."""
        n, steps, _ = actions.shape
        if self._half_play.any():
            actions = self._play(actions)
        history = np.concatenate([self._queue, actions], axis=1)  # the last command sent before is at index old - 1
        old, rows = self._queue.shape[1], np.arange(n)[:, None]
        k, w = self._arrivals(steps)
        newer = history[rows, np.clip(k + old, 0, old + steps - 1)]
        older = history[rows, np.clip(k + old - 1, 0, old + steps - 1)]
        self._queue = history[:, -self._keep :] if history.shape[1] >= self._keep else history
        return self.task.control(w * newer + (1 - w) * older)

    def _arrivals(self, steps: int) -> tuple[NDArray[np.int64], Array]:
        """Which action is in force in each substep, (n, steps*every), and its share of that substep, (n, ..., 1)."""
        if steps not in self._arriving:  # computed for one period and repeated: stepped and replayed are the same bits
            h = self.simulation.timestep
            s = np.round(((np.arange(self.every) + 1)[None] * h - self._is.delay[:, None]) / self.dt, 9)
            k = np.floor(s)
            share = np.tile(np.clip((s - k) * self.dt / h, 0.0, 1.0), (1, steps))
            period = np.repeat(np.arange(steps), self.every)
            self._arriving[steps] = np.tile(k.astype(int), (1, steps)) + period, share[..., None]
        return self._arriving[steps]

    def _play(self, actions: Array) -> Array:
        """Mechanical play between command and joint: the joint's own command moves only when the play is used up."""
        joints = self.task.embodiment.action_slice(self.task.embodiment.actions[0].name)
        half, out = self._half_play, actions.copy()
        last = self._queue[:, -1, joints]
        for k in range(actions.shape[1]):
            last = np.clip(last, actions[:, k, joints] - half, actions[:, k, joints] + half)
            out[:, k, joints] = last
        return out

    def _inspect(self, raw: Mapping[str, Array]) -> None:
        """Low-pass the watched fields and log the first crossing of each event's threshold; raw: (n, T, every, 1)."""
        h = self.simulation.timestep
        for rule in self.task.event_rules:
            filtered = []
            for f in rule.fields:
                x = raw[f].reshape(self.n, -1)
                a = h / (rule.lowpass_s + h)
                zi = self._filter[f] if self._filter[f] is not None else np.zeros((self.n, 1))
                y, self._filter[f] = lfilter([a], [1, a - 1], x, axis=1, zi=zi)
                filtered.append(y)
            worst = np.maximum.reduce(filtered)
            self.traces[rule.name] = worst
            over = worst > self._is.limits[rule.name][:, None]
            for i in np.flatnonzero(over.any(axis=1)):
                if not any(e == rule.name for _, e in self.events[i]):
                    t = self._k * self.dt + (int(np.argmax(over[i])) + 1) * h
                    self.events[i].append((round(t, 9), rule.name))  # [ns]: stepped and replayed agree

    def _reduced(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        """What the sensors see: watched fields arrive with every substep (axis -2) and are reduced here."""
        out = {}
        for f, how in self.task.reads.items():
            watched = self._reads[f] == "all" and how != "all"
            out[f] = raw[f] if not watched else raw[f][..., -1, :] if how == "last" else getattr(raw[f], how)(axis=-2)
        return out

    def action_signals(self, actions: Array) -> dict[str, Array]:
        """Actions (..., a) by signal, as they are logged."""
        e = self.task.embodiment
        return {s.name: actions[..., e.action_slice(s.name)] for s in e.actions}
