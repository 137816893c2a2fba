"""Controls: what the loop is compared with, on the same fleet, the same attempts and the same budget.

In: the name of a control and the settings of a run. Out: a policy that is prepared once, before the first turn, and
turns in which nothing is learned (``calibration-only`` alone is told what calibration finds).

The rule of the budget: a control may spend the simulated and gradient steps of a loop that learns in every turn
(``allowance``). Gradient steps are spent in full; demonstrations up to the number that these gradient steps see
``PASSES`` times, which is more simulation than a loop really does (it stops testing when the answer is clear). A
control knows of the world what the loop knows before its first log: the parameters' ranges and what is plausible
(``broad``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.base.steps import json_of, step
from flyball.datagen.demonstrations import DemonstrationConfig, Demonstrations, demonstrate
from flyball.episodes import Episode
from flyball.learning.flow import FlowConfig, train
from flyball.learning.recipe import TrainedPolicy
from flyball.loop import fitting
from flyball.loop.config import Budget, DemoConfig
from flyball.loop.stages import Stages, Standing
from flyball.loop.turn import Turn
from flyball.loop.work import GAP_DRAWS
from flyball.policies import Policy
from flyball.policies.learned import LearnedPolicy
from flyball.policies.scripted import Scripted
from flyball.tasks import Task, tasks
from flyball.tasks.world import World

PASSES = 1.5
"""How often the gradient steps see a demonstration on average; a control then simulates more than loops have done."""
HISTORY = 5
"""Earlier looks that the policy of ``randomization`` is shown, so that it can adapt."""
TRIALS = 512
"""Simulated trials per script when the best of several is chosen: a standard error of two points."""


@dataclass(frozen=True)
class Prepared:
    """A control that is ready for the robots.

    Attributes:
      format: of its release, see ``flyball.fleet.updater.formats``.
      policy: digest of its policy file.
      told: what every robot's policy is told, (c,).
      execute: actions of a chunk that are executed.
      what: in words.
    """

    format: str
    policy: str
    told: tuple[float, ...]
    execute: int
    what: str


def controls(task: Task) -> list[str]:
    """Names of a task's controls; scripts that differ by a number alone are one control, the best of them."""
    return ["nominal", *_families(task), "randomization", "calibration-only", "expert"]


def _families(task: Task) -> dict[str, list[str]]:
    """Scripted control -> the baselines it is chosen from."""
    out: dict[str, list[str]] = {}
    for name in task.baselines():
        stem, _, tail = name.rpartition("-")
        out.setdefault(stem if tail.replace(".", "", 1).isdigit() else name, []).append(name)
    return out


def broad(task: Task, n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """n worlds as anybody would draw them before the first log: the parameters' ranges, as far as plausible."""
    out: dict[str, list[NDArray[np.float64]]] = {p.path: [] for p in task.scene.parameters}
    have = 0
    while have < n:
        drawn = {p.path: p.from_unit(rng.random(4 * n)) for p in task.scene.parameters}
        kept = rng.random(4 * n) < task.plausible(drawn)
        have += int(kept.sum())
        for path, x in drawn.items():
            out[path].append(x[kept])
    return {path: np.concatenate(parts)[:n] for path, parts in out.items()}


def tellable(task: Task) -> list[str]:
    """Parameters that change what an informed policy is told; all others only experience can teach."""
    probes = broad(task, 16, np.random.default_rng(0))
    before = task.told(probes)
    out = []
    for p in task.scene.parameters:
        moved = dict(probes) | {p.path: p.from_unit((p.to_unit(probes[p.path]) + 0.3) % 1)}
        if not np.allclose(task.told(moved), before):
            out.append(p.path)
    return out


def allowance(budget: Budget, robots: int, turns: int, length: int) -> dict[str, int]:
    """What a loop that learns in every turn spends.

    Args:
      length: control periods of an attempt.

    Returns:
      ``attempts`` simulated, ``simulated`` control periods in them, ``gradient`` steps.
    """
    replays = sum(c * a for c, a in zip(budget.replay.candidates, budget.replay.attempts, strict=True))
    per_robot = replays + 3 * GAP_DRAWS + 2 * (1 + GAP_DRAWS)
    look = robots * per_robot + 2 * budget.rule.n_max  # a turn may look twice, and trains once
    attempts = budget.demonstrations + turns * (2 * look + budget.demonstrations)
    gradient = budget.first.steps + turns * budget.later.steps
    return {"attempts": attempts, "simulated": attempts * length, "gradient": gradient}


def prepare(stages: Stages, control: str, robots: int, turns: int) -> Prepared:
    """Make a control's policy within the budget; through the step cache of the stages' workspace.

    Raises:
      InputError: no such control.
    """
    task, budget = stages.task, stages.budget
    families = _families(task)
    check(task, control)
    may = allowance(budget, robots, turns, stages.length)
    nominal = task.told(task.scene.nominal(1))[0]
    if control == "expert":
        return _script(stages, "expert", nominal)
    if control in families:
        return _script(stages, _best(stages, control, families[control], may["attempts"]), nominal)
    config = replace(budget.first, steps=may["gradient"])
    n = min(may["attempts"], max(8, round(config.steps * config.batch / (PASSES * stages.length))))
    windows, controller = budget.windows, ""
    if control == "nominal":
        values = task.scene.nominal(n)
        told = task.told(values)
    else:
        values = broad(task, n, np.random.default_rng(stages.seed("broad", control)))
        if control == "calibration-only":
            values = task.scene.nominal(n) | {p: values[p] for p in tellable(task)}
            told = task.told(values)
        else:
            scripts = {name: names for name, names in families.items() if len(names) == 1}  # those that react
            family = next(iter(scripts or families))
            controller = _best(stages, family, families[family], may["attempts"] // 4)
            told = np.repeat(blind(task, controller)[None], n, axis=0)
            windows = replace(windows, history=HISTORY, stride=budget.execute)
            nominal = told[0]
    policy = _trained(stages, control, controller, values, told, windows, config)
    what = f"{n} demonstrations of {controller or 'the informed expert'}, {config.steps} gradient steps"
    return Prepared("onnx", policy, tuple(float(x) for x in nominal), budget.execute, what)


def check(task: Task, control: str) -> None:
    """Refuse a name that is no control.

    Raises:
      InputError: naming those there are.
    """
    if control not in controls(task):
        raise InputError(f"no control named {control!r}", where="--control", allowed=", ".join(controls(task)))


def blind(task: Task, controller: str) -> NDArray[np.float64]:
    """The constant that a policy without calibration is told, (c,).

    Nominal, unless the codes of a task then cannot express what a script does where it succeeds: then the one nominal
    value that matters most is moved within its plausible range, no further than needed.
    """
    n = 128
    values = broad(task, 8 * n, np.random.default_rng(1))
    nominal = task.told(task.scene.nominal(1))[0]
    done = World(task, n).run(task.baselines()[controller](n), {p: x[:n] for p, x in values.items()}, list(range(n)))
    good = np.array([j.outcome == "success" for j in done.judge(task)])
    observed = {s.name: done.signals[s.name][good, ::3].reshape(-1, s.size) for s in task.embodiment.observations}
    acted = np.concatenate([done.signals[s.name][good, ::3] for s in task.embodiment.actions], axis=-1)
    acted = acted.reshape(-1, 1, acted.shape[-1])

    def lost(told: NDArray[np.float64]) -> float:
        rows = np.repeat(told[None], len(acted), axis=0)
        return float(np.abs(task.decode(observed, rows, task.encode(observed, rows, acted)) - acted).mean())

    enough = 1e-3 * lost(nominal)
    if not good.any() or enough < 1e-9:
        return nominal
    best = nominal
    for share in (0.6, 0.7, 0.8, 0.9, 0.98):
        for end in np.quantile(task.told(values), [share, 1 - share], axis=0):
            for j in range(len(nominal)):
                told = nominal.copy()
                told[j] = end[j]
                if lost(told) < lost(best):
                    best = told
        if lost(best) <= enough:
            break
    return best


def policy_of(task: Task, prepared: Prepared, policy: bytes, told: NDArray[np.float64]) -> Policy:
    """A prepared control as one robot runs it; ``told`` (c,) where it heeds it."""
    if prepared.format != "script":
        return LearnedPolicy.load(policy, task, told)
    name = json.loads(policy)["controller"]
    make = (lambda: task.expert(told[None])) if name == "expert" else (lambda: task.baselines()[name](1))
    return Scripted(make, 1.0 / task.control_hz)


# work that is spread over processes -----------------------------------------------------------------------


def shown_by(
    task_name: str, controller: str, values: Mapping[str, NDArray[np.float64]], told: NDArray[np.float64],
    seeds: Sequence[int], config: DemonstrationConfig,
) -> Demonstrations:  # fmt: skip
    """Demonstrations of a script, or of the informed expert when none is named."""
    task: Task = tasks.load(task_name)
    script = task.baselines()[controller](len(seeds)) if controller else None
    return demonstrate(task, values, told, seeds, config, controller=script)


def learned_from(task_name: str, shown: Demonstrations, history: int, config: FlowConfig, seed: int) -> TrainedPolicy:
    """A policy trained on demonstrations."""
    task: Task = tasks.load(task_name)
    return train(shown.features, shown.codes, config, seed=seed, told=task.conditioning, history=history,
                 spec_hash=task.embodiment.spec_hash())  # fmt: skip


def script_wins(task_name: str, script: str, values: Mapping[str, NDArray[np.float64]], seeds: Sequence[int]) -> int:
    """Trials that a script wins."""
    task: Task = tasks.load(task_name)
    done = World(task, len(seeds)).run(task.baselines()[script](len(seeds)), values, seeds)
    return sum(j.outcome == "success" for j in done.judge(task))


BATCH = 128


def _parts(n: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(n), -(-n // BATCH))


def _best(stages: Stages, control: str, names: Sequence[str], attempts: int) -> str:
    """The script of a family that wins most in broadly drawn worlds, the same for all."""
    if len(names) == 1:
        return names[0]
    task = stages.task
    n = max(8, min(TRIALS, attempts // len(names)))
    seed = stages.seed("select", control)
    values = broad(task, n, np.random.default_rng(seed))
    stages.steps["simulated"] += n * len(names) * stages.length
    with stages.stage("select", len(names)):
        jobs = [
            lambda s=script, r=rows: json_of(stages.store, stages.cached(
                "script_wins", 1, [task.name, s, n, seed, r], script_wins, task.name, s,
                {p: x[r] for p, x in values.items()}, [seed + int(i) for i in r]))
            for script in names for rows in _parts(n)
        ]  # fmt: skip
        won = np.array(stages.spread(jobs)).reshape(len(names), -1).sum(axis=1)
    best = int(np.argmax(won))
    stages.display.note(f"{control}: {names[best]} wins {won[best]} of {n} broadly drawn trials")
    return names[best]


def _script(stages: Stages, controller: str, told: NDArray[np.float64]) -> Prepared:
    content = json.dumps({"controller": controller}).encode()
    stored = stages.store.put("policy", content, producer="flyball.loop.controls@1", labels={"controller": controller})
    return Prepared("script", stored.digest, tuple(float(x) for x in told), 1, f"the script {controller}")


def _trained(
    stages: Stages, control: str, controller: str, values: Mapping[str, NDArray[np.float64]],
    told: NDArray[np.float64], windows: DemonstrationConfig, config: FlowConfig,
) -> str:  # fmt: skip
    """Digest of a policy trained on demonstrations in given worlds."""
    task, store = stages.task, stages.store
    n, seed = len(told), stages.seed("train", control)
    stages.steps["simulated"] += n * stages.length
    stages.steps["gradient"] += config.steps

    def make() -> bytes:
        with stages.stage("demonstrate", n):
            parts = stages.spread([
                lambda r=rows: stages.executor.submit(  # type: ignore[misc]
                    shown_by, task.name, controller, {p: x[r] for p, x in values.items()}, told[r],
                    [seed + int(i) for i in r], windows).result()
                for rows in _parts(n)
            ])  # fmt: skip
            shown = Demonstrations.joined(parts)
        stages.display.note(f"{control}: {shown.kept} of {shown.attempts} demonstrations succeed")
        with stages.stage("train", config.steps):
            made = stages.executor.submit(learned_from, task.name, shown, windows.history, config, seed).result()
        return bytes(made.onnx)

    inputs = {"task": task.name, "controller": controller, "values": values, "told": told, "windows": windows,
              "config": config, "seed": seed}  # fmt: skip
    return step(store, "flyball.loop.control", 1, inputs, make, kind="policy").digest


# on the fleet ---------------------------------------------------------------------------------------------


def commission(stages: Stages, control: str) -> Standing:
    """Prepare a control and put it on every robot."""
    operator = stages.operator
    prepared = prepare(stages, control, len(operator.robots), stages.config.turns)
    stages.display.note(f"{control}: {prepared.what}")
    told = {r: prepared.told for r in operator.robots}
    name = f"control-{control}"
    publish(stages, prepared, name, told)
    with stages.stage("install"):
        operator.install("install-first", name, 0)
    stages.store.put_row("demo", "control", asdict(prepared))
    return Standing(name, prepared.policy, told=told)


def publish(stages: Stages, prepared: Prepared, name: str, told: Mapping[str, Sequence[float]], **rest: Any) -> None:
    """Sign a release of a control."""
    file = "policy.json" if prepared.format == "script" else "policy.onnx"
    files = {file: stages.store.get(prepared.policy), "calibrations.json": stages.calibrations_file(told)}
    stages.operator.publish(name, files, (), format=prepared.format, execute=prepared.execute, **rest)


def told_truth(path: str, task_name: str, turn: int) -> dict[str, list[float]]:
    """What the informed expert is told on each robot: the only control that knows. Run it in a process of its own."""
    from flyball.tasks.reality import batched, load_reality

    task: Task = tasks.load(task_name)
    reality = load_reality(path, task)
    at = {r.name: batched(reality.at(r.name, turn)[0], 1) for r in reality.robots}
    return {name: [float(x) for x in task.told(values)[0]] for name, values in at.items()}


class ControlTurn(Turn):
    """A turn of a control: attempts are made and counted; at most what the policy is told changes.

    Args:
      reality: path of the reality file, which only the processes of the robots, and of the expert, open.
    """

    def __init__(self, config: DemoConfig, *parts: Any, reality: str) -> None:
        super().__init__(config, *parts)
        self.control, self._reality = str(config.control), reality
        self._release = ""

    def run(self, number: int, standing: Standing) -> tuple[dict[str, Any], Standing]:
        row, standing = super().run(number, standing)
        if self._release:  # what the attempts were made with
            row["release"], standing = self._release, replace(standing, release=self._release)
        if row["verdict"] == "nothing to learn":
            row["verdict"] = "a control"
        return row, standing

    def attempt(self, standing: Standing) -> list[Episode]:
        if self.control == "expert":
            told = self.executor.submit(told_truth, self._reality, self.task.name, self.number).result()
            standing = replace(standing, release=self._deploy(f"expert-{self.number:03d}", told, standing))
            self._release = standing.release
        return super().attempt(standing)

    def learn(
        self, episodes: Sequence[Episode], sick: Sequence[str], changed: Sequence[str], standing: Standing,
        row: dict[str, Any],
    ) -> Standing:  # fmt: skip
        row["verdict"] = f"{self.control} does not learn"
        if self.control != "calibration-only":
            return standing
        fits, row["held_out"] = fitting.calibrate(self, sick, changed, standing)
        standing = replace(standing, fits={**standing.fits, **fits})
        row["reproduced"] = fitting.counted(fitting.reproduce(self, episodes, standing))
        told = {**standing.told, **{r: fitting.tell(self, standing, r) for r in fits}}
        name = self._deploy(self.name, told, standing)
        row["released"], row["verdict"] = True, "calibrations go out, the policy stays"
        return replace(standing, release=name, told=told)

    def _deploy(self, name: str, told: Mapping[str, Sequence[float]], standing: Standing) -> str:
        """The same policy with other calibrations, on every robot at once."""
        prepared = Prepared(**(self.store.row("demo", "control") or {}))
        with self.stage("install"):
            publish(self, prepared, name, told, rollback_to=standing.release)
            self.operator.install(f"install-{name}", name, self.number)
        return name
