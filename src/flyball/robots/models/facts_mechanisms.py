"""Facts of what refers to bodies, joints and shapes: actuators, constraints, tendons, sensors, keyframes.

In: a compiled ``mujoco.MjModel`` with its names. Out: those tables of ``Model``.
"""

from __future__ import annotations

import numpy as np

from flyball.robots.models.model import (
    Actuator,
    Array,
    Equality,
    Exclude,
    Keyframe,
    Pair,
    Sensor,
    Tendon,
)
from flyball.robots.models.naming import Naming, limits

_NQ = {"free": 7, "ball": 4}
_NV = {"free": 6, "ball": 3}


class Mechanisms:
    """Reads them."""

    def __init__(self, naming: Naming) -> None:
        self.naming, self.m = naming, naming.m

    def actuator(self, i: int) -> Actuator:
        """An actuator."""
        m = self.m
        kind = self.naming.word("mjtTrn", m.actuator_trntype[i])
        one, two = (int(x) for x in m.actuator_trnid[i])
        table = {"jointinparent": "joint", "slidercrank": "site"}.get(kind, kind)
        names = self.naming.names.get(table, [])
        c = int(m.actuator_ctrladr[i])
        return Actuator(
            name=self.naming.names["actuator"][i],
            target_kind={"jointinparent": "joint_in_parent", "slidercrank": "slider_crank"}.get(kind, kind),
            target=names[one] if 0 <= one < len(names) else "",
            second=self.naming.names["site"][two] if kind in ("site", "slidercrank") and two >= 0 else "",
            gear=m.actuator_gear[m.actuator_outadr[i]].copy(),
            dynamics=self.naming.word("mjtDyn", m.actuator_dyntype[i]),
            dynamics_prm=m.actuator_dynprm[i].copy(),
            gain=self.naming.word("mjtGain", m.actuator_gaintype[i]),
            gain_prm=m.actuator_gainprm[i].copy(),
            bias=self.naming.word("mjtBias", m.actuator_biastype[i]),
            bias_prm=m.actuator_biasprm[i].copy(),
            ctrlrange=limits(np.ravel(m.actuator_ctrlrange[c]), m.actuator_ctrllimited[c]),
            forcerange=limits(np.ravel(m.actuator_forcerange[i]), m.actuator_forcelimited[i]),
            actrange=limits(np.ravel(m.actuator_actrange[i]), m.actuator_actlimited[i]),
            controls=int(m.actuator_ctrlnum[i]),
            other=np.concatenate(
                [
                    [m.actuator_cranklength[i], m.actuator_delay[i], m.actuator_armature[i], m.actuator_damping[i]],
                    m.actuator_dampingpoly[i],
                ]
            ),
        )

    def equality(self, i: int) -> Equality:
        """A constraint."""
        m = self.m
        kind = self.naming.word("mjtEq", m.eq_type[i])
        if kind in ("joint", "tendon"):  # MuJoCo leaves the object's type open here
            objects, names, used = kind, self.naming.names[kind], 5
            first, second = (names[k] if k >= 0 else "" for k in (int(m.eq_obj1id[i]), int(m.eq_obj2id[i])))
        else:
            objects, first = self.naming.object(m.eq_objtype[i], int(m.eq_obj1id[i]))
            second, used = self.naming.object(m.eq_objtype[i], int(m.eq_obj2id[i]))[1], 11
        name = self.naming.names["equality"][i]
        return Equality(
            name=name or f"{kind}:{first}|{second}",
            kind=kind,
            object_kind=objects,
            first=first,
            second=second,
            data=np.concatenate([m.eq_data[i].astype(float)[:used], np.zeros(11 - used)]),
            active=bool(m.eq_active0[i]),
            solref=m.eq_solref[i].copy(),
            solimp=m.eq_solimp[i].copy(),
        )

    def exclude(self, signature: int) -> Exclude:
        """Two bodies that never touch."""
        return Exclude("|".join(sorted(self.naming.names["body"][k] for k in divmod(int(signature), 1 << 16))))

    def pair(self, i: int) -> Pair:
        """Two geoms with a contact of their own."""
        m = self.m
        names = sorted(self.naming.names["geom"][int(k)] for k in (m.pair_geom1[i], m.pair_geom2[i]))
        return Pair(
            name="|".join(names),
            condim=int(m.pair_dim[i]),
            friction=m.pair_friction[i].copy(),
            margin=float(m.pair_margin[i]),
            gap=float(m.pair_gap[i]),
            solref=m.pair_solref[i].copy(),
            solimp=m.pair_solimp[i].copy(),
            solref_friction=m.pair_solreffriction[i].copy(),
            adhesion=float(m.pair_adhesion[i]),
        )

    def tendon(self, i: int) -> Tendon:
        """A tendon."""
        m = self.m
        path = []
        for k in range(int(m.tendon_adr[i]), int(m.tendon_adr[i]) + int(m.tendon_num[i])):
            word = self.naming.word("mjtWrap", m.wrap_type[k])
            table = {"sphere": "geom", "cylinder": "geom"}.get(word, word)
            name = self.naming.names[table][m.wrap_objid[k]] if table in self.naming.names else ""
            side = m.wrap_prm[k]
            if table == "geom":
                side = float(side)
                path.append((word, f"{name}@{self.naming.names['site'][int(side)]}" if side >= 0 else name, 0.0))
            else:
                path.append((word, name, float(side)))
        return Tendon(
            name=self.naming.names["tendon"][i],
            path=tuple(path),
            range=limits(m.tendon_range[i], m.tendon_limited[i]),
            effort=limits(m.tendon_actfrcrange[i], m.tendon_actfrclimited[i]),
            stiffness=float(m.tendon_stiffness[i]),
            damping=float(m.tendon_damping[i]),
            frictionloss=float(m.tendon_frictionloss[i]),
            armature=float(m.tendon_armature[i]),
            springlength=m.tendon_lengthspring[i].copy(),
            margin=float(m.tendon_margin[i]),
            solver=np.concatenate(
                [
                    m.tendon_solref_lim[i],
                    m.tendon_solimp_lim[i],
                    m.tendon_solref_fri[i],
                    m.tendon_solimp_fri[i],
                    m.tendon_stiffnesspoly[i],
                    m.tendon_dampingpoly[i],
                ]
            ),
        )

    def sensor(self, i: int) -> Sensor:
        """A sensor."""
        m = self.m
        on = self.naming.object(m.sensor_objtype[i], int(m.sensor_objid[i]))
        relative = self.naming.object(m.sensor_reftype[i], int(m.sensor_refid[i]))
        return Sensor(
            name=self.naming.names["sensor"][i],
            kind=self.naming.word("mjtSensor", m.sensor_type[i]),
            object_kind=on[0],
            object=on[1],
            reference_kind=relative[0],
            reference=relative[1],
            cutoff=float(m.sensor_cutoff[i]),
            noise=float(m.sensor_noise[i]),
            other=np.array(
                [*map(float, m.sensor_intprm[i]), float(m.sensor_delay[i]), float(np.ravel(m.sensor_interval[i])[0])]
            ),
        )

    def keyframe(self, i: int) -> Keyframe:
        """A stored state."""
        m = self.m
        act, ctrl = {}, {}
        for k, name in enumerate(self.naming.names["actuator"]):
            a, c = int(m.actuator_actadr[k]), int(m.actuator_ctrladr[k])
            if a >= 0:
                act[name] = m.key_act[i, a : a + int(m.actuator_actnum[k])].copy()
            ctrl[name] = m.key_ctrl[i, c : c + int(m.actuator_ctrlnum[k])].copy()
        mocap = {}
        for b, k in enumerate(m.body_mocapid):
            if k >= 0:
                parts = (m.key_mpos[i].reshape(-1, 3)[k], m.key_mquat[i].reshape(-1, 4)[k])
                mocap[self.naming.names["body"][b]] = np.concatenate(parts)
        joints = self.naming.names["joint"]
        return Keyframe(
            name=self.naming.names["key"][i],
            time=float(m.key_time[i]),
            qpos={j: self.qpos(m.key_qpos[i], k) for k, j in enumerate(joints)},
            qvel={j: self._qvel(m.key_qvel[i], k) for k, j in enumerate(joints)},
            act=act,
            ctrl=ctrl,
            mocap=mocap,
        )

    def qpos(self, row: Array, joint: int) -> Array:
        """A joint's part of a row of positions."""
        at = int(self.m.jnt_qposadr[joint])
        return row[at : at + _NQ.get(self.naming.word("mjtJoint", self.m.jnt_type[joint]), 1)].copy()

    def _qvel(self, row: Array, joint: int) -> Array:
        at = int(self.m.jnt_dofadr[joint])
        return row[at : at + _NV.get(self.naming.word("mjtJoint", self.m.jnt_type[joint]), 1)].copy()
