"""Between episodes and attempts. In: episodes of the catalogue. Out: arrays for tasks to judge and to replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flyball.base import Missing
from flyball.episodes import Episode, Outcome
from flyball.tasks import Task, tasks
from flyball.tasks.world import Attempts


def judge(episode: Episode) -> tuple[Outcome, str, dict[str, Any]]:
    """The verdict of the episode's own task on its logged signals: outcome, group, labels. For ``ingest``."""
    try:
        task: Task = tasks.load(episode.task)
    except Missing:
        return episode.outcome, episode.group, {}
    if any(e.name == "supervisor.stop" for e in episode.events):
        return "aborted", "stopped", {}
    names = [s.name for s in task.embodiment.observations]
    found = task.judge({n: episode.signal(n).values for n in names}, [e.name for e in episode.events])
    return found.outcome, found.group, {"progress": round(found.progress, 4)}


def attempts_of(task: Task, episodes: Sequence[Episode]) -> Attempts:
    """The complete ones among some episodes, as arrays; an attempt that was stopped early is left out."""
    steps = round(task.horizon_s * task.control_hz)
    names = [s.name for s in (*task.embodiment.observations, *task.embodiment.actions)]
    whole = [e for e in episodes if all(len(e.signal(n).t_ns) == steps for n in names)]
    signals = {
        n: np.stack([e.signal(n).values.reshape(steps, -1).astype(float) for e in whole])
        if whole
        else np.zeros((0, steps, 1))
        for n in names
    }
    start = [int(e.signal(names[0]).t_ns[0]) for e in whole]
    events = [[((v.t_ns - t0) * 1e-9, v.name) for v in e.events] for e, t0 in zip(whole, start, strict=True)]
    return Attempts(signals, events)
