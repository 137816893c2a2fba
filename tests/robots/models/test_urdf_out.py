# ruff: noqa: E501 - models as they come
"""URDF out: with its sidecar nothing is lost; without it another reader still finds the robot."""

from __future__ import annotations

import dataclasses
import json
from operator import attrgetter

import mjcf_table as table
import mujoco
import numpy as np
import pytest

from flyball.robots.models import ReadOptions, load
from flyball.robots.models.diff import diff
from flyball.robots.models.mjcf import MjcfFormat
from flyball.robots.models.sidecar import path_beside
from flyball.robots.models.urdf import UrdfFormat


@pytest.fixture
def exported(rich, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    return load(rich), *UrdfFormat().write(load(rich), out)


def test_mjcf_to_urdf_and_back_is_equal(exported, tmp_path):
    first, path, lost = exported
    again = load(path)
    report = diff(first.model, again.model)
    assert lost == [] and again.losses == () and [c.line() for c in report.changes] == []
    assert sum(n["equal"] for n in report.counts.values()) > 55
    (tmp_path / "mjcf").mkdir()
    third, _ = MjcfFormat().write(again, tmp_path / "mjcf")
    assert diff(first.model, load(third).model).equal


def test_urdf_to_urdf_is_equal(arm, tmp_path):
    for base in ("fixed", "floating"):
        first = load(arm, ReadOptions(base=base))
        out = tmp_path / base
        out.mkdir()
        path, lost = UrdfFormat().write(first, out)
        again = load(path)
        assert lost == [] and diff(first.model, again.model).equal
        assert again.base == base and again.sidecar["velocity_limits"] == {"j1": 3.0, "j2": 1.0}
        assert 'velocity="3"' in path.read_text()


def test_without_the_sidecar_the_sidecars_content_is_what_is_missing(exported):
    """Joints, limits and masses stand in the URDF itself."""
    first, path, _ = exported
    path_beside(path).unlink()
    alone = load(path).model
    for name, body in first.model.bodies.items():
        assert alone.bodies[name].mass == pytest.approx(body.mass, rel=1e-12)
        np.testing.assert_allclose(alone.bodies[name].inertia, body.inertia, atol=1e-15)
    moving = [j for j in first.model.joints.values() if j.kind != "ball"]
    assert {j.name for j in moving} == set(alone.joints)
    assert alone.joints["j1"].damping == 0.5 and alone.joints["j1"].armature == 0
    assert alone.joints["left"].range.tolist() == [0, 0.04]
    assert not alone.actuators and not alone.sensors
    assert alone.geoms["b/geom0"].kind == "mesh", "an ellipsoid is a mesh to other readers"


def test_another_reader_finds_the_same_masses_and_shapes(arm, tmp_path):
    """MuJoCo's own URDF reader, on a model that it can take."""
    (tmp_path / "o").mkdir()
    path, _ = UrdfFormat().write(load(arm), tmp_path / "o")
    m = mujoco.MjModel.from_xml_path(str(path))
    assert m.body("upper").mass[0] == 1 and m.njnt == 2 and m.neq == 1
    assert m.joint("j1").range.tolist() == [-1, 1]


def test_joints_off_the_origin_and_several_on_one_body_become_links(exported):
    _, path, _ = exported
    text = path.read_text()
    assert '<link name="b__jx"/>' in text and '<link name="b__jr"/>' in text
    extra = json.loads(path_beside(path).read_text())
    assert extra["join"] == {"b": ["b__jx", "b__jr"]}
    assert set(extra["set"]["joint"]["jr"]) == {"armature", "margin", "solreflimit"}, "where it is, the URDF says"
    assert not {"pos", "axis", "quat"} & {key for table in extra["set"].values() for a in table.values() for key in a}


def test_without_the_sidecar_everything_is_where_it_was(exported):
    """Joints off their origin, two on one body, a shifted zero: to another reader the links move alike."""
    first, path, _ = exported
    path_beside(path).unlink()
    ours, alone = first.compile(), load(path).compile()
    a, b = mujoco.MjData(ours), mujoco.MjData(alone)
    for name, q in (("j1", 0.3), ("jx", 0.05), ("jr", 0.7), ("left", 0.02)):
        a.joint(name).qpos = q + float(ours.qpos0[ours.joint(name).qposadr[0]])
        b.joint(name).qpos = q
        np.testing.assert_allclose(
            alone.joint(name).range + ours.qpos0[ours.joint(name).qposadr[0]], ours.joint(name).range, atol=1e-12
        )
    mujoco.mj_kinematics(ours, a)
    mujoco.mj_kinematics(alone, b)
    for body in ("a", "b", "l", "r"):
        np.testing.assert_allclose(a.body(body).xpos, b.body(body).xpos, atol=1e-9)


def test_files_with_hard_names_stay_inside_the_folder(rich, tmp_path):
    (tmp_path / "o").mkdir()
    evil = dataclasses.replace(load(rich), name="../../evil/../name")
    path, _ = UrdfFormat().write(evil, tmp_path / "o")
    assert path.parent == tmp_path / "o" and load(path).name == "../../evil/../name"


@pytest.mark.parametrize("path", ["option", "statistic", "size", "visual/global", "visual/headlight"])
def test_settings_of_the_whole_model_travel_in_the_sidecar(tmp_path, path):
    (tmp_path / "m.xml").write_text(table.settings_model(path))
    (tmp_path / "o").mkdir()
    first = load(tmp_path / "m.xml")
    second = load(UrdfFormat().write(first, tmp_path / "o")[0])
    group = {"option": "opt", "statistic": "stat", "visual/global": "vis.global_", "visual/headlight": "vis.headlight"}
    a, b = (attrgetter(group[path])(m.compile()) if path in group else m.compile() for m in (first, second))
    names = ("nuserdata", "njmax", "nconmax") if path == "size" else [k for k in dir(a) if k[0] != "_"]
    for name in names:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6, err_msg=name)


def test_what_else_an_author_may_say_of_elements_travels_and_mesh_sites_are_listed(tmp_path):
    (tmp_path / "m.xml").write_text(
        '<mujoco><asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset><worldbody><body name="b" user="1 2">'
        '<joint name="j" group="2" user="3"/><geom name="g" size=".1" user="4"/><site name="s" group="3" rgba="1 0 0 1"/>'
        '<site name="t" type="mesh" mesh="m"/><site name="v" pos=".1 0 0"/></body></worldbody><tendon><spatial name="p" width=".01" rgba="0 1 0 1">'
        '<site site="s"/><site site="v"/></spatial></tendon>'
        '<actuator><muscle name="u" joint="j" lengthrange=".1 .9" group="1" user="5"/></actuator></mujoco>'
    )
    (tmp_path / "o").mkdir()
    first = load(tmp_path / "m.xml")
    path, lost = UrdfFormat().write(first, tmp_path / "o")
    assert lost == ["site t: the sidecar does not carry mesh sites"]
    assert [c.line() for c in diff(first.model, load(path).model).changes] == ["site t: lost"]


def test_textures_and_height_fields_are_listed_as_lost(tmp_path):
    (tmp_path / "t.xml").write_text(
        '<mujoco><asset><texture name="t" type="2d" builtin="flat" width="8" height="8"/>'
        '<hfield name="h" nrow="3" ncol="3" size="1 1 1 1" elevation="0 0 0 0 1 0 0 0 0"/></asset>'
        '<worldbody><geom name="ground" type="hfield" hfield="h"/><body name="b"><joint/><geom size=".1"/></body></worldbody></mujoco>'
    )
    (tmp_path / "o").mkdir()
    first = load(tmp_path / "t.xml")
    path, lost = UrdfFormat().write(first, tmp_path / "o")
    assert any("geom ground" in x for x in lost) and any("textures (1)" in x for x in lost)
    assert {"geom ground: lost", "texture t: lost", "height field h: lost"} <= {
        c.line() for c in diff(first.model, load(path).model).changes
    }
