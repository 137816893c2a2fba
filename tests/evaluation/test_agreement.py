"""Agreement of engines, on outcomes that are known beforehand."""

import sys
import types

import numpy as np
import pytest

from flyball.base import FlyballError, Unsupported
from flyball.engines import engines
from flyball.engines.mujoco import MujocoEngine
from flyball.evaluation.agreement import Tried, agreement, try_on
from flyball.tasks import tasks


def tried(engine, policy, outcomes, formulation=None):
    groups = tuple({"+": "", "s": "slipped", "c": "crushed"}[o] for o in outcomes)
    return Tried(engine, "1", formulation or engine, policy, groups)


def test_trials_that_end_alike_are_counted_and_corrected_for_chance():
    found = agreement([tried("a", "p", "++++ssss"), tried("b", "p", "+++sssc+")])
    (pair,) = found.pairs
    assert pair.alike.mean == 6 / 8 and pair.alike.low < 6 / 8 < pair.alike.high
    assert pair.kappa == pytest.approx((0.75 - 0.5) / 0.5)
    assert pair.same_group == 2 / 3, "of three that failed in both, two slipped in both"
    assert np.isnan(pair.rank), "one policy has no rank"


def test_engines_that_rank_policies_alike_agree_although_their_rates_differ():
    a = [tried("a", "good", "+++s"), tried("a", "fair", "++ss"), tried("a", "bad", "ssss")]
    b = [tried("b", "good", "++++"), tried("b", "fair", "+++s"), tried("b", "bad", "+sss")]
    assert agreement(a + b).pairs[0].rank == 1
    turned = [tried("b", "good", "+sss"), tried("b", "fair", "+++s"), tried("b", "bad", "++++")]
    assert agreement(a + turned).pairs[0].rank == -1


def test_engines_of_one_formulation_are_one_vote():
    rows = [tried(e, "p", "++ss", f) for e, f in (("mujoco", "mujoco"), ("warp", "mujoco"), ("drake", "drake"))]
    found = agreement(rows)
    assert found.votes == {"mujoco": ("mujoco", "warp"), "drake": ("drake",)}
    assert [p.independent for p in found.pairs] == [False, True, True]
    assert found.unanimous.mean == 1


def test_votes_on_which_policy_is_better():
    rows = [
        tried("a", "new", "+" * 40),
        tried("a", "old", "s" * 30 + "+" * 10),
        tried("b", "new", "+" * 20 + "s" * 20),
        tried("b", "old", "s" * 20 + "+" * 20),
        tried("c", "new", "s" * 40),
        tried("c", "old", "+" * 30 + "s" * 10),
    ]
    assert agreement(rows).better("new", "old") == {"a": "new", "b": "undecided", "c": "old"}


@pytest.mark.parametrize(
    "rows",
    [
        [tried("a", "p", "++")],
        [tried("a", "p", "++"), tried("b", "p", "+")],
        [tried("a", "p", "++"), tried("b", "q", "++")],
        [tried("a", "p", "++"), tried("a", "p", "++")],
    ],
)
def test_trials_that_cannot_be_compared_are_refused(rows):
    with pytest.raises(FlyballError, match=r"at least two|same trials"):
        agreement(rows)


def test_an_engine_that_lacks_what_a_task_needs_is_told_before_any_trial():
    task = tasks.load("lift-fragile-v1")
    made, told = [], []
    values = task.draw_reality(np.random.default_rng(1), 2)
    policies = {"still": lambda n: made.append(n)}
    with pytest.raises(Unsupported, match="servo.*more than one hinge"):
        try_on(task, policies, ["mujoco", "servo"], values, range(2), told.append)
    assert made == told == []

    class Poor(MujocoEngine):
        def open(self, *args, **settings):
            sim = super().open(*args, **settings)

            def refuse(values):
                raise Unsupported("cannot set a size", where="engine poor")

            sim.set = refuse
            return sim

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "engines_of_a_test", types.SimpleNamespace(Poor=Poor))
        patch.setitem(engines._entries, "poor", "engines_of_a_test:Poor")
        with pytest.raises(Unsupported, match="poor: lift-fragile-v1: cannot set a size; try: without --engine poor"):
            try_on(task, policies, ["mujoco", "poor"], values, range(2))
    assert made == []


def test_an_engine_agrees_with_itself_and_the_expert_wins():
    task = tasks.load("lift-fragile-v1")
    n = 4
    values = task.draw_reality(np.random.default_rng(1), n)
    told = task.told(task.scene.nominal(n) | values)
    policies = {"expert": lambda n: task.expert(told), "still": lambda n: lambda o: task.rest_action(values)}
    rows = [t for _ in range(2) for t in try_on(task, policies, ["mujoco"], values, range(n))]
    assert [t.groups for t in rows[:2]] == [t.groups for t in rows[2:]]
    assert rows[0].successes.mean() > rows[1].successes.mean() == 0
    assert rows[0].formulation == "mujoco"
