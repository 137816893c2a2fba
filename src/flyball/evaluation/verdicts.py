"""Decisions with stated error rates: may this policy be released, may this release go to every robot.

In: outcomes, one at a time. Out: a verdict that may be read after every trial. Both classes are deterministic in the
outcomes, so a process that was killed resumes by feeding the logged outcomes again. Standard library and numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flyball.base import InputError
from flyball.evaluation.statistics import Interval, difference_interval, log_e_difference, log_e_paired

Comparison = Literal["continue", "better", "not_worse", "worse", "undecided"]
Canary = Literal["continue", "promote", "abort"]


@dataclass(frozen=True)
class ComparisonRule:
    """What a paired comparison must show.

    Attributes:
      margin: the loss of success rate that a release may not have (0.1: ten points).
      alpha: error rate of each statement; see ``PairedComparison``.
      n_max: pairs after which the answer is ``undecided``.
      goal: ``not_worse`` stops as soon as the margin is proven, ``better`` goes on until superiority is.
    """

    margin: float = 0.1
    alpha: float = 0.05
    n_max: int = 400
    goal: Literal["not_worse", "better"] = "not_worse"

    def __post_init__(self) -> None:
        if not 0 < self.margin < 1:
            raise InputError(f"margin = {self.margin:g}", allowed="(0, 1)", where="comparison rule")
        if not 0 < self.alpha < 0.5:
            raise InputError(f"alpha = {self.alpha:g}", allowed="(0, 0.5)", where="comparison rule")
        if self.n_max < 1:
            raise InputError(f"n_max = {self.n_max}", allowed="at least 1", where="comparison rule")


class PairedComparison:
    """A candidate against the deployed policy, on equal seeds, looked at after every pair.

    With d the candidate's success rate minus the deployed one's, whatever the correlation within pairs and however
    often one looks:

    - P(verdict ``better`` | d <= 0) <= alpha
    - P(verdict ``better`` or ``not_worse`` | d <= -margin) <= alpha: the promotion gate's error rate
    - P(verdict ``worse`` | d >= 0) <= alpha

    ``worse`` means less good at all; within the margin both ``worse`` and ``not_worse`` are true, and the first to be
    proven is said. Where pairs come from several robots or scenes, draw these in random order: the statements are then
    about the mix they are drawn from.
    """

    def __init__(self, rule: ComparisonRule | None = None) -> None:
        self.rule = rule or ComparisonRule()
        self.wins = self.losses = self.both = self.neither = 0
        self.verdict: Comparison = "continue"

    @property
    def n(self) -> int:
        """Pairs seen."""
        return self.wins + self.losses + self.both + self.neither

    def update(self, candidate: bool, deployed: bool) -> Comparison:
        """Take one pair of outcomes on one seed. Pairs after the verdict are ignored."""
        return self.update_all([candidate], [deployed])

    def update_all(self, candidate: Iterable[bool], deployed: Iterable[bool]) -> Comparison:
        """Take a batch of pairs and look once, at its end: what was simulated together is used together."""
        if self.verdict != "continue":
            return self.verdict
        for c, d in zip(candidate, deployed, strict=True):
            if c and d:
                self.both += 1
            elif c:
                self.wins += 1
            elif d:
                self.losses += 1
            else:
                self.neither += 1
        self.verdict = self._decide()
        return self.verdict

    def e_values(self) -> dict[str, float]:
        """Evidence so far: ``better``, ``not_worse``, ``worse``; each is proven at 1/alpha."""
        w, lost, ties = self.wins, self.losses, self.both + self.neither
        logs = {
            "better": log_e_paired(w, lost, "greater"),
            "not_worse": log_e_difference(w, lost, ties, -self.rule.margin, "greater"),
            "worse": log_e_paired(w, lost, "less"),
        }
        return {k: math.exp(min(v, 700.0)) for k, v in logs.items()}

    def _decide(self) -> Comparison:
        e, bar = self.e_values(), 1 / self.rule.alpha
        allowed, better = e["not_worse"] >= bar, e["better"] >= bar
        if allowed and better:
            return "better"
        if allowed and (self.rule.goal == "not_worse" or self.n >= self.rule.n_max):
            return "not_worse"
        if e["worse"] >= bar:
            return "worse"
        return "undecided" if self.n >= self.rule.n_max else "continue"

    @property
    def allowed(self) -> bool:
        """May the candidate be released? ``better`` or ``not_worse``; anything else is no."""
        return self.verdict in ("better", "not_worse")

    def difference(self) -> Interval:
        """Success of the candidate minus that of the deployed policy; holds although trials stopped on the result."""
        return difference_interval(self.wins, self.losses, self.both + self.neither, 1 - self.rule.alpha)

    def to_json(self) -> dict[str, Any]:
        """Counts, evidence and verdict as a JSON-able dict."""
        n = max(self.n, 1)
        return {
            "verdict": self.verdict,
            "allowed": self.allowed,
            "pairs": self.n,
            "wins": self.wins,
            "losses": self.losses,
            "both": self.both,
            "neither": self.neither,
            "candidate": (self.wins + self.both) / n,
            "deployed": (self.losses + self.both) / n,
            "difference": self.difference().to_json(),
            "e_values": self.e_values(),
            "rule": dict(vars(self.rule)),
        }


class CanaryVerdict:
    """Does a release do on the canary what it must, before it goes to every robot? A truncated sequential ratio test.

    The likelihood of the outcomes under the rates ``bad`` and ``good`` is compared after every trial (Wald 1945) with
    bounds 1/a and b; after ``n_max`` trials it is decided by the number of failures. The whole plan is fixed at
    construction, and its error rates are computed exactly, not approximated:

    - P(abort | success rate >= good) <= a
    - P(promote | success rate <= bad) <= b

    They speak about the canary's own success rate. ``incident`` (a supervisor stop, a limit, a NaN) has a budget of
    its own, outside these rates: one more than ``incidents_allowed`` aborts at once.

    Args:
      good: a release with at least this success rate must pass.
      bad: a release with at most this one must be stopped.
      a: probability of aborting a good release.
      b: probability of promoting a bad one.
      n_max: most trials; 0 takes the fewest that can keep ``a`` and ``b``, doubled, so that early stops stay common.
      incidents_allowed: incidents that do not abort.

    Raises:
      InputError: rates out of order, or ``n_max`` too small for the error rates; says which would do.
    """

    def __init__(
        self, good: float, bad: float, *, a: float = 0.05, b: float = 0.05, n_max: int = 0, incidents_allowed: int = 0
    ) -> None:
        if not 0 <= bad < good <= 1:
            raise InputError(f"good = {good:g} and bad = {bad:g}", allowed="0 <= bad < good <= 1", where="canary")
        for name, rate in (("a", a), ("b", b)):
            if not 0 < rate < 0.5:
                raise InputError(f"{name} = {rate:g}", allowed="(0, 0.5)", where="canary")
        self.good, self.bad, self.a, self.b = good, bad, a, b
        self.incidents_allowed = incidents_allowed
        # Rates of 0 and 1 would make a single outcome decisive for ever; nothing real is that certain.
        self._good, self._bad = min(good, 1 - 1e-6), max(bad, 1e-6)
        if n_max < 0:
            raise InputError(f"n_max = {n_max}", allowed="0 (choose) or more", where="canary")
        if n_max and not self._plan(n_max):
            raise InputError(
                f"{n_max} trials cannot tell {good:g} from {bad:g} with error rates {a:g} and {b:g}",
                allowed=f"n_max >= {self._fewest(n_max)}, or rates further apart",
                where="canary",
            )
        if not n_max:
            self._plan(2 * self._fewest(0))
        self.successes = self.failures = self.incidents = 0
        self.verdict: Canary = "continue"

    @classmethod
    def against_baseline(
        cls, baseline: Interval | tuple[float, float], delta: float, *, a: float = 0.05, b: float = 0.05, n_max: int = 0
    ) -> CanaryVerdict:
        """Judge against what runs now, whose rate is known to an interval (or a point, low = high).

        Good is "not below the baseline", bad is "``delta`` or more below it"; both hold for every rate within the
        interval, so an interval as wide as ``delta`` leaves nothing to tell apart.

        Raises:
          InputError: the interval is too wide for ``delta``, or the baseline is below it.
        """
        low, high = (baseline.low, baseline.high) if isinstance(baseline, Interval) else baseline
        if high - delta < 0 and low <= delta:
            raise InputError(
                f"no release can be {delta:g} worse than a baseline of {low:g} to {high:g}",
                allowed=f"delta < {low:g}",
                where="canary",
            )
        if high - delta >= low:
            raise InputError(
                f"the baseline is known only to [{low:g}, {high:g}]",
                allowed=f"an interval narrower than delta = {delta:g}",
                where="canary",
                run_next="more baseline trials, or a larger delta",
            )
        return cls(low, max(high - delta, 0.0), a=a, b=b, n_max=n_max)

    def _fewest(self, beyond: int) -> int:
        """Least n_max > beyond for which the plan keeps both error rates."""
        high = max(8, 2 * beyond)
        while not self._plan(high):
            high *= 2
            if high > 20_000:
                raise InputError(
                    f"{self.good:g} and {self.bad:g} are too close to tell apart",
                    allowed="rates further apart",
                    where="canary",
                )
        low = beyond
        while high - low > 1:
            mid = (low + high) // 2
            low, high = (low, mid) if self._plan(mid) else (mid, high)
        return high

    def _plan(self, n_max: int) -> bool:
        """Fix the boundaries for n_max trials; False when they cannot keep the error rates."""
        per_failure = math.log((1 - self._bad) / (1 - self._good))
        per_success = math.log(self._bad / self._good)
        n = np.arange(1, n_max + 1)
        # Log likelihood ratio of bad to good after n trials with f failures: f*per_failure + (n - f)*per_success.
        # Abort from ``_abort[n-1]`` failures on, promote up to ``_promote[n-1]`` failures (-1: not yet).
        slope = per_failure - per_success
        self._abort = np.ceil((-math.log(self.a) - n * per_success) / slope - 1e-12).astype(int)
        self._promote = np.floor((math.log(self.b) - n * per_success) / slope + 1e-12).astype(int)
        self.n_max = n_max
        ended_good, end_good = self._walk(self._good)
        ended_bad, end_bad = self._walk(self._bad)
        # Spend what is left of b at the end: promote with as many failures as that allows.
        room = self.b - ended_bad["promote"]
        spent = np.cumsum(end_bad)
        keep = int(np.searchsorted(spent, room, side="right")) - 1
        self._promote[-1] = max(keep, int(self._promote[-1]))
        self._abort[-1] = self._promote[-1] + 1
        late = float(end_good[keep + 1 :].sum())
        self._errors = (ended_good["abort"] + late, ended_bad["promote"] + (float(spent[keep]) if keep >= 0 else 0.0))
        return self._errors[0] <= self.a

    def _walk(self, rate: float) -> tuple[dict[str, float], np.ndarray]:
        """Exact probabilities of ending early either way, and of each failure count (n_max + 1,) if undecided."""
        p = np.zeros(self.n_max + 1)
        p[0] = 1.0
        ended = {"abort": 0.0, "promote": 0.0}
        for up, down in zip(self._abort, self._promote, strict=True):
            p[1:] = p[1:] * rate + p[:-1] * (1 - rate)
            p[0] *= rate
            if down >= 0:
                ended["promote"] += float(p[: down + 1].sum())
                p[: down + 1] = 0
            if up <= self.n_max:
                ended["abort"] += float(p[max(up, 0) :].sum())
                p[max(up, 0) :] = 0
        return ended, p

    @property
    def error_rates(self) -> dict[str, float]:
        """Exact probabilities ``abort_good`` (at ``good``) and ``promote_bad`` (at ``bad``) of this plan."""
        return {"abort_good": self._errors[0], "promote_bad": self._errors[1]}

    @property
    def n(self) -> int:
        """Trials seen."""
        return self.successes + self.failures

    def update(self, success: bool, *, incident: bool = False) -> Canary:
        """Take the outcome of one trial on the canary. Trials after the verdict are ignored."""
        if self.verdict != "continue":
            return self.verdict
        if success:
            self.successes += 1
        else:
            self.failures += 1
        self.incidents += incident
        if self.incidents > self.incidents_allowed or self.failures >= self._abort[self.n - 1]:
            self.verdict = "abort"
        elif self.failures <= self._promote[self.n - 1]:
            self.verdict = "promote"
        return self.verdict

    def to_json(self) -> dict[str, Any]:
        """Counts, plan and verdict as a JSON-able dict."""
        return {
            "verdict": self.verdict,
            "successes": self.successes,
            "failures": self.failures,
            "incidents": self.incidents,
            "good": self.good,
            "bad": self.bad,
            "a": self.a,
            "b": self.b,
            "n_max": self.n_max,
            "error_rates": self.error_rates,
        }
