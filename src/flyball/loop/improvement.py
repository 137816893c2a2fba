"""Improvement: demonstrations in the worlds where the robots are, and a policy trained on from the deployed one.

In: what is known of the robots. Out: digests of a policy and of its training state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import digest_of
from flyball.base.steps import json_of, step
from flyball.datagen.demonstrations import Demonstrations
from flyball.loop import work
from flyball.loop.fitting import samples
from flyball.loop.stages import Stages, Standing


def improve(stages: Stages, standing: Standing) -> tuple[str, str, int]:
    """Demonstrations where the robots are, and a policy trained on from the deployed one."""
    rng = np.random.default_rng(stages.seed("worlds", stages.number))
    return train(
        stages, stages.name, worlds(stages, standing, stages.budget.demonstrations, rng), False, standing.state
    )


def worlds(stages: Stages, standing: Standing, n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Worlds to demonstrate in: two thirds as robots are, one third mixed from several, all spread a little."""
    robots = sorted(standing.fits)
    posts = {r: samples(stages, standing, r) for r in robots}
    out: dict[str, NDArray[np.float64]] = {}
    who = rng.integers(len(robots), size=n)
    mixed = rng.random(n) < 1 / 3
    pick = rng.random(n)
    for p in stages.task.scene.parameters:
        # parameters of one thing (object., arm., start., ...) stay together: they are known only jointly
        family = digest_of([p.path.split(".")[0], stages.number])
        other = np.random.default_rng(int(family[:12], 16)).integers(len(robots), size=n)
        source = np.where(mixed, other, who)
        column = [posts[r][p.path] for r in robots]
        drawn = np.array([column[s][int(u * len(column[s]))] for s, u in zip(source, pick, strict=True)])
        unit = p.to_unit(np.clip(drawn, p.low, p.high)) + 0.03 * rng.standard_normal(n)
        out[p.path] = p.from_unit(np.clip(unit, 0, 1))
    return out


def train(
    stages: Stages, name: str, values: Mapping[str, NDArray[np.float64]], first: bool, warm: str
) -> tuple[str, str, int]:
    """Demonstrations in given worlds, then a policy.

    Args:
      name: of the training, for its seed.
      values: parameters of the worlds, path -> (n,).
      first: whether the budget of a first training applies.
      warm: digest of a training state to go on from, "" for none.

    Returns:
      Digests of policy and training state, and how many demonstrations succeeded.
    """
    config = stages.budget.first if first else stages.budget.later
    n = len(next(iter(values.values())))
    seed = stages.seed("train", name)
    stages.steps["simulated"] += n * stages.length
    stages.steps["gradient"] += config.steps

    def make() -> dict[str, Any]:
        seeds = [seed + i for i in range(n)]
        parts = np.array_split(np.arange(n), max(1, min(stages.budget.workers, n // 8)))
        with stages.stage("demonstrate", n):
            shown = Demonstrations.joined(
                stages.spread(
                    [
                        lambda rows=rows: stages.executor.submit(  # type: ignore[misc]
                            work.show,
                            stages.task.name,
                            {k: v[rows] for k, v in values.items()},
                            [seeds[i] for i in rows],
                            stages.budget.windows,
                        ).result()
                        for rows in parts
                    ]
                )
            )
        with stages.stage("train", config.steps):
            start = stages.store.get(warm) if warm else None
            made = stages.executor.submit(work.learn, stages.task.name, shown, config, seed, start).result()
        parents = [warm] if warm else []
        policy = stages.store.put(
            "policy", made.onnx, parents=parents, producer="flyball.learning.flow@1", labels=made.labels
        )
        state = stages.store.put(
            "training-state", made.state, parents=[policy.digest], producer="flyball.learning.flow@1"
        )
        return {"policy": policy.digest, "state": state.digest, "kept": shown.kept, "frames": len(shown.features)}

    inputs = {"task": stages.task.name, "values": values, "config": config, "windows": stages.budget.windows,
              "seed": seed, "warm": warm}  # fmt: skip
    made = json_of(stages.store, step(stages.store, "flyball.loop.train", 2, inputs, make))
    return made["policy"], made["state"], made["kept"]
