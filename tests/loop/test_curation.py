"""A measured value becomes a row of each episode it was measured on, with what it rests on."""

import json

import numpy as np
import pytest

from flyball.base import Missing
from flyball.base.store import Store
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.evaluation.value import ValueRule
from flyball.loop.curation import value_of


@pytest.fixture
def catalogue(tmp_path):
    c = Catalogue(Store(tmp_path))
    for i in range(6):
        c.add(Episode("arm", seed=i), producer="tests@1")
    return c


def test_rows_of_a_harmful_subset(catalogue):
    digests = [r.digest for r in catalogue.query()]
    bad, rest = digests[:2], digests[2:]

    def train_and_evaluate(episodes, seed):
        return np.random.default_rng(seed).random(50) < (0.3 if bad[0] in episodes else 0.8)

    found = value_of(catalogue, bad, rest, train_and_evaluate, ValueRule(seeds=4))
    assert found.verdict == "drop"
    rows = catalogue.verdicts()
    assert [(v.digest, v.check, v.verdict) for v in rows] == [(d, "value", "drop") for d in bad]
    assert "noise floor" in rows[0].reason and "2 episodes together" in rows[0].reason
    report = json.loads(catalogue.store.get(rows[0].inputs[0]))
    assert report["episodes"] == sorted(bad) and len(report["with_them"]) == 4


def test_unknown_episodes_are_refused_before_anything_is_trained(catalogue):
    with pytest.raises(Missing):
        value_of(catalogue, ["0" * 64], [catalogue.query()[0].digest], lambda e, s: 1 / 0)
