# ruff: noqa: E501 - models as they come
"""Two models compared by how they move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import pytest

from flyball.base import InputError
from flyball.engines.compare import compare

ARM = """<mujoco><option timestep="0.002"/><worldbody><body name="a"><joint name="j1" axis="0 1 0" damping="{damping}"/>
<geom type="capsule" fromto="0 0 0 .3 0 0" size=".02" mass="1"/><body name="b" pos=".3 0 0">
<joint name="j2" axis="0 1 0" damping=".2"/><geom type="capsule" fromto="0 0 0 .2 0 0" size=".02" mass=".5"/></body></body>
<body name="ball" pos="5 0 2"><freejoint name="fly"/><geom size=".05" mass="{mass}"/></body></worldbody>
<actuator><position name="p1" joint="j1" kp="30" kv="{kv}"/><motor name="m2" joint="j2" ctrlrange="-2 2"/></actuator></mujoco>"""


@dataclass
class Text:
    xml: str

    def compile(self) -> Any:
        return mujoco.MjModel.from_xml_string(self.xml)


def arm(**change: float) -> Text:
    return Text(ARM.format(**{"damping": 0.1, "kv": 3, "mass": 0.2} | change))


def test_a_model_moves_as_itself():
    c = compare(arm(), arm())
    assert set(c.passive.largest.values()) == {0.0} and set(c.step.largest.values()) == {0.0}
    assert c.passive.moved["j1"] > 0.1, "it must have moved for the comparison to mean anything"
    assert c.step.moved["j2"] > 0.1 and c.unmatched == ()
    assert any("passive: joint" in line for line in c.lines())


def test_a_lost_servo_damping_shows_in_the_step_response():
    """The fault that an importer of another engine has: kv reads back as 0."""
    c = compare(arm(), arm(kv=0))
    assert c.step.worst[1] > 0.05


def test_a_changed_joint_damping_shows_in_the_passive_motion():
    c = compare(arm(), arm(damping=0.2))
    joint, most = c.passive.worst
    assert joint in ("j1", "j2") and most > 0.01
    assert c.passive.largest["fly"] == 0, "a mass falls as any other"
    assert c.passive.largest[joint] >= c.passive.final[joint]


def test_order_does_not_matter_and_what_only_one_has_is_said():
    other = ARM.format(damping=0.1, kv=3, mass=0.2).replace('<motor name="m2"', '<motor name="m3"')
    ball = '<body name="ball" pos="5 0 2"><freejoint name="fly"/><geom size=".05" mass="0.2"/></body>'
    other = other.replace(ball, "").replace('<worldbody><body name="a">', f'<worldbody>{ball}<body name="a">')
    c = compare(arm(), Text(other))
    assert c.passive.worst[1] < 1e-9
    assert c.unmatched == ("actuator m2", "actuator m3")


def test_nothing_in_common_and_nothing_to_compile():
    bare = Text('<mujoco><worldbody><body><joint name="x"/><geom size=".1"/></body></worldbody></mujoco>')
    c = compare(bare, arm())
    assert c.step is None and c.passive.worst == ("", 0.0) and "joint x" in c.unmatched
    with pytest.raises(InputError, match="does not compile"):
        compare(Text("<mujoco><nonsense/></mujoco>"), arm())


def test_a_model_that_explodes_is_infinitely_far():
    wild = (
        ARM.format(damping=0.1, kv=3, mass=0.2)
        .replace('kp="30"', 'kp="-1e12"')
        .replace("<option ", '<option integrator="Euler" ')
    )
    wild = wild.replace('timestep="0.002"', 'timestep="0.002"><flag autoreset="disable"/></option><option ')
    assert compare(arm(), Text(wild)).step.worst[1] > 1


def test_a_ball_joint_is_compared_by_its_angle():
    """To better than the 1e-8 that the arc cosine of a rounded number gives."""
    xml = (
        '<mujoco><worldbody><body><joint name="b" type="ball" damping="{}"/><geom type="capsule" size=".02"'
        ' fromto="0 0 0 .3 0 0"/></body></worldbody></mujoco>'
    )
    most = [compare(Text(xml.format(0.1)), Text(xml.format(0.1 + d))).passive.largest["b"] for d in (1e-9, 1e-3)]
    assert 0 < most[0] < 1e-8 and 1e-4 < most[1] < 1e-1
    assert most[1] / most[0] == pytest.approx(1e6, rel=0.05), "small deviations are proportional to their cause"
