"""One turn: attempts, logs, failures, calibration, reproduction, demonstrations, training, evaluation, gate, rollout.

In: a workspace, a fleet that runs, the standing of the loop after the turn before. Out: the turn's row and the new
standing, both in the workspace. Every piece of work goes through the step cache, so a turn that was killed goes on
where it was.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import Artifact, digest_of
from flyball.base.steps import json_of, step
from flyball.base.store import Store
from flyball.calibration.fleet import Fitted
from flyball.datagen.demonstrations import Demonstrations
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.evaluation.protocol import Protocol as EvaluationProtocol
from flyball.evaluation.report import EvaluationReport, TrialRow, locked_environment
from flyball.evaluation.statistics import cluster_interval
from flyball.evaluation.verdicts import CanaryVerdict, PairedComparison
from flyball.loop import work
from flyball.loop.config import DemoConfig
from flyball.loop.executors import Executor
from flyball.loop.logs import attempts_of
from flyball.loop.operate import Operator
from flyball.releases.gate import GateRules, decide

CLUSTER = 2
"""Failures of one kind on one robot that make a turn learn; fewer are taken for bad luck."""
COLLAPSE = (0.7, 0.6)
"""A robot that succeeded at least this often and now at most that often lives in a changed world; old logs retire."""
CANARY_DROP = 0.3
"""A release whose success on the canary is this much below what the evaluation expects goes back."""
OUTLOOK = 0.6
"""A calibration that promises less success than this is suspected to mix logs of two different worlds."""
REPRODUCED = 0.5
"""A failure is reproduced when more than this share of posterior draws ends in the same way."""


class Display(Protocol):
    """Where progress goes; see ``flyball.apps.cli.progress``."""

    def stage(self, name: str, total: int = 0) -> None:
        """A stage begins."""

    def at(self, done: int, total: int) -> None:
        """So much of it is done."""

    def note(self, text: str) -> None:
        """Something worth telling."""


@dataclass(frozen=True)
class Standing:
    """What the loop knows between turns. Plain data: it is stored with every turn.

    Attributes:
      release: name of the deployed release.
      policy: digest of its policy file.
      state: digest of the training state behind it ("" when it was not trained here).
      told: robot -> what its release tells the policy, in the order of the task's conditioning.
      fits: robot -> digest of its calibration.
      since: robot -> first turn whose logs describe the robot as it is now.
      success: robot -> success rate of the last turn.
    """

    release: str
    policy: str
    state: str = ""
    told: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    fits: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    success: Mapping[str, float] = field(default_factory=dict)


def standing_from(data: Mapping[str, Any]) -> Standing:
    """Inverse of ``asdict``, from JSON."""
    return Standing(**{**data, "told": {r: tuple(v) for r, v in data["told"].items()}})


def _finite(x: Any) -> float | None:
    """A number as JSON has it: None for what is not one."""
    return float(x) if np.isfinite(x) else None


class Stages:
    """What turns have in common: workspace, workers, clocks, counters.

    Args:
      config: of the run.
      operator: the hands on the fleet.
      executor: where work runs.
      display: where progress goes.
    """

    def __init__(self, config: DemoConfig, operator: Operator, executor: Executor, display: Display) -> None:
        self.config, self.operator, self.executor, self.display = config, operator, executor, display
        self.budget, self.task = config.budget, operator.task
        self.store: Store = operator.workspace.store
        self.seconds: dict[str, float] = {}
        self.steps = {"simulated": 0, "gradient": 0}
        self.length = round(self.task.horizon_s * self.task.control_hz)

    def seed(self, *what: Any) -> int:
        """A seed for one purpose, from the run's seed."""
        return int(digest_of([self.config.seed, self.config.task, *what])[:12], 16)

    @contextmanager
    def stage(self, name: str, total: int = 0) -> Iterator[None]:
        """Time a stage and show it."""
        self.display.stage(name, total)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def cached(
        self, name: str, version: int, inputs: Any, fn: Callable[..., Any], *args: Any, kind: str = ""
    ) -> Artifact:
        """One piece of work through the step cache, on a worker."""
        return step(
            self.store,
            f"flyball.loop.{name}",
            version,
            inputs,
            lambda: self.executor.submit(fn, *args).result(),
            kind=kind,
        )

    def spread(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run jobs side by side (each waits for a worker); shows how many are done."""
        with ThreadPoolExecutor(self.budget.workers) as threads:
            futures = [threads.submit(job) for job in jobs]
            out = []
            for k, future in enumerate(futures):
                out.append(future.result())
                self.display.at(k + 1, len(jobs))
            return out

    # training ---------------------------------------------------------------------------------------------

    def train(
        self, name: str, values: Mapping[str, NDArray[np.float64]], first: bool, warm: str
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
        config = self.budget.first if first else self.budget.later
        n = len(next(iter(values.values())))
        seed = self.seed("train", name)
        self.steps["simulated"] += n * self.length
        self.steps["gradient"] += config.steps

        def make() -> dict[str, Any]:
            seeds = [seed + i for i in range(n)]
            parts = np.array_split(np.arange(n), max(1, min(self.budget.workers, n // 8)))
            with self.stage("demonstrate", n):
                shown = Demonstrations.joined(
                    self.spread(
                        [
                            lambda rows=rows: self.executor.submit(  # type: ignore[misc]
                                work.show,
                                self.task.name,
                                {k: v[rows] for k, v in values.items()},
                                [seeds[i] for i in rows],
                                self.budget.windows,
                            ).result()
                            for rows in parts
                        ]
                    )
                )
            with self.stage("train", config.steps):
                start = self.store.get(warm) if warm else None
                made = self.executor.submit(work.learn, self.task.name, shown, config, seed, start).result()
            parents = [warm] if warm else []
            policy = self.store.put(
                "policy", made.onnx, parents=parents, producer="flyball.learning.flow@1", labels=made.labels
            )
            state = self.store.put(
                "training-state", made.state, parents=[policy.digest], producer="flyball.learning.flow@1"
            )
            return {"policy": policy.digest, "state": state.digest, "kept": shown.kept, "frames": len(shown.features)}

        inputs = {"task": self.task.name, "values": values, "config": config, "windows": self.budget.windows,
                  "seed": seed, "warm": warm}  # fmt: skip
        made = json_of(self.store, step(self.store, "flyball.loop.train", 2, inputs, make))
        return made["policy"], made["state"], made["kept"]

    def calibrations_file(self, told: Mapping[str, Sequence[float]]) -> bytes:
        """``calibrations.json`` of a release."""
        table = {r: dict(zip(self.task.conditioning, map(float, v), strict=True)) for r, v in told.items()}
        return json.dumps(table, sort_keys=True).encode()


class Turn(Stages):
    """One turn of the loop; ``run`` does it."""

    def run(self, number: int, standing: Standing) -> tuple[dict[str, Any], Standing]:
        """Do the turn.

        Returns:
          The turn's row (see the demo's document) and the standing after it.
        """
        self.number = number
        self.name = f"turn-{number:03d}"
        began = time.monotonic()
        episodes = self.attempts(standing)
        row = self.count(episodes)
        gap = self.gap(episodes, standing)
        sick, changed = self.triage(episodes, standing)
        row |= {
            "turn": number,
            "gap": gap,
            "released": False,
            "verdict": "nothing to learn",
            "reproduced": {"n": 0, "of": 0},
            "changed": sorted(changed),
            "release": standing.release,
            "kept_demonstrations": 0,
        }
        since = {r: number if r in changed else standing.since.get(r, 0) for r in self.operator.robots}
        standing = replace(standing, since=since, success=row.pop("success_by_robot"))
        if sick:
            standing = self.learn(episodes, sick, changed, standing, row)
        row["seconds"] = {k: round(v, 2) for k, v in self.seconds.items()}
        row["seconds"]["overhead"] = round(time.monotonic() - began - sum(self.seconds.values()), 2)
        row["steps"] = dict(self.steps)
        return row, standing

    def learn(
        self,
        episodes: Sequence[Episode],
        sick: Sequence[str],
        changed: Sequence[str],
        standing: Standing,
        row: dict[str, Any],
    ) -> Standing:
        """From failures to a release, or to the reason why there is none; writes into the turn's row."""
        fits, held_out = self.calibrate(sick, changed, standing)
        row["held_out"] = held_out
        standing = replace(standing, fits={**standing.fits, **fits})
        if not standing.fits:
            row["verdict"] = "no complete attempt to learn from"
            return standing
        shares = self.reproduce(episodes, standing)
        doubtful = [
            r
            for r in fits
            if standing.since[r] < self.number
            and (np.mean(shares.get(r, [1.0])) <= REPRODUCED or self.outlook(fits[r]) < OUTLOOK)
        ]
        if doubtful:
            alone = replace(standing, since={**standing.since, **dict.fromkeys(doubtful, self.number)})
            again, _ = self.calibrate(doubtful, doubtful, alone)
            # where the new logs alone promise no more, nothing is gained by forgetting
            again = {r: d for r, d in again.items() if self.outlook(d) >= self.outlook(fits[r])}
            fits = {**fits, **again}
            since = {r: self.number if r in again else standing.since[r] for r in standing.since}
            standing = replace(standing, fits={**standing.fits, **again}, since=since)
            shares |= self.reproduce([e for e in episodes if e.robot in again], standing)
            row["changed"] = sorted({*row["changed"], *again})
            if again:
                self.display.note(f"old and new logs of {', '.join(again)} contradict each other: the old ones retire")
        flat = [s for mine in shares.values() for s in mine]
        row["reproduced"] = {"n": sum(s > REPRODUCED for s in flat), "of": len(flat)}
        told = {**standing.told, **{r: self.tell(standing, r) for r in fits}}
        policy, state, row["kept_demonstrations"] = self.improve(standing)
        report, decision = self.prove(standing, policy, told)
        row["comparison"] = report.comparison
        row["gate"] = decision
        row["verdict"] = "refused by the gate: " + "; ".join(decision["reasons"])
        if decision["allowed"]:
            standing = self.release(standing, policy, state, told, report, row)
        return standing

    # robots and logs --------------------------------------------------------------------------------------

    def attempts(self, standing: Standing) -> list[Episode]:
        """Every robot attempts the task with the deployed release; the logs come home and are judged."""
        with self.stage("robots", self.budget.attempts * len(self.operator.robots)):
            self.operator.order(
                self.name, dict.fromkeys(self.operator.robots, standing.release), self.number, self.budget.attempts
            )
            self.operator.wait(self.name, self.operator.robots)
        with self.stage("ingest"):
            self.operator.ingest()
            return self.operator.episodes(self.name)

    def count(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """Success of the fleet with an interval that takes robots as clusters, and failures by what happened."""
        by_robot = {r: [e for e in episodes if e.robot == r] for r in self.operator.robots}
        tried = {r: len(es) for r, es in by_robot.items() if es}
        won = {r: sum(e.outcome == "success" for e in es) for r, es in by_robot.items() if es}
        found = cluster_interval(list(won.values()), list(tried.values()))
        groups = Counter(e.group or e.outcome for e in episodes if e.outcome != "success")
        what = ", ".join(f"{n} {g}" for g, n in groups.most_common()) or "no failures"
        self.display.note(
            f"turn {self.number}: {sum(won.values())} of {sum(tried.values())} succeed "
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
            "failures": {g: groups.get(g, 0) for g in dict.fromkeys([*self.task.groups, *groups])},
            "success_by_robot": {r: won[r] / tried[r] for r in tried},
        }

    def triage(self, episodes: Sequence[Episode], standing: Standing) -> tuple[list[str], list[str]]:
        """Robots with a cluster of failures, and those among them whose world seems to have changed."""
        sick, changed = [], []
        for robot in self.operator.robots:
            mine = [e for e in episodes if e.robot == robot]
            groups = Counter(e.group for e in mine if e.outcome != "success")
            if groups and max(groups.values()) >= CLUSTER:
                sick.append(robot)
                rate = sum(e.outcome == "success" for e in mine) / len(mine)
                promised = standing.success.get(robot, 0.0)
                if robot in standing.told and robot in standing.fits:
                    promised = max(promised, self.outlook(standing.fits[robot]))
                if promised >= COLLAPSE[0] and rate <= COLLAPSE[1]:
                    changed.append(robot)
        if sick:  # once the loop learns, it must know every robot it releases to
            sick += [r for r in self.operator.robots if r not in sick and r not in standing.fits]
        if changed:
            self.display.note(f"the world of {', '.join(changed)} seems to have changed: their old logs retire")
        return sick, changed

    # calibration ------------------------------------------------------------------------------------------

    def gap(self, episodes: Sequence[Episode], standing: Standing) -> float | None:
        """How well fresh logs are predicted by what was known before them; see ``calibration.reproduction.gap``.

        None when no attempt was completed.
        """
        with self.stage("gap", len(self.operator.robots)):
            jobs = []
            for robot in self.operator.robots:
                mine = [e for e in episodes if e.robot == robot][:3]
                logged = attempts_of(self.task, mine)
                if not logged.events:
                    continue
                samples = self.samples(standing, robot)
                self.steps["simulated"] += len(mine) * work.GAP_DRAWS * self.length
                inputs = [self.task.name, [e.log_digest for e in mine], standing.fits.get(robot, ""), self.seed("gap")]
                args = (self.task.name, logged, range(len(logged.events)), samples, self.seed("gap"))
                jobs.append(lambda i=inputs, a=args: self.cached("gap", 3, i, work.measure_gap, *a))
            found = [float(json_of(self.store, a)) for a in self.spread(jobs)]
        return _finite(np.mean(found)) if found else None

    def calibrate(
        self, robots: Sequence[str], changed: Sequence[str], standing: Standing
    ) -> tuple[dict[str, str], dict[str, float | None]]:
        """Fit robots to their logs; robot -> digest of its calibration, and the mean held-out gap before and after."""
        with self.stage("calibrate", len(robots)):
            catalogue = Catalogue(self.store)
            jobs, known = [], []
            for robot in robots:
                # a turn that is resumed must read what it read before: not the canary's logs, which came after
                where = (
                    f"robot = '{robot}' AND task = '{self.task.name}' AND labels.turn >= {standing.since[robot]}"
                    f" AND (labels.turn < {self.number} OR labels.order = '{self.name}')"
                )
                rows = catalogue.query(where, order="start_ns")
                logged = attempts_of(self.task, [catalogue.load(r.digest) for r in rows][-64:])
                if not logged.events:
                    self.display.note(f"{robot} has no complete attempt to learn from")
                    continue
                known.append(robot)
                before = standing.fits.get(robot, "") if robot not in changed else ""
                start = work.fitted_from(json_of(self.store, self.store.artifact(before))) if before else None
                seed = self.seed("calibrate", self.number, robot)
                inputs = [self.task.name, [r.log_digest for r in rows], self.budget.replay, seed, before]
                args = (self.task.name, logged, self.budget.replay, seed, start)
                jobs.append(lambda i=inputs, a=args: self.cached("calibrate", 3, i, work.fit, *a, kind="calibration"))
            made = self.spread(jobs)
        out, held = {}, []
        for robot, artifact in zip(known, made, strict=True):
            data = json_of(self.store, artifact)
            out[robot] = artifact.digest
            self.steps["simulated"] += data["replays"] * self.length
            held.append((data["held_out"]["before"], data["held_out"]["after"]))
        before_after = np.nanmean(np.array(held), axis=0) if held else (float("nan"),) * 2
        self.display.note(f"turn {self.number}: {len(robots)} robots calibrated; "
                          f"held-out gap {before_after[0]:.3f} -> {before_after[1]:.3f}")  # fmt: skip
        return out, {"before": _finite(before_after[0]), "after": _finite(before_after[1])}

    def samples(self, standing: Standing, robot: str) -> dict[str, NDArray[np.float64]]:
        """Joint samples of a robot's parameters; nominal values before its first calibration."""
        digest = standing.fits.get(robot, "")
        if not digest:
            return self.task.scene.nominal(1)
        fitted: Fitted = work.fitted_from(json_of(self.store, self.store.artifact(digest)))
        values = fitted.values()
        return self.task.scene.nominal(len(fitted.samples)) | values

    def outlook(self, fit: str) -> float:
        """How often an expert told this calibration succeeds in worlds drawn from it."""
        return float(json_of(self.store, self.store.artifact(fit))["outlook"])

    def tell(self, standing: Standing, robot: str) -> tuple[float, ...]:
        """What a release tells the policy about a robot."""
        return tuple(float(x) for x in self.task.tell(self.samples(standing, robot)))

    def reproduce(self, episodes: Sequence[Episode], standing: Standing) -> dict[str, list[float]]:
        """Replay this turn's failures in the calibrated scenes; robot -> per failure, the share of draws that agree."""
        failed = {r: [e for e in episodes if e.robot == r and e.outcome == "failure"] for r in standing.fits}
        failed = {r: es for r, es in failed.items() if es}
        with self.stage("reproduce", len(failed)):
            jobs = []
            for robot, mine in failed.items():
                logged = attempts_of(self.task, mine)
                self.steps["simulated"] += len(mine) * self.budget.reproductions * self.length
                seed = self.seed("reproduce", self.number, robot)
                inputs = [
                    self.task.name,
                    [e.log_digest for e in mine],
                    standing.fits[robot],
                    self.budget.reproductions,
                    seed,
                ]
                args = (self.task.name, logged, range(len(logged.events)), self.samples(standing, robot),
                        self.budget.reproductions, seed)  # fmt: skip
                jobs.append(lambda i=inputs, a=args: self.cached("reproduce", 1, i, work.replay_failures, *a))
            shares = {r: list(json_of(self.store, a)) for r, a in zip(failed, self.spread(jobs), strict=True)}
        flat = [s for mine in shares.values() for s in mine]
        n = sum(s > REPRODUCED for s in flat)
        self.display.note(f"turn {self.number}: {n} of {len(flat)} failures reproduced in the calibrated scenes")
        return shares

    # learning ---------------------------------------------------------------------------------------------

    def improve(self, standing: Standing) -> tuple[str, str, int]:
        """Demonstrations where the robots are, and a policy trained on from the deployed one."""
        rng = np.random.default_rng(self.seed("worlds", self.number))
        return self.train(self.name, self.worlds(standing, self.budget.demonstrations, rng), False, standing.state)

    def worlds(self, standing: Standing, n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        """Worlds to demonstrate in: two thirds as robots are, one third mixed from several, all spread a little."""
        robots = sorted(standing.fits)
        posts = {r: self.samples(standing, r) for r in robots}
        out: dict[str, NDArray[np.float64]] = {}
        who = rng.integers(len(robots), size=n)
        mixed = rng.random(n) < 1 / 3
        pick = rng.random(n)
        for p in self.task.scene.parameters:
            # parameters of one thing (object., arm., start., ...) stay together: they are known only jointly
            family = digest_of([p.path.split(".")[0], self.number])
            other = np.random.default_rng(int(family[:12], 16)).integers(len(robots), size=n)
            source = np.where(mixed, other, who)
            column = [posts[r][p.path] for r in robots]
            drawn = np.array([column[s][int(u * len(column[s]))] for s, u in zip(source, pick, strict=True)])
            unit = p.to_unit(np.clip(drawn, p.low, p.high)) + 0.03 * rng.standard_normal(n)
            out[p.path] = p.from_unit(np.clip(unit, 0, 1))
        return out

    # proof ------------------------------------------------------------------------------------------------

    def prove(
        self, standing: Standing, policy: str, told: Mapping[str, Sequence[float]]
    ) -> tuple[EvaluationReport, dict[str, Any]]:
        """Candidate against deployed on equal seeds in the calibrated scenes, until the sequential test answers."""
        robots = sorted(standing.fits)
        rule, nominal = self.budget.rule, self.task.told(self.task.scene.nominal(1))[0]
        scenes = tuple(standing.fits[r] for r in robots)
        protocol = EvaluationProtocol(self.task.name, scenes, stratum=self.name, rule=rule)
        test = PairedComparison(rule)
        rows: list[TrialRow] = []
        with self.stage("evaluate", rule.n_max):
            while test.verdict == "continue" and test.n < rule.n_max:
                k = min(self.budget.pairs, rule.n_max - test.n)
                seeds = protocol.seeds(k, start=test.n)
                rng = np.random.default_rng(seeds[0])
                who = [robots[i] for i in rng.integers(len(robots), size=k)]
                values = self._drawn(standing, who, rng)
                both = self.spread(
                    [
                        lambda d=d, t=t, v=values, s=seeds: json_of(self.store, self.cached(  # type: ignore[misc]
                            "trials", 1, [self.task.name, d, t, v, s, self.budget.execute], work.trials,
                            self.task.name, self.store.get(d), t, v, s, self.budget.execute))
                        for d, t in (
                            (policy, np.array([told.get(r, nominal) for r in who])),
                            (standing.policy, np.array([standing.told.get(r, nominal) for r in who])),
                        )
                    ]
                )  # fmt: skip
                self.steps["simulated"] += 2 * k * self.length
                new, old = ([t["outcome"] == "success" for t in side] for side in both)
                rows += [
                    TrialRow(self.task.name, "mujoco", w, s, **t) for w, s, t in zip(who, seeds, both[0], strict=True)
                ]
                test.update_all(new, old)
                self.display.at(test.n, rule.n_max)
        with self.stage("gate"):
            report = EvaluationReport(protocol.digest, policy, tuple(rows), test.to_json(), locked_environment())
            stored = self.store.put("report", json.dumps(report.to_json(), sort_keys=True).encode(), parents=[policy],
                                    producer="flyball.evaluation@1", labels={"turn": self.number})  # fmt: skip
            decision = decide(report, candidate=policy, task=self.task.name, deployed=True, rules=GateRules())
            self.report_digest = stored.digest
        self.display.note(
            f"turn {self.number}: gate {'allows' if decision.allowed else 'refuses'}: " + "; ".join(decision.reasons)
        )
        return report, decision.to_json()

    def _drawn(
        self, standing: Standing, who: Sequence[str], rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        """One posterior draw per trial, of the robot it stands for."""
        posts = {r: self.samples(standing, r) for r in set(who)}
        picks = [int(rng.integers(len(next(iter(posts[r].values()))))) for r in who]
        paths = [p.path for p in self.task.scene.parameters]
        return {p: np.array([posts[r][p][i] for r, i in zip(who, picks, strict=True)]) for p in paths}

    # rollout ----------------------------------------------------------------------------------------------

    def release(
        self,
        standing: Standing,
        policy: str,
        state: str,
        told: Mapping[str, Sequence[float]],
        report: EvaluationReport,
        row: dict[str, Any],
    ) -> Standing:
        """Sign the candidate, try it on a canary, then everybody or nobody.

        A canary that fails may itself be misunderstood: the candidate is then signed once more without that robot's new
        calibration and tried on another. Two tries, each with its stated error rate, and no more.
        """
        rested: list[str] = []
        row["rollout"] = []
        for suffix in ("", "-b"):
            name = self.name + suffix
            with self.stage("release"):
                kept = {r: standing.told[r] for r in rested if r in standing.told}
                given = {r: tuple(v) for r, v in told.items() if r not in rested} | kept
                files = {"policy.onnx": self.store.get(policy), "calibrations.json": self.calibrations_file(given)}
                self.operator.publish(
                    name, files, (self.report_digest,), execute=self.budget.execute, rollback_to=standing.release,
                    runtime=locked_environment(),
                )  # fmt: skip
            with self.stage("rollout"):
                canary, good = self.canary(report, rested)
                test = CanaryVerdict(good, good - CANARY_DROP)
                rollout = self.operator.roll_out(name, standing.release, canary, test, self.number, self.budget.canary)
            row["rollout"] += [asdict(r) | {"turn": self.number} for r in rollout.rows if r.kind != "outcome"]
            counted = rollout.counted
            self.display.note(
                f"turn {self.number}: {name} {rollout.phase} after {sum(r.success for r in counted)} of {len(counted)} "
                f"canary attempts on {canary}"
            )
            if rollout.phase == "done":
                row["released"], row["verdict"] = True, "promoted"
                return replace(standing, release=name, policy=policy, state=state, told=given)
            row["verdict"] = "rolled back"
            rested.append(canary)
        return standing

    def canary(self, report: EvaluationReport, rested: Sequence[str]) -> tuple[str, float]:
        """The robot on which the evaluation expects most, and the success rate it must show there.

        Where simulation is surest, a failure says most about the release. Those in ``rested`` have failed.
        """
        proven = {r: i.mean for r, i in report.per_robot().items()}
        robot = max(self.operator.robots, key=lambda r: (r not in rested, proven.get(r, 0.0), r))
        return robot, float(np.clip(proven.get(robot, 0.0) - 0.05, 0.5, 0.9))
