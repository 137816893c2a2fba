"""Between curation and evaluation: the measured value of episodes, as verdicts in the catalogue.

In: digests of episodes, and a function that trains and evaluates. Out: a verdict, and a row for each of the episodes;
the outcomes it rests on are kept in the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from flyball.episodes.catalogue import Catalogue
from flyball.evaluation.value import TrainAndEvaluate, ValueRule, ValueVerdict, measure_value

CHECK = "value"
VERSION = "1"


def value_of(
    catalogue: Catalogue,
    episodes: Sequence[str],
    others: Sequence[str],
    train_and_evaluate: TrainAndEvaluate,
    rule: ValueRule | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ValueVerdict:
    """Measure what episodes add to others and say so of each of them; nothing is left out of anything by this alone.

    Raises:
      Missing: no such episode; before anything is trained.
      InputError: see ``measure_value``.
    """
    for digest in (*episodes, *others):
        catalogue.row(digest)
    found = measure_value(train_and_evaluate, episodes, others, rule, progress=progress)
    report = {"episodes": sorted(episodes), "others": sorted(others), **found.to_json()}
    blob = json.dumps(report, sort_keys=True, separators=(",", ":")).encode()
    artifact = catalogue.store.put("value", blob, producer=f"flyball.loop.curation@{VERSION}", parents=episodes)
    with catalogue.store.transaction():
        for digest in episodes:
            reason = f"{found.line()}; measured on {len(episodes)} episodes together"
            catalogue.add_verdict(digest, CHECK, found.verdict, reason, VERSION, (artifact.digest,))
    return found
