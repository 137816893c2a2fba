"""Drake keeps the engine contract and the laws, and the tasks' own experts succeed on it."""

import numpy as np
import pytest

pytest.importorskip("pydrake")

from flyball.base import InputError, Unsupported
from flyball.engines import engines
from flyball.engines.card import LAWS, examine
from flyball.engines.drake import DrakeEngine, build
from flyball.engines.testing import check_engine
from flyball.scenes import Scene
from flyball.tasks import tasks
from flyball.tasks.world import World

CHEAP = (
    "free fall", "pendulum, period", "torque-free precession", "floating base", "momentum", "sliding", "rolling",
    "servo, step", "servo, settling", "servo, gravity", "gravity torque", "mass matrix", "four-bar", "joint limit",
    "fixed base", "import", "batch", "save and restore", "reading", "time of reads", "portable state", "failing world",
)  # fmt: skip
RESTING = """<mujoco><option timestep="0.002"/><worldbody><geom name="floor" type="plane" size="1 1 1"/>
<body name="box" pos="0 0 .05"><freejoint name="box"/><geom name="box" type="box" size=".05 .05 .05" mass=".4"/>
<site name="s" type="box" size=".06 .06 .06"/><site name="corner" pos=".05 .05 .05"/></body></worldbody>
<sensor><touch name="t" site="s"/><touch name="high" site="corner"/><framepos name="p" objtype="site" objname="corner"/>
<framequat name="q" objtype="body" objname="box"/><gyro name="g" site="corner"/><accelerometer name="a" site="s"/>
<velocimeter name="v" site="corner"/></sensor></mujoco>"""


def test_it_keeps_the_contract():
    check_engine(DrakeEngine())


def test_it_keeps_the_laws_that_importers_break():
    laws = [law for law in LAWS if law.name in CHEAP]
    assert len(laws) == len(CHEAP)
    assert {m.law: m.note for m in examine(DrakeEngine(), laws).marks if m.result != "passed"} == {}


def test_servo_damping_that_is_lost_is_noticed(monkeypatch):
    read = build.read_drives

    def careless(*args):
        drives = read(*args)
        drives.servos = [s._replace(damping=0.0) for s in drives.servos]
        return drives

    monkeypatch.setattr(build, "read_drives", careless)
    marks = examine(DrakeEngine(), [law for law in LAWS if law.name == "servo, step"]).marks
    assert marks[0].result == "failed"


@pytest.mark.parametrize("name", ["lift-fragile-v1", "slide-puck-v1"])
def test_experts_succeed_as_they_do_on_mujoco(name):
    task, n = tasks.load(name), 2
    values = task.scene.nominal(n) | task.draw_reality(np.random.default_rng(3), n)
    signals = []
    for engine in ("mujoco", "drake"):
        world = World(task, n, engine=engine)
        done = world.run(task.expert(task.told(values)), values, list(range(n)))
        assert [j.outcome for j in done.judge(task)] == ["success"] * n and world.simulation.status().all()
        signals.append(done.signals)
    # until something is touched they part by less than a substep of 4 ms at the joints' greatest speed of 4 rad/s
    apart = np.abs(signals[0]["joint.position"] - signals[1]["joint.position"])[:, :6]
    assert 0 < apart.max() < 0.016


def test_sensors_and_contacts_are_read_as_mujoco_reads_them():
    names = ["sensor:t", "sensor:high", "sensor:p", "sensor:q", "sensor:g", "sensor:v", "body:box.velocity",
             "contact:world|box.wrench", "contact:box|world.wrench", "site:corner.position"]  # fmt: skip
    seen = []
    for engine in ("mujoco", "drake"):
        sim = engines.in_process(engine)().open(Scene("resting", RESTING, ()), 1, threads=1)
        sim.push("box", np.array([[0.0, 0, 0, 0, 0, 1.0]]))
        sim.step(np.zeros((1, 500, 0)))
        resting = sim.read(names[:2] + names[7:9])
        sim.place("box", np.array([[0, 0, 0.5, 0.9, 0.1, 0.2, 0.3]]) / np.array([1, 1, 1, *[np.sqrt(0.95)] * 4]))
        sim.push("box", np.array([[0.3, -0.2, 0.1, 1.0, -2.0, 0.5]]))
        seen.append((resting, sim.read(names)))
    for mine, other in zip(*seen, strict=True):
        for name, x in mine.items():
            np.testing.assert_allclose(other[name], x, rtol=0.01, atol=2e-3, err_msg=name)
    assert seen[1][0]["sensor:t"][0, 0] == pytest.approx(0.4 * 9.81, rel=1e-3) and seen[1][0]["sensor:high"] == 0
    with pytest.raises(Unsupported, match="accelerometer"):
        sim.read(["sensor:a"])


def test_a_field_acts_as_if_the_model_had_been_authored_with_it():
    sim = DrakeEngine().open(Scene("resting", RESTING, ()), 3)
    fields = {
        "body:box.mass": np.array([0.2, 0.4, 0.8]),
        "geom:box.size_scale": np.array([0.5, 1.0, 2.0]),
        "world:gravity": np.array([[0, 0, -9.81], [0, 0, -1.6], [2.0, 0, -9.81]]),
        "geom:box.friction": np.array([0.1, 1.0, 0.05]),
        "geom:floor.friction": np.array([0.1, 0.1, 0.1]),
    }
    sim.set(fields)
    for name, x in fields.items():
        np.testing.assert_array_equal(sim.get(name)[:, : x.reshape(3, -1).shape[1]], x.reshape(3, -1), name)
    sim.place("box", np.array([[0, 0, 0.05 * s, 1, 0, 0, 0] for s in (0.5, 1, 2)]))
    seen = sim.step(np.zeros((3, 500, 0)), {"body:box.position": "last", "contact:world|box.wrench": "last"})
    np.testing.assert_allclose(seen["body:box.position"][:, 2], [0.025, 0.05, 0.1], atol=1e-3)
    force = seen["contact:world|box.wrench"]
    np.testing.assert_allclose(force[:, 2], [0.2 * 9.81, 0.4 * 1.6, 0.8 * 9.81], rtol=1e-3)
    np.testing.assert_allclose(force[:, 0], [0, 0, -0.1 * 0.8 * 9.81], atol=0.01)  # the greater friction counts
    np.testing.assert_allclose(seen["body:box.position"][2, 0], (2 - 0.981) / 2, rtol=0.02)


def test_a_mesh_rests_on_its_convex_hull():
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    faces = "f 1 2 4 3\nf 5 7 8 6\nf 1 5 6 2\nf 3 4 8 7\nf 1 3 7 5\nf 2 6 8 4\n"
    cube = "".join(f"v {x / 20} {y / 20} {z / 20}\n" for x, y, z in corners) + faces
    model = """<mujoco><asset><mesh name="m" file="cube.obj"/></asset><worldbody><geom type="plane" size="1 1 1"/>
    <body name="b" pos="0 0 .06"><freejoint name="b"/><geom type="mesh" mesh="m" mass="2"/></body>
    </worldbody></mujoco>"""
    scene = Scene("mesh", model, (), assets={"cube.obj": cube.encode()})
    seen = (
        DrakeEngine()
        .open(scene, 1)
        .step(np.zeros((1, 500, 0)), {"body:b.position": "last", "contact:world|b.wrench": "last"})
    )
    np.testing.assert_allclose(seen["body:b.position"][0], [0, 0, 0.05], atol=1e-3)
    assert seen["contact:world|b.wrench"][0, 2] == pytest.approx(2 * 9.81, rel=1e-3)


def test_worlds_with_equal_fields_share_a_diagram():
    sim = DrakeEngine().open(Scene("resting", RESTING, ()), 4)
    assert len({id(w.built) for w in sim._worlds}) == 1
    sim.set({"body:box.mass": np.array([0.2, 0.4, 0.2, 0.3])})
    assert len({id(w.built) for w in sim._worlds}) == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cone": "pyramidal"}, "cone elliptic"),
        ({"contact": "tamsi"}, "lagged | similar | sap"),
        ({"ignore": "gravity"}, "condim"),
        ({"timestep": -1.0}, "(0, 0.1] s"),
    ],
)
def test_options_that_it_lacks_are_refused(options, text):
    with pytest.raises(Unsupported) as err:
        DrakeEngine().open(Scene("resting", RESTING, ()), 1, options=options)
    assert text in err.value.line() and "\n" not in err.value.line()


@pytest.mark.parametrize("scheme", ["sap", "lagged", "similar"])
def test_any_of_drakes_contact_approximations_can_be_chosen(scheme):
    sim = DrakeEngine().open(Scene("resting", RESTING, ()), 1, options={"contact": scheme, "timestep": 0.001})
    assert sim.timestep == 0.001
    force = sim.step(np.zeros((1, 300, 0)), {"sensor:t": "last"})["sensor:t"][0, 0]
    assert force == pytest.approx(0.4 * 9.81, rel=0.01)


def test_values_that_do_not_fit_are_one_line():
    sim = DrakeEngine().open(Scene("resting", RESTING, ()), 2)
    for call in (
        lambda: sim.place("box", np.zeros((3, 7))),
        lambda: sim.push("box", np.full((2, 6), np.nan)),
        lambda: sim.restore(np.zeros((2, 3))),
        lambda: sim.step(np.zeros((2, 5, 1))),
        lambda: sim.set({"geom:box.restitution": np.ones(2)}),
        lambda: sim.get("body:nobody.mass"),
    ):
        with pytest.raises(InputError) as err:
            call()
        assert "\n" not in err.value.line() and "engine mujoco" not in err.value.line()
