"""The episode codec: nothing is lost, the same episode is the same bytes, damage is noticed."""

import contextlib
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.base import Damaged, InputError, SignalSpec, Timed
from flyball.episodes import Episode, Event
from flyball.episodes.codec import decode, encode, span_ns
from flyball.episodes.episode import Frames

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
DTYPES = st.sampled_from(["bool", "int8", "uint16", "int32", "uint64", "int64", "float16", "float32", "float64"])


@st.composite
def signals(draw, name):
    n, dtype = draw(st.integers(0, 6)), draw(DTYPES)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    t_ns = np.sort(draw(hnp.arrays(np.int64, n)))
    values = draw(hnp.arrays(dtype, (n, *shape)))
    low = draw(st.none() | st.just(tuple(range(int(np.prod(shape, dtype=int))))))
    return Timed(SignalSpec(name, shape, dtype, "rad", 50.0, "base", low, None), t_ns, values)


@st.composite
def episodes(draw):
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    return Episode(
        embodiment=draw(NAMES),
        robot=draw(NAMES),
        task=draw(NAMES),
        instruction=draw(NAMES),
        origin=draw(st.sampled_from(["fleet", "teleoperation", "script", "simulation", "world_model"])),
        outcome=draw(st.sampled_from(["success", "failure", "aborted", "unknown"])),
        group=draw(NAMES),
        signals={name: draw(signals(name)) for name in names},
        events=tuple(draw(st.lists(st.builds(Event, st.integers(-(2**63), 2**63 - 1), NAMES, NAMES), max_size=3))),
        release=draw(NAMES),
        scene=draw(NAMES),
        seed=draw(st.integers(-1, 2**63 - 1)),
        log_digest=draw(NAMES),
        labels=draw(st.dictionaries(NAMES, JSON, max_size=4)),
    )  # fmt: skip


def same(a: Episode, b: Episode) -> None:
    assert (a.labels, a.events, a.seed) == (b.labels, b.events, b.seed)
    for name in (
        "embodiment",
        "robot",
        "task",
        "instruction",
        "origin",
        "outcome",
        "group",
        "release",
        "scene",
        "log_digest",
    ):
        assert getattr(a, name) == getattr(b, name)
    assert set(a.signals) == set(b.signals)
    for name, s in a.signals.items():
        o = b.signals[name]
        assert s.spec == o.spec and s.values.dtype == o.values.dtype and s.values.shape == o.values.shape
        assert s.t_ns.tobytes() == o.t_ns.tobytes() and s.values.tobytes() == o.values.tobytes()  # NaN and -0.0 too


@settings(max_examples=150, deadline=None)
@given(episodes())
def test_what_is_encoded_comes_back(episode):
    blob = encode(episode)
    same(episode, decode(blob))
    assert encode(decode(blob)) == blob


def one(**change):
    spec = SignalSpec("q", (2,))
    base = {"embodiment": "e", "signals": {"q": Timed(spec, np.arange(5), np.arange(10.0).reshape(5, 2))}}
    return Episode(**{**base, **change})


def test_bytes_do_not_depend_on_order_layout_or_byte_order():
    spec = SignalSpec("q", (2,))
    q = Timed(spec, np.arange(5), np.arange(10.0).reshape(5, 2))
    big = Timed(spec, np.arange(5).astype(">i8"), np.asfortranarray(q.values).astype(">f8"))
    r = Timed(SignalSpec("r"), np.arange(3), np.zeros(3))
    a = one(signals={"q": q, "r": r}, labels={"a": 1, "b": np.float64(2)})
    b = one(signals={"r": r, "q": big}, labels={"b": 2.0, "a": 1})
    assert encode(a) == encode(b)


@pytest.mark.parametrize(
    ("signal", "says"),
    [
        (Timed(SignalSpec("q", (3,)), np.arange(2), np.zeros((2, 2))), r"shape \(2, 2\)"),
        (Timed(SignalSpec("q"), np.arange(3), np.zeros(2)), r"shape \(2,\)"),
        (Timed(SignalSpec("q"), np.array([2, 1]), np.zeros(2)), "never decrease"),
        (Timed(SignalSpec("q"), np.array([0.1, 0.2]), np.zeros(2)), "integers"),
        (Timed(SignalSpec("q"), np.arange(1), np.array(["x"])), "numbers"),
    ],
)
def test_signals_that_contradict_themselves_are_refused(signal, says):
    with pytest.raises(InputError, match=says):
        encode(one(signals={"q": signal}))


def test_labels_that_json_cannot_hold_are_refused():
    with pytest.raises(InputError, match="labels"):
        encode(one(labels={"x": object()}))
    with pytest.raises(InputError, match="seed"):
        encode(one(seed=2**63))


def test_damage_is_noticed_or_harmless_and_never_anything_else():
    blob = encode(one(labels={"turn": 2}, events=(Event(1, "e"),)))
    for cut in range(len(blob)):
        with pytest.raises(Damaged):
            decode(blob[:cut])
    with pytest.raises(Damaged, match="too many"):
        decode(blob + b"\0")
    rng = random.Random(0)
    for _ in range(2000):  # what a flip in a number yields is for the store's digest to notice
        bad = bytearray(blob)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        with contextlib.suppress(Damaged):
            decode(bytes(bad))


def test_the_span_covers_signals_and_events():
    assert span_ns(one()) == (0, 4)
    assert span_ns(one(events=(Event(9, "late"),))) == (0, 9)
    assert span_ns(Episode("e")) == (0, 0)


def test_a_cameras_index_comes_back_and_changes_nothing_for_episodes_without_one():
    n = 5
    stop = np.cumsum([3, 0, 7, 1, 2])
    frames = Frames("camera.wrist", "h264", 48, 64, "a" * 64, np.arange(n) * 10, np.append(0, stop[:-1]), stop,
                    np.array([True, False, False, True, False]))  # fmt: skip
    back = decode(encode(Episode("arm", frames={"camera.wrist": frames}))).frames["camera.wrist"]
    assert (back.name, back.encoding, back.height, back.width, back.blob) == (
        "camera.wrist", "h264", 48, 64, "a" * 64)  # fmt: skip
    for field in ("t_ns", "start", "stop", "key"):
        np.testing.assert_array_equal(getattr(back, field), getattr(frames, field))
    assert b"frames" not in encode(Episode("arm"))
    with pytest.raises(InputError, match="decrease"):
        encode(Episode("arm", frames={"x": replace(frames, t_ns=frames.t_ns[::-1].copy())}))
