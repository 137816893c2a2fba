"""One hinge, all worlds at once in numpy.

In: the MJCF of a mechanism with a single hinge, per-world fields, controls per substep. Out: stepped worlds, 20 to 40
times as many a second as a general engine, and fields that a general engine has no name for: friction that grows with
the torque of the drive and with the torque of the load, as in geared servos, and less of it once it slides (Stribeck;
arXiv 2410.08650, "Extended friction models"); a drive whose torque goes as a power of the position error, as the
authors of that model report of servos' firmware; a motor whose circuit has more resistance than its cold winding.
Everything else follows MuJoCo's meaning of the same model; contact is ignored.

    (I + armature) dv/dt = motor + gravity(q) - damping v - friction
    |friction| <= (frictionloss + drive_friction |motor| + load_friction |gravity(q)|) (1 + stribeck exp(-(v / w)^2))
    motor = (pull - back_emf v) / (1 + heating + source_resistance (pull / limit)^2)
    pull of a tendon = k e |e / e0|^(error_exponent - 1) within its limits, e = sum of its actuators' forces / k

with w = 0.2 rad/s, e0 = 0.1 rad and k the stiffness of those actuators. ``back_emf`` is that of actuators without a
limit whose force is linear in velocity. Of a bridge that passes a share d = pull / limit of each period, the supply
sees d times the current of the motor, so what is in series with the supply counts d^2 times; ``source_resistance`` is
its ratio to the winding's, ``heating`` by how much a warm winding has more. Neutral values are 0; of the exponent, 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines import portable
from flyball.engines.engine import Level, Reduce
from flyball.engines.portable import JointLayout, Layout, PortableState
from flyball.scenes import Scene

Array = NDArray[np.float64]

_JOINT = (
    "damping",
    "armature",
    "frictionloss",
    "drive_friction",
    "load_friction",
    "stribeck",
    "heating",
    "source_resistance",
)
_SLIDING = 0.2
"""Speed at which most of the excess of static over sliding friction is gone [rad/s]."""
_ERROR, _STEEP = 0.1, 0.001
"""Error at which a power law is what a linear one is; below the second it goes on linearly, since an exponent below 1
has no finite slope at 0 [rad]."""
_BLOCK = 32  # steps whose controls are gathered at once
_ACTUATOR = ("gain", "position_gain", "velocity_gain", "force_limit")


class ServoEngine:
    """The engine for single-joint rigs."""

    name = "servo"
    version = f"1+mujoco.{mujoco.__version__}"  # MuJoCo compiles the model, nothing more
    capabilities: Mapping[str, Level] = {
        "rigid": "approximate",
        "contact": "unsupported",
        "per_world_parameters": "exact",
        "save_restore": "exact",
        "load_friction": "exact",
    }

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> ServoSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``. ``threads`` has no effect.

        Raises:
          Unsupported: the model has more than one joint, or actuators other than affine ones on it.
        """
        scene.rigid_only("engine servo")
        try:
            model = mujoco.MjModel.from_xml_string(scene.model)
        except ValueError as err:
            raise InputError(f"the model does not compile: {err}", where=f"scene {scene.name}") from err
        for key, value in (options or {}).items():
            if key == "timestep" and isinstance(value, (int, float)) and 0 < value <= 0.1:
                model.opt.timestep = value
            else:
                raise Unsupported(f"option {key} = {value!r}", where="engine servo", allowed="timestep (0, 0.1] s")
        return ServoSimulation(model, n, scene.name)


class ServoSimulation:
    """n worlds of one joint; see ``flyball.engines.Simulation`` for the contract."""

    def __init__(self, model: mujoco.MjModel, n: int, name: str) -> None:
        _check(model, name)
        self.n, self.timestep = n, float(model.opt.timestep)
        self.joint = model.joint(0).name
        self._actuators = [model.actuator(i).name for i in range(model.nu)]
        self._tendons = [model.tendon(i).name for i in range(model.ntendon)]
        # Reach of each actuator: its tendon (index) or the joint itself (-1), and length per unit of joint position.
        self._on = [int(model.actuator_trnid[i, 0]) if _is_tendon(model, i) else -1 for i in range(model.nu)]
        self._coef = [float(model.wrap_prm[model.tendon_adr[t]]) for t in range(model.ntendon)]
        self._reach = [self._coef[t] if t >= 0 else float(model.actuator_gear[i, 0]) for i, t in enumerate(self._on)]
        self._gain = model.actuator_gainprm[:, :3] * _affine(model.actuator_gaintype, model.actuator_gainprm)
        self._bias = model.actuator_biasprm[:, :3] * (model.actuator_biastype[:, None] == mujoco.mjtBias.mjBIAS_AFFINE)
        body = model.body(int(model.jnt_bodyid[0])).name
        bodies = (model.body(i).name for i in range(1, model.nbody))
        self.layout = Layout(
            (JointLayout(self.joint, "hinge", body),),
            tuple(self._actuators),
            tuple(filter(None, bodies)),
            {},
            tuple(self._tendons),
        )
        self._start = float(model.qpos0[0])
        self._inertia, self._gravity = _pendulum(model)
        self._fields: dict[str, Array] = {}
        self._own = {f"joint:{self.joint}.{f}": float(getattr(model, f"dof_{f}")[0]) for f in _JOINT[:3]}
        self._own |= {f"joint:{self.joint}.{f}": 0.0 for f in _JOINT[3:]}
        for i, a in enumerate(self._actuators):
            limit = model.actuator_forcerange[i, 1] if model.actuator_forcelimited[i] else np.inf
            self._own |= {
                f"actuator:{a}.{f}": float(x) for f, x in zip(_ACTUATOR, [*self._gain[i], limit], strict=True)
            }
        for i, t in enumerate(self._tendons):
            self._own[f"tendon:{t}.force_limit"] = (
                float(model.tendon_actfrcrange[i, 1]) if model.tendon_actfrclimited[i] else np.inf
            )
            self._own[f"tendon:{t}.error_exponent"] = 1.0
        self.reset()

    # state ------------------------------------------------------------------------------------------------

    def reset(self, worlds: NDArray[np.int64] | None = None) -> None:
        if worlds is None:
            self._state = np.zeros((self.n, 3))  # position, velocity, time
            self._failed = np.zeros(self.n, bool)
        rows = slice(None) if worlds is None else worlds
        self._state[rows] = (self._start, 0.0, 0.0)
        self._failed[rows] = False

    def place(self, joint: str, position: Array, worlds: NDArray[np.int64] | None = None) -> None:
        self._known("joint", joint)
        self._write(0, position, worlds)

    def push(self, joint: str, velocity: Array, worlds: NDArray[np.int64] | None = None) -> None:
        self._known("joint", joint)
        self._write(1, velocity, worlds)

    def _write(self, column: int, values: Array, worlds: NDArray[np.int64] | None) -> None:
        rows = self.n if worlds is None else len(worlds)
        v = np.asarray(values, float).reshape(-1)
        if v.size not in (1, rows) or not np.isfinite(v).all():
            raise InputError(
                f"joint:{self.joint}: values of shape {np.shape(values)}",
                where="engine servo",
                allowed=f"finite, ({rows}, 1)",
            )
        self._state[slice(None) if worlds is None else worlds, column] = v

    def save(self) -> Array:
        return self._state.copy()

    def restore(self, state: Array, worlds: NDArray[np.int64] | None = None) -> None:
        rows = self.n if worlds is None else len(worlds)
        if np.shape(state) != (rows, 3):
            raise InputError(f"a state of shape {np.shape(state)}", allowed=f"({rows}, 3)", where="restore")
        self._state[slice(None) if worlds is None else worlds] = state
        self._failed[slice(None) if worlds is None else worlds] = False

    def portable(self) -> tuple[PortableState, list[str]]:
        return portable.take(self), []

    def place_portable(self, state: PortableState, worlds: NDArray[np.int64] | None = None) -> list[str]:
        return portable.put(self, state, worlds)

    def status(self) -> NDArray[np.bool_]:
        return ~self._failed

    # stepping ---------------------------------------------------------------------------------------------

    def step(self, controls: Array, reads: Mapping[str, Reduce] | None = None) -> dict[str, Array]:
        out = self.rollout(controls, controls.shape[1], reads or {})
        return {name: x[:, 0] for name, x in out.items()}

    def rollout(self, controls: Array, every: int, reads: Mapping[str, Reduce]) -> dict[str, Array]:
        n, steps, nu = controls.shape
        if n != self.n or steps % every or nu != len(self._actuators):
            raise InputError(
                f"controls of shape {controls.shape}",
                allowed=f"({self.n}, a multiple of {every}, {len(self._actuators)})",
                where="rollout",
            )
        columns = {name: self._column(name) for name in reads}
        wanted = sorted(set(columns.values()))
        log = np.empty((len(wanted), n, steps))
        block = np.empty((len(wanted), _BLOCK, n))
        dt, law = self.timestep, _Law(self)
        q, v, t = self._state.T.copy()
        with np.errstate(all="ignore"):  # a world that is no longer finite stays so, and is put back below
            for start in range(0, steps, _BLOCK):
                end = min(start + _BLOCK, steps)
                # worlds side by side in memory, a block at a time: the caller's order would miss the cache every step
                for k, u in enumerate(np.ascontiguousarray(controls[:, start:end].transpose(1, 2, 0))):
                    drive, back, load, forces = law(u, q, v)
                    inertia = law.inertia + dt * (law.damping + back)
                    free = (law.inertia * v + dt * (drive + load)) / inertia
                    limit = dt * law.friction(drive - back * v, load, v) / inertia
                    v, t = free - np.minimum(np.maximum(free, -limit), limit), t + dt
                    q = q + dt * v
                    for row, column in enumerate(wanted):
                        block[row, k] = (q, v, t)[column] if column < 3 else forces[column - 3]
                log[:, :, start:end] = block[:, : end - start].transpose(0, 2, 1)
        self._failed |= ~(np.isfinite(v) & np.isfinite(q))
        held = self._failed
        log[:, held] = 0.0  # forces: a world that stands still
        for row, column in enumerate(wanted[:3]):
            if column < 3:
                log[row, held] = self._state[held, column, None]
        self._state = np.where(held[:, None], self._state, np.stack([q, v, t], axis=1))
        out = {}
        for name, reduce in reads.items():
            x = log[wanted.index(columns[name])].reshape(n, steps // every, every, 1)
            if reduce == "last":
                out[name] = x[:, :, -1].copy()
            else:
                out[name] = x.copy() if reduce == "all" else getattr(x, reduce)(axis=2)
        return out

    def lag(self, name: str) -> float:
        return self.timestep if self._column(name) >= 3 else 0.0

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        out = {}
        for name in names:
            column = self._column(name)
            if column >= 3:
                raise Unsupported(f"cannot read {name!r} outside a step", where="engine servo")
            out[name] = self._state[:, column : column + 1].copy()
        return out

    # parameters -------------------------------------------------------------------------------------------

    def settable(self) -> list[str]:
        return [
            *(f"joint:NAME.{f}" for f in _JOINT),
            *(f"actuator:NAME.{f}" for f in _ACTUATOR),
            "tendon:NAME.force_limit",
            "tendon:NAME.error_exponent",
        ]

    def facts(self) -> list[str]:
        return []

    def get(self, name: str) -> Array:
        self._check_settable(name)
        return self._fields[name].copy() if name in self._fields else np.full((self.n, 1), self._own[name])

    def set(self, values: Mapping[str, Array]) -> None:
        new = {}
        for name, x in values.items():
            self._check_settable(name)
            v = np.asarray(x, float).reshape(len(x), -1)
            if v.shape != (self.n, 1) or not np.all(np.isfinite(v)):
                raise InputError(f"{name}: values of shape {np.shape(x)}", allowed=f"finite, ({self.n},)", where="set")
            new[name] = v.copy()
        self._fields |= new

    def value(self, name: str) -> Array:
        """A settable field as (n,)."""
        return self.get(name)[:, 0]

    def _check_settable(self, name: str) -> None:
        if name not in self._own:
            raise Unsupported(f"cannot set {name!r}", where="engine servo", allowed=", ".join(sorted(self._own)))

    def _known(self, kind: str, name: str) -> None:
        if name != self.joint:
            raise Missing.named(kind, name, [self.joint], where="engine servo")

    def _column(self, name: str) -> int:
        """Where a readable field lives: 0 position, 1 velocity, 2 time, 3 + i force of actuator i."""
        columns = {f"joint:{self.joint}.position": 0, f"joint:{self.joint}.velocity": 1, "time": 2}
        columns |= {f"actuator:{a}.force": 3 + i for i, a in enumerate(self._actuators)}
        if name not in columns:
            raise Unsupported(f"cannot read {name!r}", where="engine servo", allowed=", ".join(columns))
        return columns[name]


class _Law:
    """Torques of all worlds, from fields gathered once per rollout."""

    def __init__(self, sim: ServoSimulation) -> None:
        joint = {f: sim.value(f"joint:{sim.joint}.{f}") for f in _JOINT}
        self.inertia, self.damping = sim._inertia + joint["armature"], joint["damping"]
        self._joint, self._gravity = joint, sim._gravity
        self._on, self._reach, self._coef = sim._on, sim._reach, sim._coef
        self._actuators = []
        for i, a in enumerate(sim._actuators):
            g0, g1, g2, limit = (sim.value(f"actuator:{a}.{f}") for f in _ACTUATOR)
            servo = f"actuator:{a}.gain" in sim._fields and sim._bias[i, 1] != 0
            # a position servo's stiffness and damping follow its gain
            ratio = g0 / sim._gain[i, 0] if servo else np.ones(sim.n)
            b0, b1, b2 = sim._bias[i, 0] * np.ones(sim.n), sim._bias[i, 1] * ratio, sim._bias[i, 2] * ratio
            r, bounded = self._reach[i], bool(np.isfinite(limit).any())
            terms = [x if x.any() else None for x in (g0, g1 * r, g2, b0, b1 * r, b2)]  # most are nought
            self._actuators.append((self._on[i], r, terms, limit if bounded else None, np.isinf(limit[0])))
        self._tendon_limit = [sim.value(f"tendon:{t}.force_limit") for t in sim._tendons]
        exponents = [sim.value(f"tendon:{t}.error_exponent") for t in sim._tendons]
        self._exponent = [None if (e == 1.0).all() else e for e in exponents]
        self._sticks = bool(joint["stribeck"].any())
        self._resists = bool(joint["heating"].any() or joint["source_resistance"].any())

    def friction(self, motor: Array, load: Array, v: Array) -> Array:
        """Largest friction torque [N m], (n,)."""
        j = self._joint
        sliding = j["frictionloss"] + j["drive_friction"] * np.abs(motor) + j["load_friction"] * np.abs(load)
        return sliding * (1 + j["stribeck"] * np.exp(-np.square(v / _SLIDING))) if self._sticks else sliding

    def __call__(self, u: Array, q: Array, v: Array) -> tuple[Array, Array, Array, list[Array]]:
        """Drive without back-EMF [N m], back-EMF [N m s], gravity torque [N m], each (n,), and force of each actuator.

        Args:
          u: controls, (nu, n).
          q, v: position and velocity, (n,).
        """
        drive, back, duty = np.zeros_like(q), np.zeros_like(q), np.zeros_like(q)
        pull, stiffness = ([np.zeros_like(q) for _ in self._tendon_limit] for _ in range(2))
        forces = []
        for (t, r, (g0, g1, g2, b0, b1, b2), limit, unlimited), ui in zip(self._actuators, u, strict=True):
            gain = _sum(g0, _times(g1, q))
            still = _sum(_sum(_times(gain, ui), b0), _times(b1, q))
            slope = _sum(_times(g2, ui), b2)
            slope = None if slope is None else slope * r
            force = _sum(still, _times(slope, v))
            force = np.zeros_like(q) if force is None else force
            if limit is not None:
                force = np.minimum(np.maximum(force, -limit), limit)
            forces.append(force)
            if t >= 0:
                pull[t] = pull[t] + force
                if self._exponent[t] is not None and (k := _sum(_times(g1, ui), b1)) is not None:
                    stiffness[t] = stiffness[t] - k
            elif unlimited:
                # Linear in velocity: implicit, like joint damping, hence stable at any gain.
                back = back if slope is None else back - r * slope
                drive = drive if still is None else drive + r * still
            else:
                drive = drive + r * force
        for total, k, limit, exponent, r in zip(
            pull, stiffness, self._tendon_limit, self._exponent, self._coef, strict=True
        ):
            if exponent is not None:
                error = np.abs(total) / np.maximum(k, 1e-12)  # a drive that is off pulls nothing either way
                total = total * (np.maximum(error, _STEEP) / _ERROR) ** (exponent - 1)
            total = np.minimum(np.maximum(total, -limit), limit)
            drive, duty = drive + r * total, total / limit
        if self._resists:
            ratio = 1 / (1 + self._joint["heating"] + self._joint["source_resistance"] * duty * duty)
            drive, back, forces = drive * ratio, back * ratio, [f * ratio for f in forces]
        amplitude, phase = self._gravity
        return drive, back, -amplitude * np.sin(q + phase), forces


def _times(a: Array | None, b: Array) -> Array | None:
    """Product, None standing for nought."""
    return None if a is None else a * b


def _sum(a: Array | None, b: Array | None) -> Array | None:
    """Sum, None standing for nought."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _is_tendon(model: mujoco.MjModel, i: int) -> bool:
    return bool(model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_TENDON)


def _affine(kind: NDArray[np.int32], gain: Array) -> Array:
    """Mask of the gain terms that count: all three when affine, the first when fixed."""
    mask = np.ones((len(kind), 3))
    mask[kind == mujoco.mjtGain.mjGAIN_FIXED, 1:] = 0
    return mask


def _check(model: mujoco.MjModel, name: str) -> None:
    """Refuse what this engine does not simulate."""
    transmissions = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_TENDON)
    plain = (
        model.nv == 1
        and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_HINGE
        and np.isin(model.actuator_trntype, transmissions).all()
        and np.isin(model.actuator_gaintype, (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE)).all()
        and np.isin(model.actuator_biastype, (mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE)).all()
        and (model.actuator_dyntype == mujoco.mjtDyn.mjDYN_NONE).all()
        and (model.actuator_gear[[_is_tendon(model, i) for i in range(model.nu)], 0] == 1).all()
        and (model.tendon_num == 1).all()
        and (model.wrap_type == mujoco.mjtWrap.mjWRAP_JOINT).all()
        and not model.jnt_limited.any()
        and not model.jnt_stiffness.any()
    )
    if not plain:
        raise Unsupported(
            "the model is more than one hinge with affine actuators",
            where=f"engine servo, scene {name}",
            allowed="one unlimited hinge, fixed or affine gains, no springs",
            run_next="the engine mujoco",
        )


def _pendulum(model: mujoco.MjModel) -> tuple[float, tuple[float, float]]:
    """Inertia about the hinge without armature [kg m^2], and (a, p) of gravity's torque -a sin(q + p) [N m, rad].

    Read off MuJoCo's own bias torque, a quarter turn apart.
    """
    data = mujoco.MjData(model)
    bias = []
    for q in (0.0, np.pi / 2):
        data.qpos[0] = q
        mujoco.mj_forward(model, data)
        bias.append(float(data.qfrc_bias[0]))
    inertia = np.zeros((1, 1))
    mujoco.mj_fullM(model, data, inertia)
    return float(inertia[0, 0] - model.dof_armature[0]), (
        float(np.hypot(bias[0], bias[1])),
        float(np.arctan2(bias[0], bias[1])),
    )
