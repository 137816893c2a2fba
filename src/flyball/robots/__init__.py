"""Robots as data, and the protocol of a robot that can be driven.

In: model files and drivers. Out: an ``Embodiment`` (joints, signals, limits, a specification hash) and objects that
observe and act. No physics, no learning.
"""

from flyball.robots.embodiment import Embodiment, Joint
from flyball.robots.robot import Observation, Robot

__all__ = ["Embodiment", "Joint", "Observation", "Robot"]
