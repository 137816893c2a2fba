"""What the benchmark compares with must be able to find planted parameters, or the comparison says nothing."""

import calibration_baselines as baselines
import numpy as np
import pytest

from flyball.calibration.problem import ReplayProblem
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH

PATHS = ("servo.gain", "servo.armature", "servo.offset")


@pytest.fixture
def problem(bench):
    rig = ServoPendulum()
    known = [p if p.path in PATHS else type(p)(**vars(p) | {"nominal": TRUTH.get(p.path, p.nominal)})
             for p in rig.scene.parameters]  # fmt: skip
    scene = type(rig.scene)("servo", rig.scene.model, tuple(known))
    replays = [rig.replay(e) for e in bench[:2]]
    return ReplayProblem(scene, rig.compared, replays, PATHS, engine="servo", stride=6)


@pytest.mark.parametrize("method", ["sysid", "sysid defaults", "cma"])
def test_a_baseline_finds_planted_parameters_within_its_steps(problem, method):
    truth = np.array([TRUTH[p] for p in PATHS])
    problem.predict(truth[None])
    one, allowed = problem.steps, 400
    if method == "cma":
        found = baselines.plain_cma(problem, allowed * one, seed=0, members=12, population=8)
    else:
        if not hasattr(pytest.importorskip("mujoco.sysid"), "optimize"):
            pytest.skip("mujoco without its extra sysid")
        found = baselines.sysid(problem, allowed * one, seed=0, members=12, restart=method == "sysid")
    np.testing.assert_allclose(found.best, truth, rtol=0.1, atol=0.001)
    assert found.samples.shape == (12, 3) and found.restarts >= 1
    assert problem.steps <= (allowed + 30) * one
    assert 0.5 < baselines.coverage(problem, found.samples) <= 1.0
