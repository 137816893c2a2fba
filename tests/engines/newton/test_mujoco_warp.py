"""MuJoCo Warp does what MuJoCo does, in single precision. The contract and contacts: test_solvers.py."""

import numpy as np
import pytest

from flyball.base import Unsupported
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.newton.engine import MujocoWarpEngine
from flyball.scenes import Scene
from flyball.scenes.deformable import Cloth

pytestmark = pytest.mark.usefixtures("quickly_compiled")
ARM = Scene("arm", """<mujoco><option timestep="0.002"/><worldbody><body name="arm" pos="0 0 .5">
<joint name="arm" type="hinge" axis="0 1 0"/><inertial pos=".2 0 0" mass=".5" diaginertia=".01 .01 .01"/>
</body></worldbody><actuator><position name="arm" joint="arm" kp="20"/></actuator></mujoco>""", ())  # fmt: skip


def test_it_moves_as_mujoco_does_also_with_what_was_set():
    controls = np.random.default_rng(0).uniform(-1, 1, (3, 200, 1))
    reads = {"joint:arm.position": "all", "actuator:arm.force": "all", "body:arm.velocity": "all", "time": "last"}
    seen = []
    for engine in (MujocoEngine(), MujocoWarpEngine()):
        sim = engine.open(ARM, 3, threads=1)
        # also fields that are zero in the model
        sim.set({"joint:arm.frictionloss": np.array([0.0, 0.2, 0.5]), "joint:arm.armature": np.array([0.0, 0.1, 0.0])})
        sim.set({"actuator:arm.gain": np.array([20.0, 10.0, 40.0]), "joint:arm.damping": np.array([0.0, 0.1, 1.0])})
        sim.set({"world:gravity": np.array([[0, 0, -9.81], [0, 0, -1.62], [1, 0, -9.81]])})
        seen.append(sim.step(controls, reads))
    for name, want in seen[0].items():
        np.testing.assert_allclose(seen[1][name], want, rtol=0, atol=2e-4 * max(1.0, np.abs(want).max()), err_msg=name)
    kept = sim.save()
    ends = []
    for _ in range(2):
        sim.restore(kept)
        ends.append(sim.step(controls, reads)["joint:arm.position"])
    np.testing.assert_array_equal(*ends)
    assert np.abs(seen[0]["joint:arm.position"][0] - seen[0]["joint:arm.position"][2]).max() > 0.05


def test_what_it_lacks_is_refused():
    engine = MujocoWarpEngine()
    with pytest.raises(Unsupported, match="cloth 'flag'"):
        engine.open(Scene("s", "<mujoco/>", (), deformables=(Cloth("flag"),)), 1)
    with pytest.raises(Unsupported, match="device 'cuda:99'"):
        engine.open(ARM, 1, options={"device": "cuda:99"})
    with pytest.raises(Unsupported, match="engine mujoco-warp"):
        noslip = ARM.model.replace('timestep="0.002"', 'noslip_iterations="3" integrator="discrete"')
        engine.open(Scene("s", noslip, ()), 1)
