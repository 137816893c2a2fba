"""Model fields per world.

In: ``kind:name.field`` and values (n, k). Out: the batch's per-world model fields. What belongs together moves
together: a body's inertia with its mass, a servo's stiffness and damping with its gain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines.mujoco.fields import joint_slice
from flyball.engines.mujoco.names import WHERE, id_of, split

Array = NDArray[np.float64]

SETTABLE = (
    "body:NAME.mass",
    "geom:NAME.friction",
    "geom:NAME.size_scale",
    "geom:NAME.solref",
    "geom:NAME.restitution",
    "joint:NAME.damping",
    "joint:NAME.armature",
    "joint:NAME.frictionloss",
    "actuator:NAME.gain",
    "actuator:NAME.damping",
    "actuator:NAME.position_gain",
    "actuator:NAME.velocity_gain",
    "actuator:NAME.force_limit",
    "tendon:NAME.force_limit",
    "world:gravity",
)
_HARDEST = 0.99
_SIZED = (
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_BOX,
)
FACTS = ("body:NAME.inertia", "body:NAME.center_of_mass", "joint:NAME.limits", "joint:NAME.stiffness")


class Parameters:
    """What was set, by name, and the model's own values for the rest."""

    def __init__(self, model: mujoco.MjModel, n: int) -> None:
        self.model, self.n = model, n
        self._set: dict[str, Array] = {}

    def get(self, name: str) -> Array:
        """(n, k)."""
        own = self._own(name)  # also when set: refuses unknown names
        if name in self._set:
            return self._set[name].copy()
        values = np.repeat(own[None], self.n, axis=0)
        kind, item, field = split(name)
        return values * self._scale(id_of(self.model, kind, item))[:, None] if field == "inertia" else values

    def set(self, values: Mapping[str, Array], batch: Batch) -> None:
        """All of them, or none when one is refused."""
        new = {}
        for name, x in values.items():
            if _pattern(name) not in SETTABLE:
                raise Unsupported(f"cannot set {name!r}", where=WHERE, allowed=", ".join(SETTABLE))
            k = len(self._own(name))
            v = np.asarray(x, float)
            v = v.reshape(len(v), -1) if v.ndim else v.reshape(1, 1)
            if name.startswith("joint:") and v.shape[1] == 1:  # one value for all axes of a joint
                v = np.repeat(v, k, axis=1)
            short = name.endswith(".friction") and v.shape[1] <= k  # sliding alone, or with torsional and rolling
            if v.shape[0] != self.n or not np.all(np.isfinite(v)) or not (short or v.shape[1] == k):
                allowed = f"finite, ({self.n},)" if k == 1 else f"finite, ({self.n}, {k})"
                raise InputError(f"{name}: values of shape {np.shape(x)}", allowed=allowed, where="set")
            if name.endswith(".restitution") and not ((v >= 0) & (v <= _HARDEST)).all():
                raise InputError(f"{name}: {np.round(v.ravel(), 4)}", allowed=f"[0, {_HARDEST}]", where="set")
            if name.endswith(".size_scale"):
                self._scalable(name)
            if (reason := self._idle(name)) and not np.array_equal(v, np.broadcast_to(self._own(name), v.shape)):
                raise Unsupported(f"{name} would change nothing: {reason}", where=WHERE)
            if name.endswith(".mass") and not (v > 0).all():
                raise InputError(f"{name}: a mass of {v.min():g} kg", allowed="more than 0", where="set")
            new[name] = v.copy()
        self._set |= new
        self._write(new, batch)

    def write_all(self, batch: Batch) -> None:
        """Everything that was ever set, into a new batch of the same model."""
        self._write(self._set, batch)

    def _write(self, values: Mapping[str, Array], batch: Batch) -> None:
        # gains first: a damping that was set on its own outlives a change of the gain
        for name in sorted(values, key=lambda k: not k.endswith(".gain")):
            self._apply(name, values[name], batch)
        if values:
            batch.set_const()

    def _apply(self, name: str, v: Array, b: Batch) -> None:
        kind, item, field = split(name)
        m = self.model
        if name == "world:gravity":
            b.expand("opt.gravity")[:] = v
            return
        i = id_of(m, kind, item)
        if field == "mass":
            b.expand("body_mass")[:, i] = v[:, 0]
            self._inertia(i, b)
        elif field == "friction":
            b.expand("geom_friction")[:, i, : v.shape[1]] = v
        elif field == "size_scale":
            b.expand("geom_size")[:, i] = m.geom_size[i] * v
            b.expand("geom_rbound")[:, i] = m.geom_rbound[i] * v[:, 0]
            aabb = m.geom_aabb[i].reshape(-1)
            b.expand("geom_aabb").reshape(self.n, m.ngeom, -1)[:, i] = aabb * v
            self._inertia(int(m.geom_bodyid[i]), b)
        elif field == "solref":
            b.expand("geom_solref")[:, i] = v
        elif field == "restitution":
            b.expand("geom_solref")[:, i] = _springs(v[:, 0], float(self.model.opt.timestep))
        elif kind == "joint":
            dof, size = joint_slice(m, item, "velocity")
            b.expand(f"dof_{field}")[:, dof : dof + size] = v
        elif field == "gain":
            own = m.actuator_gainprm[i, 0]
            b.expand("actuator_gainprm")[:, i, 0] = v[:, 0]
            if m.actuator_biasprm[i, 1] != 0:  # position servo: stiffness and damping follow the gain
                ratio = v[:, 0] / own
                b.expand("actuator_biasprm")[:, i, 1] = m.actuator_biasprm[i, 1] * ratio
                b.expand("actuator_biasprm")[:, i, 2] = m.actuator_biasprm[i, 2] * ratio
                damping = self._set.get(f"actuator:{item}.damping")
                if damping is not None:
                    self._apply(f"actuator:{item}.damping", damping, b)
        elif field == "damping":  # force = ... - damping * velocity
            b.expand("actuator_biasprm")[:, i, 2] = -v[:, 0]
        elif field in ("position_gain", "velocity_gain"):  # of an affine gain: force = (g0 + g1 q + g2 qd) ctrl
            b.expand("actuator_gainprm")[:, i, 1 if field == "position_gain" else 2] = v[:, 0]
        elif field == "force_limit":
            limits = b.expand("actuator_forcerange" if kind == "actuator" else "tendon_actfrcrange")
            limits[:, i] = np.stack([-v[:, 0], v[:, 0]], axis=1)

    def _scalable(self, name: str) -> None:
        """Refuse shapes that have no size of their own: setting one would change nothing but the inertia."""
        g = id_of(self.model, "geom", split(name)[1])
        if mujoco.mjtGeom(self.model.geom_type[g]) not in _SIZED:
            kind = mujoco.mjtGeom(self.model.geom_type[g]).name.removeprefix("mjGEOM_").lower()
            raise Unsupported(f"{name}: a {kind}", where=WHERE, allowed="primitives of finite size")

    def _idle(self, name: str) -> str:
        """Why MuJoCo does not look at a field of this model, "" when it does."""
        kind, item, field = split(name)
        m = self.model
        if kind not in ("actuator", "tendon"):
            return ""
        i = id_of(m, kind, item)
        if field == "force_limit":
            on = m.actuator_forcelimited[i] if kind == "actuator" else m.tendon_actfrclimited[i]
            return "" if on else "the model sets no limit there"
        if field == "damping" and m.actuator_biastype[i] != int(mujoco.mjtBias.mjBIAS_AFFINE):
            return "its bias is not affine"
        if field in ("position_gain", "velocity_gain") and m.actuator_gaintype[i] != int(mujoco.mjtGain.mjGAIN_AFFINE):
            return "its gain is not affine"
        return ""

    def _inertia(self, body: int, b: Batch) -> None:
        b.expand("body_inertia")[:, body] = self.model.body_inertia[body] * self._scale(body)[:, None]

    def _scale(self, body: int) -> Array:
        """Inertia over the model's own, (n,): it follows mass (ratio) and the scale of the body's geom (squared)."""
        m = self.model
        mass = self._set.get(f"body:{m.body(body).name}.mass")
        scale = np.ones(self.n) if mass is None else mass[:, 0] / m.body_mass[body]
        for g in np.flatnonzero(m.geom_bodyid == body):
            size = self._set.get(f"geom:{m.geom(g).name}.size_scale")
            if size is not None:
                scale = scale * size[:, 0] ** 2
        return scale

    def _own(self, name: str) -> Array:
        """What the model says, (k,).

        Raises:
          Missing: no such element.
          Unsupported: no such field.
        """
        kind, item, field = split(name)
        if _pattern(name) not in SETTABLE + FACTS:
            allowed = ", ".join(SETTABLE + FACTS)
            raise Unsupported(f"cannot get {name!r}", where=WHERE, allowed=allowed)
        m = self.model
        if name == "world:gravity":
            return np.array(m.opt.gravity)
        i = id_of(m, kind, item)
        if kind == "joint" and field in ("damping", "armature", "frictionloss"):
            dof, size = joint_slice(m, item, "velocity")
            return np.array(getattr(m, f"dof_{field}")[dof : dof + size], float)
        limits = m.actuator_forcerange if kind == "actuator" else m.tendon_actfrcrange
        own: dict[str, Callable[[], object]] = {
            "mass": lambda: m.body_mass[i],
            "inertia": lambda: _inertia_tensor(m, i),
            "center_of_mass": lambda: m.body_ipos[i],
            "limits": lambda: m.jnt_range[i] if m.jnt_limited[i] else (-np.inf, np.inf),
            "stiffness": lambda: m.jnt_stiffness[i],
            "friction": lambda: m.geom_friction[i],
            "size_scale": lambda: 1.0,
            "solref": lambda: m.geom_solref[i],
            "restitution": lambda: _restitution_of(m.geom_solref[i]),
            "gain": lambda: m.actuator_gainprm[i, 0],
            "damping": lambda: -m.actuator_biasprm[i, 2],
            "position_gain": lambda: m.actuator_gainprm[i, 1],
            "velocity_gain": lambda: m.actuator_gainprm[i, 2],
            "force_limit": lambda: limits[i, 1],
        }
        return np.atleast_1d(np.array(own[field](), float))


@cache
def _rebounds() -> tuple[Array, Array]:
    """Damping ratios and the coefficients of restitution that they give.

    From the difference equation that MuJoCo solves while a contact pushes, v += dt (-b v - k r), r += dt v, averaged
    over where within a step the contact begins. In units of the step and of the impact speed.
    """
    ratios = np.concatenate([np.linspace(0, 2, 400), np.geomspace(2.02, 10, 100)])[:, None]
    w = _frequency(ratios)
    r = -np.broadcast_to((np.arange(16) + 0.5) / 16, (len(ratios), 16))
    v = np.full(r.shape, -1.0)
    for _ in range(400):
        push = np.maximum(-2 * ratios * w * v - w**2 * r, 0)
        v = v + np.where(r < 0, push, 0)
        r = np.where((v > 0) & (push == 0), 1.0, r + v)  # what has left does not come back
    return ratios[:, 0], np.maximum(v, 0).mean(axis=1)


def _frequency(ratio: Array) -> Array:
    """Of the contact, per step: some 20 steps from touching to leaving, softer where damping would overshoot."""
    return np.minimum(np.pi / 20, 0.25 / np.maximum(ratio, 1e-9))


def _springs(e: Array, timestep: float) -> Array:
    """MuJoCo's (-stiffness, -damping) per unit of mass for coefficients of restitution, (n, 2).

    An approximation: the contact lasts some 20 steps, in which the body sinks in, and it is as soft at rest. Leaving
    while still sunk in costs height: a ball of e = 0.3 that falls 0.5 m comes back 11 % too slow with steps of 1 ms,
    and 2.5 % with steps of 0.25 ms. Of two touching geoms the stiffer counts.
    """
    ratios, rebounds = _rebounds()
    ratio = np.interp(e, rebounds[::-1], ratios[::-1])
    w = _frequency(ratio) / timestep
    return np.stack([-(w**2), -np.maximum(2 * ratio * w, 1e-9)], axis=1)


def _restitution_of(solref: Array) -> float:
    """What a geom's own contact parameters amount to."""
    ratio = solref[1] if solref[0] > 0 else -solref[1] / (2 * np.sqrt(max(-solref[0], 1e-12)))
    return float(np.interp(ratio, *_rebounds()))


def _pattern(name: str) -> str:
    kind, item, field = split(name)
    return f"{kind}:NAME.{field}" if item else f"{kind}:{field}"


def _inertia_tensor(m: mujoco.MjModel, i: int) -> Array:
    """xx yy zz xy xz yz about the centre of mass, in the axes of the body's frame."""
    turn = np.empty(9)
    mujoco.mju_quat2Mat(turn, m.body_iquat[i])
    axes = turn.reshape(3, 3)
    full = axes @ np.diag(m.body_inertia[i]) @ axes.T
    return full[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
