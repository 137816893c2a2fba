"""Tasks as Gymnasium environments.

In: a task, how many worlds, what varies. Out: ``TaskVectorEnv`` (n worlds in one process, stepped together by the
engine) and ``TaskEnv`` (one world), which give the same bits for the same seeds. Importing this module (extra ``gym``)
makes every task known as ``flyball/NAME``: ``gymnasium.make("flyball/lift-fragile-v1")``, ``gymnasium.make_vec(...)``.

Observations are what a robot's sensors report, and cameras where there are any (``cameras=[...]``); actions are what it
accepts; nothing hidden is seen. An attempt lasts the task's horizon and is judged at its end, as on a robot: the last
step's reward is the judged progress (1: success), all others are 0, and ``info`` carries ``success``, ``group`` and
``progress``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.scenes import Camera, Variation
from flyball.tasks.task import Judgement, Task, tasks, varied
from flyball.tasks.world import Attempts, World

if TYPE_CHECKING:
    from flyball.engines.rendering import Kind

Vary = str | Sequence[Variation]
"""What differs between episodes: ``nominal`` (starts and sensor noise only), ``reality`` (cells as the task draws them,
each solvable), or variations of parameters or fields. The scene's own variations hold in any case."""


_PIXELS: Mapping[str, tuple[float, float, tuple[int, ...], type[Any]]] = {
    "rgb": (0, 255, (3,), np.uint8),
    "depth": (0, np.inf, (), np.float32),
    "segmentation": (-1, 2**31 - 1, (2,), np.int32),
    "normals": (-1, 1, (3,), np.float32),
}
"""Bounds, size and type of a pixel."""


class Episodes:
    """n attempts that begin and end together; what both kinds of environment share.

    Args:
      task: or its plug-in name.
      n: worlds.
      engine: plug-in name.
      threads: CPU threads of the engine (0: all).
      vary: see ``Vary``.
      cameras, pictures: see ``World``.
    """

    def __init__(
        self,
        task: Task | str,
        n: int,
        engine: str,
        threads: int,
        vary: Vary,
        cameras: Sequence[Camera | str] = (),
        pictures: Sequence[Kind] = ("rgb",),
    ) -> None:
        if isinstance(vary, str) and vary not in ("nominal", "reality"):
            raise InputError(f"vary = {vary!r}", allowed="nominal, reality, or variations", where="environment")
        self.task: Task = tasks.load(task) if isinstance(task, str) else task
        if not isinstance(vary, str):
            self.task = varied(self.task, vary)
        self.world = World(self.task, n, engine=engine, threads=threads, cameras=cameras, pictures=pictures)
        self.vary = vary
        e = self.task.embodiment
        low, high = e.action_limits()
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        self._signals = [s.name for s in e.observations]
        box = gymnasium.spaces.Box
        spaces: dict[str, gymnasium.Space[Any]] = {
            s.name: box(-np.inf, np.inf, (s.size,), np.float64) for s in e.observations
        }
        for name, (c, kind) in self.world.feeds.signals.items():
            least, most, more, dtype = _PIXELS[kind]
            spaces[name] = box(least, most, (c.height, c.width, *more), dtype)
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def begin(
        self, rngs: Sequence[np.random.Generator], options: Mapping[str, Any] | None
    ) -> dict[str, NDArray[np.float64]]:
        """Begin n attempts, each drawn from its own generator; see ``TaskVectorEnv.reset``."""
        given = dict(options or {})
        values, progress = given.pop("values", None), given.pop("progress", 1.0)
        for key in given:
            raise Missing.named("option", key, ("values", "progress"), where="reset")
        seeds = [int(r.integers(2**62)) for r in rngs]
        own = {p for v in self.task.scene.variations for p in v.paths}
        drawn = [self._draw(np.random.default_rng(s)) for s in seeds]
        mixed = {p: np.concatenate([d[p] for d in drawn]) for p in drawn[0] if p not in own}
        self._seen = self.world.reset(mixed | dict(values or {}), seeds, progress=progress)
        self._log: dict[str, list[NDArray[np.float64]]] = {name: [] for name in self._signals}
        self._actions: list[NDArray[np.float64]] = []
        return self._seen

    def act(self, actions: NDArray[np.float64]) -> tuple[dict[str, NDArray[np.float64]], list[Judgement]]:
        """One control period; the judgements, one per world, are empty until the attempt ends."""
        for name in self._signals:
            self._log[name].append(self._seen[name])
        self._actions.append(np.clip(actions, self.action_space.low, self.action_space.high))
        self._seen = self.world.step(self._actions[-1])
        if len(self._actions) < self.world.steps:
            return self._seen, []
        signals = {name: np.stack(x, axis=1) for name, x in self._log.items()}
        sent = self.world.action_signals(np.stack(self._actions, axis=1))
        return self._seen, Attempts(signals | sent, self.world.events).judge(self.task)

    def _draw(self, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        return self.task.draw_reality(rng, 1) if self.vary == "reality" else {}


class TaskVectorEnv(VectorEnv):
    """n worlds of a task; an attempt that ended begins anew with the next step (``AutoresetMode.NEXT_STEP``).

    Args:
      task: or its plug-in name.
      num_envs: worlds.
      engine: plug-in name.
      threads: CPU threads of the engine (0: all).
      vary: see ``Vary``.
      cameras: each adds ``pixels/NAME`` (height, width, 3) to an observation, as ``World`` has it, and when the picture
        was taken to ``info["captured_s"]``.
      pictures: what they deliver, see ``World``.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  (Gymnasium declares it)

    def __init__(
        self,
        task: Task | str,
        num_envs: int = 1,
        *,
        engine: str = "mujoco",
        threads: int = 0,
        vary: Vary = "nominal",
        cameras: Sequence[Camera | str] = (),
        pictures: Sequence[Kind] = ("rgb",),
    ) -> None:
        self.num_envs, self.render_mode = num_envs, None
        self._episodes = Episodes(task, num_envs, engine, threads, vary, cameras, pictures)
        self.single_action_space = self._episodes.action_space
        self.single_observation_space = self._episodes.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._rngs: list[np.random.Generator] = []
        self._ended = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """Begin n attempts.

        Args:
          seed: of world 0, the others count on from it; or one per world. None: go on with what was drawn before.
          options: ``values``, path -> (n,), override what varies; ``progress`` of the variations' curriculum, 0 to 1.

        Returns:
          Observation, signal -> (n, size), and info: when cameras took their pictures.
        """
        if seed is None and not self._rngs:
            seed = [None] * self.num_envs
        if seed is not None:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
            if len(seeds) != self.num_envs:
                raise InputError(
                    f"{len(seeds)} seeds", allowed=f"one for each of {self.num_envs} worlds", where="reset"
                )
            self._rngs = [gymnasium.utils.seeding.np_random(s)[0] for s in seeds]
        self._ended = False
        return self._episodes.begin(self._rngs, options), self._captured()

    def _captured(self) -> dict[str, Any]:
        """When pictures were taken, in Gymnasium's form: a mask beside each entry."""
        all_of = np.ones(self.num_envs, bool)
        stamps = self._episodes.world.feeds.stamps
        if not stamps:
            return {}
        return {"captured_s": stamps | {f"_{c}": all_of for c in stamps}, "_captured_s": all_of}

    def step(
        self, actions: NDArray[np.float64]
    ) -> tuple[dict[str, NDArray[np.float64]], NDArray, NDArray, NDArray, dict[str, Any]]:
        """Send actions (n, a) for one control period.

        Returns:
          Observation, reward (n,), terminated (n,) (never: an attempt lasts its horizon), truncated (n,), info.
        """
        never = np.zeros(self.num_envs, bool)
        if self._ended:
            observation, info = self.reset()
            return observation, np.zeros(self.num_envs), never, never.copy(), info
        observation, judged = self._episodes.act(np.asarray(actions, float))
        self._ended = bool(judged)
        if not judged:
            return observation, np.zeros(self.num_envs), never, never.copy(), self._captured()
        info = self._captured()
        for name in ("success", "group", "progress"):
            info[name] = np.array([_told(j)[name] for j in judged])
            info[f"_{name}"] = np.ones(self.num_envs, bool)
        return observation, info["progress"].copy(), never, ~never, info

    def close_extras(self, **kwargs: Any) -> None:
        """Free what drawing holds."""
        self._episodes.world.close()


class TaskEnv(gymnasium.Env):
    """One world of a task; arguments as for ``TaskVectorEnv``.

    Args:
      render_mode: ``rgb_array``: ``render`` gives an overview for people, (240, 320, 3) uint8.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (Gymnasium declares it)

    def __init__(
        self,
        task: Task | str,
        *,
        engine: str = "mujoco",
        vary: Vary = "nominal",
        cameras: Sequence[Camera | str] = (),
        pictures: Sequence[Kind] = ("rgb",),
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"render_mode = {render_mode!r}", allowed="rgb_array or None", where="environment")
        self.render_mode = render_mode
        self._episodes = Episodes(task, 1, engine, 1, vary, cameras, pictures)
        self.action_space, self.observation_space = self._episodes.action_space, self._episodes.observation_space

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """Begin an attempt; see ``TaskVectorEnv.reset`` (values are (1,))."""
        super().reset(seed=seed)
        first = _first(self._episodes.begin([self.np_random], options))
        return first, self._captured()

    def _captured(self) -> dict[str, Any]:
        stamps = self._episodes.world.feeds.stamps
        return {"captured_s": {c: float(t[0]) for c, t in stamps.items()}} if stamps else {}

    def step(
        self, action: NDArray[np.float64]
    ) -> tuple[dict[str, NDArray[np.float64]], float, bool, bool, dict[str, Any]]:
        """Send an action (a,) for one control period."""
        observation, judged = self._episodes.act(np.asarray(action, float)[None])
        info = self._captured() | (_told(judged[0]) if judged else {})
        return _first(observation), info.get("progress", 0.0), False, bool(judged), info

    def render(self) -> NDArray[np.uint8] | None:
        """The cell as it is now; nothing without a ``render_mode``."""
        return self._episodes.world.see()["rgb"][0] if self.render_mode else None

    def close(self) -> None:
        """Free what drawing holds."""
        self._episodes.world.close()


def _told(judgement: Judgement) -> dict[str, Any]:
    return {
        "success": judgement.outcome == "success",
        "group": judgement.group,
        "progress": float(judgement.progress),
    }


def _first(observation: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {name: x[0].copy() for name, x in observation.items()}


for _name in tasks.names():
    gymnasium.register(
        f"flyball/{_name}",
        entry_point="flyball.tasks.gymnasium:TaskEnv",
        vector_entry_point="flyball.tasks.gymnasium:TaskVectorEnv",
        kwargs={"task": _name},
    )
