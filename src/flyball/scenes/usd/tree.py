"""From bodies and joints that merely refer to each other to the tree that MJCF needs.

In: a stage's rigid bodies and joints. Out: every body's parent and the joints between them, the joints that close
loops, and bodies that nothing holds. UsdPhysics has no tree: a joint names two bodies, in either order, and nesting
says nothing about what moves with what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pxr import Usd, UsdPhysics

from flyball.robots.models.model import Array
from flyball.scenes.usd.values import Values, inverse

KINDS = {
    "PhysicsFixedJoint": "fixed",
    "PhysicsRevoluteJoint": "hinge",
    "PhysicsPrismaticJoint": "slide",
    "PhysicsSphericalJoint": "ball",
    "PhysicsDistanceJoint": "distance",
    "PhysicsJoint": "generic",
}
DEEPEST = 400
"""Bodies below each other; the XML reader of MuJoCo stops at 500 elements."""


@dataclass(eq=False)
class Link:
    """A joint between two bodies; None is the world.

    Attributes:
      first, second: the body nearest to what ``body0`` and ``body1`` name.
      ends: the prims named.
      local: the joint's frame in each of them, (4, 4) each.
      frames: the joint's frame as each of them has it, in the world, (4, 4) each.
    """

    prim: Usd.Prim
    kind: str
    first: Any
    second: Any
    ends: tuple[Any, Any]
    frames: tuple[Array, Array]
    local: tuple[Array, Array]


@dataclass(eq=False)
class Node:
    """A body in the tree.

    Attributes:
      links: the joints to its parent, in order, each with whether it is written from child to parent.
      free: nothing holds it.
      level: how many bodies are above it.
    """

    prim: Usd.Prim
    parent: Any = None
    links: list[tuple[Link, bool]] = field(default_factory=list)
    free: bool = False
    level: int = 0


def is_body(prim: Usd.Prim) -> bool:
    """Whether a prim is a rigid body that is switched on."""
    if not prim.HasAPI(UsdPhysics.RigidBodyAPI):
        return False
    enabled = UsdPhysics.RigidBodyAPI(prim).GetRigidBodyEnabledAttr().Get()
    return enabled is None or bool(enabled)


def is_kinematic(prim: Usd.Prim) -> bool:
    """Whether a body is moved by the user, not by physics."""
    return bool(UsdPhysics.RigidBodyAPI(prim).GetKinematicEnabledAttr().Get())


class Forest:
    """Builds the trees.

    Attributes:
      nodes: body path -> node, parents before children, otherwise in the stage's order.
      loops: joints that the trees do not contain.
    """

    def __init__(self, values: Values, bodies: list[Usd.Prim], joints: list[Usd.Prim]) -> None:
        self.values, self.losses = values, list[str]()
        self._bodies = {b.GetPath(): b for b in bodies}
        self.nodes: dict[Any, Node] = {}
        self.loops: list[Link] = []
        links = [link for j in joints if (link := self._link(j)) is not None]
        self._grow(links)

    def owner(self, prim: Usd.Prim | None) -> Any:
        """Path of the body that a prim moves with; None for the world."""
        while prim and not prim.IsPseudoRoot():
            if prim.GetPath() in self._bodies:
                return prim.GetPath()
            prim = prim.GetParent()
        return None

    def _link(self, joint: Usd.Prim) -> Link | None:
        api, v = UsdPhysics.Joint(joint), self.values
        ends = []
        for rel in (api.GetBody0Rel(), api.GetBody1Rel()):
            targets = rel.GetTargets()
            prim = self.values.stage.GetPrimAtPath(targets[0]) if targets else None
            if targets and not prim:
                raise v.bad(joint, f"{rel.GetName()} names {targets[0]}, which does not exist", "a prim of this scene")
            ends.append(prim)
        frames, locals_ = [], []
        for prim, pos, rot in (
            (ends[0], api.GetLocalPos0Attr(), api.GetLocalRot0Attr()),
            (ends[1], api.GetLocalPos1Attr(), api.GetLocalRot1Attr()),
        ):
            local = np.eye(4)
            local[:3, 3] = v.vector(joint, pos)
            w, x, y, z = v.vector(joint, rot)  # type: ignore[misc]
            u = np.array([x, y, z])
            local[:3, :3] = (w * w - u @ u) * np.eye(3) + 2 * np.outer(u, u)
            local[:3, :3] += 2 * w * np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            frame, scale = v.split(prim, v.frame(prim))
            locals_.append(local.copy())
            locals_[-1][:3, 3] *= np.where(np.abs(scale - 1) < 1e-9, 1.0, scale)
            frame = frame.copy()
            frame[:3, 3] = (v.frame(prim) @ np.append(local[:3, 3], 1.0))[:3]
            frame[:3, :3] = frame[:3, :3] @ local[:3, :3]
            frames.append(frame)
        kind = KINDS.get(joint.GetTypeName(), "generic")
        first, second = self.owner(ends[0]), self.owner(ends[1])
        loop = bool(api.GetExcludeFromArticulationAttr().Get())
        link = Link(joint, kind, first, second, (ends[0], ends[1]), (frames[0], frames[1]), (locals_[0], locals_[1]))
        if not loop and not api.GetJointEnabledAttr().Get():
            self.losses.append(f"{joint.GetPath()}: the joint is switched off and is not carried")
            return None
        if loop:
            self.loops.append(link)
            return None
        if kind == "distance":
            self.losses.append(
                f"{joint.GetPath()}: distance joints are not carried; its bodies are not tied to each other"
            )
            return None
        if first == second:
            self.losses.append(f"{joint.GetPath()}: it joins {first or 'the world'} to itself and is not carried")
            return None
        return link

    def _grow(self, links: list[Link]) -> None:
        by_end: dict[Any, list[Link]] = {}
        for link in links:
            by_end.setdefault(link.first, []).append(link)
            by_end.setdefault(link.second, []).append(link)
        roots = [None, *self._roots()]
        used: set[int] = set()
        for root in roots:
            if root is not None:
                if root in self.nodes:
                    continue
                self.nodes[root] = Node(self._bodies[root], free=not is_kinematic(self._bodies[root]))
            todo = [root]
            while todo:
                at = todo.pop(0)
                for link in by_end.get(at, []):
                    other = link.second if link.first == at else link.first
                    if id(link) in used or other is None or (other in self.nodes and self.nodes[other].parent != at):
                        continue
                    if other in self.nodes and not (self.nodes[other].links and self._adds(link)):
                        continue
                    used.add(id(link))
                    backward = link.second == at and link.first != at
                    if other not in self.nodes:
                        level = self.nodes[at].level + 1 if at is not None else 1
                        if level > DEEPEST:
                            raise self.values.bad(
                                link.prim, "bodies hang on each other too deeply", f"{DEEPEST} levels"
                            )
                        self.nodes[other] = Node(self._bodies[other], at, [(link, backward)], level=level)
                        todo.append(other)
                    else:
                        self.nodes[other].links.append((link, backward))
        self.loops += [link for link in links if id(link) not in used]

    def _roots(self) -> list[Any]:
        """Bodies to start from where the world is not joined: named articulation roots first."""
        roots = [p for p, b in self._bodies.items() if b.HasAPI(UsdPhysics.ArticulationRootAPI)]
        return [*roots, *(p for p in self._bodies if p not in roots)]

    def _adds(self, link: Link) -> bool:
        """Whether a second joint between the same bodies adds freedom, as MJCF means it, or closes a loop."""
        prim = link.prim
        while prim and not prim.IsPseudoRoot():
            value = self.values.get(prim, "newton:jointsAddMobility")
            if value is not None:
                return bool(value)
            prim = prim.GetParent()
        # joints that MuJoCo's own schema describes mean what MuJoCo means
        return "MjcJointAPI" in link.prim.GetPrimTypeInfo().GetAppliedAPISchemas()

    def ordered(self) -> list[Node]:
        """Nodes, parents first, siblings in the stage's order."""
        children: dict[Any, list[Any]] = {}
        for path in self._bodies:
            children.setdefault(self.nodes[path].parent, []).append(path)
        out, todo = [], list(reversed(children.get(None, [])))
        while todo:
            path = todo.pop()
            out.append(self.nodes[path])
            todo += reversed(children.get(path, []))
        return out

    def pose(self, node: Node) -> Array:
        """A body's pose in its parent's frame as authored, (4, 4)."""
        above = self._bodies[node.parent] if node.parent else None
        if above is None or node.prim.GetPath().HasPrefix(node.parent):
            return self.values.within(above, node.prim)[0]
        return inverse(self.values.rigid(above)) @ self.values.rigid(node.prim)


def angle_between(first: Array, second: Array, axis: Array) -> tuple[float, float]:
    """Turn of the second frame against the first about an axis both share [rad], and how far off that axis is [rad]."""
    relative = first[:3, :3].T @ second[:3, :3]
    skew = np.array([relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]])
    turn = float(np.arctan2(skew @ axis / 2, (np.trace(relative) - 1) / 2))
    tilt = float(np.arccos(np.clip(axis @ relative @ axis, -1, 1)))
    return turn, tilt
