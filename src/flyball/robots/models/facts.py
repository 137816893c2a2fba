"""Facts of a compiled model.

In: a ``mujoco.MjModel``. Out: ``Model``. MuJoCo moves meshes into their principal frame and inertias onto their
principal axes when it compiles; both are turned back here, so that facts compare across formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from flyball.robots.models.facts_mechanisms import Mechanisms
from flyball.robots.models.model import WORLD, Array, Body, Camera, Geom, Joint, Light, Mesh, Model, Site
from flyball.robots.models.naming import Naming, limits
from flyball.robots.models.remainder import colour, options, remainder
from flyball.robots.models.rotations import conjugate, multiply, rotation

T = TypeVar("T")


def facts(m: Any) -> Model:
    """The facts of a compiled ``mujoco.MjModel``."""
    return _Reader(Naming(m)).model()


class _Reader:
    """Reads one compiled model."""

    def __init__(self, naming: Naming) -> None:
        self.naming, self.m = naming, naming.m

    def model(self) -> Model:
        m, refers = self.m, Mechanisms(self.naming)
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
            actuators=_table(refers.actuator(i) for i in range(m.nactuator)),
            equalities=_table(refers.equality(i) for i in range(m.neq)),
            excludes=_table(refers.exclude(s) for s in m.exclude_signature),
            pairs=_table(refers.pair(i) for i in range(m.npair)),
            tendons=_table(refers.tendon(i) for i in range(m.ntendon)),
            cameras=_table(self._camera(i) for i in range(m.ncam)),
            lights=_table(self._light(i) for i in range(m.nlight)),
            sensors=_table(refers.sensor(i) for i in range(m.nsensor)),
            keyframes=_table(refers.keyframe(i) for i in range(m.nkey)),
            option=options(self.naming),
            start={j: refers.qpos(m.qpos0, i) for i, j in enumerate(self.naming.names["joint"])},
            uncovered=tuple(f"{text} ({n})" for text, n in others.items() if n),
            rest=remainder(self.naming),
        )

    def _body(self, i: int) -> Body:
        m = self.m
        r = rotation(m.body_iquat[i])
        return Body(
            name=self.naming.names["body"][i],
            parent=self.naming.names["body"][m.body_parentid[i]],
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
        kind = self.naming.word("mjtJoint", m.jnt_type[i])
        dof, start = int(m.jnt_dofadr[i]), int(m.jnt_qposadr[i])
        oriented = kind in ("hinge", "slide")
        return Joint(
            name=self.naming.names["joint"][i],
            body=self.naming.names["body"][m.jnt_bodyid[i]],
            kind=kind,
            axis=m.jnt_axis[i].copy() if oriented else np.zeros(3),
            anchor=m.jnt_pos[i].copy() if kind != "free" else np.zeros(3),
            range=limits(m.jnt_range[i], m.jnt_limited[i]),
            effort=limits(m.jnt_actfrcrange[i], m.jnt_actfrclimited[i]),
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
        kind = self.naming.word("mjtGeom", m.geom_type[i])
        pos, quat, data = m.geom_pos[i].copy(), m.geom_quat[i].copy(), int(m.geom_dataid[i])
        mesh = ""
        size = m.geom_size[i].copy()
        if data >= 0 and kind in ("mesh", "sdf"):
            mesh, size = self.naming.names["mesh"][data], np.zeros(3)
            quat = multiply(quat, conjugate(m.mesh_quat[data]))
            pos = pos - rotation(quat) @ m.mesh_pos[data]
        elif data >= 0 and kind == "hfield":
            mesh = self.naming.names["hfield"][data]
        return Geom(
            name=self.naming.names["geom"][i],
            body=self.naming.names["body"][m.geom_bodyid[i]],
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
            rgba=colour(m, m.geom_rgba[i], int(m.geom_matid[i])),
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
        return Mesh(self.naming.names["mesh"][i], vertices, faces, digest)

    def _site(self, i: int) -> Site:
        m = self.m
        kind = self.naming.word("mjtGeom", m.site_type[i])
        return Site(
            name=self.naming.names["site"][i],
            body=self.naming.names["body"][m.site_bodyid[i]],
            kind=kind,
            pos=m.site_pos[i].copy(),
            quat=m.site_quat[i].copy(),
            size=m.site_size[i] * _SIZES.get(kind, 1),
        )

    def _camera(self, i: int) -> Camera:
        m = self.m
        own = bool(np.any(m.cam_sensorsize[i] > 0))
        mode = self.naming.word("mjtCamLight", m.cam_mode[i])
        target = int(m.cam_targetbodyid[i])
        return Camera(
            name=self.naming.names["camera"][i],
            body=self.naming.names["body"][m.cam_bodyid[i]],
            pos=m.cam_pos[i].copy(),
            quat=m.cam_quat[i].copy(),
            fovy=0.0 if own else float(m.cam_fovy[i]),
            intrinsic=m.cam_intrinsic[i].astype(float) if own else np.zeros(4),
            sensor=m.cam_sensorsize[i].astype(float),
            resolution=m.cam_resolution[i].astype(float),
            mode=mode,
            target=self.naming.names["body"][target] if target >= 0 else "",
            orthographic=self.naming.word("mjtProjection", m.cam_projection[i]) == "orthographic",
        )

    def _light(self, i: int) -> Light:
        m = self.m
        target = int(m.light_targetbodyid[i])
        last = (m.light_cutoff, m.light_exponent, m.light_bulbradius, m.light_intensity, m.light_range)
        return Light(
            name=self.naming.names["light"][i],
            body=self.naming.names["body"][m.light_bodyid[i]],
            kind=self.naming.word("mjtLightType", m.light_type[i]),
            pos=m.light_pos[i].copy(),
            dir=m.light_dir[i].copy(),
            mode=self.naming.word("mjtCamLight", m.light_mode[i]),
            target=self.naming.names["body"][target] if target >= 0 else "",
            active=bool(m.light_active[i]),
            castshadow=bool(m.light_castshadow[i]),
            ambient=m.light_ambient[i].astype(float),
            diffuse=m.light_diffuse[i].astype(float),
            specular=m.light_specular[i].astype(float),
            attenuation=m.light_attenuation[i].astype(float),
            other=np.array([float(x[i]) for x in last]),
        )


_SIZES: dict[str, Array] = {
    "sphere": np.array([1.0, 0.0, 0.0]),
    "capsule": np.array([1.0, 1.0, 0.0]),
    "cylinder": np.array([1.0, 1.0, 0.0]),
}
"""Which of the three sizes count."""


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
