"""Curation: checks applied to the catalogue, their verdicts kept as rows that can be taken back.

In: a catalogue and checks. Out: one row per episode and check (``flag``, ``note`` or ``pass``), each with its reason,
the check's version and the digests it rests on; and a report. A rule that does not apply says nothing. Nothing is
deleted or changed; a verdict is taken back by a further row. What is unchanged since the last time is not said twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyball.base import FlyballError, digest_of
from flyball.base.steps import step
from flyball.episodes.catalogue import Catalogue, EpisodeRow, Verdict
from flyball.episodes.curation.check import Check, Finding, Pictures, Seen
from flyball.episodes.curation.glance import Glance, glance
from flyball.episodes.curation.trajectories import Coverage, coverage
from flyball.episodes.episode import Episode
from flyball.episodes.query import select
from flyball.robots import Embodiment

PRODUCER = "flyball.episodes.curation@1"
GLANCE = "flyball.episodes.curation.glance"
PASS = "pass"
MOST_FINDINGS = 4
"""Findings named in a reason; the rest are counted."""


@dataclass
class Tally:
    """What one check found.

    Attributes:
      check: the check.
      counts: verdict -> episodes; ``silent`` where the rule does not apply.
      found: (episode, findings) with any, the furthest beyond the limit first.
      added: rows written.
      failed: (episode, reason) where it could not be applied.
    """

    check: Check
    counts: dict[str, int] = field(default_factory=dict)
    found: list[tuple[str, list[Finding]]] = field(default_factory=list)
    added: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Curation:
    """What came of it.

    Attributes:
      episodes: how many were looked at.
      unread: (episode, reason) that could not be loaded.
      tallies: one per check, in order.
      coverage: (embodiment, task) -> how its episodes cover their states, where tracks were looked at.
    """

    episodes: int
    unread: tuple[tuple[str, str], ...]
    tallies: tuple[Tally, ...]
    coverage: Mapping[tuple[str, str], Coverage]


def pictures_of(episode: Episode, catalogue: Catalogue) -> Pictures:
    """The pictures of an episode in the store; each stream is decoded once, and what was seen is kept there."""
    from flyball.episodes.frames import decoded

    seen: dict[str, Glance] = {}

    def look(name: str) -> Glance:
        if name not in seen:
            f, store = episode.frames[name], catalogue.store

            def make() -> bytes:
                return glance(p for _, p in decoded(f, store.path(f.blob), range(len(f.t_ns)))).to_bytes()

            index = digest_of({"start": f.start, "stop": f.stop})
            kept = step(store, GLANCE, 1, {"frames": f.blob, "encoding": f.encoding, "index": index}, make)
            seen[name] = Glance.from_bytes(store.get(kept.digest))
        return seen[name]

    return look


def curate(
    catalogue: Catalogue,
    checks: Sequence[Check],
    where: str = "",
    *,
    bodies: Mapping[str, Embodiment] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Curation:
    """Apply checks to episodes and keep the verdicts.

    Args:
      catalogue: where the episodes are and the rows go.
      checks: which rules.
      where: which episodes, see ``flyball.episodes.query.select``. Those are also what episodes are compared with.
      bodies: name -> embodiment, where the specification is known.
      progress: called with (episodes done, episodes in all).

    Raises:
      InputError: not a condition.
    """
    rows = select(catalogue, where)
    looks = {c.name: _Looks() for c in checks}
    unread = []
    for i, row in enumerate(rows):
        try:
            episode = catalogue.load(row.digest)
        except FlyballError as err:
            unread.append((row.digest, err.line()))
        else:
            _look(episode, row, checks, looks, pictures_of(episode, catalogue), (bodies or {}).get(row.embodiment))
        if progress is not None:
            progress(i + 1, len(rows))
    tallies, covered = [], {}
    held = {(v.check, v.digest): v for v in catalogue.verdicts()}
    for c in checks:
        tallies.append(_judge(catalogue, c, looks[c.name], held))
    tracks = next((looks[c.name] for c in checks if c.name == "novelty"), None)
    for group, seen in tracks.groups().items() if tracks else ():
        found = coverage(seen)
        if found is not None:
            covered[group] = found
    return Curation(len(rows), tuple(unread), tuple(tallies), covered)


def take_back(catalogue: Catalogue, names: Iterable[str] = (), where: str = "", *, reason: str = "taken back") -> int:
    """Take back what checks said, by further rows.

    Args:
      catalogue: where the rows are.
      names: of checks, also of ones that are no longer installed; none for all.
      where: of which episodes, see ``flyball.episodes.query.select``.
      reason: kept in the rows.

    Returns:
      Rows written.
    """
    names, mine = set(names), {r.digest for r in select(catalogue, where)}
    held = [v for v in catalogue.verdicts() if v.digest in mine and (not names or v.check in names)]
    with catalogue.store.transaction():
        return sum(catalogue.add_verdict(v.digest, v.check, "", reason, v.version, v.inputs) for v in held)


@dataclass
class _Looks:
    """What was kept per episode by one check, in order of registration."""

    seen: list[Seen] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    cameras: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def groups(self) -> dict[tuple[str, str], list[Seen]]:
        out: dict[tuple[str, str], list[Seen]] = {}
        for s in self.seen:
            out.setdefault(s.group, []).append(s)
        return out


def _look(
    episode: Episode,
    row: EpisodeRow,
    checks: Sequence[Check],
    looks: Mapping[str, _Looks],
    pictures: Pictures,
    body: Embodiment | None,
) -> None:
    shared: dict[Any, Any] = {}  # checks that keep the same of an episode (tracks) compute it once
    for c in checks:
        mine = looks[c.name]
        try:
            key = c.looks_at
            if key not in shared:
                shared[key] = c.look_at(episode, pictures, body)
            kept = shared[key]
        except Exception as err:  # a plug-in, or a picture that does not decode: the other checks go on
            mine.failed.append(
                (row.digest, err.line() if isinstance(err, FlyballError) else f"{type(err).__name__}: {err}")
            )
            continue
        if kept is None:
            mine.silent.append(row.digest)
        else:
            mine.seen.append(Seen(row.digest, (row.embodiment, row.task), row.outcome, kept))
            mine.cameras[row.digest] = tuple(sorted({f.blob for f in episode.frames.values()})) if c.sees else ()


def _judge(catalogue: Catalogue, c: Check, looks: _Looks, held: Mapping[tuple[str, str], Verdict]) -> Tally:
    """Judge what was kept, write the rows that say something new in one transaction."""
    tally = Tally(c, failed=list(looks.failed))
    silent = list(looks.silent)
    said: list[tuple[str, list[Finding], tuple[str, ...]]] = []
    for group, seen in looks.groups().items():
        try:
            found = c.judged(seen)
        except Exception as err:
            text = err.line() if isinstance(err, FlyballError) else f"{type(err).__name__}: {err}"
            tally.failed += [(s.digest, text) for s in seen]
            continue
        compared = () if not c.compares else (_comparison(catalogue, group, seen),)
        said += [(s.digest, f, compared + looks.cameras[s.digest]) for s in seen if (f := found[s.digest]) is not None]
        silent += [s.digest for s in seen if found[s.digest] is None]
    with catalogue.store.transaction():
        for digest, findings, inputs in said:
            verdict = c.meaning if findings else PASS
            tally.counts[verdict] = tally.counts.get(verdict, 0) + 1
            if findings:
                tally.found.append((digest, sorted(findings, key=lambda f: -f.excess)))
            tally.added += _say(catalogue, held, digest, c, verdict, _reason(findings), inputs)
        tally.counts |= {"silent": len(silent)} if silent else {}
        for digest in silent:
            if (c.name, digest) in held:
                tally.added += _say(catalogue, held, digest, c, "", "the rule does not apply", ())
    tally.found.sort(key=lambda row: -row[1][0].excess)
    return tally


def _say(
    catalogue: Catalogue,
    held: Mapping[tuple[str, str], Verdict],
    digest: str,
    c: Check,
    verdict: str,
    reason: str,
    inputs: tuple[str, ...],
) -> bool:
    before = held.get((c.name, digest))
    # A comparison with more episodes that comes to the same answer is nothing new.
    if before is not None and (before.verdict, before.reason, before.version) == (verdict, reason, c.stamp):
        return False
    return catalogue.add_verdict(digest, c.name, verdict, reason, c.stamp, inputs)


def _reason(findings: list[Finding]) -> str:
    if not findings:
        return "nothing found"
    worst = sorted(findings, key=lambda f: -f.excess)
    more = f"; and {len(worst) - MOST_FINDINGS} more" if len(worst) > MOST_FINDINGS else ""
    return "; ".join(str(f) for f in worst[:MOST_FINDINGS]) + more


def _comparison(catalogue: Catalogue, group: tuple[str, str], seen: list[Seen]) -> str:
    """Digest of the list of episodes that were compared; the list itself is kept, so that it can be looked up."""
    rows = sorted([s.digest, s.outcome] for s in seen)
    listing = {"embodiment": group[0], "task": group[1], "episodes": rows}
    blob = json.dumps(listing, separators=(",", ":")).encode()
    return catalogue.store.put("comparison", blob, producer=PRODUCER).digest
