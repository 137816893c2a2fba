"""Names of a compiled model's elements, and words for its enumerations.

In: a ``mujoco.MjModel``. Out: a name for every element; one that its author left without is called after where it is
(``BODY/geom0``) or its number (``actuator3``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.robots.models.model import Array


class Naming:
    """Names and enumerations of one compiled model.

    Attributes:
      m: the ``mujoco.MjModel``.
      names: kind of element -> names, in the model's order; of equalities only those that the author gave.
    """

    def __init__(self, m: Any) -> None:
        import mujoco

        self.m, self._mujoco = m, mujoco
        o = mujoco.mjtObj
        count = {"actuator": m.nactuator, "joint": m.njnt, "camera": m.ncam, "equality": m.neq, "mesh": m.nmesh}
        count |= {
            k: getattr(m, f"n{k}") for k in ("body", "geom", "site", "tendon", "light", "sensor", "key", "hfield")
        }
        count |= {"material": m.nmat, "texture": m.ntex, "numeric": m.nnumeric, "text": m.ntext, "tuple": m.ntuple}
        count |= {"flex": m.nflex, "skin": m.nskin, "plugin": m.nplugin, "pair": m.npair}
        self._type = {k: getattr(o, f"mjOBJ_{k.upper()}") for k in count}
        self.names = {k: [self.own_name(k, i) for i in range(n)] for k, n in count.items()}
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
        for kind in self.names.keys() - {"body", "joint", "geom", "site", "camera", "light", "equality"}:
            self.names[kind] = [x or f"{kind}{i}" for i, x in enumerate(self.names[kind])]

    def own_name(self, kind: str, i: int) -> str:
        """The name that the author gave, or ""."""
        return self._mujoco.mj_id2name(self.m, self._type[kind], i) or ""

    def word(self, enum: str, value: int) -> str:
        """The last part of an enumeration's name, in small letters."""
        return str(getattr(self._mujoco, enum)(int(value)).name.split("_", 1)[1].lower())

    def flags(self, enum: str, bits: int) -> str:
        """Words for the bits that are set, in alphabetical order."""
        members = getattr(self._mujoco, enum).__members__.items()
        words = [name.split("_", 1)[1].lower() for name, bit in members if "_" in name and int(bits) & int(bit.value)]
        return " ".join(sorted(words))

    def object(self, kind: int, i: int) -> tuple[str, str]:
        """(kind, name) of an object that something refers to."""
        word = self.word("mjtObj", kind)
        if word == "unknown" or i < 0:
            return "", ""
        table = "body" if word == "xbody" else word
        return word, self.names[table][i] if table in self.names else f"{word}{i}"


def limits(values: Array, limited: Any) -> Array:
    """(low, high) as told, infinite when not limited."""
    return np.array(values, float) if limited else np.array([-np.inf, np.inf])
