"""Check on copies: episodes that are in the set twice, as they are or slightly changed.

In: the tracks of a group's episodes. Out: findings for every copy but the first. Two independent recordings never
share a dozen samples bit by bit, so that an exact copy is certain, also when it was cut or renamed; a changed copy
(resampled, with noise) is one that is much closer to another than episodes of this group usually are.
"""

from __future__ import annotations

import numpy as np

from flyball.episodes.curation.check import Finding, Parameter, Seen, check
from flyball.episodes.curation.motion import Array
from flyball.episodes.curation.tracks import SKETCH, Track, resampled, scale_of, track, way
from flyball.episodes.episode import Episode

POINTS, MOST_POINTS = 32, 200
"""Points of a way that candidates are found with, and that two ways are compared with."""
FINE = 0.01
"""Step along ways: the copies that are to be told apart differ by less than repetitions do."""


def _judge(seen: list[Seen], *, shared: float, closer: float, enough: float) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {s.digest: [] for s in seen}
    owners: dict[int, list[int]] = {}
    for i, s in enumerate(seen):
        for h in s.kept.sketch.tolist():
            owners.setdefault(h, []).append(i)
    common: dict[tuple[int, int], int] = {}
    for who in owners.values():
        for a in who[:8]:
            for b in who[:8]:
                if a < b:
                    common[a, b] = common.get((a, b), 0) + 1
    for (a, b), _ in sorted(common.items()):
        share = _overlap(seen[a].kept, seen[b].kept)
        if share >= shared and not found[seen[b].digest]:
            text = f"{share:.0%} of its samples are, bit by bit, those of episode {seen[a].digest[:12]}"
            found[seen[b].digest].append(Finding(text, "", share / shared))
    _close(seen, found, closer, enough)
    return found


def _overlap(a: Track, b: Track) -> float:
    """Share of the smaller one's hashes that the other has too; estimated where not all are kept."""
    if not len(a.sketch) or not len(b.sketch):
        return 0.0
    top = min(x[-1] if len(x) >= SKETCH else np.uint64(2**64 - 1) for x in (a.sketch, b.sketch))
    x, y = a.sketch[a.sketch <= top], b.sketch[b.sketch <= top]
    return len(np.intersect1d(x, y)) / max(1, min(len(x), len(y)))


def _close(seen: list[Seen], found: dict[str, list[Finding]], closer: float, enough: float) -> None:
    scale = scale_of([s.kept for s in seen], FINE) if len(seen) > enough else None
    if scale is None:
        return
    ways = [way(s.kept, scale).points for s in seen]
    ways = [w if len(w) <= MOST_POINTS else resampled(w, MOST_POINTS) for w in ways]
    nearest = _nearest(ways)
    distance = np.array([max(_apart(ways[i], ways[j]), _apart(ways[j], ways[i])) for i, j in enumerate(nearest)])
    usual = float(np.median(distance))
    for i, j in sorted(enumerate(nearest), key=lambda pair: distance[pair[0]]):
        first, second = min(i, j), max(i, j)
        if distance[i] < closer * usual and not found[seen[second].digest] and not found[seen[first].digest]:
            text = f"its way is {distance[i] / usual:.2g} of the usual distance from that of {seen[first].digest[:12]}"
            excess = closer * usual / max(distance[i], 1e-3 * closer * usual)
            found[seen[second].digest].append(Finding(text, "", float(excess)))


def _nearest(ways: list[Array]) -> list[int]:
    """The other way that each is nearest to, as seen from a few points at equal shares of their lengths."""
    flat = np.stack([resampled(w, POINTS).ravel() for w in ways]).astype(np.float32)
    square = (flat**2).sum(axis=1)
    out: list[int] = []
    for a in range(0, len(flat), 512):
        d = square[a : a + 512, None] + square[None, :] - 2 * flat[a : a + 512] @ flat.T
        d[np.arange(len(d)), a + np.arange(len(d))] = np.inf
        out += d.argmin(axis=1).tolist()
    return out


def _apart(a: Array, b: Array) -> float:
    """Mean distance of the points of one way from the line that the other draws."""
    start, along = b[:-1], np.diff(b, axis=0)
    square = np.maximum((along**2).sum(axis=1), 1e-12)
    to = a @ along.T - (start * along).sum(axis=1)  # how far along each piece every point lies, times its length
    share = np.clip(to / square, 0, 1)
    off = ((a**2).sum(axis=1)[:, None] + (start**2).sum(axis=1) - 2 * a @ start.T) + share * (share * square - 2 * to)
    return float(np.sqrt(np.maximum(off, 0).min(axis=1)).mean())


@check(
    "copies",
    1,
    "an episode shares less than {shared:.0%} of its stretches of 12 samples, bit by bit, with one registered before "
    "it, and its way is no closer to another than {closer:g} of what is usual in the group (given at least {enough:g} "
    "others)",
    judge=_judge,
    shared=Parameter(0.3, "sensor noise makes equal stretches impossible by chance; a third of an episode is a copy"),
    closer=Parameter(0.2, "natural repetitions of one task lie within a factor of two of one another"),
    enough=Parameter(7, "a usual distance needs some distances"),
)
def copies(episode: Episode) -> Track | None:
    """What is compared of each."""
    return track(episode)
