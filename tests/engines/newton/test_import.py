"""What a scene needs is found and refused by name; what Newton reads is what MuJoCo compiled."""

import mujoco
import numpy as np
import pytest

from flyball.base import NotPossible, Unsupported
from flyball.engines import engines, traits
from flyball.engines.newton import model as importer
from flyball.engines.newton.engine import NewtonEngine
from flyball.engines.newton.materials import contact_pairs, friction, meetings, restitution
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
         "actuator with dynamics, several outputs, or not of a joint or tendon"),
        ('<body name="a"><joint name="j" type="ball"/><geom size=".1"/></body>' + HINGE.format("b", "", "", ""),
         '<actuator><orientation name="u" joint="j"/><motor name="v" joint="b"/></actuator>',
         "actuator with dynamics, several outputs, or not of a joint or tendon"),
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
        assert traits(engine).precision == "single" and "compile" in traits(engine).warm_up


def test_only_ports_of_mujoco_share_a_formulation():
    votes = {}
    for name in engines.names():
        try:
            votes.setdefault(traits(engines.in_process(name)()).formulation, []).append(name)
        except NotPossible:  # Drake, where it is not installed
            continue
    assert [v for v in votes.values() if len(v) > 1] == [["mujoco", "mujoco-warp"]]


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


def mixed(m, met, x, how=lambda a, b: (a + b) / 2):
    """What a solver makes of the coefficients of shapes: geoms -> coefficient."""
    return {tuple(sorted(met.geoms[[i, j]])): how(x[i], x[j]) for i, j in met.pairs}


def of_pair(m, own, a, b):
    """MuJoCo's rule: the coefficient of higher priority, else the greater."""
    rank = m.geom_priority
    return own[a] if rank[a] > rank[b] else own[b] if rank[b] > rank[a] else max(own[a], own[b])


ROUGH = (
    '<geom name="floor" type="plane" size="1 1 1" friction=".05" priority="1"/>'
    '<body><freejoint/><geom name="a" size=".1" friction="1"/></body>'
    '<body><freejoint/><geom name="b" size=".1" friction=".3"/></body>'
    '<body><freejoint/><geom name="c" size=".1" friction=".7" priority="2"/></body>'
    '<body><freejoint/><geom name="d" size=".1" friction=".02"/></body>'
)


@pytest.mark.parametrize("solver", ["steel", "xpbd", "featherstone"])
def test_friction_of_a_pair_is_mujocos_although_solvers_mix(solver):
    """With the model's own values and with others, as worlds have them."""
    m = compiled(ROUGH)
    met = meetings(m, SOLVERS[solver])
    rng = np.random.default_rng(0)
    for own in (m.geom_friction[:, 0], rng.uniform(0.02, 2, m.ngeom), rng.uniform(0.02, 2, m.ngeom)):
        found = mixed(m, met, friction(m, met, own, SOLVERS[solver]))
        assert found.keys() == set(contact_pairs(m)) and len(found) == 10
        for (a, b), mu in found.items():
            assert mu == pytest.approx(of_pair(m, own, a, b), abs=1e-6)


def test_geoms_that_are_alike_are_one_shape_each():
    m = compiled(ROUGH.replace("priority", "group"))
    m.geom_friction[:] = 0.4
    met = meetings(m, SOLVERS["steel"])
    assert met.geoms.tolist() == list(range(m.ngeom)) and {tuple(p) for p in met.pairs.tolist()} == set(
        contact_pairs(m)
    )


def test_the_solver_for_cloth_multiplies():
    body = ROUGH.replace("</body><body>", "").replace("<freejoint/>", "", 3)
    m = compiled('<geom name="floor" type="plane" size="1 1 1" friction=".3"/>' + body[body.index("<body>") :])
    met = meetings(m, SOLVERS["vbd"])
    assert len(met.geoms) == m.ngeom
    own = m.geom_friction[:, 0]
    for (a, b), mu in mixed(m, met, friction(m, met, own, SOLVERS["vbd"]), lambda a, b: np.sqrt(a * b)).items():
        assert mu == pytest.approx(of_pair(m, own, a, b))


def test_friction_that_no_mix_gives_is_refused():
    """Geoms that are alike in the model are one shape each; in a world of its own each has another friction."""
    m = compiled(ROUGH.replace("priority", "group"))
    m.geom_friction[:] = 0.4
    with pytest.raises(Unsupported, match=r"friction.*of the geoms \w+ and \w+: the solver takes the mean of two"):
        friction(m, meetings(m, SOLVERS["steel"]), np.array([0.1, 0.2, 0.5, 0.7, 1.0]), SOLVERS["steel"])


def test_restitution_goes_to_both_of_a_pair():
    m = compiled('<geom type="plane" size="1 1 1"/><body><freejoint/><geom size=".1"/></body>')
    met = meetings(m, SOLVERS["steel"])
    np.testing.assert_allclose(restitution(m, met, np.array([0.0, 0.8]), SOLVERS["steel"]), [0.8, 0.8])
