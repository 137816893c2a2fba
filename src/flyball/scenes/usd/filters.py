"""UsdPhysics' collision groups as MuJoCo's bits.

In: the groups of a stage. Out: contype and conaffinity of every collider. A group gets a bit of its own as contype,
and meets the bits of the groups it collides with; colliders in no group collide with everything.
"""

from __future__ import annotations

from typing import Any

from pxr import Usd, UsdPhysics

from flyball.scenes.usd.values import Values

MOST = 30
"""Groups that fit in the bits of a contype beside the colliders that are in none."""
LOOSE = 1
"""Bit of the colliders that are in no group."""


class Filters:
    """Reads the groups.

    Attributes:
      losses: what the bits cannot say.
    """

    def __init__(self, values: Values, prims: list[Usd.Prim]) -> None:
        self.losses: list[str] = []
        groups = [p for p in prims if p.IsA(UsdPhysics.CollisionGroup)]
        self._members: dict[int, Any] = {}
        self._bits: list[tuple[int, int]] = []
        if len(groups) > MOST:
            self.losses.append(f"{len(groups)} collision groups: only the first {MOST} are carried")
            groups = groups[:MOST]
        index = {g.GetPath(): k for k, g in enumerate(groups)}
        merged: dict[str, int] = {}
        deaf: set[tuple[int, int]] = set()
        for k, prim in enumerate(groups):
            group = UsdPhysics.CollisionGroup(prim)
            name = str(group.GetMergeGroupNameAttr().Get() or "")
            if name:
                merged.setdefault(name, k)
                index[prim.GetPath()] = merged[name]
            self._members[k] = group.GetCollidersCollectionAPI().ComputeMembershipQuery()
        for prim in groups:
            group = UsdPhysics.CollisionGroup(prim)
            if group.GetInvertFilteredGroupsAttr().Get():
                self.losses.append(f"{prim.GetPath()}: an inverted filter is not carried")
                continue
            me = index[prim.GetPath()]
            for target in group.GetFilteredGroupsRel().GetTargets():
                other = index.get(target)
                if other is None:
                    raise values.bad(prim, f"physics:filteredGroups names {target}", "a collision group")
                deaf |= {(me, other), (other, me)}
        self._final = index
        self._paths = [g.GetPath() for g in groups]
        n = len(groups)
        for k in range(n):
            meets = sum(1 << (other + 1) for other in range(n) if (k, other) not in deaf)
            self._bits.append((1 << (k + 1), meets | LOOSE))

    def bits(self, prim: Usd.Prim) -> tuple[int, int]:
        """(contype, conaffinity) of a collider."""
        if not self._paths:
            return 1, 1
        for k, query in self._members.items():
            if query.IsPathIncluded(prim.GetPath()):
                return self._bits[self._final[self._paths[k]]]
        return LOOSE, (1 << (len(self._paths) + 1)) - 1
