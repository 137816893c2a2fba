"""ROS 2 decoding, checked against an independent implementation (rosbags)."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, Unsupported
from flyball.episodes.formats import ros2

rosbags = pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
STORE = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)


def definition(name):
    text, _ = STORE.generate_msgdef(name, ros_version=2)
    return text


def decoded(name, *messages, little=True):
    payloads = [bytes(STORE.serialize_cdr(m, name, little_endian=little)) for m in messages]
    columns, varying = ros2.decode(ros2.parse(name, definition(name)), ros2.plain(name), payloads)
    return {".".join(c.path): c.values for c in columns}, varying


def make(name, /, **fields):
    return STORE.types[name](**fields)


def header(sec=1, nanosec=2, frame="base"):
    return make(
        "std_msgs/msg/Header", stamp=make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec), frame_id=frame
    )


FLOATS = st.floats(width=64)


FRAMES = st.text(max_size=9).filter(lambda s: "\0" not in s)
PAIRS = st.lists(FLOATS, min_size=2, max_size=2)
INT32 = st.integers(-(2**31), 2**31 - 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FRAMES, PAIRS, INT32), min_size=1, max_size=8),
    st.integers(0, 4),
    st.booleans(),
)
def test_joint_states_come_back_whatever_their_frame_names(rows, effort, little):
    name = "sensor_msgs/msg/JointState"
    messages = [
        make(
            name,
            header=header(sec, 7, frame),
            name=["hip", "k"],
            position=np.array(q),
            velocity=np.array(q[::-1]),
            effort=np.zeros(effort),
        )
        for frame, q, sec in rows
    ]
    got, varying = decoded(name, *messages, little=little)
    assert varying == []
    np.testing.assert_array_equal(got["position"], [q for _, q, _ in rows])
    np.testing.assert_array_equal(got["velocity"], [q[::-1] for _, q, _ in rows])
    assert got["effort"].shape == (len(rows), effort)
    assert got["header.frame_id"] == [f for f, _, _ in rows]
    assert got["header.stamp.sec"].tolist() == [sec for _, _, sec in rows]
    assert got["name[0]"] == ["hip"] * len(rows) and got["name[1]"] == ["k"] * len(rows)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.booleans())
def test_every_primitive_type_with_its_alignment(data, little):
    kinds = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
    order = data.draw(st.permutations(kinds))
    text = "\n".join(f"{k}{data.draw(st.sampled_from(['', '[3]', '[]', '[<=5]']))} f_{k} # comment" for k in order)
    store = rosbags.get_typestore(rosbags.Stores.EMPTY)
    store.register(rosbags.get_types_from_msg(text, "pkg/msg/All"))
    fields = {}
    for line in text.splitlines():
        kind = line.split("[")[0].split()[0]
        dtype = np.dtype(kind)
        n = 3 if "[3]" in line else data.draw(st.integers(0, 5)) if "[" in line else 1
        values = np.array(
            [data.draw(st.booleans() if kind == "bool" else st.integers(0, 120)) for _ in range(n)],
            dtype=dtype,
        )
        fields[f"f_{kind}"] = values if "[" in line else values[0].item()
    message = store.types["pkg/msg/All"](**fields)
    payload = bytes(store.serialize_cdr(message, "pkg/msg/All", little_endian=little))
    columns, _ = ros2.decode(ros2.parse("pkg/msg/All", text), "pkg/All", [payload, payload])
    assert [c.path[0] for c in columns] == [f"f_{k}" for k in order]
    for c in columns:
        want = fields[c.path[0]]
        assert c.values.dtype == np.dtype(c.path[0][2:])
        np.testing.assert_array_equal(c.values, [want, want])


def test_geometry_comes_as_vectors_with_quaternions_wxyz():
    v = lambda a: make("geometry_msgs/msg/Vector3", x=a[0], y=a[1], z=a[2])  # noqa: E731
    pose = make(
        "geometry_msgs/msg/PoseStamped",
        header=header(),
        pose=make(
            "geometry_msgs/msg/Pose",
            position=make("geometry_msgs/msg/Point", x=1.0, y=2.0, z=3.0),
            orientation=make("geometry_msgs/msg/Quaternion", x=0.1, y=0.2, z=0.3, w=0.9),
        ),
    )
    got, _ = decoded("geometry_msgs/msg/PoseStamped", pose, pose)
    np.testing.assert_array_equal(got["pose"], [[1, 2, 3, 0.9, 0.1, 0.2, 0.3]] * 2)
    twist = make("geometry_msgs/msg/Twist", linear=v([1.0, 2, 3]), angular=v([4.0, 5, 6]))
    got, _ = decoded("geometry_msgs/msg/Twist", twist)
    np.testing.assert_array_equal(got[""], [[1, 2, 3, 4, 5, 6]])
    tf = make(
        "tf2_msgs/msg/TFMessage",
        transforms=[
            make(
                "geometry_msgs/msg/TransformStamped",
                header=header(),
                child_frame_id=f"c{i}",
                transform=make(
                    "geometry_msgs/msg/Transform",
                    translation=v([float(i), 0, 0]),
                    rotation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
                ),
            )
            for i in range(2)
        ],
    )
    got, _ = decoded("tf2_msgs/msg/TFMessage", tf)
    np.testing.assert_array_equal(got["transforms[1].transform"], [[1, 0, 0, 1, 0, 0, 0]])
    assert got["transforms[1].child_frame_id"] == ["c1"]


def test_fields_without_a_fixed_shape_are_named_and_do_not_hide_the_others():
    name = "sensor_msgs/msg/JointState"
    messages = [
        make(name, header=header(), name=["a"], position=np.arange(float(n)), velocity=np.ones(2), effort=np.zeros(0))
        for n in (1, 2, 1)
    ]
    got, varying = decoded(name, *messages)
    assert varying == ["position"]
    assert got["velocity"].tolist() == [[1, 1]] * 3


def test_constants_defaults_and_comments_in_definitions():
    types = ros2.parse(
        "p/msg/A", '# about\nint32 X=5\nstring NAME="# not a comment"\nfloat64 gain 1.5 # default\nB[<=2] b\n'
        + "=" * 80 + "\nMSG: p/B\nstring<=10 s\n"
    )  # fmt: skip
    assert types["p/A"] == (("gain", "float64", None), ("b", "p/B", 0))
    assert types["p/B"] == (("s", "string", None),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("float64", "cannot read"),
        ("Nowhere x", "p/Nowhere, which is not defined"),
        ("int8 a\n" + "=" * 80 + "\nint8 b", "MSG:"),
    ],
)
def test_definitions_that_are_none(text, says):
    with pytest.raises(Damaged, match=says):
        ros2.parse("p/msg/A", text)


def test_payloads_that_do_not_fit_their_definition():
    types = ros2.parse("p/msg/A", "float64[] x")
    for payload, says in [
        (b"\0\1\0\0\x02\0\0\0" + bytes(12), "shorter"),
        (b"\0\1\0\0\xff\xff\xff\xff", "shorter"),
        (b"\0\1\0\0" + bytes(40), "longer"),
        (b"\0\1\0", "plain CDR"),
        (b"\0\7\0\0" + bytes(4), "plain CDR"),
    ]:
        with pytest.raises((Damaged, Unsupported), match=says):
            ros2.decode(types, "p/A", [payload])
    many = ros2.parse("p/msg/A", "p/B[] x\n" + "=" * 80 + "\nMSG: p/B\n")
    with pytest.raises(Unsupported, match="elements of p/B"):
        ros2.decode(many, "p/A", [b"\0\1\0\0" + struct.pack("<I", 1 << 30)])
