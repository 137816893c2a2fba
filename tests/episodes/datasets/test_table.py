"""Tables: which sample a row gets, and the account of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError, SignalSpec, Timed
from flyball.episodes import Dataset, Episode
from flyball.episodes.datasets.layout import Feature, Layout, TableOptions, plan
from flyball.episodes.datasets.table import SLACK, Sampler
from flyball.episodes.datasets.testing import planted_episode, planted_frames, stamps


def layout(fps, *names, rule="last", **options):
    """A layout in which each signal is a column of its own; the first is the action."""
    features = tuple(
        Feature("action" if i == 0 else n, "numbers", "float64", (1,), (n,), (SignalSpec(n),))
        for i, n in enumerate(names)
    )
    return Layout(fps, features, TableOptions(rule=rule, **options))


def episode(**signals):
    """An episode of scalar signals whose values are their numbers."""
    return Episode(
        "body",
        signals={
            n: Timed(SignalSpec(n), np.asarray(t, np.int64), np.arange(len(t), dtype=float)) for n, t in signals.items()
        },
    )


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 200), min_size=1, max_size=15),
    other=st.lists(st.integers(1, 200), min_size=1, max_size=15),
    fps=st.integers(1, 30),
    rule=st.sampled_from(["last", "nearest"]),
    start=st.integers(0, 500),
)
def test_each_row_gets_the_sample_that_the_rule_names(gaps, other, fps, rule, start):
    a, b = np.cumsum(gaps) * 10**6, (np.cumsum(other) + start) * 10**6
    shape = layout(fps, "a", "b", rule=rule)
    if b[0] > a[-1]:
        with pytest.raises(InputError, match="share no time"):
            Sampler(shape).table(episode(a=a, b=b), where="e")
        return
    sampler = Sampler(shape)
    table = sampler.table(episode(a=a, b=b), where="e")
    begin, slack = max(a[0], b[0]), 10**9 / (SLACK * fps)
    assert table.begin_ns == begin
    assert table.length == sum(1 for i in range(200) if begin + i * 1e9 / fps <= a[-1] + slack)
    worst = {"action": 0.0, "b": 0.0}
    for i in range(table.length):
        at = begin + round(i * 1e9 / fps)
        for key, t in (("action", a), ("b", b)):
            row = int(table.columns[key][i, 0])
            if rule == "last":
                assert row == max(j for j in range(len(t)) if t[j] <= at + slack)
            else:
                assert abs(t[row] - at) == np.abs(t - at).min()
            worst[key] = max(worst[key], abs(at - int(t[row])) * 1e-9)
    assert {k: r.age_s for k, r in sampler.done.items()} == pytest.approx(worst)


def test_repeats_skips_and_what_was_cut_are_counted():
    t = stamps(11, 10, 0)  # 0 ... 1 s
    sampler = Sampler(layout(10, "slow", "fast"))
    table = sampler.table(
        episode(slow=[0, 10**9 // 2, 10**9], fast=[*range(-(10**8), 2 * 10**9, 10**8 // 4)]), where="e"
    )
    assert table.length == len(t)
    slow, fast = sampler.done["action"], sampler.done["fast"]
    assert (slow.repeated, slow.skipped, round(slow.age_s, 3)) == (8, 0, 0.4)
    assert (fast.repeated, fast.skipped) == (0, 3 * 10)
    assert round(fast.begin_s, 3) == 0.1 and round(fast.end_s, 3) == 0.975


def test_stamps_that_jitter_by_less_than_a_hundredth_of_a_period_lose_no_row():
    t = stamps(100, 50, 0) + np.random.default_rng(0).integers(0, 190_000, 100)
    t[0] = 0
    table = Sampler(layout(50, "a")).table(episode(a=t), where="e")
    assert table.columns["action"][:, 0].tolist() == list(range(100))


def test_a_sample_that_is_too_old_is_refused_with_its_row():
    with pytest.raises(InputError, match=r"e: row 4 of action would get a sample 0.4 s away; allowed: 0.25 s"):
        Sampler(layout(10, "a", max_age_s=0.25)).table(episode(a=[0, 10**9 // 2, 10**9]), where="e")


def test_values_are_narrowed_and_laid_end_to_end(catalogue):
    e = planted_episode(catalogue.store, 0, n=5)
    made = plan(catalogue.store, Dataset((catalogue.add(e, producer="t").digest,)), TableOptions())
    table = Sampler(made).table(e, where="e")
    wanted = np.column_stack([e.signals["gripper.force"].values[::5], e.signals["joint.position"].values])
    assert table.columns["observation.state"].dtype == np.float32
    assert (table.columns["observation.state"] == wanted.astype(np.float32)).all()
    assert (table.columns["observation.gripper.closed"][:, 0] == e.signals["gripper.closed"].values).all()
    assert (table.columns["observation.tactile.grid"] == e.signals["tactile.grid"].values).all()


# ---- layouts


@pytest.fixture
def planned(catalogue):
    """``planned(*episodes, **options)``: the layout of a dataset of them."""

    def make(*episodes, **options):
        digests = tuple(catalogue.add(e, producer="t").digest for e in episodes)
        return plan(catalogue.store, Dataset(digests), TableOptions(**options))

    return make


def test_names_decide_what_is_state_and_action_unless_the_user_does(catalogue, planned):
    e = planted_episode(catalogue.store, 0, cameras=(("wrist", "jpeg"),))
    found = {f.key: (f.dtype, f.shape, f.names) for f in planned(e).features}
    assert found == {
        "observation.state": ("float32", (3,), ("gripper.force", "joint.position.0", "joint.position.1")),
        "action": ("float32", (2,), ("command.joint.0", "command.joint.1")),
        "observation.gripper.closed": ("bool", (1,), ("gripper.closed",)),
        "observation.tactile.grid": ("int32", (2, 3), ()),
        "observation.images.wrist": ("uint8", (32, 32, 3), ()),
    }
    chosen = planned(e, state=("joint.position",), action=("gripper.force",), images="none", keep_dtype=True)
    assert [(f.key, f.dtype) for f in chosen.features][:3] == [
        ("observation.state", "float64"),
        ("action", "float32"),
        ("observation.command.joint", "float32"),
    ]
    assert ("camera.wrist", "pictures are not wanted") in chosen.left_out


def test_names_that_a_log_gave_its_elements_are_kept(catalogue, planned):
    names = {"joint.position": ["pan", "lift"], "gripper.force": "x", "command.joint": ["one"]}
    found = planned(planted_episode(catalogue.store, 0, labels={"names": names})).features
    assert [f.names for f in found][:2] == [("gripper.force", "pan", "lift"), ("command.joint.0", "command.joint.1")]


def test_what_cannot_be_a_column_is_listed(catalogue, planned):
    e = planted_episode(catalogue.store, 0)
    signals = dict(e.signals)
    signals["cloud"] = Timed(
        SignalSpec("cloud", (300, 300), "float32"), stamps(2, 20), np.zeros((2, 300, 300), np.float32)
    )
    depth = planted_frames(catalogue.store, "camera.depth", 30, 20, 0, "jpeg")
    depth = replace(depth, encoding="raw:mono16")
    left = dict(
        planned(
            replace(e, signals=signals, frames={"camera.depth": depth}), planted_episode(catalogue.store, 1)
        ).left_out
    )
    assert left == {"cloud": "only in 1 of 2 episodes", "camera.depth": "only in 1 of 2 episodes"}
    left = dict(planned(replace(e, signals=signals, frames={"camera.depth": depth})).left_out)
    assert "make no column" in left["cloud"] and "lose precision" in left["camera.depth"]


@pytest.mark.parametrize(
    "options, line",
    [
        ({"fps": 0}, "--fps: 0 frames per second; allowed: 1 to 1000"),
        ({"fps": -5}, "--fps: -5 frames per second"),
        ({"fps": 2000}, "--fps: 2000 frames per second"),
        ({"fps": 500}, "--fps: nothing was recorded at 500 Hz; allowed: at most 100"),
        ({"rule": "linear"}, "--rule: 'linear'; allowed: last, nearest"),
        ({"images": "gif"}, "--images: 'gif'; allowed: video, png, none"),
        ({"codec": "divx"}, "--codec: 'divx'; allowed: h264, av1"),
        ({"crf": 99}, "--crf: quality 99; allowed: 0"),
        ({"max_age_s": -1.0}, "--max-age: -1.0 s; allowed: 0 or more"),
        ({"max_age_s": float("nan")}, "--max-age: nan s"),
        ({"state": ("joint.velocity",)}, "no signal named 'joint.velocity'; allowed: did you mean 'joint.position'?"),
        ({"state": ("tactile.grid",)}, r"observation.state: signal 'tactile.grid' has samples of shape \(2, 3\)"),
        ({"action": ("joint.position", "joint.position")}, "signal 'joint.position' is asked for twice"),
        ({"state": ("joint.position",), "without": ("joint.position",)}, "is asked for and left out"),
        ({"without": ("joint.positoin",)}, "no signal or camera named 'joint.positoin'.*did you mean 'joint.position'"),
    ],
    ids=lambda x: str(x)[:40] if isinstance(x, dict) else "",
)
def test_wishes_that_cannot_be_met(catalogue, planned, options, line):
    with pytest.raises(InputError, match=line) as caught:
        planned(planted_episode(catalogue.store, 0), **options)
    assert caught.value.exit_code == 2


def test_a_wish_for_what_only_some_episodes_have(catalogue, planned):
    e = planted_episode(catalogue.store, 0)
    poorer = replace(e, seed=1, signals={n: s for n, s in e.signals.items() if n != "joint.position"})
    with pytest.raises(InputError, match="signal 'joint.position' is only in 1 of 2 episodes"):
        planned(e, poorer, state=("joint.position",))


def test_rates_that_differ_need_a_decision(catalogue, planned):
    def at(rate, seed):
        t = stamps(20, rate)
        return Episode("b", seed=seed, signals={"command.x": Timed(SignalSpec("command.x"), t, np.arange(20.0))})

    assert planned(at(29.97, 0)).fps == 30
    with pytest.raises(InputError, match=r"action was recorded at 10 Hz in episode .*at 25 Hz in most.*try: --fps 10"):
        planned(at(25, 0), at(25, 1), at(10, 2))
    assert planned(at(25, 0), at(25, 1), at(10, 2), fps=10).fps == 10


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "x..y", "", "bad name", "é", "a\nb", ".hidden", "x" * 200])
def test_names_that_would_lead_astray_are_refused(catalogue, planned, name):
    t = stamps(5, 20)
    e = Episode("b", signals={name: Timed(SignalSpec(name, (), "int32"), t, np.arange(5, dtype=np.int32))})
    with pytest.raises(InputError, match="cannot be a column"):
        planned(e)
    frames = planted_frames(catalogue.store, f"camera.{name}", 5, 20, 0)
    with pytest.raises(InputError, match="cannot be a column"):
        planned(Episode("b", frames={f"camera.{name}": frames}))


def test_columns_that_would_have_one_name(catalogue, planned):
    t = stamps(5, 20)
    names = ("flag", "observation.flag")
    signals = {n: Timed(SignalSpec(n, (), "int32"), t, np.arange(5, dtype=np.int32)) for n in names}
    with pytest.raises(InputError, match="two columns would be named 'observation.flag'"):
        planned(Episode("b", signals=signals))
    signals = {n: Timed(SignalSpec(n, (), "int32"), t, np.arange(5, dtype=np.int32)) for n in ("next.x",)}
    assert planned(Episode("b", signals=signals)).features[0].key == "next.x"
