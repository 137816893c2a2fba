# ruff: noqa: E501 - models as they come
"""Model files changed at random, read by ``flyball.robots.models.load``: what gets through, and what comes out.

    python benchmarks/fuzz_models.py --inputs 100000 --seed 0 [--json FILE] [--keep DIR]

Every input is one of a few small models (MJCF with nearly every kind of element, URDF, a sidecar, STL, OBJ and DAE
meshes) with one to three changes: a value replaced by a hostile one, an element dropped, doubled, moved or nested in
itself, bytes flipped, cut or inserted. An input is numbered; ``--first N`` starts there, so that one can be repeated.
Counted are: loaded, refused (with one line), uncaught (any other exception: a defect, exit code 1), and among the
refused those on which MuJoCo's compiler crashed or ran out of its bounds in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from flyball.base import FlyballError, InputError
from flyball.robots.models import guard, load

MJCF = """<mujoco model="zoo"><compiler angle="degree" autolimits="true"/><option timestep="0.002"><flag energy="enable"/></option>
<default><geom friction="1 .01 .001"/><default class="v"><geom contype="0" conaffinity="0" group="2"/></default></default>
<asset><mesh name="m" file="m.stl" scale="1 1 1"/><mesh file="o.obj"/><mesh name="i" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/>
<texture name="t" type="2d" builtin="checker" width="16" height="16"/><material name="mat" texture="t"/>
<hfield name="h" nrow="3" ncol="3" size="1 1 1 1"/></asset>
<worldbody><light name="l"/><camera name="c" pos="0 0 1"/><geom type="plane" size="1 1 1" name="f" material="mat"/>
<geom type="hfield" hfield="h"/><body name="a" pos="0 0 1" quat="1 0 0 0"><freejoint name="fr"/><geom type="mesh" mesh="m"/>
<site name="s"/><body name="b" pos="1 0 0" euler="0 10 0"><joint name="j" axis="0 1 0" range="-90 90" damping="1"/>
<geom name="g" type="capsule" fromto="0 0 0 1 0 0" size=".1"/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
<body name="cc"><joint name="k" type="ball"/><geom name="ball" size=".1" class="v"/><geom type="mesh" mesh="o" mass=".1"/>
<site name="s2" pos="0 0 .1"/></body></body></body><frame pos="0 0 1"><body name="fb"><geom size=".1"/></body></frame>
<replicate count="3" offset="0 0 1"><body name="r"><joint type="slide"/><geom size=".1"/></body></replicate>
<body name="fl"><flexcomp name="fc" type="grid" count="3 3 1" spacing=".1 .1 .1" mass="1" dim="2"/></body></worldbody>
<contact><exclude body1="a" body2="b"/><pair geom1="f" geom2="g"/></contact>
<equality><weld body1="a" body2="b"/><joint joint1="j" polycoef="0 1 0 0 0"/><connect body1="b" anchor="0 0 0"/></equality>
<tendon><spatial name="t1"><site site="s"/><geom geom="ball"/><site site="s2"/></spatial>
<fixed name="t2"><joint joint="j" coef="1"/></fixed></tendon>
<actuator><position name="p" joint="j" kp="3"/><muscle tendon="t1" lengthrange="0.5 2"/><general tendon="t2" dyntype="integrator"/></actuator>
<sensor><gyro site="s"/><jointpos joint="j"/><rangefinder site="s"/><framepos objtype="body" objname="b"/></sensor>
<keyframe><key name="home"/></keyframe><include file="part.xml"/></mujoco>"""
PART = """<mujocoinclude><worldbody><body name="part"><geom type="box" size=".1 .1 .1"/></body></worldbody></mujocoinclude>"""
URDF = """<robot name="r"><mujoco><compiler meshdir="." strippath="false"/></mujoco><material name="red"><color rgba="1 0 0 1"/></material>
<link name="base"><inertial><mass value="2"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
<visual name="x"><geometry><mesh filename="package://x/../m.stl" scale="1 1 1"/></geometry><material name="red"/></visual></link>
<link name="l1"><inertial><origin xyz="0 0 .1" rpy="0.1 0 0"/><mass value="1"/>
<inertia ixx="1" iyy="1" izz="1.2" ixy="0.1" ixz="0" iyz="0"/></inertial>
<collision name="c"><origin xyz="0 0 1" rpy="0 1 0"/><geometry><box size=".1 .1 .2"/></geometry></collision>
<visual><geometry><mesh filename="d.dae"/></geometry></visual></link><link name="hollow"/>
<link name="l2"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
<collision><geometry><cylinder radius=".1" length="1"/></geometry></collision></link>
<joint name="j" type="revolute"><parent link="base"/><child link="l1"/><axis xyz="0 0 1"/>
<limit lower="-1" upper="1" effort="10" velocity="3"/><dynamics damping=".3" friction=".2"/></joint>
<joint name="h" type="prismatic"><parent link="l1"/><child link="hollow"/><limit lower="0" upper="1" effort="1" velocity="1"/></joint>
<joint name="k" type="continuous"><origin xyz="0 0 1" rpy="1 0 0"/><parent link="hollow"/><child link="l2"/><axis xyz="0 1 0"/>
<mimic joint="j" multiplier="2" offset=".1"/></joint></robot>"""
SIDECAR = json.dumps(
    {
        "flyball_sidecar": 1,
        "velocity_limits": {"j": 2.0},
        "option": {"timestep": "0.001"},
        "set": {"joint": {"j": {"armature": "0.1"}}, "geom": {"c": {"condim": "4", "type": "box"}}},
        "add": [
            {"in": "body:l1", "element": "site", "attributes": {"name": "s", "pos": "0 0 0"}},
            {"in": "actuator", "element": "general", "attributes": {"name": "u", "joint": "j", "gainprm": "1 0"}},
            {"in": "sensor", "element": "gyro", "attributes": {"site": "s"}},
            {
                "in": "tendon",
                "element": "fixed",
                "attributes": {"name": "t"},
                "children": [{"element": "joint", "attributes": {"joint": "j", "coef": "1"}}],
            },
        ],
        "keyframes": {"home": {"time": 0.5, "qpos": {"j": [0.1], "h": [0.2], "k": [0.3]}, "ctrl": {"u": [1.0]}}},
    }
)
CORNERS = ((0, 0, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1))
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
STL = (
    b"\0" * 80
    + struct.pack("<I", 4)
    + b"".join(struct.pack("<12fH", 0, 0, 0, *(x for k in f for x in CORNERS[k]), 0) for f in FACES)
)
OBJ = (
    "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS) + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in FACES)
).encode()
DAE = f"""<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1"><asset>
<unit name="meter" meter="0.5"/><up_axis>Z_UP</up_axis></asset><library_geometries><geometry id="g"><mesh><source id="p">
<float_array id="pa" count="12">{" ".join(str(x) for c in CORNERS for x in c)}</float_array><technique_common>
<accessor source="#pa" count="4" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>
<param name="Z" type="float"/></accessor></technique_common></source><vertices id="v"><input semantic="POSITION" source="#p"/>
</vertices><triangles count="4"><input semantic="VERTEX" source="#v" offset="0"/><p>{" ".join(str(k) for f in FACES for k in f)}</p>
</triangles></mesh></geometry></library_geometries><library_visual_scenes><visual_scene id="s"><node id="n">
<instance_geometry url="#g"/></node></visual_scene></library_visual_scenes><scene><instance_visual_scene url="#s"/></scene>
</COLLADA>"""
FILES = {
    "model.xml": MJCF.encode(),
    "part.xml": PART.encode(),
    "model.urdf": URDF.replace("package://x/../m.stl", "m.stl").encode(),
    "model.urdf.flyball.json": SIDECAR.encode(),
    "m.stl": STL,
    "o.obj": OBJ,
    "d.dae": DAE.encode(),
}
ENTRY = {"part.xml": "model.xml", "o.obj": "model.xml", "m.stl": "model.xml", "d.dae": "model.urdf"}
ENTRY |= {"model.urdf.flyball.json": "model.urdf"}
WEIGHTS = {
    "model.xml": 8,
    "model.urdf": 8,
    "model.urdf.flyball.json": 3,
    "part.xml": 1,
    "m.stl": 1,
    "o.obj": 1,
    "d.dae": 2,
}
HOSTILE = (
    *("0", "-1", "1", "1e308", "-1e308", "1e400", "1e-320", "nan", "-nan", "inf", "-inf", "", " ", "1e9", "2147483647"),
    *("-2147483648", "4294967296", "99999999999999999999", "0 0 0", "1 1 1 1 1 1 1 1 1 1 1 1 1", "abc", "true", "0x10"),
    *("%s%n%s", "../../../etc/passwd", "/dev/zero", "package://", "package://a/b", "http://x/y.stl", "world", "&amp;"),
    *(
        "model.xml",
        "part.xml",
        ".",
        "é",
        "\\",
        "m.stl",
        "1,2,3",
        "j",
        "base",
        "l1",
        "a",
        "auto",
        "mesh",
        "free",
        "ball",
    ),
)


def change(rng: random.Random, data: bytes) -> bytes:
    """One change: of bytes now and then, of a value or an element as a rule."""
    kind = rng.random()
    if kind < 0.12 or not (b"<" in data or b"{" in data):
        return _bytes(rng, data)
    text = data.decode("utf-8", "surrogateescape")
    values = list(re.finditer(r'"([^"]*)"', text))
    elements = list(re.finditer(r"<[a-zA-Z_][^<>]*/>", text))
    if kind < 0.55 and values:
        m = rng.choice(values)
        text = text[: m.start(1)] + rng.choice(HOSTILE) + text[m.end(1) :]
    elif kind < 0.70 and elements:
        m = rng.choice(elements)
        again = rng.choice(("", m.group() * rng.randint(2, 4), f"<body>{m.group()}</body>"))
        text = text[: m.start()] + again + text[m.end() :]
    elif kind < 0.85 and len(elements) > 1:
        m, n = rng.choice(elements), rng.choice(elements)
        text = text[: n.end()] + m.group() + text[n.end() :]
    elif len(values) > 1:
        m, n = rng.choice(values), rng.choice(values)
        text = text[: m.start(1)] + n.group(1) + text[m.end(1) :]
    return text.encode("utf-8", "surrogateescape")


def _bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        end = min(len(data), at + rng.randrange(1, 200))
        return data[:at] + data[at:end] * rng.randint(2, 5) + data[end:]
    return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]


def make(seed: int, number: int) -> tuple[str, bytes]:
    """(file, content) of an input; equal arguments make equal inputs."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    data = FILES[name]
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        data = change(rng, data) or b" "
    return name, data


def campaign(inputs: int, seed: int, first: int = 0, keep: Path | None = None) -> dict[str, object]:
    """Read inputs ``first`` to ``first + inputs``."""
    counts: Counter[str] = Counter()
    died: Counter[str] = Counter()
    defects: list[dict[str, object]] = []
    slowest = (0.0, 0)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, data in FILES.items():
            (place / name).write_bytes(data)
        for number in range(first, first + inputs):
            name, data = make(seed, number)
            (place / name).write_bytes(data)
            since = time.monotonic()
            try:
                load(place / ENTRY.get(name, name))
                counts["loaded"] += 1
            except FlyballError as err:
                counts["refused"] += 1
                line = err.line()
                crash = re.search(
                    r"MuJoCo (crashed|ended)[^;]*|takes more than|too much memory|unknown exception", line
                )
                if crash:
                    died[crash.group()] += 1
                bad = "\n" in line or not line.strip() or not isinstance(err, InputError)
            except Exception as err:
                counts["uncaught"] += 1
                defects.append({"input": number, "file": name, "error": f"{type(err).__name__}: {err}"[:300]})
                if keep is not None:
                    (keep / f"{seed}-{number}-{name}").write_bytes(data)
                    (keep / f"{seed}-{number}.txt").write_text(traceback.format_exc())
                bad = False
            else:
                bad = False
            if bad:
                counts["not one line of an InputError"] += 1
                defects.append({"input": number, "file": name, "error": line[:300]})
            slowest = max(slowest, (time.monotonic() - since, number))
            (place / name).write_bytes(FILES[name])
            if number % 1000 == 999 and sys.stderr.isatty():
                print(f"{number + 1 - first} inputs: {dict(counts)}", file=sys.stderr)
    return {
        "inputs": inputs,
        "seed": seed,
        "first": first,
        "counts": dict(counts),
        "compiler_died_in_its_process": dict(died),
        "defects": defects[:50],
        "seconds": round(time.monotonic() - begun, 1),
        "slowest_s_and_input": slowest,
        "mujoco_compiler_bounds": {"memory": guard.MEMORY, "cpu_s": guard.CPU_S},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--keep", type=Path, help="keep inputs that break something in this folder")
    args = parser.parse_args()
    if args.keep is not None:
        os.makedirs(args.keep, exist_ok=True)
    result = campaign(args.inputs, args.seed, args.first, args.keep)
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 1 if result["defects"] else 0


if __name__ == "__main__":
    sys.exit(main())
