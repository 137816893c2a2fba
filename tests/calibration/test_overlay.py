import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base import Refused
from flyball.calibration.calibration import Calibration, FoldError, HeldOut, describe, scene_digest
from flyball.calibration.overlay import overlay, write_overlay
from flyball.engines import engines
from flyball.scenes import Bind, Parameter, Scene, load_variations

# Every way in which MJCF may say a number somewhere else than at the element: default classes, shortcuts of actuators,
# masses from shapes, full and diagonal inertias, limits without a flag.
MODEL = """
<mujoco model="tricky">
  <compiler angle="degree" autolimits="false"/>
  <default>
    <joint damping="0.3" armature="0.02"/>
    <default class="soft"><joint damping="0.7 0.1" frictionloss="0.05"/><geom friction="0.6 0.01 0.001"/>
      <position kp="30" kv="2"/></default>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" class="soft"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.3" size=".03" density="800"/>
      <body name="fore" pos="0 0 -.3">
        <joint name="elbow" axis="0 1 0" armature="0.05"/>
        <inertial pos="0 0 -.1" mass=".8" fullinertia=".01 .012 .004 .001 0 .0005"/>
        <geom name="tip" type="sphere" pos="0 0 -.25" size=".02" class="soft"/>
        <body name="hand" pos="0 0 -.25">
          <joint name="wrist" axis="1 0 0"/>
          <inertial pos="0 0 -.05" euler="30 0 0" mass=".3" diaginertia=".001 .0012 .0004"/>
        </body>
      </body>
    </body>
    <body name="box" pos="1 0 .1"><freejoint name="box"/><geom name="box" type="box" size=".1 .1 .1"/></body>
  </worldbody>
  <tendon><fixed name="drive" actuatorfrclimited="true" actuatorfrcrange="-9 9">
    <joint joint="wrist" coef="1"/></fixed></tendon>
  <actuator>
    <position name="shoulder" joint="shoulder" class="soft" ctrllimited="true" ctrlrange="-90 90"
     forcelimited="true" forcerange="-50 50"/>
    <position name="elbow" joint="elbow" kp="50" dampratio="0.7"/>
    <motor name="wrist" joint="wrist" gear="2" forcelimited="true" forcerange="-3 3"/>
    <velocity name="spin" joint="wrist" kv="0.4"/>
    <general name="line" tendon="drive" gaintype="affine" gainprm="1 0.1" biastype="affine" biasprm="0 -2 -0.3"/>
  </actuator>
</mujoco>
"""
# path, unit, value, binds; and what the fields must be then, by hand.
CASES = (
    ("shoulder.damping", "N m s/rad", 0.21, (Bind("joint:shoulder.damping"),)),
    ("shoulder.friction", "N m", 0.123456789012345, (Bind("joint:shoulder.frictionloss"),)),
    ("elbow.armature", "kg m^2", 1.7, (Bind("joint:elbow.armature", "scale"),)),
    ("wrist.damping", "N m s/rad", 0.04, (Bind("joint:wrist.damping", "add"),)),
    ("shoulder.gain", "", 1.3, (Bind("actuator:shoulder.gain", "scale"),)),
    ("shoulder.limit", "N m", 7.5, (Bind("actuator:shoulder.force_limit"),)),
    ("elbow.gain", "", 0.8, (Bind("actuator:elbow.gain", "scale"),)),
    ("wrist.gain", "", 0.9, (Bind("actuator:wrist.gain", "scale"), Bind("actuator:wrist.force_limit", "scale"))),
    ("spin.gain", "", 1.1, (Bind("actuator:spin.gain", "scale"), Bind("actuator:spin.damping", "scale"))),
    ("line.slope", "", 0.25, (Bind("actuator:line.position_gain"),)),
    ("line.limit", "N", 4.0, (Bind("tendon:drive.force_limit"),)),
    ("upper.mass", "kg", 1.5, (Bind("body:upper.mass"),)),
    ("fore.mass", "", 1.25, (Bind("body:fore.mass", "scale"),)),
    ("hand.mass", "kg", 0.2, (Bind("body:hand.mass", "add"),)),
    ("tip.friction", "", 0.37, (Bind("geom:tip.friction"),)),
    ("box.stiffness", "1/s^2", -2500.0, (Bind("geom:box.solref"),)),
    ("box.dissipation", "1/s", -90.0, (Bind("geom:box.solref", "set", 1),)),
)
EXPECTED = {
    "joint:shoulder.damping": [0.21],
    "joint:shoulder.frictionloss": [0.123456789012345],
    "joint:elbow.armature": [0.05 * 1.7],
    "joint:wrist.damping": [0.3 + 0.04],
    "actuator:shoulder.gain": [39.0],
    "actuator:shoulder.damping": [2.6],
    "actuator:shoulder.force_limit": [7.5],
    "actuator:elbow.gain": [40.0],
    "actuator:wrist.gain": [0.9],
    "actuator:wrist.force_limit": [2.7],
    "actuator:spin.gain": [0.44],
    "actuator:spin.damping": [0.44],
    "actuator:line.position_gain": [0.25],
    "actuator:line.gain": [1.0],
    "tendon:drive.force_limit": [4.0],
    "body:upper.mass": [1.5],
    "body:fore.mass": [1.0],
    "body:hand.mass": [0.5],
    "geom:tip.friction": [0.37, 0.01, 0.001],
    "geom:box.solref": [-2500.0, -90.0],
    # what nobody asked to change
    "joint:elbow.damping": [0.3],
    "joint:wrist.armature": [0.02],
}
OUTSIDE = (
    Parameter("arm.delay_s", "s", 0.0, 0.0, 0.1, binds=(Bind("command.delay"),)),
    Parameter("elbow.offset", "rad", 0.0, -0.1, 0.1, binds=(Bind("sensor:joint_states.position.bias", "set", 1),)),
    Parameter("elbow.load", "", 0.0, 0.0, 1.0, binds=(Bind("joint:elbow.load_friction", "add"),)),
    Parameter("box.rebound", "", 0.2, 0.0, 0.9, binds=(Bind("geom:box.restitution"),)),
)
SCENE = Scene(
    "tricky", MODEL,
    (*(Parameter(path, unit, x, min(2 * x, 0), abs(2 * x), binds=b) for path, unit, x, b in CASES), *OUTSIDE),
)  # fmt: skip
BEST = (*(x for _, _, x, _ in CASES), 0.012, -0.03, 0.25)


def calibration(scene=SCENE, best=BEST):
    paths = tuple(p.path for p in scene.parameters)[: len(best)]
    best = np.array(best, float)
    samples = best * np.random.default_rng(0).uniform(0.97, 1.03, (12, len(best)))
    rows = describe([scene.parameter(p) for p in paths], samples)
    held = HeldOut("rad", (FoldError("a", 0.2, 0.05, 0.04, 0.9),), 0.2, 0.05, 0.04, 0.06, 0.9, 1.0, 0.01, 0.001)
    return Calibration("tricky", scene_digest(scene), paths, samples, best, rows, held, "improved", (), 0, "mujoco 3",
                       1, ("ab",))  # fmt: skip


def opened(mjcf):
    return engines.load("mujoco")().open(Scene("again", mjcf, ()), 1, threads=1)


def fields_of(mjcf):
    sim = opened(mjcf)
    return {name: sim.get(name)[0] for name in EXPECTED}


def assert_expected(found):
    for name, value in EXPECTED.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_the_patched_mjcf_compiles_to_the_best_fit_whatever_way_the_model_says_a_number():
    made = overlay(calibration(), SCENE)
    assert_expected(fields_of(made.mjcf))
    sim = opened(MODEL)
    sim.set({k: np.array([v]) for k, v in EXPECTED.items() if k.endswith(".mass")})
    again = opened(made.mjcf)
    for body in ("upper", "fore", "hand", "box"):  # inertia goes with mass, and nothing else moves
        for fact in ("inertia", "center_of_mass"):
            field = f"body:{body}.{fact}"
            np.testing.assert_allclose(again.get(field), sim.get(field), rtol=1e-9, atol=1e-12, err_msg=field)


def test_it_moves_as_the_engine_moves_with_the_same_fields_set():
    made = overlay(calibration(), SCENE)
    sims = opened(MODEL), opened(made.mjcf)
    sims[0].set({k: v[None] for k, v in made.fields.items()})
    controls = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 200, 5))
    tracks = [s.rollout(controls, 10, {"joint:elbow.position": "last", "joint:wrist.position": "last"}) for s in sims]
    for name, track in tracks[0].items():
        assert np.ptp(track) > 0.01
        np.testing.assert_allclose(tracks[1][name], track, atol=1e-9)


def test_changes_name_every_attribute_and_nothing_else_changed():
    made = overlay(calibration(), SCENE)
    named = {(c.element, c.attribute): (c.before, c.after) for c in made.changes}
    assert named["joint shoulder", "damping"] == ("", "0.21")
    assert named["actuator elbow", "kp"] == ("50", "40")
    assert named["actuator elbow", "dampratio"] == ("0.7", "")
    assert named["body hand", "mass"] == (".3", "0.5")
    assert not any(e in ("geom floor", "joint elbow") and a == "damping" for e, a in named)


def test_what_no_model_has_a_place_for_is_listed_with_its_value_and_the_reason():
    made = overlay(calibration(), SCENE)
    outside = {u.parameter: u for u in made.unplaced}
    assert set(outside) == {p.path for p in OUTSIDE}
    assert outside["arm.delay_s"].value == 0.012 and "command" in outside["arm.delay_s"].reason
    assert outside["elbow.offset"].target == "sensor:joint_states.position.bias"
    assert outside["elbow.load"].value == 0.25 and "law" in outside["elbow.load"].reason
    assert "rebound" in outside["box.rebound"].reason
    text = "\n".join(made.lines())
    for path in outside:
        assert path in text


def test_a_number_that_the_compiler_overrides_is_listed_and_not_claimed():
    model = MODEL.replace('autolimits="false"', 'autolimits="false" boundmass="2"')
    scene = replace(SCENE, model=model)
    made = overlay(calibration(scene), scene)
    (found,) = (u for u in made.unplaced if u.parameter == "upper.mass")
    assert found.value == 1.5 and "compiler" in found.reason
    assert "body:upper.mass" not in made.fields and "body:fore.mass" in made.fields
    assert opened(made.mjcf).get("joint:shoulder.damping")[0, 0] == 0.21


def test_a_limit_that_the_model_switches_off_is_not_switched_on():
    scene = replace(SCENE, model=MODEL.replace('forcelimited="true" forcerange="-50 50"', ""))
    (found,) = (u for u in overlay(calibration(scene), scene).unplaced if u.parameter == "shoulder.limit")
    assert "the model sets no limit there" in found.reason


def test_inertias_that_shapes_made_give_way_to_stated_ones():
    model = MODEL.replace('autolimits="false"', 'autolimits="false" inertiafromgeom="true"')
    scene = replace(
        SCENE,
        model=model.replace(
            '<joint name="wrist" axis="1 0 0"/>', '<joint name="wrist" axis="1 0 0"/><geom size=".05" mass=".3"/>'
        ),
    )
    box = opened(scene.model).get("body:box.mass")
    made = overlay(calibration(scene), scene)
    found = opened(made.mjcf)
    assert found.get("body:upper.mass")[0, 0] == 1.5
    np.testing.assert_allclose(found.get("body:hand.mass"), 0.5)
    np.testing.assert_allclose(found.get("body:box.mass"), box)


def test_the_time_step_of_the_replays_goes_with_the_values(tmp_path):
    made = overlay(calibration(), SCENE, timestep=0.0005)
    assert opened(made.mjcf).timestep == 0.0005 and opened(MODEL).timestep == 0.002
    assert ("option", "timestep") in {(c.element, c.attribute) for c in made.changes}
    pytest.importorskip("pxr")
    from flyball.robots.models import load

    write_overlay(made, tmp_path)
    assert opened(load(tmp_path / "tricky.calibrated.usda").mjcf).timestep == 0.0005


def test_another_scene_is_refused():
    with pytest.raises(Refused, match="another scene"):
        overlay(calibration(), replace(SCENE, model=MODEL.replace("0.3", "0.4")))


def test_files_patch_and_layer_give_the_calibrated_values_back(tmp_path):
    pytest.importorskip("pxr")
    from flyball.robots.models import load
    from flyball.scenes.usd.validate import validate

    written = write_overlay(overlay(calibration(), SCENE), tmp_path)
    assert all(p.is_file() for p in written)
    assert_expected(fields_of((tmp_path / "tricky.calibrated.xml").read_text()))
    subprocess.run(["patch", "-s", "tricky.xml", "tricky.patch"], cwd=tmp_path, check=True)
    assert (tmp_path / "tricky.xml").read_text() == (tmp_path / "tricky.calibrated.xml").read_text()

    layer = tmp_path / "tricky.calibrated.usda"
    assert_expected(fields_of(load(layer).mjcf))
    before = fields_of(load(tmp_path / "tricky.usda").mjcf)
    assert before["joint:shoulder.damping"] == [0.7] and before["body:upper.mass"] != [1.5]
    text = layer.read_text()
    assert "def " not in text and "subLayers" in text and "floor" not in text
    found = validate(layer)
    assert found.errors == validate(tmp_path / "tricky.usda").errors == 0

    document = json.loads((tmp_path / "tricky.overlay.json").read_text())
    assert document["fields"]["joint:shoulder.damping"] == [0.21]
    assert {u["parameter"] for u in document["not_in_the_model"]} == {p.path for p in OUTSIDE}


def test_samples_are_the_variations_as_they_are(tmp_path, capsys):
    c = calibration()
    write_overlay(overlay(c, SCENE), tmp_path)
    file = tmp_path / "tricky.variations.toml"
    assert load_variations(file) == (c.variation,)
    drawn = c.apply(SCENE).draw_worlds(7, range(20))
    again = replace(SCENE, variations=load_variations(file)).draw_worlds(7, range(20))
    for path in c.paths:
        np.testing.assert_array_equal(drawn[path], again[path])
    assert main(["variations", str(file), "--worlds", "3", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert set(values) == set(c.paths)
    assert set(values["elbow.armature"]) <= set(c.samples[:, c.paths.index("elbow.armature")])


def test_a_model_with_meshes_is_written_with_them(tmp_path):
    from flyball.robots.models import load

    corners = [(x, y, z) for x in (0, 0.1) for y in (0, 0.1) for z in (0, 0.1)]
    quads = ("1 3 4 2", "5 6 8 7", "1 2 6 5", "3 7 8 4", "1 5 7 3", "2 4 8 6")
    obj = "".join(f"v {x} {y} {z}\n" for x, y, z in corners) + "".join(f"f {q}\n" for q in quads)
    model = """<mujoco model="meshed"><asset><mesh file="parts/cube.obj"/></asset><worldbody><body name="link">
      <joint name="hinge" axis="0 1 0"/><geom type="mesh" mesh="cube"/></body></worldbody></mujoco>"""
    scene = Scene(
        "meshed", model,
        (Parameter("hinge.damping", "", 0.1, 0.0, 1.0, binds=(Bind("joint:hinge.damping"),)),
         Parameter("link.mass", "", 1.0, 0.1, 9.0, binds=(Bind("body:link.mass", "scale"),))),
        assets={"parts/cube.obj": obj.encode()},
    )  # fmt: skip
    made = overlay(replace(calibration(scene, (0.25, 3.0)), rig="meshed"), scene)
    write_overlay(made, tmp_path)
    mass = 3.0 * 1000 * 0.1**3
    for name in ("meshed.calibrated.xml", "meshed.calibrated.usda"):
        if name.endswith("usda"):
            pytest.importorskip("pxr")
        again = load(tmp_path / name)
        assert again.model.joints["hinge"].damping == 0.25, name
        assert again.model.bodies["link"].mass == pytest.approx(mass, rel=1e-6), name
        assert again.model.bodies["link"].inertia[0, 0] == pytest.approx(mass * 0.1**2 / 6, rel=1e-3), name
