"""Calibration of the fleet: how far off the scene is, fits per robot, failures replayed in the fitted scenes.

In: episodes. Out: calibrations (by digest) in the standing, gaps, and how many failures came back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base.steps import json_of
from flyball.calibration.fleet import Fitted
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue, EpisodeRow
from flyball.loop import work
from flyball.loop.logs import attempts_of
from flyball.loop.stages import Stages, Standing
from flyball.tasks.world import Attempts

REPRODUCED = 0.5
"""A failure is reproduced when more than this share of posterior draws ends in the same way."""
OUTLOOK = 0.6
"""A calibration that promises less success than this is suspected to mix logs of two different worlds."""


def gap(stages: Stages, episodes: Sequence[Episode], standing: Standing) -> float | None:
    """How well fresh logs are predicted by what was known before them; see ``calibration.reproduction.gap``.

    None when no attempt was completed.
    """
    with stages.stage("gap", len(stages.operator.robots)):
        jobs = []
        for robot in stages.operator.robots:
            mine = [e for e in episodes if e.robot == robot][:3]
            logged = attempts_of(stages.task, mine)
            if not logged.events:
                continue
            known = samples(stages, standing, robot)
            stages.steps["simulated"] += len(mine) * work.GAP_DRAWS * stages.length
            inputs = [stages.task.name, [e.log_digest for e in mine], standing.fits.get(robot, ""), stages.seed("gap")]
            args = (stages.task.name, logged, range(len(logged.events)), known, stages.seed("gap"))
            jobs.append(lambda i=inputs, a=args: stages.cached("gap", 3, i, work.measure_gap, *a))
        found = [float(json_of(stages.store, a)) for a in stages.spread(jobs)]
    return _finite(np.mean(found)) if found else None


def calibrate(
    stages: Stages, robots: Sequence[str], changed: Sequence[str], standing: Standing
) -> tuple[dict[str, str], dict[str, float | None]]:
    """Fit robots to their logs; robot -> digest of its calibration, and the mean held-out gap before and after."""
    with stages.stage("calibrate", len(robots)):
        jobs, known = [], []
        for robot in robots:
            rows, logged = logs_of(stages, robot, standing)
            if not logged.events:
                stages.display.note(f"{robot} has no complete attempt to learn from")
                continue
            known.append(robot)
            before = standing.fits.get(robot, "") if robot not in changed else ""
            start = work.fitted_from(json_of(stages.store, stages.store.artifact(before))) if before else None
            seed = stages.seed("calibrate", stages.number, robot, *stages.looks[1:])
            inputs = [stages.task.name, [r.log_digest for r in rows], stages.budget.replay, seed, before]
            args = (stages.task.name, logged, stages.budget.replay, seed, start)
            jobs.append(lambda i=inputs, a=args: stages.cached("calibrate", 3, i, work.fit, *a, kind="calibration"))
        made = stages.spread(jobs)
    out, held = {}, []
    for robot, artifact in zip(known, made, strict=True):
        data = json_of(stages.store, artifact)
        out[robot] = artifact.digest
        stages.steps["simulated"] += data["replays"] * stages.length
        held.append((data["held_out"]["before"], data["held_out"]["after"]))
    before_after = np.nanmean(np.array(held), axis=0) if held else (float("nan"),) * 2
    stages.display.note(f"turn {stages.number}: {len(robots)} robots calibrated; "
                      f"held-out gap {before_after[0]:.3f} -> {before_after[1]:.3f}")  # fmt: skip
    return out, {"before": _finite(before_after[0]), "after": _finite(before_after[1])}


def logs_of(stages: Stages, robot: str, standing: Standing) -> tuple[list[EpisodeRow], Attempts]:
    """Logs that describe the robot as it is now, and the youngest complete attempts among them."""
    # a turn that is resumed must read what it read before: not the canary's logs, which came after
    orders = ", ".join(f"'{name}'" for name in stages.looks)
    where = (
        f"robot = '{robot}' AND task = '{stages.task.name}' AND labels.turn >= {standing.since[robot]}"
        f" AND (labels.turn < {stages.number} OR labels.order IN ({orders}))"
    )
    if robot in standing.from_ns:
        where += f" AND start_ns >= {standing.from_ns[robot]}"
    catalogue = Catalogue(stages.store)
    rows = catalogue.query(where, order="start_ns")
    return rows, attempts_of(stages.task, [catalogue.load(r.digest) for r in rows][-64:])


def samples(stages: Stages, standing: Standing, robot: str) -> dict[str, NDArray[np.float64]]:
    """Joint samples of a robot's parameters; nominal values before its first calibration."""
    digest = standing.fits.get(robot, "")
    if not digest:
        return stages.task.scene.nominal(1)
    fitted: Fitted = work.fitted_from(json_of(stages.store, stages.store.artifact(digest)))
    values = fitted.values()
    return stages.task.scene.nominal(len(fitted.samples)) | values


def outlook(stages: Stages, fit: str) -> float:
    """How often an expert told this calibration succeeds in worlds drawn from it."""
    return float(json_of(stages.store, stages.store.artifact(fit))["outlook"])


def tell(stages: Stages, standing: Standing, robot: str) -> tuple[float, ...]:
    """What a release tells the policy about a robot."""
    return tuple(float(x) for x in stages.task.tell(samples(stages, standing, robot)))


def reproduce(stages: Stages, episodes: Sequence[Episode], standing: Standing) -> dict[str, list[float]]:
    """Replay this turn's failures in the calibrated scenes; robot -> per failure, the share of draws that agree."""
    failed = {r: [e for e in episodes if e.robot == r and e.outcome == "failure"] for r in standing.fits}
    failed = {r: es for r, es in failed.items() if es}
    with stages.stage("reproduce", len(failed)):
        jobs = []
        for robot, mine in failed.items():
            logged = attempts_of(stages.task, mine)
            stages.steps["simulated"] += len(mine) * stages.budget.reproductions * stages.length
            seed = stages.seed("reproduce", stages.number, robot)
            inputs = [
                stages.task.name,
                [e.log_digest for e in mine],
                standing.fits[robot],
                stages.budget.reproductions,
                seed,
            ]
            args = (stages.task.name, logged, range(len(logged.events)), samples(stages, standing, robot),
                    stages.budget.reproductions, seed)  # fmt: skip
            jobs.append(lambda i=inputs, a=args: stages.cached("reproduce", 1, i, work.replay_failures, *a))
        shares = {r: list(json_of(stages.store, a)) for r, a in zip(failed, stages.spread(jobs), strict=True)}
    found = counted(shares)
    stages.display.note(
        f"turn {stages.number}: {found['n']} of {found['of']} failures reproduced in the calibrated scenes"
    )
    return shares


def counted(shares: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """How many failures came back (``n``), ``of`` how many."""
    flat = [share for mine in shares.values() for share in mine]
    return {"n": sum(share > REPRODUCED for share in flat), "of": len(flat)}


def doubt(
    stages: Stages, fits: Mapping[str, str], shares: Mapping[str, Sequence[float]], standing: Standing
) -> dict[str, str]:
    """Robots whose fresh fits to old and new logs do not hold, fitted once more to the new logs alone.

    Where the new logs alone promise no more, nothing is gained by forgetting, and the robot is left out.

    Returns:
      Robot -> digest of its calibration.
    """
    suspects = [
        r
        for r in fits
        if standing.since[r] < stages.number
        and (np.mean(shares.get(r, [1.0])) <= REPRODUCED or outlook(stages, fits[r]) < OUTLOOK)
    ]
    if not suspects:
        return {}
    alone = replace(standing, since={**standing.since, **dict.fromkeys(suspects, stages.number)})
    again, _ = calibrate(stages, suspects, suspects, alone)
    again = {r: d for r, d in again.items() if outlook(stages, d) >= outlook(stages, fits[r])}
    if again:
        stages.display.note(f"old and new logs of {', '.join(again)} contradict each other: the old ones retire")
    return again


def _finite(x: Any) -> float | None:
    """A number as JSON has it: None for what is not one."""
    return float(x) if np.isfinite(x) else None
