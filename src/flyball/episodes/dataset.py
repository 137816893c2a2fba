"""A dataset: an immutable list of episodes and how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flyball.base import Damaged, InputError, digest_of


@dataclass(frozen=True)
class Judgement:
    """What the catalogue said of an episode when a dataset was made; see ``EpisodeRow``.

    Attributes:
      outcome, group, verdict: of its row.
      checks: name of a check -> its verdict.
    """

    outcome: str = "unknown"
    group: str = ""
    verdict: str = ""
    checks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """An immutable list of episode digests.

    Attributes:
      episodes: digests, in order, each once.
      query: what selected them (a catalogue condition or the generator's name and settings).
      parents: digests of the datasets it was made from.
      made: the verb that made it and its settings; with the query and the parents, enough to make it again.
      judged: of each episode, in the same order; empty when nobody asked. Later judgements do not change a dataset.
      splits: name -> digests of its episodes; every episode is in exactly one, or there are no splits.
    """

    episodes: tuple[str, ...]
    query: str = ""
    parents: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    judged: tuple[Judgement, ...] = ()
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse lists that contradict each other.

        Raises:
          InputError: an episode twice, judgements of another number, or splits that are no partition.
        """
        if len(set(self.episodes)) != len(self.episodes):
            raise InputError("an episode twice", where="dataset", allowed="each episode once")
        if self.judged and len(self.judged) != len(self.episodes):
            raise InputError(f"{len(self.judged)} judgements of {len(self.episodes)} episodes", where="dataset")
        split = [e for part in self.splits.values() for e in part]
        if self.splits and sorted(split) != sorted(self.episodes):
            raise InputError("an episode in no split, or in two", where="dataset", allowed="one split each")

    @property
    def digest(self) -> str:
        """Identity of the dataset: sha256 of ``encode()``."""
        return digest_of(self.encode())

    def judgement(self, episode: str) -> Judgement:
        """What was thought of an episode when the dataset was made."""
        return self.judged[self.episodes.index(episode)] if self.judged else Judgement()

    def encode(self) -> bytes:
        """Canonical JSON; ``decode`` is its inverse."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, blob: bytes, *, where: str = "dataset") -> Dataset:
        """Inverse of ``encode``.

        Raises:
          Damaged: not what ``encode`` writes.
        """
        try:
            d = json.loads(blob)
            return cls(
                episodes=tuple(map(str, d["episodes"])),
                query=str(d["query"]),
                parents=tuple(map(str, d["parents"])),
                made=dict(d["made"]),
                judged=tuple(Judgement(**j) for j in d["judged"]),
                splits={str(k): tuple(map(str, v)) for k, v in d["splits"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, InputError) as err:
            raise Damaged(f"not a sound dataset ({err})", where=where) from err
