"""What each of Newton's solvers is: how it is made, what it can be asked, and what it does only approximately.

In: nothing. Out: one ``Solver`` for each engine ``newton-NAME``. Everything here is a declaration that the simulation
enforces: what a scene has and ``takes`` lacks is refused by name. The levels come from the report card and from
``benchmarks/newton_solvers.py``; the reasons are in docs/adr/0014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flyball.engines.engine import Level

_ARM = frozenset({"hinge", "slide", "ball", "free", "several joints", "fixed to a moving body", "damping", "spring",
                  "limit", "actuator"})  # fmt: skip
_FEATURES = ("rigid", "articulation", "ball_joints", "contact", "contact_wrench", "restitution", "armature", "equality",
             "per_world_parameters", "save_restore", "gradient", "cloth", "soft", "granular")  # fmt: skip


def _levels(**known: Level) -> Mapping[str, Level]:
    """A level for every feature; what is not named is unsupported."""
    return {f: known.get(f, "unsupported") for f in _FEATURES}


@dataclass(frozen=True)
class Solver:
    """One of Newton's solvers.

    Attributes:
      name: of the engine, after ``newton-``.
      solver: Newton's class.
      formulation: kind of physics; see ``flyball.engines.Traits``.
      capabilities: levels by feature.
      takes: what of a scene it simulates, by the names of ``model.needs``; anything else is refused.
      coordinates: ``joint`` when joint positions are its state, ``body`` when the poses of bodies are.
      friction: how it mixes the coefficients of two shapes; MuJoCo's rule is the greater or that of higher priority.
      arguments: of Newton's constructor.
      forces: whether it reports contact forces.
      settable: fields that ``set`` takes, of those of the engine ``mujoco``.
      penalty: whether contacts are springs with stiffness and damping, which must fit mass and time step.
      graph: whether a step can be recorded once and replayed.
    """

    name: str
    solver: str
    formulation: str
    capabilities: Mapping[str, Level]
    takes: frozenset[str]
    coordinates: Literal["joint", "body"] = "joint"
    friction: Literal["mean", "geometric mean"] = "mean"
    arguments: Mapping[str, object] = field(default_factory=dict)
    forces: bool = False
    settable: frozenset[str] = frozenset()
    penalty: bool = False
    graph: bool = True


_FREE = frozenset({"body:NAME.mass", "geom:NAME.friction", "geom:NAME.size_scale", "world:gravity"})
_BOUNCE = frozenset({"geom:NAME.restitution"})
_FIELDS = _FREE | {
    "joint:NAME.armature", "joint:NAME.damping", "actuator:NAME.gain", "actuator:NAME.damping",
    "actuator:NAME.position_gain", "actuator:NAME.velocity_gain", "actuator:NAME.force_limit",
    "tendon:NAME.force_limit",
}  # fmt: skip

SOLVERS: Mapping[str, Solver] = {s.name: s for s in (
    Solver(
        "featherstone", "SolverFeatherstone", "penalty contact, joint coordinates",
        _levels(rigid="exact", articulation="exact", ball_joints="exact", contact="approximate", armature="exact",
                equality="approximate", per_world_parameters="exact", save_restore="exact", gradient="exact"),
        _ARM | {"armature", "contact", "joint equality"},
        arguments={"angular_damping": 0.0}, penalty=True, settable=_FIELDS,
    ),
    Solver(
        "semi-implicit", "SolverSemiImplicit", "penalty contact, body coordinates",
        _levels(rigid="exact", contact="approximate", per_world_parameters="exact", save_restore="exact",
                soft="approximate"),
        frozenset({"free", "contact", "soft"}), coordinates="body",
        arguments={"angular_damping": 0.0, "enable_tri_contact": False}, penalty=True,
        settable=_FREE,
    ),
    Solver(
        "xpbd", "SolverXPBD", "position-based",
        _levels(rigid="exact", contact="approximate", contact_wrench="approximate", restitution="approximate",
                per_world_parameters="exact", save_restore="exact"),
        frozenset({"free", "contact"}), coordinates="body",
        arguments={"iterations": 20, "enable_restitution": True, "rigid_contact_con_weighting": False,
                   "rigid_contact_relaxation": 0.4}, forces=True, settable=_FREE | _BOUNCE,
    ),
    Solver(
        "steel", "SolverSteel", "projected Gauss-Seidel",
        _levels(rigid="approximate", articulation="exact", ball_joints="exact", contact="approximate",
                contact_wrench="approximate", restitution="approximate", armature="exact", equality="approximate",
                per_world_parameters="exact", save_restore="exact"),
        _ARM | {"armature", "contact", "joint equality", "connect equality", "weld equality"},
        # regularized, so that what four points hold rests on all of them; a body at rest sinks in by 5 dt^2 [m] for it
        arguments={"enable_joint_limits": True, "friction_anchor_beta": 0.0, "iterations": 24,
                   "contact_regularization": 0.1,
                   "articulation_constraint_max": 256, "warn_constraint_overflow": False},
        forces=True, settable=_FIELDS | _BOUNCE,
    ),
    Solver(
        "vbd", "SolverVBD", "vertex block descent",
        _levels(cloth="approximate", soft="approximate", save_restore="approximate"),
        frozenset({"contact", "cloth", "soft"}), coordinates="body", friction="geometric mean",
        arguments={"iterations": 20},
    ),
    Solver(
        "mpm", "SolverImplicitMPM", "material points",
        _levels(granular="approximate"),
        frozenset({"contact", "granular"}), coordinates="body", graph=False,
    ),
)}  # fmt: skip
