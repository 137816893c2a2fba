"""What a compiled robot model says, as plain facts: numpy only, no simulator.

In: nothing (see ``flyball.robots.models.facts`` for where they come from). Out: ``Model``, a set of named elements of
a dozen kinds, all in SI units and parent-relative frames, which readers, writers, comparisons and engines share.
Elements that the author left without a name are called after where they are: ``BODY/geom0``, ``actuator3``, or what
they tie together: ``joint:left|right``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.robots.models.model_mechanisms import (
    Actuator,
    Array,
    Equality,
    Exclude,
    Keyframe,
    Pair,
    Sensor,
    Tendon,
)

WORLD = "world"
"""Name of the root of every body tree; it is not listed among a model's bodies."""


@dataclass(frozen=True, eq=False)
class Body:
    """A rigid body.

    Attributes:
      parent: name of the parent body.
      pos, quat: pose in the parent's frame [m], wxyz; shapes (3,), (4,).
      mass: [kg].
      com: centre of mass in the body frame [m], (3,); zero without mass.
      inertia: about the centre of mass, in the body frame [kg m^2], (3, 3) symmetric.
      gravcomp: share of the body's weight that is compensated.
      mocap: moved by the user, not by physics.
    """

    name: str
    parent: str
    pos: Array
    quat: Array
    mass: float
    com: Array
    inertia: Array
    gravcomp: float = 0.0
    mocap: bool = False


@dataclass(frozen=True, eq=False)
class Joint:
    """A joint between a body and its parent.

    Attributes:
      kind: hinge | slide | ball | free.
      axis: unit vector in the body frame, (3,); zero for ball and free.
      anchor: a point on the axis in the body frame [m], (3,).
      range: (low, high) [rad or m]; infinite when unlimited. A ball's is (0, largest angle).
      effort: (low, high) of the sum of actuator forces [N m or N]; infinite when unlimited.
      damping: [N m s/rad or N s/m]; damping_poly: its next two polynomial coefficients in speed, (2,).
      armature: inertia added by the drive [kg m^2 or kg].
      frictionloss: dry friction [N m or N].
      stiffness: [N m/rad or N/m]; stiffness_poly: its next two polynomial coefficients, (2,).
      springref: position at which the spring is at rest [rad or m].
      ref: position that the authored pose stands for [rad or m].
      margin: distance to the limit at which it begins to act.
      solref, solimp: softness of the limit, (2,), (5,); see MuJoCo's solver parameters.
      friction_solref, friction_solimp: softness of the dry friction.
    """

    name: str
    body: str
    kind: str
    axis: Array
    anchor: Array
    range: Array
    effort: Array
    damping: float
    damping_poly: Array
    armature: float
    frictionloss: float
    stiffness: float
    stiffness_poly: Array
    springref: Array
    ref: Array
    margin: float
    solref: Array
    solimp: Array
    friction_solref: Array
    friction_solimp: Array
    gravcomp_in_effort: bool = False


@dataclass(frozen=True, eq=False)
class Geom:
    """A shape fixed to a body.

    Attributes:
      kind: plane | hfield | sphere | capsule | ellipsoid | cylinder | box | mesh | sdf.
      pos, quat: pose in the body frame; of a mesh, the frame in which its file is written.
      size: radii and half lengths [m], (3,), unused ones zero; zero for meshes.
      friction: sliding, torsional, rolling, (3,).
      condim: 1, 3, 4 or 6.
      contype, conaffinity: collision filter; two geoms may touch when contype of one meets conaffinity of the other.
      mesh: name of its mesh or height field, else "".
      rgba: colour, (4,); group: visibility group.
    """

    name: str
    body: str
    kind: str
    pos: Array
    quat: Array
    size: Array
    friction: Array
    condim: int
    contype: int
    conaffinity: int
    priority: int
    margin: float
    gap: float
    solref: Array
    solimp: Array
    solmix: float
    mesh: str
    rgba: Array
    group: int
    other: Array
    """Fluid coefficients (12), surface velocity (6) and adhesion (1), (19,)."""

    @property
    def collides(self) -> bool:
        """Whether it can touch anything but through an explicit pair."""
        return bool(self.contype or self.conaffinity)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in the frame and scale it was authored in.

    Attributes:
      vertices: [m], (n, 3); faces: indices, (m, 3).
      digest: sha256 over vertices rounded to 1e-5 of the mesh's size; equal for equal shapes in equal order.
    """

    name: str
    vertices: Array
    faces: NDArray[np.int64]
    digest: str


@dataclass(frozen=True, eq=False)
class Site:
    """A marked place on a body."""

    name: str
    body: str
    kind: str
    pos: Array
    quat: Array
    size: Array


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera; it looks along its own -z, x to the right.

    Attributes:
      fovy: vertical field of view [deg]; 0 when ``intrinsic`` counts.
      intrinsic: focal lengths and principal point [m], (4,); sensor: its size [m], (2,).
      resolution: width, height [px], (2,).
      mode: fixed | track | targetbody | ...; target: its body.
    """

    name: str
    body: str
    pos: Array
    quat: Array
    fovy: float
    intrinsic: Array
    sensor: Array
    resolution: Array
    mode: str
    target: str
    orthographic: bool


@dataclass(frozen=True, eq=False)
class Light:
    """A light; kind: spot | directional | point | image."""

    name: str
    body: str
    kind: str
    pos: Array
    dir: Array
    mode: str
    target: str
    active: bool
    castshadow: bool
    ambient: Array
    diffuse: Array
    specular: Array
    attenuation: Array
    other: Array
    """Cut-off [deg], exponent, bulb radius [m], intensity [cd], range [m], (5,)."""


@dataclass(frozen=True, eq=False)
class Model:
    """A compiled model's facts. Every table maps a name to its element, in the model's own order.

    Attributes:
      option: timestep [s], gravity [m/s^2], integrator, cone, ... by name; ``disable`` and ``enable``: flags.
      start: joint -> position at the model's reference state (qpos0).
    """

    name: str
    bodies: Mapping[str, Body]
    joints: Mapping[str, Joint] = field(default_factory=dict)
    geoms: Mapping[str, Geom] = field(default_factory=dict)
    meshes: Mapping[str, Mesh] = field(default_factory=dict)
    sites: Mapping[str, Site] = field(default_factory=dict)
    actuators: Mapping[str, Actuator] = field(default_factory=dict)
    equalities: Mapping[str, Equality] = field(default_factory=dict)
    excludes: Mapping[str, Exclude] = field(default_factory=dict)
    pairs: Mapping[str, Pair] = field(default_factory=dict)
    tendons: Mapping[str, Tendon] = field(default_factory=dict)
    cameras: Mapping[str, Camera] = field(default_factory=dict)
    lights: Mapping[str, Light] = field(default_factory=dict)
    sensors: Mapping[str, Sensor] = field(default_factory=dict)
    keyframes: Mapping[str, Keyframe] = field(default_factory=dict)
    option: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Array] = field(default_factory=dict)
    uncovered: tuple[str, ...] = ()
    """Kinds of element the model has and these tables do not describe, e.g. ``flexes (2)``."""
    rest: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Kind -> element -> field -> what else its author may have said; see ``flyball.robots.models.remainder``."""

    @property
    def mass(self) -> float:
        """Of everything that is not the world itself [kg]."""
        return float(sum(b.mass for b in self.bodies.values()))

    def children(self, body: str) -> list[str]:
        """Bodies directly below one, in order."""
        return [b.name for b in self.bodies.values() if b.parent == body]

    def joints_of(self, body: str) -> list[Joint]:
        """The joints that move a body against its parent, in order."""
        return [j for j in self.joints.values() if j.body == body]

    def geoms_of(self, body: str) -> list[Geom]:
        """The geoms of a body, in order."""
        return [g for g in self.geoms.values() if g.body == body]

    @property
    def base(self) -> str:
        """Whether the model's root bodies are ``fixed`` to the world, ``floating``, ``mixed``, or there are none."""
        found = {
            "floating" if any(j.kind == "free" for j in self.joints_of(b)) else "fixed" for b in self.children(WORLD)
        }
        return found.pop() if len(found) == 1 else "mixed" if found else "none"


KINDS = (
    "bodies",
    "joints",
    "geoms",
    "meshes",
    "sites",
    "actuators",
    "equalities",
    "excludes",
    "pairs",
    "tendons",
    "cameras",
    "lights",
    "sensors",
    "keyframes",
)
"""The tables of ``Model``, in the order of reports."""

__all__ = [
    "KINDS",
    "WORLD",
    "Actuator",
    "Array",
    "Body",
    "Camera",
    "Equality",
    "Exclude",
    "Geom",
    "Joint",
    "Keyframe",
    "Light",
    "Mesh",
    "Model",
    "Pair",
    "Sensor",
    "Site",
    "Tendon",
]
