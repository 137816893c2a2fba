"""Crash tests: a failure kept as a file that can be tried again, before and after what was changed.

In: a case and what would have helped. Out: a JSON file with the world, the start, the seeds, what the policy is told
and what is expected; ``check`` tries it again. And variations around the boundary, in the format of
``flyball variations``, so that the next policy is trained where this one failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import InputError, Missing, Refused
from flyball.base.config import from_plain
from flyball.base.durable import write_durably
from flyball.calibration.explain.case import PolicyMaker
from flyball.scenes import Variation
from flyball.scenes.distributions import LogUniform, Uniform
from flyball.scenes.variation import JointSamples, Vary
from flyball.tasks import Task, tasks
from flyball.tasks.world import World

FORMAT = "flyball.crash-test@1"
MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class CrashTest:
    """A failure that can be tried again.

    Attributes:
      format: ``flyball.crash-test@1``.
      task, scene: name of the task, digest of its scene.
      policy: digest of the policy file; "expert" for the task's own.
      execute: actions of a chunk that are executed.
      values: parameter path -> one value per world.
      starts: joint name -> start position per world.
      seeds: one per world.
      before: what the policy was told, (c,), and the share of the worlds that failed then.
      after: what it is to be told per world (n, c), and the share that succeeded then; None when nothing helped.
      group: how it failed.
      says: the explanation's sentence.
    """

    format: str
    task: str
    scene: str
    policy: str
    execute: int
    values: Mapping[str, Sequence[float]]
    starts: Mapping[str, Sequence[Sequence[float]]]
    seeds: Sequence[int]
    group: str
    before: Mapping[str, Any]
    after: Mapping[str, Any] | None
    says: str = ""

    def save(self, path: Path) -> None:
        """Write it."""
        write_durably(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> CrashTest:
        """Inverse of ``save``.

        Raises:
          Missing, InputError: in one line, what is wrong with the file.
        """
        try:
            if path.stat().st_size > MOST_BYTES:
                raise InputError(f"{path.stat().st_size} bytes", where=str(path), allowed=f"at most {MOST_BYTES}")
            data = json.loads(path.read_bytes())
        except OSError as err:
            raise Missing(err.strerror or "cannot be read", where=str(path), allowed="a crash test") from err
        except (ValueError, RecursionError) as err:
            raise InputError(f"is not JSON: {err}", where=str(path), allowed="a crash test") from err
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError("is no crash test", where=str(path), allowed=f'"format": "{FORMAT}"')
        test = from_plain(cls, data, where=str(path))
        test.examine(str(path))
        return test

    def examine(self, where: str) -> Task:
        """Refuse what cannot be tried.

        Raises:
          Missing, InputError: naming the key.
          Refused: the task's scene is another one by now.
        """
        task: Task = tasks.load(self.task)
        n = len(self.seeds)
        if task.scene.digest != self.scene:
            raise Refused(
                f"the scene of {self.task} is {task.scene.digest[:12]}, this test is of {self.scene[:12]}",
                where=where,
                run_next="flyball explain EPISODE again",
            )
        try:
            sizes = {k: len(np.asarray(v, float)) for k, v in {**self.values, **self.starts}.items()}
            told = np.asarray(self.before["told"], float)
            after = np.asarray(self.after["told"], float) if self.after else np.tile(told, (n, 1))
        except (ValueError, TypeError, KeyError) as err:
            raise InputError(f"its numbers cannot be read ({err})", where=where) from err
        if not 0 < n <= 1024 or any(k != n for k in sizes.values()):
            raise InputError(
                f"{n} seeds, other lists of {sorted(set(sizes.values()))}", where=where, allowed="one each"
            )
        if told.shape != (len(task.conditioning),) or after.shape != (n, len(task.conditioning)):
            raise InputError("what is told has the wrong shape", where=where, allowed=", ".join(task.conditioning))
        for path, x in self.values.items():
            task.scene.parameter(path)
            if not np.isfinite(np.asarray(x, float)).all():
                raise InputError(f"{path} is not finite", where=where)
        return task

    def check(self, policy: PolicyMaker, *, threads: int = 2) -> dict[str, Any]:
        """Try again.

        Returns:
          ``before``: share that fails when told what it was told then; ``after``: share that succeeds when
          told better; ``holds``: both are within 0.25 of what was seen when the test was made (engines and libraries
          differ in last bits, and worlds on the boundary fall either way).
        """
        task: Task = tasks.load(self.task)
        n = len(self.seeds)
        world = World(task, n, threads=threads)
        values = {k: np.asarray(v, float) for k, v in self.values.items()}
        starts = {k: np.asarray(v, float) for k, v in self.starts.items()}
        out: dict[str, Any] = {"after": None}
        told = np.tile(np.asarray(self.before["told"], float), (n, 1))
        judged = world.run(policy(told), values, list(self.seeds), starts=starts).judge(task)
        out["before"] = float(np.mean([j.outcome == "failure" for j in judged]))
        holds = abs(out["before"] - self.before["fails"]) <= 0.25
        if self.after is not None:
            told = np.asarray(self.after["told"], float)
            judged = world.run(policy(told), values, list(self.seeds), starts=starts).judge(task)
            out["after"] = float(np.mean([j.outcome == "success" for j in judged]))
            holds &= abs(out["after"] - self.after["succeeds"]) <= 0.25
        return out | {"holds": bool(holds)}


def around_boundary(
    task: Task, values: Mapping[str, np.ndarray], path: str, between: tuple[float, float]
) -> tuple[Variation, ...]:
    """Worlds to train on: one parameter across its boundary, the others as in the failure.

    Args:
      values: the failure's worlds, path -> (s,).
      path: the parameter that decides.
      between: where it failed and where it would have held; the range goes half as far again on both sides.
    """
    p = task.scene.parameter(path)
    u = np.sort(np.clip(p.to_unit(np.array(between)), 0, 1))
    reach = 0.5 * (u[1] - u[0]) + 0.02
    low, high = (float(x) for x in p.from_unit(np.clip([u[0] - reach, u[1] + reach], 0, 1)))
    law = LogUniform(low, high) if p.scale == "log" else Uniform(low, high)
    rest = [q.path for q in task.scene.parameters if q.path != path and np.ptp(values[q.path]) > 0]
    samples = np.round(np.column_stack([values[q] for q in rest]), 7) if rest else None
    return (Vary(path, law), *((JointSamples(tuple(rest), samples),) if samples is not None else ()))
