"""Logged attempts replayed in a calibrated scene: how far apart, and do the failures come back?

In: a task, logged attempts, joint samples of the parameters. Out: the gap between simulation and robot, and per failure
the share of replays that fail in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.tasks import Task
from flyball.tasks.task import Values
from flyball.tasks.world import Attempts, World


def gap(task: Task, logged: Attempts, which: Sequence[int], samples: Values, draws: int, *, seed: int) -> float:
    """Simulation-to-robot gap: how far replays of the logged commands are from the logs.

    For every signal, the root mean square difference over all its elements, over the spread that the signal has in an
    expert's nominal attempt, at most 1; the mean over observation signals, attempts and posterior draws. 0 is a perfect
    copy, sensor noise sets the floor, 1 has nothing in common with what happened.

    Args:
      samples: joint samples, path -> (m,).
      which: rows of ``logged`` that are replayed.
      draws: posterior draws per attempt.
    """
    rng = np.random.default_rng(seed)
    world = World(task, draws)
    nominal = task.scene.nominal(1)
    usual = World(task, 1).run(task.expert(task.told(nominal)), nominal, [0])
    errors = []
    for i in which:
        values = _drawn(task, logged, samples, draws, rng)
        replayed, real = _replay(task, world, logged, i, values, None)
        for spec in task.embodiment.observations:
            x, y = replayed.signals[spec.name], real[spec.name][0]
            spread = np.sqrt(usual.signals[spec.name][0].var(axis=0).sum())
            errors.append(np.minimum(np.sqrt(((x - y) ** 2).sum(axis=2).mean(axis=1)) / spread, 1.0))
    return float(np.mean([e.mean() for e in errors]))


def reproduce(
    task: Task, logged: Attempts, which: Sequence[int], samples: Values, draws: int, *, seed: int
) -> NDArray[np.float64]:
    """Share of posterior draws in which an attempt ends as it was logged: same outcome and same group.

    Returns:
      One share per row of ``which``.
    """
    rng = np.random.default_rng(seed)
    world = World(task, draws)
    judged = logged.judge(task)
    shares = []
    for i in which:
        values = _drawn(task, logged, samples, draws, rng)
        replayed, _ = _replay(task, world, logged, i, values, rng.integers(2**62, size=draws).tolist())
        same = [(j.outcome, j.group) == (judged[i].outcome, judged[i].group) for j in replayed.judge(task)]
        shares.append(float(np.mean(same)))
    return np.array(shares)


def _drawn(task: Task, logged: Attempts, samples: Values, n: int, rng: np.random.Generator) -> Values:
    rows = rng.integers(len(next(iter(samples.values()))), size=n)
    return task.scene.nominal(n) | {k: np.asarray(v)[rows] for k, v in samples.items()}


def _replay(
    task: Task, world: World, logged: Attempts, i: int, values: Values, seeds: list[int] | None
) -> tuple[Attempts, dict[str, NDArray[np.float64]]]:
    real = {k: x[i : i + 1] for k, x in logged.signals.items()}
    n = world.n
    tiled = {k: np.repeat(x, n, axis=0) for k, x in real.items()}
    actions = np.concatenate([tiled[s.name] for s in task.embodiment.actions], axis=-1)
    return world.replay(values, actions, task.seen_starts(tiled, values), seeds=seeds), real
