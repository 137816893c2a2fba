"""What a scene needs is found and refused by name; what Newton reads is what MuJoCo compiled."""

import mujoco
import numpy as np
import pytest

from flyball.base import Unsupported
from flyball.engines import engines
from flyball.engines.newton import model as importer
from flyball.engines.newton.engine import NewtonEngine
from flyball.engines.newton.materials import contact_pairs, friction, restitution
from flyball.engines.newton.solvers import SOLVERS
from flyball.scenes import Scene
from flyball.scenes.deformable import Cloth

HINGE = '<body name="{0}" {2}><joint name="{0}" type="hinge" {1}/><geom name="{0}" size=".1" {3}/></body>'


def compiled(body, extra=""):
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{body}</worldbody>{extra}</mujoco>")


@pytest.mark.parametrize(
    ("body", "extra", "feature"),
    [
        (HINGE.format("a", 'armature=".1"', "", ""), "", "armature"),
        (HINGE.format("a", 'frictionloss=".1"', "", ""), "", "frictionloss"),
        (HINGE.format("a", 'limited="true" range="0 1"', "", ""), "", "limit"),
        (HINGE.format("a", 'stiffness="1"', "", ""), "", "spring"),
        (HINGE.format("a", "", 'gravcomp="1"', ""), "", "gravity compensation"),
        (HINGE.format("a", "", "", 'condim="4"') + '<geom name="f" type="plane" size="1 1 1"/>', "",
         "torsional friction"),
        (HINGE.format("a", "", "", 'solref="-100 -1"') + '<geom type="plane" size="1 1 1"/>', "", "soft contact"),
        ('<body name="m" mocap="true"><geom size=".1"/></body>', "", "mocap"),
        (HINGE.format("a", "", "", ""), '<actuator><intvelocity name="u" joint="a" kp="1" actrange="-1 1"/></actuator>',
         "actuator with dynamics, or not of a joint or tendon"),
        (HINGE.format("a", "", "", "") + HINGE.format("b", "", "", ""),
         '<equality><connect name="e" body1="a" body2="b" anchor="0 0 0"/></equality>', "connect equality"),
    ],
    ids=lambda x: x[:24] if " " not in x[:5] else "",
)  # fmt: skip
def test_every_need_is_seen(body, extra, feature):
    assert feature in importer.needs(compiled(body, extra), Scene("s", "", ()))


def test_deformables_are_needs():
    scene = Scene("s", "", (), deformables=(Cloth("flag"),))
    assert importer.needs(compiled(""), scene) == {"cloth": "cloth 'flag'"}


def test_what_a_solver_lacks_is_refused_by_name_before_anything_is_built():
    scene = Scene("s", f"<mujoco><worldbody>{HINGE.format('elbow', '', '', '')}</worldbody></mujoco>", ())
    with pytest.raises(Unsupported, match="hinge .joint 'elbow'.*newton-xpbd|newton-xpbd.*hinge .joint 'elbow'"):
        NewtonEngine("xpbd").open(scene, 1)
    with pytest.raises(Unsupported, match="weather"):
        NewtonEngine("xpbd").open(scene, 1, options={"weather": "rain"})


def test_every_engine_of_the_table_says_what_it_is():
    names = [n for n in engines.names() if n.startswith("newton-")]
    assert names == sorted(f"newton-{s}" for s in SOLVERS)
    for name in names:
        engine = engines.in_process(name)()
        assert engine.name == name and "newton 1." in engine.version
        assert any(level != "unsupported" for level in engine.capabilities.values())


def test_pairs_that_may_touch_are_mujocos():
    """Against MuJoCo itself: spheres at one place, all pairs that it lists as contacts."""
    chain = (
        '<body name="a"><freejoint/><geom name="a" size=".1" contype="3"/>'
        '<body name="b"><joint/><geom name="b" size=".1"/><geom name="b2" size=".1"/>'
        '<body name="c"><joint/><geom name="c" size=".1"/></body></body></body>'
        '<body name="w"><geom name="w" size=".1"/><body name="x"><joint/><geom name="x" size=".1"/></body></body>'
        '<body name="y"><freejoint/><geom name="y" size=".1" contype="2" conaffinity="0"/></body>'
        '<geom name="still" size=".1"/>'
    )
    m = compiled(chain, '<contact><exclude body1="c" body2="x"/></contact>')
    d = mujoco.MjData(m)
    mujoco.mj_forward(m, d)
    seen = {tuple(sorted((int(c.geom[0]), int(c.geom[1])))) for c in d.contact}
    assert set(contact_pairs(m)) == seen and len(seen) > 5


def test_friction_of_a_pair_is_mujocos_although_solvers_mix():
    body = ('<geom name="floor" type="plane" size="1 1 1" friction=".5" priority="1"/>'
            '<body><freejoint/><geom name="a" size=".1" friction=".6"/></body>'
            '<body><freejoint/><geom name="b" size=".1" friction=".5" contype="2"/></body>')  # fmt: skip
    m = compiled(body)
    mu = friction(m, m.geom_friction[:, 0], SOLVERS["steel"])
    for i, j in contact_pairs(m):
        names = {m.geom(i).name, m.geom(j).name}
        want = 0.5 if "floor" in names else 0.6  # the floor's by priority, else the greater
        assert (mu[i] + mu[j]) / 2 == pytest.approx(want)
    vbd = friction(m, m.geom_friction[:, 0], SOLVERS["vbd"])
    assert np.sqrt(vbd[0] * vbd[1]) == pytest.approx(0.5)


def test_friction_that_no_mix_gives_is_refused():
    body = ('<geom name="floor" type="plane" size="1 1 1" friction=".05" priority="1"/>'
            '<body><freejoint/><geom name="a" size=".1" friction="1"/></body>'
            '<body><freejoint/><geom name="b" size=".1" friction="1"/></body>')  # fmt: skip
    m = compiled(body)
    with pytest.raises(Unsupported, match="friction.*floor|friction.*mean of two"):
        friction(m, m.geom_friction[:, 0], SOLVERS["steel"])


def test_restitution_goes_to_both_of_a_pair():
    m = compiled('<geom type="plane" size="1 1 1"/><body><freejoint/><geom size=".1"/></body>')
    np.testing.assert_allclose(restitution(m, np.array([0.0, 0.8]), SOLVERS["steel"]), [0.8, 0.8])
