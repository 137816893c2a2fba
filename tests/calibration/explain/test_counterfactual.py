"""Shares and least changes, on failures whose law is written down here: no simulator."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.calibration.explain.case import Variant
from flyball.calibration.explain.counterfactual import Budget, joined, least_changes, margin_map, shapley
from flyball.calibration.explain.levers import Lever


class Law:
    """A policy that succeeds where a function of (force, friction) says so."""

    def __init__(self, wins):
        self.wins, self.tried = wins, 0

    def succeeds(self, v, policy=None):
        self.tried += len(v.seeds)
        return self.wins(v.told[:, 0], np.asarray(v.values["friction"]))


def worlds(force, friction):
    n = len(friction)
    told = np.full((n, 1), float(force))
    return Variant({"friction": np.array(friction, float)}, told, {"box": np.zeros((n, 7))}, list(range(n)),
                   np.full(n, np.inf))  # fmt: skip


FORCE = Lever("told:force", "force", "N", 1.0, 100.0, "log", True, lambda v: v.told[:, 0],
              lambda v, x: replace(v, told=np.asarray(x, float)[:, None]))  # fmt: skip
FRICTION = Lever("friction", "friction", "", 0.1, 1.0, "log", False, lambda v: np.asarray(v.values["friction"]),
                 lambda v, x: replace(v, values={"friction": np.asarray(x, float)}))  # fmt: skip


def test_a_window_is_found_though_more_of_it_fails_again():
    law = Law(lambda force, friction: (force * friction > 5.0) & (force < 14.0))
    failed = worlds(8.0, [0.5] * 8)  # 10 N hold, 14 N crush; the far end of the range fails, too
    (found,) = least_changes(law, failed, [FORCE], [None], Budget(grid=24))
    assert found.flips == 1 and found.actionable
    assert found.low <= 0.25 <= found.high + 1e-9 and found.high - found.low < 0.05
    assert found.change == pytest.approx(0.25, abs=0.02)
    assert found.text() == f"+{100 * found.change:.3g} % [{100 * found.low:.3g}, {100 * found.high:.3g}]"


def test_a_guess_finds_a_window_that_falls_between_the_grids_values():
    law = Law(lambda force, friction: np.abs(np.log(force / 11.0)) < 0.02)
    failed = worlds(8.0, [0.5] * 4)
    assert least_changes(law, failed, [FORCE], [None], Budget(grid=6)) == []
    (found,) = least_changes(law, failed, [FORCE], [np.full(4, 11.0)], Budget(grid=6))
    assert found.after == pytest.approx(11.0 * np.exp(-0.02), rel=0.01), "its near edge"


def test_the_band_is_as_wide_as_what_is_not_known():
    law = Law(lambda force, friction: force * friction > 5.0)
    friction = np.linspace(0.4, 0.6, 16)
    (found,) = least_changes(law, worlds(8.0, friction), [FORCE], [None], Budget(grid=24))
    needs = 5.0 / friction / 8.0 - 1
    assert found.low <= np.quantile(needs, 0.1) and found.high >= np.quantile(needs, 0.9)
    assert found.low > needs.min() - 0.15 and found.high < needs.max() + 0.15


def test_what_never_helps_is_no_answer_and_the_smallest_change_comes_first():
    law = Law(lambda force, friction: force * friction > 5.0)
    idle = Lever("idle", "idle", "", 0.0, 1.0, "linear", True, lambda v: np.full(len(v.seeds), 0.5), lambda v, x: v)
    found = least_changes(law, worlds(8.0, [0.5] * 6), [idle, FORCE, FRICTION], [None] * 3, Budget(),
                          always=("friction",))  # fmt: skip
    assert [c.path for c in found] == ["told:force", "friction"], "log 1.25 of log 100, and of log 10"
    assert not found[1].actionable


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**16 - 1))
def test_shares_add_up_to_what_putting_everything_back_brings(n, table):
    players = [f"p{k}" for k in range(n)]

    def wins(jobs):
        return np.array([bool(table >> sum(1 << players.index(p) for p in back) & 1) for _, back in jobs], float)

    shares, nobody, everybody = shapley([players], wins)
    assert sum(shares.values()) == pytest.approx(everybody[0] - nobody[0])


def test_equals_share_equally_and_who_does_nothing_has_no_share():
    both = shapley([["a", "b", "idle"]], lambda jobs: np.array([{"a", "b"} <= back for _, back in jobs], float))[0]
    assert both == pytest.approx({"a": 0.5, "b": 0.5, "idle": 0.0})
    either = shapley([["a", "b"], ["a"]], lambda jobs: np.array(["a" in back for _, back in jobs], float))[0]
    assert either == pytest.approx({"a": 1.0, "b": 0.0})


def test_the_margin_map_shows_the_boundary():
    law = Law(lambda force, friction: force * friction > 5.0)
    found = margin_map(law, worlds(8.0, [0.5] * 3), FORCE, FRICTION, points=7)
    assert found.share.shape == (7, 7) and found.at == (8.0, 0.5)
    force, friction = np.meshgrid(found.xs, found.ys)
    np.testing.assert_array_equal(found.share, (force * friction > 5.0).astype(float))


def test_variants_join_and_split():
    v = joined([worlds(8.0, [0.5]), worlds(9.0, [0.6, 0.7])])
    assert v.told[:, 0].tolist() == [8, 9, 9] and v.take(np.array([2])).values["friction"].tolist() == [0.7]


def test_samples_that_need_more_than_those_looked_at_first_are_answered_too():
    law = Law(lambda force, friction: force * friction > 5.0)
    friction = [0.5, 0.5] + [0.42] * 8  # 25 % more force, and 49 %
    (found,) = least_changes(law, worlds(8.0, friction), [FORCE], [None], Budget(first=2, grid=24))
    assert found.flips == 1 and found.change == pytest.approx(5 / 0.42 / 8 - 1, abs=0.03)


def test_a_band_has_no_far_end_where_nothing_helps_many_of_the_samples():
    law = Law(lambda force, friction: (force * friction > 5.0) & (force < 14.0))
    friction = [0.5] * 6 + [0.3] * 4  # those would need 16.7 N, and 14 N crush
    (found,) = least_changes(law, worlds(8.0, friction), [FORCE], [None], Budget(grid=24))
    assert found.flips == pytest.approx(0.6) and found.high == np.inf and found.text().endswith(", open]")
    assert found.low <= 0.25 <= found.change + 0.02
