"""What relationships name: prims, and the MJCF elements that they became.

In: a stage's prims and what was read of them so far. Out: names of elements, errors for targets that are not there,
losses for those that became nothing.
"""

from __future__ import annotations

from typing import Any

from pxr import Usd

from flyball.scenes.usd.read_shapes import ShapesReader
from flyball.scenes.usd.tree import Forest
from flyball.scenes.usd.values import Names, Values

_TYPES = {"tendon": "MjcTendon", "actuator": "MjcActuator"}
_MARKS = {"sensor": "flyball:sensor:kind", "key": "flyball:key:time"}


def is_kind(prim: Usd.Prim, kind: str) -> bool:
    """Whether a prim stands for a tendon, actuator, sensor or key."""
    if kind in _MARKS:
        return bool(prim.HasAttribute(_MARKS[kind]))
    return bool(prim.GetTypeName() == _TYPES[kind])


def label(prim: Usd.Prim) -> str:
    """The name an element has in the model: the display name, or the prim's own."""
    return str(prim.GetDisplayName() or prim.GetName())


class References:
    """Resolves names, and keeps the book on what came through.

    Attributes:
      notes, losses: sentences.
      taken: paths of the prims that came through.
      joints: paths of the joints and free bodies that became a joint of their own name.
    """

    def __init__(
        self, values: Values, names: Names, forest: Forest, shapes: ShapesReader, prims: list[Usd.Prim]
    ) -> None:
        self.values, self.names, self.forest, self.shapes, self.prims = values, names, forest, shapes, prims
        self.notes, self.losses, self.taken = list[str](), [*shapes.filters.losses], set[Any]()
        self.joints: set[Any] = {p for n in forest.nodes.values() for p in _joint_paths(n)}
        for prim in prims:
            for kind in ("tendon", "actuator", "sensor", "key"):
                if is_kind(prim, kind):
                    names.want(kind, prim.GetPath(), label(prim))

    def targets(self, prim: Usd.Prim, relation: str) -> list[Any]:
        """Paths that a relationship names, in order.

        Raises:
          InputError: one of them does not exist.
        """
        rel = prim.GetRelationship(relation)
        targets = rel.GetTargets() if rel else []
        for target in targets:
            if not self.values.stage.GetPrimAtPath(target):
                raise self.values.bad(prim, f"{relation} names {target}, which does not exist", "a prim of this scene")
        return [*targets]

    def name(self, kind: str, path: Any) -> str | None:
        """Name of an element of that kind, None when the prim became none."""
        if kind == "joint":
            return self.names("joint", path) if path in self.joints else None
        if kind == "body":
            owner = self.names.has("body", path)
            return self.names("body", path) if owner else "world" if self.forest.owner(
                self.values.stage.GetPrimAtPath(path)) is None else None  # fmt: skip
        there = self.names.has(kind, path) and (path in self.shapes.taken or path in self.taken)
        return self.names(kind, path) if there else None

    def lost(self, prim: Usd.Prim, relation: str, target: Any) -> None:
        """Say that a prim is not carried because what it names is not."""
        self.losses.append(f"{prim.GetPath()}: {relation} names {target}, which is not carried; so is this")


def _joint_paths(node: Any) -> list[Any]:
    own = [node.prim.GetPath()] if node.free else []
    return own + [link.prim.GetPath() for link, _ in node.links if link.kind in ("hinge", "slide", "ball")]
