"""Upkeep: robots that drift though they may not fail yet are calibrated again, or reported for maintenance.

In: the logs of every robot since its calibration. Out: alarms, in the turn's row and in the store (kind ``alarm``), and
the robots that are calibrated again from the logs since their change. The new calibration must explain the change: on
logs since then that it was not fitted to, the error of its replays (at the medians, in deviations of the sensors) is
5 % less than that of the old one; or not 5 % more, and it says of the parameter that moved what the test says. Small
changes of stiffness show in the test long before they show in replays. Else the robot has changed in a way that no
parameter describes; it is told what it was told before, and a person has to look.

Residuals wait until so many logs are there that an alarm is possible at all: the test's decisions are the same, and a
short run pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from flyball.base.steps import json_of
from flyball.calibration.drift import DriftTest
from flyball.calibration.fleet import pick
from flyball.calibration.residual import Residual
from flyball.episodes.catalogue import Catalogue, EpisodeRow
from flyball.loop import fitting, work
from flyball.loop.drift import Subject, Watched, fleet_subjects, look, regime_of
from flyball.loop.logs import attempts_of
from flyball.loop.stages import Stages, Standing
from flyball.tasks.world import Attempts

EXPLAINED = 0.05
"""Share of the error of replays of held-out logs by which a calibration is better, or worse."""
HELD_OUT = 6
"""Logs since the change on which that is measured, at most; with fewer than two it waits for more."""


@dataclass(frozen=True)
class Upkeep:
    """What is to be done after a look at the fleet.

    Attributes:
      standing: with where changes began.
      again: robots to calibrate again, from where they were.
      anew: robots that a person has serviced, to calibrate from nothing.
      alarms: entries of the turn's row.
    """

    standing: Standing
    again: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    alarms: tuple[dict[str, Any], ...] = ()


def upkeep(stages: Stages, standing: Standing, changed: Sequence[str]) -> Upkeep:
    """Look at this turn's logs for drift, and decide what is done about every alarm.

    Args:
      changed: robots that are calibrated anew anyway, with this turn's logs.
    """
    again, anew, alarms = [], [], []
    for who in _subjects(stages, standing):
        repaired = _repaired(stages, who)
        if repaired is not None:
            if who.robot not in changed:
                standing = _since(standing, repaired)
                anew.append(who.robot)
            stages.display.note(f"turn {stages.number}: {who.robot} was serviced and is calibrated anew")
            continue
        found = _look(stages, who)
        kept = stages.store.row("alarm", who.key)
        settled = kept is not None and kept["turn"] < stages.number and kept["action"] != "waiting"
        if found is None or found.state != "drifting" or settled:
            continue
        action, error = "recalibrated", None
        if who.robot not in changed:
            action, error, since = _recalibrate(stages, who, found, standing)
            if action == "recalibrated":
                standing = since
                again.append(who.robot)
        alarm = _alarm(stages.number, found, action, error)
        stages.store.put_row("alarm", who.key, alarm)
        stages.display.note(f"turn {stages.number}: {alarm['text']}")
        alarms.append(alarm)
    return Upkeep(standing, tuple(again), tuple(anew), tuple(alarms))


def maintenance(stages: Stages, standing: Standing) -> list[dict[str, Any]]:
    """Alarms that wait for a person: of robots that still run under the calibration that they have left."""
    rows = stages.store.rows("alarm")
    return [r for r in rows if r["action"] == "maintenance" and standing.fits.get(r["robot"]) == r["calibration"]]


def _subjects(stages: Stages, standing: Standing) -> Iterator[Subject]:
    """Calibrated robots of this task with the logs of earlier turns and this one's.

    A turn that is resumed must see what it saw before: not the canary's logs, which came after.
    """

    def mine(row: EpisodeRow) -> bool:
        turn = row.labels.get("turn")
        return turn is not None and (int(turn) < stages.number or row.labels.get("order") in stages.looks)

    for who in fleet_subjects(stages.store, standing):
        if who.of == stages.task.name and who.robot in stages.operator.robots:
            yield replace(who, rows=[r for r in who.rows if mine(r)])


def _repaired(stages: Stages, who: Subject) -> EpisodeRow | None:
    """First attempt after a person has serviced the robot, while its calibration is from before that."""
    row = stages.store.row("serviced", who.robot)
    fresh = [r for r in who.rows if row is not None and r.start_ns > row["after_ns"]]
    return fresh[0] if fresh and row is not None and who.last_ns <= row["after_ns"] else None


def _since(standing: Standing, first: EpisodeRow) -> Standing:
    """The standing in which logs of this robot before ``first`` have retired."""
    return replace(
        standing,
        since={**standing.since, first.robot: int(first.labels["turn"])},
        from_ns={**standing.from_ns, first.robot: first.start_ns},
    )


def _look(stages: Stages, who: Subject) -> Watched | None:
    """The test of one robot after this turn; None while it cannot have raised an alarm yet."""
    kept = stages.store.row("drift", who.key)
    known = {e["key"] for e in kept["test"]["episodes"]} if kept else set()
    regimes = [regime_of(stages.task, r.release) for r in who.rows]
    length = [stages.task.horizon_s] * len(regimes)
    if not known and not DriftTest.reachable(regimes, length, streams=len(who.streams)):
        return None
    catalogue = Catalogue(stages.store)
    episodes = {r.digest: catalogue.load(r.digest) for r in who.rows if r.digest not in known}
    whole = {d: e for d, e in episodes.items() if attempts_of(stages.task, [e]).events}
    table: dict[str, Residual] = {}
    if whole:
        with stages.stage("drift"):
            mine = [regime_of(stages.task, e.release) for e in whole.values()]
            logs = [e.log_digest for e in whole.values()]
            logged = attempts_of(stages.task, list(whole.values()))
            fit = json_of(stages.store, stages.store.artifact(who.calibration))
            inputs = [stages.task.name, logs, who.calibration, mine]
            made = stages.cached("residuals", 1, inputs, work.residuals, stages.task.name, logged, fit, mine)
        stages.steps["simulated"] += len(whole) * (2 * len(who.parameters) + 1) * stages.length
        table = {
            log: Residual(who.streams, np.array(values), stages.task.horizon_s, regime)
            for log, values, regime in zip(logs, json_of(stages.store, made), mine, strict=True)
        }
    return look(stages.store, replace(who, residual=lambda e: table.get(e.log_digest)))


def _recalibrate(
    stages: Stages, who: Subject, found: Watched, standing: Standing
) -> tuple[str, dict[str, float] | None, Standing]:
    """Calibrate a robot from the logs since its change, and see whether that explains it.

    Returns:
      ``recalibrated``, ``maintenance`` or ``waiting``; the held-out error before and after; the standing in which
      older logs of the robot have retired.
    """
    since = _since(standing, next(r for r in who.rows if r.digest == found.since_digest))
    rows, logged = fitting.logs_of(stages, who.robot, since)
    used = set(pick(logged, stages.task, max(stages.budget.replay.attempts)).tolist())
    spare = [i for i in range(len(logged.events)) if i not in used][-HELD_OUT:]
    if len(spare) < 2:
        return "waiting", None, standing
    fits, _ = fitting.calibrate(stages, [who.robot], [], since)
    with stages.stage("drift"):
        held = Attempts({k: x[spare] for k, x in logged.signals.items()}, [logged.events[i] for i in spare])
        both = [who.calibration, fits[who.robot]]
        data = [json_of(stages.store, stages.store.artifact(digest)) for digest in both]
        inputs = [stages.task.name, [r.log_digest for r in rows], spare, *both]
        made = stages.cached("compare_replays", 1, inputs, work.compare_replays, stages.task.name, held, data)
    stages.steps["simulated"] += len(spare) * len(both) * stages.length
    before, after = json_of(stages.store, made)
    error = {"before": float(before), "after": float(after)}
    explained = error["after"] <= (1 - EXPLAINED) * error["before"] or (
        error["after"] <= (1 + EXPLAINED) * error["before"] and _agrees(found, data[1])
    )
    return ("recalibrated", error, since) if explained else ("maintenance", error, standing)


def _agrees(found: Watched, fit: Mapping[str, Any]) -> bool:
    """Whether a calibration says of the parameter that moved most what the test says: at least half of its move."""
    if not found.moved or found.stream != found.moved[0].path or found.moved[0].path not in fit["paths"]:
        return False
    most = found.moved[0]
    value = float(np.median(np.array(fit["samples"])[:, list(fit["paths"]).index(most.path)]))
    return (value - most.calibrated) / (most.now - most.calibrated) >= 0.5 if most.now != most.calibrated else False


def _alarm(turn: int, found: Watched, action: str, error: Mapping[str, float] | None) -> dict[str, Any]:
    """An alarm as it is kept and shown."""
    text = f"{found.robot} drifts since attempt {found.since} after its calibration ({found.named()}): "
    moved = "" if error is None else f", held-out error {error['before']:.3g} -> {error['after']:.3g}"
    text += {
        "recalibrated": f"calibrated again from the attempts since then{moved}",
        "maintenance": f"a new calibration does not explain it{moved}; maintenance: look at the robot",
        "waiting": "too few attempts since then to calibrate it again; the next turn looks once more",
    }[action]
    return {
        "turn": turn, "robot": found.robot, "of": found.of, "calibration": found.calibration, "action": action,
        "since": found.since, "since_digest": found.since_digest, "stream": found.stream,
        "moved": [asdict(m) for m in found.moved], "error": None if error is None else dict(error), "text": text,
    }  # fmt: skip
