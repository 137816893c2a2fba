# ruff: noqa: E501 - models as they come
"""URDF in: against MuJoCo's own reader where that keeps everything, against the conventions where it does not."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.base import InputError, Unsupported
from flyball.robots.models import ReadOptions, load

LINK = """<link name="{name}"><inertial><origin xyz="{com}" rpy="{turn}"/><mass value="{mass}"/>
<inertia ixx="{i[0]}" iyy="{i[1]}" izz="{i[2]}" ixy="{i[3]}" ixz="{i[4]}" iyz="{i[5]}"/></inertial></link>"""
JOINT = """<joint name="j{child}" type="{kind}"><origin xyz="{pos}" rpy="{turn}"/><parent link="{parent}"/>
<child link="l{child}"/><axis xyz="{axis}"/><limit lower="-2" upper="2" effort="5" velocity="1"/>
<dynamics damping="0.1" friction="0"/></joint>"""


def words(values) -> str:
    return " ".join(repr(float(x)) for x in values)


def random_robot(rng: np.random.Generator, links: int) -> str:
    """A tree of links with general inertias, offsets and axes below a link called world."""
    parts = ['<link name="world"/>']
    for k in range(links):
        a = rng.normal(size=(3, 3))
        full = a @ a.T + 3 * np.eye(3)  # well inside what a body can have
        full = np.trace(full) * np.eye(3) - full
        i = (full[0, 0], full[1, 1], full[2, 2], full[0, 1], full[0, 2], full[1, 2])
        link = {"name": f"l{k}", "com": words(rng.normal(size=3)), "turn": words(rng.uniform(-3, 3, 3))}
        parts.append(LINK.format(**link, mass=rng.uniform(0.5, 3), i=[repr(float(x)) for x in i]))
        parent = "world" if k == 0 else f"l{rng.integers(k)}"
        parts.append(
            JOINT.format(
                child=k,
                kind=rng.choice(["revolute", "continuous", "prismatic", "fixed"]) if k else "revolute",
                pos=words(rng.normal(size=3)),
                turn=words(rng.uniform(-3, 3, 3)),
                axis=words(rng.normal(size=3)),
                parent=parent,
            )
        )
    return f'<robot name="r">{"".join(parts)}</robot>'


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), links=st.integers(1, 7))
def test_it_moves_as_with_mujocos_own_reader(tmp_path, seed, links):
    """Same accelerations at random states, to the rounding of 64-bit dynamics."""
    rng = np.random.default_rng(seed)
    text = random_robot(rng, links)
    (tmp_path / "r.urdf").write_text(text)
    ours, theirs = load(tmp_path / "r.urdf").compile(), mujoco.MjModel.from_xml_string(text)
    assert ours.nv == theirs.nv
    a, b = mujoco.MjData(ours), mujoco.MjData(theirs)
    for i in range(ours.njnt):
        name = ours.joint(i).name
        q, v = rng.uniform(-1, 1, 2)
        a.joint(name).qpos = b.joint(name).qpos = q
        a.joint(name).qvel = b.joint(name).qvel = v
    mujoco.mj_forward(ours, a)
    mujoco.mj_forward(theirs, b)
    for i in range(ours.njnt):
        name = ours.joint(i).name
        scale = max(1.0, float(np.abs(b.qacc).max()))
        assert abs(float(a.joint(name).qacc[0] - b.joint(name).qacc[0])) < 1e-8 * scale


def test_the_base_is_what_it_is_told_to_be_and_keeps_its_mass(arm):
    told = load(arm, ReadOptions(base="fixed"))
    assert told.base == "fixed" and told.notes == () and told.model.bodies["base"].mass == 2
    floating = load(arm, ReadOptions(base="floating"))
    assert floating.base == "floating" and floating.compile().nv == told.compile().nv + 6
    assert floating.model.mass == told.model.mass == 4
    untold = load(arm)
    assert untold.base == "fixed" and "taken as fixed" in untold.notes[0]


def test_limits_damping_friction_and_mimic_survive(arm):
    imported = load(arm)
    j1, j2 = imported.model.joints["j1"], imported.model.joints["j2"]
    assert j1.range.tolist() == [-1, 1] and j1.effort.tolist() == [-10, 10]
    assert (j1.damping, j1.frictionloss) == (0.3, 0.2)
    assert np.isinf(j2.effort).all(), "an effort of 0 is no limit"
    assert imported.sidecar["velocity_limits"] == {"j1": 3.0, "j2": 1.0}
    (mimic,) = imported.model.equalities.values()
    assert (mimic.first, mimic.second, mimic.data[:2].tolist()) == ("j2", "j1", [0.1, 2.0])


def test_shapes_are_seen_touched_or_both(arm):
    m = load(arm).model
    seen, touched = m.geoms["upper/geom0"], m.geoms["shell"]
    assert (seen.collides, seen.rgba.tolist(), seen.size.tolist()) == (False, [1, 0, 0, 1], [0.05, 0.15, 0])
    assert touched.collides and m.geoms["foot"].collides
    assert list(m.excludes) == ["base|upper"], "MuJoCo does not filter the neighbours of a fixed body"
    assert not load(arm, ReadOptions(base="floating")).model.excludes
    twins = arm.read_text().replace("<visual>", '<visual name="shell"><origin xyz="0 .1 0" rpy=".1 .2 .3"/>', 1)
    arm.write_text(twins.replace('<cylinder radius=".05" length=".3"/>', '<sphere radius=".1"/>'))
    both = load(arm).model
    assert [g.name for g in both.geoms_of("upper")] == ["shell"] and both.geoms["shell"].collides


def test_every_mesh_format_gives_the_same_shape(tmp_path, meshes):
    shapes = "".join(
        f'<visual><geometry><mesh filename="package://bot/meshes/{name}"/></geometry></visual>' for name in meshes
    )
    (tmp_path / "bot" / "meshes").mkdir(parents=True)
    (tmp_path / "bot" / "urdf").mkdir()
    for name, data in meshes.items():
        (tmp_path / "bot" / "meshes" / name).write_bytes(data)
    path = tmp_path / "bot" / "urdf" / "bot.urdf"
    path.write_text(f'<robot name="bot"><link name="base">{shapes}</link></robot>')
    imported = load(path)
    assert len(imported.model.meshes) == 4
    for mesh in imported.model.meshes.values():
        # COLLADA's node is moved by one of its units, an inch
        corners = mesh.vertices - [0.0254 * (mesh.name == "inches"), 0, 0]
        np.testing.assert_allclose(np.ptp(corners, axis=0), [0.1, 0.2, 0.3], atol=1e-6)
        np.testing.assert_allclose(corners.min(axis=0), 0, atol=1e-6)
    colour = next(g for g in imported.model.geoms.values() if g.mesh == "inches").rgba
    assert colour.tolist() == [0, 0, 1, 1], "the colour that the COLLADA file states"


def test_what_a_mesh_loses_is_said(tmp_path, collada, meshes):
    (tmp_path / "m.dae").write_bytes(collada(axis="Y_UP"))
    (tmp_path / "m.glb").write_bytes(b"glTF")
    path = tmp_path / "r.urdf"
    shape = "<{0}><geometry><mesh filename='{1}'/></geometry></{0}>"
    path.write_text(
        f"<robot name='r'><link name='b'>{shape.format('visual', 'm.dae')}{shape.format('visual', 'm.glb')}</link></robot>"
    )
    imported = load(path)
    assert any("Y_UP is not applied" in note for note in imported.notes)
    assert len(imported.losses) == 1 and "m.glb" in imported.losses[0] and "visual[1]" in imported.losses[0]
    path.write_text(f"<robot name='r'><link name='b'>{shape.format('collision', 'm.glb')}</link></robot>")
    with pytest.raises(Unsupported, match=r"robot\[r\]/link\[b\]/collision/geometry/mesh@filename: .*'.glb'"):
        load(path)


def test_a_collada_file_with_a_picture_that_is_not_there_keeps_its_shape(tmp_path, collada):
    painted = collada().replace(
        b'<technique sid="c"><phong><diffuse><color>0 0 1 1</color>',
        b'<newparam sid="sf"><surface type="2D"><init_from>gone</init_from></surface></newparam><newparam sid="sm">'
        b'<sampler2D><source>sf</source></sampler2D></newparam><technique sid="c"><phong><diffuse>'
        b'<texture texture="sm" texcoord="UV"/>',
    )
    assert painted != collada()
    for name, data in (("whole.dae", collada()), ("painted.dae", painted)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / "r.urdf").write_text(
            f"<robot name='r'><link name='b'><visual><geometry><mesh filename='{name}'/></geometry></visual></link></robot>"
        )
        imported = load(tmp_path / "r.urdf")
        vertices = imported.model.meshes[name.removesuffix(".dae")].vertices
        # its node stands one unit along x
        np.testing.assert_allclose(vertices.max(axis=0), (1.1, 0.2, 0.3), atol=1e-6)
        np.testing.assert_allclose(vertices.min(axis=0), (1, 0, 0), atol=1e-6)
    assert any("a reference is broken (DaeBrokenRefError: Missing image 'gone'" in text for text in imported.losses)


def test_one_mesh_in_two_scales_is_two_meshes(tmp_path, meshes):
    (tmp_path / "m.stl").write_bytes(meshes["binary.stl"])
    shapes = "".join(
        f'<visual><geometry><mesh filename="m.stl" scale="{s} {s} {s}"/></geometry></visual>' for s in (1, 2, 2)
    )
    (tmp_path / "r.urdf").write_text(f'<robot name="r"><link name="b">{shapes}</link></robot>')
    m = load(tmp_path / "r.urdf").model
    assert sorted(float(np.ptp(x.vertices[:, 0]).round(6)) for x in m.meshes.values()) == [0.1, 0.2]


def test_links_without_mass_between_joints_hand_their_joints_on(arm):
    """A hollow link moves as MuJoCo would move one with next to no mass."""
    text = arm.read_text().replace("revolute", "continuous", 1)
    hollow = (
        '<link name="hollow"/><joint name="h" type="revolute"><origin xyz=".1 .2 .3" rpy=".3 .2 .1"/>'
        '<parent link="upper"/><child link="hollow"/><axis xyz="0.2 1 0"/><limit lower="-1" upper="1" effort="0"'
        ' velocity="0"/></joint></robot>'
    )
    text = text.replace('<parent link="upper"/>', '<parent link="hollow"/>').replace("</robot>", hollow)
    text = text.replace('<mimic joint="j1" multiplier="2" offset=".1"/>', "")
    arm.write_text(text)
    imported = load(arm)
    assert [j.name for j in imported.model.joints_of("fore")] == ["h", "j2"]
    assert any("hollow" in note for note in imported.notes)
    speck = '<link name="hollow"><inertial><mass value="1e-9"/><inertia ixx="1e-9" iyy="1e-9" izz="1e-9" ixy="0" ixz="0" iyz="0"/></inertial></link>'
    theirs = mujoco.MjModel.from_xml_string(text.replace('<link name="hollow"/>', speck))
    ours = imported.compile()
    a, b = mujoco.MjData(ours), mujoco.MjData(theirs)
    for d in (a, b):
        for name, q, v in (("j1", 0.4, 1.0), ("h", 0.3, -0.5), ("j2", 0.2, 0.1)):
            d.joint(name).qpos, d.joint(name).qvel = q, v
    mujoco.mj_forward(ours, a)
    mujoco.mj_forward(theirs, b)
    np.testing.assert_allclose(a.body("fore").xpos, b.body("fore").xpos, atol=1e-12)
    np.testing.assert_allclose(
        [a.joint(n).qacc[0] for n in ("j1", "h", "j2")], [b.joint(n).qacc[0] for n in ("j1", "h", "j2")], rtol=1e-6
    )


def test_impossible_inertias_are_mended_only_when_asked(arm):
    arm.write_text(arm.read_text().replace('izz="1.2"', 'izz="5"'))
    with pytest.raises(InputError, match=r"arm.urdf:9 .*link\[upper\]/inertial/inertia: no body has") as err:
        load(arm)
    assert "--mend" in err.value.run_next
    mended = load(arm, ReadOptions(mend=True))
    values = np.linalg.eigvalsh(mended.model.bodies["upper"].inertia)
    assert values[2] == pytest.approx(5) and values[0] + values[1] >= values[2]
    assert any("link upper" in loss for loss in mended.losses)


def test_an_inertia_off_by_rounding_is_noted(arm):
    """A flat plate to three digits: 0.333 + 0.166 against 0.5."""
    arm.write_text(
        arm.read_text().replace('ixx="1" iyy="1" izz="1.2" ixy="0.1"', 'ixx=".333" iyy=".166" izz=".5" ixy="0"')
    )
    assert any("link upper" in note and "no body has" in note for note in load(arm).notes)


def test_what_is_not_taken_is_listed(arm):
    extra = '<gazebo reference="base"/><gazebo/><transmission name="t"/></robot>'
    arm.write_text(arm.read_text().replace("</robot>", extra))
    assert load(arm).losses == ("2 <gazebo> elements", "1 <transmission> element")


def test_a_world_link_and_floating_and_planar_joints(tmp_path):
    body = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    text = f"""<robot name="r"><link name="world"/><link name="a">{body}</link><link name="b">{body}</link>
    <joint name="fly" type="floating"><origin xyz="0 0 2"/><parent link="world"/><child link="a"/></joint>
    <joint name="glide" type="planar"><parent link="world"/><child link="b"/><axis xyz="0 0 1"/></joint></robot>"""
    (tmp_path / "r.urdf").write_text(text)
    m = load(tmp_path / "r.urdf").model
    assert m.base == "mixed" and m.joints["fly"].kind == "free" and m.start["fly"][2] == 2
    assert [(j.name, j.kind) for j in m.joints_of("b")] == [
        ("glide_x", "slide"),
        ("glide_y", "slide"),
        ("glide_yaw", "hinge"),
    ]
    (tmp_path / "r.urdf").write_text(
        text.replace('<parent link="world"/><child link="b"/>', '<parent link="a"/><child link="b"/>').replace(
            "planar", "floating"
        )
    )
    with pytest.raises(Unsupported, match=r"joint\[glide\]@type: a floating joint below a body"):
        load(tmp_path / "r.urdf")
