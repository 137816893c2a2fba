"""``flyball demo``: turns on a virtual fleet.

In: a ``DemoConfig``. Out: one JSON-able document. The hidden physics are written to, or checked in, a reality file by a
process of their own; only the robots' processes read it. It is revealed here after the last turn, for the document.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, digest_of
from flyball.base.workspace import Workspace
from flyball.calibration.calibration import IDENTIFIED, describe
from flyball.evaluation.report import locked_environment
from flyball.fleet.launch import Fleet, RobotSpec
from flyball.loop import controls
from flyball.loop.config import DemoConfig
from flyball.loop.executors import LocalExecutor
from flyball.loop.fitting import samples
from flyball.loop.improvement import train
from flyball.loop.operate import Operator
from flyball.loop.stages import Display, Stages, Standing, standing_from
from flyball.loop.turn import Turn
from flyball.tasks import Task, tasks


def run_demo(config: DemoConfig, display: Display) -> dict[str, Any]:
    """Run the turns; the same command again goes on where it was killed.

    Raises:
      InputError: a bad reality file, an unknown task or control, a workspace of another run.
    """
    began = time.monotonic()
    task: Task = tasks.load(config.task)
    if config.control is not None:
        controls.check(task, config.control)
    workspace = Workspace(config.workspace)
    executor = LocalExecutor(config.budget.workers)
    try:
        with _stage(display, "prepare"):
            reality, robots, warnings = _hidden(config, workspace, executor)
        for text in warnings:
            display.note(f"warning: {text}")
        specs = [RobotSpec(r, "virtual", {"reality": str(reality), "task": task.name}) for r in robots]
        with Fleet(workspace.path, specs, poll_s=0.05) as fleet:
            operator = Operator(workspace, fleet, task, display.note, display.at)
            rows, standing, first = _turns(config, operator, executor, display)
        truth = executor.submit(_reveal, str(reality), task.name, config.turns - 1).result()
    finally:
        executor.shutdown()
    shown = Turn(config, operator, executor, display)
    return {
        "task": task.name,
        "control": config.control,
        "seed": config.seed,
        "robots": robots,
        "turns": rows,
        "parameters": _parameters(task, shown, standing, truth),
        "rollout": [
            {"turn": e["turn"], "event": e["kind"] + (f": {e['text']}" if e["text"] else ""),
             "robots": [e["robot"]] if e["robot"] else robots, "t": i}
            for i, e in enumerate(e for row in rows for e in row.get("rollout", []))
        ],
        "steps": {k: first[k] + sum(r["steps"][k] for r in rows) for k in ("simulated", "gradient")},
        "seconds": round(time.monotonic() - began, 1),
        "gap_text": "Replays of fresh logs under what was known before them differ from the logs by",
        "gap_unit": "of each signal's usual spread",
        "warnings": warnings,
        "environment": locked_environment(),
    }  # fmt: skip


def _turns(
    config: DemoConfig, operator: Operator, executor: LocalExecutor, display: Display
) -> tuple[list[dict[str, Any]], Standing, dict[str, int]]:
    store = operator.workspace.store
    kept = store.row("turn", "first")
    if kept is None:
        first = Stages(config, operator, executor, display)
        standing = controls.commission(first, config.control) if config.control else _commission(first)
        kept = {"standing": asdict(standing), "steps": first.steps}
        store.put_row("turn", "first", json.loads(json.dumps(kept)))
    standing, steps = standing_from(kept["standing"]), kept["steps"]
    rows = []
    for number in range(config.turns):
        key = f"{number:03d}"
        kept = store.row("turn", key)
        if kept is None:
            row, standing = _turn(config, operator, executor, display).run(number, standing)
            kept = {"row": row, "standing": asdict(standing)}
            store.put_row("turn", key, json.loads(json.dumps(kept)))
        standing = standing_from(kept["standing"])
        rows.append(kept["row"])
    return rows, standing, steps


def _turn(config: DemoConfig, operator: Operator, executor: LocalExecutor, display: Display) -> Turn:
    if config.control is None:
        return Turn(config, operator, executor, display)
    reality = operator.workspace.path / "hidden" / "reality.json"
    return controls.ControlTurn(config, operator, executor, display, reality=str(reality))


def _commission(stages: Stages) -> Standing:
    """The first policy, trained on the nominal scene alone, on every robot."""
    task, budget = stages.task, stages.budget
    values = task.scene.nominal(budget.demonstrations)
    policy, state, _ = train(stages, "first", values, True, "")
    name = "first"
    told = stages.calibrations_file({"*": [float(x) for x in task.told(task.scene.nominal(1))[0]]})
    files = {"policy.onnx": stages.store.get(policy), "calibrations.json": told}
    stages.operator.publish(name, files, (), execute=budget.execute)
    with stages.stage("install"):
        stages.operator.install("install-first", name, 0)
    return Standing(name, policy, state)


def _hidden(config: DemoConfig, workspace: Workspace, executor: LocalExecutor) -> tuple[Path, list[str], list[str]]:
    """Where the reality file is, the robots' names and warnings; drawn or checked in a process of its own."""
    path = workspace.path / "hidden" / "reality.json"
    run = {k: v for k, v in asdict(config).items() if k not in ("workspace", "turns", "reality", "budget")}
    run["budget"] = digest_of(config.budget)
    run["reality"] = executor.submit(_digest, str(config.reality)).result() if config.reality else ""
    kept = workspace.store.row("demo", "config")
    if kept is not None and kept["run"] != json.loads(json.dumps(run)):
        differs = ", ".join(k for k in run if kept["run"].get(k) != run[k])
        raise InputError(
            f"the workspace holds another run (other {differs})", where=str(workspace.path),
            run_next="another --workspace, or the command it was made with",
        )  # fmt: skip
    if kept is None:
        source = str(config.reality) if config.reality else ""
        names, warnings = executor.submit(
            _hide, source, str(path), config.task, config.seed, config.robots, config.turns
        ).result()
        kept = {"run": run, "robots": names, "warnings": warnings}
        workspace.store.put_row("demo", "config", kept)
    return path, list(kept["robots"]), list(kept["warnings"])


def _digest(path: str) -> str:
    """Digest of a reality file, taken in a worker: the loop's own process never opens one."""
    try:
        return digest_of(Path(path).read_bytes())
    except OSError:
        return ""  # what is wrong with it is said where it is loaded


def _hide(source: str, path: str, task_name: str, seed: int, robots: int, turns: int) -> tuple[list[str], list[str]]:
    """Draw or check the reality and put it where the robots find it; what leaves is names and ceilings."""
    from flyball.tasks import reality

    task: Task = tasks.load(task_name)
    found = reality.load_reality(source, task) if source else reality.draw_reality(task, seed, robots, turns)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    reality.save_reality(found, path)
    warnings = []
    if source:
        for robot in found.robots:
            for turn in sorted({0, *(c.turn for c in robot.changes if c.turn < turns)}):
                rate = reality.ceiling(task, robot, turn, 24)
                if rate < 0.9:
                    warnings.append(
                        f"{robot.name} at turn {turn}: even the informed expert succeeds only in {rate:.0%} of attempts"
                    )
    return [r.name for r in found.robots], warnings


def _reveal(path: str, task_name: str, turn: int) -> dict[str, dict[str, float]]:
    """The truth, after the last turn: robot -> parameter -> value."""
    from flyball.tasks import reality

    found = reality.load_reality(path, tasks.load(task_name))
    return {r.name: found.at(r.name, turn)[0] for r in found.robots}


def _parameters(
    task: Task, shown: Turn, standing: Standing, truth: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Rows of every robot that was calibrated."""
    fitted = [r for r in truth if r in standing.fits]
    return [row for r in fitted for row in parameter_rows(task, r, samples(shown, standing, r), truth[r])]


def parameter_rows(
    task: Task, robot: str, samples: Mapping[str, NDArray[np.float64]], true: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row per parameter and derived combination: band, whether the logs identify it, the truth.

    Args:
      samples: every parameter of the scene, path -> (m,).
      true: path -> value.
    """
    rng = np.random.default_rng(0)
    prior = {p.path: p.from_unit(rng.random(4000)) for p in task.scene.parameters}
    columns = np.stack([samples[p.path] for p in task.scene.parameters], axis=1)
    out: list[dict[str, Any]] = [
        {
            "robot": robot, "path": row.path, "unit": row.unit, "mean": row.mean, "low": row.low, "high": row.high,
            "identified": row.identified, "truth": true[row.path], "range": [row.prior_low, row.prior_high],
            "note": row.note,
        }
        for row in describe(task.scene.parameters, columns)
    ]  # fmt: skip
    for d in task.derived:
        x = np.log(d.of(samples))
        low, high = np.quantile(x, [0.05, 0.95])
        wide = np.diff(np.quantile(np.log(d.of(prior)), [0.0, 1.0]))[0]
        value = d.of({k: np.array([v]) for k, v in true.items()})[0]
        out.append({
            "robot": robot, "path": d.path, "unit": d.unit, "mean": float(np.exp(x).mean()), "low": math.exp(low),
            "high": math.exp(high), "identified": bool(high - low <= IDENTIFIED * wide), "truth": float(value),
            "range": [float(np.exp(np.quantile(np.log(d.of(prior)), q))) for q in (0.0, 1.0)],
        })  # fmt: skip
    return out


class _stage:
    """A stage that is shown but not counted to a turn."""

    def __init__(self, display: Display, name: str) -> None:
        display.stage(name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass
