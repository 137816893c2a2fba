"""A failure to explain: what was logged, what acted, what was believed.

In: one attempt, a policy, what it was told, believed samples. Out: how and when it failed, whether a replay fails
alike, whether the logged commands are the policy's own, and closed-loop re-runs of the policy in other worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.policies.supervisor import joint_of_action
from flyball.robots import Observation
from flyball.tasks import Judgement, Task
from flyball.tasks.task import Controller, Values
from flyball.tasks.world import Attempts, World

PolicyMaker = Callable[[NDArray[np.float64]], Controller]
"""What is told, (n, c) -> a fresh controller of n worlds. ``task.expert`` is one."""

SAME_TIME_S = 0.3
"""Failures whose moments differ by less are alike [s]: what a person who watches both would call the same moment."""
SAME_ACTION = 0.002
"""Commands that differ by less than this share of their range are the same: single precision, rounding of logs."""
FOREIGN = 0.1
"""Above this share of control periods with other commands, something else acted: in logs of learned policies the
supervisor had changed the command in up to 5 %."""
DISCREPANCY = 0.03
"""How far a simulation may be off, as a share of a signal's range in the log: no model is better than that."""
ON_COURSE = 3.0
"""A replay is on the log's course while it is off by less than this many of what a good one may be."""
RARE = 0.25
"""A verdict that no more of the good attempts pass through is none that they pass through: noise."""
TAIL_S = 0.8
"""Replays go on for so long after the moment at which something clearly went wrong [s]; what follows is chaos."""
STRIDE = 3
"""Every so many control periods the beginning of an attempt is judged."""
KEPT = 6
"""Batches that stay open."""
WIDEST = 192
"""Worlds that are simulated at once: more gain nothing and cost memory."""


@dataclass(frozen=True)
class Failure:
    """How an attempt failed.

    Attributes:
      group: the task's verdict.
      first: the first thing that went wrong: a box that slips may be crushed by the falling hand.
      at_s: when that was [s].
      clear: whether attempts that end well are never judged so; else only its end shows that it failed.
    """

    group: str
    first: str
    at_s: float
    clear: bool = True


@dataclass(frozen=True)
class Variant:
    """n worlds in which the policy is tried again.

    Attributes:
      values: parameter path -> (n,).
      told: what the policy is told, (n, c).
      starts: joint name -> (n, nq).
      seeds: sensor noise of each world.
      speed: greatest joint speed of the commands over the joints' own limit, (n,); infinity: as the policy commands.
      seen: what the sensors were like when the start was seen, path -> (n,): a tracker that is put right does not move
        the object.
    """

    values: Values
    told: NDArray[np.float64]
    starts: Mapping[str, NDArray[np.float64]]
    seeds: Sequence[int]
    speed: NDArray[np.float64]
    seen: Values = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> Variant:
        """Some of the worlds, repeated at will."""
        return Variant(
            {k: np.asarray(v)[rows] for k, v in self.values.items()},
            self.told[rows],
            {k: v[rows] for k, v in self.starts.items()},
            [self.seeds[i] for i in rows],
            self.speed[rows],
            {k: np.asarray(v)[rows] for k, v in self.seen.items()},
        )


@dataclass
class Case:
    """One failed attempt, and what is needed to try again.

    Attributes:
      task: what was attempted.
      logged: the attempt alone, signals (1, T, size).
      told: what the policy was told, (c,).
      policy: makes the controller that acted.
      believed: joint samples of what is believed of the robot, path -> (m,); None: nothing but the scene's prior.
      policies: other policies worth trying, e.g. of earlier releases, by name.
      seed: decides everything random.
      threads: CPU threads of the engine.
      attempts: simulated attempts so far, replays included.
    """

    task: Task
    logged: Attempts
    told: NDArray[np.float64]
    policy: PolicyMaker
    believed: Values | None = None
    policies: Mapping[str, PolicyMaker] = field(default_factory=dict)
    seed: int = 0
    threads: int = 2
    attempts: int = 0

    def __post_init__(self) -> None:
        task = self.task
        if len(self.logged.events) != 1:
            raise InputError(f"{len(self.logged.events)} attempts", where="explain", allowed="one at a time")
        self.told = np.asarray(self.told, float)
        if self.told.shape != (len(task.conditioning),) or not np.isfinite(self.told).all():
            raise InputError(
                f"told has shape {self.told.shape}", where=task.name, allowed=f"{len(task.conditioning)} finite numbers"
            )
        if self.judgement.outcome != "failure":
            raise InputError(f"the attempt is a {self.judgement.outcome}", where=task.name, allowed="failures")
        self._worlds: dict[int, World] = {}

    @cached_property
    def judgement(self) -> Judgement:
        """The task's judgement of the log."""
        return self.logged.judge(self.task)[0]

    @cached_property
    def actions(self) -> NDArray[np.float64]:
        """Logged actions, (1, T, a)."""
        return np.concatenate([self.logged.signals[s.name] for s in self.task.embodiment.actions], axis=-1)

    @cached_property
    def failure(self) -> Failure:
        """How and when it failed."""
        return failures(self.task, self.logged, self.passed)[0]

    @cached_property
    def periods(self) -> int:
        """Control periods that are replayed."""
        steps = self.actions.shape[1]
        if not self.failure.clear:
            return steps
        return min(steps, int(np.ceil((self.failure.at_s + TAIL_S) * self.task.control_hz)))

    @cached_property
    def course(self) -> int:
        """Control periods whose course is evidence: what comes after something went wrong is chaos."""
        if not self.failure.clear:
            return self.periods
        return min(self.periods, max(2, round(self.failure.at_s * self.task.control_hz)))

    @cached_property
    def passed(self) -> frozenset[str]:
        """Verdicts that attempts that end well usually pass through, from informed attempts at usual cells."""
        n, rng = 8, np.random.default_rng([self.seed, 3])
        values = self.task.scene.nominal(n) | self.task.draw_reality(rng, n)
        done = self.world(n).run(self.task.expert(self.task.told(values)), values, range(n))
        self.attempts += n
        good = [i for i, j in enumerate(done.judge(self.task)) if j.outcome == "success"]
        seen = [{g for _, g in verdicts(self.task, done, i)} for i in good]
        return frozenset(g for g in set().union(*seen) if sum(g in s for s in seen) > RARE * len(good))

    def alike(self, attempts: Attempts) -> NDArray[np.bool_]:
        """Which attempts fail, the same first thing going wrong at the same time, (n,).

        A failure that only the end of an attempt shows has no other time: verdicts on the way flicker.

        What follows the log's course up to that moment and then fails is alike under another name, too: whether a box
        that escapes is called slipped or crushed hangs on a single peak of force.
        """
        own, passed = self.failure, self.passed
        found = failures(self.task, attempts, passed)
        follows = self.follows(attempts)
        return np.array(
            [
                bool(f.group)
                and f.clear == own.clear
                and (not own.clear or abs(f.at_s - own.at_s) <= SAME_TIME_S)
                and (f.first == own.first or bool(on))
                for f, on in zip(found, follows, strict=True)
            ]
        )

    def floor(self, name: str) -> NDArray[np.float64]:
        """How far a good replay of a signal may be off, per element: noise, and ``DISCREPANCY`` of its range."""
        real = self.logged.signals[name][0]
        return DISCREPANCY * np.ptp(real, axis=0) + np.asarray(self.task.noise[name])

    def follows(self, attempts: Attempts) -> NDArray[np.bool_]:
        """Which attempts stay on the log's course until something goes wrong, (n,): every element, root mean square."""
        end = self.course
        on = np.ones(len(attempts.events), bool)
        for spec in self.task.embodiment.observations:
            off = attempts.signals[spec.name][:, :end] - self.logged.signals[spec.name][:, :end]
            off = off / self.floor(spec.name)
            on &= (np.sqrt(np.mean(off**2, axis=1)) <= ON_COURSE).all(axis=1)
        return on

    def world(self, n: int) -> World:
        """A batch of n worlds; the last few sizes are kept."""
        if n not in self._worlds:
            while len(self._worlds) >= KEPT:
                del self._worlds[next(iter(self._worlds))]
            self._worlds[n] = World(self.task, n, threads=self.threads)
        return self._worlds[n]

    def tiled(self, n: int) -> dict[str, NDArray[np.float64]]:
        """The log n times over: signal -> (n, T, size)."""
        return {k: np.repeat(x, n, axis=0) for k, x in self.logged.signals.items()}

    def starts(self, values: Values, seeds: Sequence[int]) -> Mapping[str, NDArray[np.float64]]:
        """Where the attempt began, as the log shows it under believed values (n,): one guess per seed.

        The log is read through noise; as much noise again makes the guesses as uncertain as they are.
        """
        noisy = self.tiled(len(seeds))
        std = {k: np.tile(np.asarray(x, float), (len(seeds), 1)) for k, x in self.task.noise.items()}
        for p in self.task.scene.parameters:
            for b in p.binds:
                signal, _, what = b.target.removeprefix("sensor:").rpartition(".")
                if b.target.startswith("sensor:") and what == "noise":
                    std[signal][:, b.index] = values[p.path]
        for i, seed in enumerate(seeds):
            rng = np.random.Generator(np.random.Philox(key=[int(seed), 1]))
            for k in std:
                noisy[k][i] += std[k][i] * rng.standard_normal(noisy[k][i].shape)
        return self.task.seen_starts(noisy, values)

    def variant(self, values: Values, seen: Values, told: NDArray[np.float64], seeds: Sequence[int]) -> Variant:
        """The attempt's own start in other worlds.

        Args:
          values: parameter path -> (n,).
          seen: the parameters under which the log's start is read, path -> (n,): those of its sensors count.
          told: (c,) or (n, c).
          seeds: sensor noise of each world.
        """
        n = len(seeds)
        sensors = {
            p.path: np.asarray(seen[p.path], float)
            for p in self.task.scene.parameters
            if any(b.target.startswith("sensor:") for b in p.binds)
        }
        starts = self.starts(dict(values) | sensors, seeds)
        return Variant(
            values, np.broadcast_to(told, (n, len(self.told))).copy(), starts, seeds, np.full(n, np.inf), sensors
        )

    def replay(self, values: Values, rng: np.random.Generator) -> tuple[Attempts, dict[str, NDArray[np.float64]]]:
        """Send the logged commands open loop into n worlds for ``periods``, with sensor noise of their own.

        Returns:
          The attempts, and per event the highest value of its source so far, (n, substeps).
        """
        n = len(next(iter(values.values())))
        world, self.attempts = self.world(n), self.attempts + n
        seeds = rng.integers(2**62, size=n).tolist()
        actions = np.repeat(self.actions[:, : self.periods], n, axis=0)
        done = world.replay(values, actions, self.starts(values, seeds), seeds)
        return done, {k: np.maximum.accumulate(x, axis=1) for k, x in world.traces.items()}

    def run(self, v: Variant, policy: PolicyMaker | None = None) -> Attempts:
        """Let the policy try again in closed loop, in every world of a variant."""
        n = len(v.seeds)
        self.attempts += n
        parts = []
        for rows in np.array_split(np.arange(n), -(-n // WIDEST)):
            part = v.take(rows)
            controller = (policy or self.policy)(part.told)
            if np.isfinite(part.speed).any():
                controller = _limited(self.task, controller, part)
            done = self.world(len(rows)).run(controller, part.values, part.seeds, starts=part.starts)
            parts.append((done.signals, list(done.events)))
        signals = {k: np.concatenate([p[0][k] for p in parts]) for k in parts[0][0]}
        return Attempts(signals, [e for p in parts for e in p[1]], v.values)

    def succeeds(self, v: Variant, policy: PolicyMaker | None = None) -> NDArray[np.bool_]:
        """Which worlds of a variant end well, (n,)."""
        return np.array([j.outcome == "success" for j in self.run(v, policy).judge(self.task)])

    def foreign(self) -> float:
        """Share of the control periods in which the log's command is not what the policy answers to the log.

        The policy sees the logged observations in order, so that one with a memory remembers what it did remember.
        """
        controller = self.policy(self.told[None])
        low, high = self.task.embodiment.action_limits()
        span = np.where(np.isfinite(high - low), high - low, 1.0)
        names = [s.name for s in self.task.embodiment.observations]
        off = []
        for k in range(self.actions.shape[1]):
            seen: Observation = {n: self.logged.signals[n][:, k] for n in names}
            answer = np.clip(controller(seen), low, high)
            off.append(bool((np.abs(answer - self.actions[:, k]) > SAME_ACTION * span).any()))
        return float(np.mean(off))


def verdicts(task: Task, attempts: Attempts, i: int) -> list[tuple[float, str]]:
    """What the task says of ever longer beginnings of an attempt: (time [s], group), where it changes."""
    one = attempts.one(i)
    steps = len(next(iter(one.values())))
    out: list[tuple[float, str]] = []
    for k in (*range(STRIDE, steps, STRIDE), steps):
        at = k / task.control_hz
        group = task.judge({n: x[:k] for n, x in one.items()}, [e for t, e in attempts.events[i] if t <= at]).group
        if not out or out[-1][1] != group:
            out.append((at, group))
    return out


def failures(task: Task, attempts: Attempts, passed: frozenset[str]) -> list[Failure]:
    """How attempts failed: the first of the last verdicts that good attempts do not pass through, else the last one.

    Args:
      passed: verdicts that attempts pass through that end well.

    Returns:
      One each; ("", "", 0) for those that did not fail, and for mere beginnings that did not clearly fail.
    """
    out = []
    whole = len(next(iter(attempts.signals.values()))[0]) >= round(task.horizon_s * task.control_hz)
    for i in range(len(attempts.events)):
        said = verdicts(task, attempts, i)
        final = said[-1][1]
        clear = None
        for v in reversed(said):
            if not v[1] or v[1] in passed:
                break
            clear = v
        if not final or not (clear or whole):
            out.append(Failure("", "", 0.0))
        else:
            at, first = clear or said[-1]
            out.append(Failure(final, first, at, clear is not None))
    return out


def _limited(task: Task, controller: Controller, v: Variant) -> Controller:
    """The controller's joint commands, moving no faster than a share of the joints' own limits."""
    joint = joint_of_action(task.embodiment)
    speed = np.array([j.velocity for j in task.embodiment.joints] + [np.inf])[joint]
    step = v.speed[:, None] * speed / task.control_hz
    last = [task.rest_action(v.values)]

    def act(seen: Observation) -> NDArray[np.float64]:
        wanted = controller(seen)
        last[0] = np.clip(wanted, last[0] - step, last[0] + step)
        return last[0]

    return act
