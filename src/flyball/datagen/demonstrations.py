"""Demonstrations: an expert at work in many drawn worlds, as windows to learn from.

In: a task, parameter values per world, a controller. Out: features and coded action chunks of the attempts that
succeeded. The actions that are executed are disturbed, the ones that are learned are clean: the windows show how to
come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.tasks.task import Controller, Task, Values
from flyball.tasks.world import World


@dataclass(frozen=True)
class DemonstrationConfig:
    """How demonstrations are made.

    Attributes:
      chunk: actions per window.
      disturbance: largest standard deviation of the disturbance of executed actions, as a share of each action's
        spread over the attempt; every attempt draws its own up to this.
      history: earlier observations whose features are stacked in front (0: none), for policies that must adapt.
      stride: control periods between stacked observations: what the policy executes of a chunk before it looks again.
      threads: CPU threads of the engine.
      batch: worlds simulated at once.
    """

    chunk: int = 8
    disturbance: float = 0.08
    history: int = 0
    stride: int = 1
    threads: int = 2
    batch: int = 128


@dataclass(frozen=True)
class Demonstrations:
    """Windows to learn from.

    Attributes:
      features: (N, f).
      codes: (N, chunk, b).
      attempts: simulated attempts.
      kept: how many of them succeeded and are in the windows.
    """

    features: NDArray[np.float32]
    codes: NDArray[np.float32]
    attempts: int
    kept: int

    @staticmethod
    def joined(parts: Sequence[Demonstrations]) -> Demonstrations:
        """All windows of several sets."""
        return Demonstrations(
            np.concatenate([p.features for p in parts]),
            np.concatenate([p.codes for p in parts]),
            sum(p.attempts for p in parts),
            sum(p.kept for p in parts),
        )


def demonstrate(
    task: Task,
    values: Values,
    told: NDArray[np.float64],
    seeds: Sequence[int],
    config: DemonstrationConfig,
    *,
    controller: Controller | None = None,
) -> Demonstrations:
    """Let the expert (or another controller) attempt the task in n worlds.

    Args:
      values: parameters of the worlds, path -> (n,).
      told: what expert and policy are told, (n, c).
      seeds: one per world.
      config: windows and disturbance.
      controller: batched controller for all n worlds at once; None: ``task.expert(told)``.

    Raises:
      InputError: no attempt succeeded, so there is nothing to learn.
    """
    n = len(seeds)
    parts = []
    size = n if controller is not None else min(config.batch, n)
    for first in range(0, n, size):
        rows = slice(first, min(first + size, n))
        part_values = {k: v[rows] for k, v in values.items()}
        parts.append(_batch(task, part_values, told[rows], seeds[rows], config, controller))
    out = Demonstrations.joined(parts)
    if out.kept == 0:
        raise InputError("no demonstration succeeded", where=task.name, run_next="look at the scene's parameters")
    return out


def _batch(
    task: Task, values: Values, told: NDArray[np.float64], seeds: Sequence[int], config: DemonstrationConfig,
    controller: Controller | None,
) -> Demonstrations:  # fmt: skip
    n = len(seeds)
    world = World(task, n, threads=config.threads)
    act = controller or task.expert(told)
    low, high = task.embodiment.action_limits()
    rngs = [np.random.default_rng([int(s), 1]) for s in seeds]  # one per world: the same in any batch
    strength = config.disturbance * np.array([[r.random() * (r.random() < 0.8)] for r in rngs])
    kicks = np.stack([r.standard_normal((world.steps, len(low))) for r in rngs], axis=1)
    observation = world.reset(values, seeds)
    observations, clean, sent = [], [], []
    drift = np.zeros((n, len(low)))
    reach = np.full((n, len(low)), 0.0)
    for kick in kicks:
        action = np.clip(act(observation), low, high)
        observations.append(observation)
        clean.append(action)
        if len(clean) > 1:
            reach = np.maximum(reach, np.abs(action - clean[0]))
        drift = 0.7 * drift + 0.7 * kick
        disturbed = np.clip(action + strength * drift * np.minimum(reach, 0.25), low, high)
        observation = world.step(disturbed)
        sent.append(disturbed)
    signals = {name: np.stack([o[name] for o in observations], axis=1) for name in observations[0]}
    good = np.array([task.judge({k: x[i] for k, x in signals.items()}, [e for _, e in world.events[i]]).outcome
                     == "success" for i in range(n)])  # fmt: skip
    labels = np.stack(clean, axis=1)
    labels = np.concatenate([labels, np.repeat(labels[:, -1:], config.chunk - 1, axis=1)], axis=1)
    seen = [task.features(o, told)[good] for o in observations]
    features, codes = [], []
    for k, o in enumerate(observations):
        # as a policy sees it that looks every ``stride`` periods; its first observation repeats before the attempt
        past = [max(k - j * config.stride, k % config.stride) for j in range(config.history, -1, -1)]
        features.append(np.concatenate([seen[i] for i in past], axis=1))
        codes.append(task.encode(o, told, labels[:, k : k + config.chunk])[good])
    return Demonstrations(
        np.concatenate(features).astype(np.float32),
        np.concatenate(codes).astype(np.float32),
        n,
        int(good.sum()),
    )
