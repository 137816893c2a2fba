"""Statistics of success and failure, with stated error rates.

In: counts of outcomes. Out: intervals, e-values, p-values. An *e-value* is a bet against a hypothesis that is fair
when the hypothesis is true; by Ville's inequality it ever reaches 1/alpha with probability at most alpha, so that one
may look after every trial and stop whenever one likes. p-values and plain intervals hold for a number of trials fixed
beforehand. Counts enter every function, so a computation that was interrupted is resumed by counting again.

Only the standard library and numpy are needed, except ``cluster_interval`` (scipy, loaded when called).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from flyball.base import InputError

Side = Literal["greater", "less", "two-sided"]

_BETS = np.concatenate([np.geomspace(0.01, 0.5, 12), np.linspace(0.56, 0.98, 8)])
"""Stakes of the betting e-values, as shares of the largest stake that cannot lose more than everything."""


@dataclass(frozen=True)
class Interval:
    """An estimate with an interval.

    Attributes:
      mean: point estimate.
      low, high: ends of the interval.
      level: coverage, e.g. 0.95.
      method: how it was computed.
    """

    mean: float
    low: float
    high: float
    level: float
    method: str

    def to_json(self) -> dict[str, float | str]:
        """A JSON-able dict."""
        return dict(vars(self))


def _check(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise InputError(f"{successes} successes of {n} trials", allowed="0 <= successes <= trials")


def _check_alpha(alpha: float, name: str = "alpha") -> None:
    if not 0.0 < alpha < 1.0:
        raise InputError(f"{name} = {alpha:g}", allowed="an error rate in (0, 1)")


def log_beta(a: float, b: float) -> float:
    """Logarithm of the Beta function."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p)."""
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    i = np.arange(k + 1)
    log_choose = math.lgamma(n + 1) - np.array([math.lgamma(j + 1) + math.lgamma(n - j + 1) for j in i])
    terms = log_choose + i * math.log(p) + (n - i) * math.log1p(-p)
    return min(1.0, float(np.exp(terms - terms.max()).sum() * math.exp(terms.max())))


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function crosses zero, by bisection."""
    for _ in range(60):
        mid = 0.5 * (low + high)
        low, high = (low, mid) if f(mid) > 0 else (mid, high)
    return 0.5 * (low + high)


# -- one rate, number of trials fixed beforehand --------------------------------------------------------------------


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval: coverage close to ``level`` on average over rates, not for every rate.

    Args:
      successes, n: counts; effective (non-integer) counts are allowed.
    """
    _check_alpha(1 - level, "1 - level")
    if n <= 0:
        return Interval(math.nan, 0.0, 1.0, level, "wilson")
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if p == 0 else max(0.0, centre - half)
    high = 1.0 if p == 1 else min(1.0, centre + half)
    return Interval(p, low, high, level, "wilson")


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The exact (conservative) interval: coverage is at least ``level`` for every rate."""
    _check(successes, n)
    _check_alpha(1 - level, "1 - level")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, level, "clopper-pearson")
    tail = (1 - level) / 2
    s = successes
    low = 0.0 if s == 0 else _root(lambda p: 1 - binomial_cdf(s - 1, n, p) - tail, 0.0, 1.0)
    high = 1.0 if s == n else _root(lambda p: tail - binomial_cdf(s, n, p), 0.0, 1.0)
    return Interval(s / n, low, high, level, "clopper-pearson")


# -- one rate, looked at after every trial --------------------------------------------------------------------------


def log_e_rate(successes: int, n: int, rate: float, prior: tuple[float, float] = (0.5, 0.5)) -> float:
    """Log e-value against "the success rate is ``rate``" (two-sided Beta mixture), valid at any stopping time."""
    _check(successes, n)
    f = n - successes
    if (rate <= 0 and successes) or (rate >= 1 and f):
        return math.inf
    null = (successes * math.log(rate) if successes else 0.0) + (f * math.log1p(-rate) if f else 0.0)
    return log_beta(prior[0] + successes, prior[1] + f) - log_beta(*prior) - null


def anytime_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Interval for a rate that holds at every n at once: all rates whose e-value is below 1/(1 - level)."""
    _check(successes, n)
    _check_alpha(1 - level, "1 - level")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, level, "beta-mixture")
    p, bar = successes / n, -math.log(1 - level)
    low = 0.0 if successes == 0 else _root(lambda r: bar - log_e_rate(successes, n, r), 0.0, p)
    high = 1.0 if successes == n else _root(lambda r: log_e_rate(successes, n, r) - bar, p, 1.0)
    return Interval(p, low, high, level, "beta-mixture")


# -- two policies on the same seeds ---------------------------------------------------------------------------------


def log_e_paired(wins: int, losses: int, side: Side = "two-sided") -> float:
    """Log e-value of a paired comparison from its discordant pairs, valid at any stopping time.

    Given that exactly one of the two succeeded, either is equally likely to be the one when they are equally good. The
    bet is a mixture over the probability q of a win: uniform on [0, 1] (``two-sided``), on [1/2, 1] (``greater``:
    against "not better") or on [0, 1/2] (``less``: against "not worse").

        E = 2^(w+l) B(1+w, 1+l) * {1 | 2 P(q > 1/2) | 2 P(q < 1/2)},   q ~ Beta(1+w, 1+l)

    Args:
      wins: pairs in which only the first policy succeeded.
      losses: pairs in which only the second did.
    """
    n = wins + losses
    _check(wins, n)
    out = n * math.log(2) + log_beta(1 + wins, 1 + losses)
    if side == "two-sided":
        return out
    # P(q <= 1/2) under Beta(1+w, 1+l) is P(X > w) for X ~ Binomial(n + 1, 1/2).
    share = binomial_cdf(wins, n + 1, 0.5) if side == "greater" else binomial_cdf(losses, n + 1, 0.5)
    return out + math.log(2) + math.log(max(share, 1e-300))


def log_e_difference(wins: int, losses: int, ties: int, bound: float, side: Side = "greater") -> float:
    """Log e-value against a bound on the difference of two success rates, from pairs on equal seeds.

    Each pair scores x = 1 (win), -1 (loss) or 0. Wealth prod(1 + s (x - bound)) cannot grow on average while
    E[x] <= bound; stakes s are mixed over a fixed grid, so that the value depends on the counts alone.

    Args:
      bound: hypothesised difference in (-1, 1).
      side: ``greater`` is evidence against "difference <= bound", ``less`` against "difference >= bound".

    Raises:
      InputError: bound outside (-1, 1).
    """
    if not -1 < bound < 1:
        raise InputError(f"a difference of {bound:g}", allowed="(-1, 1)")
    if side == "two-sided":
        up = log_e_difference(wins, losses, ties, bound, "greater")
        down = log_e_difference(wins, losses, ties, bound, "less")
        return float(np.logaddexp(up, down)) - math.log(2)
    if side == "less":
        wins, losses, bound = losses, wins, -bound
    stake = _BETS / (1 + bound)
    wealth = (
        wins * np.log1p(stake * (1 - bound)) + ties * np.log1p(-stake * bound) + losses * np.log1p(-stake * (1 + bound))
    )
    return float(np.logaddexp.reduce(wealth)) - math.log(len(_BETS))


def difference_interval(wins: int, losses: int, ties: int, level: float = 0.95) -> Interval:
    """Interval for the difference of two success rates (first minus second) that holds at every n at once."""
    _check_alpha(1 - level, "1 - level")
    n = wins + losses + ties
    if n == 0:
        return Interval(math.nan, -1.0, 1.0, level, "betting")
    d, bar = (wins - losses) / n, -math.log((1 - level) / 2)
    edge = 1 - 1e-9

    def above(bound: float) -> float:
        return bar - log_e_difference(wins, losses, ties, bound, "greater")

    def below(bound: float) -> float:
        return log_e_difference(wins, losses, ties, bound, "less") - bar

    low = -1.0 if above(-edge) > 0 else _root(above, -edge, max(d, -edge))
    high = 1.0 if below(edge) < 0 else _root(below, min(d, edge), edge)
    return Interval(d, low, high, level, "betting")


def equivalent(wins: int, losses: int, ties: int, margin: float, alpha: float = 0.05) -> bool:
    """Two one-sided tests: is the difference of two success rates proven to lie within +-margin?

    Valid at any stopping time; P(true | the difference is margin or more) <= alpha.
    """
    _check_alpha(alpha)
    bar = -math.log(alpha)
    return (
        log_e_difference(wins, losses, ties, -margin, "greater") >= bar
        and log_e_difference(wins, losses, ties, margin, "less") >= bar
    )


def mcnemar(wins: int, losses: int, side: Side = "two-sided") -> float:
    """Exact McNemar p-value from the discordant pairs of a number of pairs fixed beforehand.

    ``greater``: P(so many wins or more | equally good).
    """
    n = wins + losses
    _check(wins, n)
    if side == "two-sided":
        return min(1.0, 2 * binomial_cdf(min(wins, losses), n, 0.5))
    return binomial_cdf(losses if side == "greater" else wins, n, 0.5)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for several comparisons (Holm): family-wise error at any dependence."""
    out, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        out[i] = running
    return out


# -- a fleet --------------------------------------------------------------------------------------------------------


def cluster_interval(successes: Sequence[int], trials: Sequence[int], level: float = 0.95) -> Interval:
    """Interval for a fleet's success rate when the trials of one robot resemble each other.

    Robots are clusters: the variance between their rates gives a design effect, which together with Student's t for
    the few robots turns the trials into an effective number, never above the true one (Korn and Graubard 1998).
    Wilson's interval takes the effective counts. With fewer than two robots it is Wilson's.

    Args:
      successes, trials: per robot, shape (m,).
    """
    s, n = np.asarray(successes, float), np.asarray(trials, float)
    if s.shape != n.shape or np.any(s < 0) or np.any(s > n):
        raise InputError("successes and trials per robot do not fit", allowed="0 <= successes <= trials, same length")
    s, n = s[n > 0], n[n > 0]
    m, total = len(n), float(n.sum())
    if m < 2:
        return wilson(float(s.sum()), total, level)
    from scipy.special import stdtrit

    p = float(s.sum()) / total
    between = m / (m - 1) * float(((s - p * n) ** 2).sum()) / total**2
    plain = p * (1 - p) / total
    effect = between / plain if plain > 0 else 0.0
    z, t = NormalDist().inv_cdf(0.5 + level / 2), float(stdtrit(m - 1, 0.5 + level / 2))
    effective = min(total, total / effect * (z / t) ** 2) if effect > 0 else total
    w = wilson(p * effective, effective, level)
    return Interval(p, w.low, w.high, level, "wilson, robots as clusters")
