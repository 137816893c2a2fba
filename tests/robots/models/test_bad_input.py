"""Bad and hostile files: one line that names the element, within bounds, and life goes on."""

from __future__ import annotations

import os
import re

import pytest

from flyball.base import FlyballError, InputError
from flyball.robots.models import guard, load

BODY = '<mujoco><worldbody><body name="a"><joint name="j"/>{}</body></worldbody></mujoco>'
MASS = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'

MJCF = [
    # what the file holds -> what the one line says
    ("", "XML is not well-formed"),
    ("<mujoco><worldbody>", "XML is not well-formed: no element found inside mujoco/worldbody"),
    ("<mujoco><worldbody></mujoco>", "mismatched tag inside mujoco/worldbody"),
    ('<mujoco><body name="a"/><worldbody/></mujoco>', "mujoco/body[a]: a body outside of <worldbody>"),
    ("<robots/>", "the root element is <robots>"),
    ('<!DOCTYPE m [<!ENTITY a "b">]><mujoco model="&a;"/>', "declares the entity 'a'"),
    (
        BODY.format('<inertial pos="0 0 0" mass="-1" diaginertia="1 1 1"/>'),
        "worldbody/body[a]/inertial@mass: mass = -1 kg",
    ),
    (BODY.format('<inertial pos="0 0 0" mass="nan" diaginertia="1 1 1"/>'), "body[a]/inertial@mass: mass='nan'"),
    (BODY.format('<inertial pos="0 0 0" mass="1" diaginertia="1 1 3"/>'), "body[a]: inertia must satisfy A + B >= C"),
    (BODY.format('<inertial pos="0 0 0" mass="1" diaginertia="1e999 1 1"/>'), "inertial@diaginertia"),
    (BODY.format('<geom name="g" size="1e150" density="1e300"/>'), "body[a]: its mass comes to"),
    (BODY.format(MASS + '<geom name="g" pos="1e200 0 0" size="1"/>'), "body[a]/geom[g]: its pos comes to"),
    (BODY.format(MASS + '<geom class="nowhere"/>'), "unknown default class"),
    (BODY.format(MASS + '<geom name="g" size="-1"/>'), "body[a]/geom[g]: size 0 must be positive"),
    (BODY.format(MASS + '<geom type="mesh" mesh="m"/>'), "body[a]/geom: "),
    (BODY.format(MASS + '<joint name="k" damping="x"/>'), "body[a]/joint[k]: bad format in attribute 'damping'"),
    (
        BODY.format(MASS + '<joint name="k" dampening="1"/>'),
        "body[a]/joint[k]: Schema violation: unrecognized attribute",
    ),
    (BODY.format(MASS + '<geom class="%s%n"/>'), "holds a '%'"),
    ('<mujoco><asset><mesh file="none.stl"/></asset></mujoco>', "asset/mesh@file: no file 'none.stl'"),
    ('<mujoco><asset><mesh file="http://x/y.stl"/></asset></mujoco>', "nothing is fetched over http"),
    ('<mujoco><include file="bad.xml"/></mujoco>', "files include each other: bad.xml -> bad.xml"),
    ('<mujoco><asset><model name="m" file="bad.xml"/></asset></mujoco>', "the model attaches itself"),
    ('<mujoco><worldbody><replicate count="1000000000"><geom size="1"/></replicate></worldbody></mujoco>', "@count"),
    (
        '<mujoco><worldbody><replicate count="9999"><replicate count="9999"><geom size="1"/></replicate></replicate>'
        "</worldbody></mujoco>",
        "worldbody/replicate/replicate@count: makes 199960002 elements",
    ),
    ('<mujoco><size nkey="2000000000"/></mujoco>', "size@nkey"),
    ('<mujoco><asset><texture name="t" width="99999" height="99999"/></asset></mujoco>', "texture[t]@width"),
    ("<mujoco>" + "<a>" * 300 + "</a>" * 300 + "</mujoco>", "elements nest too deeply"),
    ('<mujoco><actuator><motor name="u" joint="q"/></actuator></mujoco>', "actuator/motor[u]: unknown transmission"),
]

ONE = '<robot name="r"><link name="a">{}</link></robot>'
TWO = '<robot name="r"><link name="a"/><link name="b"/>{}</robot>'
URDF = [
    (ONE.format("<inertial><mass value='-1'/></inertial>"), "link[a]/inertial/mass@value: mass = -1 kg"),
    (ONE.format("<inertial><mass value='1 2'/></inertial>"), "link[a]/inertial/mass@value: value='1 2'"),
    (
        ONE.format("<inertial><mass value='1e200'/></inertial>"),
        "link[a]/inertial/mass@value: value='1e200'; allowed: up to",
    ),
    (ONE.format("<inertial/>"), "link[a]/inertial: an inertial without a mass"),
    (ONE.format("<visual/>"), "link[a]/visual: a shape without a geometry"),
    (ONE.format("<visual><geometry><mesh filename='package://gone/m.stl'/></geometry></visual>"), "--package gone=DIR"),
    (
        ONE.format("<visual><geometry><mesh filename='m.stl'/></geometry></visual>"),
        "geometry/mesh@filename: no file 'm.stl'",
    ),
    (ONE.format("<collision><geometry><sphere/></geometry></collision>"), "geometry/sphere: no radius"),
    (ONE.format("</link><link name='a'>"), "link[a]: two links are called 'a'"),
    ('<robot name="r"/>', "no links"),
    ('<robot name="r"><link/></robot>', "robot[r]/link: a link without a name"),
    (TWO.format(""), "link[b]: 2 links have no parent: a, b"),
    (
        TWO.format(
            '<joint name="j" type="fixed"><parent link="a"/><child link="b"/></joint>'
            '<joint name="k" type="fixed"><parent link="b"/><child link="a"/></joint>'
        ),
        "links form a circle: ",
    ),
    (
        TWO.format(
            '<joint name="j" type="fixed"><parent link="a"/><child link="b"/></joint>'
            '<joint name="k" type="fixed"><parent link="a"/><child link="b"/></joint>'
        ),
        "joint[k]: link 'b' has two parents (joints j, k)",
    ),
    (TWO.format('<joint name="j" type="twist"><parent link="a"/></joint>'), "joint[j]@type: joint type 'twist'"),
    (TWO.format('<joint name="j" type="fixed"><parent link="a"/></joint>'), "joint[j]: its child link None"),
    (
        TWO.format('<joint name="j" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 0"/></joint>'),
        "joint[j]: the axis has no direction",
    ),
    (
        TWO.format('<joint name="j" type="revolute"><parent link="a"/><child link="b"/><mimic joint="x"/></joint>'),
        "joint[j]/mimic@joint: mimics 'x'",
    ),
    (
        '<robot name="r">'
        + "".join(f'<link name="l{i}"/>' for i in range(2001))
        + "".join(
            f'<joint name="j{i}" type="fixed"><parent link="l{i}"/><child link="l{i + 1}"/></joint>'
            for i in range(2000)
        )
        + "</robot>",
        "too many links in a row",
    ),
]


def refused(path, text: str) -> None:
    with pytest.raises(FlyballError) as err:
        load(path)
    line = err.value.line()
    assert text in line and err.value.exit_code == 2 and "\n" not in line and len(line) < 600, line


@pytest.mark.parametrize(("content", "text"), MJCF)
def test_mjcf(tmp_path, content, text):
    (tmp_path / "bad.xml").write_text(content)
    refused(tmp_path / "bad.xml", text)


@pytest.mark.parametrize(("content", "text"), URDF)
def test_urdf(tmp_path, content, text):
    (tmp_path / "bad.urdf").write_text(content)
    refused(tmp_path / "bad.urdf", text)


def test_billion_laughs_in_urdf_and_collada(tmp_path):
    laughs = '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    (tmp_path / "r.urdf").write_text(f'{laughs}<robot name="&b;"/>')
    refused(tmp_path / "r.urdf", "declares the entity 'a'")
    (tmp_path / "m.dae").write_text(f"{laughs}<COLLADA>&b;</COLLADA>")
    (tmp_path / "r.urdf").write_text(
        "<robot name='r'><link name='a'><visual><geometry><mesh filename='m.dae'/></geometry></visual></link></robot>"
    )
    refused(tmp_path / "r.urdf", "declares the entity 'a'")


def test_a_mesh_of_10_gb_is_refused_before_it_is_read(tmp_path):
    """A sparse file: reading it would take 10 GB of memory, looking at its size none."""
    with open(tmp_path / "huge.stl", "wb") as f:
        os.truncate(f.fileno(), 10 * 10**9)
    (tmp_path / "r.xml").write_text('<mujoco><asset><mesh name="m" file="huge.stl"/></asset></mujoco>')
    refused(
        tmp_path / "r.xml", "r.xml:1 mujoco/asset/mesh[m]@file: 'huge.stl' has 10000 MB; allowed: up to 268 MB a file"
    )


def test_devices_pipes_and_loops_of_links_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.stl")
    (tmp_path / "loop.stl").symlink_to(tmp_path / "loop.stl")
    for name, text in (("pipe.stl", "not a regular file"), ("loop.stl", "mesh[m]@file"), ("/dev/zero", "lies outside")):
        (tmp_path / "r.xml").write_text(f'<mujoco><asset><mesh name="m" file="{name}"/></asset></mujoco>')
        refused(tmp_path / "r.xml", text)


def test_files_that_are_no_models(tmp_path):
    for name, text in (("m.step", "no model format has the suffix '.step'"), ("m.xacro", "xacro is a macro language")):
        (tmp_path / name).write_text("x")
        refused(tmp_path / name, text)
    refused(tmp_path / "gone.urdf", "no such file")
    refused(tmp_path, "not a file")


def test_the_compiler_may_die_and_the_next_model_compiles():
    """MuJoCo 3.17 aborts on this class name; here it takes only its own process with it."""
    with pytest.raises(InputError, match="MuJoCo crashed while compiling"):
        guard.compile_guarded('<mujoco><worldbody><geom class="%n" size="1"/></worldbody></mujoco>', {}, where="x")
    assert guard.compile_guarded("<mujoco/>", {}).model.nbody == 1


def test_the_compiler_may_hang_and_is_stopped(monkeypatch):
    monkeypatch.setattr(guard, "CPU_S", 1)
    bomb = '<mujoco><worldbody><replicate count="1000000000"><geom size="1"/></replicate></worldbody></mujoco>'
    with pytest.raises(InputError, match="takes more than 1 s of CPU time"):
        guard.compile_guarded(bomb, {}, where="x")
    assert guard.compile_guarded("<mujoco/>", {}).model.nbody == 1


def test_the_compiler_may_not_take_all_memory():
    """900 GB of arena."""
    with pytest.raises(InputError, match=re.compile("memory", re.IGNORECASE)):
        guard.compile_guarded('<mujoco><size memory="900G"/></mujoco>', {}, where="x")
