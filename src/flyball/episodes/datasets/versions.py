"""Names and versions of datasets: copy-on-write, nothing is ever lost.

In: conditions, datasets, names. Out: artifacts of kind ``dataset``. A name (``dataset/NAME`` among the store's names)
points at its newest version; every version keeps its number, and a reference is ``NAME``, ``NAME@2`` or the beginning
of a digest. Making what is there already makes no new version.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flyball.base import InputError, Missing
from flyball.episodes.catalogue import Catalogue, EpisodeRow
from flyball.episodes.dataset import Dataset, Judgement
from flyball.episodes.datasets.stored import Header, read_header
from flyball.episodes.query import select

PRODUCER = "flyball.episodes.datasets@1"
REJECTED = "rejected"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Version:
    """One version of a named dataset.

    Attributes:
      name, number: ``NAME@number``.
      digest: of the dataset.
      created_ns: wall clock [ns].
    """

    name: str
    number: int
    digest: str
    created_ns: int

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


class Datasets:
    """The datasets of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue, self.store = catalogue, catalogue.store

    # ---- looking

    def versions(self, name: str = "") -> list[Version]:
        """All versions, or those of one name, oldest first."""
        rows = [Version(**row) for row in self.store.rows("dataset")]
        return [v for v in rows if not name or v.name == name]

    def find(self, reference: str) -> Version:
        """The version that a reference means.

        Raises:
          Missing: naming the datasets there are.
          InputError: an ambiguous digest.
        """
        name, at, _ = reference.partition("@")
        if at:
            row = self.store.row("dataset", reference)
            if row is None:
                known = [str(v) for v in self.versions(name)] or sorted({v.name for v in self.versions()})
                raise Missing.named("dataset", reference, known, run_next="flyball datasets list")
            return Version(**row)
        newest = self.versions(name)
        if newest:
            return newest[-1]
        if re.fullmatch(r"[0-9a-f]{6,64}", name):
            matches = {v.digest: v for v in self.versions() if v.digest.startswith(name)}
            if len(matches) > 1:
                raise InputError(f"{name!r} is ambiguous", allowed=", ".join(d[:16] for d in matches))
            if matches:
                return next(iter(matches.values()))
        names = {v.name for v in self.versions()}
        run_next = "flyball datasets list" if names else "flyball datasets build NAME"
        raise Missing.named("dataset", reference, names, run_next=run_next)

    def load(self, reference: str | Version) -> Dataset:
        """The dataset that a reference means.

        Raises:
          Missing, Damaged: no such dataset, or its bytes are not sound.
        """
        version = reference if isinstance(reference, Version) else self.find(reference)
        return Dataset.decode(self.store.get(version.digest), where=f"dataset {version}")

    def headers(self, dataset: Dataset) -> dict[str, Header]:
        """What each episode of a dataset holds."""
        return {digest: read_header(self.store, digest) for digest in dataset.episodes}

    # ---- making

    def save(self, name: str, dataset: Dataset) -> Version:
        """Store a dataset as the newest version of a name; the version there is when it is the same.

        Raises:
          InputError: a bad name, no episode, or episodes that do not belong together.
        """
        check_name(name)
        if not dataset.episodes:
            raise InputError("no episode", where=f"dataset {name}", run_next="flyball episodes --where ...")
        check_compatible(self.headers(dataset), where=f"dataset {name}")
        (digest,) = self.store.keep(dataset.encode())
        with self.store.transaction():
            there = self.versions(name)
            if there and there[-1].digest == digest:
                return there[-1]
            artifact = self.store.register(
                "dataset",
                digest,
                parents=(*dataset.parents, *dataset.episodes),
                producer=PRODUCER,
                labels={"name": name, "episodes": len(dataset.episodes)},
            )
            version = Version(name, len(there) + 1, digest, self.store.clock_ns() if there else artifact.created_ns)
            self.store.put_row("dataset", str(version), asdict(version))
            self.store.set_name(f"dataset/{name}", digest)
        return version

    def build(self, name: str, where: str = "", *, with_rejected: bool = False) -> Version:
        """The episodes that meet a condition now, with what is thought of them now.

        Args:
          name: of the dataset.
          where: see ``episodes.query.select``.
          with_rejected: also those whose verdict is ``rejected``.

        Raises:
          InputError: not a condition, or nothing meets it.
        """
        rows = [r for r in select(self.catalogue, where) if with_rejected or r.verdict != REJECTED]
        if not rows:
            found = f"no episode meets {where!r}" if where.strip() else "no episode"
            raise InputError(found, where=f"dataset {name}", run_next="flyball episodes --where ...")
        made = {"verb": "build", "with_rejected": with_rejected}
        return self.save(name, self._of_rows(rows, query=where.strip(), made=made))

    def rebuild(self, name: str) -> Version:
        """Ask the query of a name's newest version again.

        Raises:
          InputError: that version was not built from a query.
        """
        dataset = self.load(name)
        if dataset.made.get("verb") != "build":
            raise InputError(f"made by {dataset.made.get('verb', 'a generator')}, not by a query", where=name)
        return self.build(name, dataset.query, with_rejected=bool(dataset.made["with_rejected"]))

    def collect(self, name: str, episodes: Iterable[str], *, made: Mapping[str, Any]) -> Version:
        """These episodes, with what is thought of them now."""
        rows = [self.catalogue.row(digest) for digest in dict.fromkeys(episodes)]
        if not rows:
            raise InputError("no episode", where=f"dataset {name}")
        return self.save(name, self._of_rows(rows, query="", made=made))

    def merge(self, name: str, references: Sequence[str]) -> Version:
        """Everything that is in any of some datasets; what the first says of an episode counts.

        Splits survive when every dataset has them.

        Raises:
          InputError: datasets that do not go together, or that have an episode in different splits.
        """
        versions = [self.find(r) for r in references]
        datasets = [self.load(v) for v in versions]
        judged: dict[str, Judgement] = {}
        parts: dict[str, str] = {}
        for version, dataset in zip(versions, datasets, strict=True):
            for i, digest in enumerate(dataset.episodes):
                judged.setdefault(digest, dataset.judged[i] if dataset.judged else Judgement())
            for part, digests in dataset.splits.items():
                for digest in digests:
                    if parts.setdefault(digest, part) != part:
                        raise InputError(
                            f"episode {digest[:12]} is in split {part!r} here and in {parts[digest]!r} elsewhere",
                            where=str(version),
                            run_next="flyball datasets split, after merging datasets without splits",
                        )
        splits: dict[str, tuple[str, ...]] = {}
        if all(d.splits for d in datasets):
            for digest in judged:
                splits[parts[digest]] = (*splits.get(parts[digest], ()), digest)
        return self.save(
            name,
            Dataset(
                tuple(judged),
                parents=tuple(dict.fromkeys(v.digest for v in versions)),
                made={"verb": "merge", "of": [v.digest for v in versions]},
                judged=tuple(judged.values()),
                splits=splits,
            ),
        )

    def split(
        self, reference: str, name: str, fractions: Mapping[str, float], *, by: str = "episode", seed: int = 0
    ) -> Version:
        """Divide a dataset. Where an episode goes depends on nothing but its key and the seed, so that episodes added
        later move none of those that are there.

        Args:
          reference: the dataset.
          name: of the result; usually the same.
          fractions: split -> share of the keys, summing to 1; shares are met on average.
          by: the key, one of ``KEYS``: what shares a key stays together.
          seed: another seed, another division.

        Raises:
          InputError: bad fractions, an unknown key, or a split that stays empty.
        """
        if by not in KEYS:
            raise Missing.named("key", by, KEYS, where="split")
        if len(fractions) < 2 or not (min(fractions.values()) > 0 and abs(sum(fractions.values()) - 1) < 1e-6):
            raise InputError(f"{dict(fractions)}", where="split", allowed="train=0.8,val=0.1,test=0.1 or alike, sum 1")
        for part in fractions:
            check_name(part, what="split")
        version = self.find(reference)
        dataset = self.load(version)
        parts: dict[str, list[str]] = {part: [] for part in fractions}
        keys = set()
        for digest in dataset.episodes:
            key = KEYS[by](self.catalogue.row(digest))
            keys.add(key)
            parts[part_of(key, fractions, by=by, seed=seed)].append(digest)
        empty = [part for part, digests in parts.items() if not digests]
        if empty:
            raise InputError(
                f"split {empty[0]!r} stays empty: {len(keys)} different keys of {by!r}",
                where=str(version),
                run_next="another --seed, --by or --fractions",
            )
        made = {"verb": "split", "of": version.digest, "fractions": dict(fractions), "by": by, "seed": int(seed)}
        splits = {part: tuple(digests) for part, digests in parts.items()}
        return self.save(name, replace(dataset, parents=(version.digest,), made=made, splits=splits))

    def _of_rows(self, rows: Sequence[EpisodeRow], *, query: str, made: Mapping[str, Any]) -> Dataset:
        checks: dict[str, dict[str, str]] = {}
        for v in self.catalogue.verdicts() if len(rows) > 1 else self.catalogue.verdicts(rows[0].digest):
            checks.setdefault(v.digest, {})[v.check] = v.verdict
        judged = tuple(Judgement(r.outcome, r.grp, r.verdict, checks.get(r.digest, {})) for r in rows)
        return Dataset(tuple(r.digest for r in rows), query=query, made=made, judged=judged)


KEYS: dict[str, Callable[[EpisodeRow], str]] = {
    "episode": lambda row: row.digest,
    "hash": lambda row: row.digest,
    "robot": lambda row: row.robot,
    "log": lambda row: row.log_digest or row.digest,
    "task": lambda row: row.task,
    "scene": lambda row: row.scene,
    "seed": lambda row: str(row.seed),
}
"""What a split may go by."""


def part_of(key: str, fractions: Mapping[str, float], *, by: str, seed: int) -> str:
    """The split in which a key falls: a hash of seed and key, uniform in [0, 1), among the cumulated shares."""
    drawn = int.from_bytes(hashlib.sha256(f"{seed}:{by}:{key}".encode()).digest()[:8], "big") / 2**64
    edges = list(itertools.accumulate(fractions.values()))
    return list(fractions)[min(bisect.bisect_right(edges, drawn), len(edges) - 1)]


def check_name(name: str, *, what: str = "dataset") -> str:
    """A name that may be part of a path and of a reference.

    Raises:
      InputError: it may not.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a {what}", allowed="letters, digits, . _ - (at most 64)")
    return name


def check_compatible(headers: Mapping[str, Header], *, where: str) -> None:
    """Refuse episodes that do not belong in one dataset.

    Raises:
      InputError: two embodiments, or a signal whose unit, shape or frame differs; names an episode of each.
    """
    first = next(iter(headers))
    seen: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for digest, h in headers.items():
        if h.embodiment != headers[first].embodiment:
            raise InputError(
                f"mixed embodiments: {headers[first].embodiment!r} ({first[:12]}) and {h.embodiment!r} ({digest[:12]})",
                where=where,
                allowed="one",
                run_next=f"flyball datasets build NAME --where \"embodiment = '{h.embodiment}'\"",
            )
        for name, s in h.signals.items():
            facts = (s.unit, s.shape, s.frame)
            other, known = seen.setdefault(name, (digest, facts))
            for what, a, b in zip(("unit", "shape", "frame"), known, facts, strict=True):
                if a != b:
                    raise InputError(
                        f"signal {name!r} has {what} {a!r} in episode {other[:12]} and {b!r} in {digest[:12]}",
                        where=where,
                        allowed=f"one {what}",
                    )


def shares(text: str) -> dict[str, float]:
    """``train=0.8,val=0.2`` as fractions.

    Raises:
      InputError: not of this form.
    """
    found: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        try:
            if name.strip() in found:
                raise ValueError("twice")
            found[name.strip()] = float(value)
        except ValueError as err:
            raise InputError(f"{item!r} in {text!r}", where="fractions", allowed="train=0.8,val=0.1,test=0.1") from err
    return found
