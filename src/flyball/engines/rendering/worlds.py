"""n worlds of one model as a renderer sees them.

In: MJCF, joint positions, fields that differ between worlds. Out: where every geom, light and camera is in each world,
and MuJoCo's own data of one world after another.

Positions are put through MuJoCo's kinematics here, so that everything in a picture has one time stamp, whichever engine
made the positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.rendering.skins import Skins
from flyball.scenes import Camera, Scene

Array = NDArray[np.float64]

VIEW = "flyball:view"
"""Name of the camera that is added to the model and stands wherever a picture is taken from."""
LAMP = "flyball:lamp"
"""Name of the light from above that a model gets which has none."""
GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)
"""Geom groups that are drawn, as in MuJoCo's own renderer: 3 to 5 are for collision shapes."""

_OBJECTS = {
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "material": mujoco.mjtObj.mjOBJ_MATERIAL,
    "light": mujoco.mjtObj.mjOBJ_LIGHT,
}
FIELDS = {
    "geom:NAME.rgba": "geom_rgba",
    "geom:NAME.size_scale": "geom_size",
    "geom:NAME.position": "geom_pos",
    "geom:NAME.quat": "geom_quat",
    "body:NAME.position": "body_pos",
    "body:NAME.quat": "body_quat",
    "material:NAME.rgba": "mat_rgba",
    "material:NAME.specular": "mat_specular",
    "material:NAME.shininess": "mat_shininess",
    "material:NAME.emission": "mat_emission",
    "light:NAME.position": "light_pos",
    "light:NAME.direction": "light_dir",
    "light:NAME.diffuse": "light_diffuse",
    "light:NAME.ambient": "light_ambient",
    "light:NAME.specular": "light_specular",
}
VARIABLE = (*FIELDS, "camera:NAME.position", "camera:NAME.quat")
"""What may differ between worlds: set per world, except ``size_scale``, which multiplies a primitive's own size."""
CLOSED = frozenset(
    int(kind)
    for kind in (
        mujoco.mjtGeom.mjGEOM_SPHERE,
        mujoco.mjtGeom.mjGEOM_CAPSULE,
        mujoco.mjtGeom.mjGEOM_ELLIPSOID,
        mujoco.mjtGeom.mjGEOM_CYLINDER,
        mujoco.mjtGeom.mjGEOM_BOX,
    )
)
"""Types of geoms whose size is all of their shape."""


@dataclass(frozen=True)
class Poses:
    """Where things are in n worlds. Rotations map their own frame to the world's; a camera's is OpenCV's frame C.

    Attributes:
      geom_position: (n, ngeom, 3) [m].
      geom_rotation: (n, ngeom, 3, 3).
      light_position: (n, nlight, 3) [m].
      light_direction: (n, nlight, 3).
      camera_position: (n, 3) [m].
      camera_rotation: (n, 3, 3).
    """

    geom_position: Array
    geom_rotation: Array
    light_position: Array
    light_direction: Array
    camera_position: Array
    camera_rotation: Array


class Worlds:
    """A model of its own, and data put to one world after another.

    Args:
      scene: or the MJCF of a model alone.
      assets: files that the model names, name -> bytes; a scene brings its own.
    """

    def __init__(self, scene: Scene | str, assets: Mapping[str, bytes] | None = None) -> None:
        mjcf, files, deformables = (
            (scene, {}, ()) if isinstance(scene, str) else (scene.model, scene.assets, scene.deformables)
        )
        self.skins = Skins(deformables)
        try:
            spec = mujoco.MjSpec.from_string(mjcf, assets={**files, **(assets or {})})
            spec.worldbody.add_camera(name=VIEW)
            dark = not spec.lights
            if dark:  # a spot: the shadow map of a directional light speckles surfaces that it grazes
                spec.worldbody.add_light(
                    name=LAMP, type=mujoco.mjtLightType.mjLIGHT_SPOT, cutoff=60, exponent=0, diffuse=(0.7, 0.7, 0.7),
                    ambient=(0.25, 0.25, 0.25), specular=(0.2, 0.2, 0.2),
                )  # fmt: skip
            self.skins.add(spec)
            self.model: mujoco.MjModel = spec.compile()
        except ValueError as err:
            raise InputError(f"the model does not compile: {err}", where="rendering") from err
        if dark:
            m = self.model
            away = np.array([-0.82, -0.66, 2.5])
            m.light_pos[-1] = m.stat.center + away * m.stat.extent
            m.light_dir[-1] = -away / np.linalg.norm(away)
        self.skins.find(self.model)
        self.data = mujoco.MjData(self.model)
        self.view: int = self.model.camera(VIEW).id
        self.n = 0
        self.positions: Array = np.zeros((0, self.model.nq))
        self._set: list[tuple[str, NDArray[np.intp], Array]] = []
        self._mocap: list[tuple[str, int, Array]] = []
        self._cameras: dict[str, Array] = {}
        self._own: dict[str, Array] = {}

    def load(
        self,
        positions: Array,
        vary: Mapping[str, Array],
        camera: Camera | None = None,
        particles: Mapping[str, Array] | None = None,
    ) -> None:
        """Take n worlds.

        Args:
          positions: joint positions as in MuJoCo's qpos, (n, nq).
          vary: field -> (n,) or (n, k); see ``VARIABLE``.
          camera: the one whose pose may vary.
          particles: where deformables are, see ``Skins.load``.
        """
        q = np.asarray(positions, float)
        if q.ndim != 2 or q.shape[1] != self.model.nq or not np.isfinite(q).all():
            raise InputError(
                f"positions of shape {q.shape}", where="rendering", allowed=f"finite, (n, nq = {self.model.nq})"
            )
        self._restore()
        self.skins.load(particles, len(q))
        self.n, self.positions, self._set, self._mocap, self._cameras = len(q), q, [], [], {}
        for name, x in vary.items():
            values = np.asarray(x, float).reshape(len(x), -1)
            if len(values) != self.n or not np.isfinite(values).all():
                raise InputError(f"{name}: values of shape {np.shape(x)}", where="rendering", allowed=f"({self.n}, k)")
            self._vary(name, values, camera)

    def _vary(self, name: str, values: Array, camera: Camera | None) -> None:
        kind, _, rest = name.partition(":")
        item, _, field = rest.rpartition(".")
        if kind == "camera" and field in ("position", "quat"):
            if camera is None or item != camera.name:
                raise Missing.named("camera", item, [] if camera is None else [camera.name], where="rendering")
            size = 3 if field == "position" else 4
            if values.shape[1] != size or (field == "quat" and not np.linalg.norm(values, axis=1).min(initial=1) > 0):
                raise InputError(f"{name}: {values.shape[1]} numbers", where="rendering", allowed=f"{size}, not all 0")
            self._cameras[name] = values
            return
        attribute, i = self._found(name)
        m = self.model
        mocap = int(m.body_mocapid[i]) if kind == "body" else -1
        if mocap >= 0:
            self._mocap.append((f"mocap_{attribute[5:]}", mocap, values))
            return
        own = self.own(name)
        if kind == "geom" and field != "rgba":
            self._open_bounds(int(m.geom_bodyid[i]))
        if field == "size_scale":
            if int(m.geom_type[i]) not in CLOSED or values.shape[1] != 1 or (values <= 0).any():
                raise Unsupported(f"cannot scale {name!r}", where="rendering", allowed="primitives, by one factor > 0")
            # bounds follow the size: ray casts skip what is outside of them
            for bound in ("geom_size", "geom_rbound", "geom_aabb"):
                mine = np.asarray(getattr(m, bound)[i], float).reshape(1, -1)
                self._keep(bound, i, mine * values)
            return
        if values.shape[1] != own.size:
            raise InputError(f"{name}: {values.shape[1]} numbers", where="rendering", allowed=str(own.size))
        if field == "quat":
            values = values / np.linalg.norm(values, axis=1, keepdims=True)
        self._keep(attribute, i, values)

    def _open_bounds(self, body: int) -> None:
        """Boxes around a body's geoms, made when the model was compiled, no longer hide any of them from ray casts."""
        m = self.model
        self._own.setdefault("bvh_aabb", m.bvh_aabb.copy())
        first = int(m.body_bvhadr[body])
        m.bvh_aabb[first : first + int(m.body_bvhnum[body]), 3:] = mujoco.mjMAXVAL

    def own(self, name: str) -> Array:
        """The model's own value of a field that can vary, (k,); 1 for a scale.

        Raises:
          Unsupported, Missing: no such field, no such element.
        """
        attribute, i = self._found(name)
        if name.endswith(".size_scale"):
            return np.ones(1)
        return np.atleast_1d(self._own.get(attribute, getattr(self.model, attribute))[i]).astype(float)

    def _found(self, name: str) -> tuple[str, int]:
        """Field of MjModel, and id, that a name stands for."""
        kind, _, rest = name.partition(":")
        item, _, field = rest.rpartition(".")
        attribute = FIELDS.get(f"{kind}:NAME.{field}")
        if attribute is None:
            raise Unsupported(f"cannot vary {name!r}", where="rendering", allowed=", ".join(VARIABLE))
        return attribute, self.index(kind, item)

    def _keep(self, attribute: str, i: int, values: Array) -> None:
        self._own.setdefault(attribute, getattr(self.model, attribute).copy())
        shape = np.shape(getattr(self.model, attribute)[i])
        self._set.append((attribute, np.array([i]), values.reshape(len(values), *shape)))

    def _restore(self) -> None:
        for attribute, own in self._own.items():
            getattr(self.model, attribute)[:] = own
        self._own.clear()

    def index(self, kind: str, item: str) -> int:
        """Id of a named element.

        Raises:
          Missing: naming those there are.
        """
        i = mujoco.mj_name2id(self.model, _OBJECTS[kind], item)
        if i < 0:
            raise Missing.named(kind, item, filter(None, self.names(kind)), where="rendering")
        return int(i)

    def names(self, kind: str) -> list[str]:
        """Names of all elements of a kind, in the order of their ids; "" where one has none."""
        count = {"geom": "ngeom", "body": "nbody", "material": "nmat", "light": "nlight"}[kind]
        return [mujoco.mj_id2name(self.model, _OBJECTS[kind], i) or "" for i in range(int(getattr(self.model, count)))]

    def rigid_only(self, where: str, allowed: str) -> None:
        """For what casts MuJoCo's rays, which meet geoms alone.

        Raises:
          Unsupported: naming what is soft.
        """
        if m := self.model.nflex:
            names = [mujoco.mj_id2name(self.model, mujoco.mjtObj.mjOBJ_FLEX, i) for i in range(m)]
            raise Unsupported(f"ray casts do not see {names[0] or 'soft bodies'}", where=where, allowed=allowed)

    def at(self, i: int) -> mujoco.MjData:
        """MuJoCo's data of world i: kinematics, cameras and lights; the model holds that world's fields."""
        m, d = self.model, self.data
        for attribute, at, values in self._set:
            getattr(m, attribute)[at[0]] = values[i]
        d.qpos[:] = self.positions[i]
        for attribute, k, values in self._mocap:
            getattr(d, attribute)[k] = values[i]
        mujoco.mj_kinematics(m, d)
        mujoco.mj_comPos(m, d)
        mujoco.mj_camlight(m, d)
        if m.nflex:
            mujoco.mj_flex(m, d)
            self.skins.put(d, i)
        return d

    def batch(self, threads: int) -> Batch:
        """All worlds in one of MuJoCo's batches."""
        out = Batch(self.model, self.n, threads)
        out.bind("qpos")[:] = self.positions
        for attribute, at, values in self._set:
            out.expand(attribute).reshape(self.n, *getattr(self.model, attribute).shape)[:, at[0]] = values
        for attribute, k, values in self._mocap:
            out.bind(attribute).reshape(self.n, -1, values.shape[1])[:, k] = values
        return out

    def varied(self, attribute: str) -> Array:
        """A model field of every world, (n, ...), or (1, ...) where all worlds share it."""
        shared = np.asarray(self._own.get(attribute, getattr(self.model, attribute)))
        mine = [(at[0], values) for a, at, values in self._set if a == attribute]
        if not mine:
            return shared[None].copy()
        out = np.repeat(shared[None], self.n, axis=0)
        for k, values in mine:
            out[:, k] = values
        return out

    def poses(self, camera: Camera) -> Poses:
        """Where geoms, lights and a camera are in each world."""
        g, lights, cams = [], [], []
        for i in range(self.n):
            d = self.at(i)
            g.append((d.geom_xpos.copy(), d.geom_xmat.reshape(-1, 3, 3).copy()))
            lights.append((d.light_xpos.copy(), d.light_xdir.copy()))
            cams.append(self._stand(camera, i))

        def stacked(pairs: list[tuple[Array, Array]], k: int) -> Array:
            return np.stack([p[k] for p in pairs])

        return Poses(
            stacked(g, 0), stacked(g, 1), stacked(lights, 0), stacked(lights, 1), stacked(cams, 0), stacked(cams, 1)
        )

    def _stand(self, camera: Camera, i: int) -> tuple[Array, Array]:
        """Place and orientation of C in the world."""
        offset = self._cameras.get(f"camera:{camera.name}.position")
        turn = self._cameras.get(f"camera:{camera.name}.quat")
        p = np.asarray(camera.position if offset is None else offset[i], float)
        r = camera.rotation
        if turn is not None:
            r = np.zeros(9)
            mujoco.mju_quat2Mat(r, turn[i] / np.linalg.norm(turn[i]))
            r = r.reshape(3, 3)
        return self.mounted(camera.parent, p, r, where=f"camera {camera.name}")

    def mounted(self, parent: str, p: Array, r: Array, *, where: str) -> tuple[Array, Array]:
        """Place and orientation in the world that ``at`` was last called for, of what is mounted at (p, r) on a parent.

        Args:
          parent: ``body:NAME``, ``site:NAME``, ``camera:NAME`` or "" for the world.

        Raises:
          Missing: no such parent.
        """
        if not parent:
            return p, r
        kind, _, item = parent.partition(":")
        m, d = self.model, self.data
        obj, count, x, xmat = {
            "body": (mujoco.mjtObj.mjOBJ_BODY, m.nbody, d.xpos, d.xmat),
            "site": (mujoco.mjtObj.mjOBJ_SITE, m.nsite, d.site_xpos, d.site_xmat),
            "camera": (mujoco.mjtObj.mjOBJ_CAMERA, m.ncam, d.cam_xpos, d.cam_xmat),
        }[kind]
        k = mujoco.mj_name2id(m, obj, item)
        if k < 0:
            names = [mujoco.mj_id2name(m, obj, j) for j in range(count)]
            raise Missing.named(kind, item, filter(None, names), where=where)
        r_wp = xmat[k].reshape(3, 3)
        return x[k] + r_wp @ p, r_wp @ r


def put_view(d: mujoco.MjData, view: int, position: Array, rotation: Array) -> None:
    """Put the added camera to a place; MuJoCo's camera frame has y up and z backward."""
    d.cam_xpos[view] = position
    d.cam_xmat[view] = (rotation * (1, -1, -1)).reshape(-1)
