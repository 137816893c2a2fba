"""Payload decoders: every encoding against an independent implementation, or against what it was written from."""

import base64
import json
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, Unsupported
from flyball.episodes.formats.payloads import decoder
from flyball.episodes.formats.payloads.rows import columns

pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2", reason="protobuf is not installed")

from google.protobuf import descriptor_pool, message_factory  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)


def plain(row):
    """A row with dotted names and nothing but Python values."""
    out = {}
    for path, value in row.items():
        value = bytes(value) if isinstance(value, memoryview) else value
        out[".".join(path)] = value.tolist() if isinstance(value, np.ndarray) else value
    return out


def agree(made, payloads):
    """Columns say what rows say, and what is in no column is in some row of another shape, or missing there."""
    rows = [made.row(p) for p in payloads]
    found, varying = made.decode(payloads)
    assert {".".join(c.path) for c in found} | set(varying) >= {".".join(p) for row in rows for p in row}
    for c in found:
        for i, row in enumerate(rows):
            got, want = c.values[i], row[c.path]
            if isinstance(want, memoryview):
                want = np.frombuffer(want, np.uint8)
            np.testing.assert_array_equal(got, want)
            assert np.shape(got) == np.shape(want)
    return found, varying


# ---- ROS 1 and IDL


def ros1(name):
    text, _ = ROS1.generate_msgdef(name, ros_version=1)
    return decoder("ros1", name.replace("/msg/", "/"), "ros1msg", text.encode())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text("abü/", max_size=5), st.integers(0, 2**31 - 1)), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_ros1_messages(rows, effort):
    T, name = ROS1.types, "sensor_msgs/msg/JointState"
    made = ros1(name)
    payloads = []
    for i, (frame, sec) in enumerate(rows):
        head = T["std_msgs/msg/Header"](
            seq=i, stamp=T["builtin_interfaces/msg/Time"](sec=sec, nanosec=5), frame_id=frame
        )
        q = np.array([i, -1.5])
        message = T[name](header=head, name=["hip", "k"], position=q, velocity=q + 1, effort=np.zeros(effort))
        payloads.append(bytes(ROS1.serialize_ros1(message, name)))
    found, varying = agree(made, payloads)
    got = {".".join(c.path): c.values for c in found}
    assert made.name == "sensor_msgs/JointState" and made.fields == ("header", "name", "position", "velocity", "effort")
    assert varying == []
    assert got["header.frame_id"] == [f for f, _ in rows]
    assert got["header.stamp.sec"].tolist() == [s for _, s in rows]
    np.testing.assert_array_equal(got["position"], [[i, -1.5] for i in range(len(rows))])
    assert got["effort"].shape == (len(rows), effort)


def test_ros1_aligns_nothing_and_has_its_own_byte_and_char():
    made = decoder("ros1", "p/A", "ros1msg", b"byte a\nfloat64 x\nchar c\ntime t\nduration[2] d\nint8 K=3")
    payload = struct.pack("<bdBIIiiii", -2, 1.25, 200, 4_000_000_000, 7, -3, -4, 5, 6)
    assert plain(made.row(payload)) == {
        "a": -2, "x": 1.25, "c": 200, "t.sec": 4_000_000_000, "t.nanosec": 7,
        "d[0].sec": -3, "d[0].nanosec": -4, "d[1].sec": 5, "d[1].nanosec": 6,
    }  # fmt: skip
    with pytest.raises(Damaged, match="1 bytes longer"):
        made.row(payload + b"\0")


IDL = """
module std_msgs { module msg {
  struct Header { builtin_interfaces::msg::Time stamp; string frame_id; };
}; };
================================================================================
IDL: pkg/msg/State
#include "std_msgs/msg/Header.idl"
module pkg { module msg {
  typedef double double__3[3];
  enum Mode { IDLE, RUN };
  module State_Constants { const uint32 SLOW = 1; };
  @verbatim (language="comment", text="a state")
  struct State {
    std_msgs::msg::Header header;
    @unit(value="rad")
    double__3 q;
    sequence<float, 5> f;
    sequence<string> names;
    boolean on;
    octet raw;
    int64 big;
    Mode mode;
  };
}; };
"""
MSG = """std_msgs/Header header
float64[3] q
float32[<=5] f
string[] names
bool on
byte raw
int64 big
uint32 mode"""


def test_idl_definitions_mean_the_same_as_msg_ones():
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(MSG, "pkg/msg/State"))
    T = store.types
    payloads = []
    for i in range(4):
        head = T["std_msgs/msg/Header"](stamp=T["builtin_interfaces/msg/Time"](sec=i, nanosec=1), frame_id="b" * i)
        m = T["pkg/msg/State"](
            header=head,
            q=np.arange(3.0) + i,
            f=np.ones(2, "f4"),
            names=["x", "yy"],
            on=i % 2 == 0,
            raw=7,
            big=-(2**40),
            mode=1,
        )
        payloads.append(bytes(store.serialize_cdr(m, "pkg/msg/State")))
    text = MSG + "\n" + "=" * 80 + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id"
    as_msg = decoder("cdr", "pkg/msg/State", "ros2msg", text.encode())
    as_idl = decoder("cdr", "pkg/msg/State", "ros2idl", IDL.encode())
    assert as_idl.fields == as_msg.fields
    assert [plain(as_idl.row(p)) for p in payloads] == [plain(as_msg.row(p)) for p in payloads]
    found, varying = agree(as_idl, payloads)
    assert varying == [] and len(found) == 11


# ---- protobuf

SCALARS = [
    "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group", "message", "bytes",
    "uint32", "enum", "sfixed32", "sfixed64", "sint32", "sint64",
]  # fmt: skip


def proto_files():
    """A file with every scalar type (single, packed, unpacked, optional), texts, bytes, a map, points and itself."""
    file = descriptor_pb2.FileDescriptorProto(name="lab.proto", package="lab", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.enum_type.add(name="Mode").value.add(name="IDLE", number=0)
    file.enum_type[0].value.add(name="RUN", number=3)
    point = file.message_type.add(name="Point")
    for i, k in enumerate("xyz"):
        point.field.add(name=k, number=i + 1, type=1, label=1)
    all_ = file.message_type.add(name="All")
    number = 0

    def add(name, kind, label=1, of=None, **more):
        nonlocal number
        number += 1
        return all_.field.add(name=name, number=number, type=kind, label=label, type_name=of, **more)

    for kind, name in enumerate(SCALARS, 1):
        of = ".lab.Mode" if name == "enum" else None
        if name in ("group", "message"):
            continue
        add(name, kind, of=of)
        if name not in ("string", "bytes"):
            add(f"many_{name}", kind, label=3, of=of)
            add(f"loose_{name}", kind, label=3, of=of).options.packed = False
    optional = add("maybe", 1, proto3_optional=True)
    all_.oneof_decl.add(name="_maybe")
    optional.oneof_index = 0
    add("words", 9, label=3)
    add("at", 11, of=".google.protobuf.Timestamp")
    add("point", 11, of=".lab.Point")
    add("points", 11, label=3, of=".lab.Point")
    add("next", 11, of=".lab.All")
    entry = all_.nested_type.add(name="TableEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=5, label=1)
    add("table", 11, label=3, of=".lab.All.TableEntry")
    from google.protobuf import timestamp_pb2

    stamp = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(stamp)
    return descriptor_pb2.FileDescriptorSet(file=[file, stamp])


FILES = proto_files()
POOL = descriptor_pool.DescriptorPool()
for f in reversed(FILES.file):
    POOL.Add(f)
All = message_factory.GetMessageClass(POOL.FindMessageTypeByName("lab.All"))
PROTO = decoder("protobuf", "lab.All", "protobuf", FILES.SerializeToString())


def expected(m):
    """What a row of ``lab.All`` must hold, said by the protobuf library."""
    out = {}
    for f in m.DESCRIPTOR.fields:
        value = getattr(m, f.name)
        if f.name == "table":
            out |= {f"table[{k}]": v for k, v in value.items()}
        elif f.name == "words":
            out |= {f"words[{i}]": v for i, v in enumerate(value)}
        elif f.name == "points":
            if value:
                out["points"] = [[p.x, p.y, p.z] for p in value]
        elif f.name in ("maybe", "at", "point", "next"):
            if not m.HasField(f.name):
                continue
            if f.name == "maybe":
                out["maybe"] = value
            elif f.name == "at":
                out |= {"at.sec": value.seconds, "at.nanosec": value.nanos}
            elif f.name == "point":
                out["point"] = [value.x, value.y, value.z]
            else:
                out |= {f"next.{k}": v for k, v in expected(value).items()}
        else:
            out[f.name] = list(value) if f.name.startswith(("many", "loose")) else value
    return out


INTS = {
    "int32": (-(2**31), 2**31 - 1), "sint32": (-(2**31), 2**31 - 1), "sfixed32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1), "sint64": (-(2**63), 2**63 - 1), "sfixed64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1), "fixed32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1), "fixed64": (0, 2**64 - 1),
}  # fmt: skip


@st.composite
def messages(draw, nested=True):
    m = All()
    for name in SCALARS:
        if name in ("group", "message") or not draw(st.booleans()):
            continue
        if name in ("string", "bytes"):
            value = draw(st.text(max_size=6) if name == "string" else st.binary(max_size=6))
            setattr(m, name, value)
            continue
        one = (
            st.integers(*INTS[name]) if name in INTS
            else st.sampled_from([0, 3]) if name == "enum"
            else st.booleans() if name == "bool"
            else st.floats(allow_nan=False, width=64 if name == "double" else 32)
        )  # fmt: skip
        setattr(m, name, draw(one))
        getattr(m, f"many_{name}").extend(draw(st.lists(one, max_size=3)))
        getattr(m, f"loose_{name}").extend(draw(st.lists(one, max_size=3)))
    if draw(st.booleans()):
        m.maybe = 0.0
        m.words.extend(draw(st.lists(st.text(max_size=3), max_size=3)))
        m.at.seconds, m.at.nanos = draw(st.integers(0, 2**40)), draw(st.integers(0, 10**9 - 1))
        m.point.y = draw(st.sampled_from([0.0, 1.5]))
        m.points.add(x=1)
        m.points.add(y=2, z=draw(st.floats(-5, 5)))
        m.table.update(draw(st.dictionaries(st.text("ab", max_size=2), st.integers(-9, 9), max_size=3)))
        if nested:
            m.next.CopyFrom(draw(messages(nested=False)))
    return m


@settings(max_examples=25, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=4))
def test_protobuf_messages_say_what_the_library_says(made):
    payloads = [m.SerializeToString() for m in made]
    for m, payload in zip(made, payloads, strict=True):
        assert plain(PROTO.row(payload)) == expected(m)
    agree(PROTO, payloads * 2)


def test_protobuf_numbers_of_several_lengths_are_one_column():
    values = [0, 1, 127, 128, 16383, 16384, -1, 2**31 - 1, -(2**31)]
    payloads = [All(int32=v, sint64=-v, double=v / 2).SerializeToString() for v in values]
    got = {c.path[0]: c.values for c in PROTO.decode(payloads)[0]}
    assert got["int32"].tolist() == values and got["int32"].dtype == np.int32
    assert got["sint64"].tolist() == [-v for v in values]
    assert got["double"].tolist() == [v / 2 for v in values]


def test_protobuf_arrays_of_the_same_length_whose_numbers_have_not():
    values = [[300, 1], [1, 300], [2, 400]]
    payloads = [All(many_int32=v).SerializeToString() for v in values]
    assert len({len(p) for p in payloads}) == 1
    got = {c.path[0]: c.values for c in PROTO.decode(payloads)[0]}
    assert got["many_int32"].tolist() == values


def test_protobuf_numbers_sent_twice_have_their_last_value():
    twice = All(int32=1, double=2).SerializeToString() + All(int32=7).SerializeToString()
    assert PROTO.row(twice)[("int32",)] == 7 == All.FromString(twice).int32
    points = All().SerializeToString()
    for x in (1, 2):
        half = All()
        half.point.x = x
        points += half.SerializeToString()
    with pytest.raises(Unsupported, match="two pieces"):  # they would have to be merged
        PROTO.row(points)


def nest(n):
    out = b""
    tag = next(f.number for f in All.DESCRIPTOR.fields if f.name == "next") << 3 | 2
    head = bytes([tag & 127 | 128, tag >> 7]) if tag > 127 else bytes([tag])
    for _ in range(n):
        size, length = len(out), b""
        while True:
            length += bytes([size & 127 | (128 if size > 127 else 0)])
            size >>= 7
            if not size:
                break
        out = head + length + out
    return out


@pytest.mark.parametrize(
    ("payload", "error", "says"),
    [
        (b"\x09\0\0", Damaged, "cut off"),
        (b"\x80" * 11, Damaged, "more than 10 bytes"),
        (b"\x0f", Damaged, "wire type 7"),
        (b"\x0a\xff\xff\xff\xff\x0f", Damaged, "cut off"),
        (nest(500), Unsupported, "more than 32 deep"),
        (b"\x58\1" * 300_000, Unsupported, "more than 4096 fields"),
    ],
)
def test_protobuf_payloads_that_are_none(payload, error, says):
    with pytest.raises(error, match=says):
        PROTO.row(payload)


# ---- FlatBuffers, golden: schema and message by flatc 2.0.8 from
#   enum Mode : byte { Idle, Run = 3 }   struct Stamp { sec: uint32; nsec: uint32; }
#   table Vector3 { x, y, z: double; }   table Tag { key: string; value: float = 2.5; }
#   table Reading { stamp: Stamp; mode: Mode = Run; on: bool; small: ubyte; wide: long; level: float; offset: Vector3;
#     raw: [ubyte]; counts: [short]; tags: [Tag]; points: [Vector3]; note: string; next: Reading; }

BFBS = zlib.decompress(base64.b85decode(
    b"c-n1Mzi-n}5WXZ%>?Up!RS}9%1_p)>6{-Y7hYnQ-"
    b"1OrmlR!l4=aifYPjvA*;5hDX5V+Y2L85kKD7#J8BI^+*vU|?YA4#a$S?_O$0wRDc(yYKFO_v@uaM7xi75AZ{EYLP=8`S@y36K|qNkab8)^h92c"
    b"fVusFiZ;mTe?Z<BiGCM|red%LpX{CB-<-CF_a@{X`-Qv#{^Q>y!DqqxW648aq;S39<%4HYCnWLJgjZiQzGCXufj+Y&Nvtp4-yaWv^)(J-"
    b"cOTLaTYq84Z0ji=jDOnc$+_F$`9x!3-4`fV*&d6}kReEKVcp@luwKXdE$0#6*N_XWFR}iF?~2B>9|oP{L6@%Pl7pO&tT*-"
    b"CcmHIsMky|Xa1smA#NaD*S7KmY=a1~IF0fH7yf+kEhG*;hO7^O?g04%DVRSr*N65S4SLlxPfyq%F7*}dR(k=W{Yk9S2iG%KlcR#4T2TRLsX3i_"
    b"-^{jR@mb1Po)<tKe>%nJ{)=JNEY%NcMGi0eDEIcYNb)+kO%RWoc+jwUtzY=dwIYdWCqY&BriMkf4y5KrB{a9gKk?RzmhCPlN^>C#74DQ0zXT?j"
    b"^=j_<@=oWMZDlf2K4c4)J#ePTqpvQhY(B%<{#a<h1K0OQ3Kym<#Ctb|3RYhNtd2OZopC{SXx$&iP@?_?V&*|$t9dZqFPNvq@{-)Mc%W#i_{t&-"
    b"=ux+JgVwy92W1UM^`}{EI%3WjGlk#Hzc7AmNclf<I&(`2H=#4{(v#!%yTB>`|)E#lyI>z&xdEnq*h3C?d=^M#p%W$<Z{8Ib`vZFb%^ZGn&$I;0"
    b"{Y9`s5U79}jy;P20v%TCyr3LQ$Ex2>dvW?5vn`pTn_U6)DWqeEoYx3)AOoUS#It%NvG8{b0-sgF}3-"
    b"`F0HO>RAujS<^uN*l`GcA7)=Drz)ZOf5!>@D4~?&3r{)5ex_&8GhWme9Zb"
))  # fmt: skip
READING = base64.b64decode(
    b"JAAAAAAAAAAcADgACAAAAAcAAAAsABAAFAAYABwAIAAkACgAHAAAAAAAAAEHAAAACQAAAAAAwD/kAAAAzAAAAMAAAAB8AAAAHAAAABAAAAAADv"
    b"rV/v///wAAAAACAAAAaGkAAAIAAAA8AAAAEAAAAAAACgAeAAQADAAUAAoAAAAAAAAAAAAQQAAAAAAAABRAAAAAAAAAGEAAAAoAHAAEAAwAFAAK"
    b"AAAAAAAAAAAA8D8AAAAAAAAAQAAAAAAAAAhAAgAAACwAAAAMAAAACAAMAAQACAAIAAAACAAAAAAAgEADAAAAYsOpAAAABgAIAAQABgAAAAQAAA"
    b"ABAAAAYQAAAAIAAAD//wIAAwAAAAEC/wAAAAoAFAAEAAAADAAKAAAAAAAAAAAA8D8AAAAAAAAIQA=="
)


def test_flatbuffers():
    made = decoder("flatbuffer", "lab.Reading", "flatbuffer", BFBS)
    assert made.name == "lab.Reading" and made.fields[:3] == ("stamp", "mode", "on") and len(made.fields) == 13
    assert plain(made.row(READING)) == {
        "stamp.sec": 7, "stamp.nanosec": 9, "mode": 3, "on": True, "small": 0, "wide": -5_000_000_000, "level": 1.5,
        "offset": [1, 0, 3], "raw": b"\1\2\xff", "counts": [-1, 2], "tags[0].key": "a", "tags[0].value": 2.5,
        "tags[1].key": "bé", "tags[1].value": 4, "points": [[1, 2, 3], [4, 5, 6]], "note": "hi",
    }  # fmt: skip
    other = READING.replace(struct.pack("<q", -5_000_000_000), struct.pack("<q", 11)).replace(b"hi\0", b"ho\0")
    found, varying = agree(made, [READING, other, READING])
    got = {".".join(c.path): c.values for c in found}
    assert varying == [] and got["wide"].tolist() == [-5_000_000_000, 11, -5_000_000_000]
    assert got["note"] == ["hi", "ho", "hi"] and got["counts"].dtype == np.int16


def test_flatbuffers_within_flatbuffers_end():
    made = decoder("flatbuffer", "lab.Reading", "flatbuffer", BFBS)
    vtable = struct.pack("<HH13H", 30, 8, *[0] * 12, 4)  # only ``next`` is there

    def chain(n):
        tables = [struct.pack("<iI", 30 + 8 * i, 4 if i < n - 1 else 0) for i in range(n)]
        return struct.pack("<I", 34) + vtable + b"".join(tables)

    assert sum(p[-1] == "wide" for p in made.row(chain(3))) == 4  # the last leads to its own offset, an empty table
    with pytest.raises(Unsupported, match="more than 32 deep"):
        made.row(chain(100))


# ---- JSON

SCHEMA = {
    "properties": {
        "t": {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}},
        "n": {"type": "integer"}, "x": {"type": "number"}, "q": {"type": "array", "items": {"type": "number"}},
        "data": {"type": "string", "contentEncoding": "base64"}, "pose": {"$ref": "#/$defs/Pose"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/Pose"}}, "deep": {"$ref": "#/$defs/Deep"},
    },
    "$defs": {"Pose": {"type": "object"}, "Deep": {"$ref": "#/$defs/Deep"}},
}  # fmt: skip


def dumps(**fields):
    return json.dumps(fields).encode()


def test_json_with_a_schema():
    made = decoder("json", "lab.Reading", "jsonschema", json.dumps(SCHEMA).encode())
    assert made.fields == ("t", "n", "x", "q", "data", "pose", "list", "deep")
    pose = {"position": {"x": 1, "y": 2, "z": 3}, "orientation": {"x": 0, "y": 0, "z": 0, "w": 1}}
    payloads = [
        dumps(t={"sec": 2**33, "nsec": i}, n=2**60 + i, x=None if i else 1, q=[1, None, 2.5], data="AQL/", pose=pose,
              list=[pose["position"]] * 2, s="ü", more={"on": True, "odd key": [[1, 2], [3, 4]]})
        for i in range(2)
    ]  # fmt: skip
    found, varying = agree(made, payloads)
    got = {".".join(c.path): c.values for c in found}
    assert varying == []
    assert got["n"].tolist() == [2**60, 2**60 + 1] and got["n"].dtype == np.int64
    assert got["t.sec"].tolist() == [2**33] * 2 and got["t.nanosec"].tolist() == [0, 1]
    assert got["x"][0] == 1 and np.isnan(got["x"][1]) and np.isnan(got["q"][0, 1])
    assert got["data"].tolist() == [[1, 2, 255]] * 2 and bytes(made.row(payloads[0])[("data",)]) == b"\1\2\xff"
    assert got["pose"].tolist() == [[1, 2, 3, 1, 0, 0, 0]] * 2 and got["list"].shape == (2, 2, 3)
    assert got["more.on"].dtype == bool and got["more.odd key"].shape == (2, 2, 2) and got["s"] == ["ü"] * 2


def test_json_without_a_schema_and_what_varies():
    made = decoder("json", "", "", b"")
    rows = [
        {"i": 1, "f": 0.5, "ragged": [1], "huge": 2**60, "sometimes": 1, "mixed": 1, "null": None, "half": "\ud800"},
        {"i": 2.5, "f": 1, "ragged": [1, 2], "huge": 1, "mixed": "a", "null": None, "half": "\ud800"},
    ]
    found, varying = made.decode([json.dumps(r).encode() for r in rows])
    got = {".".join(c.path): c.values for c in found}
    assert got["i"].tolist() == [1, 2.5] and got["f"].tolist() == [0.5, 1] and got["half"] == ["?", "?"]
    assert sorted(varying) == ["huge", "mixed", "ragged", "sometimes"] and "null" not in got
    assert plain(made.row(b"[1, 2]")) == {"value": [1, 2]}


NUMBERS = st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2**53 + 1, 2**63])
PIECES = st.deferred(
    lambda: st.one_of(
        NUMBERS,
        st.booleans(),
        st.none(),
        st.text("ab\ud800", max_size=2),
        st.lists(NUMBERS, max_size=2),
        st.fixed_dictionaries({k: st.floats(0, 1) for k in "xyz"}),
        st.fixed_dictionaries({"sec": st.integers(0, 9), "nsec": st.integers(0, 9)}),
        st.dictionaries(st.sampled_from("abx"), PIECES, max_size=2),
    )
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from("ntq"), PIECES, min_size=1, max_size=3), st.booleans())
def test_json_messages_read_together_are_as_those_read_one_by_one(message, typed):
    schema = {"properties": {"n": {"type": "integer"}, "t": {"items": {"type": "integer"}}}} if typed else {}
    fast, slow = (decoder("json", "", "jsonschema", json.dumps(schema).encode()) for _ in range(2))
    payloads = [json.dumps(message).encode()] * 2
    try:
        want, want_varying = columns([slow.row(p) for p in payloads], slow.kinds)
    except Damaged:
        with pytest.raises(Damaged):
            fast.decode(payloads)
        return
    got, varying = fast.decode(payloads)
    assert varying == want_varying and [(c.path, c.unit) for c in got] == [(c.path, c.unit) for c in want]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
        assert np.asarray(a.values).dtype == np.asarray(b.values).dtype


@pytest.mark.parametrize(
    ("payload", "error", "says"),
    [
        (b"", Damaged, "no JSON"),
        (b"{", Damaged, "no JSON"),
        (b'{"a": "\xff"}', Damaged, "no JSON"),
        (b"[" * 100_000, Damaged, "nested too deeply"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, Unsupported, "more than 32 deep"),
        (b'{"n": 1.5}', Damaged, "schema says integer"),
        (b'{"n": NaN}', Damaged, "schema says integer"),
        (b'{"data": "%%%"}', Damaged, "not base64"),
        (json.dumps({str(i): i for i in range(5000)}).encode(), Unsupported, "more than 4096 fields"),
        (b'{"l": [' + b'{"a": 1},' * 300 + b'{"a": 1}]}', Unsupported, "301 elements"),
    ],
)
def test_json_payloads_that_are_none(payload, error, says):
    with pytest.raises(error, match=says):
        decoder("json", "", "jsonschema", json.dumps(SCHEMA).encode()).row(payload)


# ---- all of them

CYCLE = b"B b\n" + b"=" * 80 + b"\nMSG: p/B\nA a"
DEEP = b"T0 a\n" + b"".join(b"=" * 80 + b"\nMSG: p/T%d\n" % i + b"T%d a\n" % (i + 1) for i in range(60)) + (
    b"=" * 80 + b"\nMSG: p/T60\nint8 a"
)  # fmt: skip


@pytest.mark.parametrize(
    ("message", "schema", "data", "error", "says"),
    [
        ("cdr", "ros2msg", CYCLE, Damaged, "p/A contains itself"),
        ("ros1", "ros1msg", CYCLE, Damaged, "p/A contains itself"),
        ("cdr", "ros2msg", DEEP, Unsupported, "more than 32 deep"),
        ("cdr", "ros2msg", b"Nowhere x", Damaged, "p/Nowhere, which is not defined"),
        ("cdr", "ros2msg", b"\xff\xfe", Damaged, "not text"),
        ("cdr", "ros2msg", b"", Unsupported, "does not define"),
        ("cdr", "ros2msg", b"int8[99999999999999] x", Damaged, "an array of 99999999999999"),
        ("cdr", "ros2msg", b"# " * (3 << 20), Unsupported, "a definition of"),
        ("cdr", "ros2idl", b"module p {", Damaged, "cannot be read"),
        ("cdr", "ros2idl", b"module p { module msg { struct B { long x; }; }; };", Damaged, "does not define the type"),
        ("cdr", "ros2idl", b"module p { module msg { struct A { p::msg::A a; }; }; };", Damaged, "contains itself"),
        ("protobuf", "protobuf", b"\xff", Damaged, "does not describe p/msg/A"),
        ("protobuf", "protobuf", FILES.SerializeToString(), Damaged, "does not describe p/msg/A"),
        ("protobuf", "protobuf", b"", Damaged, "does not describe p/msg/A"),
        ("json", "jsonschema", b"[", Damaged, "no JSON"),
        ("json", "jsonschema", b"[" * 100_000, Damaged, "no JSON"),
        ("json", "jsonschema", b"[]", Damaged, "no JSON Schema"),
        ("flatbuffer", "flatbuffer", b"", Damaged, "no binary schema"),
        ("flatbuffer", "flatbuffer", BFBS[:900], Damaged, "cannot be read"),
        ("cbor", "cddl", b"", Unsupported, "encoding cbor/cddl; allowed: cdr/ros2idl, cdr/ros2msg"),
        ("", "", b"", Unsupported, "encoding unknown/no schema"),
    ],
)
def test_definitions_that_are_none(message, schema, data, error, says):
    with pytest.raises(error, match=says) as caught:
        decoder(message, "p/msg/A", schema, data)
    assert "\n" not in caught.value.line() and len(caught.value.line()) < 400


def test_a_decoder_from_outside_registers_by_entry_point(monkeypatch):
    outside = {"x-mine/x-schema": "flyball.episodes.formats.payloads.json:schemaless"}
    monkeypatch.setattr("flyball.base.plugins._outside", lambda group: outside if group == "flyball.payloads" else {})
    assert plain(decoder("x-mine", "p/A", "x-schema", b"").row(b'{"a": 1}')) == {"a": 1}


def test_protobuf_files_that_import_each_other_or_nothing_known():
    def files(*pairs):
        return descriptor_pb2.FileDescriptorSet(
            file=[descriptor_pb2.FileDescriptorProto(name=n, dependency=[d]) for n, d in pairs]
        ).SerializeToString()

    with pytest.raises(Damaged, match="import each other"):
        decoder("protobuf", "a.A", "protobuf", files(("a", "b"), ("b", "a")))
    with pytest.raises(Damaged, match="does not describe a.A"):
        decoder("protobuf", "a.A", "protobuf", files(("a", "missing")))


NAME = "sensor_msgs/msg/JointState"


def samples():
    text, _ = ROS2.generate_msgdef(NAME, ros_version=2)
    T = ROS2.types
    head = T["std_msgs/msg/Header"](stamp=T["builtin_interfaces/msg/Time"](sec=1, nanosec=1), frame_id="base")
    m = T[NAME](header=head, name=["a", "b"], position=np.ones(2), velocity=np.ones(2), effort=np.ones(2))
    whole = All(double=1, string="ü", many_int32=[1, 300], bytes=b"12", maybe=2)
    whole.next.points.add(x=1)
    pose = {"t": {"sec": 1, "nsec": 2}, "n": 3, "q": [1, 2], "list": [{"x": 1, "y": 2, "z": 3}], "data": "AQL/"}
    return [
        ("cdr", NAME, "ros2msg", text.encode(), ROS2.serialize_cdr(m, NAME)),
        ("protobuf", "lab.All", "protobuf", FILES.SerializeToString(), whole.SerializeToString()),
        ("flatbuffer", "lab.Reading", "flatbuffer", BFBS, READING),
        ("json", "lab.Reading", "jsonschema", json.dumps(SCHEMA).encode(), dumps(**pose)),
    ]  # fmt: skip


def damaged(data, rng):
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out))
        kind = rng.randrange(4)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + 4] = b"\xff" * 4
        elif kind == 2:
            del out[at : at + rng.randrange(1, 8)]
        else:
            out[at:at] = rng.randbytes(rng.randrange(1, 8))
        if not out:
            return b"\0"
    return bytes(out)


@pytest.mark.parametrize("sample", samples(), ids=lambda s: f"{s[0]}-{s[2]}")
def test_damage_is_an_error_of_ours_or_another_message_never_a_crash(sample):
    message, name, schema, data, payload = sample
    payload, rng, refused = bytes(payload), random.Random(0), 0
    made = decoder(message, name, schema, data)
    for _ in range(400):
        bad = damaged(payload, rng)
        try:
            made.row(bad)
            made.decode([payload, bad])
        except (Damaged, Unsupported) as err:
            refused += 1
            assert "\n" not in err.line()
    assert 40 < refused < 400
    for _ in range(100):
        try:
            decoder(message, name, schema, damaged(data, rng)).row(payload)
        except (Damaged, Unsupported) as err:
            assert "\n" not in err.line()
