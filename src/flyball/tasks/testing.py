"""The contract test of ``Task``.

In: a task. Out: assertions: its declarations agree with each other and with the simulated cell, everything random comes
from seeds, a judgement is the same on simulated and on logged signals, and the informed expert solves what it draws.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyball.engines import engines
from flyball.episodes.formats import read_one
from flyball.episodes.recorder import Recorder
from flyball.scenes import Parameter
from flyball.scenes.targets import EFFECTS, ENGINE_KINDS
from flyball.tasks.task import Task, Values
from flyball.tasks.world import Attempts, World

_TARGET = re.compile(
    rf"({'|'.join(ENGINE_KINDS)}):.+|sensor:.+\.({'|'.join(EFFECTS)})|command\.(delay|play)|event:.+\.threshold|start:.+"
)


def check_task(task: Task, *, draws: int = 32, least: float = 0.95, seed: int = 0) -> Attempts:
    """Assert that a task keeps the contract of ``Task``; three lines prove a new one.

    Args:
      task: the task.
      draws: realities that the informed expert attempts.
      least: share of them that it must solve.
      seed: draws realities and attempts.

    Returns:
      The informed expert's attempts, for further checks.
    """
    check_declarations(task)
    drawn = check_draws(task, draws, seed)
    values = task.scene.nominal(draws) | drawn
    seeds = [seed + k for k in range(draws)]
    attempts = World(task, draws).run(task.expert(task.told(values)), values, seeds)
    check_world_independence(task, attempts, seeds)
    check_judgement(task, attempts)
    check_start_seen(task, attempts, seeds)
    check_policy_side(task, attempts)
    check_calibration_side(task, attempts)
    judged = attempts.judge(task)
    solved = sum(j.outcome == "success" for j in judged) / draws
    failed = sorted(j.group for j in judged if j.group)
    assert solved >= least, f"the informed expert solves {solved:.2f} of its realities, {least:.2f} asked; {failed}"
    return attempts


def check_declarations(task: Task) -> None:
    """Names, widths, rates and parameters agree with each other and with what the engine can do."""
    assert re.fullmatch(r"[a-z0-9-]+-v\d+", task.name), f"{task.name}: a task's name is name-vN"
    steps = task.horizon_s * task.control_hz
    assert abs(steps - round(steps)) < 1e-9, "the horizon is a whole number of control periods"
    assert task.groups and len(set(task.groups)) == len(task.groups)
    signals = {s.name: s for s in task.embodiment.observations}
    assert set(task.noise) <= set(signals), "noise is declared for signals that are observed"
    for name, std in task.noise.items():
        assert len(std) == signals[name].size and min(std) >= 0, f"noise of {name}"
    paths = [p.path for p in task.scene.parameters]
    assert len(set(paths)) == len(paths), "parameters have unique paths"
    settable = engines.load("mujoco")().open(task.scene, 1, threads=1)
    for p in task.scene.parameters:
        assert p.low <= p.nominal <= p.high and (p.scale != "log" or p.low > 0), f"{p.path}: range"
        assert p.binds and p.text, f"{p.path}: says what it does"
        for b in p.binds:
            assert _TARGET.fullmatch(b.target), f"{p.path}: {b.target} is no known kind of target"
            kind, _, rest = b.target.partition(":")
            if kind in ENGINE_KINDS:
                settable.get(b.target)
            elif kind == "sensor":
                assert b.index < signals[rest.rpartition(".")[0]].size, f"{p.path}: {b.target}[{b.index}]"
            elif kind == "event":
                assert rest.removesuffix(".threshold") in {r.name for r in task.event_rules}, f"{p.path}: {b.target}"
    nominal = task.scene.nominal(3)
    waiting = task.rest_action(nominal)
    low, high = task.embodiment.action_limits()
    fits = waiting.shape == (3, task.embodiment.action_size) and bool(((low <= waiting) & (waiting <= high)).all())
    assert fits, "rest_action lies within the action's limits"
    assert task.told(nominal).shape == (3, len(task.conditioning)), "told gives the values of conditioning"
    for d in task.derived:
        assert np.isfinite(d.of(nominal)).all() and d.of(nominal).shape == (3,), f"derived {d.path}"


def check_draws(task: Task, n: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Drawn realities lie within the parameters' ranges and come from the generator alone; returns them."""
    drawn = task.draw_reality(np.random.default_rng(seed), n)
    again = task.draw_reality(np.random.default_rng(seed), n)
    for path, x in drawn.items():
        assert x.shape == (n,) and (x == again[path]).all(), f"{path}: equal seeds draw equal realities"
        for v in x:
            task.scene.check(path, float(v), where=f"draw_reality of {task.name}")
    weights = task.plausible(task.scene.nominal(n) | drawn)
    fits = weights.shape == (n,) and bool(((weights >= 0) & (weights <= 1)).all())
    assert fits and weights.mean() > 0.5, "what the task draws it calls plausible, with weights (n,) from 0 to 1"
    return drawn


def check_world_independence(task: Task, attempts: Attempts, seeds: list[int]) -> None:
    """World i depends on its own parameters and seed alone: alone, it gives the same bits as in the batch."""
    for i in (0, len(seeds) // 2):
        values = _rows(attempts.values, i)
        alone = World(task, 1).run(task.expert(task.told(values)), values, [seeds[i]])
        for name, x in attempts.signals.items():
            assert (alone.signals[name][0] == x[i]).all(), f"{name} of world {i} depends on the batch it runs in"
        assert list(alone.events[0]) == list(attempts.events[i])


def check_judgement(task: Task, attempts: Attempts) -> None:
    """Judgements agree on simulated and on logged signals, and stand on attempts that were cut short."""
    before = attempts.judge(task)
    for j in before:
        assert 0 <= j.progress <= 1
        assert j.group in task.groups if j.outcome == "failure" else j.group == ""
    for i in (0, len(before) - 1):
        signals, events = attempts.one(i), [e for _, e in attempts.events[i]]
        assert task.judge(*_through_a_log(task, signals, events)) == before[i], "logged signals are judged differently"
        for length in (1, 2, 7, 20):
            short = task.judge({k: x[:length] for k, x in signals.items()}, events)
            assert short.outcome != "success" and 0 <= short.progress <= 1, f"{length} samples are judged {short}"


def check_start_seen(task: Task, attempts: Attempts, seeds: list[int], within: float = 0.06) -> None:
    """``starts`` comes from the seeds; ``seen_starts`` finds it again in the logs, to ``within`` [m or rad]."""

    def draw() -> dict[str, NDArray[np.float64]]:
        return task.starts(attempts.values, [np.random.Generator(np.random.Philox(key=s)) for s in seeds])

    true, seen = draw(), task.seen_starts(attempts.signals, attempts.values)
    assert all((x == draw()[joint]).all() for joint, x in true.items()), "starts come from the seeds alone"
    assert any(np.ptp(x, axis=0).max() > 1e-6 for x in true.values()), "attempts start differently"
    for joint, x in seen.items():
        off = np.abs(x - true[joint]).max()
        assert off < within, f"seen_starts puts {joint} {off:.3f} off"


def check_policy_side(task: Task, attempts: Attempts) -> None:
    """What a policy is told, sees and says: widths, finiteness, inverse of the coding, nothing modified in place."""
    told = task.told(attempts.values)
    actions = np.concatenate([attempts.signals[s.name] for s in task.embodiment.actions], axis=-1)
    h = 8
    for k in range(0, actions.shape[1] - h, 9):
        observation = {s.name: attempts.signals[s.name][:, k].copy() for s in task.embodiment.observations}
        kept = {name: x.copy() for name, x in observation.items()}
        seen = task.features(observation, told)
        assert seen.ndim == 2 and len(seen) == len(told) and np.isfinite(seen).all(), "features"
        assert np.abs(seen).max() < 30, f"feature {int(np.abs(seen).max(axis=0).argmax())} is not of about unit size"
        one = task.features({name: x[:1] for name, x in observation.items()}, told[:1])
        np.testing.assert_allclose(one, seen[:1], rtol=0, atol=1e-12, err_msg="features of a world depend on the batch")
        chunk = actions[:, k : k + h]
        back = task.decode(observation, told, task.encode(observation, told, chunk))
        np.testing.assert_allclose(back, chunk, rtol=0, atol=1e-9, err_msg="decode is not the inverse of encode")
        task.expert(told)(observation)
        assert all((x == kept[name]).all() for name, x in observation.items()), "an observation was modified"
    for i in range(min(4, len(told))):
        certain = task.tell({path: np.repeat(x[i], 5) for path, x in attempts.values.items()})
        np.testing.assert_allclose(certain, told[i], rtol=0.1, atol=1e-9, err_msg="tell of certain samples is not told")


def check_calibration_side(task: Task, attempts: Attempts) -> None:
    """Summaries are finite and each attempt's own; what logs show directly lies within the parameters' ranges."""
    actions = np.concatenate([attempts.signals[s.name] for s in task.embodiment.actions], axis=-1)
    whole = task.summaries(attempts.signals, actions)
    part = task.summaries({k: x[1:3] for k, x in attempts.signals.items()}, actions[1:3])
    for x, y in zip(whole, part, strict=True):
        assert x.ndim == 2 and len(x) == len(actions) and np.isfinite(x).all(), "summaries"
        np.testing.assert_allclose(y, x[1:3], rtol=0, atol=1e-9, err_msg="summaries of an attempt depend on the others")
    m = 16
    samples = {path: np.repeat(x[0], m) for path, x in attempts.values.items()}
    one = {k: x[:1] for k, x in attempts.signals.items()}
    for path, x in task.observed(one, samples, np.random.default_rng(0)).items():
        p: Parameter = task.scene.parameter(path)
        assert x.shape == (m,) and ((p.low <= x) & (x <= p.high)).all(), f"observed {path}"


def _rows(values: Values, i: int) -> dict[str, NDArray[np.float64]]:
    return {path: x[i : i + 1] for path, x in values.items()}


def _through_a_log(
    task: Task, signals: dict[str, NDArray[np.float64]], events: list[str]
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Signals and events of one attempt, recorded and read back."""
    period_ns = round(1e9 / task.control_hz)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attempt.mcap"
        with Recorder(path, task.embodiment, {"task": task.name}) as recorder:
            for name, x in signals.items():
                for k, row in enumerate(x):
                    recorder.write(name, (k + 1) * period_ns, row)
            for name in events:
                recorder.event(period_ns, name)
        episode = read_one(path)
    return {name: s.values for name, s in episode.signals.items()}, [e.name for e in episode.events]
