# ruff: noqa: E402 - imports after the library is known to be there
"""Every attribute of MuJoCo's XML either comes back from USD as it was, or is a loss that is listed with its element.

The judge is MuJoCo's compiled model, every array of it, not Flyball's own facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pxr")
mujoco = pytest.importorskip("mujoco")

import mjcf_table as table

from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.scenes.usd import read_back, write
from flyball.scenes.usd.read import read_stage

KINDS = {  # prefix of arrays -> (kind of object, word in a loss)
    "body": "body", "jnt": "joint", "dof": "joint", "geom": "geom", "site": "site", "cam": "camera", "light": "light",
    "mesh": "mesh", "hfield": "hfield", "tex": "texture", "mat": "material", "pair": "pair", "eq": "equality",
    "tendon": "tendon", "actuator": "actuator", "sensor": "sensor", "numeric": "numeric", "tuple": "tuple",
    "key": "key", "skin": "skin", "flex": "flex",
}  # fmt: skip
WORDS = {"hfield": "height field", "numeric": "custom number", "key": "keyframe"}
# what MuJoCo computes, or where something stands in an array
DERIVED = re.compile(
    r".*(adr|num|id|id1|id2)$|.*(rbound|aabb|sameframe|invweight0|acc0|length0|extrema|subtreemass|simple|treeid|plugin)$"
    r"|(light|cam)_(pos0|poscom0|dir0|mat0)|mesh_(graph|poly.*|oct.*|bvh.*|pos|quat|scale|face.*|vert|normal|texcoord)|dof_(M0|length|Madr)"
    r"|body_(margin|contype|conaffinity|inertia|iquat)|actuator_(gear0|ctrlspec)|geom_(dataid|pos|quat)|key_.*|eq_obj.*"
)
LISTED = {  # what is known not to travel
    "(world)body/geom": {"material"},
    "(world)body/site": {"material", "mesh", "kind"},
    "(world)body/camera": {"output"},
    "tendon": {"material"},
    "sensor": {"user has no description of its own"},
}
CLOSE = 1e-6
"""Of the larger: rounding of single precision, where MuJoCo keeps it."""


def rows(m: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) -> what the compiled model says of it."""
    out: dict[tuple[str, str], dict[str, Any]] = {}
    plain = ["mat_emission", "mat_metallic", "mat_reflectance", "mat_roughness", "mat_shininess", "mat_specular"]
    for array in dir(m):
        kind = KINDS.get(array.partition("_")[0])
        values = getattr(m, array)
        if kind is None or not isinstance(values, np.ndarray) or DERIVED.fullmatch(array):
            continue
        number = {"body": m.nbody, "dof": m.nv}.get(array.partition("_")[0])
        names = [m.joint(int(j)).name for j in m.dof_jntid] if array.startswith("dof_") else None
        if names is None:
            short = {"camera": "cam", "joint": "jnt", "texture": "tex", "material": "mat", "equality": "eq"}
            count = number or getattr(m, f"n{short.get(kind, kind)}")
            if len(values) != count:
                continue
            tag = {"equality": "eq", "texture": "tex", "material": "mat"}.get(kind, kind)
            names = [getattr(m, tag)(i).name for i in range(count)]
        if array in ("geom_rgba", "site_rgba", "tendon_rgba"):
            values = [drawn(m, x, int(getattr(m, array.replace("rgba", "matid"))[i])) for i, x in enumerate(values)]
        for i, name in enumerate(names):
            out.setdefault((kind, name), {}).setdefault(array, []).append(np.ravel(np.asarray(values[i], float)))
    for arrays in out.values():  # zeros fill up what other elements have more of
        arrays |= {a: [np.trim_zeros(x[0], "b")] for a, x in arrays.items() if a.endswith("_user")}
    for arrays in out.values():  # whether relpose was left to MuJoCo
        arrays |= {"eq_data": [arrays["eq_data"][0][:11]]} if "eq_data" in arrays else {}
    grey = {a: [np.array([x])] for a, x in zip(plain, (0, -1, 0, -1, 0.5, 0.5), strict=True)}
    # a material that is a colour gives it to what it is on
    return {k: x for k, x in out.items() if not (k[0] == "material" and all(same(x[a], grey[a]) for a in plain))}


def drawn(m: Any, rgba: Any, material: int) -> Any:
    """The colour on the screen: MuJoCo takes the material's for elements that have the grey of none of their own."""
    return m.mat_rgba[material] if material >= 0 and tuple(rgba) == (0.5, 0.5, 0.5, 1.0) else rgba


def same(x: Any, y: Any) -> bool:
    p, q = np.concatenate(x), np.concatenate(y)
    return p.shape == q.shape and bool(np.allclose(p, q, rtol=CLOSE, atol=1e-12))


def round_trip(mjcf: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, str]:
    """Compiled models before and after, and the losses with every name in them."""

    def all_of(names: Sequence[str], kind: str) -> str:
        return " ".join(f"{kind} {n}:" for n in names)

    monkeypatch.setattr(read_back, "several", all_of)
    monkeypatch.setattr(write, "several", all_of)
    before = mujoco.MjSpec.from_string(mjcf).compile()
    imported = Imported("m", mjcf, {}, facts(before))
    stage, losses = write.author(before, imported, "m")
    losses += read_back.untold(before, imported, stage, losses)
    parsed = read_stage(stage, "m", "m")
    return before, mujoco.MjSpec.from_string(parsed.mjcf, assets=parsed.assets).compile(), "\n".join(losses)


@pytest.mark.parametrize("family", table.families())
def test_an_element_comes_back_or_is_listed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, losses = round_trip(table.model(table.families()[family]), monkeypatch)
    was, is_ = rows(before), rows(after)
    silent = []
    for (kind, name), arrays in was.items():
        back = is_.get((kind, name), {})
        gone = [a for a, x in arrays.items() if a not in back or not same(x, back[a])]
        if gone and name not in ("", "world") and f"{WORDS.get(kind, kind)} {name}:" not in losses:
            silent.append(f"{kind} {name}: {', '.join(gone)}")
    assert not silent, "\n".join(silent[:20])
    lost = set(re.findall(r": (\w[\w ]*) is not carried$", losses, re.MULTILINE))
    assert lost <= LISTED.get(family, set()) | {"user"}, "what travelled once is a loss now"


def numbers(group: Any) -> dict[str, Any]:
    """Every number below a structure of MuJoCo's."""
    out = {}
    for name in (k for k in dir(group) if k[0] != "_" and not callable(getattr(group, k))):
        value = getattr(group, name)
        if isinstance(value, (int, float, np.ndarray)):
            out[name] = [np.ravel(np.asarray(value, float))]
        else:
            out |= {f"{name}.{k}": x for k, x in numbers(value).items()}
    return out


@pytest.mark.parametrize("path", [p for p in table.schema() if p.split("/")[0] in table.SETTINGS and table.schema()[p]])
def test_a_setting_of_the_model_comes_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = numbers(mujoco.MjSpec.from_string(table.WORLD.format(**table.EMPTY)).compile())
    before, after, losses = round_trip(table.settings_model(path), monkeypatch)
    was, is_ = numbers(before), numbers(after)
    kinds = ("opt.", "vis.", "stat.", "nuserdata", "njmax", "nconmax", "narena")
    of_interest = {k for k in was if k.startswith(kinds)}
    assert not [x for x in losses.splitlines() if x.startswith(table.SETTINGS)]
    assert [k for k in of_interest if not same(was[k], is_[k])] == []
    changed = [k for k in of_interest if not same(was[k], nothing[k])]
    assert len(changed) >= (1 if path == "option/flag" else len(table.told(path))), "the table tries them all"


def test_the_table_has_a_value_for_every_attribute_of_the_schema() -> None:
    missing = [
        f"{path}@{a}"
        for path, attributes in table.schema().items()
        for a in attributes
        if not table.undone(path) and a not in table.NAMES and a not in table.values(path)
    ]
    assert missing == []


def test_elements_that_need_a_model_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mocap bodies and keyframes come back; height fields do too; pictures and deformables are listed."""
    mjcf = table.WORLD.format(
        **table.EMPTY
        | {
            "root": '<size memory="3M"/>',
            "body": table.FURTHER,
            "asset": table.FURTHER_ASSETS,
            "end": table.FURTHER_END,
        }
    )
    before, after, losses = round_trip(mjcf, monkeypatch)
    for told in ("light li: ", "texture sky:", "flex fl:", "skin sk:", "equality fe: "):
        assert told in losses, losses
    np.testing.assert_array_equal(before.key_qpos, after.key_qpos)
    np.testing.assert_array_equal(before.key_mquat, after.key_mquat)
    np.testing.assert_array_equal(before.hfield_data, after.hfield_data)
    assert before.narena == after.narena == 3 << 20
    assert before.body("mo").mocapid == after.body("mo").mocapid == 0
