"""Upkeep: robots that drift though they may not fail yet are calibrated again, or reported for maintenance.

In: the logs of every robot since its calibration. Out: alarms, in the turn's row and in the store (kind ``alarm``), and
the robots whose calibration begins anew with the logs since their change. A new calibration must explain the change: on
logs since then that it was not fitted to, replays come nearer to the robot than under the old one. Else the robot has
changed in a way that no parameter describes; it is told what it was told before, and a person has to look.

Residuals wait until so many logs are there that an alarm is possible at all: the test's decisions are the same, and a
short run pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
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

EXPLAINED = 0.05
"""A calibration explains a drift when it brings the gap on held-out logs since the change down by this share."""
HELD_OUT = 6
"""Logs since the change on which that is measured, at most; with fewer than two it waits for more."""


def upkeep(
    stages: Stages, standing: Standing, changed: Sequence[str]
) -> tuple[Standing, list[str], list[dict[str, Any]]]:
    """Look at this turn's logs for drift, and decide what is done about every alarm.

    Args:
      changed: robots that are calibrated anew anyway, with this turn's logs.

    Returns:
      The standing, with where changes began; robots to calibrate again; the alarms, as entries of the turn's row.
    """
    if not standing.fits:
        return standing, [], []
    worn, alarms = [], []
    for who in _subjects(stages, standing):
        found = _look(stages, who)
        kept = stages.store.row("alarm", who.key)
        settled = kept is not None and kept["turn"] < stages.number and kept["action"] != "waiting"
        if found is None or found.state != "drifting" or settled:
            continue
        action, gaps, since = "recalibrated", None, standing
        if who.robot not in changed:
            action, gaps, since = _recalibrate(stages, who, found, standing)
            worn += [who.robot] if action == "recalibrated" else []
        standing = since
        alarm = _alarm(stages.number, found, action, gaps)
        stages.store.put_row("alarm", who.key, alarm)
        stages.display.note(f"turn {stages.number}: {alarm['text']}")
        alarms.append(alarm)
    return standing, worn, alarms


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
      ``recalibrated``, ``maintenance`` or ``waiting``; the gap before and after; the standing in which older logs of
      the robot have retired.
    """
    first = next(r for r in who.rows if r.digest == found.since_digest)
    since = replace(
        standing,
        since={**standing.since, who.robot: int(first.labels["turn"])},
        from_ns={**standing.from_ns, who.robot: first.start_ns},
    )
    rows, logged = fitting.logs_of(stages, who.robot, since)
    used = set(pick(logged, stages.task, max(stages.budget.replay.attempts)).tolist())
    spare = [i for i in range(len(logged.events)) if i not in used][-HELD_OUT:]
    if len(spare) < 2:
        return "waiting", None, standing
    fits, _ = fitting.calibrate(stages, [who.robot], [who.robot], since)
    gaps: dict[str, float] = {}
    for name, digest in (("before", who.calibration), ("after", fits[who.robot])):
        known = fitting.samples(stages, replace(standing, fits={who.robot: digest}), who.robot)
        seed = stages.seed("drift gap", who.robot)
        inputs = [stages.task.name, [r.log_digest for r in rows], spare, digest, seed]
        made = stages.cached("gap", 3, inputs, work.measure_gap, stages.task.name, logged, spare, known, seed)
        stages.steps["simulated"] += len(spare) * work.GAP_DRAWS * stages.length
        gaps[name] = float(json_of(stages.store, made))
    explained = gaps["after"] <= (1 - EXPLAINED) * gaps["before"]
    return ("recalibrated", gaps, since) if explained else ("maintenance", gaps, standing)


def _alarm(turn: int, found: Watched, action: str, gaps: Mapping[str, float] | None) -> dict[str, Any]:
    """An alarm as it is kept and shown."""
    text = f"{found.robot} drifts since attempt {found.since} after its calibration ({found.named()}): "
    moved = "" if gaps is None else f", gap {gaps['before']:.3g} -> {gaps['after']:.3g}"
    text += {
        "recalibrated": f"calibrated again from the attempts since then{moved}",
        "maintenance": f"a new calibration does not explain it{moved}; maintenance: look at the robot",
        "waiting": "too few attempts since then to calibrate it again; the next turn looks once more",
    }[action]
    return {
        "turn": turn, "robot": found.robot, "of": found.of, "calibration": found.calibration, "action": action,
        "since": found.since, "since_digest": found.since_digest, "stream": found.stream,
        "moved": [asdict(m) for m in found.moved], "gap": None if gaps is None else dict(gaps), "text": text,
    }  # fmt: skip
