"""Attempts of the fleet: ordered, brought home, counted, and sorted into who is sick and whose world has changed.

In: what is deployed. Out: the turn's episodes, the first part of its row, names of robots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flyball.episodes import Episode
from flyball.evaluation.statistics import cluster_interval
from flyball.loop.fitting import outlook
from flyball.loop.stages import Stages, Standing

CLUSTER = 2
"""Failures of one kind on one robot that make a turn learn; fewer are taken for bad luck."""
COLLAPSE = (0.7, 0.6)
"""A robot that succeeded at least this often and now at most that often lives in a changed world; old logs retire."""

UNHEALED = 0.25
"""A robot that fails more often than this right after a release is looked at again.

Of eight attempts that are three: a robot that succeeds in 95 % of its attempts is then looked at for nothing after one
release in 170, one that succeeds in 60 % is found after two of three.
"""


def attempts(stages: Stages, standing: Standing, robots: Sequence[str], count: int) -> list[Episode]:
    """Robots attempt the task with the deployed release, ``count`` times each; the logs come home and are judged."""
    with stages.stage("robots", count * len(robots)):
        hour = 12 if stages.again else 0  # after the canary's attempts
        release = dict.fromkeys(robots, standing.release)
        stages.operator.order(stages.name, release, stages.number, count, hour=hour)
        stages.operator.wait(stages.name, list(robots))
    with stages.stage("ingest"):
        stages.operator.ingest()
        return stages.operator.episodes(stages.name)


def count(stages: Stages, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Success of the fleet with an interval that takes robots as clusters, and failures by what happened."""
    by_robot = {r: [e for e in episodes if e.robot == r] for r in stages.operator.robots}
    tried = {r: len(es) for r, es in by_robot.items() if es}
    won = {r: sum(e.outcome == "success" for e in es) for r, es in by_robot.items() if es}
    found = cluster_interval(list(won.values()), list(tried.values()))
    groups = Counter(e.group or e.outcome for e in episodes if e.outcome != "success")
    what = ", ".join(f"{n} {g}" for g, n in groups.most_common()) or "no failures"
    stages.display.note(
        f"turn {stages.number}: {sum(won.values())} of {sum(tried.values())} succeed "
        f"({found.mean:.0%} [{found.low:.0%}, {found.high:.0%}]); {what}"
    )
    return {
        "fleet": {
            "trials": sum(tried.values()),
            "successes": sum(won.values()),
            "success": found.mean,
            "low": found.low,
            "high": found.high,
        },
        "by_robot": {r: {"trials": tried[r], "successes": won[r]} for r in tried},
        "failures": {g: groups.get(g, 0) for g in dict.fromkeys([*stages.task.groups, *groups])},
        "success_by_robot": {r: won[r] / tried[r] for r in tried},
    }


def triage(stages: Stages, episodes: Sequence[Episode], standing: Standing) -> tuple[list[str], list[str]]:
    """Robots with a cluster of failures, and those among them whose world seems to have changed."""
    sick, changed = [], []
    for robot in stages.operator.robots:
        mine = [e for e in episodes if e.robot == robot]
        groups = Counter(e.group for e in mine if e.outcome != "success")
        if groups and max(groups.values()) >= CLUSTER:
            sick.append(robot)
            rate = sum(e.outcome == "success" for e in mine) / len(mine)
            promised = standing.success.get(robot, 0.0)
            if robot in standing.told and robot in standing.fits:
                promised = max(promised, outlook(stages, standing.fits[robot]))
            if promised >= COLLAPSE[0] and rate <= COLLAPSE[1]:
                changed.append(robot)
    if changed:
        stages.display.note(f"the world of {', '.join(changed)} seems to have changed: their old logs retire")
    return sick, changed


def known(stages: Stages, learned: Sequence[str], standing: Standing) -> list[str]:
    """Robots to learn from: once the loop learns, it must know every robot it releases to."""
    return [*learned, *(r for r in stages.operator.robots if learned and r not in learned and r not in standing.fits)]


def unhealed(episodes: Sequence[Episode], robots: Sequence[str]) -> list[str]:
    """Robots that fail in more than ``UNHEALED`` of their attempts."""
    lost = {r: [e.outcome != "success" for e in episodes if e.robot == r] for r in robots}
    return [r for r, mine in lost.items() if mine and sum(mine) > UNHEALED * len(mine)]


def unsettled(stages: Stages, episodes: Sequence[Episode]) -> dict[str, tuple[float, ...]]:
    """Robots that completed no attempt, and the nominal values that their policy is told again.

    Without one complete attempt nothing can be learned of them; what stops them may be what they were told.
    """
    mine = {r: [e.outcome for e in episodes if e.robot == r] for r in stages.operator.robots}
    stuck = [r for r, outcomes in mine.items() if outcomes and set(outcomes) == {"aborted"}]
    if stuck:
        stages.display.note(f"{', '.join(stuck)} completed no attempt and starts again from nominal values")
    nominal = stages.task.told(stages.task.scene.nominal(1))[0]
    return dict.fromkeys(stuck, tuple(float(x) for x in nominal))
