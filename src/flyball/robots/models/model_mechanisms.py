"""Elements of a model that refer to its bodies, joints and shapes: what drives, ties, measures and remembers them.

In: nothing. Out: frozen records, numpy only; see ``flyball.robots.models.model``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Actuator:
    """What drives a joint, tendon, site or body.

    force = gain * (control or activation) + bias0 + bias1 * length + bias2 * velocity, in MuJoCo's terms.

    Attributes:
      target_kind: joint | joint_in_parent | tendon | site | slider_crank | body | ...
      target: name; second: reference site or crank's slider site, else "".
      gear: (6,).
      dynamics, gain, bias: their types; *_prm: their parameters, (10,).
      ctrlrange, forcerange, actrange: (low, high), infinite when unlimited.
      controls: how many control inputs it has.
      other: crank length, delay, armature, damping and its polynomial, (6,).
    """

    name: str
    target_kind: str
    target: str
    second: str
    gear: Array
    dynamics: str
    dynamics_prm: Array
    gain: str
    gain_prm: Array
    bias: str
    bias_prm: Array
    ctrlrange: Array
    forcerange: Array
    actrange: Array
    controls: int
    other: Array


@dataclass(frozen=True, eq=False)
class Equality:
    """A constraint: connect | weld | joint (a mimic joint) | tendon | ...

    Attributes:
      first, second: names of the two bodies, joints, sites or tendons; ``second`` may be "".
      object_kind: what they are.
      data: MuJoCo's equality parameters, (11,); for ``joint``: polynomial coefficients in the first five.
    """

    name: str
    kind: str
    object_kind: str
    first: str
    second: str
    data: Array
    active: bool
    solref: Array
    solimp: Array


@dataclass(frozen=True, eq=False)
class Exclude:
    """Two bodies that never touch; named ``a|b`` with the names in order."""

    name: str


@dataclass(frozen=True, eq=False)
class Pair:
    """Two geoms that touch by their own rule; named ``a|b`` with the names in order."""

    name: str
    condim: int
    friction: Array
    margin: float
    gap: float
    solref: Array
    solimp: Array
    solref_friction: Array
    adhesion: float = 0.0


@dataclass(frozen=True, eq=False)
class Tendon:
    """A tendon: a path over joints (fixed) or sites (spatial).

    Attributes:
      path: (kind, name, parameter) of each element, in order.
      range, effort: (low, high), infinite when unlimited.
      springlength: (low, high) of the rest length.
    """

    name: str
    path: tuple[tuple[str, str, float], ...]
    range: Array
    effort: Array
    stiffness: float
    damping: float
    frictionloss: float
    armature: float
    springlength: Array
    margin: float
    solver: Array
    """solref and solimp of the limit and of the friction, polynomial coefficients, (18,)."""


@dataclass(frozen=True, eq=False)
class Sensor:
    """A sensor; kind is MuJoCo's name of it.

    Attributes:
      object_kind, object: what it is on; reference_kind, reference: what it is relative to; "" when none.
      cutoff: largest magnitude, 0 for none; noise: standard deviation that the model states.
      other: three integer parameters, delay [s], interval [s], (5,).
    """

    name: str
    kind: str
    object_kind: str
    object: str
    reference_kind: str
    reference: str
    cutoff: float
    noise: float
    other: Array


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A stored state.

    Attributes:
      qpos, qvel: joint -> values; act, ctrl: actuator -> values.
      mocap: body -> position and quaternion, (7,).
    """

    name: str
    time: float
    qpos: Mapping[str, Array]
    qvel: Mapping[str, Array]
    act: Mapping[str, Array]
    ctrl: Mapping[str, Array]
    mocap: Mapping[str, Array]
