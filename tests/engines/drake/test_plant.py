"""Plants are what the model says: masses, frames, joints, drives, contacts, as Drake itself sees them."""

import mujoco
import numpy as np
import pytest

pytest.importorskip("pydrake")

from flyball.base import InputError, Unsupported
from flyball.engines import engines
from flyball.engines.drake import DrakeEngine
from flyball.engines.drake.contact import find_pairs, softness
from flyball.scenes import Scene

# everything that can go wrong with frames: turned and shifted bodies, inertias and anchors, two joints on one body,
# a joint whose zero is elsewhere, a fixed body in the chain, armature, a tree with two branches
TREE = """<mujoco><compiler angle="radian"/><option timestep="0.0005" gravity="0.3 -0.2 -9.81"/><worldbody>
<body name="base" pos="0.1 0 1" euler="0.2 -0.1 0.4"><inertial pos="0 0 0" mass="3" diaginertia=".1 .1 .1"/>
 <body name="a" pos="0 0 .1" quat="0.9 0.1 -0.3 0.2">
  <inertial pos=".1 .02 -.05" quat="0.8 0.2 0.4 -0.1" mass="1.3" diaginertia=".02 .03 .015"/>
  <joint name="a1" axis="0 .3 1" pos=".02 0 .01" armature=".05" ref=".4"/>
  <joint name="a2" type="slide" axis="1 0 .2" pos="0 .1 0" damping="2"/>
  <body name="stiff" pos=".2 0 0" euler="0 .5 0"><inertial pos="0 .1 0" mass=".4" diaginertia=".003 .002 .004"/>
   <body name="b" pos="0 0 .2" euler=".3 0 0"><inertial pos="0 0 .1" mass=".7" diaginertia=".01 .012 .004"/>
    <joint name="b" axis="1 0 0" damping=".1" stiffness="3" springref=".2"/></body>
   <body name="c" pos="0 .1 0"><inertial pos=".1 0 0" mass=".2" diaginertia=".001 .002 .002"/>
    <joint name="c" axis="0 1 0"/></body></body></body></body>
</worldbody></mujoco>"""


def opened(model, n=1, **options):
    return DrakeEngine().open(Scene("x", model, ()), n, options=options)


def both(model, n=1):
    return [engines.in_process(name)().open(Scene("x", model, ()), n, threads=1) for name in ("mujoco", "drake")]


def test_mass_matrix_and_gravity_and_centrifugal_forces_are_mujocos():
    m = mujoco.MjModel.from_xml_string(TREE)
    sim = opened(TREE)
    built = sim._worlds[0].built
    order = [built.places[j].v for j in range(m.njnt)]
    rng = np.random.default_rng(0)
    for _ in range(10):
        d = mujoco.MjData(m)
        d.qpos[:], d.qvel[:] = rng.uniform(-1, 1, (2, m.nv))
        mujoco.mj_forward(m, d)
        for j in range(m.njnt):
            name = m.joint(j).name
            sim.place(name, d.qpos[None, j : j + 1])
            sim.push(name, d.qvel[None, j : j + 1])
        context = sim._worlds[0].plant_context
        full = np.zeros((m.nv, m.nv))
        mujoco.mj_fullM(m, d, full)
        np.testing.assert_allclose(built.plant.CalcMassMatrix(context)[np.ix_(order, order)], full, atol=1e-12)
        bias = built.plant.CalcBiasTerm(context) - built.plant.CalcGravityGeneralizedForces(context)
        np.testing.assert_allclose(bias[order], d.qfrc_bias, atol=1e-11)
        for body in ("base", "a", "stiff", "b", "c"):
            seen = sim.read([f"body:{body}.{f}" for f in ("position", "quat", "velocity")])
            np.testing.assert_allclose(seen[f"body:{body}.position"][0], d.body(body).xpos, atol=1e-12)
            assert abs(abs(seen[f"body:{body}.quat"][0] @ d.body(body).xquat) - 1) < 1e-12
            twist = np.zeros(6)
            mujoco.mj_objectVelocity(m, d, mujoco.mjtObj.mjOBJ_XBODY, m.body(body).id, twist, 0)
            np.testing.assert_allclose(seen[f"body:{body}.velocity"][0], twist[[3, 4, 5, 0, 1, 2]], atol=1e-12)


ACTUATORS = ('<position joint="r" kp="3" kv=".1"/>', '<velocity joint="r" kv=".2"/>')


@pytest.mark.parametrize("actuators", [0, 1, 2])
@pytest.mark.parametrize("joint", ["", 'frictionloss=".1"', 'stiffness="2"', 'stiffness="2" frictionloss=".1"'])
def test_everything_on_one_joint_adds_up(joint, actuators):
    """Servos, spring and friction are actuators in Drake, which knows one armature of a joint, whatever drives it."""
    model = f"""<mujoco><option timestep="0.0005" gravity="0 0 0"/><worldbody><body>
    <joint name="r" axis="0 0 1" armature=".05" damping=".02" {joint}/>
    <inertial pos="0 0 0" mass="1" diaginertia=".2 .2 .1"/></body></worldbody><actuator>
    {"".join(ACTUATORS[:actuators])}
    </actuator></mujoco>"""
    seen = []
    for sim in both(model):
        sim.push("r", np.array([[2.0]]))
        controls = np.full((1, 2000, sim.layout.nu), 0.5)
        seen.append(sim.rollout(controls, 1, {"joint:r.position": "last"})["joint:r.position"][0, :, 0])
    assert np.ptp(seen[0]) > 0.2
    np.testing.assert_allclose(seen[1], seen[0], atol=0.004)  # MuJoCo's friction creeps where Drake's holds


def test_a_fixed_body_without_mass_keeps_its_inertia():
    model = """<mujoco><worldbody><body><joint name="r" axis="0 0 1"/>
    <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    <body pos="0 0 .1"><inertial pos="0 0 0" mass="0" diaginertia=".1 .1 .1"/></body></body></worldbody></mujoco>"""
    sim = opened(model)
    matrix = sim._worlds[0].built.plant.CalcMassMatrix(sim._worlds[0].plant_context)
    np.testing.assert_allclose(matrix, 1.1, rtol=1e-8)


def test_a_passive_second_is_mujocos_to_the_order_of_the_step():
    ends = []
    for sim in both(TREE):
        seen = sim.step(np.zeros((1, 2000, 0)), {f"joint:{j}.position": "last" for j in ("a1", "a2", "b", "c")})
        ends.append(np.concatenate([x[0] for x in seen.values()]))
    assert np.abs(ends[0] - [0.4, 0, 0, 0]).max() > 0.5
    np.testing.assert_allclose(ends[1], ends[0], atol=0.01)  # two first-order steps of 0.5 ms, with different terms


def test_a_free_body_tumbles_alike():
    model = """<mujoco><option timestep="0.0002"/><worldbody><body pos="0 0 5" euler="20 30 40"><freejoint name="b"/>
    <inertial pos=".1 -.05 .02" quat=".9 .1 .2 .3" mass="2" diaginertia=".01 .02 .025"/></body></worldbody></mujoco>"""
    ends = []
    for sim in both(model):
        sim.push("b", np.array([[1.0, -0.5, 2, 3, 1, -2]]))
        seen = sim.step(np.zeros((1, 2500, 0)), {"joint:b.position": "last", "joint:b.velocity": "last"})
        ends.append(np.concatenate([x[0] for x in seen.values()]))
    np.testing.assert_allclose(ends[1], ends[0], atol=2e-3)


SERVO = """<mujoco><compiler angle="radian"/><option timestep="0.001" gravity="0 0 0"/><worldbody><body>
<joint name="r" axis="0 0 1" ref=".3"/><inertial pos="0 0 0" mass="1" diaginertia=".2 .2 .1"/></body></worldbody>
<tendon><fixed name="t"><joint joint="r" coef="-2"/></fixed></tendon><actuator>{}</actuator></mujoco>"""


@pytest.mark.parametrize(
    "actuator",
    [
        '<position joint="r" kp="20" kv="2"/>',
        '<position joint="r" kp="5" kv="1" gear="2"/>',
        '<position tendon="t" kp="5" kv=".5"/>',
        '<position joint="r" kp="20" kv="2" forcerange="-1 3"/>',
        '<velocity joint="r" kv="3"/>',
        '<motor joint="r" gear="3" ctrlrange="-.1 .1"/>',
        '<motor tendon="t" forcerange="-.2 .3"/>',
        '<general joint="r" gainprm="7" biastype="affine" biasprm=".5 -10 -1" ctrlrange="0 .4"/>',
        '<intvelocity joint="r" kp="1" actrange="-1 1"/>',
    ],
)
def test_an_actuator_does_what_it_does_in_mujoco(actuator):
    model = SERVO.format(actuator.replace(" ", ' name="u" ', 1)).replace("0.001", "0.0002")
    if "intvelocity" in actuator:
        with pytest.raises(Unsupported, match=r"actuator u: Drake has no actuator dynamics"):
            opened(model)
        return
    sims = both(model)
    controls = np.where(np.arange(2000) < 1250, 1.2, -0.6)[None, :, None]
    reads = {"joint:r.position": "last", "actuator:u.force": "last", "joint:r.velocity": "last"}
    mj, dr = (sim.rollout(controls, 1, reads) for sim in sims)
    assert np.ptp(mj["joint:r.position"]) > 0.05
    np.testing.assert_allclose(dr["joint:r.position"], mj["joint:r.position"], atol=0.01)
    jumps = np.abs(np.diff(mj["actuator:u.force"][0, :, 0])) > 0.3  # of the control: one substep apart is much there
    quiet = ~np.convolve(jumps, np.ones(5), "full")[: len(jumps)].astype(bool)
    force = [x["actuator:u.force"][0, 1:, 0][quiet] for x in (mj, dr)]
    np.testing.assert_allclose(force[1], force[0], atol=0.15)


def test_stiff_servos_are_solved_implicitly():
    """Damping times step over inertia is 4, where an explicit step bears 2: it goes to its target and stays there."""
    sim = opened(SERVO.format('<position name="u" joint="r" kp="4e4" kv="4e2"/>'))
    q = sim.rollout(np.full((1, 300, 1), 1.0), 1, {"joint:r.position": "last"})["joint:r.position"][0, :, 0]
    assert (np.diff(q) >= -1e-9).all()
    np.testing.assert_allclose(q[-100:], 1.0, atol=1e-4)


def test_dry_friction_holds_below_its_torque_and_brakes_above():
    model = SERVO.format('<motor name="u" joint="r"/>').replace('axis="0 0 1"', 'axis="0 0 1" frictionloss=".5"')
    sim = opened(model, 3)
    controls = np.tile(np.array([0.4, -0.4, 0.8])[:, None, None], (1, 500, 1))
    v = sim.step(controls, {"joint:r.velocity": "last"})["joint:r.velocity"][:, 0]
    assert np.abs(v[:2]).max() < 1e-3
    np.testing.assert_allclose(v[2], (0.8 - 0.5) / 0.1 * 0.5, rtol=1e-3)


def test_a_joint_stops_at_its_limit():
    model = SERVO.format('<motor name="u" joint="r"/>').replace("ref", 'range="-.2 1" ref')
    sim = opened(model)
    for push, limit in ((1.0, 1.0), (-1.0, -0.2)):
        q = sim.step(np.full((1, 3000, 1), push), {"joint:r.position": "last"})["joint:r.position"][0, 0]
        assert abs(q - limit) < 1e-3


def test_equalities_hold():
    model = """<mujoco><compiler angle="radian"/><option timestep="0.001"/><worldbody>
    <body name="a" pos="0 0 1"><joint name="a" axis="0 1 0"/><geom type="capsule" size=".02" fromto="0 0 0 .3 0 0"/>
    </body><body name="b" pos="0 .5 1"><joint name="b" axis="0 1 0"/>
    <geom type="capsule" size=".02" fromto="0 0 0 .2 0 0"/></body>
    <body name="c" pos="1 0 1"><freejoint name="c"/><geom size=".05"/></body>
    <body name="d" pos="2 0 1" euler="0 .3 0"><freejoint name="d"/><geom type="box" size=".05 .02 .03"/></body>
    </worldbody><equality><joint joint1="b" joint2="a" polycoef=".1 -2 0 0 0"/>
    <connect body1="c" anchor="0 0 .2"/><weld body1="d"/></equality></mujoco>"""
    sim = opened(model)
    seen = sim.step(np.zeros((1, 500, 0)), {f"{k}": "last" for k in ("joint:a.position", "joint:b.position",
                                             "body:c.position", "body:c.quat", "joint:d.position")})  # fmt: skip
    a, b = seen["joint:a.position"][0, 0], seen["joint:b.position"][0, 0]
    assert abs(a) > 0.2 and abs(b - (0.1 - 2 * a)) < 1e-6
    np.testing.assert_allclose(seen["body:c.position"][0], [1, 0, 1], atol=1e-4)  # it hangs straight below its anchor
    np.testing.assert_allclose(seen["joint:d.position"][0, :3], [2, 0, 1], atol=1e-4)


def test_friction_belongs_to_the_pair_not_to_the_body():
    """A box on two floors: on each it slides as MuJoCo's mixing says, which no single friction of the box could do."""
    model = """<mujoco><option timestep="0.002" cone="elliptic" gravity="3 0 -9.81"/><worldbody>
    <geom name="slick" type="box" size="9 1 .1" pos="0 0 -.1" friction=".1" priority="1"/>
    <geom name="rough" type="box" size="9 1 .1" pos="0 3 -.1" friction=".05"/>
    {}</worldbody></mujoco>""".format(
        "".join(
            f'<body name="b{y}" pos="0 {y} .05"><freejoint name="b{y}"/>'
            '<geom type="box" size=".1 .1 .05" mass="1" friction=".2"/></body>'
            for y in (0, 3)
        )
    )
    sim = opened(model)
    v = sim.step(np.zeros((1, 500, 0)), {"joint:b0.velocity": "last", "joint:b3.velocity": "last"})
    np.testing.assert_allclose(v["joint:b0.velocity"][0, 0], 3 - 0.1 * 9.81, rtol=0.02)
    np.testing.assert_allclose(v["joint:b3.velocity"][0, 0], 3 - 0.2 * 9.81, rtol=0.02)


def test_pairs_are_those_that_mujoco_would_let_collide():
    model = """<mujoco><worldbody><geom type="plane" size="1 1 1"/>
    <body name="a"><joint/><geom size=".2"/><body name="b" pos=".1 0 0"><joint axis="1 0 0"/><geom size=".2"/>
     <body name="w"><geom size=".2"/><body name="c"><joint axis="0 1 0"/><geom size=".2"/>
      <geom size=".1" contype="2" conaffinity="4"/></body></body></body></body>
    <body name="d"><freejoint/><geom size=".2" contype="4" conaffinity="1"/></body>
    <body name="e"><geom size=".2"/></body></worldbody>
    <contact><exclude body1="a" body2="c"/><pair geom1="{}" geom2="{}" condim="1"/></contact></mujoco>"""
    model = model.replace("{}", "x", 1).replace("{}", "y", 1)
    model = model.replace('<body name="a"><joint/><geom', '<body name="a"><joint/><geom name="x"', 1)
    model = model.replace('<joint axis="1 0 0"/><geom', '<joint axis="1 0 0"/><geom name="y"', 1)
    m = mujoco.MjModel.from_xml_string(model)
    d = mujoco.MjData(m)
    mujoco.mj_forward(m, d)  # all of them overlap
    found = {frozenset((p.first, p.second)) for p in find_pairs(m, lambda *a: None)}
    assert found == {frozenset((int(c.geom1), int(c.geom2))) for c in d.contact} and len(found) > 5
    free = {p.surface.friction for p in find_pairs(m, lambda *a: None) if (p.first, p.second) == (1, 2)}
    assert free == {0.0}  # condim 1 has none


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("condim", ('name="g"', 'name="g" condim="4"')),
        ("margin", ('name="g"', 'name="g" margin=".01"')),
        ("fluid", ("<option", '<option density="1000"')),
        ("ball joint", ('<freejoint name="b"/>', '<joint type="ball"/>')),
        ("partial gravity compensation", ('name="b" pos', 'name="b" gravcomp=".5" pos')),
        (
            "actuator with several controls or outputs",
            ("</body></worldbody>", '<site name="s"/></body><site name="t"/></worldbody><actuator>'
             '<orientation name="o" site="s" refsite="t"/></actuator>'),
        ),
        ("armature", ('<freejoint name="b"/>', '<joint type="free" armature=".1"/>')),
    ],
)  # fmt: skip
def test_what_drake_lacks_is_refused_by_name(what, change):
    model = """<mujoco><option timestep="0.002"/><worldbody><geom name="floor" type="plane" size="1 1 1"/>
    <body name="b" pos="0 0 .2"><freejoint name="b"/><geom name="g" size=".1"/></body></worldbody></mujoco>"""
    opened(model)
    with pytest.raises(Unsupported, match=f"Drake has no {what}") as err:
        opened(model.replace(*change))
    assert "\n" not in err.value.line()
    if what in ("condim", "margin"):  # what can be done without
        assert f"ignore = {what!r}" in err.value.line()
        opened(model.replace(*change), ignore=what)


def test_a_model_that_drake_does_not_accept_is_one_line():
    model = '<mujoco><worldbody><body><joint name="j"/><geom name="g" size=".1"/></body></worldbody></mujoco>'
    sim = opened(model)
    with pytest.raises(InputError, match="damping"):
        sim.set({"joint:j.damping": np.array([-1.0])})
    assert sim.get("joint:j.damping")[0, 0] == 0  # and nothing is set


def test_softness_is_mujocos_static_sag():
    """A ball on a floor sinks as deep as in MuJoCo: that is what the stiffness under load is taken from."""
    model = """<mujoco><option timestep="0.002"/><worldbody><geom type="plane" size="1 1 1" solref=".02 1"/>
    <body name="b" pos="0 0 .1"><freejoint name="b"/>
    <geom size=".1" mass="2" solref=".02 1" solimp=".95 .95 .001"/></body></worldbody></mujoco>"""
    model = model.replace('solref=".02 1"/>', 'solref=".02 1" solimp=".95 .95 .001"/>', 1)
    depth = [
        0.1 - s.step(np.zeros((1, 1000, 0)), {"body:b.position": "last"})["body:b.position"][0, 2] for s in both(model)
    ]
    np.testing.assert_allclose(depth[1], depth[0], rtol=0.02)
    assert softness(np.array([-2500.0, -50.0]), 0.75, 0.002) == pytest.approx((100.0, 0.5))
