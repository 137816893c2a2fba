"""Scenes: a world as data, with named parameters and distributions over them.

In: a model and a list of parameters. Out: ``Scene`` objects and drawn parameter values. What a parameter does to an
engine is stated by its bindings; no simulator is imported here.
"""

from flyball.scenes.scene import Bind, Parameter, Scene
from flyball.scenes.variation import Choice, Constant, JointSamples, LogUniform, Uniform, Variation, sample

__all__ = [
    "Bind",
    "Choice",
    "Constant",
    "JointSamples",
    "LogUniform",
    "Parameter",
    "Scene",
    "Uniform",
    "Variation",
    "sample",
]
