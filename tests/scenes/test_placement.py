"""Placed objects satisfy their relations, checked by geometry of its own; impossible ones get a reason."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError, Missing
from flyball.engines import engines
from flyball.engines.settling import settling
from flyball.robots.zoo import flyarm
from flyball.scenes import Scene
from flyball.scenes.footprints import Placed, containment, gap
from flyball.scenes.placement import Box, Cylinder, Object, Relation, place, reachable_by
from flyball.scenes.relations import DIRECTIONS, KINDS, parse

TABLE = Object("table", Box((0.4, 0.6, 0.02)), (0.5, 0.0, 0.4, 0.3))
BIN = Object("bin", Box((0.12, 0.10, 0.06)), inner=Box((0.11, 0.09, 0.055), (0.0, 0.0, 0.005)))
OBJECTS = [
    TABLE,
    Object("plate", Cylinder(0.1, 0.01)),
    Object("cup", Cylinder(0.04, 0.05)),
    Object("knife", Box((0.01, 0.1, 0.005))),
    BIN,
    Object("die", Box((0.03, 0.03, 0.03))),
    Object("brick", Box((0.03, 0.02, 0.02))),
]
RULES = [
    "plate on table by 2 cm", "cup on table", "knife on table", "bin on table", "die inside bin", "brick inside bin",
    "knife left of plate by 5 cm", "cup behind plate by at least 1 cm", "die clear of brick by 1 cm",
    "knife clear of everything by 2 cm", "cup facing plate", "cup near plate by 30 cm",
]  # fmt: skip


def outline(o, pose, points=64):
    """Corners of a box, or points of a circle, in the world's plane, (p, 2)."""
    yaw = 2 * math.atan2(pose[6], pose[3])
    if isinstance(o.shape, Box):
        local = np.array([[i * o.shape.half[0], j * o.shape.half[1]] for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
    else:
        a = np.linspace(0, 2 * np.pi, points, endpoint=False)
        local = o.shape.radius * np.column_stack([np.cos(a), np.sin(a)])
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return (local + np.array(o.shape.centre[:2])) @ turn.T + pose[:2]


def distance(p, q):
    """Between two convex outlines; 0 where they meet."""
    if inside(p, q) or inside(q, p):
        return 0.0
    best = np.inf
    for a, b in ((p, q), (q, p)):
        for start, end in zip(b, np.roll(b, -1, axis=0), strict=True):
            along = end - start
            t = np.clip(((a - start) @ along) / (along @ along), 0, 1)
            best = min(best, np.linalg.norm(a - start - t[:, None] * along, axis=1).min())
    crossing = any(
        crosses(*e, *f)
        for e in zip(p, np.roll(p, -1, axis=0), strict=True)
        for f in zip(q, np.roll(q, -1, axis=0), strict=True)
    )
    return 0.0 if crossing else best


def side(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def crosses(a, b, c, d):
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def inside(p, q):
    turns = [side(a, b, p[0]) for a, b in zip(q, np.roll(q, -1, axis=0), strict=True)]
    return all(t > 0 for t in turns) or all(t < 0 for t in turns)


def within(o, pose, frame, half, disc):
    """How far an outline stays within a rectangle or disc given in another pose's frame [m]."""
    yaw = 2 * math.atan2(frame[6], frame[3])
    local = (outline(o, pose) - frame[:2]) @ np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return half[0] - np.linalg.norm(local, axis=1).max() if disc else (np.array(half) - np.abs(local).max(axis=0)).min()


@pytest.fixture(scope="module")
def placed():
    return place(OBJECTS, RULES, 0, range(30)).require()


def test_relations_hold(placed):
    by_name = {o.name: o for o in OBJECTS}
    w, x, y, z = math.cos(0.15), 0.5, 0.0, 0.4
    table = np.array([x, y, z, w, 0, 0, math.sin(0.15)])
    for i in range(30):
        at = {name: placed.poses[i, k] for k, name in enumerate(placed.names)}
        for name, margin in (("plate", 0.02), ("cup", 0), ("knife", 0), ("bin", 0)):
            assert within(by_name[name], at[name], table, (0.4, 0.6), False) >= margin - 1e-9
            assert at[name][2] - by_name[name].shape.half[2] == pytest.approx(0.42), "stands on the table's top"
        for name in ("die", "brick"):
            assert within(by_name[name], at[name], at["bin"], (0.11, 0.09), False) >= -1e-9
            assert at[name][2] - by_name[name].shape.half[2] == pytest.approx(0.43), "lies on the bin's floor"
        shape = {name: outline(by_name[name], at[name]) for name in at}
        assert shape["knife"][:, 1].min() - shape["plate"][:, 1].max() == pytest.approx(0.05, abs=3e-4)
        assert shape["cup"][:, 0].min() - shape["plate"][:, 0].max() >= 0.01 - 3e-4  # the plate is 64 points here
        assert distance(shape["die"], shape["brick"]) >= 0.01 - 1e-9
        for name in ("plate", "cup", "bin"):
            assert distance(shape["knife"], shape[name]) >= 0.02 - 1e-9
        for a, b in itertools.combinations(("plate", "cup", "knife", "bin"), 2):
            assert distance(shape[a], shape[b]) > 0
        to = at["plate"][:2] - at["cup"][:2]
        yaw = 2 * math.atan2(at["cup"][6], at["cup"][3])
        assert math.hypot(math.cos(yaw) - to[0] / np.hypot(*to), math.sin(yaw) - to[1] / np.hypot(*to)) < 2e-4
        assert np.hypot(*to) <= 0.3 + 1e-9
    assert np.allclose(np.linalg.norm(placed.poses[..., 3:], axis=-1), 1)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(0, 29), min_size=1, max_size=8))
def test_any_batch_gives_the_same_places(placed, worlds):
    assert np.array_equal(place(OBJECTS, RULES, 0, worlds).poses, placed.poses[worlds])


def test_worlds_and_runs_differ(placed):
    assert len(np.unique(placed.of("cup")[:, 0])) == 30
    assert not np.any(place(OBJECTS, RULES, 1, range(3)).poses[:, :, 0] == placed.poses[:3, :, 0])


def test_free_places_are_spread_evenly():
    """Uniform over where the cup may be: a quarter of them in each quarter (false alarm of all four under 3e-6)."""
    p = place([Object("cup", Cylinder(0.05, 0.05))], [], 0, range(4000), region=((0.0, 2.0), (0.0, 2.0))).of("cup")
    shares = [(((p[:, 0] > 1) == a) & ((p[:, 1] > 1) == b)).mean()
              for a in (True, False) for b in (True, False)]  # fmt: skip
    assert np.abs(np.array(shares) - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 4000)


def test_sizes_may_differ_by_world():
    scale = np.array([0.5, 1.0, 2.0])
    p = place([TABLE, Object("die", Box((0.03, 0.03, 0.03)))], ["die on table"], 0, range(3), scale={"die": scale})
    assert np.allclose(p.of("die")[:, 2], 0.42 + 0.03 * scale)


def test_a_meshs_box_goes_with_it():
    points = np.array([[0, 0, 0], [0.2, 0, 0], [0, 0.1, 0], [0.2, 0.1, 0.3]])
    o = Object("mesh", Box.around(points))
    assert o.shape == Box((0.1, 0.05, 0.15), (0.1, 0.05, 0.15))
    p = place([TABLE, o], ["mesh on table"], 0, range(50)).require()
    table = np.array([0.5, 0.0, 0.4, math.cos(0.15), 0, 0, math.sin(0.15)])
    assert np.allclose(p.of("mesh")[:, 2], 0.42), "the origin is at its bottom"
    assert min(within(o, pose, table, (0.4, 0.6), False) for pose in p.of("mesh")) >= -1e-9


# reasons --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "conflict"),
    [
        (["plate on table by 2 cm", "cup on table", "cup left of plate by 5 cm", "cup right of plate"],
         {"cup left of plate by 0.05 m", "cup right of plate"}),
        (["plate on table by 2 cm", "cup on table", "knife on table", "cup left of plate by at least 2 m"],
         {"cup left of plate by at least 2.0 m", "cup on table", "plate on table by 0.02 m"}),
        (["plate on table by 2 cm", "cup on table", "knife on table", "cup near plate by 1 cm"],
         {"cup near plate by 0.01 m", "cup clear of plate"}),
    ],
)  # fmt: skip
def test_what_is_impossible_has_a_reason(rules, conflict):
    objects = [o for o in OBJECTS if o.name in ("table", "plate", "cup", "knife")]
    p = place(objects, rules, 0, range(3))
    assert not p.success.any() and np.isnan(p.poses).all()
    (found,) = p.conflicts
    said = {" ".join(sorted(str(r).split())) for r in found.relations}  # "a clear of b" is "b clear of a"
    assert said == {" ".join(sorted(x.split())) for x in conflict}
    assert found.worlds.tolist() == [0, 1, 2] and found.short > 0
    for left_out in found.relations:
        if left_out.kind != "on" and str(left_out) in map(str, map(parse, rules)):
            assert place(objects, [r for r in rules if parse(r) != left_out], 0, range(3)).success.all(), "minimal"
    with pytest.raises(InputError, match="3 of 3 worlds failed: cannot hold"):
        p.require()


def test_left_and_behind_may_both_be():
    objects = [TABLE, Object("plate", Cylinder(0.1, 0.01)), Object("cup", Cylinder(0.04, 0.05))]
    p = place(
        objects, ["plate on table", "cup on table", "cup left of plate", "cup behind plate"], 0, range(30)
    ).require()
    to = p.of("cup")[:, :2] - p.of("plate")[:, :2]
    assert (to >= 0.14 - 1e-9).all()


def test_what_is_too_large_for_its_bin_says_so():
    objects = [BIN, Object("die", Box((0.1, 0.1, 0.03))), Object("cup", Cylinder(0.04, 0.05))]
    scale = np.array([1.0, 0.3, 1.2])
    p = place(objects, ["die inside bin"], 0, [4, 5, 6], scale={"die": scale})
    assert p.success.tolist() == [False, True, False]
    (found,) = p.conflicts
    assert [str(r) for r in found.relations] == ["die inside bin"] and found.worlds.tolist() == [4, 6]
    assert found.short == pytest.approx(0.01, abs=5e-3)  # 0.1 m half, in a floor of 0.09 m half


def test_two_discs_that_touch_in_a_bin_of_their_width_fit_exactly():
    """The packing has one solution up to a shift along the bin: projection must find it."""
    bin_ = Object("bin", Box((0.3, 0.12, 0.1)), (0, 0, 0.1, 0), inner=Box((0.25, 0.101, 0.09)))
    discs = [Object(n, Cylinder(0.1, 0.02)) for n in "ab"]
    p = place([bin_, *discs], ["a inside bin", "b inside bin", "a clear of b by 9 cm"], 0, range(20)).require()
    apart = np.linalg.norm(p.of("a")[:, :2] - p.of("b")[:, :2], axis=1)
    assert (apart >= 0.29 - 1e-9).all() and (np.abs(p.of("a")[:, 1]) <= 0.001 + 1e-9).all()


# physics and reach ----------------------------------------------------------------------------------------

MODEL = """<mujoco><worldbody><geom type="plane" size="2 2 .1"/>
<body name="box" pos="0 0 1"><freejoint name="box"/><geom type="box" size=".03 .03 .03" mass=".3"/></body>
<body name="ball" pos="1 0 1"><freejoint name="ball"/><geom type="sphere" size=".03" mass=".3" friction="1 .005 0"/>
</body><geom type="box" size=".5 .5 .01" pos="1.5 0 0" euler="0 8 0"/></worldbody></mujoco>"""


def test_what_does_not_stay_is_placed_anew():
    """The ball rolls off the slope at x > 1; it stays on the level floor."""
    scene, engine = Scene("s", MODEL, ()), engines.load("mujoco")()
    objects = [Object("box", Box((0.03, 0.03, 0.03))), Object("ball", Cylinder(0.03, 0.03))]
    settle = settling(engine, scene, ["box", "ball"])
    region = ((0.0, 1.6), (-0.4, 0.4))
    bare = place(objects, [], 0, range(12), region=region)
    checked = place(objects, [], 0, range(12), region=region, settle=settle)
    stays = settle(bare.poses, np.arange(12)).max(axis=1) <= 0.005
    assert 0 < stays.sum() < 12, "some of them lie on the slope"
    assert np.array_equal(checked.poses[stays], bare.poses[stays]), "what stays is left where it is"
    again = checked.success
    assert again.sum() > stays.sum() and np.nanmax(checked.moved[again]) <= 0.005
    assert (settle(checked.poses[again], np.flatnonzero(again)) <= 0.005).all()
    alone = place(objects, [], 0, [7], region=region, settle=settle)
    assert np.array_equal(alone.poses[0], checked.poses[7], equal_nan=True)


def test_what_a_robot_cannot_reach_is_placed_elsewhere():
    joints = flyarm.FLYARM.joints
    arm = reachable_by(flyarm.inverse, flyarm.forward, [j.low for j in joints], [j.high for j in joints])
    objects, region = [Object("box", Box((0.03, 0.03, 0.03)), yaw=(-0.5, 0.5))], ((0.2, 0.9), (-0.5, 0.5))
    p = place(objects, ["box reachable by arm"], 0, range(40), reach={"arm": arm}, region=region).require()
    q = flyarm.inverse(np.column_stack([p.of("box")[:, :3], 2 * np.arctan2(p.of("box")[:, 6], p.of("box")[:, 3])]))
    assert np.allclose(flyarm.forward(q)[:, :3], p.of("box")[:, :3], atol=1e-3)
    far = place(objects, ["box reachable by arm"], 0, range(2), reach={"arm": arm}, region=((0.8, 1.0), (0.0, 0.2)))
    assert "box reachable by arm" in {str(r) for r in far.conflicts[0].relations}


# parts ----------------------------------------------------------------------------------------------------

POSES = st.tuples(*(st.floats(-0.3, 0.3) for _ in range(2)), st.floats(-3.1, 3.1))
SIZES = st.tuples(st.floats(0.01, 0.2), st.floats(0.01, 0.2), st.booleans())


def footprint(pose, size):
    one = [np.array([v]) for v in (pose[0], pose[1], math.cos(pose[2]), math.sin(pose[2]), size[0], size[1])]
    return Placed(*one, size[2])


def polygon(pose, size):
    shape = Cylinder(size[0], 1.0) if size[2] else Box((size[0], size[1], 1.0))
    full = np.array([pose[0], pose[1], 0, math.cos(pose[2] / 2), 0, 0, math.sin(pose[2] / 2)])
    return outline(Object("o", shape), full, 48)


@pytest.mark.parametrize(("disc_a", "disc_b"), [(True, True), (True, False), (False, True), (False, False)])
@settings(max_examples=25, deadline=None)
@given(a=POSES, b=POSES, sa=SIZES, sb=SIZES)
def test_a_gap_is_the_distance_between_the_outlines(disc_a, disc_b, a, b, sa, sb):
    sa, sb = (*sa[:2], disc_a), (*sb[:2], disc_b)
    d, nx, ny = gap(footprint(a, sa), footprint(b, sb), 10.0)
    want = distance(polygon(a, sa), polygon(b, sb))
    sagitta = 0.2 * (1 - math.cos(math.pi / 48))  # polygons lie inside their circles by this much, each
    if d[0] > 0:
        assert d[0] - 1e-9 <= want <= d[0] + 2 * sagitta + 1e-9
        further = (a[0] + 0.01 * nx[0], a[1] + 0.01 * ny[0], a[2])
        assert gap(footprint(further, sa), footprint(b, sb), 10.0)[0][0] >= d[0] + 0.009
    else:
        assert want <= 2 * sagitta + 1e-9
        push = (-d[0] + 1e-6) * np.array([nx[0], ny[0]])
        moved = (a[0] + push[0], a[1] + push[1], a[2])
        assert gap(footprint(moved, sa), footprint(b, sb), 10.0)[0][0] >= -1e-9, "the direction leads apart"


@settings(max_examples=40, deadline=None)
@given(a=POSES, region=POSES, sa=SIZES, sr=st.tuples(st.floats(0.3, 0.5), st.floats(0.3, 0.5), st.booleans()))
def test_a_shift_brings_it_back_inside(a, region, sa, sr):
    inner = footprint(region, sr)
    x = footprint(a, sa)
    for _ in range(40):
        excess, sx, sy = containment(x, inner, 0.0)
        if excess[0] <= 1e-9:
            break
        x.x, x.y = x.x + sx, x.y + sy
    assert containment(x, inner, 0.0)[0][0] <= 1e-6
    final = (x.x[0], x.y[0], a[2])
    frame = np.array([region[0], region[1], 0, math.cos(region[2] / 2), 0, 0, math.sin(region[2] / 2)])
    shape = Cylinder(sa[0], 1.0) if sa[2] else Box((sa[0], sa[1], 1.0))
    pose = np.array([final[0], final[1], 0, math.cos(a[2] / 2), 0, 0, math.sin(a[2] / 2)])
    assert within(Object("o", shape), pose, frame, sr[:2], sr[2]) >= -1e-5


NAMES = st.sampled_from(["cup", "plate_2", "box.a", "left", "on"])


@settings(max_examples=100, deadline=None)
@given(
    item=NAMES, kind=st.sampled_from(KINDS), other=NAMES, distance=st.floats(1e-6, 1e3), plain=st.booleans(),
    exact=st.booleans(),
)  # fmt: skip
def test_a_sentence_and_its_relation_are_one(item, kind, other, distance, plain, exact):
    distance = 0.0 if (plain and kind != "near") or kind in ("facing", "reachable by") else distance
    try:
        r = Relation(item, kind, other, distance, exact and kind in DIRECTIONS)
    except InputError:
        assert item == other
    else:
        assert parse(str(r)) == r


def test_units_are_understood():
    assert parse("a left of b by 5 cm") == Relation("a", "left of", "b", 0.05, True)
    assert parse("a clear of everything by 20 mm").distance == pytest.approx(0.02)
    assert parse("  a   behind b by at least 0.3 m") == Relation("a", "behind", "b", 0.3)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (["cup beside plate"], "cannot read the relation 'cup beside plate'"),
        (["cup left of plate by 5 inches"], "cannot read"),
        (["cup left of plate by 1e9e cm"], "cannot read"),
        (["cpu on table"], "did you mean 'cup'"),
        (["cup on tabel"], "did you mean 'table'"),
        (["cup on table", "cup on plate"], "stands on two things"),
        (["cup on plate", "plate on cup"], "in a circle"),
        (["cup inside plate"], "plate is no container"),
        (["table on cup"], "table stands already"),
        (["cup reachable by robot"], "no robot named 'robot'"),
        (["cup on cup"], "with itself"),
        (["cup near plate"], "no distance"),
        (["cup facing plate by 3 cm"], "distance"),
        (["cup on everything"], "only for clear of"),
        ([Relation("cup", "left of", "plate", 0.1, True), "cup clear of plate by -1 cm"], "distance"),
    ],
)
def test_bad_relations_are_refused_by_name(rules, says):
    with pytest.raises((InputError, Missing)) as caught:
        place(OBJECTS, rules, 0, range(2))
    assert says in caught.value.line()


def test_bad_objects_are_refused():
    with pytest.raises(InputError, match="half sizes"):
        Box((1, 0, 1))
    with pytest.raises(InputError, match="cylinder"):
        Cylinder(float("nan"), 1)
    with pytest.raises(InputError, match="vertices"):
        Box.around([[0, 0, 0]])
    with pytest.raises(InputError, match="two objects are named 'cup'"):
        place([Object("cup", Cylinder(1, 1)), Object("cup", Cylinder(1, 1))], [], 0, range(1))
    with pytest.raises(InputError, match="scale"):
        place(OBJECTS, [], 0, range(2), scale={"cup": np.array([1.0, -1.0])})
