"""Values arrive as they were sent."""

import math
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.engines.portable import JointLayout, Layout, PortableState
from flyball.engines.remote.wire import Channel, Closed, Shared


def pair():
    a, b = socket.socketpair()
    up, down = Shared.create(), Shared.create()
    return Channel(a, up, down), Channel(b, Shared(down.descriptor), Shared(up.descriptor))


ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_, ">f8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20) | ARRAYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b and repr(a) == repr(b)


@given(st.lists(VALUES, min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_anything_arrives_as_it_was(values):
    one, other = pair()
    for value in values:
        one.send({"value": value})
        assert same({"value": value}, other.receive())
        other.send({"answer": value})
        assert same({"answer": value}, one.receive())
    one.close(), other.connection.close()


def test_flyballs_dataclasses_arrive():
    one, other = pair()
    layout = Layout((JointLayout("j", "hinge", "b"),), ("a", ""), ("b",), {"s": 3}, ())
    state = PortableState(np.zeros(2), {"j": np.ones((2, 1))}, {}, {}, {})
    one.send({"layout": layout, "state": state})
    got = other.receive()
    assert got["layout"] == layout and same(vars(got["state"]), vars(state))


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, np.array([object()]), np.array(["text"]), 1j, lambda: None, JointLayout]
)
def test_what_does_not_pass_is_refused_before_anything_is_sent(value):
    one, other = pair()
    with pytest.raises(TypeError, match="pass between processes"):
        one.send({"value": [1.0, value]})
    one.send({"value": 1})
    assert other.receive() == {"value": 1}


@pytest.mark.parametrize(
    "name", ["os:system", "flyball.base:digest_of", "flyball.base.errors:InputError", "builtins:eval"]
)
def test_nothing_but_dataclasses_of_flyball_is_made(name):
    one, other = pair()
    head = f'{{"$": "map", "of": {{"x": {{"$": "{name}", "of": {{}}}}}}}}'.encode()
    one.connection.sendall(len(head).to_bytes(8, "little") + (0).to_bytes(8, "little") + head)
    with pytest.raises(TypeError, match="does not pass"):
        other.receive()


def test_memory_grows_and_earlier_arrays_stay():
    one, other = pair()
    got = []
    for k in (1, 100_000, 10, 400_000):
        one.send({"x": np.full(k, float(k))})
        got.append(other.receive()["x"])
    assert [len(x) for x in got] == [1, 100_000, 10, 400_000] and all((x == len(x)).all() for x in got)


def test_a_side_that_is_gone_is_noticed():
    one, other = pair()
    one.connection.close()
    with pytest.raises(Closed):
        other.receive()
    with pytest.raises(Closed):
        other.send({"x": 1})
