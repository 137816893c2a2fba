"""The contract test of Robot, the fake, the table of drivers."""

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.robots.drivers import Preparable, drivers
from flyball.robots.testing import FakeRobot, check_robot


def test_the_fake_keeps_the_contract(tmp_path):
    check_robot(FakeRobot)
    check_robot(lambda: drivers.load("fake")({}, "robot-01", tmp_path))
    assert isinstance(FakeRobot(), Preparable)


class SendsNan(FakeRobot):
    def act(self, action):
        self.clock_ns += self.period_ns
        return np.asarray(action, float)


class StandsStill(FakeRobot):
    def act(self, action):
        sent = super().act(action)
        self.clock_ns -= self.period_ns
        return sent


class RepeatsEvents(FakeRobot):
    def events(self):
        return [(self.clock_ns, "bump")]


class WrongShape(FakeRobot):
    def observe(self):
        return {**super().observe(), "goal": np.zeros(3)}


class Overshoots(FakeRobot):
    def act(self, action):
        return super().act(action) * 10


@pytest.mark.parametrize("broken", [SendsNan, StandsStill, RepeatsEvents, WrongShape, Overshoots])
def test_the_contract_test_catches_a_broken_driver(broken):
    with pytest.raises((AssertionError, InputError)):
        check_robot(broken)


def test_an_unknown_driver_or_setting_is_named(tmp_path):
    with pytest.raises(Missing, match="did you mean 'virtual'"):
        drivers.load("virtul")
    with pytest.raises(InputError, match="driver fake of robot-01"):
        drivers.load("fake")({"speed": 2}, "robot-01", tmp_path)
