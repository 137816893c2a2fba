"""A planted mistake is found and its element named; a sound model has nothing said against it."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from flyball.base import InputError
from flyball.robots.zoo.check import Check, Finding, check, judge
from flyball.robots.zoo.found import FoundModel, Search, find

SOUND = """<mujoco><compiler angle="radian"/><worldbody><body name="upper">
<geom type="capsule" fromto="0 0 0 0 0 .3" size=".03" mass="1" contype="0"/>
<joint name="shoulder" axis="0 1 0" range="-1 1" damping=".1"/>
<body name="fore" pos="0 0 .3"><geom name="fore" type="capsule" fromto="0 0 0 0 0 .3" size=".03" mass="1"/>
<joint name="elbow" axis="0 1 0" range="0 2" damping=".1"/></body></body></worldbody>
<actuator><position name="shoulder" joint="shoulder" kp="50" kv="5" inheritrange="1" forcerange="-30 30"/></actuator>
</mujoco>"""


def model(*changes: tuple[str, str]) -> mujoco.MjModel:
    text = SOUND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return mujoco.MjModel.from_xml_string(text)


def against(m: mujoco.MjModel) -> list[Finding]:
    """All findings but notes."""
    return [f for f in judge(m)[1] if f.level != "note"]


def told(level: str, element: str, words: str, m: mujoco.MjModel) -> None:
    found = judge(m)[1]
    assert any((f.level, f.element) == (level, element) and words in f.text for f in found), found


def test_nothing_against_a_sound_model() -> None:
    assert against(model()) == []


def test_facts_are_the_model_s() -> None:
    facts = judge(model())[0]
    assert (facts["bodies"], facts["dof"], facts["actuators"], facts["mass"]) == (2, 2, 1, 2.0)
    assert facts["extent"] == pytest.approx(0.9, abs=0.1)  # from bounding spheres, a little more than 0.66


@pytest.mark.parametrize(
    ("old", "new", "level", "element", "words"),
    [
        ('size=".03" mass="1"/>', 'size=".03" mass="1e-7"/>', "warning", "body fore", "mass of 1e-07 kg"),
        ('range="0 2"', 'range=".5 2"', "warning", "joint elbow", "outside its limits [0.5, 2]"),
        ('range="0 2"', "", "note", "joint elbow", "has no position limits and no actuator"),
        ('kp="50"', 'kp="5e6"', "warning", "actuator shoulder", "too stiff for a time step of 0.002 s"),
        ('inheritrange="1"', 'ctrlrange="-2 2"', "note", "actuator shoulder", "joint moves in [-1, 1]"),
        ('inheritrange="1" forcerange="-30 30"', "", "note", "actuator shoulder", "no force limit"),
        ('joint="shoulder"', 'joint="shoulder" gear="0"', "error", "actuator shoulder", "gear 0"),
    ],
)
def test_a_planted_mistake_is_found_at_its_element(old: str, new: str, level: str, element: str, words: str) -> None:
    told(level, element, words, model((old, new)))


def test_inertia_that_no_body_has() -> None:
    """MuJoCo's compiler would refuse it in a file; readers of other formats may still let it through."""
    m = model()
    m.body_inertia[2] = [1e-3, 1e-3, 5e-3]
    told("error", "body fore", "triangle inequality", m)


def test_bodies_that_overlap_in_the_reference_pose() -> None:
    third = '<body name="tool" pos="0 0 .1"><joint name="wrist" range="-1 1"/><geom size=".2" mass="1"/></body>'
    overlapping = model((' contype="0"', ""), ("</body></body>", f"{third}</body></body>"))
    told("warning", "body upper and tool", "overlap by 130.0 mm", overlapping)  # ends .1 apart, radii .2 + .03


def test_a_simulation_that_diverges_names_the_joint() -> None:
    spring = model(('range="0 2" damping=".1"', 'range="0 2" damping="0" stiffness="1e9" springref="1"'))
    spring.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    told("error", "joint elbow", "diverges after", spring)


def test_a_simulation_that_gains_energy_is_told() -> None:
    """A body stuck in another is thrown out."""
    stuck = model(
        (' contype="0"', ""),
        ("</worldbody>", '<body name="shot" pos="0 0 .1"><freejoint/><geom size=".05" mass=".02"/></body></worldbody>'),
        ('size=".03" mass="1"', 'size=".03" mass="1" solref="-1e5 -1"'),
    )
    told("warning", "model", "gains", stuck)


def test_let_go_means_that_nothing_drives() -> None:
    """A motor that pushes with 50 N m when told nothing would throw the arm."""
    push = '<general joint="elbow" biastype="affine" biasprm="50 0 0" forcerange="-50 50"/>'
    assert against(model(("</actuator>", f"{push}</actuator>"))) == []


def test_the_model_is_left_as_it_was() -> None:
    m = model()
    before = m.opt.disableflags, m.opt.enableflags, np.array(m.qpos0)
    judge(m)
    assert (m.opt.disableflags, m.opt.enableflags) == before[:2] and (m.qpos0 == before[2]).all()


def checked(tmp_path: Path, name: str, text: str) -> Check:
    file = tmp_path / name
    file.write_text(text)
    return check(FoundModel(f"here/{name}", "", file))


def test_what_does_not_import_is_one_line_that_names_the_element(tmp_path: Path) -> None:
    with pytest.raises(InputError) as err:
        checked(tmp_path, "arm.xml", SOUND.replace('mass="1"/>', 'mass="heavy"/>'))
    assert "arm.xml" in err.value.line() and "geom" in err.value.line() and "\n" not in err.value.line()


def test_units_and_losses_of_the_import_are_among_the_findings(tmp_path: Path) -> None:
    done = checked(tmp_path, "arm.xml", SOUND.replace('range="-1 1"', 'range="-90 90"'))
    (finding,) = [f for f in done.findings if "degrees" in f.text]
    assert (finding.level, finding.element) == ("warning", "joint shoulder")


@pytest.mark.parametrize("name", ["flyarm", "flycell", "flybase", "flyquad"])
def test_our_own_robots_import(name: str, tmp_path: Path) -> None:
    done = check(find(f"flyball/{name}", Search(tmp_path, environment={})))
    assert done.sound and [f for f in done.findings if f.level == "warning"] == []
