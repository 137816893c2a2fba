"""Do engines agree? The same policies on the same worlds in several physics engines.

In: a task, policies, engines, parameter values and seeds of the trials. Out: outcomes of every trial, and from them how
often engines end a trial alike, whether they rank policies alike, and what they say together. Engines that share a
formulation (MuJoCo and its ports) make the same errors: they count as one vote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from flyball.base import InputError, Unsupported
from flyball.engines import engines as engine_table
from flyball.engines import traits
from flyball.evaluation.statistics import Interval, clopper_pearson, difference_interval, wilson
from flyball.tasks import Task
from flyball.tasks.task import Controller, Values
from flyball.tasks.world import World

MakePolicy = Callable[[int], Controller]
"""A controller for so many worlds, new for every engine: controllers may have state."""


@dataclass(frozen=True)
class Tried:
    """Trials of one policy in one engine.

    Attributes:
      engine, version: of the engine.
      formulation: what kind of physics it is; engines of one kind are one vote.
      policy: its name.
      groups: per trial "" for success, else what happened.
    """

    engine: str
    version: str
    formulation: str
    policy: str
    groups: tuple[str, ...]

    @property
    def successes(self) -> NDArray[np.bool_]:
        """Per trial."""
        return np.array([g == "" for g in self.groups])


def try_on(
    task: Task, policies: Mapping[str, MakePolicy], engines: Sequence[str], values: Values, seeds: Sequence[int],
    tell: Callable[[str], None] = lambda text: None,
) -> list[Tried]:  # fmt: skip
    """Try every policy in every engine on the same worlds: parameters (n,), seeds and so starts and sensor noise.

    Args:
      tell: is told of the trials that begin; of nothing while it may yet turn out that they are not possible.

    Raises:
      NotPossible: an engine is not installed. Unsupported: it lacks what the task needs, by name. No trial is made
        then.
    """
    out = []
    loaded = {name: engine_table.load(name)() for name in engines}
    worlds = {}
    for name in engines:
        worlds[name] = World(task, len(seeds), engine=name, threads=0)
        try:
            worlds[name].reset(values, seeds)
        except Unsupported as err:
            raise Unsupported(
                f"{task.name}: {err.what}", where=err.where or f"engine {name}", allowed=err.allowed,
                run_next=err.run_next or f"without --engine {name}",
            ) from err  # fmt: skip
    for name, engine in loaded.items():
        world = worlds[name]
        for policy, make in policies.items():
            tell(f"{name}: {policy}")
            judged = world.run(make(len(seeds)), values, seeds).judge(task)
            groups = tuple("" if j.outcome == "success" else j.group or j.outcome for j in judged)
            out.append(Tried(name, engine.version, traits(engine).formulation, policy, groups))
    return out


@dataclass(frozen=True)
class Pair:
    """Two engines on the same trials.

    Attributes:
      engines: their names.
      independent: whether their formulations differ.
      alike: share of trials (all policies) that both end in success or both in failure, with an interval.
      kappa: Cohen's kappa of success, 1 is perfect, 0 is chance; NaN where all outcomes are the same.
      same_group: share of the trials that fail in both where the same happened; NaN without such trials.
      rank: Kendall's tau-b between the engines' success rates of the policies; NaN for fewer than two, or all tied.
    """

    engines: tuple[str, str]
    independent: bool
    alike: Interval
    kappa: float
    same_group: float
    rank: float


@dataclass(frozen=True)
class Agreement:
    """What several engines say of the same trials.

    Attributes:
      tried: one per engine and policy.
      pairs: every two engines.
      votes: formulation -> its engines.
      unanimous: share of trials that end alike in all engines, with an interval.
    """

    tried: tuple[Tried, ...]
    pairs: tuple[Pair, ...]
    votes: Mapping[str, tuple[str, ...]]
    unanimous: Interval

    def better(self, one: str, other: str, alpha: float = 0.05) -> dict[str, str]:
        """Which of two policies succeeds more often, by vote: formulation -> a policy's name, or ``undecided``.

        Each vote is the paired comparison in its first engine; its error rate is alpha.
        """
        out = {}
        for vote, names in self.votes.items():
            a, b = (self._of(names[0], p).successes for p in (one, other))
            found = difference_interval(int((a & ~b).sum()), int((b & ~a).sum()), int((a == b).sum()), 1 - alpha)
            out[vote] = one if found.low > 0 else other if found.high < 0 else "undecided"
        return out

    def _of(self, engine: str, policy: str) -> Tried:
        return next(t for t in self.tried if (t.engine, t.policy) == (engine, policy))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; what is not a number is None."""

        def number(x: float) -> float | None:
            return None if np.isnan(x) else float(x)

        return {
            "trials": len(self.tried[0].groups),
            "engines": [
                {
                    "engine": t.engine,
                    "version": t.version,
                    "formulation": t.formulation,
                    "policy": t.policy,
                    "success": clopper_pearson(int(t.successes.sum()), len(t.groups)).to_json(),
                    "failures": {g: t.groups.count(g) for g in sorted(set(t.groups) - {""})},
                    "outcomes": [g or "success" for g in t.groups],
                }
                for t in self.tried
            ],
            "pairs": [
                {
                    "engines": list(p.engines),
                    "independent": p.independent,
                    "alike": p.alike.to_json(),
                    "kappa": number(p.kappa),
                    "same_group": number(p.same_group),
                    "rank": number(p.rank),
                }
                for p in self.pairs
            ],
            "votes": {k: list(v) for k, v in self.votes.items()},
            "unanimous": self.unanimous.to_json(),
        }


def agreement(tried: Sequence[Tried]) -> Agreement:
    """How far engines agree.

    Raises:
      InputError: fewer than two engines, or trials that are not the same ones.
    """
    names = list(dict.fromkeys(t.engine for t in tried))
    policies = list(dict.fromkeys(t.policy for t in tried))
    table = {(t.engine, t.policy): t for t in tried}
    if len(names) < 2:
        raise InputError(f"{len(names)} engine", allowed="at least two", where="agreement")
    if len(table) != len(tried) or len(table) != len(names) * len(policies) or len({len(t.groups) for t in tried}) != 1:
        raise InputError("not every policy has the same trials in every engine", where="agreement")
    ended = {n: np.concatenate([table[n, p].successes for p in policies]) for n in names}
    what = {n: np.concatenate([np.array(table[n, p].groups, object) for p in policies]) for n in names}
    rates = {n: [float(table[n, p].successes.mean()) for p in policies] for n in names}
    kinds = {n: table[n, policies[0]].formulation for n in names}
    pairs = []
    for a, b in combinations(names, 2):
        same, failed = ended[a] == ended[b], ~ended[a] & ~ended[b]
        pairs.append(
            Pair(
                (a, b),
                kinds[a] != kinds[b],
                wilson(int(same.sum()), len(same)),
                _kappa(ended[a], ended[b]),
                float((what[a] == what[b])[failed].mean()) if failed.any() else float("nan"),
                _rank(rates[a], rates[b]),
            )
        )
    votes = {k: tuple(n for n in names if kinds[n] == k) for k in dict.fromkeys(kinds.values())}
    united = np.ones(len(same), bool)
    for n in names[1:]:
        united &= ended[n] == ended[names[0]]
    return Agreement(tuple(tried), tuple(pairs), votes, wilson(int(united.sum()), len(united)))


def _kappa(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Cohen's kappa of two raters (Cohen 1960)."""
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float("nan") if chance == 1 else float(((a == b).mean() - chance) / (1 - chance))


def _rank(a: Sequence[float], b: Sequence[float]) -> float:
    if len(a) < 2 or len(set(a)) == 1 or len(set(b)) == 1:
        return float("nan")
    return float(kendalltau(a, b).statistic)
