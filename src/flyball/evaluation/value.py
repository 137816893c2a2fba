"""What episodes are worth: does a policy get better when it learns from them?

In: two sets of episodes, and a function that trains on a set and tries the policy on paired trials. Out: a verdict
(``keep``, ``drop`` or ``undecided``) with an interval, the noise floor and a stated error rate. A training with another
seed is another policy, often by more than the episodes make a difference; so the unit of evidence is the training, not
the trial, and nothing is said from fewer than three. How many are run is fixed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from flyball.base import InputError
from flyball.evaluation.statistics import Interval

Value = Literal["keep", "drop", "undecided"]

TrainAndEvaluate: TypeAlias = Callable[[tuple[str, ...], int], Sequence[bool]]
"""(digests of episodes, seed) -> success of each trial. Equal seeds mean equal trials, in the same order, and the same
seed of training, whatever the episodes are."""


@dataclass(frozen=True)
class ValueRule:
    """How the value of episodes is measured.

    Attributes:
      seeds: trainings on each of the two sets, at least 3.
      alpha: P(``keep`` or ``drop`` | the episodes make no difference), for differences between trainings that are
        about normally distributed.
      first_seed: seeds are counted from here.
    """

    seeds: int = 8
    alpha: float = 0.05
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 3:
            raise InputError(
                f"seeds = {self.seeds}", allowed="3 or more: one training says nothing", where="value rule"
            )
        if not 0 < self.alpha < 0.5:
            raise InputError(f"alpha = {self.alpha:g}", allowed="(0, 0.5)", where="value rule")


@dataclass(frozen=True)
class ValueVerdict:
    """Whether keeping episodes helps.

    Attributes:
      verdict: ``keep`` when success is higher with them, ``drop`` when it is lower; ``undecided`` when the interval
        contains zero or the difference is below the noise floor.
      difference: success with them minus success without, interval of level 1 - alpha over trainings.
      noise_floor: the difference that trainings on one and the same set show, at the same level: half-width of the
        interval between two such groups of trainings.
      p: two-sided p-value of no difference; for several subsets at once adjust with ``statistics.holm``.
      with_them, without_them: success rate of each training, (seeds,).
      trials: per training.
      rule: the rule.
    """

    verdict: Value
    difference: Interval
    noise_floor: float
    p: float
    with_them: tuple[float, ...]
    without_them: tuple[float, ...]
    trials: int
    rule: ValueRule

    def line(self) -> str:
        """The result in one line."""
        d = self.difference
        return (
            f"success {np.mean(self.with_them):.3f} with, {np.mean(self.without_them):.3f} without: difference "
            f"{d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f}), noise floor {self.noise_floor:.3f}, "
            f"{self.rule.seeds} trainings x {self.trials} paired trials"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return asdict(self)


def measure_value(
    train_and_evaluate: TrainAndEvaluate,
    episodes: Sequence[str],
    others: Sequence[str],
    rule: ValueRule | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ValueVerdict:
    """Measure what some episodes add to others.

    Args:
      train_and_evaluate: trains and tries; called twice per seed.
      episodes: digests of those in question.
      others: digests of those they would be added to.
      rule: how.
      progress: called with (trainings done, trainings in all).

    Raises:
      InputError: nothing to compare, or the two runs of a seed do not have the same number of trials.
    """
    rule = rule or ValueRule()
    without = tuple(others)
    with_them = tuple(dict.fromkeys((*others, *episodes)))
    if not without or len(with_them) == len(without):
        raise InputError(
            f"{len(episodes)} episodes beside {len(others)} others",
            where="value",
            allowed="at least one of each, not the same",
        )
    pairs = []
    for k, seed in enumerate(range(rule.first_seed, rule.first_seed + rule.seeds)):
        pair = []
        for j, chosen in enumerate((with_them, without)):
            pair.append([bool(x) for x in train_and_evaluate(chosen, seed)])
            if progress is not None:
                progress(2 * k + j + 1, 2 * rule.seeds)
        if not pair[0] or len(pair[0]) != len(pair[1]):
            text = f"{len(pair[0])} trials with the episodes, {len(pair[1])} without"
            raise InputError(text, where=f"value, seed {seed}", allowed="the same trials, at least one")
        pairs.append(pair)
    return judge_value(pairs, rule)


def judge_value(pairs: Sequence[Sequence[Sequence[bool]]], rule: ValueRule) -> ValueVerdict:
    """The verdict on outcomes that are there.

    Args:
      pairs: per training seed, outcomes with and without the episodes, each (trials,).
      rule: says how many seeds there must be.

    Raises:
      InputError: another number of seeds.
    """
    from scipy.special import stdtr, stdtrit

    if len(pairs) != rule.seeds:
        raise InputError(f"outcomes of {len(pairs)} seeds", where="value", allowed=f"{rule.seeds}, as fixed beforehand")
    k = rule.seeds
    a = np.array([np.mean(x) for x, _ in pairs])
    b = np.array([np.mean(x) for _, x in pairs])
    n = np.array([len(x) for x, _ in pairs])
    discordant = np.array([np.mean(np.array(x, bool) != np.array(y, bool)) for x, y in pairs])
    d = a - b
    mean = float(d.mean())
    # Few trainings may agree by chance; they cannot be known better than their trials tell.
    spread = max(float(d.var(ddof=1)), float(np.mean((discordant - d**2) / n)))
    error = math.sqrt(spread / k)
    half = float(stdtrit(k - 1, 1 - rule.alpha / 2)) * error
    within = 0.5 * float(a.var(ddof=1) + b.var(ddof=1))
    floor = float(stdtrit(2 * k - 2, 1 - rule.alpha / 2)) * math.sqrt(2 * within / k)
    p = 2 * float(stdtr(k - 1, -abs(mean) / error)) if error > 0 else 1.0
    verdict: Value = "undecided"
    if abs(mean) > max(half, floor) and error > 0:
        verdict = "keep" if mean > 0 else "drop"
    interval = Interval(mean, max(-1.0, mean - half), min(1.0, mean + half), 1 - rule.alpha, "t over trainings")
    return ValueVerdict(
        verdict, interval, floor, p, tuple(a.tolist()), tuple(b.tolist()), int(n.min()), rule
    )  # fmt: skip
