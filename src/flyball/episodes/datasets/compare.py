"""What distinguishes two versions of a dataset.

In: two datasets. Out: episodes that came, went, were made anew from the same log, or are judged otherwise; signals
whose specification differs; and, where asked for, statistics of every signal in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from flyball.base.store import Store
from flyball.episodes.catalogue import Catalogue, EpisodeRow
from flyball.episodes.dataset import Dataset, Judgement
from flyball.episodes.datasets.stored import open_episode, read_header


@dataclass(frozen=True)
class Difference:
    """From one dataset to another.

    Attributes:
      added, removed: digests of episodes.
      changed: (before, after): cut from the same place of the same log, with other bytes.
      rejudged: digest -> (before, after).
      moved: digest -> (split before, split after).
      specs: signal or camera -> (before, after); None where there is none.
      statistics: signal -> {"before": ..., "after": ...}, each count, min, max, mean and std per element.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[tuple[str, str], ...] = ()
    rejudged: Mapping[str, tuple[Judgement, Judgement]] = field(default_factory=dict)
    moved: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    specs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    statistics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is no difference (statistics follow from the episodes)."""
        return not (self.added or self.removed or self.changed or self.rejudged or self.moved or self.specs)


def difference(catalogue: Catalogue, before: Dataset, after: Dataset, *, statistics: bool = True) -> Difference:
    """From ``before`` to ``after``.

    Raises:
      Missing, Damaged: an episode that is gone or not sound.
    """
    old, new = dict.fromkeys(before.episodes), dict.fromkeys(after.episodes)
    added, removed = [d for d in new if d not in old], [d for d in old if d not in new]
    places = {_place(catalogue.row(d)): d for d in removed}
    changed = [(places[p], d) for d in added if (p := _place(catalogue.row(d))) in places and p[0]]
    replaced = {d for pair in changed for d in pair}
    both = [d for d in old if d in new]
    judged = [dict(zip(x.episodes, x.judged, strict=True)) if x.judged else {} for x in (before, after)]
    rejudged = {
        d: (judged[0][d], judged[1][d])
        for d in both
        if d in judged[0] and d in judged[1] and judged[0][d] != judged[1][d]
    }
    split = [{d: part for part, members in x.splits.items() for d in members} for x in (before, after)]
    moved = {d: (split[0].get(d, ""), split[1].get(d, "")) for d in both if split[0].get(d, "") != split[1].get(d, "")}
    specs = [_specs(catalogue.store, x) for x in (before, after)]
    differing = {
        name: (specs[0].get(name), specs[1].get(name))
        for name in sorted({*specs[0], *specs[1]})
        if specs[0].get(name) != specs[1].get(name)
    }
    found: dict[str, dict[str, Any]] = {}
    if statistics and (added or removed):
        for side, dataset in (("before", before), ("after", after)):
            for name, s in moments(catalogue.store, dataset).items():
                found.setdefault(name, {})[side] = s
    return Difference(
        tuple(d for d in added if d not in replaced),
        tuple(d for d in removed if d not in replaced),
        tuple(changed),
        rejudged,
        moved,
        differing,
        found,
    )


def moments(store: Store, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Count, min, max, mean and std of every element of every signal, over all samples that are finite."""
    kept: dict[str, list[Any]] = {}
    for digest in dataset.episodes:
        for name, signal in open_episode(store, digest).signals.items():
            x = np.asarray(signal.values).reshape(len(signal.t_ns), -1).astype(np.float64)
            fine = np.isfinite(x)
            n, total = fine.sum(0), np.where(fine, x, 0).sum(0)
            # Deviations from the episode's own mean: sums of squares of large numbers would cancel.
            mean = total / np.maximum(n, 1)
            spread = np.where(fine, (x - mean) ** 2, 0).sum(0)
            low, high = (
                np.where(fine, x, np.inf).min(0, initial=np.inf),
                np.where(fine, x, -np.inf).max(0, initial=-np.inf),
            )
            if name not in kept:
                kept[name] = [n, mean, spread, low, high]
                continue
            n0, mean0, spread0, low0, high0 = kept[name]
            both = np.maximum(n0 + n, 1)
            kept[name] = [
                n0 + n,
                (n0 * mean0 + n * mean) / both,
                spread0 + spread + (mean - mean0) ** 2 * n0 * n / both,
                np.minimum(low0, low),
                np.maximum(high0, high),
            ]
    return {
        name: {
            "count": int(n.max(initial=0)),
            "mean": mean.tolist(),
            "std": np.sqrt(spread / np.maximum(n, 1)).tolist(),
            "min": low.tolist(),
            "max": high.tolist(),
        }
        for name, (n, mean, spread, low, high) in kept.items()
    }


def _place(row: EpisodeRow) -> tuple[str, int]:
    return row.log_digest, row.start_ns


def _specs(store: Store, dataset: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for digest in dataset.episodes:
        header = read_header(store, digest)
        for name, spec in header.signals.items():
            found.setdefault(name, {k: v for k, v in asdict(spec).items() if k in ("shape", "dtype", "unit", "frame")})
        for name, facts in header.cameras.items():
            found.setdefault(f"camera {name}", {"encoding": facts[0], "height": facts[1], "width": facts[2]})
    return found
