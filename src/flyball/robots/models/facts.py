"""Facts of a compiled model.

In: a ``mujoco.MjModel``. Out: ``Model``. MuJoCo moves meshes into their principal frame and inertias onto their
principal axes when it compiles; both are turned back here, so that facts compare across formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from flyball.robots.models.model import (
    WORLD,
    Actuator,
    Array,
    Body,
    Camera,
    Equality,
    Exclude,
    Geom,
    Joint,
    Keyframe,
    Light,
    Mesh,
    Model,
    Pair,
    Sensor,
    Site,
    Tendon,
)

T = TypeVar("T")
_OPTION = ("timestep", "gravity", "wind", "magnetic", "density", "viscosity", "impratio")
_NQ = {"free": 7, "ball": 4}
_NV = {"free": 6, "ball": 3}


def rotation(quat: Array) -> Array:
    """Rotation matrix (3, 3) of a quaternion wxyz (4,); it need not be normalised."""
    w, x, y, z = np.asarray(quat, float) / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def multiply(a: Array, b: Array) -> Array:
    """Product of two quaternions wxyz, (4,)."""
    w, v = a[0] * b[0] - a[1:] @ b[1:], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return np.concatenate([[w], v])


def conjugate(quat: Array) -> Array:
    """Inverse of a unit quaternion wxyz, (4,)."""
    return np.asarray(quat, float) * np.array([1.0, -1.0, -1.0, -1.0])


def facts(m: Any) -> Model:
    """The facts of a compiled ``mujoco.MjModel``."""
    return _Reader(m).model()


class _Reader:
    """Names and enumerations of one compiled model."""

    def __init__(self, m: Any) -> None:
        import mujoco

        self.m, self._mj = m, mujoco
        o = mujoco.mjtObj
        count = {"actuator": m.nactuator, "joint": m.njnt, "camera": m.ncam, "equality": m.neq, "mesh": m.nmesh}
        count |= {
            k: getattr(m, f"n{k}") for k in ("body", "geom", "site", "tendon", "light", "sensor", "key", "hfield")
        }
        self._type = {k: getattr(o, f"mjOBJ_{k.upper()}") for k in count}
        self.names = {k: [self._own_name(k, i) for i in range(n)] for k, n in count.items()}
        at: dict[tuple[str, int], int] = {}

        def place(kind: str, i: int, body: int) -> str:
            at[kind, body] = at.get((kind, body), -1) + 1
            return f"{self.names['body'][body]}/{kind}{at[kind, body]}"

        for i, name in enumerate(self.names["body"]):
            self.names["body"][i] = name or f"{self.names['body'][m.body_parentid[i]]}/body{i}"
        for kind, owner in (("joint", m.jnt_bodyid), ("geom", m.geom_bodyid), ("site", m.site_bodyid)):
            self.names[kind] = [x or place(kind, i, int(owner[i])) for i, x in enumerate(self.names[kind])]
        for kind in ("camera", "light"):
            owner = m.cam_bodyid if kind == "camera" else m.light_bodyid
            self.names[kind] = [x or place(kind, i, int(owner[i])) for i, x in enumerate(self.names[kind])]
        for kind in ("actuator", "mesh", "tendon", "sensor", "key", "hfield"):
            self.names[kind] = [x or f"{kind}{i}" for i, x in enumerate(self.names[kind])]

    def _own_name(self, kind: str, i: int) -> str:
        return self._mj.mj_id2name(self.m, self._type[kind], i) or ""

    def _word(self, enum: str, value: int) -> str:
        """The last part of an enumeration's name, in small letters."""
        return str(getattr(self._mj, enum)(int(value)).name.split("_", 1)[1].lower())

    def _flags(self, enum: str, bits: int) -> str:
        """Words for the bits that are set, in alphabetical order."""
        members = getattr(self._mj, enum).__members__.items()
        words = [name.split("_", 1)[1].lower() for name, bit in members if "_" in name and int(bits) & int(bit.value)]
        return " ".join(sorted(words))

    def _object(self, kind: int, i: int) -> tuple[str, str]:
        """(kind, name) of an object that something refers to."""
        word = self._word("mjtObj", kind)
        if word == "unknown" or i < 0:
            return "", ""
        table = "body" if word == "xbody" else word
        return word, self.names[table][i] if table in self.names else f"{word}{i}"

    def model(self) -> Model:
        m = self.m
        opt: dict[str, Any] = {k: np.array(getattr(m.opt, k), float) for k in _OPTION}
        opt |= {"integrator": self._word("mjtIntegrator", m.opt.integrator), "cone": self._word("mjtCone", m.opt.cone)}
        opt |= {
            "disable": self._flags("mjtDisableBit", m.opt.disableflags),
            "enable": self._flags("mjtEnableBit", m.opt.enableflags),
        }
        others = {
            "flexes": m.nflex,
            "skins": m.nskin,
            "textures": m.ntex,
            "height fields": m.nhfield,
            "plug-ins": m.nplugin,
            "tuples": m.ntuple,
            "custom numbers": m.nnumeric,
            "custom texts": m.ntext,
        }
        return Model(
            name=m.names[: m.names.index(b"\0")].decode("utf-8", "replace"),
            bodies=_table(self._body(i) for i in range(1, m.nbody)),
            joints=_table(self._joint(i) for i in range(m.njnt)),
            geoms=_table(self._geom(i) for i in range(m.ngeom)),
            meshes=_table(self._mesh(i) for i in range(m.nmesh)),
            sites=_table(self._site(i) for i in range(m.nsite)),
            actuators=_table(self._actuator(i) for i in range(m.nactuator)),
            equalities=_table(self._equality(i) for i in range(m.neq)),
            excludes=_table(Exclude(self._signature(s, "body")) for s in m.exclude_signature),
            pairs=_table(self._pair(i) for i in range(m.npair)),
            tendons=_table(self._tendon(i) for i in range(m.ntendon)),
            cameras=_table(self._camera(i) for i in range(m.ncam)),
            lights=_table(self._light(i) for i in range(m.nlight)),
            sensors=_table(self._sensor(i) for i in range(m.nsensor)),
            keyframes=_table(self._key(i) for i in range(m.nkey)),
            option=opt,
            start={j: self._qpos(m.qpos0, i) for i, j in enumerate(self.names["joint"])},
            uncovered=tuple(f"{text} ({n})" for text, n in others.items() if n),
        )

    def _body(self, i: int) -> Body:
        m = self.m
        r = rotation(m.body_iquat[i])
        return Body(
            name=self.names["body"][i],
            parent=self.names["body"][m.body_parentid[i]],
            pos=m.body_pos[i].copy(),
            quat=m.body_quat[i].copy(),
            mass=float(m.body_mass[i]),
            com=m.body_ipos[i].copy() if m.body_mass[i] > 0 else np.zeros(3),
            inertia=r @ np.diag(m.body_inertia[i]) @ r.T,
            gravcomp=float(m.body_gravcomp[i]),
            mocap=bool(m.body_mocapid[i] >= 0),
        )

    def _joint(self, i: int) -> Joint:
        m = self.m
        kind = self._word("mjtJoint", m.jnt_type[i])
        dof, start = int(m.jnt_dofadr[i]), int(m.jnt_qposadr[i])
        oriented = kind in ("hinge", "slide")
        return Joint(
            name=self.names["joint"][i],
            body=self.names["body"][m.jnt_bodyid[i]],
            kind=kind,
            axis=m.jnt_axis[i].copy() if oriented else np.zeros(3),
            anchor=m.jnt_pos[i].copy() if kind != "free" else np.zeros(3),
            range=_range(m.jnt_range[i], m.jnt_limited[i]),
            effort=_range(m.jnt_actfrcrange[i], m.jnt_actfrclimited[i]),
            damping=float(m.dof_damping[dof]),
            damping_poly=m.dof_dampingpoly[dof].copy(),
            armature=float(m.dof_armature[dof]),
            frictionloss=float(m.dof_frictionloss[dof]),
            stiffness=float(m.jnt_stiffness[i]),
            stiffness_poly=m.jnt_stiffnesspoly[i].copy(),
            springref=m.qpos_spring[start : start + 1].copy() if oriented else np.zeros(1),
            ref=m.qpos0[start : start + 1].copy() if oriented else np.zeros(1),
            margin=float(m.jnt_margin[i]),
            solref=m.jnt_solref[i].copy(),
            solimp=m.jnt_solimp[i].copy(),
            friction_solref=m.dof_solref[dof].copy(),
            friction_solimp=m.dof_solimp[dof].copy(),
            gravcomp_in_effort=bool(m.jnt_actgravcomp[i]),
        )

    def _geom(self, i: int) -> Geom:
        m = self.m
        kind = self._word("mjtGeom", m.geom_type[i])
        pos, quat, data = m.geom_pos[i].copy(), m.geom_quat[i].copy(), int(m.geom_dataid[i])
        mesh = ""
        size = m.geom_size[i].copy()
        if data >= 0 and kind in ("mesh", "sdf"):
            mesh, size = self.names["mesh"][data], np.zeros(3)
            quat = multiply(quat, conjugate(m.mesh_quat[data]))
            pos = pos - rotation(quat) @ m.mesh_pos[data]
        elif data >= 0 and kind == "hfield":
            mesh = self.names["hfield"][data]
        return Geom(
            name=self.names["geom"][i],
            body=self.names["body"][m.geom_bodyid[i]],
            kind=kind,
            pos=pos,
            quat=quat,
            size=size * _SIZES.get(kind, 1),
            friction=m.geom_friction[i].copy(),
            condim=int(m.geom_condim[i]),
            contype=int(m.geom_contype[i]),
            conaffinity=int(m.geom_conaffinity[i]),
            priority=int(m.geom_priority[i]),
            margin=float(m.geom_margin[i]),
            gap=float(m.geom_gap[i]),
            solref=m.geom_solref[i].copy(),
            solimp=m.geom_solimp[i].copy(),
            solmix=float(m.geom_solmix[i]),
            mesh=mesh,
            rgba=m.geom_rgba[i].astype(float) if m.geom_matid[i] < 0 else m.mat_rgba[m.geom_matid[i]].astype(float),
            group=int(m.geom_group[i]),
            other=np.concatenate([m.geom_fluid[i], m.geom_surfacevel[i], [m.geom_adhesion[i]]]),
        )

    def _mesh(self, i: int) -> Mesh:
        m = self.m
        first, n = int(m.mesh_vertadr[i]), int(m.mesh_vertnum[i])
        face, k = int(m.mesh_faceadr[i]), int(m.mesh_facenum[i])
        r = rotation(m.mesh_quat[i])
        vertices = m.mesh_vert[first : first + n].astype(float) @ r.T + m.mesh_pos[i]
        faces = m.mesh_face[face : face + k].astype(np.int64)
        # single precision vertices: 1e-5 of the size is two orders above their rounding
        step = 1e-5 * max(float(np.ptp(vertices, axis=0).max()) if n else 0.0, 1e-12)
        digest = hashlib.sha256(np.round(vertices / step).astype(np.int64).tobytes() + faces.tobytes()).hexdigest()
        return Mesh(self.names["mesh"][i], vertices, faces, digest)

    def _site(self, i: int) -> Site:
        m = self.m
        kind = self._word("mjtGeom", m.site_type[i])
        return Site(
            name=self.names["site"][i],
            body=self.names["body"][m.site_bodyid[i]],
            kind=kind,
            pos=m.site_pos[i].copy(),
            quat=m.site_quat[i].copy(),
            size=m.site_size[i] * _SIZES.get(kind, 1),
        )

    def _actuator(self, i: int) -> Actuator:
        m = self.m
        kind = self._word("mjtTrn", m.actuator_trntype[i])
        one, two = (int(x) for x in m.actuator_trnid[i])
        table = {"jointinparent": "joint", "slidercrank": "site"}.get(kind, kind)
        names = self.names.get(table, [])
        c = int(m.actuator_ctrladr[i])
        return Actuator(
            name=self.names["actuator"][i],
            target_kind={"jointinparent": "joint_in_parent", "slidercrank": "slider_crank"}.get(kind, kind),
            target=names[one] if 0 <= one < len(names) else "",
            second=self.names["site"][two] if kind in ("site", "slidercrank") and two >= 0 else "",
            gear=m.actuator_gear[i].copy(),
            dynamics=self._word("mjtDyn", m.actuator_dyntype[i]),
            dynamics_prm=m.actuator_dynprm[i].copy(),
            gain=self._word("mjtGain", m.actuator_gaintype[i]),
            gain_prm=m.actuator_gainprm[i].copy(),
            bias=self._word("mjtBias", m.actuator_biastype[i]),
            bias_prm=m.actuator_biasprm[i].copy(),
            ctrlrange=_range(np.ravel(m.actuator_ctrlrange[c]), m.actuator_ctrllimited[c]),
            forcerange=_range(np.ravel(m.actuator_forcerange[i]), m.actuator_forcelimited[i]),
            actrange=_range(np.ravel(m.actuator_actrange[i]), m.actuator_actlimited[i]),
            controls=int(m.actuator_ctrlnum[i]),
            other=np.concatenate(
                [
                    [m.actuator_cranklength[i], m.actuator_delay[i], m.actuator_armature[i], m.actuator_damping[i]],
                    m.actuator_dampingpoly[i],
                ]
            ),
        )

    def _equality(self, i: int) -> Equality:
        m = self.m
        kind = self._word("mjtEq", m.eq_type[i])
        if kind in ("joint", "tendon"):  # MuJoCo leaves the object's type open here
            objects, names, used = kind, self.names[kind], 5
            first, second = (names[k] if k >= 0 else "" for k in (int(m.eq_obj1id[i]), int(m.eq_obj2id[i])))
        else:
            objects, first = self._object(m.eq_objtype[i], int(m.eq_obj1id[i]))
            second, used = self._object(m.eq_objtype[i], int(m.eq_obj2id[i]))[1], 11
        name = self.names["equality"][i]
        return Equality(
            name=name or f"{kind}:{first}|{second}",
            kind=kind,
            object_kind=objects,
            first=first,
            second=second,
            data=np.concatenate([m.eq_data[i].astype(float)[:used], np.zeros(11 - used)]),
            active=bool(m.eq_active0[i]),
            solref=m.eq_solref[i].copy(),
            solimp=m.eq_solimp[i].copy(),
        )

    def _signature(self, signature: int, kind: str) -> str:
        pair = sorted(self.names[kind][k] for k in divmod(int(signature), 1 << 16))
        return "|".join(pair)

    def _pair(self, i: int) -> Pair:
        m = self.m
        names = sorted(self.names["geom"][int(k)] for k in (m.pair_geom1[i], m.pair_geom2[i]))
        return Pair(
            name="|".join(names),
            condim=int(m.pair_dim[i]),
            friction=m.pair_friction[i].copy(),
            margin=float(m.pair_margin[i]),
            gap=float(m.pair_gap[i]),
            solref=m.pair_solref[i].copy(),
            solimp=m.pair_solimp[i].copy(),
            solref_friction=m.pair_solreffriction[i].copy(),
        )

    def _tendon(self, i: int) -> Tendon:
        m = self.m
        path = []
        for k in range(int(m.tendon_adr[i]), int(m.tendon_adr[i]) + int(m.tendon_num[i])):
            word = self._word("mjtWrap", m.wrap_type[k])
            table = {"sphere": "geom", "cylinder": "geom"}.get(word, word)
            name = self.names[table][m.wrap_objid[k]] if table in self.names else ""
            side = m.wrap_prm[k]
            if table == "geom":
                side = float(side)
                path.append((word, f"{name}@{self.names['site'][int(side)]}" if side >= 0 else name, 0.0))
            else:
                path.append((word, name, float(side)))
        return Tendon(
            name=self.names["tendon"][i],
            path=tuple(path),
            range=_range(m.tendon_range[i], m.tendon_limited[i]),
            effort=_range(m.tendon_actfrcrange[i], m.tendon_actfrclimited[i]),
            stiffness=float(m.tendon_stiffness[i]),
            damping=float(m.tendon_damping[i]),
            frictionloss=float(m.tendon_frictionloss[i]),
            armature=float(m.tendon_armature[i]),
            springlength=m.tendon_lengthspring[i].copy(),
            margin=float(m.tendon_margin[i]),
            solver=np.concatenate(
                [
                    m.tendon_solref_lim[i],
                    m.tendon_solimp_lim[i],
                    m.tendon_solref_fri[i],
                    m.tendon_solimp_fri[i],
                    m.tendon_stiffnesspoly[i],
                    m.tendon_dampingpoly[i],
                ]
            ),
        )

    def _camera(self, i: int) -> Camera:
        m = self.m
        own = bool(np.any(m.cam_sensorsize[i] > 0))
        mode = self._word("mjtCamLight", m.cam_mode[i])
        target = int(m.cam_targetbodyid[i])
        return Camera(
            name=self.names["camera"][i],
            body=self.names["body"][m.cam_bodyid[i]],
            pos=m.cam_pos[i].copy(),
            quat=m.cam_quat[i].copy(),
            fovy=0.0 if own else float(m.cam_fovy[i]),
            intrinsic=m.cam_intrinsic[i].astype(float) if own else np.zeros(4),
            sensor=m.cam_sensorsize[i].astype(float),
            resolution=m.cam_resolution[i].astype(float),
            mode=mode,
            target=self.names["body"][target] if target >= 0 else "",
            orthographic=self._word("mjtProjection", m.cam_projection[i]) == "orthographic",
        )

    def _light(self, i: int) -> Light:
        m = self.m
        target = int(m.light_targetbodyid[i])
        last = (m.light_cutoff, m.light_exponent, m.light_bulbradius, m.light_intensity, m.light_range)
        return Light(
            name=self.names["light"][i],
            body=self.names["body"][m.light_bodyid[i]],
            kind=self._word("mjtLightType", m.light_type[i]),
            pos=m.light_pos[i].copy(),
            dir=m.light_dir[i].copy(),
            mode=self._word("mjtCamLight", m.light_mode[i]),
            target=self.names["body"][target] if target >= 0 else "",
            active=bool(m.light_active[i]),
            castshadow=bool(m.light_castshadow[i]),
            ambient=m.light_ambient[i].astype(float),
            diffuse=m.light_diffuse[i].astype(float),
            specular=m.light_specular[i].astype(float),
            attenuation=m.light_attenuation[i].astype(float),
            other=np.array([float(x[i]) for x in last]),
        )

    def _sensor(self, i: int) -> Sensor:
        m = self.m
        on = self._object(m.sensor_objtype[i], int(m.sensor_objid[i]))
        relative = self._object(m.sensor_reftype[i], int(m.sensor_refid[i]))
        return Sensor(
            name=self.names["sensor"][i],
            kind=self._word("mjtSensor", m.sensor_type[i]),
            object_kind=on[0],
            object=on[1],
            reference_kind=relative[0],
            reference=relative[1],
            cutoff=float(m.sensor_cutoff[i]),
            noise=float(m.sensor_noise[i]),
            other=np.array(
                [*map(float, m.sensor_intprm[i]), float(m.sensor_delay[i]), float(np.ravel(m.sensor_interval[i])[0])]
            ),
        )

    def _key(self, i: int) -> Keyframe:
        m = self.m
        act, ctrl = {}, {}
        for k, name in enumerate(self.names["actuator"]):
            a, c = int(m.actuator_actadr[k]), int(m.actuator_ctrladr[k])
            if a >= 0:
                act[name] = m.key_act[i, a : a + int(m.actuator_actnum[k])].copy()
            ctrl[name] = m.key_ctrl[i, c : c + int(m.actuator_ctrlnum[k])].copy()
        mocap = {}
        for b, k in enumerate(m.body_mocapid):
            if k >= 0:
                parts = (m.key_mpos[i].reshape(-1, 3)[k], m.key_mquat[i].reshape(-1, 4)[k])
                mocap[self.names["body"][b]] = np.concatenate(parts)
        joints = self.names["joint"]
        return Keyframe(
            name=self.names["key"][i],
            time=float(m.key_time[i]),
            qpos={j: self._qpos(m.key_qpos[i], k) for k, j in enumerate(joints)},
            qvel={j: self._qvel(m.key_qvel[i], k) for k, j in enumerate(joints)},
            act=act,
            ctrl=ctrl,
            mocap=mocap,
        )

    def _qpos(self, row: Array, joint: int) -> Array:
        at = int(self.m.jnt_qposadr[joint])
        return row[at : at + _NQ.get(self._word("mjtJoint", self.m.jnt_type[joint]), 1)].copy()

    def _qvel(self, row: Array, joint: int) -> Array:
        at = int(self.m.jnt_dofadr[joint])
        return row[at : at + _NV.get(self._word("mjtJoint", self.m.jnt_type[joint]), 1)].copy()


_SIZES: dict[str, Array] = {
    "sphere": np.array([1.0, 0.0, 0.0]),
    "capsule": np.array([1.0, 1.0, 0.0]),
    "cylinder": np.array([1.0, 1.0, 0.0]),
}
"""Which of the three sizes count."""


def _range(values: Array, limited: Any) -> Array:
    return np.array(values, float) if limited else np.array([-np.inf, np.inf])


def _table(elements: Iterable[T]) -> dict[str, T]:
    """Elements by name; a name that comes twice (excludes may) gets a number."""
    out: dict[str, T] = {}
    name: Callable[[Any], str] = lambda e: e.name  # noqa: E731
    for element in elements:
        key, n = name(element), 2
        while key in out:
            key, n = f"{name(element)}#{n}", n + 1
        out[key] = element
    return out


__all__ = ["WORLD", "conjugate", "facts", "multiply", "rotation"]
