"""Has the robot changed since it was calibrated? A sequential test with a stated rate of false alarms.

In: after every episode one number per stream (each parameter's one-step shift, the replay error; see
``calibration.residual``). Out: nothing, or an alarm: which stream moved, since which episode, by how much.

Method. As long as nothing changes, residuals are exchangeable, and the rank of each among those before it, ties broken
at random, gives p-values that are independent and uniform whatever the distribution of the residuals (Vovk, Gammerman,
Shafer 2005, theorem 8.2). Ranks are taken among episodes of the same regime, so that the mix of regimes may change
(Mondrian p-values, ibid. section 4.5). A test martingale multiplies bets on these p-values; one martingale begins at
every episode, and the alarm sounds when their sum is large: Shiryaev-Roberts' procedure as conformal test martingale
(Volkhonskiy et al. 2017, PMLR 60) and as e-detector (Shin, Ramdas, Rinaldo, arXiv 2203.03532).

The bet of a martingale that began k episodes ago knows that, if a change was there, k of the n values that the new
one is ranked among have changed as well: for a normal residual that moved by d deviations it is the likelihood ratio
against that mixture (the conformally optimal bet of Vovk, Nouretdinov, Gammerman, arXiv 2412.03464), here averaged
over a grid of d. This matters because ranks forget: with 30 episodes before the change and a bet that does not know k,
even residuals that all lie above every earlier one need more than 30 episodes to reach a threshold of 1 per 1,000 h.
The normal shape decides how soon a change is found, never how often a false alarm sounds.

Guarantee. A martingale that begins at episode i starts with the hours of the episode before. So the sum of one stream
minus the hours watched is a martingale while nothing changes, and with the threshold (streams x stated hours), by
Doob's inequality: the probability of a false alarm within h hours is at most h / stated hours, for all streams
together, and the expected number is no more when the test begins anew after each alarm. Hours are those of episodes,
per robot.

What breaks it: whatever makes episodes not exchangeable though the robot is sound. Temperature that rises during a
shift, a task or a policy that changes without being named as another regime, a payload that comes and goes in turns,
logs that were fitted and then watched, durations that depend on the residuals. Such a change is a real one of the
data, and is found as such. And what hides a change: bets are on one that shows in every regime; where it shows in a
single one of several, the others' episodes speak against it.
"""

from __future__ import annotations

import functools
import math
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from flyball.base import Damaged, InputError, digest_of

Array = NDArray[np.float64]

BASELINE = 30
"""Episodes after a calibration that are taken for the robot as it was calibrated. Ranks among few say little: of a
change by two deviations 30 episodes before and 30 after hold about (60 / 2) ln(1 + 2^2 / 4) = 21 nats (normal, mean and
variance unknown), the threshold of 1 per 1,000 h with ten streams asks for 16, and which change it is costs 2 more. So
half of such changes are found within 30 episodes; after 60 or 100 sound ones nine in ten and more."""
WINDOW = 200
"""Martingales that run at once: a change that showed nothing for so many episodes is no longer looked for."""
_SHIFTS = (1.0, 1.5, 2.0, 3.0, 4.5, 7.0)  # in deviations, either sign; less takes hundreds of episodes anyway
_SHARES = np.append(np.geomspace(1e-5, 0.95, 80), 1.0)  # of changed values among those ranked; 1: nothing to compare
_EDGES = np.concatenate([[0.0], ndtr(np.linspace(-5, 5, 401)), [1.0]])  # cells of p-values
_RATE = re.compile(r"\s*([0-9.eE+]+)\s+(?:alarms?\s+)?per\s+([0-9.,eE+]+)\s*(h|hours?|d|days?)\s*")


def hours_per_alarm(text: str) -> float:
    """Hours between false alarms from a rate in words: ``1 per 1000 h``, ``2 per 30 days``.

    Raises:
      InputError: not a rate.
    """
    found = _RATE.fullmatch(text)
    try:
        alarms, span = (float(x.replace(",", "")) for x in found.groups()[:2]) if found else (0.0, 0.0)
    except ValueError:
        alarms = span = 0.0
    if found is None or not (0 < alarms < math.inf and 0 < span < math.inf):
        raise InputError(f"not a rate of false alarms: {text!r}", where="--rate", allowed="e.g. 1 per 1000 h")
    return span * (24.0 if found[3].startswith("d") else 1.0) / alarms


@functools.cache
def _bets() -> Array:
    """The bets, (shifts, shares, cells); over p each averages to 1 exactly.

    A cell holds the mean over its p-values: the changed law's probability of the cell over the cell's width.
    """
    x = np.linspace(-9, 17, 5201)
    out = np.ones((2 * len(_SHIFTS), len(_SHARES), len(_EDGES) - 1))
    for i, d in enumerate(_SHIFTS):
        before, after = ndtr(-x), ndtr(d - x)  # upper tails, falling in x
        for j, share in enumerate(_SHARES[:-1]):
            p = (1 - share) * before + share * after
            beyond = np.interp(_EDGES, p[::-1], after[::-1])
            beyond[0], beyond[-1] = 0.0, 1.0
            out[2 * i, j] = np.maximum(np.diff(beyond), 1e-300) / np.diff(_EDGES)
            out[2 * i + 1, j] = out[2 * i, j, ::-1]
    return out


class Detector:
    """Sums of test martingales over p-values, several streams side by side; the part without memory of residuals.

    Args:
      streams: how many.
      window: martingales per stream, the youngest.

    Attributes:
      total: what each stream's martingales amount to, (streams,), in the unit of the stakes.
    """

    def __init__(self, streams: int, window: int = WINDOW) -> None:
        self._worth = np.zeros((2 * len(_SHIFTS), window, streams))
        self.starts = np.full(window, -1)
        self.total = np.zeros(streams)

    def begin(self, at: int, stake: float) -> None:
        """A martingale of every stream begins before episode ``at`` with this stake; the oldest makes room."""
        slot = at % len(self.starts)
        self.starts[slot] = at
        self._worth[:, slot] = stake / len(self._worth)

    def bet(self, p: Array, share: Array) -> None:
        """Take the next p-values.

        Args:
          p: (streams,), uniform while nothing changes.
          share: of values among those ranked that had changed, had the change come when each martingale began,
            (window,); known before p. 1: no bet.
        """
        row = np.minimum(np.searchsorted(_SHARES, share, side="left"), len(_SHARES) - 1)
        cell = np.clip(np.searchsorted(_EDGES, p, side="right") - 1, 0, len(_EDGES) - 2)
        self._worth *= _bets()[:, row[:, None], cell[None, :]]
        np.minimum(self._worth, 1e250, out=self._worth)  # far beyond any threshold, short of overflow
        self.total = self._worth.sum(axis=(0, 1))

    def forget(self, streams: NDArray[np.bool_]) -> None:
        """End all martingales of these streams, as after an alarm; new ones begin with the next episodes."""
        self._worth[:, :, streams] = 0.0
        self.total = np.where(streams, 0.0, self.total)

    def likeliest(self, stream: int) -> int:
        """The episode before which a change of this stream most likely came."""
        return int(self.starts[np.argmax(self._worth[:, :, stream].sum(axis=0))])


@dataclass(frozen=True)
class Alarm:
    """A change was found.

    Attributes:
      episode: number of the episode after which the alarm sounded, from 0, in the order of ``update``.
      since: number of the first changed episode, estimated.
      stream: the one that raised the alarm.
    """

    episode: int
    since: int
    stream: str


@dataclass(frozen=True)
class Move:
    """How a stream moved at the change.

    Attributes:
      stream: its name.
      shift: median after the change minus median before [unit of the residual].
      effect: its size in the stream's own standard deviations before the change.
    """

    stream: str
    shift: float
    effect: float


class DriftTest:
    """The test of one robot. Plain data in and out; a state from JSON goes on exactly where it was.

    Args:
      streams: names of the residuals.
      hours: at most one false alarm in this many hours of episodes, all streams together.
      baseline: episodes before the first martingale begins.
      seed: breaks ties among equal residuals.

    Attributes:
      alarm: the first one, None while quiet. It stays until the robot is calibrated anew: then make a new test.
    """

    def __init__(
        self, streams: Sequence[str], *, hours: float = 1000.0, baseline: int = BASELINE, seed: int = 0
    ) -> None:
        if not streams or len(set(streams)) != len(streams):
            raise InputError("streams need names of their own", where="drift test", allowed="one name or more")
        if not 0 < hours < math.inf:
            raise InputError(f"{hours} hours between false alarms", where="drift test", allowed="more than 0")
        if baseline < 2:
            raise InputError(f"a baseline of {baseline} episodes", where="drift test", allowed="2 or more")
        self.streams, self.hours, self.baseline, self.seed = tuple(streams), hours, baseline, seed
        self.alarm: Alarm | None = None
        self._detector = Detector(len(self.streams))
        self._keys: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._sorted: dict[str, list[list[float]]] = {}  # regime -> per stream, earlier residuals in order
        self._places: dict[str, list[int]] = {}  # regime -> numbers of its episodes

    @staticmethod
    def reachable(
        regimes: Sequence[str], durations_s: Sequence[float], *, streams: int, hours: float = 1000.0,
        baseline: int = BASELINE,
    ) -> bool:  # fmt: skip
        """Whether so many episodes can raise an alarm, whatever their residuals are. Until then these can wait.

        Args:
          regimes, durations_s: of the episodes, in order.
          streams, hours, baseline: of the test.
        """
        one, places, threshold = Detector(1), dict[str, list[int]](), 3600.0 * hours * streams
        for i, regime in enumerate(regimes):
            mine = places.setdefault(regime, [])
            mine.append(i)
            if i < baseline:
                continue
            one.begin(i, durations_s[i - 1])
            after = len(mine) - np.searchsorted(mine, one.starts)
            one.bet(np.zeros(1), np.where(one.starts < 0, 1.0, after / len(mine)))
            if 2 * one.total[0] >= threshold:  # p = 0 is the best of a rise; a fall at p = 1 cannot gain more
                return True
        return False

    @property
    def episodes(self) -> int:
        """How many were seen."""
        return len(self._rows)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the episodes, in the order of ``update``."""
        return tuple(self._keys)

    @property
    def hours_watched(self) -> float:
        """Duration of all episodes seen [h]."""
        return float(sum(r["duration_s"] for r in self._rows)) / 3600.0

    @property
    def evidence(self) -> float:
        """The greatest stream's evidence as a share of the threshold; 1 and more is an alarm."""
        return float(self._detector.total.max()) / self._threshold

    def update(
        self,
        key: str,
        residuals: Sequence[float],
        *,
        duration_s: float,
        regime: str = "",
    ) -> Alarm | None:
        """Take the residuals of one more episode. An episode that was taken before changes nothing.

        Args:
          key: identity of the episode, e.g. its digest.
          residuals: one per stream.
          duration_s: of the episode [s].
          regime: only episodes of the same regime are compared: task, gain, release.

        Returns:
          The alarm, if there is one by now.

        Raises:
          InputError: residuals of another number, or not finite; no duration.
        """
        if key in self._keys:
            return self.alarm
        x = np.asarray(residuals, float)
        if x.shape != (len(self.streams),) or not np.isfinite(x).all():
            raise InputError(
                f"residuals of shape {x.shape}, or not finite", where=f"episode {key[:12]}",
                allowed=f"{len(self.streams)} finite numbers",
            )  # fmt: skip
        if not 0 < duration_s < math.inf:
            raise InputError(f"lasts {duration_s} s", where=f"episode {key[:12]}", allowed="more than 0 s")
        number = len(self._rows)
        places = self._places.setdefault(regime, [])
        p = self._rank(key, x, self._sorted.setdefault(regime, [[] for _ in self.streams]))
        if number >= self.baseline:
            self._detector.begin(number, self._rows[-1]["duration_s"])
            places.append(number)
            after = len(places) - np.searchsorted(places, self._detector.starts)
            self._detector.bet(p, np.where(self._detector.starts < 0, 1.0, after / len(places)))
        else:
            places.append(number)
        self._keys[key] = number
        self._rows.append({"key": key, "residuals": x.tolist(), "duration_s": float(duration_s), "regime": regime})
        if self.alarm is None and self.evidence >= 1:
            worst = int(np.argmax(self._detector.total))
            self.alarm = Alarm(number, self._detector.likeliest(worst), self.streams[worst])
        return self.alarm

    def moves(self) -> list[Move]:
        """How the streams moved at the change, greatest effect first; empty while quiet."""
        if self.alarm is None:
            return []
        x, regimes = np.array([r["residuals"] for r in self._rows]), np.array([r["regime"] for r in self._rows])
        late = np.arange(len(x)) >= self.alarm.since
        shifts, spreads, weights = [], [], []
        for regime in dict.fromkeys(regimes[late].tolist()):
            before, after = x[(regimes == regime) & ~late], x[(regimes == regime) & late]
            if len(before) > 1:
                shifts.append(np.median(after, axis=0) - np.median(before, axis=0))
                spreads.append(before.std(axis=0, ddof=1))
                weights.append(len(after))
        if not shifts:
            return []
        shift, spread = np.average(shifts, axis=0, weights=weights), np.average(spreads, axis=0, weights=weights)
        effect = np.abs(shift) / np.maximum(spread, 1e-12)
        return [Move(self.streams[j], float(shift[j]), float(effect[j])) for j in np.argsort(-effect, kind="stable")]

    def to_json(self) -> dict[str, Any]:
        """JSON-able state; ``from_json`` is the inverse."""
        settings = {"streams": list(self.streams), "hours": self.hours, "baseline": self.baseline, "seed": self.seed}
        return settings | {"episodes": self._rows, "alarm": asdict(self.alarm) if self.alarm else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str = "drift test") -> DriftTest:
        """Inverse of ``to_json``: takes the kept residuals again, so nothing of it can be out of step.

        Raises:
          Damaged: not such a state.
        """
        try:
            out = cls(data["streams"], hours=data["hours"], baseline=data["baseline"], seed=data["seed"])
            for row in data["episodes"]:
                out.update(row["key"], row["residuals"], duration_s=row["duration_s"], regime=row["regime"])
        except (KeyError, TypeError, ValueError, InputError) as err:
            raise Damaged(f"not the state of a drift test ({err})", where=where) from err
        return out

    @property
    def _threshold(self) -> float:
        return 3600.0 * self.hours * len(self.streams)

    def _rank(self, key: str, x: Array, earlier: list[list[float]]) -> Array:
        """p-values of new residuals among the earlier ones of their regime, (streams,); then they join them."""
        draws = np.random.default_rng(int(digest_of([self.seed, key])[:16], 16)).random(len(x))
        p = np.empty(len(x))
        for j, (value, sorted_) in enumerate(zip(x.tolist(), earlier, strict=True)):
            p[j] = p_value(value, sorted_, draws[j])
            insort(sorted_, value)
        return p


def p_value(value: float, earlier: Sequence[float], draw: float) -> float:
    """Share of values at least as great, the value itself among them; ``draw``, uniform in [0, 1), breaks ties.

    Args:
      earlier: in order.
    """
    greater = len(earlier) - bisect_right(earlier, value)
    equal = len(earlier) - greater - bisect_left(earlier, value) + 1
    return (greater + draw * equal) / (len(earlier) + 1)
