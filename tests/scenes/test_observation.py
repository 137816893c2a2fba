"""What befalls an observation is what was planted, the same in any batch and step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError, Missing
from flyball.scenes.observation import Observer, effects, observe

DT = 0.04


def run(truth, values, *, seed=0, worlds=None, **rest):
    n, _, size = truth.shape
    made = effects({"p": size}, {f"sensor:p.{k}": np.broadcast_to(v, (n,)) for k, v in values.items()}, n, **rest)
    return observe({"p": truth}, made, DT, seed, range(n) if worlds is None else worlds)["p"]


def ramp(n, steps=12, size=1):
    return np.tile(np.arange(steps, dtype=float)[None, :, None], (n, 1, size))


def test_nothing_befalls_by_default():
    x = np.random.default_rng(0).standard_normal((3, 10, 2))
    assert np.array_equal(run(x, {}), x)


def test_a_delay_holds_the_newest_sample_that_has_arrived():
    seen = run(ramp(4), {"delay": np.array([0.0, DT, 1.5 * DT, 0.1 * DT])})[..., 0]
    assert seen[0, 5:8].tolist() == [5, 6, 7]
    assert seen[1, :4].tolist() == [0, 0, 1, 2]  # before anything arrives, the first sample stands
    assert seen[2, :5].tolist() == [0, 0, 0, 1, 2] and seen[3, 5:8].tolist() == [4, 5, 6]


def test_a_linear_delay_sees_the_signal_as_it_was():
    delay = np.array([0.0, 0.25, 1.5, 3.0])
    seen = run(ramp(4), {"delay": delay * DT}, between="linear")[..., 0]
    assert np.allclose(seen, np.maximum(np.arange(12) - delay[:, None], 0))


N, T = 200, 250


def test_noise_and_bias_have_the_planted_statistics():
    truth, std, bias = np.zeros((N, T, 2)), 0.3, 1.5
    x = run(truth, {"noise": std, "bias": bias})
    m = x.size
    # five standard errors each: a right sampler fails one of these three with probability under 2e-6
    assert abs(x.mean() - bias) < 5 * std / math.sqrt(m)
    assert abs(x.std() / std - 1) < 5 / math.sqrt(2 * m)
    flat = (x - bias).reshape(N, -1) / std
    assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 5 / math.sqrt(m), "white in time and across elements"


def test_a_random_walk_spreads_with_the_root_of_time():
    x = run(np.zeros((2000, 26, 1)), {"walk": 0.5})[..., 0]
    assert np.all(x[:, 0] == 0)
    for k in (1, 25):  # relative standard error of a deviation from 2000: 1.6 %; five of them
        assert abs(x[:, k].std() / (0.5 * math.sqrt(k * DT)) - 1) < 5 / math.sqrt(4000)


@pytest.mark.parametrize("lost", ["hold", "nan"])
def test_samples_are_lost_as_often_as_planted(lost):
    p, truth = 0.3, ramp(N, T)
    x = run(truth, {"dropout": p}, lost=lost)[..., 0]
    gone = np.isnan(x) if lost == "nan" else x != truth[..., 0]
    m = N * (T - 1)
    assert not gone[:, 0].any() and abs(gone[:, 1:].mean() - p) < 5 * math.sqrt(p * (1 - p) / m)
    if lost == "hold":
        last = np.maximum.accumulate(np.where(gone, 0, np.arange(T)), axis=1)
        assert np.array_equal(x, last), "the last one received stands"


def test_fresh_says_which_samples_arrived():
    made = effects({"p": 1}, {"sensor:p.dropout": np.full(50, 0.5)}, 50, lost="nan")
    observer = Observer(made, DT, 0, range(50))
    for _ in range(5):
        seen = observer({"p": np.ones((50, 1)), "other": np.ones((50, 3))})
        assert np.array_equal(~np.isnan(seen["p"][:, 0]), observer.fresh["p"]) and observer.fresh["other"].all()
    assert 0 < observer.fresh["p"].sum() < 50


def test_a_reading_has_its_quantum():
    x = run(np.random.default_rng(0).uniform(-1, 1, (3, 50, 1)), {"quantum": np.array([0.0, 0.25, 0.1])})
    assert set(np.unique(x[1])) <= set(np.arange(-1, 1.1, 0.25)) and np.allclose(x[2] / 0.1, np.rint(x[2] / 0.1))
    assert len(np.unique(x[0])) == 50


def test_noise_belongs_to_the_sample_that_arrives_late():
    on_time = run(np.zeros((2, 20, 1)), {"noise": 1.0})
    late = run(np.zeros((2, 20, 1)), {"noise": 1.0, "delay": 3 * DT})
    assert np.array_equal(late[:, 3:], on_time[:, :-3])


ALL = {"delay": 0.07, "noise": 0.1, "bias": 0.2, "walk": 0.3, "dropout": 0.2, "quantum": 1e-3}


@settings(max_examples=15, deadline=None)
@given(worlds=st.lists(st.integers(0, 39), min_size=1, max_size=12), seed=st.integers(0, 2**40))
def test_any_batch_gives_the_same_bits(worlds, seed):
    truth = np.random.default_rng(1).standard_normal((40, 70, 3))
    whole = run(truth, ALL, seed=seed)
    assert np.array_equal(run(truth[worlds], ALL, seed=seed, worlds=worlds), whole[worlds])


def test_rows_may_begin_anew_as_other_worlds_at_any_step():
    truth = np.random.default_rng(1).standard_normal((6, 30, 2))
    made = effects({"p": 2}, {f"sensor:p.{k}": np.full(6, v) for k, v in ALL.items()}, 6)
    observer = Observer(made, DT, 5, range(6))
    for k in range(11):
        observer({"p": truth[:, k]})
    observer.reset(np.array([1, 4]), [100, 101])
    seen = np.stack([observer({"p": truth[:, k]})["p"] for k in range(11, 30)], axis=1)
    alone = run(truth[[1, 4], 11:], ALL, seed=5, worlds=[100, 101])
    through = run(truth[[0, 5]], ALL, seed=5, worlds=[0, 5])[:, 11:]
    assert np.array_equal(seen[[1, 4]], alone) and np.array_equal(seen[[0, 5]], through)


def test_one_element_may_differ_from_the_others():
    values = {"sensor:p.bias[1]": np.full(2, 3.0), "sensor:p.bias": np.full(2, 1.0)}
    made = effects({"p": 3}, values, 2)
    assert made["p"].bias.tolist() == [[1, 3, 1]] * 2


@pytest.mark.parametrize(
    ("path", "value", "kind", "says"),
    [
        ("sensor:q.noise", 1.0, Missing, "no signal named 'q'"),
        ("body:b.mass", 1.0, InputError, "sensor:SIGNAL.effect"),
        ("sensor:p.noise[3]", 1.0, InputError, "element 3"),
        ("sensor:p.delay[1]", 1.0, InputError, "element 1"),
        ("sensor:p.noise", -1.0, InputError, "noise = -1"),
        ("sensor:p.dropout", 1.5, InputError, "dropout = 1.5"),
        ("sensor:p.bias", float("nan"), InputError, "bias = nan"),
    ],
)
def test_what_cannot_be_is_refused_by_name(path, value, kind, says):
    with pytest.raises(kind, match=says.replace("[", r"\[")):
        effects({"p": 3}, {path: np.array([0.0, value])}, 2)


def test_a_delay_of_minutes_is_refused():
    with pytest.raises(InputError, match="control periods"):
        run(ramp(1), {"delay": 1e6})
