"""Reality files: the hidden physics of virtual robots.

In: a JSON file, or a seed, and the task whose scene names the parameters. Out: a ``Reality`` that says what each robot
is really like at each turn. Only a robot's own process and the one that prints the final report may open such a file;
the loop learns of reality through logs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import InputError, Missing
from flyball.base.durable import write_durably
from flyball.tasks.task import Task, Values
from flyball.tasks.world import Unmodelled, World

MAX_BACKLASH_RAD = 0.05
TIMESTEPS = (1e-4, 5e-3)
"""Least and greatest engine time step a reality may ask for [s]."""
CHANGE_TURN = 2
"""When the world of a drawn reality changes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Change:
    """What is different from a turn on.

    Attributes:
      turn: first turn it holds, 0 or more.
      parameters: path -> value.
    """

    turn: int
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class RobotReality:
    """One robot as it really is.

    Attributes:
      name: of the robot.
      seed: decides its noise and its start states.
      parameters: path -> value; those left out are nominal.
      unmodelled: what no parameter describes.
      changes: in order of turn.
    """

    name: str
    seed: int
    parameters: Mapping[str, float] = field(default_factory=dict)
    unmodelled: Unmodelled = field(default_factory=Unmodelled)
    changes: tuple[Change, ...] = ()

    def given(self, turn: int) -> dict[str, float]:
        """What is not nominal at a turn: path -> value."""
        out = dict(self.parameters)
        for change in self.changes:
            if change.turn <= turn:
                out.update(change.parameters)
        return out


@dataclass(frozen=True)
class Reality:
    """A fleet as it really is.

    Attributes:
      task: the task whose parameters are meant.
      robots: at least one, names unique.
    """

    task: Task
    robots: tuple[RobotReality, ...]

    def robot(self, name: str) -> RobotReality:
        """The robot of that name.

        Raises:
          Missing: naming those there are.
        """
        for r in self.robots:
            if r.name == name:
                return r
        raise Missing.named("robot", name, [r.name for r in self.robots], where="reality")

    def at(self, robot: str, turn: int) -> tuple[dict[str, float], Unmodelled]:
        """Every parameter of a robot at a turn (path -> value, nominal ones too), and what is unmodelled about it."""
        r = self.robot(robot)
        return {p.path: p.nominal for p in self.task.scene.parameters} | r.given(turn), r.unmodelled


def batched(values: Mapping[str, float], n: int) -> dict[str, np.ndarray]:
    """n equal worlds: path -> (n,)."""
    return {path: np.full(n, v) for path, v in values.items()}


def list_parameters(task: Task) -> list[dict[str, Any]]:
    """What a reality of this task may set: path, unit, nominal, low, high and text of each parameter."""
    return [
        {"path": p.path, "unit": p.unit, "nominal": p.nominal, "low": p.low, "high": p.high, "text": p.text}
        for p in task.scene.parameters
    ]


# files ----------------------------------------------------------------------------------------------------


def load_reality(path: str | Path, task: Task) -> Reality:
    """Read a reality file.

    Raises:
      InputError: in one line, the file, the key and what is allowed there.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as err:
        raise Missing("no such reality file", where=str(path)) from err
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"cannot be read: {err}", where=str(path), allowed="JSON in UTF-8") from err
    try:
        data = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as err:
        raise InputError(f"malformed JSON at line {err.lineno} column {err.colno}: {err.msg}", where=str(path)) from err
    except (ValueError, RecursionError) as err:
        raise InputError(f"malformed JSON: {err}", where=str(path)) from err
    top = _table(data, ("robots",), str(path))
    rows = top.get("robots")
    if not isinstance(rows, list) or not rows:
        what = "no robots" if rows in ([], None) else f"got {_short(rows)}"
        raise InputError(what, where=f"{path}: robots", allowed='a list of at least one {"name": ...}')
    robots: list[RobotReality] = []
    for i, row in enumerate(rows):
        robot = _robot(row, task, str(path), i)
        if any(r.name == robot.name for r in robots):
            raise InputError(
                f"{robot.name!r} is there twice", where=f"{path}: robots[{i}]: name", allowed="unique names"
            )
        robots.append(robot)
    return Reality(task, tuple(robots))


def save_reality(reality: Reality, path: str | Path) -> None:
    """Write a reality file; ``load_reality`` is the inverse."""
    rows = []
    for r in reality.robots:
        row: dict[str, Any] = {"name": r.name, "seed": r.seed, "parameters": dict(r.parameters)}
        u = {k: v for k, v in vars(r.unmodelled).items() if v != getattr(Unmodelled(), k)}
        if u:
            row["unmodelled"] = u
        if r.changes:
            row["changes"] = [{"turn": c.turn, "parameters": dict(c.parameters)} for c in r.changes]
        rows.append(row)
    write_durably(Path(path), (json.dumps({"robots": rows}, indent=1) + "\n").encode())


def _robot(row: Any, task: Task, file: str, i: int) -> RobotReality:
    where = f"{file}: robots[{i}]"
    _table(row, ("name", "seed", "parameters", "unmodelled", "changes"), where)
    name = row.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError("is missing" if "name" not in row else f"got {_short(name)}", where=f"{where}: name",
                         allowed="letters, digits, '.', '_' and '-', at most 64")  # fmt: skip
    where = f"{where} ({name})"
    seed = row.get("seed", int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    parameters = _parameters(row.get("parameters", {}), task, f"{where}: parameters")
    rows = row.get("changes", [])
    if not isinstance(rows, list):
        raise InputError(f"got {_short(rows)}", where=f"{where}: changes", allowed="a list")
    changes = []
    for k, change in enumerate(rows):
        at = f"{where}: changes[{k}]"
        _table(change, ("turn", "parameters"), at)
        if "turn" not in change:
            raise InputError("is missing", where=f"{at}: turn", allowed="a whole number from 0 on")
        turn = _whole(change["turn"], f"{at}: turn", 10**6)
        changes.append(Change(turn, _parameters(change.get("parameters", {}), task, f"{at}: parameters")))
    return RobotReality(
        name,
        _whole(seed, f"{where}: seed", 2**63 - 1),
        parameters,
        _unmodelled(row.get("unmodelled", {}), task, f"{where}: unmodelled"),
        tuple(sorted(changes, key=lambda c: c.turn)),
    )


def _parameters(row: Any, task: Task, where: str) -> dict[str, float]:
    """Path -> value, lists spread over the parameters ``key.x``, ``key.y``, ...; all within their ranges."""
    if not isinstance(row, dict):
        raise InputError(f"got {_short(row)}", where=where, allowed="{parameter: value}")
    paths = [p.path for p in task.scene.parameters]
    out: dict[str, float] = {}
    for key, value in row.items():
        at = f"{where}: {key}"
        members = [p for p in paths if p.startswith(key + ".") and "." not in p[len(key) + 1 :]] or [key]
        group = members != [key] and any(len(p.rpartition(".")[2]) == 1 for p in members)
        if key not in paths and not group:
            raise Missing.named("parameter", key, paths, where=where, run_next="flyball demo --list-parameters")
        if group != isinstance(value, list) or (group and len(value) != len(members)):
            names = ", ".join(p.rpartition(".")[2] for p in members)
            allowed = f"a list of {len(members)} numbers: {names}" if group else _range(task, key)
            raise InputError(f"got {_short(value)}", where=at, allowed=allowed)
        for path, v in zip(members, value if group else [value], strict=True):
            if path in out:
                raise InputError(f"{path} is given twice", where=at, allowed="once, as a list or as a number")
            p = task.scene.parameter(path)
            if isinstance(v, bool) or not isinstance(v, (int, float)) or not p.low <= v <= p.high:
                what = "out of range" if isinstance(v, (int, float)) and not isinstance(v, bool) else "not a number"
                raise InputError(f"{_short(v)} is {what}", where=f"{where}: {path}", allowed=_range(task, path))
            out[path] = float(v)
    return out


def _unmodelled(row: Any, task: Task, where: str) -> Unmodelled:
    _table(row, ("timestep", "cone", "backlash_rad"), where)
    step, cone, play = row.get("timestep"), row.get("cone"), row.get("backlash_rad", 0.0)
    period = 1.0 / task.control_hz
    if step is not None:
        allowed = (
            f"a divisor of the control period {period:g} s within [{TIMESTEPS[0]:g}, {TIMESTEPS[1]:g}] s, e.g. 0.001"
        )
        _number(step, *TIMESTEPS, f"{where}: timestep", allowed)
        if abs(round(period / step) * step - period) > 1e-9:
            raise InputError(f"got {_short(step)}", where=f"{where}: timestep", allowed=allowed)
    if cone not in (None, "elliptic", "pyramidal"):
        raise InputError(f"got {_short(cone)}", where=f"{where}: cone", allowed="elliptic, pyramidal")
    _number(play, 0.0, MAX_BACKLASH_RAD, f"{where}: backlash_rad", f"[0, {MAX_BACKLASH_RAD:g}] rad")
    return Unmodelled(None if step is None else float(step), cone, float(play))


def _number(x: Any, low: float, high: float, where: str, allowed: str) -> None:
    if isinstance(x, bool) or not isinstance(x, (int, float)) or not low <= x <= high:
        raise InputError(f"got {_short(x)}", where=where, allowed=allowed)


def _whole(x: Any, where: str, high: int) -> int:
    if isinstance(x, bool) or not isinstance(x, int) or not 0 <= x <= high:
        raise InputError(f"got {_short(x)}", where=where, allowed=f"a whole number from 0 to {high}")
    return x


def _range(task: Task, path: str) -> str:
    p = task.scene.parameter(path)
    return f"[{p.low:g}, {p.high:g}] {p.unit}".strip()


def _table(x: Any, keys: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(x, dict):
        raise InputError(f"got {_short(x)}", where=where, allowed="{" + ", ".join(keys) + "}")
    for key in x:
        if key not in keys:
            raise Missing.named("key", key, keys, where=where)
    return x


def _short(x: Any) -> str:
    text = json.dumps(x)
    return text if len(text) <= 60 else text[:57] + "..."


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key!r} is there twice")
        seen[key] = value
    return seen


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


# drawn ----------------------------------------------------------------------------------------------------


def draw_reality(task: Task, seed: int, robots: int, turns: int) -> Reality:
    """A fleet drawn from ``task.draw_reality``.

    When there is time to recover (``turns`` >= 4), one robot, or two of four and more, gets another object at turn 2:
    one with which the expert succeeds when it is told of it, and fails when it is told of the old one.

    Args:
      seed: decides everything.
      robots: how many, named ``robot-01`` and so on.
      turns: how many turns there will be, 0 to ``turns - 1``.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    drawn = task.draw_reality(rng, robots)
    each = [{path: float(f"{x[i]:.6g}") for path, x in drawn.items()} for i in range(robots)]
    seeds = rng.integers(1, 2**31, robots)
    changed = sorted(rng.choice(robots, min(robots, 2 if robots >= 4 else 1), replace=False)) if turns >= 4 else []
    changes = {int(i): _another_object(task, each[i], rng) for i in changed}
    return Reality(
        task,
        tuple(
            RobotReality(f"robot-{i + 1:02d}", int(seeds[i]), each[i], changes=changes.get(i, ()))
            for i in range(robots)
        ),
    )


def _another_object(task: Task, old: Mapping[str, float], rng: np.random.Generator) -> tuple[Change, ...]:
    """A change of the object that matters and can be mastered; () when none is found."""
    n, rounds, attempts = 24, 4, 6
    nominal = task.scene.nominal(1)
    before = {path: float(x[0]) for path, x in nominal.items()} | dict(old)

    def trial(after: Sequence[Mapping[str, float]], believed: Sequence[Mapping[str, float]]) -> list[bool]:
        values, belief = _stacked(after), _stacked(believed)
        world = World(task, len(after))
        done = world.run(task.expert(task.told(belief)), values, [int(s) for s in rng.integers(1, 2**31, len(after))])
        return [j.outcome == "success" for j in done.judge(task)]

    for _ in range(rounds):
        drawn = task.draw_reality(rng, n)
        objects = [p for p in drawn if p.startswith("object.")] or list(drawn)
        news = [{path: float(f"{drawn[path][i]:.6g}") for path in objects} for i in range(n)]
        after = [before | new for new in news]
        right, wrong = trial(after, after), trial(after, [before] * n)
        for i in range(n):
            if right[i] and not wrong[i]:
                many = [after[i]] * attempts
                if all(trial(many, many)) and not any(trial(many, [before] * attempts)):
                    return (Change(CHANGE_TURN, news[i]),)
    return ()


def _stacked(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    return {path: np.array([r[path] for r in rows]) for path in rows[0]}


def ceiling(task: Task, robot: RobotReality, turn: int, attempts: int) -> float:
    """Success of the informed expert on a robot: share of attempts, 0 to 1."""
    values: Values = batched({p.path: p.nominal for p in task.scene.parameters} | robot.given(turn), attempts)
    world = World(task, attempts, unmodelled=robot.unmodelled)
    seeds = [attempt_seed(robot.seed, k, turn) for k in range(attempts)]
    judged = world.run(task.expert(task.told(values)), values, seeds).judge(task)
    return sum(j.outcome == "success" for j in judged) / attempts


def attempt_seed(robot_seed: int, seed: int, turn: int) -> int:
    """Seed of the world of one attempt: robots that are given equal attempt seeds still meet different boxes."""
    return int(np.random.SeedSequence([robot_seed, seed, turn]).generate_state(1, np.uint64)[0])
