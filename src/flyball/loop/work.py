"""Work that a turn spreads over processes. In: names, arrays and settings that can be pickled. Out: plain data.

Each function is one step of the step cache; it knows nothing of the workspace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.fleet import Fitted, ReplayConfig, fit_robot, pick
from flyball.calibration.reproduction import gap, reproduce
from flyball.calibration.residual import attempt_residuals, replay_errors
from flyball.datagen.demonstrations import DemonstrationConfig, Demonstrations, demonstrate
from flyball.learning.flow import FlowConfig, train
from flyball.learning.recipe import TrainedPolicy
from flyball.policies.batched import Batched
from flyball.policies.learned import LearnedPolicy
from flyball.tasks import Task, tasks
from flyball.tasks.world import Attempts, World

GAP_DRAWS = 8
OUTLOOK_TRIALS = 16


def fit(task_name: str, logged: Attempts, config: ReplayConfig, seed: int, start: Fitted | None) -> dict[str, Any]:
    """Calibrate one robot; also the gap on attempts that were not fitted, with nominal and with fitted parameters."""
    task: Task = tasks.load(task_name)
    fitted = fit_robot(task, logged, config, seed=seed, start=start)
    used = set(pick(logged, task, max(config.attempts)).tolist())
    held_out = [i for i in range(len(logged.events)) if i not in used][:2]
    before = gap(task, logged, held_out, task.scene.nominal(1), 1, seed=seed) if held_out else float("nan")
    after = gap(task, logged, held_out, fitted.values(), GAP_DRAWS, seed=seed) if held_out else float("nan")
    outlook = _outlook(task, fitted, seed)
    replays = fitted.replays + OUTLOOK_TRIALS + len(held_out) * (1 + GAP_DRAWS)
    return {
        "paths": list(fitted.paths),
        "samples": np.round(fitted.samples, 7).tolist(),
        "replays": replays,
        "outlook": outlook,
        "held_out": {"attempts": len(held_out), "before": before, "after": after},
    }


def _outlook(task: Task, fitted: Fitted, seed: int) -> float:
    """Success of the expert, told this calibration, in worlds drawn from it; low when logs contradict each other."""
    n, rng = OUTLOOK_TRIALS, np.random.default_rng(seed)
    samples = task.scene.nominal(len(fitted.samples)) | fitted.values()
    rows = rng.integers(len(fitted.samples), size=n)
    values = {k: v[rows] for k, v in samples.items()}
    told = np.repeat(task.tell(samples)[None], n, axis=0)
    done = World(task, n).run(task.expert(told), values, rng.integers(2**62, size=n).tolist())
    return float(np.mean([j.outcome == "success" for j in done.judge(task)]))


def fitted_from(data: Mapping[str, Any]) -> Fitted:
    """The fit within ``fit``'s result."""
    return Fitted(tuple(data["paths"]), np.array(data["samples"], float), int(data["replays"]))


def measure_gap(
    task_name: str, logged: Attempts, which: Sequence[int], samples: Mapping[str, NDArray], seed: int
) -> float:
    """Gap of some attempts under samples (m,)."""
    return gap(tasks.load(task_name), logged, which, samples, GAP_DRAWS, seed=seed)


def residuals(task_name: str, logged: Attempts, fitted: Mapping[str, Any], regimes: Sequence[str]) -> list[list[float]]:
    """What attempts say about a calibrated robot, for the drift test; see ``calibration.residual``."""
    task: Task = tasks.load(task_name)
    found = attempt_residuals(task, fitted_from(fitted), logged, regimes=regimes)
    return [r.values.tolist() for r in found]


def compare_replays(task_name: str, logged: Attempts, fits: Sequence[Mapping[str, Any]]) -> list[float]:
    """Error of each calibration's replays of some attempts: geometric mean, in deviations of the sensors."""
    found = replay_errors(tasks.load(task_name), [fitted_from(f) for f in fits], logged)
    return np.exp(np.log(found).mean(axis=1)).tolist()


def replay_failures(
    task_name: str, logged: Attempts, which: Sequence[int], samples: Mapping[str, NDArray], draws: int, seed: int
) -> list[float]:
    """Per failure, the share of posterior draws that end the same way."""
    return reproduce(tasks.load(task_name), logged, which, samples, draws, seed=seed).tolist()


def show(
    task_name: str, values: Mapping[str, NDArray], seeds: Sequence[int], config: DemonstrationConfig
) -> Demonstrations:
    """Demonstrations of the informed expert in given worlds."""
    task: Task = tasks.load(task_name)
    full = task.scene.nominal(len(seeds)) | dict(values)
    return demonstrate(task, full, task.told(full), seeds, config)


def learn(task_name: str, shown: Demonstrations, config: FlowConfig, seed: int, warm: bytes | None) -> TrainedPolicy:
    """Train a policy."""
    task: Task = tasks.load(task_name)
    return train(
        shown.features,
        shown.codes,
        config,
        seed=seed,
        told=task.conditioning,
        spec_hash=task.embodiment.spec_hash(),
        warm_start=warm,
    )


def trials(
    task_name: str, policy: bytes, told: NDArray, values: Mapping[str, NDArray], seeds: Sequence[int], execute: int
) -> list[dict[str, Any]]:
    """Simulated trials of a policy: outcome, group and progress of each."""
    task: Task = tasks.load(task_name)
    learned = LearnedPolicy.load(policy, task, told)
    learned.reset(task.instruction, int(seeds[0]))
    done = World(task, len(seeds)).run(Batched(learned, execute), values, seeds)
    return [{"outcome": j.outcome, "group": j.group, "progress": j.progress} for j in done.judge(task)]
