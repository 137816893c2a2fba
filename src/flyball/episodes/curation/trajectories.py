"""Tier 1: outcomes, and what the states of an episode did that those of successful ones did not.

In: the tracks of a group's episodes and their outcomes. Out: for each episode how far its way departs from where
successful ones have been, where it begins to and in which signal; failures that depart alike are one kind. Also how
much of its way no other episode covers. All of it is measured on ways (``tracks``): being slower, waiting or being
sampled faster changes none of it. These are descriptions to look at; whether an episode helps to learn is measured
(``flyball.evaluation.value``), never scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import NotPossible
from flyball.episodes.curation.check import Finding, Findings, Parameter, Seen, check
from flyball.episodes.curation.motion import Array
from flyball.episodes.curation.tracks import Scale, Track, Way, scale_of, track, way
from flyball.episodes.episode import Episode

NEIGHBOURS = 6
"""Points of other episodes that say what is usual at a place."""
MOST_POINTS = 60_000
"""Points that a group's ways are compared with; more are thinned out evenly."""


@check("outcome", 1, "the episode was judged a success", tier=1, meaning="note")
def outcome(episode: Episode) -> Findings:
    """Attempts that did not succeed, or that nobody judged."""
    if episode.outcome == "success":
        return []
    return [Finding(episode.outcome + (f" ({episode.group})" if episode.group else ""))]


@dataclass(frozen=True)
class Departure:
    """How an episode departs from the successful ones.

    Attributes:
      digest: of the episode.
      score: greatest difference from where successes have been, in units of how far a success (95 of 100) strays from
        the others: above 1 it is where they are not.
      t_ns: when the score first passes 1; None when it never does.
      at_end: the departure is that it ends elsewhere, although it went where successes go.
      direction: the difference at its greatest, per element, in units of what a success does, (d,).
      kind: number of the kind of failure, from 0, the largest first; -1 for none.
    """

    digest: str
    score: float
    t_ns: int | None
    at_end: bool
    direction: Array
    kind: int = -1


def departures(seen: Sequence[Seen], *, enough: int = 5, alike: float = 0.5) -> tuple[list[Departure], Scale | None]:
    """Departure of every episode of one group, in order, and the scale they are measured in.

    Args:
      seen: tracks (``kept``) and outcomes.
      enough: fewer successes than this say nothing; the list is empty then.
      alike: failures whose directions of departure have a mean cosine distance below this are one kind.
    """
    good = [s for s in seen if s.outcome == "success"]
    scale = scale_of([s.kept for s in good]) if len(good) >= max(2, enough) else None
    if scale is None:
        return [], None
    scale = _with_what_failures_move(scale, [s.kept for s in seen])
    ways = [way(s.kept, scale) for s in seen]
    is_good = np.array([s.outcome == "success" for s in seen])
    cloud = _Cloud([w.points for w, g in zip(ways, is_good, strict=True) if g], np.flatnonzero(is_good))
    ends = _Cloud([w.points[-1:] for w, g in zip(ways, is_good, strict=True) if g], np.flatnonzero(is_good))
    along = [w.points - cloud.usual(w.points, i) for i, w in enumerate(ways)]
    at_end = [w.points[-1:] - ends.usual(w.points[-1:], i) for i, w in enumerate(ways)]
    out = []
    parts = [_scores(along, is_good, scale.step), _scores(at_end, is_good, scale.step)]
    for i, (s, w) in enumerate(zip(seen, ways, strict=True)):
        (path, off), (end, end_off) = ((scores[i], away[i]) for scores, away in parts)
        worst = int(np.argmax(path))
        if end[0] > path[worst]:
            out.append(Departure(s.digest, float(end[0]), int(w.t_ns[-1]) if end[0] > 1 else None, True, end_off[0]))
        else:
            first = int(w.t_ns[int(np.argmax(path > 1))]) if path[worst] > 1 else None
            out.append(Departure(s.digest, float(path[worst]), first, False, off[worst]))
    return _kinds(out, [s.outcome for s in seen], alike), scale


def _scores(away: list[Array], is_good: NDArray[np.bool_], least: float) -> tuple[list[Array], list[Array]]:
    """Score of each point, [(m,)], and the difference in units of what a success does, [(m, d)].

    Each element is measured in what 95 of 100 successes keep to (leave-one-out), so that one signal that is off is not
    drowned by many that are not; then the greatest of them in what 95 of 100 successes keep to.
    """
    most = np.array([np.abs(a).max(axis=0) for a, g in zip(away, is_good, strict=True) if g])
    unit = np.maximum(np.quantile(most, 0.95, axis=0), 0.25 * least)
    scaled = [a / unit for a in away]
    raw = [np.abs(a).max(axis=1) for a in scaled]
    whole = float(np.quantile([r.max() for r, g in zip(raw, is_good, strict=True) if g], 0.95))
    return [r / whole for r in raw], scaled


def _with_what_failures_move(scale: Scale, tracks: list[Track]) -> Scale:
    """Elements that move only when something fails count too."""
    wide = scale_of(tracks)
    if wide is None:
        return scale
    known = dict(zip(scale.elements, scale.size, strict=True))
    size = np.array([min(known.get(e, np.inf), w) for e, w in zip(wide.elements, wide.size, strict=True)])
    return Scale(wide.elements, size, max(scale.step, wide.step))


def _kinds(rows: list[Departure], outcomes: Sequence[str], alike: float) -> list[Departure]:
    """Number the kinds of failure: average linkage of the directions in which they depart."""
    which = [i for i, r in enumerate(rows) if outcomes[i] == "failure" and r.score > 1 and r.direction.any()]
    if not which:
        return rows
    if len(which) == 1:
        labels = np.array([1])
    else:
        try:
            from scipy.cluster.hierarchy import fcluster, linkage
        except ModuleNotFoundError as err:
            raise NotPossible("kinds of failure need scipy", run_next="pip install 'flyball[logs]'") from err
        x = np.stack([rows[i].direction / np.linalg.norm(rows[i].direction) for i in which])
        labels = fcluster(linkage(x, "average", metric="cosine"), alike, "distance")
    order = [
        k for k, _ in sorted(((k, -int((labels == k).sum())) for k in set(labels.tolist())), key=lambda p: (p[1], p[0]))
    ]
    for i, k in zip(which, labels.tolist(), strict=True):
        rows[i] = replace(rows[i], kind=order.index(k))
    return rows


class _Cloud:
    """Points of many ways, asked for the nearest that belongs to somebody else."""

    def __init__(self, parts: list[Array], owners: NDArray[np.int64]) -> None:
        try:
            from scipy.spatial import cKDTree
        except ModuleNotFoundError as err:
            raise NotPossible("comparing ways needs scipy", run_next="pip install 'flyball[logs]'") from err
        points = np.concatenate(parts)
        owner = np.repeat(owners, [len(p) for p in parts])
        every = -(-len(points) // MOST_POINTS)
        self.points, self.owner = points[::every], owner[::every]
        self._tree: Any = cKDTree(self.points)
        self._most_own = min(64, max(len(p) for p in parts))  # points of its own that may lie nearer than others'

    def nearest(self, x: Array, me: int) -> tuple[Array, Array]:
        """Distances and numbers of the nearest points of others, each (m, k); infinite where there are fewer."""
        k = min(len(self.points), NEIGHBOURS + self._most_own)
        d, i = (np.asarray(a).reshape(len(x), -1) for a in self._tree.query(x, k=k))
        d = np.where(self.owner[i] != me, d, np.inf)
        order = np.argsort(d, axis=1)[:, :NEIGHBOURS]
        return np.take_along_axis(d, order, 1), np.take_along_axis(i, order, 1)

    def usual(self, x: Array, me: int) -> Array:
        """Median of the nearest points of other episodes, (m, d)."""
        d, i = self.nearest(x, me)
        there = np.isfinite(d)
        if there.all():
            return np.asarray(np.median(self.points[i], axis=1))
        return np.asarray(np.nanmedian(np.where(there[..., None], self.points[i], np.nan), axis=1))


def _named(direction: Array, scale: Scale) -> str:
    j = int(np.argmax(np.abs(direction)))
    name, element = scale.elements[j]
    return f"{name}[{element}] too {'high' if direction[j] > 0 else 'low'}"


def _judge_departure(seen: list[Seen], *, limit: float, enough: float, alike: float) -> dict[str, list[Finding]]:
    rows, scale = departures(seen, enough=int(enough), alike=alike)
    if scale is None:
        return {}
    kinds = max((r.kind for r in rows), default=-1) + 1
    begin = {s.digest: int(s.kept.t_ns[0]) for s in seen}
    found: dict[str, list[Finding]] = {r.digest: [] for r in rows}
    for r in rows:
        if r.score <= limit:
            continue
        since = "" if r.t_ns is None else f" from {(r.t_ns - begin[r.digest]) * 1e-9:.2f} s on"
        where = "ends where no success does" if r.at_end else f"is where no success was{since}"
        same = sum(o.kind == r.kind for o in rows)
        kind = f"; kind {r.kind + 1} of {kinds}, {same} alike" if r.kind >= 0 else ""
        found[r.digest] = [Finding(f"{where}: {_named(r.direction, scale)}{kind}", "", r.score / limit, r.t_ns)]
    return found


@check(
    "departure",
    1,
    "the way of an episode stays within {limit:g} times the distance at which a success keeps to other successes of "
    "this body and task (given at least {enough:g}), and ends as near to where they end; failures that leave in "
    "directions alike (cosine distance below {alike:g}) are one kind",
    tier=1,
    judge=_judge_departure,
    meaning="note",
    limit=Parameter(1.25, "by construction one success in twenty reaches 1"),
    enough=Parameter(8, "the spread of successes must be known before anything departs from it"),
    alike=Parameter(0.5, "60 degrees: the same signals, the same sign"),
)
def departure(episode: Episode) -> Track | None:
    """What is compared of each."""
    return track(episode)


@dataclass(frozen=True)
class Coverage:
    """How the episodes of a group cover the states they reach.

    Attributes:
      episodes: how many.
      cells: states reached, as cells of the size at which neighbouring episodes keep to one another.
      once: how many of them by one episode alone.
      enough: fewest episodes, chosen greedily, that reach nine in ten of the cells.
    """

    episodes: int
    cells: int
    once: int
    enough: int


def coverage(seen: Sequence[Seen]) -> Coverage | None:
    """Coverage of one group's tracks; None when they have no movement in common."""
    scale = scale_of([s.kept for s in seen]) if seen else None
    if scale is None:
        return None
    edge = 4 * scale.step
    cells = [{tuple(c) for c in np.floor(way(s.kept, scale).points / edge).astype(int).tolist()} for s in seen]
    counts: dict[tuple[int, ...], int] = {}
    for own in cells:
        for c in own:
            counts[c] = counts.get(c, 0) + 1
    left, chosen = set(counts), 0
    rest = list(cells)
    while rest and len(left) > 0.1 * len(counts):
        best = max(range(len(rest)), key=lambda i: len(rest[i] & left))
        left -= rest.pop(best)
        chosen += 1
    return Coverage(len(seen), len(counts), sum(k == 1 for k in counts.values()), chosen)


def novelties(seen: Sequence[Seen]) -> list[float]:
    """Share of each episode's way that no other of the group comes near, in order; 0 to 1.

    Near is one and a half times the distance to others that the median episode never exceeds. All of the state counts:
    an object that lies where none lay before is new throughout.
    """
    scale = scale_of([s.kept for s in seen]) if len(seen) >= 3 else None
    if scale is None:
        return [0.0] * len(seen)
    ways: list[Way] = [way(s.kept, scale) for s in seen]
    cloud = _Cloud([w.points for w in ways], np.arange(len(ways)))
    far = [cloud.nearest(w.points, i)[0][:, 0] for i, w in enumerate(ways)]
    usual = max(1.5 * float(np.median([d.max() for d in far])), 2 * scale.step)
    return [float((d > usual).mean()) for d in far]


def _judge_novelty(seen: list[Seen], *, share: float, enough: float) -> dict[str, list[Finding]]:
    if len(seen) <= enough:
        return {}
    return {
        s.digest: [Finding(f"{new:.0%} of its way is covered by no other episode", "", new / share)] * (new > share)
        for s, new in zip(seen, novelties(seen), strict=True)
    }


@check(
    "novelty",
    1,
    "no more than {share:.0%} of an episode's way lies where no other of this body and task (given at least "
    "{enough:g}) comes near",
    tier=1,
    judge=_judge_novelty,
    meaning="note",
    share=Parameter(0.25, "half of the episodes have almost none; a quarter is another way of doing it"),
    enough=Parameter(7, "what is new depends on what there is"),
)
def novelty(episode: Episode) -> Track | None:
    """What is compared of each."""
    return track(episode)
