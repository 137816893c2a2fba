"""What the loop achieves and what each of its stages buys.

    python benchmarks/loop.py [--realities 6] [--first-seed 1000] [--unmodelled 3] [--out FILE] [--resume] [--quick]
    python benchmarks/loop.py --coverage 24

Per reality the loop runs as users run it (``run_demo``: hub, robots and workers are processes). The controls are
trained once, within the budget of one such run, and then make exactly the attempts that the robots made: same cells,
same seeds, under a supervisor, but simulated together, which gives the same bits as the robots' own processes (the
table says how often the loop's own policy ended the same way). ``--unmodelled`` realities have a pyramidal cone,
another time step and more play in every joint besides. Results are written after every reality; ``--resume`` goes on.
The table comes last. About an hour on two idle cores.

``--coverage N`` plants truths in N robots, lets the nominal expert make attempts, calibrates, and counts how often the
90 % bands hold the truth. About 15 s a robot and core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base.durable import write_durably
from flyball.base.workspace import Workspace
from flyball.calibration.fleet import fit_robot
from flyball.episodes.catalogue import Catalogue
from flyball.evaluation.statistics import (
    cluster_interval,
    difference_interval,
    log_e_difference,
    log_e_paired,
    mcnemar,
    wilson,
)
from flyball.loop import controls, work
from flyball.loop.attempts import CLUSTER, COLLAPSE
from flyball.loop.config import Budget, DemoConfig
from flyball.loop.demo import parameter_rows, run_demo
from flyball.loop.executors import LocalExecutor
from flyball.loop.operate import Operator
from flyball.loop.stages import Stages
from flyball.policies.batched import Supervised
from flyball.policies.supervisor import Supervisor
from flyball.tasks import Task, tasks
from flyball.tasks.reality import Reality, attempt_seed, draw_reality, save_reality
from flyball.tasks.world import Attempts, Unmodelled, World

DIFFERENT = Unmodelled(timestep=0.001, cone="pyramidal", backlash_rad=0.005)
MARGIN = 0.15
"""By how much the loop must beat the best control that does not calibrate."""
STOPPED = "supervisor.stop"
OWN = ("overhead", "ingest", "gate", "release")
"""Stages that are neither simulation nor training nor robots' time."""
COLD = ("fixed-grip", "fixed-push", "slip-feedback", "randomization")
"""Controls without calibration, which the loop must beat by the margin."""


class Lines:
    """Progress: notes only, on stderr."""

    def stage(self, name: str, total: int = 0) -> None:
        pass

    def at(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


class Lab:
    """Controls, trained once and then tried in batches.

    Args:
      config: settings of the runs they are compared with.
      folder: workspace of their own.
    """

    def __init__(self, config: DemoConfig, folder: Path) -> None:
        self.config, self.task = config, tasks.load(config.task)
        self.executor = LocalExecutor(config.budget.workers)
        operator = Operator(Workspace(folder), None, self.task, Lines().note, Lines().at)  # type: ignore[arg-type]
        self.stages = Stages(replace(config, seed=0), operator, self.executor, Lines())
        self.prepared: dict[str, controls.Prepared] = {}
        self.spent: dict[str, dict[str, int]] = {}

    def prepare(self) -> None:
        """Train what is not trained yet."""
        for name in controls.controls(self.task):
            before = dict(self.stages.steps)
            self.prepared[name] = controls.prepare(self.stages, name, self.config.robots, self.config.turns)
            self.spent[name] = {k: self.stages.steps[k] - before[k] for k in before}

    def try_all(self, reality: Reality, seeds: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Any]:
        """Every control on the fleet's own attempts.

        Args:
          seeds: per turn, robot -> seeds of its orders.

        Returns:
          control -> outcomes of the last turn, robot -> list of group ("" for success), and, for ``calibration-only``,
          the successes by turn.
        """
        last = len(seeds) - 1
        names = [n for n in self.prepared if n != "calibration-only"]
        out: dict[str, Any] = {}
        futures = {}
        for name in names:
            told = {r.name: self.prepared[name].told for r in reality.robots}
            if name == "expert":
                told = {r: tuple(t) for r, t in truths(reality, last).items()}
            futures[name] = self._submit(name, reality, last, seeds[last], told)
        for name, future in futures.items():
            out[name] = grouped(future.result(), reality, seeds[last])
        out["calibration-only"], by_turn = self._calibrated(reality, seeds)
        return {"last": out, "calibration_only_by_turn": by_turn}

    def again(self, policy: bytes, told: Mapping[str, Sequence[float]], reality: Reality, turn: int,
              seeds: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:  # fmt: skip
        """The loop's own policy in a batch, to see that it is the same thing."""
        like = controls.Prepared("onnx", "", (), self.config.budget.execute, "")
        args = (self.task.name, like, policy, dict(told), reality, turn, dict(seeds))
        return grouped(self.executor.submit(try_control, *args).result(), reality, seeds)

    def _submit(self, name: str, reality: Reality, turn: int, seeds: Mapping[str, Sequence[int]], told: Mapping) -> Any:
        prepared = self.prepared[name]
        policy = self.stages.store.get(prepared.policy)
        return self.executor.submit(
            try_control, self.task.name, prepared, policy, dict(told), reality, turn, dict(seeds)
        )

    def _calibrated(
        self, reality: Reality, seeds: Sequence[Mapping[str, Sequence[int]]]
    ) -> tuple[dict[str, list[str]], list[float]]:
        """``calibration-only`` through all turns, by the rules that the loop has for sick robots and changed worlds."""
        told: dict[str, Sequence[float]] = {r.name: self.prepared["calibration-only"].told for r in reality.robots}
        logs: dict[str, Attempts | None] = {r.name: None for r in reality.robots}
        fits: dict[str, dict[str, Any]] = {}
        before: dict[str, float] = {}
        by_turn: list[float] = []
        found: dict[str, list[str]] = {}
        for turn, wanted in enumerate(seeds):
            done = self._submit("calibration-only", reality, turn, wanted, told).result()
            found = grouped(done, reality, wanted)
            by_turn.append(float(np.mean([not g for gs in found.values() for g in gs])))
            if turn == len(seeds) - 1:
                break
            rate = {r: float(np.mean([not g for g in gs])) for r, gs in found.items()}
            sick = [r for r, gs in found.items() if max(Counter(g for g in gs if g).values(), default=0) >= CLUSTER]
            changed = [r for r in sick if before.get(r, 0.0) >= COLLAPSE[0] and rate[r] <= COLLAPSE[1]]
            if sick:
                sick += [r for r in found if r not in sick and r not in fits]
            at = 0
            for robot, gs in found.items():
                fresh = part(done, at, at + len(gs))
                at += len(gs)
                old = logs[robot] if robot not in changed else None
                logs[robot] = fresh if old is None else joined(old, fresh)
            jobs = {}
            for robot in (r for r in sick if logs[r].events):
                start = work.fitted_from(fits[robot]) if robot in fits and robot not in changed else None
                seed = self.stages.seed("calibrate", turn, robot, reality.robot(robot).seed)
                args = (self.task.name, logs[robot], self.config.budget.replay, seed, start)
                jobs[robot] = self.executor.submit(work.fit, *args)
            for robot, job in jobs.items():
                fits[robot] = job.result()
                fitted = work.fitted_from(fits[robot])
                samples = self.task.scene.nominal(len(fitted.samples)) | fitted.values()
                told[robot] = tuple(float(x) for x in self.task.tell(samples))
            before = rate
        return found, by_turn


def try_control(
    task_name: str, prepared: controls.Prepared, policy: bytes, told: Mapping[str, Sequence[float]], reality: Reality,
    turn: int, seeds: Mapping[str, Sequence[int]],
) -> Attempts:  # fmt: skip
    """Attempts of a control on a fleet, robot after robot."""
    task: Task = tasks.load(task_name)
    who = [r for r in reality.robots for _ in seeds[r.name]]
    rows = [reality.at(r.name, turn)[0] for r in who]
    values = {p.path: np.array([row[p.path] for row in rows]) for p in task.scene.parameters}
    inner = [attempt_seed(r.seed, s, turn) for r in reality.robots for s in seeds[r.name]]
    policies = [controls.policy_of(task, prepared, policy, np.array(told[r.name])) for r in who]
    for p, seed in zip(policies, (s for r in reality.robots for s in seeds[r.name]), strict=True):
        p.reset(task.instruction, seed)
    period = 1.0 / task.control_hz
    drive = Supervised(policies, [Supervisor(task.embodiment, period) for _ in who], prepared.execute)
    done = World(task, len(who), unmodelled=who[0].unmodelled).run(drive, values, inner)
    events = [
        [*e, (task.horizon_s, STOPPED)] if why else list(e) for e, why in zip(done.events, drive.stopped, strict=True)
    ]
    return Attempts(done.signals, events)


def grouped(done: Attempts, reality: Reality, seeds: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Robot -> what became of each attempt, "" for success."""
    judged = iter(zip(done.judge(reality.task), done.events, strict=True))

    def group() -> str:
        j, events = next(judged)
        return "stopped" if any(e == STOPPED for _, e in events) else "" if j.outcome == "success" else j.group

    return {r.name: [group() for _ in seeds[r.name]] for r in reality.robots}


def part(done: Attempts, start: int, stop: int) -> Attempts:
    """Some of the attempts, those that were not stopped."""
    kept = [i for i in range(start, stop) if not any(e == STOPPED for _, e in done.events[i])]
    return Attempts({k: x[kept] for k, x in done.signals.items()}, [done.events[i] for i in kept])


def joined(a: Attempts, b: Attempts) -> Attempts:
    """Attempts of one robot, older first, at most 64."""
    signals = {k: np.concatenate([x, b.signals[k]])[-64:] for k, x in a.signals.items()}
    return Attempts(signals, [*a.events, *b.events][-64:])


def truths(reality: Reality, turn: int) -> dict[str, list[float]]:
    """What the informed expert is told."""
    out = {}
    for r in reality.robots:
        values = {k: np.array([v]) for k, v in reality.at(r.name, turn)[0].items()}
        out[r.name] = [float(x) for x in reality.task.told(values)[0]]
    return out


# one reality ----------------------------------------------------------------------------------------------


def one(lab: Lab, seed: int, different: bool, folder: Path) -> dict[str, Any]:
    """The loop on one reality, then every control on its attempts."""
    config = replace(lab.config, seed=seed, workspace=folder)
    reality = draw_reality(lab.task, seed, config.robots, config.turns)
    if different:
        reality = replace(reality, robots=tuple(replace(r, unmodelled=DIFFERENT) for r in reality.robots))
        file = folder.parent / f"{folder.name}.json"
        save_reality(reality, file)
        config = replace(config, reality=file)
    document = run_demo(config, Lines())
    catalogue = Catalogue(store := Workspace(folder).store)
    rows = catalogue.query(f"task = '{lab.task.name}'", order="robot, start_ns")
    orders = [[r for r in rows if r.labels.get("order") == f"turn-{turn:03d}"] for turn in range(config.turns)]
    names = [r.name for r in reality.robots]
    seeds = [{name: [e.seed for e in mine if e.robot == name] for name in names} for mine in orders]
    last = [catalogue.load(r.digest) for r in orders[-1]]
    loop = {r: ["" if e.outcome == "success" else e.group for e in last if e.robot == r] for r in names}
    tried = lab.try_all(reality, seeds)
    before = (store.row("turn", f"{config.turns - 2:03d}" if config.turns > 1 else "first") or {})["standing"]
    nominal = lab.task.told(lab.task.scene.nominal(1))[0].tolist()
    told = {r.name: before["told"].get(r.name, nominal) for r in reality.robots}
    again = lab.again(store.get(before["policy"]), told, reality, config.turns - 1, seeds[-1])
    same = np.mean([a == b for r in loop for a, b in zip(loop[r], again[r], strict=True)])
    changed = sorted({c.turn for r in reality.robots for c in r.changes if c.turn < config.turns})
    odd = {r.name: elsewhere(lab.task, r.parameters) for r in reality.robots}
    return {
        "seed": seed, "different": different, "changed": changed, "same": float(same), "odd": odd,
        "turns": document["turns"], "parameters": document["parameters"], "seconds": document["seconds"],
        "steps": document["steps"], "loop": loop, "controls": tried["last"],
        "calibration_only_by_turn": tried["calibration_only_by_turn"], "warnings": document["warnings"],
    }  # fmt: skip


def elsewhere(task: Task, given: Mapping[str, float]) -> bool:
    """Whether things start where the first policy never saw them: an experience gap."""
    units = [(task.scene.parameter(p), v) for p, v in given.items() if p.startswith("start.")]
    return any(abs(float(p.to_unit(v) - p.to_unit(p.nominal))) > 0.1 for p, v in units)


# the table ------------------------------------------------------------------------------------------------


def rate(counts: Iterable[tuple[int, int]]) -> str:
    """Success with an interval; counts of (successes, trials) per robot."""
    pairs = [c for c in counts if c[1]]
    if not pairs:
        return "-"
    found = cluster_interval([s for s, _ in pairs], [n for _, n in pairs])
    return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}] of {sum(n for _, n in pairs)}"


def at_turn(results: Sequence[Mapping[str, Any]], turn: int) -> list[tuple[int, int]]:
    """(successes, trials) of every robot of every reality at a turn."""
    return [(c["successes"], c["trials"]) for r in results for c in r["turns"][turn]["by_robot"].values()]


def outcomes(results: Sequence[Mapping[str, Any]], control: str, kept: str = "all") -> list[list[bool]]:
    """Success of every attempt of the last turn, per robot; "" for the loop; ``kept``: all, odd."""
    return [
        [not g for g in gs]
        for r in results
        for robot, gs in (r["controls"][control] if control else r["loop"]).items()
        if kept == "all" or r["odd"][robot]
    ]


def compared(loop: list[list[bool]], other: list[list[bool]], margin: float = 0.0) -> dict[str, Any]:
    """Paired tests of the loop against a control on equal attempts; the interval takes robots as clusters."""
    pairs = [(a, b) for x, y in zip(loop, other, strict=True) for a, b in zip(x, y, strict=True)]
    wins, losses = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    ties = len(pairs) - wins - losses
    per_robot = np.array([np.mean(x) - np.mean(y) for x, y in zip(loop, other, strict=True) if x])
    rng = np.random.default_rng(0)
    means = [rng.choice(per_robot, len(per_robot)).mean() for _ in range(4000)]
    return {
        "difference": (wins - losses) / max(len(pairs), 1), "pairs": len(pairs), "wins": wins, "losses": losses,
        "by_robot": [float(q) for q in np.quantile(means, [0.025, 0.975])],
        "anytime": difference_interval(wins, losses, ties).to_json(),
        "p": mcnemar(wins, losses, "greater"), "e": math.exp(min(log_e_paired(wins, losses, "greater"), 500.0)),
        "e_margin": math.exp(min(log_e_difference(wins, losses, ties, margin, "greater"), 500.0)),
    }  # fmt: skip


def coverage_rows(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    """How often 90 % bands of identified parameters hold the truth, per parameter and in total."""
    lines = [
        "| parameter | identified | of | covered | share [95 %] | band, share of range |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in parameters:
        groups[row["path"]].append(row)
    known = [r for rows in groups.values() for r in rows if r["identified"]]
    for path, rows in [*groups.items(), ("**all**", list(parameters))]:
        mine = known if path == "**all**" else [r for r in rows if r["identified"]]
        held = [r["low"] <= r["truth"] <= r["high"] for r in mine]
        found = wilson(sum(held), len(held))
        wide = np.mean([(r["high"] - r["low"]) / (r["range"][1] - r["range"][0]) for r in rows]) if rows else math.nan
        share = f"{100 * found.mean:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]" if held else "-"
        lines.append(f"| {path} | {len(mine)} | {len(rows)} | {sum(held)} | {share} | {wide:.2f} |")
    return lines


def table(out: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    lines: list[str] = []
    for title, different in (("Robots that share the engine's contact model", False), ("Unmodelled differences", True)):
        results = [r for r in out["realities"].values() if r["different"] == different]
        if results:
            lines += [
                "",
                f"### {title}: {len(results)} realities",
                "",
                *fleet_rows(results),
                "",
                *control_rows(results),
            ]
            lines += ["", *gap_rows(results), "", *reproduced_rows(results), "", *time_rows(results)]
            if not different:
                every = [p for r in results for p in r["parameters"]]
                lines += ["", "Coverage of 90 % bands:", "", *coverage_rows(every)]
    lines += ["", "| control | simulated steps | gradient steps | what |", "|---|---|---|---|"]
    lines += [f"| {n} | {c['simulated']} | {c['gradient']} | {c['what']} |" for n, c in out["controls"].items()]
    return "\n".join(lines)


def fleet_rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Success of the fleet at the turns that matter, and of the worst robot."""
    turns = len(results[0]["turns"])
    named = {0: "turn 0", turns - 1: "last turn"}
    for turn in {t for r in results for t in r["changed"] if 0 < t < turns - 1}:
        named |= {turn: "the turn of the change"} | ({turn - 1: "last turn before the change"} if turn > 1 else {})
    lines = ["| fleet success of the loop | |", "|---|---|"]
    lines += [f"| {name} ({turn}) | {rate(at_turn(results, turn))} |" for turn, name in sorted(named.items())]
    worst = min(s / n for s, n in at_turn(results, turns - 1) if n)
    return [*lines, f"| worst robot, last turn | {100 * worst:.1f} % |"]


def control_rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The loop against every control on equal attempts of the last turn."""
    lines = [
        "| control, last turn | success | loop minus control [95 % over robots] | won:lost | exact McNemar p | e-value "
        f"| e-value for more than {100 * MARGIN:.0f} points |",
        "|---|---|---|---|---|---|---|",
    ]
    loop = outcomes(results, "")
    lines.append(f"| **the loop** | {rate([(sum(x), len(x)) for x in loop])} | | | | | |")
    names = list(results[0]["controls"])
    cold = {c: np.mean([a for x in outcomes(results, c) for a in x]) for c in names if c in COLD}
    for control in names:
        theirs = outcomes(results, control)
        mark = " (best without calibration)" if cold and control == max(cold, key=lambda c: cold[c]) else ""
        lines.append(compare_row(control + mark, theirs, compared(loop, theirs, MARGIN), control in COLD))
    odd = outcomes(results, "", "odd")
    if odd:
        theirs = outcomes(results, "calibration-only", "odd")
        name = "calibration-only, robots with an experience gap"
        lines.append(compare_row(name, theirs, compared(odd, theirs), False))
    return lines


def gap_rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Simulation-to-robot gap by turn."""
    lines = ["| turn | gap, mean (least to greatest) | released in |", "|---|---|---|"]
    for turn in range(len(results[0]["turns"])):
        g = [r["turns"][turn]["gap"] for r in results if r["turns"][turn]["gap"] is not None]
        n = sum(r["turns"][turn]["released"] for r in results)
        text = f"{np.mean(g):.3f} ({min(g):.3f} to {max(g):.3f})" if g else "-"
        lines.append(f"| {turn} | {text} | {n} of {len(results)} |")
    return lines


def reproduced_rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Failures that came back in the calibrated scenes, and whether batches are the same thing as robots."""
    n, of = (sum(t["reproduced"][k] for r in results for t in r["turns"]) for k in ("n", "of"))
    back = wilson(n, of)
    same = np.mean([r["same"] for r in results])
    share = f"{100 * back.mean:.0f} % [{100 * back.low:.0f}, {100 * back.high:.0f}]" if of else "-"
    return [
        f"Failures reproduced in the calibrated scenes: {n} of {of}, {share}. Attempts of the loop's policy, simulated "
        f"in batches, ended as the robots' own in {same:.1%}."
    ]


def time_rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seconds per stage and turn."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for t in (t for r in results for t in r["turns"]):
        for stage, s in t["seconds"].items():
            seconds[stage].append(s)
        seconds["whole turn"].append(sum(t["seconds"].values()))
        seconds["outside simulation, training and robots"].append(sum(t["seconds"].get(k, 0.0) for k in OWN))
    count = sum(len(r["turns"]) for r in results)
    lines = ["| stage | mean s a turn | greatest |", "|---|---|---|"]
    lines += [f"| {k} | {sum(v) / count:.1f} | {max(v):.1f} |" for k, v in seconds.items()]
    whole = np.mean([r["seconds"] for r in results])
    return [*lines, f"| **a whole run** | {whole:.0f} | {max(r['seconds'] for r in results):.0f} |"]


def compare_row(name: str, theirs: list[list[bool]], found: Mapping[str, Any], margin: bool) -> str:
    """One line of the table of controls."""
    low, high = (100 * x for x in found["by_robot"])
    return (
        f"| {name} | {rate([(sum(x), len(x)) for x in theirs])} | {100 * found['difference']:+.1f} "
        f"[{low:+.1f}, {high:+.1f}] | {found['wins']}:{found['losses']} | {found['p']:.2g} | {found['e']:.3g} "
        f"| {format(found['e_margin'], '.3g') if margin else ''} |"
    )


# planted truths -------------------------------------------------------------------------------------------


def plant(task_name: str, values: Mapping[str, float], budget: Budget, seed: int, name: str) -> list[dict[str, Any]]:
    """Calibrate one robot with planted parameters from attempts of the nominal expert."""
    task: Task = tasks.load(task_name)
    n = budget.attempts
    full = task.scene.nominal(n) | {k: np.full(n, v) for k, v in values.items()}
    told = task.told(task.scene.nominal(n))
    logged = World(task, n).run(task.expert(told), full, [seed * 1000 + i for i in range(n)])
    fitted = fit_robot(task, Attempts(logged.signals, logged.events), budget.replay, seed=seed)
    samples = task.scene.nominal(len(fitted.samples)) | fitted.values()
    return parameter_rows(task, name, samples, {k: float(v[0]) for k, v in full.items()})


def planted(task_name: str, n: int, first_seed: int, budget: Budget) -> list[dict[str, Any]]:
    """Parameter rows of n robots."""
    task: Task = tasks.load(task_name)
    drawn = task.draw_reality(np.random.default_rng(first_seed), n)
    executor = LocalExecutor(budget.workers)
    try:
        jobs = [
            executor.submit(plant, task_name, {k: float(x[i]) for k, x in drawn.items()}, budget, first_seed + i,
                            f"robot-{i:03d}")
            for i in range(n)
        ]  # fmt: skip
        rows = []
        for k, job in enumerate(jobs):
            rows += job.result()
            print(f"  {k + 1} of {n} robots", file=sys.stderr, flush=True)
        return rows
    finally:
        executor.shutdown()


# ----------------------------------------------------------------------------------------------------------


def benchmark(
    config: DemoConfig, realities: int, unmodelled: int, first_seed: int, file: Path, resume: bool
) -> dict[str, Any]:
    """Run what is missing; the results are in the file after every reality.

    Args:
      config: settings of every run; its workspace is the folder of all workspaces.
    """
    out: dict[str, Any] = (
        json.loads(file.read_text()) if resume and file.exists() else {"controls": {}, "realities": {}}
    )
    folder = config.workspace
    lab = Lab(config, folder / "controls")
    try:
        start = time.monotonic()
        lab.prepare()
        print(f"controls ready after {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        if not out["controls"]:
            out["controls"] = {n: {**lab.spent[n], "what": p.what} for n, p in lab.prepared.items()}
        wanted = [(first_seed + i, False) for i in range(realities)]
        wanted += [(first_seed + realities + i, True) for i in range(unmodelled)]
        for seed, different in wanted:
            key = f"{seed}{'-different' if different else ''}"
            if key in out["realities"]:
                continue
            start = time.monotonic()
            print(f"reality {key}", file=sys.stderr, flush=True)
            out["realities"][key] = one(lab, seed, different, folder / key)
            write_durably(file, json.dumps(out).encode())
            print(f"reality {key}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    finally:
        lab.executor.shutdown()
    return out


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="What the loop achieves and what each of its stages buys.")
    parser.add_argument("--realities", type=int, default=6, metavar="N")
    parser.add_argument("--unmodelled", type=int, default=3, metavar="N")
    parser.add_argument("--first-seed", type=int, default=1000, metavar="S", help="seeds not used while developing")
    parser.add_argument("--robots", type=int, default=6, metavar="N")
    parser.add_argument("--turns", type=int, default=4, metavar="N")
    parser.add_argument("--task", default="lift-fragile-v1", metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="results; default: in the folder of workspaces")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for workspaces; default: a temporary one")
    parser.add_argument("--resume", action="store_true", help="go on with FILE.json (and DIR)")
    parser.add_argument("--quick", action="store_true", help="two realities, one with unmodelled differences")
    parser.add_argument("--coverage", type=int, metavar="N", help="calibration alone on N robots with planted truths")
    a = parser.parse_args()
    if a.coverage:
        rows = planted(a.task, a.coverage, a.first_seed, Budget())
        if a.out:
            write_durably(a.out, json.dumps(rows).encode())
        print("\n".join(coverage_rows(rows)))
        return
    folder = a.folder or Path(tempfile.mkdtemp(prefix="flyball-loop-"))
    file = a.out or folder / "loop.json"
    n, m = (1, 1) if a.quick else (a.realities, a.unmodelled)
    config = DemoConfig(folder, robots=a.robots, turns=a.turns, task=a.task)
    print(f"{n} + {m} realities in {folder}, results in {file}; about {8 + 5 * n + 7 * m} min on two idle cores",
          file=sys.stderr, flush=True)  # fmt: skip
    out = benchmark(config, n, m, a.first_seed, file, a.resume)
    print(table(out))


if __name__ == "__main__":
    main()
