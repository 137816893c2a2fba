"""What refers to bodies, joints and shapes: tendons, actuators, equalities, filters, sensors, keyframes.

In: a model's facts and the prims already written. Out: MuJoCo's prim types where its schemas have one (``MjcActuator``,
``MjcTendon``), UsdPhysics' joints, drives and filters beside them for readers that know only those, and prims with
``flyball:`` attributes for sensors, keyframes and contact pairs. Everything refers by relationships, which USD keeps
right when a file is referenced somewhere else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pxr import Sdf, Usd, UsdPhysics

from flyball.robots.models.facts import rotation
from flyball.robots.models.model import Actuator, Equality, Model, Sensor
from flyball.scenes.usd.author import IDENTITY, Author, apply, exact, put, quatf, vec3f
from flyball.scenes.usd.vocabulary import ACTUATOR, EQUALITY, INPUTS, INTERPOLATION, PAIR, TENDON

_KIND = {"joint_in_parent": "joint", "slider_crank": "site", "xbody": "body"}
"""Which table an actuator's or sensor's target stands in, where the word is another."""


class Mechanisms:
    """Writes one model's mechanisms."""

    def __init__(self, author: Author, model: Model, compiled: Any) -> None:
        self.author, self.model, self.m, self.losses = author, model, compiled, list[str]()
        self.stage = author.stage

    def everything(self) -> None:
        for index, name in enumerate(self.model.tendons):
            self._tendon(index, name)
        for index, actuator in enumerate(self.model.actuators.values()):
            self._actuator(index, actuator)
        for index, equality in enumerate(self.model.equalities.values()):
            self._equality(self._named(index, equality))
        self._filters()
        for sensor in self.model.sensors.values():
            self._sensor(sensor)
        self._keyframes()

    def _prim(self, name: str) -> Usd.Prim:
        return self.stage.GetPrimAtPath(self.author.paths["joint", name])

    # tendons and actuators --------------------------------------------------------------------------------

    def _tendon(self, i: int, name: str) -> None:
        import mujoco

        m, wrap = self.m, mujoco.mjtWrap
        t = self.model.tendons[name]
        prim = self.author.define(self.author.scope("Tendons"), name, "MjcTendon", "tendon")
        solver = np.asarray(t.solver)
        values: dict[str, Any] = {k: getattr(t, k) for k in ("stiffness", "damping", "frictionloss", "armature")}
        values |= {"springlength": t.springlength, "margin": t.margin, "group": int(m.tendon_group[i])}
        values |= {"solref": solver[:2], "solimp": solver[2:7], "width": float(m.tendon_width[i])}
        values["rgba"] = self.model.rest["tendons"][name].get("rgba")
        values |= {"friction_solref": solver[7:9], "friction_solimp": solver[9:14]}
        self.author.rules(prim, TENDON, values)
        if np.any(solver[14:]):
            put(prim, "flyball:polynomials", "DoubleArray", solver[14:])
        for word, usd in (("range", "range"), ("effort", "actuatorfrcrange")):
            bounds = getattr(t, word)
            if np.isfinite(bounds).all():
                put(prim, f"mjc:{usd.removesuffix('range') or ''}limited", "Token", "true")
                put(prim, f"mjc:{usd}:min", "Double", bounds[0])
                put(prim, f"mjc:{usd}:max", "Double", bounds[1])
        kinds = {k: [*getattr(self.model, f"{k}s")] for k in ("joint", "site", "geom")}
        first = int(m.tendon_adr[i])
        elements: list[Sdf.Path] = []
        sides: list[Sdf.Path] = []
        index: list[int] = []
        side_index: list[int] = []
        segments: list[int] = []
        divisors, coefs = [1.0], list[float]()
        for k in range(first, first + int(m.tendon_num[i])):
            kind, at, number = int(m.wrap_type[k]), int(m.wrap_objid[k]), float(m.wrap_prm[k])
            if kind == wrap.mjWRAP_PULLEY:
                if index:
                    divisors.append(number)
                else:
                    divisors[0] = number
                continue
            word = {int(wrap.mjWRAP_JOINT): "joint", int(wrap.mjWRAP_SITE): "site"}.get(kind, "geom")
            path = self.author.paths[word, kinds[word][at]]
            elements += [] if path in elements else [path]
            index.append(elements.index(path))
            segments.append(len(divisors) - 1)
            side = -1
            if word == "joint":
                coefs.append(number)
            elif word == "geom" and number >= 0:
                side_path = self.author.paths["site", kinds["site"][int(number)]]
                sides += [] if side_path in sides else [side_path]
                side = sides.index(side_path)
            side_index.append(side)
        prim.CreateRelationship("mjc:path", custom=False).SetTargets(elements)
        put(prim, "mjc:path:indices", "IntArray", index)
        put(prim, "mjc:type", "Token", "fixed" if coefs else "spatial")
        if coefs:
            put(prim, "mjc:path:coef", "DoubleArray", coefs)
            return
        put(prim, "mjc:path:segments", "IntArray", segments)
        put(prim, "mjc:path:divisors", "DoubleArray", divisors)
        if sides:
            prim.CreateRelationship("mjc:sideSites", custom=False).SetTargets(sides)
            put(prim, "mjc:sideSites:indices", "IntArray", side_index)

    def _actuator(self, i: int, a: Actuator) -> None:
        m = self.m
        known = a.gain in ("fixed", "affine", "muscle", "user") and a.bias in ("none", "affine", "muscle", "user")
        if not known or a.dynamics in ("dcmotor", "pid") or a.controls != 1 or a.target_kind in ("so3", "undefined"):
            words = f"{a.dynamics}/{a.gain}/{a.bias} on {a.target_kind}"
            self.losses.append(f"actuator {a.name}: {words} is not in MuJoCo's USD schema and is not carried")
            return
        prim = self.author.define(self.author.scope("Actuators"), a.name, "MjcActuator", "actuator")
        kind = _KIND.get(a.target_kind, a.target_kind)
        self.author.targets(prim, "mjc:target", kind, [a.target])
        if a.target_kind == "joint_in_parent":
            put(prim, "mjc:jointInParent", "Bool", True)
        if a.second:
            self.author.targets(prim, "mjc:sliderSite" if kind == "site" and a.target_kind != "site" else "mjc:refSite",
                                "site", [a.second])  # fmt: skip
        values: dict[str, Any] = {r.fact: getattr(a, r.fact, None) for r in ACTUATOR}
        length = np.array(m.actuator_lengthrange[m.actuator_outadr[i]], float)
        history = np.ravel(m.actuator_history[i])
        values |= {
            "group": int(m.actuator_group[i]),
            "early": bool(m.actuator_actearly[i]),
            "dim": -1 if a.dynamics != "user" else int(m.actuator_actnum[i]),
            "lengthrange": length if np.any(length) else None,
            "crank_length": float(a.other[0]),
            "delay": float(a.other[1]),
            "armature": float(a.other[2]),
            "damping": a.other[3:6],
            "input": INPUTS.get(int(np.ravel(m.actuator_ctrlspec[i])[0]), ""),
            "samples": int(history[0]),
            "interpolation": INTERPOLATION[int(history[1])],
        }
        self.author.rules(prim, ACTUATOR, values)
        ranges = {"ctrl": a.ctrlrange, "force": a.forcerange, "act": a.actrange}
        for word, bounds in ranges.items():
            if np.isfinite(bounds).all():
                put(prim, f"mjc:{word}Limited", "Token", "true")
                put(prim, f"mjc:{word}Range:min", "Double", bounds[0])
                put(prim, f"mjc:{word}Range:max", "Double", bounds[1])
        self._drive(a)

    def _drive(self, a: Actuator) -> None:
        """The UsdPhysics drive that does the same when the control is zero, for readers that know only drives."""
        joint = self.model.joints.get(a.target) if a.target_kind == "joint" else None
        gains = a.bias == "affine" and a.gain == "fixed" and a.dynamics == "none" and a.bias_prm[0] == 0
        if joint is None or joint.kind not in ("hinge", "slide") or not gains:
            return
        prim = self._prim(joint.name)
        name = "angular" if joint.kind == "hinge" else "linear"
        if UsdPhysics.DriveAPI.Get(prim, name):
            return
        stiffness, damping = drive_gains(a.bias_prm, a.gear, joint.kind == "hinge")
        drive = UsdPhysics.DriveAPI.Apply(prim, name)
        drive.CreateTypeAttr(UsdPhysics.Tokens.force)
        drive.CreateStiffnessAttr(stiffness)
        drive.CreateDampingAttr(damping)
        if np.isfinite(a.forcerange).all():
            drive.CreateMaxForceAttr(float(np.abs(a.forcerange).max() * abs(a.gear[0])))

    # equalities -------------------------------------------------------------------------------------------

    def _named(self, i: int, e: Equality) -> Equality:
        """With the names of the joints or tendons it is between, which MuJoCo keeps under no object type."""
        if e.kind not in ("joint", "tendon"):
            return e
        names = [*(self.model.joints if e.kind == "joint" else self.model.tendons)]
        ends = (int(self.m.eq_obj1id[i]), int(self.m.eq_obj2id[i]))
        first, second = (names[k] if k >= 0 else "" for k in ends)
        return replace(e, first=first, second=second)

    def _equality(self, e: Equality) -> None:
        if e.kind == "joint" and e.second:
            prim = self._prim(e.first)
            if not prim.HasAttribute("flyball:equality:name"):
                self._mimic(prim, e)
                return
        if e.kind in ("joint", "tendon"):
            prim = self.author.define(self.author.scope("Equalities"), e.name, "Scope", "equality")
            names = [n for n in (e.first, e.second) if n]
            self.author.targets(prim, "flyball:equality:between", e.kind, names)
            put(prim, "flyball:equality:kind", "Token", e.kind)
            put(prim, "flyball:equality:polynomial", "DoubleArray", e.data[:5])
            put(prim, "flyball:equality:active", "Bool", e.active)
            self.author.rules(prim, EQUALITY, e)
        elif e.kind in ("connect", "weld"):
            self._loop(e)
        else:
            self.losses.append(f"equality {e.name}: {e.kind} is not carried")

    def _mimic(self, prim: Usd.Prim, e: Equality) -> None:
        apply(prim, "NewtonMimicAPI", "MjcEqualityJointAPI")
        angular = self.model.joints[e.first].kind == "hinge"
        put(prim, "flyball:equality:name", "String", e.name)
        put(prim, "newton:mimicEnabled", "Bool", e.active)
        put(prim, "newton:mimicCoef0", "Float", np.degrees(e.data[0]) if angular else e.data[0])
        put(prim, "newton:mimicCoef1", "Float", e.data[1])
        exact(prim, "newton:mimicCoef1", e.data[1])
        self.author.targets(prim, "newton:mimicJoint", "joint", [e.second])
        for k in (2, 3, 4):
            if e.data[k]:
                put(prim, f"mjc:coef{k}", "Double", e.data[k])
        self.author.rules(prim, EQUALITY, e)

    def _loop(self, e: Equality) -> None:
        weld, site = e.kind == "weld", e.object_kind == "site"
        kind = "Fixed" if weld else "Spherical"
        prim = self.author.define(self.author.scope("Equalities"), e.name, f"Physics{kind}Joint", "equality")
        made = getattr(UsdPhysics, f"{kind}Joint")(prim)
        bodies = [e.first, e.second or "world"]
        if site:
            # a joint must name bodies; that it is the sites which coincide stands beside it
            self.author.targets(prim, "flyball:equality:sites", "site", [e.first, e.second])
            bodies = [self.model.sites[n].body for n in (e.first, e.second)]
        made.CreateBody0Rel().SetTargets([self.author.paths["body", bodies[0]]])
        made.CreateBody1Rel().SetTargets([self.author.paths["body", bodies[1]]])
        made.CreateExcludeFromArticulationAttr(True)
        made.CreateJointEnabledAttr(e.active)
        d = e.data
        if site:
            for k, name in enumerate((e.first, e.second)):
                made.GetPrim().CreateAttribute(f"physics:localPos{k}", Sdf.ValueTypeNames.Point3f, False).Set(
                    vec3f(self.model.sites[name].pos)
                )
                made.GetPrim().CreateAttribute(f"physics:localRot{k}", Sdf.ValueTypeNames.Quatf, False).Set(
                    quatf(self.model.sites[name].quat)
                )
        else:
            first, second, turn = (
                (d[3:6] + rotation(d[6:10]) @ d[:3], d[:3], d[6:10]) if weld else (d[:3], d[3:6], IDENTITY)
            )
            made.CreateLocalPos0Attr(vec3f(first))
            made.CreateLocalPos1Attr(vec3f(second))
            made.CreateLocalRot0Attr(quatf(turn))
            exact(prim, "physics:localPos0", first)
            exact(prim, "physics:localPos1", second)
            exact(prim, "physics:localRot0", turn)
        apply(prim, "MjcEqualityWeldAPI" if weld else "MjcEqualityConnectAPI")
        if weld:
            put(prim, "mjc:torqueScale", "Float", d[10])
        self.author.rules(prim, EQUALITY, e)

    # contacts ---------------------------------------------------------------------------------------------

    def _filters(self) -> None:
        for text in self.model.excludes:
            pair = split_pair(text.split("#")[0], [*self.model.bodies, "world"])
            if pair is None:
                self.losses.append(f"exclude {text}: its bodies have no unique names")
                continue
            one, two = pair if pair[0] != "world" else pair[::-1]
            api = UsdPhysics.FilteredPairsAPI.Apply(self.stage.GetPrimAtPath(self.author.paths["body", one]))
            api.CreateFilteredPairsRel().AddTarget(self.author.paths["body", two])
        geoms = [*self.model.geoms]
        for i, p in enumerate(self.model.pairs.values()):
            name = self.m.pair(i).name or f"pair{i}"
            prim = self.author.define(self.author.scope("Contacts"), name, "Scope", "pair")
            names = [geoms[int(self.m.pair_geom1[i])], geoms[int(self.m.pair_geom2[i])]]
            self.author.targets(prim, "flyball:contact:between", "geom", names)
            self.author.rules(prim, PAIR, p)
        self._groups()

    def _groups(self) -> None:
        """UsdPhysics collision groups that say the same as contype and conaffinity."""
        members: dict[tuple[int, int], list[str]] = {}
        for g in self.model.geoms.values():
            if ("geom", g.name) in self.author.paths and (g.collides or g.name in self._paired()):
                members.setdefault((g.contype, g.conaffinity), []).append(g.name)
        deaf = {(a, b) for a in members for b in members if not (a[0] & b[1] or b[0] & a[1])}
        if not deaf:
            return
        names = {key: f"contype{key[0]}_conaffinity{key[1]}" for key in members}
        for key, geoms in members.items():
            prim = self.author.define(
                self.author.scope("CollisionGroups"), names[key], "PhysicsCollisionGroup", "group"
            )
            colliders = UsdPhysics.CollisionGroup(prim).GetCollidersCollectionAPI()
            colliders.CreateIncludesRel().SetTargets([self.author.paths["geom", g] for g in geoms])
        for key in members:
            others = [names[b] for a, b in sorted(deaf) if a == key]
            if others:
                prim = self.stage.GetPrimAtPath(self.author.paths["group", names[key]])
                rel = UsdPhysics.CollisionGroup(prim).CreateFilteredGroupsRel()
                rel.SetTargets([self.author.paths["group", n] for n in others])

    def _paired(self) -> set[str]:
        names = [*self.model.geoms]
        return {names[int(k)] for k in np.concatenate([self.m.pair_geom1, self.m.pair_geom2])}

    # sensors and keyframes --------------------------------------------------------------------------------

    def _sensor(self, s: Sensor) -> None:
        ends = [(s.object_kind, s.object), (s.reference_kind, s.reference)]
        missing = [n for k, n in ends if n and (_KIND.get(k, k), n) not in self.author.paths]
        if s.kind in ("plugin", "user", "tactile") or missing:
            why = f"{missing[0]} is not carried" if missing else f"{s.kind} has no description of its own"
            self.losses.append(f"sensor {s.name}: {why}")
            return
        prim = self.author.define(self.author.scope("Sensors"), s.name, "Scope", "sensor")
        put(prim, "flyball:sensor:kind", "Token", s.kind)
        for word, (kind, name) in zip(("object", "reference"), ends, strict=True):
            if name:
                put(prim, f"flyball:sensor:{word}:kind", "Token", kind)
                self.author.targets(prim, f"flyball:sensor:{word}", _KIND.get(kind, kind), [name])
        if s.cutoff:
            put(prim, "flyball:sensor:cutoff", "Double", s.cutoff)
        if s.noise:
            put(prim, "flyball:sensor:noise", "Double", s.noise)
        if np.any(s.other):
            put(prim, "flyball:sensor:parameters", "DoubleArray", s.other)
        rest = self.model.rest["sensors"][s.name]
        if np.any(rest["history"]):
            put(prim, "flyball:sensor:history", "IntArray", rest["history"])
        if np.any(rest["interval"]):
            put(prim, "flyball:sensor:interval", "DoubleArray", rest["interval"])

    def _keyframes(self) -> None:
        for key in self.model.keyframes.values():
            prim = self.author.define(self.author.scope("Keyframes"), key.name, "Scope", "key")
            put(prim, "flyball:key:time", "Double", key.time)
            for table, kind, parts in (
                ("joint", "joint", {"position": key.qpos, "velocity": key.qvel}),
                ("actuator", "actuator", {"control": key.ctrl, "activation": key.act}),
                ("mocap", "body", {"pose": key.mocap}),
            ):
                for word, values in parts.items():
                    there = [n for n in values if (kind, n) in self.author.paths]
                    if there:
                        numbers = np.concatenate([np.ravel(values[n]) for n in there])
                        self.author.targets(prim, f"flyball:key:{table}:{word}:of", kind, there)
                        put(prim, f"flyball:key:{table}:{word}", "DoubleArray", numbers)


def drive_gains(bias: Any, gear: Any, angular: bool) -> tuple[float, float]:
    """Stiffness and damping of the drive that an affine bias amounts to, per degree for an angular one."""
    unit = float(gear[0]) ** 2 * (np.pi / 180 if angular else 1.0)
    return -float(bias[1]) * unit, -float(bias[2]) * unit


def split_pair(text: str, names: list[str]) -> tuple[str, str] | None:
    """The two names of ``a|b``, where names may hold a bar themselves; None when that is not one way only."""
    known, parts = set(names), text.split("|")
    ways = [("|".join(parts[:k]), "|".join(parts[k:])) for k in range(1, len(parts))]
    found = [w for w in ways if w[0] in known and w[1] in known]
    return found[0] if len(found) == 1 else None


__all__ = ["Mechanisms", "drive_gains", "split_pair"]
