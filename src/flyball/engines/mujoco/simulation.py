"""A thin shell over ``mujoco.batch.Batch``.

In: MJCF text, per-world fields, controls per substep. Out: stepped worlds and reduced reads. Joint fields are read at
the end of a substep; sensor fields are those that MuJoCo computed at the start of the last substep, one time step
earlier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.engine import Level, Reduce
from flyball.scenes import Scene

_CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}
_NQ = {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4}
_NV = {mujoco.mjtJoint.mjJNT_FREE: 6, mujoco.mjtJoint.mjJNT_BALL: 3}
_KINDS = {
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
}
_SETTABLE = (
    "body:NAME.mass",
    "geom:NAME.friction",
    "geom:NAME.size_scale",
    "geom:NAME.solref",
    "joint:NAME.damping",
    "joint:NAME.armature",
    "joint:NAME.frictionloss",
    "actuator:NAME.gain",
    "actuator:NAME.position_gain",
    "actuator:NAME.velocity_gain",
    "actuator:NAME.force_limit",
    "tendon:NAME.force_limit",
)


class MujocoEngine:
    """The default engine."""

    name = "mujoco"
    version = mujoco.__version__
    capabilities: Mapping[str, Level] = {
        "rigid": "exact",
        "contact": "approximate",
        "per_world_parameters": "exact",
        "save_restore": "exact",
        "cloth": "unsupported",
        "granular": "unsupported",
    }

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> MujocoSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``."""
        try:
            model = mujoco.MjModel.from_xml_string(scene.model)
        except ValueError as err:
            raise InputError(f"the model does not compile: {err}", where=f"scene {scene.name}") from err
        for key, value in (options or {}).items():
            if key == "timestep" and isinstance(value, (int, float)) and 0 < value <= 0.1:
                model.opt.timestep = value
            elif key == "cone" and value in _CONES:
                model.opt.cone = _CONES[str(value)]
            elif key == "impratio" and isinstance(value, (int, float)) and value > 0:
                model.opt.impratio = value
            else:
                allowed = "timestep (0, 0.1] s, cone " + " | ".join(_CONES) + ", impratio > 0"
                raise Unsupported(f"option {key} = {value!r}", where="engine mujoco", allowed=allowed)
        return MujocoSimulation(model, n, threads)


class MujocoSimulation:
    """n worlds of one model; see ``flyball.engines.Simulation`` for the contract."""

    def __init__(self, model: mujoco.MjModel, n: int, threads: int) -> None:
        self.model, self.n, self.timestep = model, n, float(model.opt.timestep)
        self._batch = Batch(model, n, threads, True)
        self._fields: dict[str, NDArray[np.float64]] = {}
        self._sources: dict[str, tuple[str, int, int]] = {}
        self._touched: set[str] = set()
        self.reset()

    # state ------------------------------------------------------------------------------------------------

    def reset(self, worlds: NDArray[np.int64] | None = None) -> None:
        self._batch.reset(worlds)

    def place(self, joint: str, position: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        start, size = self._joint(joint, "position")
        self._batch.bind("qpos")[slice(None) if worlds is None else worlds, start : start + size] = position

    def push(self, joint: str, velocity: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        start, size = self._joint(joint, "velocity")
        self._batch.bind("qvel")[slice(None) if worlds is None else worlds, start : start + size] = velocity

    def save(self) -> NDArray[np.float64]:
        return self._batch.state.copy()

    def restore(self, state: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        if state.shape[-1] != self._batch.nstate:
            raise InputError(
                f"the state has {state.shape[-1]} numbers per world", allowed=str(self._batch.nstate), where="restore"
            )
        self._batch.state[slice(None) if worlds is None else worlds] = state

    def status(self) -> NDArray[np.bool_]:
        return np.asarray(self._batch.warning).reshape(self.n, -1).sum(axis=1) == 0

    # stepping ---------------------------------------------------------------------------------------------

    def step(
        self, controls: NDArray[np.float64], reads: Mapping[str, Reduce] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        out = self.rollout(controls, controls.shape[1], reads or {})
        return {name: x[:, 0] for name, x in out.items()}

    def rollout(
        self, controls: NDArray[np.float64], every: int, reads: Mapping[str, Reduce]
    ) -> dict[str, NDArray[np.float64]]:
        n, steps, _ = controls.shape
        if n != self.n or steps % every:
            raise InputError(
                f"controls of shape {controls.shape}", allowed=f"({self.n}, a multiple of {every}, nu)", where="rollout"
            )
        sources = {name: self._source(name) for name in reads}
        begun = self.read(["time"])["time"] if "time" in reads else 0.0
        # the batch records arrays only, and at least one
        raw = self._batch.rollout(
            steps, controls, record=sorted({s[0] for s in sources.values()} - {"time"}) or ["qpos"]
        )
        groups = (n, steps // every, every)
        out = {}
        for name, reduce in reads.items():
            field, start, size = sources[name]
            if field == "time":
                x = (begun + self.timestep * np.arange(1, steps + 1)).reshape(*groups, 1)
            else:
                x = raw[field].reshape(*groups, -1)[..., start : start + size]
            if reduce == "last":
                out[name] = x[:, :, -1].copy()
            elif reduce == "all":
                out[name] = x.copy()
            else:
                out[name] = getattr(x, reduce)(axis=2)
        return out

    def read(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        self._batch.forward()
        out = {}
        for name in names:
            field, start, size = self._source(name)
            out[name] = np.asarray(self._batch.bind(field)).reshape(self.n, -1)[:, start : start + size].copy()
        return out

    # parameters -------------------------------------------------------------------------------------------

    def settable(self) -> list[str]:
        return list(_SETTABLE)

    def get(self, name: str) -> NDArray[np.float64]:
        self._check_settable(name)
        if name in self._fields:
            return self._fields[name].copy()
        return np.repeat(self._own_value(name)[None], self.n, axis=0)

    def set(self, values: Mapping[str, NDArray[np.float64]]) -> None:
        for name in values:
            self._check_settable(name)
        for name, x in values.items():
            v = np.asarray(x, float).reshape(len(x), -1)
            if v.shape[0] != self.n or not np.all(np.isfinite(v)):
                raise InputError(
                    f"{name}: values of shape {np.shape(x)}",
                    allowed=f"finite, ({self.n},) or ({self.n}, k)",
                    where="set",
                )
            self._fields[name] = v
            self._apply(name, v)
        if values:
            self._batch.set_const()

    def _apply(self, name: str, v: NDArray[np.float64]) -> None:
        kind, item, field = _split(name)
        i, b, m = self._id(kind, item), self._batch, self.model
        if field == "mass":
            b.expand("body_mass")[:, i] = v[:, 0]
            self._inertia(i)
        elif field == "friction":
            b.expand("geom_friction")[:, i, : v.shape[1]] = v
        elif field == "size_scale":
            b.expand("geom_size")[:, i] = m.geom_size[i] * v
            b.expand("geom_rbound")[:, i] = m.geom_rbound[i] * v[:, 0]
            aabb = m.geom_aabb[i].reshape(-1)
            b.expand("geom_aabb").reshape(self.n, m.ngeom, -1)[:, i] = aabb * v
            self._inertia(int(m.geom_bodyid[i]))
        elif field == "solref":
            b.expand("geom_solref")[:, i] = v
        elif kind == "joint":
            dof, size = self._joint(item, "velocity")
            b.expand(f"dof_{field}")[:, dof : dof + size] = v
        elif field == "gain":
            own = m.actuator_gainprm[i, 0]
            b.expand("actuator_gainprm")[:, i, 0] = v[:, 0]
            if m.actuator_biasprm[i, 1] != 0:  # position servo: stiffness and damping follow the gain
                ratio = v[:, 0] / own
                b.expand("actuator_biasprm")[:, i, 1] = m.actuator_biasprm[i, 1] * ratio
                b.expand("actuator_biasprm")[:, i, 2] = m.actuator_biasprm[i, 2] * ratio
        elif field in ("position_gain", "velocity_gain"):  # of an affine gain: force = (g0 + g1 q + g2 qd) ctrl
            b.expand("actuator_gainprm")[:, i, 1 if field == "position_gain" else 2] = v[:, 0]
        elif field == "force_limit":
            limits = b.expand("actuator_forcerange" if kind == "actuator" else "tendon_actfrcrange")
            limits[:, i] = np.stack([-v[:, 0], v[:, 0]], axis=1)

    def _inertia(self, body: int) -> None:
        """Inertia follows mass (ratio) and the uniform scale of the body's geom (squared)."""
        mass = self._batch.expand("body_mass")[:, body] / self.model.body_mass[body]
        scale = np.ones(self.n)
        for g in range(self.model.ngeom):
            name = f"geom:{self.model.geom(g).name}.size_scale"
            if self.model.geom_bodyid[g] == body and name in self._fields:
                scale = self._fields[name][:, 0]
        self._batch.expand("body_inertia")[:, body] = self.model.body_inertia[body] * (mass * scale**2)[:, None]

    def _own_value(self, name: str) -> NDArray[np.float64]:
        kind, item, field = _split(name)
        i, m = self._id(kind, item), self.model
        if kind == "joint":
            dof, size = self._joint(item, "velocity")
            return np.atleast_1d(getattr(m, f"dof_{field}")[dof : dof + size]).astype(float)
        own: dict[str, Any] = {
            "mass": lambda: m.body_mass[i],
            "friction": lambda: m.geom_friction[i],
            "size_scale": lambda: 1.0,
            "solref": lambda: m.geom_solref[i],
            "gain": lambda: m.actuator_gainprm[i, 0],
            "position_gain": lambda: m.actuator_gainprm[i, 1],
            "velocity_gain": lambda: m.actuator_gainprm[i, 2],
            "force_limit": lambda: (m.actuator_forcerange if kind == "actuator" else m.tendon_actfrcrange)[i, 1],
        }
        return np.atleast_1d(own[field]()).astype(float)

    def _check_settable(self, name: str) -> None:
        kind, item, field = _split(name)
        if f"{kind}:NAME.{field}" not in _SETTABLE:
            raise Unsupported(f"cannot set {name!r}", where="engine mujoco", allowed=", ".join(_SETTABLE))
        self._id(kind, item)

    # names ------------------------------------------------------------------------------------------------

    def _id(self, kind: str, item: str) -> int:
        if kind not in _KINDS:
            raise Missing.named("kind of element", kind, _KINDS, where="engine mujoco")
        i = mujoco.mj_name2id(self.model, _KINDS[kind], item)
        if i < 0:
            counts = {"joint": "njnt", "actuator": "nu"}
            access = getattr(self.model, kind)
            names = [access(k).name for k in range(getattr(self.model, counts.get(kind, f"n{kind}")))]
            raise Missing.named(kind, item, names, where="engine mujoco")
        return int(i)

    def _joint(self, name: str, field: str) -> tuple[int, int]:
        i = self._id("joint", name)
        kind = mujoco.mjtJoint(self.model.jnt_type[i])
        if field == "position":
            return int(self.model.jnt_qposadr[i]), _NQ.get(kind, 1)
        return int(self.model.jnt_dofadr[i]), _NV.get(kind, 1)

    def _source(self, name: str) -> tuple[str, int, int]:
        """Where a readable field lives: MjData field, offset, size."""
        if name not in self._sources:
            self._sources[name] = self._find(name)
        return self._sources[name]

    def _find(self, name: str) -> tuple[str, int, int]:
        if name == "time":
            return "time", 0, 1
        kind, item, field = _split(name)
        if kind == "joint" and field in ("position", "velocity"):
            start, size = self._joint(item, field)
            return ("qpos" if field == "position" else "qvel"), start, size
        i = self._id(kind, item)
        if kind == "sensor":
            return "sensordata", int(self.model.sensor_adr[i]), int(self.model.sensor_dim[i])
        if kind == "body" and field in ("position", "quat"):
            size = 3 if field == "position" else 4
            return ("xpos" if field == "position" else "xquat"), i * size, size
        if kind == "actuator" and field == "force":
            return "actuator_force", i, 1
        readable = "time, joint:NAME.position|velocity, body:NAME.position|quat, sensor:NAME, actuator:NAME.force"
        raise Unsupported(f"cannot read {name!r}", where="engine mujoco", allowed=readable)


def _split(name: str) -> tuple[str, str, str]:
    kind, _, rest = name.partition(":")
    if kind == "sensor":
        return kind, rest, ""
    item, _, field = rest.rpartition(".")
    return kind, item, field
