"""Meshes of robot models: STL, OBJ and DAE.

In: bytes of a mesh file. Out: bytes of one that MuJoCo reads (binary STL or OBJ), or one line that says what is wrong.
COLLADA is read with pycollada: its unit is applied; its up axis is not, as is the custom for robots (RViz and
Pinocchio ignore it too). Parts of a scene become one mesh of one colour.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, NotPossible, Unsupported

_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_MOST_STL = 200_000
"""Faces that MuJoCo's STL reader takes; larger ones are handed over as OBJ."""
MOST_FACES = 5_000_000


@dataclass(frozen=True)
class Prepared:
    """A mesh file that MuJoCo reads.

    Attributes:
      data: its bytes; suffix: of its format, with the dot.
      rgba: the colour that the file states, if it states one.
      notes: what was assumed; losses: what of the file was not taken.
    """

    data: bytes
    suffix: str
    rgba: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


def prepare(data: bytes, suffix: str, where: str) -> Prepared:
    """Make a mesh file readable.

    Args:
      suffix: of the file, with the dot, in any case.
      where: element and file, for messages.

    Raises:
      Damaged: the content is not what the suffix says.
      Unsupported: no format of ours.
      InputError: too large.
      NotPossible: pycollada is missing.
    """
    suffix = suffix.lower()
    if suffix == ".obj":
        return Prepared(data, suffix)
    if suffix == ".stl":
        return _stl(data, where)
    if suffix == ".dae":
        return _dae(data, where)
    raise Unsupported(f"meshes of format {suffix!r} are not read", where=where, allowed=".stl, .obj, .dae")


def _stl(data: bytes, where: str) -> Prepared:
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if len(data) == 84 + 50 * count:
        if count == 0:
            raise Damaged("the STL file holds no faces", where=where)
        if count <= _MOST_STL:
            return Prepared(data, ".stl")
        corners = np.frombuffer(data, _FACET, count, 84)["corners"].reshape(-1, 3)
        return Prepared(obj(*merged(corners.astype(float))), ".obj")
    if data.lstrip()[:5].lower() == b"solid":
        return Prepared(obj(*merged(_ascii_stl(data, where))), ".obj")
    if len(data) >= 84 + 50 * count > 84:  # some exporters append
        return _stl(data[: 84 + 50 * count], where)
    raise Damaged(f"not an STL file: {len(data)} bytes, {count} faces announced", where=where)


def _ascii_stl(data: bytes, where: str) -> NDArray[np.float64]:
    words = [line.split()[1:4] for line in data.splitlines() if line.lstrip()[:6].lower() == b"vertex"]
    try:
        corners = np.array(words, float)
    except ValueError as err:
        raise Damaged("a vertex of the STL file is not three numbers", where=where) from err
    if corners.ndim != 2 or corners.shape[1] != 3 or len(corners) % 3 or len(corners) == 0:
        raise Damaged(f"an STL file with {len(corners)} vertices of {corners.shape[1:]}", where=where)
    return _finite(corners, where)


def _dae(data: bytes, where: str) -> Prepared:
    from flyball.robots.models.markup import parse

    try:
        import collada
    except ModuleNotFoundError as err:
        raise NotPossible("COLLADA meshes need pycollada", where=where, run_next="pip install pycollada") from err
    document = parse(data, where)  # bounds, and no entities, before the library sees it
    for source in document.root.iter():
        count = source.get("count", "0")
        if count.isdigit() and int(count) > len(data):
            raise Damaged(f"count {count} is more than the file holds", where=document.at(source))
    try:
        scene, shapes, broken = _instances(collada, data)
        unit = float(scene.assetInfo.unitmeter or 1.0)
        corners, colours = [], []
        for geometry in shapes:
            for primitive in geometry.primitives():
                triangles = primitive.triangleset() if hasattr(primitive, "triangleset") else primitive
                if getattr(triangles, "vertex_index", None) is None or not hasattr(triangles, "normal_index"):
                    continue
                index = np.asarray(triangles.vertex_index)
                if index.ndim != 2 or index.shape[1] != 3:  # lines
                    continue
                with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
                    corners.append(np.asarray(triangles.vertex, float)[index].reshape(-1, 3) * unit)
                colours.append((len(index), _colour(getattr(primitive, "material", None))))
    except NotPossible:
        raise
    except Exception as err:  # the library raises whatever its parsers raise
        raise Damaged(f"COLLADA cannot be read: {type(err).__name__}: {err}", where=where) from err
    if not corners:
        raise Damaged("the COLLADA file holds no triangles", where=where)
    vertices, faces = merged(_finite(np.concatenate(corners), where))
    axis = str(getattr(scene.assetInfo, "upaxis", "Z_UP"))
    stated = {c for _, c in colours if c is not None}
    losses = [f"{len(stated)} colours became one"] if len(stated) > 1 else []
    losses += broken
    pictures = max(len(scene.images), data.count(b"<texture "))
    if pictures:
        losses.append(f"{pictures} texture{'s' * (pictures > 1)}")
        colours = [(n, None if c == _NO_PICTURE else c) for n, c in colours]
    return Prepared(
        obj(vertices, faces),
        ".obj",
        rgba=max((c for c in colours if c[1] is not None), default=(0, None))[1],
        notes=() if axis == "Z_UP" else (f"{axis} is not applied, as ROS tools do not",),
        losses=tuple(losses),
    )


_NO_PICTURE = (0.0, 0.0, 0.0, 1.0)
"""What the library makes of a picture that is not there."""
_BOUND = re.compile(rb"<bind_material\b.*?</bind_material\s*>|<bind_material\s*/>", re.DOTALL)
"""What a shape is painted with, which may name a picture that is not there."""


def _instances(collada: Any, data: bytes) -> tuple[Any, list[Any], list[str]]:
    """A file's scene, its shapes in place, and what of it is broken.

    The library drops a shape with all that is broken below it; without their paint shapes are whole again.
    """

    def opened(content: bytes) -> tuple[Any, list[Any]]:
        scene = collada.Collada(io.BytesIO(content), ignore=[collada.DaeError], validate_output=False)
        return scene, [*scene.scene.objects("geometry")] if scene.scene else []

    scene, shapes = opened(data)
    if not scene.errors:
        return scene, shapes, []
    bare, unpainted = opened(_BOUND.sub(b"", data))
    if len(unpainted) > len(shapes):
        reason = " ".join(str(scene.errors[0]).split())[:200]
        scene, shapes = bare, unpainted
        return scene, shapes, [f"its colours: a reference is broken ({reason})"]
    return scene, shapes, [f"a part that is broken: {' '.join(str(e).split())[:200]}" for e in scene.errors[:3]]


def _colour(material: object) -> tuple[float, ...] | None:
    diffuse = getattr(getattr(material, "effect", None), "diffuse", None)
    if isinstance(diffuse, tuple) and len(diffuse) >= 3 and all(isinstance(x, (int, float)) for x in diffuse):
        return tuple(float(min(max(x, 0.0), 1.0)) for x in (*diffuse, 1.0)[:4])
    return None


def merged(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Triangle corners (3 m, 3) as distinct vertices (n, 3) and faces (m', 3) without degenerate ones."""
    vertices, index = np.unique(corners, axis=0, return_inverse=True)
    faces = index.reshape(-1, 3).astype(np.int64)
    good = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return vertices, faces[good]


def obj(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    """Wavefront OBJ text of a triangle mesh; numbers to nine significant digits, which single precision holds."""
    out = io.StringIO()
    np.savetxt(out, vertices, fmt="v %.9g %.9g %.9g")
    np.savetxt(out, faces + 1, fmt="f %d %d %d")
    return out.getvalue().encode()


def _finite(corners: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    if not np.isfinite(corners).all():
        raise Damaged("a vertex is not finite", where=where)
    if len(corners) > 3 * MOST_FACES:
        raise InputError(f"{len(corners) // 3} faces", where=where, allowed=f"up to {MOST_FACES}")
    return corners
