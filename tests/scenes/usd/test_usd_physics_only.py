# ruff: noqa: E402, E501 - imports after the library is known to be there; files as they come
"""Files of other tools: UsdPhysics alone, in other units, in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pxr")
mujoco = pytest.importorskip("mujoco")

from fuzz_usd import FOREIGN

from flyball.robots.models.facts import facts
from flyball.robots.models.model import Model
from flyball.scenes.usd.child import read_here
from flyball.scenes.usd.parsed import Parsed

HEAD = '#usda 1.0\n(\n defaultPrim = "R"\n metersPerUnit = 1\n upAxis = "Z"\n)\n'
BODY = 'def Xform "{name}" (\n prepend apiSchemas = ["PhysicsRigidBodyAPI", "PhysicsMassAPI"]\n)\n{{\n{inside}\n}}\n'
BALL = 'def Sphere "{name}" (\n prepend apiSchemas = ["PhysicsCollisionAPI"{more}]\n)\n{{\n double radius = 0.1\n{inside}\n}}\n'


def ball(name: str, inside: str = "", more: str = "") -> str:
    return BALL.format(name=name, inside=inside, more="".join(f', "{m}"' for m in more.split()))


def body(name: str, inside: str = "", at: tuple[float, float, float] = (0, 0, 0)) -> str:
    place = f'double3 xformOp:translate = {at}\nuniform token[] xformOpOrder = ["xformOp:translate"]\n'
    return BODY.format(name=name, inside=place + inside)


def joint(kind: str, name: str, first: str, second: str, inside: str = "", apis: str = "") -> str:
    ends = "".join(f"rel physics:body{k} = </R/{b}>\n" for k, b in enumerate((first, second)) if b)
    schemas = f"(\n prepend apiSchemas = [{apis}]\n)" if apis else ""
    return f'def Physics{kind}Joint "{name}" {schemas}\n{{\n{ends}{inside}\n}}\n'


def read(text: str, folder: Path) -> tuple[Model, Any, Parsed]:
    path = folder / "f.usda"
    path.write_text(text if text.startswith("#usda") else f'{HEAD}def Xform "R"\n{{\n{text}\n}}\n')
    parsed = read_here(path)
    compiled = mujoco.MjSpec.from_string(parsed.mjcf, assets=parsed.assets).compile()
    return facts(compiled), compiled, parsed


def test_centimetres_and_y_up_become_metres_and_z_up(tmp_path: Path) -> None:
    model, m, parsed = read(FOREIGN, tmp_path)
    assert m.opt.gravity == pytest.approx([0, 0, -9.81])
    assert any("0.01 m" in n for n in parsed.notes) and any("upAxis" in n for n in parsed.notes)
    arm = model.bodies["Arm"]
    assert (arm.parent, arm.mass) == ("Base", 1.0)
    assert arm.com == pytest.approx([0, 0.1, 0]), "in the body's own axes, in metres"
    assert np.diag(arm.inertia) == pytest.approx([30e-4, 30e-4, 3e-4])
    hinge = model.joints["Hinge"]
    assert hinge.range == pytest.approx([-np.pi / 2, np.pi / 2]) and hinge.axis == pytest.approx([1, 0, 0])
    assert hinge.anchor == pytest.approx([0, 0, 0])
    drive = model.actuators["Hinge"]
    # kg cm^2 s^-2 per degree
    assert drive.gain_prm[0] == pytest.approx(100e-4 * 180 / np.pi)
    assert drive.bias_prm[2] == pytest.approx(-10e-4 * 180 / np.pi)
    assert list(model.excludes) == ["Arm|Base"]
    data = mujoco.MjData(m)
    mujoco.mj_kinematics(m, data)
    assert data.body("Arm").xpos == pytest.approx([0, 0, 0.05])
    box = model.geoms["Base"]
    assert box.size == pytest.approx([0.05] * 3) and model.bodies["Base"].mass == 2
    assert np.diag(model.bodies["Base"].inertia) == pytest.approx([2 * 0.1**2 / 6] * 3), "a cube's, from its shape"


def test_no_unit_is_said(tmp_path: Path) -> None:
    text = '#usda 1.0\n(\n defaultPrim = "R"\n)\ndef Xform "R"\n{\n' + ball("g") + "}\n"
    _, _, parsed = read(text, tmp_path)
    assert any("metersPerUnit is not stated" in n for n in parsed.notes)


def test_joints_may_name_their_bodies_either_way_round(tmp_path: Path) -> None:
    """The same pendulum, with the joint written from child to parent: same axis, limits and motion."""
    limits = 'uniform token physics:axis = "Y"\nfloat physics:lowerLimit = -10\nfloat physics:upperLimit = 80\n'
    bodies = body("a", ball("ga")) + body("b", ball("gb"), (0.5, 0, 0)) + joint("Fixed", "f", "", "a")
    one, _, _ = read(
        bodies + joint("Revolute", "j", "a", "b", limits + "point3f physics:localPos0 = (0.5, 0, 0)"), tmp_path
    )
    two, _, _ = read(
        bodies + joint("Revolute", "j", "b", "a", limits + "point3f physics:localPos1 = (0.5, 0, 0)"), tmp_path
    )
    assert one.bodies["b"].parent == two.bodies["b"].parent == "a"
    assert one.joints["j"].axis == pytest.approx([0, 1, 0]) and two.joints["j"].axis == pytest.approx([0, -1, 0])
    assert one.joints["j"].range == pytest.approx(two.joints["j"].range)
    assert two.joints["j"].anchor == pytest.approx([0, 0, 0], abs=1e-7)


def test_a_pose_away_from_zero_keeps_the_limits_right(tmp_path: Path) -> None:
    """The arm is drawn at 30 degrees of a joint whose limits count from its frames, not from the drawing."""
    q = np.cos(np.radians(15)), np.sin(np.radians(15))
    turned = f'quatd xformOp:orient = ({q[0]}, 0, {q[1]}, 0)\nuniform token[] xformOpOrder = ["xformOp:orient"]\n{ball("gb")}'
    b = BODY.format(name="b", inside=turned)
    limits = 'uniform token physics:axis = "Y"\nfloat physics:lowerLimit = -10\nfloat physics:upperLimit = 80\n'
    model, _, parsed = read(
        body("a", ball("ga")) + b + joint("Fixed", "f", "", "a") + joint("Revolute", "j", "a", "b", limits), tmp_path
    )
    assert model.joints["j"].ref == pytest.approx([np.radians(30)], abs=1e-6)
    assert model.joints["j"].range == pytest.approx(np.radians([-10, 80]))
    assert any("away from its zero" in n for n in parsed.notes)


def test_a_generic_joint_is_one_joint_per_free_direction(tmp_path: Path) -> None:
    locked = "float limit:{0}:physics:low = 1\nfloat limit:{0}:physics:high = -1\n"
    names = ("transX", "transY", "transZ", "rotX", "rotZ")
    inside = (
        "".join(locked.format(n) for n in names[1:])
        + "float limit:transX:physics:low = -0.5\nfloat limit:transX:physics:high = 0.5\n"
    )
    apis = ", ".join(f'"PhysicsLimitAPI:{n}"' for n in names)
    model, _, _ = read(body("b", ball("g")) + joint("", "d", "", "b", inside, apis), tmp_path)
    slide, hinge = model.joints["d_transX"], model.joints["d_rotY"]
    assert len(model.joints) == 2
    assert (slide.kind, *slide.axis, *slide.range) == pytest.approx(("slide", 1, 0, 0, -0.5, 0.5))
    assert (hinge.kind, *hinge.axis) == ("hinge", 0, 1, 0) and not np.isfinite(hinge.range).any()


def test_a_loop_is_closed_by_points_that_coincide(tmp_path: Path) -> None:
    """Four bars: the fourth hinge cannot be in the tree."""
    text = (
        body("a", ball("ga"))
        + body("b", ball("gb"), (0, 0, 1))
        + body("c", ball("gc"), (1, 0, 0))
        + joint("Fixed", "f", "", "a")
    )
    y = 'uniform token physics:axis = "Y"\n'
    text += joint("Revolute", "ab", "a", "b", y) + joint("Revolute", "ac", "a", "c", y)
    text += joint(
        "Revolute", "bc", "b", "c", y + "point3f physics:localPos0 = (1, 0, 0)\npoint3f physics:localPos1 = (0, 0, 1)"
    )
    model, _, parsed = read(text, tmp_path)
    assert set(model.joints) == {"ab", "ac"}
    assert {e.kind for e in model.equalities.values()} == {"connect"} and len(model.equalities) == 2
    gap = np.diff([e.data[:3] for e in model.equalities.values()], axis=0)[0]
    assert np.abs(gap) == pytest.approx([0, 0.1, 0], abs=1e-7), "both on the hinge's axis"
    assert any("closes a loop" in n for n in parsed.notes)


def test_collision_groups_become_bits_that_say_the_same(tmp_path: Path) -> None:
    def group(name: str, members: str, against: str) -> str:
        return (
            f'def PhysicsCollisionGroup "{name}" (\n prepend apiSchemas = ["CollectionAPI:colliders"]\n)\n{{\n'
            f"rel collection:colliders:includes = [{members}]\nrel physics:filteredGroups = [{against}]\n}}\n"
        )

    text = "".join(body(n, ball("g" + n)) for n in "abc") + body("free", ball("gfree"))
    text += (
        group("one", "</R/a>", "</R/one>, </R/two>") + group("two", "</R/b>", "") + group("three", "</R/c>", "</R/two>")
    )
    model, _, _ = read(text, tmp_path)

    def meets(x: str, y: str) -> bool:
        a, b = model.geoms["g" + x], model.geoms["g" + y]
        return bool(a.contype & b.conaffinity or b.contype & a.conaffinity)

    assert not meets("a", "a") and not meets("a", "b") and not meets("b", "c")
    assert meets("b", "b") and meets("a", "c") and meets("c", "c")
    assert all(meets("free", x) for x in "abc") and meets("free", "free")


def test_a_stated_mass_is_shared_by_density_times_volume(tmp_path: Path) -> None:
    heavy = ball("big", "float physics:density = 3000", "PhysicsMassAPI").replace("radius = 0.1", "radius = 0.2")
    small = ball("small", 'double3 xformOp:translate = (1, 0, 0)\nuniform token[] xformOpOrder = ["xformOp:translate"]')
    model, _, _ = read(body("b", "float physics:mass = 2.5\n" + heavy + small), tmp_path)
    assert model.bodies["b"].mass == pytest.approx(2.5)
    # 24 to 1: eight times the volume, three times the density
    assert model.bodies["b"].com == pytest.approx([1 / 25, 0, 0])


def test_visuals_weigh_nothing_and_touch_nothing(tmp_path: Path) -> None:
    shown = 'def Cube "shown"\n{\n double size = 4\n}\n'
    model, _, _ = read(body("b", ball("g") + shown), tmp_path)
    assert model.bodies["b"].mass == pytest.approx(1000 * 4 / 3 * np.pi * 0.1**3)
    assert not model.geoms["shown"].collides and model.geoms["g"].collides


def test_scales_above_a_shape_reach_it(tmp_path: Path) -> None:
    text = 'def Xform "s"\n{\ndouble3 xformOp:scale = (2, 2, 4)\nuniform token[] xformOpOrder = ["xformOp:scale"]\n'
    capsule = 'def Capsule "c" (\n prepend apiSchemas = ["PhysicsCollisionAPI"]\n)\n{\nuniform token axis = "Z"\ndouble radius = 0.1\ndouble height = 0.5\n}\n'
    model, _, _ = read(text + ball("e") + capsule + "}", tmp_path)
    assert model.geoms["e"].kind == "ellipsoid" and model.geoms["e"].size == pytest.approx([0.2, 0.2, 0.4])
    assert model.geoms["c"].size[:2] == pytest.approx([0.2, 1.0])


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ('def Points "p"\n{\n}\n', "prims of type Points"),
        (body("b", ball("g") + 'def BasisCurves "c" (\n prepend apiSchemas = ["PhysicsCollisionAPI"]\n)\n{\n}\n'), "collider of type BasisCurves"),
        (body("a", ball("g")) + body("b", ball("g")) + joint("Distance", "d", "a", "b"), "distance joints"),
        (body("b", ball("g")) + joint("Revolute", "j", "", "b", "float physics:breakForce = 10"), "a joint that breaks"),
        (
            body("b", ball("g")) + joint("Revolute", "j", "", "b", "float drive:angular:physics:stiffness = 1\nfloat drive:angular:physics:targetPosition = 5", '"PhysicsDriveAPI:angular"'),
            "its target 5 is not carried",
        ),
        (body("b", ball("g")) + joint("Revolute", "j", "", "b", "bool physics:jointEnabled = 0"), "switched off"),
    ],
)  # fmt: skip
def test_what_does_not_come_through_is_said(inside: str, says: str, tmp_path: Path) -> None:
    _, _, parsed = read(inside, tmp_path)
    assert any(says in loss and "/R" in loss for loss in parsed.losses), parsed.losses
