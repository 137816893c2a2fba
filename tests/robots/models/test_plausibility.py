"""Mix-ups of units are said, and sound robots are left in peace."""

from __future__ import annotations

import pytest

from flyball.robots.models import load
from flyball.robots.zoo import embodiments
from flyball.tasks.task import tasks

# a link of steel: 0.1 x 0.1 x 0.2 m, 15.6 kg
SOUND = """<robot name="r"><link name="base"/><link name="a"><inertial><origin xyz="0 0 .1"/><mass value="15.6"/>
<inertia ixx=".065" iyy=".065" izz=".026" ixy="0" ixz="0" iyz="0"/></inertial>
<visual><origin xyz="0 0 .1"/><geometry><box size=".1 .1 .2"/></geometry></visual>
<collision><origin xyz="0 0 .1"/><geometry><box size=".1 .1 .2"/></geometry></collision></link>
<joint name="j" type="revolute"><origin xyz="0 0 .3"/><parent link="base"/><child link="a"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" effort="1" velocity="1"/></joint></robot>"""

MIXED_UP = [
    # written as -> what is said
    (
        '<inertia ixx=".065" iyy=".065" izz=".026"',
        '<inertia ixx="65000" iyy="65000" izz="26000"',
        "body a: its inertia",
    ),
    ('<origin xyz="0 0 .1"/><mass', '<origin xyz="0 0 100"/><mass', "body a: its centre of mass is 99.9 m from"),
    (
        '<box size=".1 .1 .2"/></geometry></collision>',
        '<box size="100 100 200"/></geometry></collision>',
        "collision shapes",
    ),
    (
        '<box size=".1 .1 .2"/></geometry></visual>',
        '<box size="100 100 200"/></geometry></visual>',
        "millimetres for metres",
    ),
    ('<origin xyz="0 0 .3"/><parent', '<origin xyz="0 0 300"/><parent', "body a lies 300 m from its parent"),
    ('lower="-2" upper="2"', 'lower="-120" upper="120"', "joint j: turns from -120 to 120 rad: degrees for radians?"),
    ('type="revolute"', 'type="prismatic"', ""),
]


def notes(tmp_path, text: str) -> list[str]:
    (tmp_path / "r.urdf").write_text(text)
    return [n for n in load(tmp_path / "r.urdf").notes if "taken as" not in n]


def test_a_sound_link_is_left_in_peace(tmp_path):
    assert notes(tmp_path, SOUND) == []


@pytest.mark.parametrize(("right", "wrong", "said"), MIXED_UP)
def test_a_mix_up_is_said(tmp_path, right, wrong, said):
    text = SOUND.replace(right, wrong)
    assert text != SOUND
    found = notes(tmp_path, text)
    assert any(said in n for n in found) if said else found == [], found


def test_nothing_is_rescaled(tmp_path):
    (tmp_path / "r.urdf").write_text(SOUND.replace(".1 .1 .2", "100 100 200"))
    assert load(tmp_path / "r.urdf").model.geoms["a/geom0"].size.tolist() == [50, 50, 100]


def test_a_whole_model_in_millimetres(tmp_path):
    text = (
        SOUND.replace(".1 .1 .2", "100 100 200").replace('xyz="0 0 .1"', 'xyz="0 0 100"').replace("0 0 .3", "0 0 300")
    )
    assert any("millimetres" in n for n in notes(tmp_path, text))


def test_a_shape_too_small_for_a_volume(tmp_path):
    path = tmp_path / "r.xml"
    path.write_text(
        '<mujoco><worldbody><body name="a"><freejoint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'
        '<geom size="1e-300"/></body></worldbody></mujoco>'
    )
    assert load(path).model.bodies["a"].mass == 1


def test_our_own_robots_are_sound(tmp_path):
    assert embodiments.names()
    for name in tasks.names():
        (tmp_path / "m.xml").write_text(tasks.load(name).scene.model)
        assert load(tmp_path / "m.xml").notes == ()
