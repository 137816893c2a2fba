"""Versions: copy-on-write, rebuilt from their query, divided the same way whenever."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, InputError
from flyball.episodes import Dataset
from flyball.episodes.datasets.versions import check_name, part_of, shares


def test_build_records_the_query_and_what_was_thought_of_each_episode(datasets, catalogue, fill):
    a, b, c = fill(3)
    catalogue.set_outcome(b, "failure", "slipped", reason="seen")
    catalogue.add_verdict(b, "drops", "flag", "12 samples missing", "1")
    catalogue.set_verdict(c, "rejected", reason="seen")
    version = datasets.build("mine", "seed >= 0")
    d = datasets.load("mine")
    assert (str(version), d.episodes) == ("mine@1", (a, b))
    assert (d.query, d.made) == ("seed >= 0", {"verb": "build", "with_rejected": False})
    assert (d.judgement(b).outcome, d.judgement(b).group, d.judgement(b).checks) == (
        "failure", "slipped", {"drops": "flag"}
    )  # fmt: skip
    assert datasets.load(datasets.build("all", with_rejected=True)).episodes == (a, b, c)
    parents = {x.digest for x in catalogue.store.lineage(version.digest)}
    assert {a, b} <= parents and c not in parents


def test_a_name_moves_on_and_old_versions_stay(datasets, catalogue, fill):
    a, b = fill(2)
    first = datasets.build("mine")
    assert datasets.rebuild("mine") == first  # nothing new, no new version
    (c,) = fill(1, first=2)
    second = datasets.rebuild("mine")
    assert (second.number, datasets.load("mine").episodes) == (2, (a, b, c))
    assert datasets.load("mine@1").episodes == (a, b)
    assert datasets.find(first.digest[:10]) == first
    assert catalogue.store.name("dataset/mine") == second.digest
    catalogue.set_outcome(a, "failure", reason="looked again")
    assert datasets.load("mine").judgement(a).outcome == "success"  # a version does not change with the catalogue
    assert datasets.rebuild("mine").number == 3


def test_conditions_over_contents_and_checks_select_too(datasets, catalogue, fill):
    a, b = fill(2)
    catalogue.add_verdict(a, "drops", "flag", "", "1")
    assert datasets.load(datasets.build("x", "verdict.drops IS NULL AND joint.position.count > 30")).episodes == (b,)


def test_merge_keeps_order_and_refuses_an_episode_in_two_splits(datasets, fill):
    digests = fill(6)
    datasets.build("left", "seed < 4")
    datasets.build("right", "seed >= 2")
    merged = datasets.load(datasets.merge("both", ["right", "left"]))
    assert merged.episodes == (*digests[2:], *digests[:2])
    assert set(merged.parents) == {datasets.find("left").digest, datasets.find("right").digest}
    a, b, c, d = digests[:4]
    datasets.save("l", Dataset((a, b), splits={"train": (a,), "test": (b,)}))
    datasets.save("r", Dataset((b, c), splits={"train": (c,), "test": (b,)}))
    assert datasets.load(datasets.merge("split", ["l", "r"])).splits == {"train": (a, c), "test": (b,)}
    datasets.save("other", Dataset((b, d), splits={"train": (b,), "test": (d,)}))
    with pytest.raises(InputError, match=r"other@1: episode .* is in split 'train' here and in 'test' elsewhere"):
        datasets.merge("mixed", ["l", "other"])
    assert not datasets.versions("mixed")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 40), more=st.integers(1, 20))
def test_where_an_episode_goes_depends_on_nothing_but_it_and_the_seed(seed, count, more):
    edges = {"train": 0.7, "val": 0.1, "test": 0.2}
    before = {k: part_of(str(k), edges, by="episode", seed=seed) for k in range(count)}
    after = {k: part_of(str(k), edges, by="episode", seed=seed) for k in range(count + more)}
    assert all(after[k] == part for k, part in before.items())
    assert set(after.values()) <= set(edges)


def test_shares_are_met_on_average():
    edges = {"train": 0.7, "val": 0.1, "test": 0.2}
    parts = [part_of(str(k), edges, by="episode", seed=1) for k in range(4000)]
    assert parts != [part_of(str(k), edges, by="episode", seed=2) for k in range(4000)]
    assert [round(parts.count(p) / 4000, 2) for p in edges] == pytest.approx([0.7, 0.1, 0.2], abs=0.03)


def test_splits_are_stable_when_episodes_are_added_and_keep_robots_together(datasets, fill):
    fill(12)
    datasets.build("mine")
    halves = {"train": 0.5, "test": 0.5}
    before = datasets.load(datasets.split("mine", "mine", halves, seed=2)).splits
    assert sorted([*before["train"], *before["test"]]) == sorted(datasets.load("mine@1").episodes)
    fill(6, first=12)
    datasets.build("more")
    after = datasets.load(datasets.split("more", "more", halves, seed=2)).splits
    assert all(set(before[p]) <= set(after[p]) for p in halves)
    seed = next(s for s in range(20) if len({part(datasets, r, s) for r in ("r0", "r1", "r2")}) == 2)
    robots = datasets.load(datasets.split("more", "robots", halves, by="robot", seed=seed)).splits
    homes = [{datasets.catalogue.row(d).robot for d in members} for members in robots.values()]
    assert homes[0] and homes[1] and not homes[0] & homes[1]


def part(datasets, robot, seed):
    return part_of(robot, {"train": 0.5, "test": 0.5}, by="robot", seed=seed)


@pytest.mark.parametrize(
    "act, line",
    [
        (lambda d: d.build("a/b"), r"'a/b' is no name for a dataset; allowed: letters"),
        (lambda d: d.build("../up"), r"'\.\./up' is no name"),
        (lambda d: d.build("x", "seed > 99"), r"dataset x: no episode meets .*seed > 99.*try: flyball episodes"),
        (lambda d: d.build("x", "seed >"), r"not understood: 'seed >'"),
        (lambda d: d.build("x", "1; DROP TABLE episodes"), r"not understood"),
        (lambda d: d.find("nobody"), r"no dataset named 'nobody'; allowed: .*mine; try: flyball datasets list"),
        (lambda d: d.find("mine@7"), r"no dataset named 'mine@7'.*mine@1"),
        (lambda d: d.split("mine", "mine", {"train": 1.0}), r"split: .*train=0.8"),
        (lambda d: d.split("mine", "mine", {"a": 0.9, "b": 0.2}), r"sum 1"),
        (lambda d: d.split("mine", "mine", {"a": 1.5, "b": -0.5}), r"sum 1"),
        (lambda d: d.split("mine", "mine", {"a": float("nan"), "b": 0.5}), r"sum 1"),
        (lambda d: d.split("mine", "mine", {"../a": 0.5, "b": 0.5}), r"'\.\./a' is no name for a split"),
        (lambda d: d.split("mine", "mine", {"a": 0.5, "b": 0.5}, by="colour"), r"no key named 'colour'.*robot"),
        (
            lambda d: d.split("mine", "mine", {"a": 0.5, "b": 0.5}, by="task"),
            r"stays empty: 1 different keys of 'task'",
        ),
        (lambda d: d.rebuild("merged"), r"merged: made by merge, not by a query"),
        (lambda d: d.merge("x", ["mine", "gone"]), r"no dataset named 'gone'"),
    ],
    ids=lambda x: "" if callable(x) else x[:24],
)
def test_bad_wishes_are_one_line_and_change_nothing(datasets, fill, act, line):
    fill(3)
    datasets.build("mine")
    datasets.merge("merged", ["mine"])
    before = datasets.versions()
    with pytest.raises(InputError, match=line) as caught:
        act(datasets)
    assert caught.value.exit_code == 2 and "\n" not in caught.value.line()
    assert datasets.versions() == before


def test_what_does_not_belong_together_is_refused(datasets, fill):
    fill(1)
    fill(1, first=1, embodiment="other-arm")
    with pytest.raises(InputError, match=r"mixed embodiments: 'two-joints' .* and 'other-arm' .*try: .*embodiment"):
        datasets.build("mixed")
    fill(1, first=2, unit="deg")
    with pytest.raises(InputError, match=r"signal '(joint.position|command.joint)' has unit 'rad' .* and 'deg'"):
        datasets.build("units", "embodiment = 'two-joints'")


def test_a_dataset_says_when_its_bytes_are_not_its_own():
    d = Dataset(("a" * 64,), query="q", splits={"train": ("a" * 64,)})
    assert Dataset.decode(d.encode()) == d
    for blob in (
        b"",
        b"[]",
        b"{}",
        d.encode()[:-1],
        json.dumps({**json.loads(d.encode()), "splits": {"t": []}}).encode(),
    ):
        with pytest.raises(Damaged, match="not a sound dataset"):
            Dataset.decode(blob)
    with pytest.raises(InputError, match="an episode twice"):
        Dataset(("a", "a"))


def test_names_and_shares_as_typed():
    assert shares("train=0.8, test=0.2") == {"train": 0.8, "test": 0.2}
    for text in ("train", "train=x", "a=0.5,a=0.5", ""):
        with pytest.raises(InputError, match="fractions"):
            shares(text)
    for name in ("", ".", "..", "a b", "a@1", "-x", "ä", "x" * 65, "a\n"):
        with pytest.raises(InputError, match="is no name"):
            check_name(name)
