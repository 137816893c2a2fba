"""What the lifting task tells a policy."""

import numpy as np

from flyball.robots.zoo import flyarm
from flyball.tasks import tasks

TASK = tasks.load("lift-fragile-v1")


def test_no_grip_is_told_that_the_gripper_cannot_command():
    heavy = {"object.mass": 0.9, "object.friction": 0.2, "object.crush_force": 80.0, "gripper.force_scale": 0.6}
    values = TASK.scene.nominal(8) | {path: np.full(8, x) for path, x in heavy.items()}
    assert (TASK.told(values)[:, 0] == flyarm.MAX_GRIP).all()
    assert TASK.tell(values)[0] == flyarm.MAX_GRIP
    usual = TASK.scene.nominal(8)
    assert 0 < TASK.tell(usual)[0] < flyarm.MAX_GRIP and (TASK.told(usual)[:, 0] < flyarm.MAX_GRIP).all()
