"""What a compiled model holds beside its facts: settings of the viewer and the solver, materials, user data.

In: a compiled ``mujoco.MjModel`` with its names. Out: kind -> element -> field -> value, so that a comparison sees
everything that an author can write, also what no robot needs. What MuJoCo computes from other things is left out, and
statistics, which it computes unless they are told.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from flyball.robots.models.model import Array
from flyball.robots.models.naming import Naming
from flyball.robots.models.rotations import rotation

_GREY = (0.5, 0.5, 0.5, 1.0)
_OPTION = (
    "timestep", "gravity", "wind", "magnetic", "density", "viscosity", "impratio", "tolerance", "ls_tolerance",
    "noslip_tolerance", "ccd_tolerance", "sleep_tolerance", "iterations", "ls_iterations", "noslip_iterations",
    "ccd_iterations", "sdf_iterations", "sdf_initpoints", "o_margin", "o_solref", "o_solimp", "o_friction",
    "disableactuator",
)  # fmt: skip
_WORDS = {"integrator": "mjtIntegrator", "cone": "mjtCone", "jacobian": "mjtJacobian", "solver": "mjtSolver"}
_VISUAL = ("global_", "quality", "headlight", "map", "scale", "rgba")
_SIZE = ("nuserdata", "njmax", "nconmax")
_ELEMENTS = {  # kind -> (arrays' prefix, fields that are one row per element)
    "joints": ("jnt", ("group", "user")),
    "geoms": ("geom", ("user",)),
    "sites": ("site", ("group", "user")),
    "cameras": ("cam", ("ipd", "output", "user")),
    "lights": ("light", ("softness",)),
    "tendons": ("tendon", ("group", "width", "user")),
    "actuators": ("actuator", ("group", "actearly", "user", "history")),
    "sensors": ("sensor", ("user", "history", "interval", "dim")),
    "materials": (
        "mat",
        ("rgba", "emission", "metallic", "reflectance", "roughness", "shininess", "specular", "texrepeat",
         "texuniform"),
    ),
    "textures": ("tex", ("type", "colorspace", "width", "height", "nchannel")),
    "height fields": ("hfield", ("size", "nrow", "ncol")),
    "flexes": (
        "flex",
        ("dim", "radius", "vertnum", "elemnum", "condim", "contype", "conaffinity", "friction", "solref", "solimp",
         "margin", "gap", "damping", "edgestiffness", "edgedamping", "selfcollide", "rgba"),
    ),
    "skins": ("skin", ("vertnum", "facenum", "bonenum", "inflate", "group", "rgba")),
    "plug-ins": ("plugin", ("statenum",)),
}  # fmt: skip
_NAMED = {
    "materials": "material",
    "textures": "texture",
    "height fields": "hfield",
    "flexes": "flex",
    "skins": "skin",
    "plug-ins": "plugin",
}
_PLAIN = {"emission": 0, "metallic": -1, "reflectance": 0, "roughness": -1, "shininess": 0.5, "specular": 0.5}
LONGEST = 64
"""Numbers in a row; longer ones are compared by their digest."""


def colour(m: Any, rgba: Array, material: int) -> Array:
    """What an element is drawn with, (4,): its own colour, or its material's where it states none."""
    own = material < 0 or not np.array_equal(rgba, np.asarray(_GREY, rgba.dtype))
    return (rgba if own else m.mat_rgba[material]).astype(float)


def options(naming: Naming) -> dict[str, Any]:
    """Settings of physics and solver; ``disable`` and ``enable``: flags."""
    opt = naming.m.opt
    out: dict[str, Any] = {k: np.array(getattr(opt, k), float) for k in _OPTION}
    out |= {k: naming.word(enum, getattr(opt, k)) for k, enum in _WORDS.items()}
    bits = {"disable": ("mjtDisableBit", opt.disableflags), "enable": ("mjtEnableBit", opt.enableflags)}
    return out | {k: naming.flags(*flags) for k, flags in bits.items()}


def remainder(naming: Naming) -> dict[str, dict[str, dict[str, Any]]]:
    """Kind -> element -> field -> number, array or text; of the whole model under the element ""."""
    m = naming.m
    out: dict[str, dict[str, dict[str, Any]]] = {
        "visual": {"": {f"{g.strip('_')}.{k}": v for g in _VISUAL for k, v in _numbers(getattr(m.vis, g)).items()}},
        "size": {"": {k: _value(getattr(m, k)) for k in _SIZE}},
    }
    for kind, (prefix, fields) in _ELEMENTS.items():
        names = naming.names[_NAMED.get(kind, kind[:-1])]
        arrays = {f: getattr(m, f"{prefix}_{f}") for f in fields}
        out[kind] = {name: {f: _value(a[i]) for f, a in arrays.items()} for i, name in enumerate(names)}
    for kind, tag in (("sites", "site"), ("tendons", "tendon")):
        for i, row in enumerate(out[kind].values()):
            row["rgba"] = colour(m, getattr(m, f"{tag}_rgba")[i], int(getattr(m, f"{tag}_matid")[i]))
    for table in out.values():
        for row in table.values():
            if "user" in row:  # zeros fill up what other elements have more of
                row["user"] = np.trim_zeros(row["user"], "b")
    for row, first in zip(out["actuators"].values(), m.actuator_outadr, strict=True):
        row["lengthrange"] = _value(m.actuator_lengthrange[first])
    _bodies(naming, out)
    _pictures(naming, out)
    _custom(naming, out)
    for row, first in zip(out["tendons"].values(), m.tendon_adr, strict=True):
        if naming.word("mjtWrap", m.wrap_type[first]) == "joint":  # nothing that is drawn
            for key in ("width", "rgba", "material"):
                del row[key]
    return {kind: table for kind, table in out.items() if table}


def _bodies(naming: Naming, out: dict[str, dict[str, dict[str, Any]]]) -> None:
    m = naming.m
    out["bodies"] = {n: {"user": _value(m.body_user[i + 1])} for i, n in enumerate(naming.names["body"][1:])}
    for row in out["bodies"].values():
        row["user"] = np.trim_zeros(row["user"], "b")
    for tree in range(m.ntree):
        policy = naming.word("mjtSleepPolicy", m.tree_sleep_policy[tree])
        # what MuJoCo chose by itself is not the author's
        row = out["bodies"][naming.names["body"][int(m.tree_bodyadr[tree])]]
        row["sleep"] = "auto" if policy.startswith("auto") else policy


def _pictures(naming: Naming, out: dict[str, dict[str, dict[str, Any]]]) -> None:
    m, textures, meshes = naming.m, naming.names["texture"], naming.names["mesh"]
    for i, row in enumerate(out["textures"].values()):
        size = int(m.tex_width[i]) * int(m.tex_height[i]) * int(m.tex_nchannel[i])
        row["data"] = _value(m.tex_data[int(m.tex_adr[i]) : int(m.tex_adr[i]) + size])
    for i, row in enumerate(out["materials"].values()):
        row["textures"] = " ".join(textures[k] for k in m.mat_texid[i] if k >= 0)
    for i, row in enumerate(out["lights"].values()):
        row["texture"] = textures[int(m.light_texid[i])] if m.light_texid[i] >= 0 else ""
    for i, row in enumerate(out["sites"].values()):
        row["mesh"] = meshes[int(m.site_dataid[i])] if m.site_dataid[i] >= 0 else ""
    for i, row in enumerate(out["height fields"].values()):
        first = int(m.hfield_adr[i])
        row["data"] = _value(m.hfield_data[first : first + int(m.hfield_nrow[i]) * int(m.hfield_ncol[i])])
    for name, row in [*out["materials"].items()]:
        # a material that is no more than a colour has given it to what it is on
        if not row["textures"] and all(np.allclose(row[k], x) for k, x in _PLAIN.items()):
            del out["materials"][name]
    kinds = {"geoms": m.geom_matid, "sites": m.site_matid, "tendons": m.tendon_matid}
    for kind, ids in kinds.items():
        for i, row in enumerate(out[kind].values()):
            name = naming.names["material"][int(ids[i])] if ids[i] >= 0 else ""
            row["material"] = name if name in out["materials"] else ""
    out["meshes"] = {n: {"texcoords": _value(k)} for n, k in zip(meshes, m.mesh_texcoordnum, strict=True)}
    for kind, adr in (("geoms", m.geom_plugin), ("bodies", m.body_plugin[1:]), ("actuators", m.actuator_plugin)):
        for row, k in zip(out[kind].values(), adr, strict=True):
            row["plug-in"] = naming.names["plugin"][int(k)] if k >= 0 else ""


def _custom(naming: Naming, out: dict[str, dict[str, dict[str, Any]]]) -> None:
    m = naming.m
    rows = zip(naming.names["numeric"], m.numeric_adr, m.numeric_size, strict=True)
    out["custom numbers"] = {n: {"data": _value(m.numeric_data[a : a + k])} for n, a, k in rows}
    texts = zip(naming.names["text"], m.text_adr, m.text_size, strict=True)
    out["custom texts"] = {n: {"data": m.text_data[a : a + k].decode("utf-8", "replace")} for n, a, k in texts}
    out["tuples"] = {}
    for name, a, k in zip(naming.names["tuple"], m.tuple_adr, m.tuple_size, strict=True):
        ends = [naming.object(m.tuple_objtype[i], int(m.tuple_objid[i])) for i in range(a, a + k)]
        out["tuples"][name] = {"of": " ".join(":".join(e) for e in ends), "prm": _value(m.tuple_objprm[a : a + k])}


def normals(m: Any, i: int) -> Array:
    """Normals of a mesh in the frame it was authored in, (n, 3)."""
    first, n = int(m.mesh_normaladr[i]), int(m.mesh_normalnum[i])
    return np.asarray(m.mesh_normal[first : first + n].astype(float) @ rotation(m.mesh_quat[i]).T)


def _numbers(group: Any) -> dict[str, Any]:
    names = [k for k in dir(group) if not k.startswith("_") and not callable(getattr(group, k))]
    return {k: _value(getattr(group, k)) for k in names}


def _value(x: Any) -> Any:
    values = np.ravel(np.asarray(x))
    if values.size > LONGEST:
        return f"{values.size} numbers {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]}"
    return values.astype(float)
