"""The sidecar: what a model's format cannot say, as JSON beside it.

``NAME.urdf.flyball.json`` belongs to ``NAME.urdf``; so with ``.usda`` and ``.xml``. Attributes and elements are MJCF's,
by name, so that MuJoCo's XML reference documents them; numbers are texts, as in XML. Keys of schema 1; only the first
has to be there:

    flyball_sidecar  1, the schema's version; any other is refused
    model            name of the model
    velocity_limits  joint -> [rad/s or m/s]: URDF says them, MJCF does not
    option           attributes of ``<option>``, e.g. ``{"timestep": "0.001"}``
    set              kind of element (joint, geom, body, mesh) -> name -> attributes; "" takes an attribute away
    add              elements that the format lacks: ``{"in": "actuator" | "sensor" | "tendon" | ... | "body:NAME",
                     "element": tag, "attributes": {...}, "children": [...]}``
    settings         place (visual/global, statistic, size, ...) -> attributes; see ``flyball.robots.models.settings``
    join             body -> the links that stand for its further degrees of freedom, outermost first (URDF)
    keyframes        name -> ``{"time", "qpos", "qvel", "act", "ctrl", "mocap"}``, each by joint, actuator or body

In: such a file, or facts of a model. Out: an MJCF document with all of it in place, and what found no place.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from flyball.base import Damaged, InputError, Unsupported
from flyball.base.durable import write_durably
from flyball.robots.models import elements, settings
from flyball.robots.models.elements import Spelled, number, numbers
from flyball.robots.models.markup import Document, is_finite
from flyball.robots.models.model import Model

VERSION = 1
NOT_MJCF = ("velocity_limits",)
"""Keys that matter beside MJCF too."""
LARGEST = 32 << 20
_KEYS = {
    "flyball_sidecar": int,
    "model": str,
    "velocity_limits": dict,
    "option": dict,
    "settings": dict,
    "set": dict,
    "add": list,
    "join": dict,
    "keyframes": dict,
}
_SECTIONS = ("actuator", "sensor", "tendon", "equality", "contact", "option")
_SETTABLE = ("joint", "geom", "body", "mesh", "equality")
_WORD = re.compile(r"[a-z_0-9]+$")
_REFUSED = ("include", "plugin", "mesh", "texture", "hfield", "skin", "model", "extension", "replicate", "attach")


def path_beside(path: Path) -> Path:
    """Where the sidecar of a model lies."""
    return path.with_name(f"{path.name}.flyball.json")


def read_beside(path: Path) -> dict[str, Any]:
    """The sidecar of a model; empty when there is none.

    Raises:
      InputError: unknown version or key, or a value of the wrong kind.
    """
    place = path_beside(path)
    try:
        if place.stat().st_size > LARGEST:
            raise InputError(f"{place.stat().st_size} bytes", where=str(place), allowed=f"up to {LARGEST}")
        data = json.loads(place.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as err:
        raise Damaged(f"not JSON ({err})", where=str(place)) from err
    return checked(data, str(place))


def checked(data: Any, where: str) -> dict[str, Any]:
    """A sidecar's data, if it is one that we understand.

    Raises:
      InputError: naming the key.
    """
    if not isinstance(data, dict):
        raise Damaged("not a JSON object", where=where)
    if data.get("flyball_sidecar") != VERSION:
        version = data.get("flyball_sidecar")
        raise Unsupported(f"sidecar schema {version!r}", where=where, allowed=str(VERSION))
    for key, value in data.items():
        if key not in _KEYS:
            raise InputError(f"unknown key {key!r}", where=where, allowed=", ".join(_KEYS))
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            raise InputError(f"{key} is not of type {_KEYS[key].__name__}", where=where)
    for joint, limit in data.get("velocity_limits", {}).items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
            raise InputError(f"velocity_limits: {joint}: {limit!r}", where=where, allowed="a number >= 0")
    _attributes(data.get("option", {}), f"{where}: option")
    for place, attributes in data.get("settings", {}).items():
        _attributes(attributes, f"{where}: settings: {place}")
    settings.put(Element("mujoco"), data.get("settings", {}), f"{where}: settings")
    for kind, table in data.get("set", {}).items():
        if kind not in _SETTABLE or not isinstance(table, dict):
            raise InputError(f"set: {kind!r}", where=where, allowed=", ".join(_SETTABLE))
        for name, attributes in table.items():
            _attributes(attributes, f"{where}: set: {kind}: {name}")
    for i, entry in enumerate(data.get("add", [])):
        _check_entry(entry, f"{where}: add[{i}]", top=True)
    for body, links in data.get("join", {}).items():
        if not isinstance(links, list) or not all(isinstance(x, str) for x in links):
            raise InputError(f"join: {body}", where=where, allowed="a list of links")
    for name, key in data.get("keyframes", {}).items():
        _check_key(key, f"{where}: keyframes: {name}")
    return data


def _check_entry(entry: Any, where: str, *, top: bool = False) -> None:
    if not isinstance(entry, dict) or not set(entry) <= {"in", "element", "attributes", "children"}:
        raise InputError("not an element", where=where, allowed="in, element, attributes, children")
    tag, place = entry.get("element", ""), entry.get("in", "")
    if not isinstance(tag, str) or not _WORD.match(tag) or tag in _REFUSED:
        raise InputError(f"element {tag!r}", where=where, allowed="MJCF elements that name no files")
    if top and not (isinstance(place, str) and (place in _SECTIONS or place.startswith("body:"))):
        raise InputError(f"in {place!r}", where=where, allowed=", ".join(_SECTIONS) + ", body:NAME")
    _attributes(entry.get("attributes", {}), where)
    children = entry.get("children", [])
    if not isinstance(children, list):
        raise InputError("children is no list", where=where)
    for child in children:
        _check_entry(child, where)


def _attributes(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise InputError("attributes are no table", where=where)
    for key, text in value.items():
        if not _WORD.match(key) or not isinstance(text, str) or key.startswith("file") or "\0" in text:
            raise InputError(f"attribute {key!r}: {text!r}", where=where, allowed="texts, no files")
        if key != "name" and not is_finite(text):
            raise InputError(f"{key}={text[:60]!r} is not finite", where=where, allowed="numbers")


def _check_key(key: Any, where: str) -> None:
    tables = ("qpos", "qvel", "act", "ctrl", "mocap")
    if not isinstance(key, dict) or not set(key) <= {"time", *tables}:
        raise InputError("not a keyframe", where=where, allowed=", ".join(("time", *tables)))
    for table in tables:
        entries = key.get(table, {})
        if not isinstance(entries, dict):
            raise InputError(f"{table} is no table", where=where)
        for name, values in entries.items():
            good = isinstance(values, list) and all(
                isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x) for x in values
            )
            if not good:
                raise InputError(f"{table}: {name}: {values!r}", where=where, allowed="a list of numbers")
    if isinstance(key.get("time", 0.0), bool) or not isinstance(key.get("time", 0.0), int | float):
        raise InputError("time is no number", where=where)


def write_beside(path: Path, data: Mapping[str, Any]) -> Path | None:
    """Write a model's sidecar; an empty one is not written, and an old one is removed."""
    place = path_beside(path)
    content = {k: v for k, v in data.items() if v and k != "flyball_sidecar"}
    if not set(content) - {"model"}:
        place.unlink(missing_ok=True)
        return None
    write_durably(place, (json.dumps({"flyball_sidecar": VERSION, **content}, indent=1) + "\n").encode())
    return place


def summary(data: Mapping[str, Any]) -> list[str]:
    """What a sidecar holds, one line per kind: what readers that do not know it will miss."""

    def counted(words: Iterable[str]) -> str:
        return ", ".join(f"{word} ({n})" if n > 1 else word for word, n in sorted(Counter(list(words)).items()))

    lines = [
        f"{kind}: {counted(key for attributes in table.values() for key in attributes)}"
        for kind, table in data.get("set", {}).items()
    ]
    places: dict[str, list[str]] = {}
    for entry in data.get("add", []):
        places.setdefault(entry["in"].partition(":")[0], []).append(entry["element"])
    lines += [f"in {place}: {counted(tags)}" for place, tags in sorted(places.items())]
    if data.get("option"):
        lines.append(f"option: {counted(data['option'])}")
    if data.get("settings"):
        lines.append(f"settings: {', '.join(data['settings'])}")
    if data.get("join"):
        lines.append(f"joints that share a body, or lie off its origin: {counted(data['join'])}")
    if data.get("keyframes"):
        lines.append(f"keyframes: {counted(data['keyframes'])}")
    return lines


def added(place: str, spelled: Spelled) -> dict[str, Any]:
    """An ``add`` entry of one element."""
    entry: dict[str, Any] = {"in": place, "element": spelled.tag, "attributes": dict(spelled.attributes)}
    if spelled.children:
        entry["children"] = [{"element": c.tag, "attributes": dict(c.attributes)} for c in spelled.children]
    return entry


def extras(model: Model, kinds: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """A sidecar with whole tables of a model.

    Args:
      kinds: among ``sites, tendons, actuators, equalities, excludes, pairs, sensors, cameras, lights, keyframes`` and
        ``option``.

    Returns:
      The sidecar, and what it cannot carry, one sentence each.
    """
    kinds = set(kinds)
    add: list[dict[str, Any]] = []
    lost: list[str] = []
    tables = (
        ("sites", lambda e: f"body:{e.body}", elements.site),
        ("cameras", lambda e: f"body:{e.body}", elements.camera),
        ("lights", lambda e: f"body:{e.body}", elements.light),
        ("excludes", lambda e: "contact", elements.exclude),
        ("pairs", lambda e: "contact", elements.pair),
        ("equalities", lambda e: "equality", elements.equality),
        ("tendons", lambda e: "tendon", elements.tendon),
        ("actuators", lambda e: "actuator", elements.actuator),
        ("sensors", lambda e: "sensor", elements.sensor),
    )
    for kind, place, spell in tables:
        for element in getattr(model, kind).values() if kind in kinds else ():
            spelled = spell(element)
            if spelled is None:
                what = getattr(element, "kind", getattr(element, "dynamics", ""))
                lost.append(f"{kind[:-1]} {element.name}: the sidecar does not carry {what} {kind}")
            else:
                spelled.attributes |= elements.further(kind, model.rest.get(kind, {}).get(element.name, {}))
                add.append(added(place(element), spelled))
    data: dict[str, Any] = {"flyball_sidecar": VERSION, "model": model.name}
    if add:
        data["add"] = add
    if "option" in kinds:
        data["option"] = dict(elements.option(model.option))
        flags = elements.flags(model.option)
        if flags is not None:
            data.setdefault("add", []).append(added("option", flags))
    if "keyframes" in kinds and model.keyframes:
        data["keyframes"] = {
            k.name: {
                "time": k.time,
                **{
                    table: {name: [float(x) for x in values] for name, values in getattr(k, table).items()}
                    for table in ("qpos", "qvel", "act", "ctrl", "mocap")
                    if getattr(k, table)
                },
            }
            for k in model.keyframes.values()
        }
    return data, lost


def apply(document: Document, data: Mapping[str, Any]) -> list[str]:
    """Put a sidecar's content into an MJCF document.

    Returns:
      What found no place, one sentence each.
    """
    root, lost = document.root, []
    if data.get("option"):
        option = root.find("option")
        option = document.add(root, "option", {}, root) if option is None else option
        for key, value in data["option"].items():
            option.set(key, value)
    settings.put(root, data.get("settings", {}), document.where)
    named: dict[tuple[str, str], Element] = {}
    for e in root.iter():
        if e.get("name"):
            named.setdefault(({"freejoint": "joint"}.get(e.tag, e.tag), e.get("name", "")), e)
    for kind, table in data.get("set", {}).items():
        for name, attributes in table.items():
            target = named.get((kind, name))
            if target is None:
                lost.append(f"the sidecar speaks of {kind} {name}, which the model lacks")
                continue
            for key, value in attributes.items():
                if value:
                    target.set(key, value)
                else:
                    target.attrib.pop(key, None)
    sections: dict[str, Element] = {}
    for entry in data.get("add", []):
        place = entry["in"]
        if place.startswith("body:"):
            body = place.removeprefix("body:")
            parent = root.find("worldbody") if body == "world" else named.get(("body", body))
            if parent is None:
                lost.append(f"the sidecar adds {entry['element']} to body {body}, which the model lacks")
                continue
        else:
            parent = sections.get(place)
            if parent is None:
                found = root.find(place)
                parent = sections[place] = document.add(root, place, {}, root) if found is None else found
        _add(document, parent, entry)
    if data.get("keyframes"):
        lost += _add_keyframes(document, data["keyframes"])
    return lost


def _add(document: Document, parent: Element, entry: Mapping[str, Any]) -> None:
    child = document.add(parent, entry["element"], dict(entry.get("attributes", {})), parent)
    for inner in entry.get("children", []):
        _add(document, child, inner)


def _add_keyframes(document: Document, keyframes: Mapping[str, Any]) -> list[str]:
    """Vectors in the document's own order of joints, actuators and mocap bodies."""
    root, lost = document.root, []
    joints, mocaps = [], []
    world = root.find("worldbody")
    for e in world.iter() if world is not None else ():
        if e.tag in ("joint", "freejoint"):
            joints.append(e.get("name", ""))
        elif e.tag == "body" and e.get("mocap") == "true":
            mocaps.append(e.get("name", ""))
    actuators = [e.get("name", "") for section in root.findall("actuator") for e in section]
    section = document.add(root, "keyframe", {}, root)
    for name, key in keyframes.items():
        attributes = {"name": name}
        if key.get("time"):
            attributes["time"] = number(key["time"])
        for table, order in (("qpos", joints), ("qvel", joints), ("ctrl", actuators)):
            values = key.get(table, {})
            if values and set(order) <= set(values):
                attributes[table] = numbers([x for n in order for x in values[n]])
            elif values:
                missing = sorted(set(order) - set(values))
                lost.append(f"keyframe {name}: {table} is not told for {', '.join(missing[:3])}")
        if key.get("act"):
            attributes["act"] = numbers([x for n in actuators for x in key["act"].get(n, [])])
        if mocaps and set(mocaps) <= set(key.get("mocap", {})):
            attributes["mpos"] = numbers([x for n in mocaps for x in key["mocap"][n][:3]])
            attributes["mquat"] = numbers([x for n in mocaps for x in key["mocap"][n][3:]])
        document.add(section, "key", attributes, section)
    return lost
