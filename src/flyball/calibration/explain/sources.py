"""From an episode to a case.

In: an episode, a workspace's store, and what the user says instead. Out: a ``Case``: the logged attempt, the policy of
the release that drove it, what it was told, the robot's newest calibration, other releases worth trying.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, digest_of
from flyball.base.store import Store
from flyball.calibration.explain.case import Case, PolicyMaker
from flyball.episodes import Episode
from flyball.policies.batched import Batched
from flyball.tasks import Task, tasks
from flyball.tasks.task import Values
from flyball.tasks.world import Attempts

EXPERT = "expert"
OTHERS = 2
"""Other releases that are tried, the newest first."""
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Acted:
    """What acted in an episode.

    Attributes:
      maker: makes its controller.
      told: what it was told, (c,).
      digest: of the policy file; ``expert`` for the task's own.
      execute: actions of a chunk that are executed.
    """

    maker: PolicyMaker
    told: NDArray[np.float64]
    digest: str = EXPERT
    execute: int = 1


@dataclass
class Sources:
    """Where a case's parts come from; what is given here goes before what the store knows.

    Attributes:
      store: of a workspace; None without one.
      releases: folder of the signed repository's targets.
      policy: ``expert`` or a policy file.
      told: name -> value; what is left out is told as of the nominal robot.
      calibration: joint samples, path -> (m,).
      execute: actions of a chunk that are executed, for ``policy``.
    """

    store: Store | None = None
    releases: Path | None = None
    policy: str | Path | None = None
    told: Mapping[str, float] | None = None
    calibration: Values | None = None
    execute: int = 1
    _read: dict[str, bytes] = field(default_factory=dict)

    def case(self, episode: Episode, *, seed: int = 0, threads: int = 2) -> tuple[Case, Acted]:
        """The case of one episode.

        Raises:
          InputError, Missing: in one line, what is missing and how to give it.
        """
        task: Task = tasks.load(episode.task)
        logged = attempt_of(task, episode)
        rows = self._releases(task)
        acted, name = self._acted(task, episode, rows)
        others: dict[str, PolicyMaker] = {} if acted.digest == EXPERT else {EXPERT: task.expert}
        for row in [r for r in reversed(rows) if r["name"] != name][:OTHERS]:
            other = self._of_release(task, row, episode.robot)
            others[f"release {row['name']}"] = lambda told, o=other: o.maker(np.tile(o.told, (len(told), 1)))  # type: ignore[misc]
        believed = self.calibration if self.calibration is not None else self._calibration(episode.robot)
        if believed is not None:
            for path in believed:
                task.scene.parameter(path)
        return Case(task, logged, acted.told, acted.maker, believed, others, seed, threads), acted

    def maker(self, task: Task, digest: str, execute: int) -> PolicyMaker:
        """The policy of that digest, for a crash test.

        Raises:
          Missing: neither given nor in the store.
        """
        if digest == EXPERT:
            return task.expert
        if isinstance(self.policy, Path) and digest_of(self._bytes(self.policy)) == digest:
            return learned(task, self._bytes(self.policy), execute)
        if self.store is not None and self.store.has(digest):
            return learned(task, self.store.get(digest), execute)
        raise Missing(f"policy {digest[:12]} is not here", allowed="--policy FILE, or a workspace that holds it")

    def _acted(self, task: Task, episode: Episode, rows: list[dict[str, Any]]) -> tuple[Acted, str]:
        if self.policy is not None:
            told = told_of(task, self.told or {})
            if self.policy == EXPERT:
                return Acted(task.expert, told), ""
            raw = self._bytes(Path(self.policy))
            return Acted(learned(task, raw, self.execute), told, digest_of(raw), self.execute), ""
        for row in rows:
            if episode.release and episode.release in (row["name"], digest_of(row)):
                acted = self._of_release(task, row, episode.robot)
                if self.told is not None:
                    acted = Acted(acted.maker, told_of(task, self.told), acted.digest, acted.execute)
                return acted, row["name"]
        raise Missing(
            "which policy acted is not known" + (f" (release {episode.release[:12]})" if episode.release else ""),
            where=f"episode of {episode.robot or episode.task}",
            allowed="a workspace with its release",
            run_next="flyball explain EPISODE --policy FILE (or --policy expert) --told FILE",
        )

    def _releases(self, task: Task) -> list[dict[str, Any]]:
        if self.store is None:
            return []
        return [json.loads(self.store.get(a.digest)) for a in self.store.find("release", task=task.name)]

    def _of_release(self, task: Task, row: Mapping[str, Any], robot: str) -> Acted:
        assert self.store is not None
        where = f"release {row['name']}"
        table = json.loads(self._file(row, "calibrations.json")) if "calibrations.json" in row["files"] else {}
        told = told_of(task, table.get(robot, table.get("*", {})), where=where)
        execute = int(row.get("execute", 1))
        policy = next(name for name, digest in row["files"].items() if digest == row["policy"])
        raw = self.store.get(row["policy"]) if self.store.has(row["policy"]) else self._file(row, policy)
        if row.get("format", "onnx") == "onnx":
            return Acted(learned(task, raw, execute), told, row["policy"], execute)
        name = json.loads(raw).get("controller", "")
        if name == EXPERT:
            return Acted(task.expert, told)
        if name not in task.baselines():
            raise Missing.named("controller", str(name), [EXPERT, *task.baselines()], where=where)
        return Acted(lambda t: task.baselines()[name](len(t)), told, row["policy"], execute)

    def _file(self, row: Mapping[str, Any], name: str) -> bytes:
        path = (self.releases or Path()) / row["name"] / f"{row['files'][name]}.{name}"
        data = self._bytes(path)
        if digest_of(data) != row["files"][name]:
            raise InputError("is not what was signed", where=str(path), allowed=row["files"][name])
        return data

    def _bytes(self, path: Path) -> bytes:
        if str(path) not in self._read:
            self._read[str(path)] = read_file(path)
        return self._read[str(path)]

    def _calibration(self, robot: str) -> Values | None:
        """The newest of the robot's calibrations."""
        if self.store is None or not robot:
            return None
        for row in reversed(self.store.rows("turn")):
            digest = row.get("standing", {}).get("fits", {}).get(robot, "")
            if digest and self.store.has(digest):
                return samples_of(json.loads(self.store.get(digest)), f"calibration {digest[:12]}")
        return None


def attempt_of(task: Task, episode: Episode) -> Attempts:
    """The episode's attempt as arrays, (1, T, size).

    Raises:
      InputError: it was stopped early, or has not the task's signals.
    """
    steps = round(task.horizon_s * task.control_hz)
    names = [s.name for s in (*task.embodiment.observations, *task.embodiment.actions)]
    where = f"episode of {episode.robot or task.name}"
    for name in names:
        if len(episode.signal(name).t_ns) != steps:
            raise InputError(
                f"{name} has {len(episode.signal(name).t_ns)} samples", where=where,
                allowed=f"a whole attempt of {steps}",
            )  # fmt: skip
    signals = {n: episode.signal(n).values.reshape(1, steps, -1).astype(float) for n in names}
    bad = [n for n, x in signals.items() if not np.isfinite(x).all()]
    if bad:
        raise InputError(f"{bad[0]} is not finite", where=where)
    began = int(episode.signal(names[0]).t_ns[0])
    return Attempts(signals, [[((e.t_ns - began) * 1e-9, e.name) for e in episode.events]])


def learned(task: Task, raw: bytes, execute: int) -> PolicyMaker:
    """A policy file as a maker of controllers, checked now."""
    from flyball.policies.learned import LearnedPolicy

    LearnedPolicy.load(raw, task, told_of(task, {}))

    def make(told: NDArray[np.float64]) -> Callable[..., NDArray[np.float64]]:
        policy = LearnedPolicy.load(raw, task, told)
        policy.reset(task.instruction, 0)
        return Batched(policy, execute)

    return make


def told_of(task: Task, said: Mapping[str, float], *, where: str = "--told") -> NDArray[np.float64]:
    """What a policy is told, (c,); what is left out, as of the nominal robot.

    Raises:
      Missing: a name that the task's policies are not told.
      InputError: not a number.
    """
    values = dict(zip(task.conditioning, task.told(task.scene.nominal(1))[0].tolist(), strict=True))
    for name, x in said.items():
        if name not in task.conditioning:
            raise Missing.named("value to tell a policy", name, task.conditioning, where=where)
        if isinstance(x, bool) or not isinstance(x, (int, float)) or not np.isfinite(x):
            raise InputError(f"{name} = {x!r}", where=where, allowed="a finite number")
        values[name] = float(x)
    return np.array([values[k] for k in task.conditioning])


def samples_of(data: Any, where: str) -> Values:
    """Joint samples from a calibration's JSON: ``{"paths": [...], "samples": [[...], ...]}``.

    Raises:
      InputError: not that.
    """
    try:
        paths, samples = list(data["paths"]), np.array(data["samples"], float)
    except (KeyError, TypeError, ValueError) as err:
        raise InputError("holds no joint samples", where=where, allowed='{"paths": [...], "samples": [...]}') from err
    if samples.ndim != 2 or samples.shape[1] != len(paths) or not len(samples) or not np.isfinite(samples).all():
        raise InputError(f"samples of shape {samples.shape}", where=where, allowed=f"finite rows of {len(paths)}")
    return {str(p): samples[:, j] for j, p in enumerate(paths)}


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
      InputError: it cannot be read.
    """
    try:
        return json.loads(read_file(path))
    except (ValueError, RecursionError) as err:
        raise InputError(f"is not JSON: {err}", where=str(path)) from err


def read_file(path: Path) -> bytes:
    """A file of limited size.

    Raises:
      Missing, InputError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path.stat().st_size} bytes", where=str(path), allowed=f"at most {MOST_BYTES}")
        return path.read_bytes()
    except OSError as err:
        raise Missing(err.strerror or "cannot be read", where=str(path)) from err
