"""The protocol of an evaluation: everything that decides which trials are run.

In: a few settings. Out: a digest, and seeds derived from it by counter, so that two policies meet the same trials and
so that neither parallel order nor later code changes alter them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flyball.base import InputError, digest_of
from flyball.evaluation.verdicts import ComparisonRule


@dataclass(frozen=True)
class Protocol:
    """How policies are compared.

    Attributes:
      task: e.g. ``lift-fragile-v1``.
      scenes: digests of the scenes that trials are drawn from, in order.
      engines: names of the engines, each run on every trial.
      stratum: which trials, in words, e.g. ``calibrated`` or ``nominal``; strata have different seeds.
      rule: what a comparison must show.
    """

    task: str
    scenes: tuple[str, ...]
    engines: tuple[str, ...] = ("mujoco",)
    stratum: str = "calibrated"
    rule: ComparisonRule = field(default_factory=ComparisonRule)

    @property
    def digest(self) -> str:
        """Identity of the protocol."""
        return digest_of(self)

    def seeds(self, n: int, *, start: int = 0) -> list[int]:
        """Seeds of trials start .. start + n - 1, each in [0, 2^63); trial i has the same seed in every call."""
        if n < 0 or start < 0:
            raise InputError(f"seeds({n}, start={start})", allowed="not negative", where="protocol")
        key = int(self.digest[:32], 16)
        return [int(np.random.Philox(key=key, counter=i << 64).random_raw() >> 1) for i in range(start, start + n)]
