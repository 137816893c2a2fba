# ruff: noqa: E402, E501 - imports after the library is known to be there; files as they come
"""MJCF to USD and back: nothing that a physics engine could notice changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pxr")
mujoco = pytest.importorskip("mujoco")

from fuzz_usd import RICH

from flyball.robots.models.diff import diff
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.scenes.usd.child import read_here
from flyball.scenes.usd.format import self_contained
from flyball.scenes.usd.write import author, write
from flyball.tasks.zoo.lift_fragile import MODEL as LIFT
from flyball.tasks.zoo.slide_puck import SlidePuck

SAME_MOTION = 1e-9
"""Positions after 1 s [rad, m]. All digits are carried, so only rounding in the last one may grow; without chaos it
grows by orders of magnitude less than this in 1 s."""

STACKED = """<mujoco><compiler angle="degree"/><option gravity="1 2 -3"><flag eulerdamp="disable" energy="enable"/></option>
<default><default class="d"><geom friction=".3 .02 .003"/></default></default>
<worldbody><frame euler="0 0 33"><body name="a b" pos=".1 0 1" euler="10 20 30">
<joint name="x" type="slide" axis="1 0 0" range="-1 1" ref=".2"/><joint name="r" axis="1 2 3" range="-33 77" springref="5"
 stiffness="1 .1" damping=".3 .01" actuatorfrcrange="-5 5"/><geom class="d" type="capsule" fromto="0 0 0 .1 .2 .3" size=".02"/>
<geom size=".01" rgba=".1 .2 .3 .4" contype="0" conaffinity="0" group="4"/>
<body name="weld" pos="0 0 .3"><geom type="cylinder" size=".05 .1" mass=".3"/></body></body></frame></worldbody>
<tendon><fixed name="t" range="-1 1" stiffness="2"><joint joint="x" coef="2"/><joint joint="r" coef="-.5"/></fixed></tendon>
<equality><joint name="e" joint1="x" polycoef=".1 0 0 0 0" active="false"/><joint joint1="r" joint2="x" polycoef=".1 2 .3 0 0"/>
<tendon tendon1="t" polycoef=".5 0 0 0 0" active="false"/></equality>
<actuator><velocity joint="r" kv="3" ctrlrange="-2 2"/><position joint="x" kp="10" kv="1" forcerange="-9 9" gear="2"/>
<muscle name="m" tendon="t" lengthrange=".1 .9"/></actuator>
<sensor><contact geom1="c" num="2" data="force dist"/><clock/></sensor>
</mujoco>""".replace('size=".01" rgba', 'name="c" size=".01" rgba')


SITES = """<mujoco><worldbody><body name="a"><freejoint/><geom size=".1"/><site name="s" pos=".1 .2 .3"/></body>
<body name="b"><freejoint/><geom size=".1"/><site name="t" euler="0 0 30"/></body></worldbody>
<equality><weld site1="s" site2="t"/><connect site1="s" site2="t"/></equality></mujoco>"""


def back(mjcf: str, path: Path) -> tuple[Any, Any, list[str], Any]:
    """Compiled models before and after, the losses of writing, and what was read."""
    before = mujoco.MjSpec.from_string(mjcf).compile()
    losses = write(Imported(path.stem, mjcf, {}, facts(before)), path)
    parsed = read_here(path)
    after = mujoco.MjSpec.from_string(parsed.mjcf, assets=parsed.assets).compile()
    return before, after, losses, parsed


@pytest.mark.parametrize(
    "mjcf", [LIFT, SlidePuck.scene.model, RICH, STACKED, SITES], ids=["lift", "puck", "rich", "stacked", "sites"]
)
def test_facts_are_equal(mjcf: str, tmp_path: Path) -> None:
    before, after, _, parsed = back(mjcf, tmp_path / "m.usda")
    assert [c.line() for c in diff(facts(before), facts(after)).changes] == []
    assert parsed.losses == ()
    for option in (
        "timestep",
        "iterations",
        "tolerance",
        "solver",
        "disableflags",
        "enableflags",
        "cone",
        "integrator",
    ):
        assert getattr(after.opt, option) == getattr(before.opt, option), option


@pytest.mark.parametrize("mjcf", [LIFT, SlidePuck.scene.model, RICH], ids=["lift", "puck", "rich"])
def test_it_moves_alike(mjcf: str, tmp_path: Path) -> None:
    before, after, _, _ = back(mjcf, tmp_path / "m.usda")
    ends = []
    for model in (before, after):
        data = mujoco.MjData(model)
        data.qvel[:] = 0.3 * (1 + np.arange(model.nv) % 3)  # a push for every joint
        for _ in range(round(1 / model.opt.timestep)):
            mujoco.mj_step(model, data)
        ends.append(np.concatenate([data.qpos, data.qvel]))
    assert np.abs(ends[0] - ends[1]).max() < SAME_MOTION
    assert np.abs(ends[0][: before.nq] - before.qpos0).max() > 1e-2, "nothing moved, so nothing was shown"


@pytest.mark.parametrize("suffix", [".usdc", ".usdz", ".usd"])
def test_binary_and_package_say_the_same(suffix: str, tmp_path: Path) -> None:
    before, after, _, _ = back(RICH, tmp_path / f"m{suffix}")
    assert diff(facts(before), facts(after)).equal
    assert [p.name for p in tmp_path.iterdir()] == [f"m{suffix}"], "nothing else is left in the folder"


def test_a_file_is_written_over(tmp_path: Path) -> None:
    back(LIFT, tmp_path / "m.usda")
    before, after, _, _ = back(RICH, tmp_path / "m.usda")
    assert diff(facts(before), facts(after)).equal


def test_what_is_not_carried_is_said(tmp_path: Path) -> None:
    mjcf = """<mujoco><asset><texture name="t" type="2d" builtin="flat" width="4" height="4"/>
    <mesh name="spare" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset><custom><numeric name="n" data="1"/></custom><worldbody>
    <body name="b"><joint name="j" ref=".1"/><joint name="k" axis="1 0 0"/><geom size=".1"/></body></worldbody>
    <actuator><pid name="p" joint="j" kp="1"/></actuator></mujoco>"""
    _, after, losses, _ = back(mjcf, tmp_path / "m.usda")
    for word in ("texture t: ", "custom number n: ", "actuator p", "mesh spare", "body b: joints stacked", "mjc:ref"):
        assert any(word in loss for loss in losses), word
    assert len(losses) == 6 and after.nu == 0


def test_other_tools_find_it_in_their_terms(tmp_path: Path) -> None:
    from pxr import Usd, UsdPhysics

    back(LIFT, tmp_path / "m.usda")
    stage = Usd.Stage.Open(str(tmp_path / "m.usda"))
    found = {
        str(k.GetTypeName()): [p for p in stage.Traverse() if p.GetTypeName() == k.GetTypeName()]
        for k in stage.Traverse()
    }
    assert len(found["PhysicsRevoluteJoint"]) == 5 and len(found["PhysicsPrismaticJoint"]) == 2
    elbow = next(p for p in found["PhysicsRevoluteJoint"] if p.GetName() == "elbow")
    assert UsdPhysics.RevoluteJoint(elbow).GetUpperLimitAttr().Get() == pytest.approx(np.degrees(2.8))
    drive = UsdPhysics.DriveAPI(elbow, "angular")
    assert drive.GetStiffnessAttr().Get() == pytest.approx(400 * np.pi / 180)
    assert drive.GetDampingAttr().Get() == pytest.approx(400 * 0.08 * np.pi / 180)
    # pads and palm meet the box but not each other, as contype and conaffinity say
    groups = {p.GetName(): UsdPhysics.CollisionGroup(p) for p in found["PhysicsCollisionGroup"]}
    deaf = {n: {t.name for t in g.GetFilteredGroupsRel().GetTargets()} for n, g in groups.items()}
    assert deaf["contype2_conaffinity1"] == {"contype2_conaffinity1"} and deaf["contype1_conaffinity3"] == set()
    assert UsdPhysics.MassAPI(stage.GetPrimAtPath("/m/box")).GetMassAttr().Get() == pytest.approx(0.35)


def test_an_edit_in_a_schema_s_own_attribute_counts(tmp_path: Path) -> None:
    """All digits stand beside what a schema stores in single precision; they yield when that is changed."""
    from pxr import Usd, UsdPhysics

    mjcf = '<mujoco><worldbody><body name="b"><freejoint/><geom size=".123456789012"/></body></worldbody></mujoco>'
    before, after, _, _ = back(mjcf, tmp_path / "m.usda")
    assert after.body_mass[1] == before.body_mass[1]
    stage = Usd.Stage.Open(str(tmp_path / "m.usda"))
    UsdPhysics.MassAPI(stage.GetPrimAtPath("/m/b")).GetMassAttr().Set(2.5)
    stage.Save()
    assert '"2.5"' in read_here(tmp_path / "m.usda").mjcf


def test_a_drive_that_contradicts_its_actuator_is_said(tmp_path: Path) -> None:
    from pxr import Usd, UsdPhysics

    back(LIFT, tmp_path / "m.usda")
    stage = Usd.Stage.Open(str(tmp_path / "m.usda"))
    elbow = next(p for p in stage.Traverse() if p.GetName() == "elbow" and p.IsA(UsdPhysics.Joint))
    UsdPhysics.DriveAPI(elbow, "angular").GetStiffnessAttr().Set(1.0)
    stage.Save()
    (loss,) = read_here(tmp_path / "m.usda").losses
    assert str(elbow.GetPath()) in loss and "the actuator counts" in loss


def test_meshes_travel_inside_the_text_of_a_scene(tmp_path: Path) -> None:
    _, after, _, parsed = back(RICH, tmp_path / "m.usda")
    alone = mujoco.MjModel.from_xml_string(self_contained(parsed.mjcf, parsed.assets))
    assert diff(facts(after), facts(alone)).equal


def test_names_that_usd_does_not_allow_come_back() -> None:
    mjcf = '<mujoco><worldbody><body name="left arm/1"><joint name="1-é"/><geom size=".1"/></body></worldbody></mujoco>'
    compiled = mujoco.MjSpec.from_string(mjcf).compile()
    stage, _ = author(compiled, Imported("m", mjcf, {}, facts(compiled)), "m")
    from flyball.scenes.usd.read import read_stage

    again = read_stage(stage, "m", "m")
    assert 'name="left arm/1"' in again.mjcf and 'name="1-é"' in again.mjcf


def test_speed_limits_that_mjcf_has_no_place_for_come_back(tmp_path: Path) -> None:
    mjcf = """<mujoco><worldbody><body name="b"><joint name="turn"/><geom size=".1"/><body name="c">
    <joint name="slide" type="slide"/><geom size=".1"/></body></body></worldbody></mujoco>"""
    model = facts(mujoco.MjSpec.from_string(mjcf).compile())
    limits = {"turn": 3.14, "slide": 0.2}
    write(Imported("m", mjcf, {}, model, sidecar={"velocity_limits": limits}), tmp_path / "m.usda")
    parsed = read_here(tmp_path / "m.usda")
    assert parsed.velocity_limits == pytest.approx(limits) and parsed.losses == ()


def test_what_published_models_have(tmp_path: Path) -> None:
    """Two names for one shape, a weld turned by a quaternion with a negative real part, an inertia without a mass."""
    shape = 'vertex="0 0 0 1 0 0 0 1 0 0 0 1" face="0 2 1 0 1 3 0 3 2 1 2 3"'
    mjcf = f"""<mujoco><asset><mesh name="m" {shape}/><mesh name="n" {shape}/></asset><worldbody>
    <body name="a"><inertial pos=".1 0 0" mass="0" diaginertia="1 2 2.5" quat=".6 .8 0 0"/><geom type="mesh" mesh="m"/></body>
    <body name="b"><freejoint/><geom type="mesh" mesh="n"/></body><body name="c" mocap="true"/></worldbody>
    <equality><weld body1="c" body2="b" relpose="1 2 3e-6 -1e-6 1 0 0"/></equality></mujoco>"""
    before, after, losses, _ = back(mjcf, tmp_path / "m.usda")
    assert losses == [] and diff(facts(before), facts(after)).equal
    np.testing.assert_allclose(after.body("a").inertia, before.body("a").inertia)
    shaded = mjcf.replace('name="m" ', 'name="m" normal="1 0 0 1 0 0 1 0 0 1 0 0" ')
    _, _, losses, _ = back(shaded, tmp_path / "m.usda")
    assert losses == ["mesh m: normals of its own (shading) are not carried"]


def test_a_free_joint_and_bodies_without_inertia_come_back(tmp_path: Path) -> None:
    mjcf = """<mujoco><compiler inertiafromgeom="false"/><default><tendon width=".1"/></default><worldbody>
    <body name="a"><joint name="root" type="free" group="3" damping=".1" solreflimit=".1 .5" solimpfriction=".5 .6 .01 .5 2"/>
    <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><geom size=".1"/>
    <body name="tip"><inertial pos="0 .1 0" mass=".3" diaginertia="0 0 0"/><geom size=".2"/></body>
    <body name="c"><inertial pos="0 0 0" mass=".2" diaginertia=".1 .1 .1"/><joint name="j"/></body></body></worldbody>
    <tendon><fixed name="t"><joint joint="j" coef="1"/></fixed></tendon></mujoco>"""
    before, after, losses, _ = back(mjcf, tmp_path / "m.usda")
    assert losses == [] and [c.line() for c in diff(facts(before), facts(after)).changes] == []
    assert after.body("tip").mass == 0.3 and not after.body("tip").inertia.any()


def test_a_flat_mesh_is_seen_and_one_that_would_be_touched_is_a_loss(tmp_path: Path) -> None:
    flat = 'vertex="0 0 0 1 0 0 0 1 0 1 1 0" face="0 1 2 1 3 2" inertia="shell"'
    mjcf = f"""<mujoco><asset><mesh name="m" {flat}/></asset><worldbody><geom name="g" type="mesh" mesh="m" contype="0"
    conaffinity="0"/><body name="b"><freejoint/><geom size=".1"/></body></worldbody></mujoco>"""
    before, after, losses, _ = back(mjcf, tmp_path / "m.usda")
    assert losses == [] and diff(facts(before), facts(after)).equal

    from pxr import Usd, UsdPhysics

    stage = Usd.Stage.Open(str(tmp_path / "m.usda"))
    UsdPhysics.CollisionAPI.Apply(next(p for p in stage.Traverse() if p.GetName() == "g"))
    stage.Save()
    assert "a mesh without volume" in read_here(tmp_path / "m.usda").losses[0]
