"""A dataset: an immutable list of episodes and how it came about."""

from __future__ import annotations

from dataclasses import dataclass

from flyball.base import digest_of


@dataclass(frozen=True)
class Dataset:
    """An immutable list of episode digests.

    Attributes:
      episodes: digests, in order.
      query: what selected them (a catalogue condition or the generator's name and settings).
    """

    episodes: tuple[str, ...]
    query: str = ""

    @property
    def digest(self) -> str:
        """Identity of the dataset."""
        return digest_of(self)
