"""Which robots of a workspace have drifted since they were calibrated?

In: a workspace with calibrations and the episodes that came after them. Out: one line per robot; the tests' states as
rows of the store (kind ``drift``), so that the next call only looks at new episodes, and a killed one loses few.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from flyball.base import InputError, Missing
from flyball.base.steps import json_of
from flyball.base.store import Store
from flyball.base.workspace import Workspace
from flyball.calibration.calibration import Calibration
from flyball.calibration.drift import BASELINE, DriftTest, Move
from flyball.calibration.fit import Progress, Silent
from flyball.calibration.residual import (
    REPLAY_ERROR,
    Residual,
    attempt_residuals,
    frictions,
    recording_residuals,
    shifted,
    watched_paths,
)
from flyball.calibration.rigs import rig_for, rigs
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue, EpisodeRow
from flyball.loop.logs import attempts_of
from flyball.loop.stages import Standing, standing_from
from flyball.loop.work import fitted_from
from flyball.scenes import Parameter
from flyball.tasks import Task, tasks

State = Literal["quiet", "drifting", "not enough episodes"]
RIVAL = 0.5
"""A parameter whose effect is at least this share of the greatest is named beside it."""
_TOGETHER = 16  # episodes between two writings of a test's state


@dataclass(frozen=True)
class Moved:
    """A parameter that moved.

    Attributes:
      path, unit: of the parameter, or all friction of a joint.
      calibrated, now: its value then, and with the shift; 1 and the factor for all friction of a joint.
      text: the shift for people, e.g. ``+21 %``.
      at_bound: the shift leads out of the parameter's range.
    """

    path: str
    unit: str
    calibrated: float
    now: float
    text: str
    at_bound: bool


@dataclass(frozen=True)
class Watched:
    """What is known of one robot since its calibration.

    Attributes:
      robot: its name; the set-up's where recordings name no robot.
      of: set-up or task.
      calibration: digest.
      state: ``quiet``, ``drifting`` or ``not enough episodes``.
      episodes: since the calibration.
      baseline: so many of them are taken for the robot as it was calibrated.
      hours: duration of them all [h].
      evidence: as a share of the threshold.
      since: number of the first changed episode, from 1; 0 while quiet.
      since_digest: its digest.
      stream: what moved most; the replay error where it rose and no parameter explains it.
      moved: the likeliest parameter and its rivals.
      unreadable: episodes that could not be replayed, each with the reason.
      run_next: what to do.
    """

    robot: str
    of: str
    calibration: str
    state: State
    episodes: int
    baseline: int
    hours: float
    evidence: float
    since: int = 0
    since_digest: str = ""
    stream: str = ""
    moved: tuple[Moved, ...] = ()
    unreadable: tuple[str, ...] = ()
    run_next: str = ""

    def named(self) -> str:
        """What moved, for people."""
        named = " or ".join(f"{m.path} {m.text}" for m in self.moved) or "no parameter that the episodes show"
        if self.stream == REPLAY_ERROR:
            named = f"the replay error changed more than any parameter explains (nearest: {named})"
        return named

    def line(self) -> str:
        """The answer in one line."""
        head = f"{self.robot} ({self.of}): {self.state}"
        if self.state == "not enough episodes":
            return f"{head}: {self.episodes} since its calibration, watched after {self.baseline}"
        if self.state == "quiet":
            return f"{head} for {self.episodes} episodes ({self.hours:.2g} h)"
        return f"{head} since episode {self.since} ({self.since_digest[:12]}): {self.named()}; next: {self.run_next}"


@dataclass(frozen=True)
class Subject:
    """One calibrated robot: what to look at, and how.

    Attributes:
      robot, of, calibration: see ``Watched``.
      parameters, calibrated: what is watched, and the values that are replayed.
      rows: its episodes since the calibration.
      together: streams of several parameters, see ``residual.frictions``.
      residual: of one of them; None where there is nothing to compare with.
      again: what calibrates it again.
      last_ns: start of the last episode that was fitted [ns].
    """

    robot: str
    of: str
    calibration: str
    parameters: tuple[Parameter, ...]
    calibrated: tuple[float, ...]
    rows: Sequence[EpisodeRow]
    residual: Callable[[Episode], Residual | None]
    again: str
    last_ns: int = 0
    together: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Of its rows in the store."""
        return f"{self.of}/{self.robot}/{self.calibration}"

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of its residuals."""
        return (*(p.path for p in self.parameters), *self.together, REPLAY_ERROR)


def watch(
    workspace: Workspace,
    *,
    hours: float = 1000.0,
    baseline: int = BASELINE,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Watched]:
    """Look at all new episodes of every calibrated robot.

    Args:
      hours: at most one false alarm per robot in so many hours of its episodes.
      baseline: episodes after a calibration that are taken for the robot as it was calibrated.
      seed: breaks ties; see ``DriftTest``.

    Raises:
      Missing: nothing here was calibrated.
    """
    progress = progress or Silent()
    standings = [row["standing"] for row in workspace.store.rows("turn") if "standing" in row]
    fleet = fleet_subjects(workspace.store, standing_from(standings[-1])) if standings else ()
    subjects = [*_set_ups(workspace), *fleet]
    if not subjects:
        raise Missing(
            "no calibration to watch", where=str(workspace.path), allowed="a calibrated set-up or fleet",
            run_next=f"flyball calibrate --workspace {workspace.path}",
        )  # fmt: skip
    return [look(workspace.store, s, hours=hours, baseline=baseline, seed=seed, progress=progress) for s in subjects]


def alarms(workspace: Workspace) -> list[dict[str, Any]]:
    """What the loop did about robots that drifted, in order; see ``loop.upkeep``."""
    return workspace.store.rows("alarm")


def serviced(workspace: Workspace, robot: str) -> str:
    """Write down that a robot was repaired: its attempts so far no longer describe it.

    Returns:
      What happens now, in one line.

    Raises:
      Missing: the loop has not calibrated such a robot.
    """
    store = workspace.store
    standings = [row["standing"] for row in store.rows("turn") if "standing" in row]
    known = sorted(standings[-1]["fits"]) if standings else []
    if robot not in known:
        raise Missing.named("robot", robot, known, run_next="flyball drift")
    starts = [r.start_ns for r in Catalogue(store).query() if r.robot == robot]
    store.put_row("serviced", robot, {"after_ns": max(starts, default=0)})
    return f"{robot}: serviced; the loop calibrates it again from its next attempts"


def look(
    store: Store, who: Subject, *, hours: float = 1000.0, baseline: int = BASELINE, seed: int = 0,
    progress: Progress | None = None,
) -> Watched:  # fmt: skip
    """Look at all new episodes of one robot; see ``watch``."""
    progress = progress or Silent()
    test = DriftTest(who.streams, hours=hours, baseline=baseline, seed=seed)
    kept = store.row("drift", who.key)
    if kept is not None and tuple(kept["test"].get("streams", ())) != who.streams:
        kept = None  # of a version that watched other streams
    if kept is not None:  # residuals stay what they are under another rate or baseline
        for row in DriftTest.from_json(kept["test"], where=f"drift {who.key}").to_json()["episodes"]:
            test.update(row["key"], row["residuals"], duration_s=row["duration_s"], regime=row["regime"])
    unreadable = dict(kept["unreadable"]) if kept else {}
    partial = list(kept.get("partial", ())) if kept else []
    known = {*test.keys, *unreadable, *partial}
    new = [r for r in who.rows if r.digest not in known]
    catalogue = Catalogue(store)
    progress.stage(f"drift of {who.robot}", len(new))
    for i, row in enumerate(new):
        try:
            found = who.residual(catalogue.load(row.digest))
        except InputError as err:
            unreadable[row.digest] = err.line()
        else:
            if found is None:
                partial.append(row.digest)
            else:
                test.update(row.digest, found.values.tolist(), duration_s=found.duration_s, regime=found.regime)
        if (i + 1) % _TOGETHER == 0:
            store.put_row("drift", who.key, {"test": test.to_json(), "unreadable": unreadable, "partial": partial})
        progress.advance()
    out = _told(who, test, unreadable)
    state = {"test": test.to_json(), "unreadable": unreadable, "partial": partial}
    if kept is None or new or kept["test"] != state["test"]:
        store.put_row("drift", who.key, state | {"found": asdict(out)})
    return out


def _told(who: Subject, test: DriftTest, unreadable: dict[str, str]) -> Watched:
    common: dict[str, Any] = {
        "robot": who.robot, "of": who.of, "calibration": who.calibration, "episodes": test.episodes,
        "baseline": test.baseline, "hours": test.hours_watched, "evidence": test.evidence,
        "unreadable": tuple(f"{digest[:12]}: {line}" for digest, line in unreadable.items()),
    }  # fmt: skip
    if test.alarm is None:
        return Watched(state="quiet" if test.episodes > test.baseline else "not enough episodes", **common)
    of = {p.path: (p, v) for p, v in zip(who.parameters, who.calibrated, strict=True)}
    moves = test.moves()
    mine = _own_words([m for m in moves if m.stream != REPLAY_ERROR and m.effect > 0], who.together)
    moved = tuple(
        _moved(*of[m.stream], m.shift) if m.stream in of else _rubs(m, [of[p] for p in who.together[m.stream]])
        for m in mine
        if m.effect >= RIVAL * mine[0].effect
    )
    error = next((m.effect for m in moves if m.stream == REPLAY_ERROR), 0.0)
    unexplained = not mine or mine[0].effect < RIVAL * error
    look = unexplained or moved[0].at_bound
    return Watched(
        state="drifting", since=test.alarm.since + 1, since_digest=test.keys[test.alarm.since],
        stream=REPLAY_ERROR if unexplained else moved[0].path, moved=moved,
        run_next=f"look at the robot, then {who.again}" if look else f"{who.again}; look at the robot if it goes on",
        **common,
    )  # fmt: skip


def _own_words(moves: Sequence[Move], together: Mapping[str, Sequence[str]]) -> list[Move]:
    """A joint's friction is told once: as a whole or as one of its parts, whichever moved more."""
    out: list[Move] = []
    for move in moves:  # greatest effect first
        parts, wholes = together.get(move.stream, ()), [w for w, ps in together.items() if move.stream in ps]
        if not {m.stream for m in out} & {*parts, *wholes}:
            out.append(move)
    return out


def _rubs(move: Move, parts: Sequence[tuple[Parameter, float]]) -> Moved:
    """All friction of a joint; by its parameter's name where it has only one."""
    factor = math.exp(move.shift)
    path, unit, value = (parts[0][0].path, parts[0][0].unit, parts[0][1]) if len(parts) == 1 else (move.stream, "", 1.0)
    beyond = any(v * factor > p.high for p, v in parts)
    return Moved(path, unit, value, value * factor, f"{factor - 1:+.0%}".replace("%", " %"), beyond)


def _moved(parameter: Parameter, calibrated: float, shift: float) -> Moved:
    now = shifted(parameter, calibrated, shift)
    beyond = not 0 <= float(parameter.to_unit(calibrated)) + shift <= 1
    if parameter.scale == "log":
        text = f"{now / calibrated - 1:+.0%}".replace("%", " %")
    else:
        text = f"{now - calibrated:+.2g} {parameter.unit}".strip()
    return Moved(parameter.path, parameter.unit, calibrated, now, text, beyond)


def _set_ups(workspace: Workspace) -> Iterator[Subject]:
    """Recorded set-ups with a calibration, one subject per robot that the recordings name."""
    store = workspace.store
    newest: dict[str, tuple[str, Calibration]] = {}
    for name in rigs.names():
        for artifact in store.find("calibration", rig=name)[-1:]:
            newest[name] = (
                artifact.digest,
                Calibration.from_json(json_of(store, artifact), where=artifact.digest[:12]),
            )
    if not newest:
        return
    catalogue = Catalogue(store)
    rows = catalogue.query("origin != 'simulation' AND verdict != 'rejected'")
    of = {r.digest: rig_for(catalogue.load(r.digest), sorted(newest)) for r in rows}
    for name, (digest, calibration) in newest.items():
        rig, mine = rigs.load(name)(), [r for r in rows if of[r.digest] == name]
        parameters = tuple(rig.scene.parameter(p) for p in calibration.paths)
        for robot in dict.fromkeys(r.robot for r in mine):

            def residual(episode: Episode, rig: Any = rig, calibration: Calibration = calibration) -> Residual:
                return recording_residuals(rig, calibration, [rig.replay(episode)])[0]

            own = [r for r in mine if r.robot == robot]
            yield Subject(
                robot or name, name, digest, parameters, tuple(calibration.best.tolist()),
                _after(own, set(calibration.data)), residual,
                f"flyball calibrate --rig {name} --workspace {workspace.path}", together=frictions(calibration.paths),
            )  # fmt: skip


def fleet_subjects(store: Store, standing: Standing) -> Iterator[Subject]:
    """Robots that the loop has calibrated, with the task of the logs that this was done with."""
    everything = Catalogue(store).query("verdict != 'rejected'") if standing.fits else []
    for robot, digest in sorted(standing.fits.items()):
        artifact = store.artifact(digest, "calibration")
        fitted, logs = fitted_from(json_of(store, artifact)), set(artifact.parents)
        rows = [r for r in everything if r.robot == robot and r.task in tasks.names()]
        learned = [r for r in rows if r.log_digest in logs]
        if not learned:
            continue
        task: Task = tasks.load(learned[0].task)
        parameters = tuple(task.scene.parameter(p) for p in watched_paths(task, fitted))
        samples = fitted.values()

        def residual(episode: Episode, task: Task = task, fitted: Any = fitted) -> Residual | None:
            logged = attempts_of(task, [episode])
            if not logged.events:  # stopped early: nothing to compare with
                return None
            return attempt_residuals(task, fitted, logged, regimes=[regime_of(task, episode.release)])[0]

        since = _after([r for r in rows if r.task == task.name], {r.digest for r in learned})
        yield Subject(
            robot, task.name, digest, parameters, tuple(float(np.median(samples[p.path])) for p in parameters),
            [r for r in since if _on_duty(r)], residual,
            "let the loop calibrate it again", max(r.start_ns for r in learned),
        )  # fmt: skip


def _on_duty(row: EpisodeRow) -> bool:
    """Not an attempt of a release on trial: those are few, and of a policy that may go again."""
    return re.fullmatch(r"turn-\d+", str(row.labels.get("order", "turn-0"))) is not None


def regime_of(task: Task, release: str) -> str:
    """What an attempt may be compared with: attempts of the same task with the same release."""
    return f"{task.name} {release[:12]}"


def _after(rows: Sequence[EpisodeRow], fitted: set[str]) -> list[EpisodeRow]:
    """Episodes that came in after the last that was fitted, in the order in which they were recorded."""
    last = max((i for i, r in enumerate(rows) if r.digest in fitted), default=-1)
    return sorted(rows[last + 1 :], key=lambda r: r.start_ns)
