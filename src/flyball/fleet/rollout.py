"""The rollout of a release: canary, verdict, then all robots or none. A pure state machine.

In: reports and outcomes, in any order, late or twice. Out: which robot should run what (``wanted``), and a row for
every transition. No clock, no file, no network: whoever drives it writes orders from ``wanted`` and keeps ``to_json``.

    candidate -> canary -> promoting -> done
                   |           |
                   +-----------+--> rolling_back -> rolled_back

Always true: before the verdict at most the canaries are asked to run the new release; every robot is asked to run the
old release or the new; after an abort every robot is asked to go back; a robot that refuses stays on what it has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from flyball.base import InputError
from flyball.base.config import from_plain

Phase = Literal["candidate", "canary", "promoting", "done", "rolling_back", "rolled_back"]
PHASES: tuple[Phase, ...] = ("candidate", "canary", "promoting", "done", "rolling_back", "rolled_back")


class SequentialTest(Protocol):
    """Reads outcomes one at a time; may be asked after each (``flyball.evaluation.CanaryVerdict`` is one)."""

    def update(self, success: bool, *, incident: bool = False) -> Literal["continue", "promote", "abort"]:
        """Take one outcome."""


@dataclass(frozen=True)
class Row:
    """One thing that happened.

    Attributes:
      kind: a phase entered, or ``outcome``, ``installed``, ``refused``, ``joined``.
      robot: whom it concerns, "" for all.
      text: for people.
      attempt, success, incident: of an outcome.
    """

    kind: str
    robot: str = ""
    text: str = ""
    attempt: str = ""
    success: bool = False
    incident: bool = False


@dataclass(frozen=True)
class Rollout:
    """Where a rollout stands.

    Attributes:
      release: name of the new release.
      previous: name of the old one, "" for none.
      robots: everyone, in order.
      canaries: who tries it first.
      phase: see the module's text.
      running: robot -> release it last reported.
      refusals: robot -> why it does not take the new release.
      rows: everything that changed the state, in order.
    """

    release: str
    previous: str
    robots: tuple[str, ...]
    canaries: tuple[str, ...]
    phase: str = "candidate"
    running: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def __post_init__(self) -> None:
        if not self.release or self.release == self.previous:
            raise InputError(f"release {self.release!r} over {self.previous!r}", where="rollout")
        if not self.canaries or not set(self.canaries) <= set(self.robots):
            raise InputError(
                f"canaries {list(self.canaries)}", where="rollout", allowed=f"some of {', '.join(self.robots)}"
            )
        if self.phase not in PHASES:
            raise InputError(f"phase {self.phase!r}", where="rollout", allowed=", ".join(PHASES))

    # ---- what is to be done

    @property
    def wanted(self) -> dict[str, str]:
        """Robot -> name of the release it should run ("" for none)."""
        if self.phase in ("promoting", "done"):
            new = set(self.robots) - set(self.refusals)
        elif self.phase == "canary":
            new = set(self.canaries)
        else:
            new = set()
        return {robot: self.release if robot in new else self.previous for robot in self.robots}

    @property
    def ended(self) -> bool:
        """Whether every robot is where it should be, for good."""
        return self.phase in ("done", "rolled_back")

    @property
    def lagging(self) -> tuple[str, ...]:
        """Robots that have not yet said that they run what they should. One that is off for good never will."""
        return tuple(robot for robot, release in self.wanted.items() if self.running.get(robot) != release)

    @property
    def counted(self) -> tuple[Row, ...]:
        """The canaries' outcomes that the verdict rests on."""
        return tuple(row for row in self.rows if row.kind == "outcome")

    # ---- what happened

    def start(self) -> Rollout:
        """The gate allowed it: ask the canaries to run it."""
        if self.phase != "candidate":
            return self
        return self._enter("canary", f"{', '.join(self.canaries)} of {len(self.robots)} robots")

    def outcome(
        self, test: SequentialTest, robot: str, attempt: str, release: str, success: bool, *, incident: bool = False
    ) -> Rollout:
        """An attempt was judged. Counts only when a canary made it with the new release, and only once.

        Args:
          test: has seen exactly ``counted`` (see ``resume``).
          robot: who made it.
          attempt: its identity, e.g. the digest of its log.
          release: name of the release that drove it.
          success: how it went.
          incident: the supervisor stopped the robot.
        """
        known = any(row.attempt == attempt for row in self.counted)
        if self.phase != "canary" or robot not in self.canaries or release != self.release or known:
            return self
        after = dataclasses.replace(self, running={**self.running, robot: release})
        after = after._with(Row("outcome", robot, attempt=attempt, success=bool(success), incident=bool(incident)))
        verdict = test.update(bool(success), incident=bool(incident))
        n, good = len(after.counted), sum(row.success for row in after.counted)
        if verdict == "promote":
            return after._enter("promoting", f"{good} of {n} canary attempts succeeded")._settle()
        if verdict == "abort":
            return after._enter("rolling_back", f"{good} of {n} canary attempts succeeded")._settle()
        return after

    def report(self, robot: str, release: str) -> Rollout:
        """A robot says what it runs ("" for nothing). Its newest word counts; a new robot joins."""
        after = self
        if robot not in self.robots:
            after = dataclasses.replace(self, robots=(*self.robots, robot))._with(Row("joined", robot))
        if after.running.get(robot) == release:
            return after
        after = dataclasses.replace(after, running={**after.running, robot: release})
        after = after._with(Row("installed", robot, release))
        if after.phase == "canary" and release == after.release and robot not in after.canaries:
            return after._enter("rolling_back", f"{robot} runs it without being a canary")._settle()
        return after._settle()

    def refuse(self, robot: str, reason: str) -> Rollout:
        """A robot refuses the new release and goes on with what it has. On a canary, that is the verdict."""
        if robot not in self.robots or robot in self.refusals or self.phase not in ("canary", "promoting"):
            return self
        if self.phase == "canary" and robot not in self.canaries:
            return self
        after = dataclasses.replace(self, refusals={**self.refusals, robot: reason})._with(
            Row("refused", robot, reason)
        )
        if self.phase == "canary":
            return after._enter("rolling_back", f"{robot} refused it: {reason}")._settle()
        return after._settle()

    def abandon(self, reason: str) -> Rollout:
        """Somebody, or a deadline, ends it: everyone goes back."""
        if self.phase not in ("candidate", "canary", "promoting"):
            return self
        if self.phase == "candidate":
            return self._enter("rolled_back", reason)  # nobody was asked to run it
        return self._enter("rolling_back", reason)._settle()

    # ---- keeping it

    def resume(self, test: SequentialTest) -> SequentialTest:
        """Bring a fresh test to where this rollout stands: feed it the outcomes counted so far."""
        for row in self.counted:
            test.update(row.success, incident=row.incident)
        return test

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; ``from_json`` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, d: Any) -> Rollout:
        """Inverse of ``to_json``."""
        return from_plain(cls, d, where="rollout")

    def _with(self, row: Row) -> Rollout:
        return dataclasses.replace(self, rows=(*self.rows, row))

    def _enter(self, phase: Phase, text: str) -> Rollout:
        return dataclasses.replace(self, phase=phase)._with(Row(phase, "", text))

    def _settle(self) -> Rollout:
        """End the phase when everyone is where it leads."""
        if self.phase == "promoting" and all(
            self.running.get(r) == w for r, w in self.wanted.items() if w == self.release
        ):
            kept = f"; {', '.join(self.refusals)} stay on {self.previous or 'nothing'}" if self.refusals else ""
            return self._enter("done", f"all robots run it{kept}")
        if self.phase == "rolling_back":
            happened = {row.kind for row in self.rows}
            asked = set(self.robots if "promoting" in happened else self.canaries)
            asked |= {robot for robot, release in self.running.items() if release == self.release}
            if all(self.running.get(robot) == self.previous for robot in asked):
                return self._enter("rolled_back", f"all robots run {self.previous or 'nothing'}")
        return self
