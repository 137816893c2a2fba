"""The one control loop, simulated and real: observe, ask the policy, supervise, act, record.

In: a robot, a policy, a supervisor, a recorder. Out: an ``AttemptResult`` and, where the supervisor stopped the robot,
an ``Incident`` with the seconds before. Behaviour is added by wrapping the policy, never by flags here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import FlyballError
from flyball.policies.policy import ActionChunk, Policy
from flyball.policies.supervisor import Supervisor
from flyball.robots import Embodiment, Observation, Robot


class Sink(Protocol):
    """Where an attempt is recorded (``flyball.episodes.recorder.Recorder`` is one)."""

    def write(self, name: str, t_ns: int, values: NDArray[np.float64]) -> None:
        """One sample of a signal."""

    def event(self, t_ns: int, name: str, text: str = "") -> None:
        """Something that happened."""


@dataclass(frozen=True)
class Incident:
    """Why the robot was stopped, with the seconds before.

    Attributes:
      t_ns: when, on the clock of the log [ns].
      reason: one line.
      events: (time [ns], name, text) of the attempt so far.
      recent: the last samples, oldest first: {"t_ns": ..., "<signal>": [...], ...}.
    """

    t_ns: int
    reason: str
    events: tuple[tuple[int, str, str], ...]
    recent: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; values that are not finite become None."""
        rows = [
            {k: v if k == "t_ns" else [float(x) if np.isfinite(x) else None for x in np.ravel(v)] for k, v in r.items()}
            for r in self.recent
        ]
        return {"t_ns": self.t_ns, "reason": self.reason, "events": [list(e) for e in self.events], "recent": rows}


@dataclass(frozen=True)
class AttemptResult:
    """What became of an attempt, as far as the runner can tell (whether it succeeded, the task says).

    Attributes:
      steps: control periods completed.
      stopped: why the supervisor stopped the robot; "" when it did not.
      clamps: actions that were moved onto a limit.
      holds: control periods in which the last good action was sent instead.
      incident: set when the robot was stopped.
      events: names of everything that happened, in order.
    """

    steps: int
    stopped: str = ""
    clamps: int = 0
    holds: int = 0
    incident: Incident | None = None
    events: tuple[str, ...] = ()


class Late(FlyballError):
    """A policy did not answer in time."""


@dataclass
class DeadlinePolicy:
    """Asks a policy in a thread of its own, so that one that hangs cannot hang the control loop (wall-clock robots).

    Attributes:
      policy: the policy asked.
      wait_s: how long an answer is waited for [s]; then ``Late`` is raised, and again until the answer comes.
    """

    policy: Policy
    wait_s: float
    _thread: threading.Thread | None = None

    def reset(self, instruction: str, seed: int) -> None:
        if self._thread is not None and self._thread.is_alive():
            raise Late("the policy still has not answered from before")
        self._thread = None
        self.policy.reset(instruction, seed)

    def act(self, observation: Observation) -> ActionChunk:
        if self._thread is None or not self._thread.is_alive():  # else busy with an old observation: stale anyway
            answers: list[ActionChunk | Exception] = []

            def ask() -> None:
                try:
                    answers.append(self.policy.act(observation))
                except Exception as err:
                    answers.append(err)

            self._thread = threading.Thread(target=ask, daemon=True, name="policy")
            self._thread.start()
            self._thread.join(self.wait_s)
            if answers:
                if isinstance(answers[0], Exception):
                    raise answers[0]
                return answers[0]
        raise Late(f"no answer within {self.wait_s:g} s")


def run_attempt(
    robot: Robot,
    policy: Policy,
    supervisor: Supervisor,
    *,
    steps: int,
    instruction: str,
    seed: int,
    execute: int,
    record: Sink | None = None,
    started_ns: int = 0,
    recent_s: float = 3.0,
) -> AttemptResult:
    """Run one attempt.

    Args:
      robot: prepared and at rest.
      policy: asked for a chunk when the last one is used up.
      supervisor: checks everything before it is sent; its ``report`` is taken over for the attempt.
      steps: control periods.
      instruction: what is asked, in words.
      seed: decides everything random the policy does.
      execute: actions of a chunk that are executed before the policy is asked again.
      record: receives the observations under their names, the actions really sent under the action signals' names,
        and the events.
      started_ns: time stamp of the first sample [ns]; later ones follow the robot's own clock.
      recent_s: how much of the end an incident keeps [s].
    """
    body = robot.embodiment
    offset = started_ns - robot.now_ns()
    recent: deque[dict[str, Any]] = deque(maxlen=max(1, round(recent_s / supervisor.period_s)))
    log: list[tuple[int, str, str]] = []

    def event(t_ns: int, name: str, text: str = "") -> None:
        log.append((t_ns, name, text))
        if record is not None:
            record.event(t_ns, name, text)

    def report(name: str, text: str) -> None:
        event(robot.now_ns() + offset, name, text)

    def drain() -> None:
        for t_ns, name in robot.events():
            event(t_ns + offset, name)

    supervisor.report = report
    chunk: NDArray[np.float64] | None = None
    used = asked_ns = done = 0
    why = ""
    robot.events()  # what happened before the attempt is not of it
    try:
        observation = robot.observe()
        supervisor.reset(observation)
        why = _reset(policy, instruction, seed)
        if why:
            supervisor.stop(why)
        for step in range(steps):
            observed_ns = robot.now_ns()
            if step:
                observation = robot.observe()
            if not supervisor.stopped and (chunk is None or used >= min(execute, len(chunk))):
                chunk, used, asked_ns = None, 0, observed_ns
                try:
                    answer = policy.act(observation)
                    why = supervisor.check_chunk(answer)
                    chunk = None if why else answer.actions
                except FlyballError as err:  # late, or it refuses to answer
                    why = err.line()
                except (
                    Exception
                ) as err:  # a policy is untrusted code: whatever it throws stops the robot, not the agent
                    why = f"the policy failed: {type(err).__name__}: {err}"
                    supervisor.stop(why)
            now_ns = robot.now_ns()
            late_s = (now_ns - asked_ns) * 1e-9 - used * supervisor.period_s
            verdict = supervisor.judge(None if chunk is None else chunk[used], late_s=late_s, why=why)
            t_ns = now_ns + offset
            sample: dict[str, Any] = {"t_ns": t_ns, **{k: np.array(v, dtype=float) for k, v in observation.items()}}
            recent.append(sample)
            if record is not None:
                for spec in body.observations:
                    record.write(spec.name, t_ns, sample[spec.name])
            if verdict.kind == "stop":
                break
            if verdict.held:
                chunk = None  # whatever else it held is not to be trusted either
            sent = robot.act(verdict.action)
            used += 1
            done = step + 1
            for spec in body.actions:
                part = np.reshape(sent[body.action_slice(spec.name)], spec.shape)
                sample[spec.name] = part
                if record is not None:
                    record.write(spec.name, t_ns, part)
            drain()
    finally:  # also when the driver itself failed
        robot.stop()
    drain()
    incident = None
    if supervisor.stopped:
        incident = Incident(robot.now_ns() + offset, supervisor.stopped, tuple(log), tuple(recent))
    names = tuple(name for _, name, _ in log)
    return AttemptResult(done, supervisor.stopped, supervisor.clamps, supervisor.holds, incident, names)


def _reset(policy: Policy, instruction: str, seed: int) -> str:
    try:
        policy.reset(instruction, seed)
    except Exception as err:
        return f"the policy failed to reset: {type(err).__name__}: {err}"
    return ""


def period_of(embodiment: Embodiment) -> float:
    """The control period that an embodiment's action signals declare [s]; 0 when they declare none."""
    rates = [s.rate_hz for s in embodiment.actions if s.rate_hz > 0]
    return 1.0 / max(rates) if rates else 0.0
