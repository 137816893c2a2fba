"""Scenes: a world as data, with named parameters and distributions over them.

In: a model and a list of parameters. Out: ``Scene`` objects and drawn parameter values. What a parameter does to an
engine is stated by its bindings; no simulator is imported here.
"""

from flyball.scenes.camera import Camera, Noise
from flyball.scenes.camera_files import load_camera
from flyball.scenes.compositions import Conditional, Formula, Mixture, Ramp
from flyball.scenes.distributions import (
    Choice,
    Distribution,
    LogNormal,
    LogUniform,
    Normal,
    Truncated,
    Uniform,
)
from flyball.scenes.scene import Bind, Parameter, Scene
from flyball.scenes.variation import Constant, Correlated, JointSamples, Variation, Vary, draw_worlds, sample
from flyball.scenes.variation_files import dump_variations, load_variations

__all__ = [
    "Bind",
    "Camera",
    "Choice",
    "Conditional",
    "Constant",
    "Correlated",
    "Distribution",
    "Formula",
    "JointSamples",
    "LogNormal",
    "LogUniform",
    "Mixture",
    "Noise",
    "Normal",
    "Parameter",
    "Ramp",
    "Scene",
    "Truncated",
    "Uniform",
    "Variation",
    "Vary",
    "draw_worlds",
    "dump_variations",
    "load_camera",
    "load_variations",
    "sample",
]
