"""What a compiled model says, in frames that the author would recognise."""

from __future__ import annotations

import mujoco
import numpy as np

from flyball.robots.models import load
from flyball.robots.models.facts import facts


def of(xml: str):
    return facts(mujoco.MjModel.from_xml_string(xml))


def test_inertia_is_full_and_in_the_body_frame():
    """A rod of 2 kg and 1 m along (1, 1, 0): its inertia about that axis is none, across it m l^2 / 12."""
    m = of(
        '<mujoco><worldbody><body name="rod"><joint/><inertial pos="0 0 0" mass="2"'
        ' fullinertia="0.084 0.084 0.167 -0.083 0 0"/></body></worldbody></mujoco>'
    )
    along = np.array([1, 1, 0]) / np.sqrt(2)
    across = np.array([1, -1, 0]) / np.sqrt(2)
    inertia = m.bodies["rod"].inertia
    np.testing.assert_allclose([along @ inertia @ along, across @ inertia @ across], [0.001, 0.167], atol=1e-12)


def test_a_mesh_and_its_geom_are_in_the_frame_of_the_file(rich):
    """MuJoCo moves meshes into their principal frame; the facts do not show it."""
    m = load(rich).model
    geom = next(g for g in m.geoms_of("a") if g.mesh == "f")
    np.testing.assert_allclose(geom.pos, [0, 0.1, 0], atol=1e-7)
    np.testing.assert_allclose(np.abs(geom.quat), [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-7)
    corners = sorted(map(tuple, np.round(m.meshes["f"].vertices, 6).tolist()))
    assert corners == sorted([(0, 0, 0), (0.2, 0, 0), (0, 0.2, 0), (0, 0, -0.3)])


def test_elements_without_a_name_are_called_after_where_they_are(rich):
    m = load(rich).model
    assert {"a/geom0", "a/geom2", "pend/geom0", "target/geom0"} <= set(m.geoms)
    assert {"actuator1", "mu"} <= set(m.actuators)
    assert "joint:left|right" in m.equalities and "cc" in m.equalities
    assert list(m.excludes) == ["l|r"] and list(m.pairs) == ["cg|lg"]


def test_base_says_what_holds_the_model():
    body = '<body name="{0}"><{1}/><geom size=".1"/></body>'

    def model(*joints: str) -> str:
        bodies = "".join(body.format(f"b{i}", j) for i, j in enumerate(joints))
        return of(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>").base

    assert model() == "none"
    assert model("freejoint") == "floating"
    assert model("joint") == "fixed"
    assert model("joint", "freejoint") == "mixed"


def test_what_has_no_place_in_the_facts_is_counted():
    m = of('<mujoco><asset><texture name="t" type="2d" builtin="flat" width="8" height="8"/></asset></mujoco>')
    assert m.uncovered == ("textures (1)",)


def test_units_and_limits(rich):
    m = load(rich).model
    j = m.joints["j1"]
    np.testing.assert_allclose(j.range, [-np.pi / 2, np.pi / 2])  # the file has degrees
    np.testing.assert_allclose([j.ref[0], j.springref[0]], np.deg2rad([5, 10]))
    assert j.effort.tolist() == [-20, 30] and j.armature == 0.01
    assert not np.isfinite(m.joints["ball"].range).any()
    assert m.actuators["p1"].forcerange.tolist() == [-15, 15]
    assert m.option["integrator"] == "implicitfast" and m.option["enable"] == "energy"
    assert m.keyframes["home"].qpos["left"].tolist() == [0.01]
