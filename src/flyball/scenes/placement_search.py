"""The search behind ``placement``: draw, bring into place, push apart, and find out what conflicts.

In: a problem. Out: states in the wanted worlds, success, conflicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.scenes.placement_problem import Problem, State
from flyball.scenes.portable import Array
from flyball.scenes.relations import Relation

LOOSE = 1e-9
"""Within this inequalities hold [m]."""
_FIELDS = ("x", "y", "c", "s")


@dataclass(frozen=True)
class Conflict:
    """Relations that were found to exclude each other; leaving out any one of them lets the others hold.

    Attributes:
      relations: the set.
      worlds: world numbers that it explains.
      short: the least by which any of them was missed [m], in the first of these worlds.
      attempts: how many were made.
    """

    relations: tuple[Relation, ...]
    worlds: NDArray[np.int64]
    short: float
    attempts: int

    def __str__(self) -> str:
        names = "; ".join(str(r) for r in self.relations)
        by = f", short by {self.short * 100:.2g} cm" if 0 < self.short < np.inf else ""
        verb = "cannot hold" if len(self.relations) == 1 else "cannot hold together"
        where = f"{len(self.worlds)} world" + "s" * (len(self.worlds) != 1)
        return f"{verb}: {names} ({where}, {self.attempts} attempts{by})"


class Search:
    """Solves a problem for any rows and any subset of its relations.

    Args:
      problem: objects and relations.
      attempts: at most, per world.
    """

    def __init__(self, problem: Problem, attempts: int) -> None:
        self.problem, self.attempts = problem, attempts
        self._early = min(8, attempts // 2)  # attempts that only reject

    def solve(
        self, rules: tuple[Relation, ...], rows: NDArray, first: int = 0
    ) -> tuple[State, NDArray[np.bool_], Array]:
        """Try to satisfy relations in some rows, attempt after attempt.

        Returns:
          the state, success, and the least excess that was reached, (rows,).
        """
        best, ok = self.problem.start(rows, first), np.zeros(len(rows), bool)
        least = np.full(len(rows), np.inf)
        for attempt in range(self.attempts):
            todo = np.flatnonzero(~ok)
            if not len(todo):
                break
            state = self.problem.start(rows[todo], first + attempt)
            end, ok[todo], short = self._search(rules, state, rows[todo], attempt >= self._early)
            least[todo] = np.minimum(least[todo], short)
            for name in _FIELDS:
                getattr(best, name)[todo] = getattr(end, name)
        return best, ok, least

    def _search(
        self, rules: tuple[Relation, ...], state: State, rows: NDArray, project: bool
    ) -> tuple[State, NDArray[np.bool_], Array]:
        """One attempt: bring exact relations into place, or with ``project`` all of them, until all hold."""
        end, ok, least = state.rows(np.arange(len(rows))), np.zeros(len(rows), bool), np.full(len(rows), np.inf)
        quick = [r for r in rules if r.kind != "reachable by"]
        slow = [r for r in rules if r.kind == "reachable by"]
        movers = quick if project else [r for r in quick if r.exact or r.kind == "facing"]
        todo, steps = np.arange(len(rows)), 60 if project else 10
        goal, improved = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
        for step in range(steps + 1):
            here = rows[todo]
            worst = np.full(len(todo), -np.inf)
            for r in quick:
                worst = np.maximum(worst, self.problem.apply(r, state, here, False))
            holds = worst <= LOOSE
            good = np.flatnonzero(holds)
            for r in slow:
                if len(good):
                    within = self.problem.apply(r, state.rows(good), here[good], False) <= 0
                    worst[good[~within]], good = np.inf, good[within]
            least[todo] = np.minimum(least[todo], worst)
            ok[todo[good]] = True
            for name in _FIELDS:
                getattr(end, name)[todo] = getattr(state, name)
            better = worst < 0.99 * goal[todo]
            goal[todo[better]], improved[todo[better]] = worst[better], step
            # out of reach: projection has no remedy, another attempt has; nor where it has come to a standstill
            go_on = np.flatnonzero(~holds & (step - improved[todo] < 12))
            if not len(go_on) or step == steps or not movers:
                break
            todo, state = todo[go_on], state.rows(go_on)
            for r in movers:
                self.problem.apply(r, state, rows[todo], True)
        return end, ok, least

    def _feasible(self, rules: tuple[Relation, ...], row: int) -> tuple[bool, float, State]:
        """Whether one row has a solution, all attempts at once; the least excess and the states reached."""
        tries, rows = [], np.full(self.attempts, row)
        for attempt in range(self.attempts):
            tries.append(self.problem.start(rows[:1], attempt))
        state = State(*(np.concatenate([getattr(t, name) for t in tries]) for name in _FIELDS))
        early = self._early
        _, ok, first = self._search(rules, state.rows(np.arange(early)), rows[:early], False)
        if ok.any():
            return True, 0.0, state
        end, ok, later = self._search(rules, state.rows(np.arange(early, self.attempts)), rows[early:], True)
        return bool(ok.any()), float(min(first.min(initial=np.inf), later.min(initial=np.inf))), end

    def conflicts(self, failed: NDArray) -> tuple[Conflict, ...]:
        """Minimal sets of relations that fail, by leaving out one after the other; at most four sets."""
        out: list[Conflict] = []
        left = failed
        while len(left) and len(out) < 4:
            row = int(left[0])
            needed = self._suspects(row)
            for r in tuple(needed):
                rest = tuple(x for x in needed if x is not r)
                if not self._feasible(rest, row)[0]:
                    needed = rest
            _, short, _ = self._feasible(needed, row)
            same = ~self.solve(needed, left)[1]
            same[0] = True
            out.append(Conflict(needed, self.problem.number[left[same]], short, self.attempts))
            left = left[~same]
        return tuple(out)

    def _suspects(self, row: int) -> tuple[Relation, ...]:
        """Relations to begin with: those that the best attempt broke and what their objects stand on, if that fails."""
        _, _, end = self._feasible(self.problem.rules, row)
        rows = np.full(len(end.x), row)
        excess = np.stack([self.problem.apply(r, end, rows, False) for r in self.problem.rules])
        best = int(np.argmin(np.maximum(np.minimum(excess, 1e3), 0).sum(axis=0)))
        broken = {r for r, x in zip(self.problem.rules, excess[:, best], strict=True) if x > LOOSE}
        named = {name for r in broken for name in (r.item, r.other)}
        few = tuple(r for r in self.problem.rules if r in broken or (r.kind in ("on", "inside") and r.item in named))
        return few if not self._feasible(few, row)[0] else self.problem.rules
