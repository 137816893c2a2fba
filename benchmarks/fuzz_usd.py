"""Damaged USD files against the importer: ``python benchmarks/fuzz_usd.py --inputs 100000 --seed 1``.

Every input is a valid file (.usda, .usdc, .usdz, composed or not) with bytes, words, numbers or lines changed, derived
from the seed and its number alone. An input ends as ``read``, as ``refused`` (one line, as it should be), as ``died``
or ``slow`` (OpenUSD or MuJoCo took the process with it or did not come back; ``flyball`` reads in a guarded process,
where that is one line too), or as ``uncaught``: an exception that is none of ours, a defect. The last line counts them;
the exit code is 1 when anything was uncaught.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SLOW_S = 60.0
"""Wall time after which an input counts as slow; the machine may be busy."""
MEMORY = 8 << 30
"""Address space of a worker [bytes], as of the guarded process."""
NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1e300", "-1e300", "1e-300", "999999999999999999999", "0.5", "3", "1e9"]
WORDS = [
    "None",
    '""',
    "[]",
    "()",
    "{}",
    "</nowhere>",
    "@nowhere.usda@",
    '"X"',
    "def",
    "over",
    "class",
    "\0",
    "true",
    "é",
]

RICH = """<mujoco model="rich"><compiler angle="radian"/><option timestep="0.004" cone="elliptic"/>
<asset><mesh name="tetra" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/><hfield name="hill" nrow="3" ncol="3" size="1 1 .2 .1"
 elevation="0 0 0 0 1 0 0 0 0"/></asset>
<worldbody><light name="sun" dir="0 .1 -1" type="directional"/><camera name="eye" pos="1 0 1" fovy="50"/>
<geom name="floor" type="plane" size="0 0 .1"/><geom name="hill" type="hfield" hfield="hill" pos="3 0 0"/>
<body name="a" pos="0 0 1"><joint name="ja" axis="0 1 0" range="-1 1" damping=".1" armature=".01" frictionloss=".1"/>
 <geom name="ga" type="mesh" mesh="tetra" contype="2"/><site name="s" pos="0 0 .1"/>
 <body name="b" pos=".2 0 0"><joint name="jb" type="ball"/><geom name="gb" type="ellipsoid" size=".05 .03 .02"/>
  <site name="t"/></body></body>
<body name="c" pos="1 0 1"><freejoint name="c"/><geom name="gc" size=".05" friction=".5 .01 .001" condim="6"/></body>
<body name="m" mocap="true" pos="0 1 1"><geom name="gm" type="box" size=".02 .02 .02"/></body></worldbody>
<tendon><spatial name="rope"><site site="s"/><site site="t"/></spatial></tendon>
<equality><weld name="w" body1="c" body2="m"/><connect name="k" body1="b" body2="c" anchor="0 0 .1"/></equality>
<contact><exclude body1="a" body2="c"/><pair geom1="ga" geom2="floor"/></contact>
<actuator><position name="pa" joint="ja" kp="20" ctrlrange="-1 1"/><general name="pull" tendon="rope" gainprm="3"/>
</actuator>
<sensor><framepos name="f" objtype="site" objname="s"/><jointpos name="q" joint="ja"/></sensor>
<keyframe><key name="home" qpos=".2 1 0 0 0 1 0 1 1 0 0 0" ctrl="0 1"/></keyframe></mujoco>"""
"""A model with one of almost everything."""

FOREIGN = """#usda 1.0
(
    defaultPrim = "Robot"
    metersPerUnit = 0.01
    upAxis = "Y"
    kilogramsPerUnit = 1
)
def PhysicsScene "Scene"
{
    vector3f physics:gravityDirection = (0, -1, 0)
    float physics:gravityMagnitude = 981
}
def Xform "Robot" (
    prepend apiSchemas = ["PhysicsArticulationRootAPI"]
)
{
    def Cube "Base" (
        prepend apiSchemas = ["PhysicsRigidBodyAPI", "PhysicsMassAPI", "PhysicsCollisionAPI"]
    )
    {
        double size = 10
        float physics:mass = 2
    }
    def Xform "Arm" (
        prepend apiSchemas = ["PhysicsRigidBodyAPI", "PhysicsMassAPI", "PhysicsFilteredPairsAPI"]
    )
    {
        float physics:mass = 1
        float3 physics:diagonalInertia = (30, 30, 3)
        quatf physics:principalAxes = (1, 0, 0, 0)
        point3f physics:centerOfMass = (0, 10, 0)
        rel physics:filteredPairs = </Robot/Base>
        double3 xformOp:translate = (0, 5, 0)
        uniform token[] xformOpOrder = ["xformOp:translate"]
        def Capsule "Shape" (
            prepend apiSchemas = ["PhysicsCollisionAPI"]
        )
        {
            uniform token axis = "Y"
            double height = 20
            double radius = 2
        }
    }
    def PhysicsFixedJoint "Root"
    {
        rel physics:body1 = </Robot/Base>
    }
    def PhysicsRevoluteJoint "Hinge" (
        prepend apiSchemas = ["PhysicsDriveAPI:angular"]
    )
    {
        uniform token physics:axis = "X"
        rel physics:body0 = </Robot/Base>
        rel physics:body1 = </Robot/Arm>
        point3f physics:localPos0 = (0, 5, 0)
        quatf physics:localRot0 = (1, 0, 0, 0)
        point3f physics:localPos1 = (0, 0, 0)
        quatf physics:localRot1 = (1, 0, 0, 0)
        float physics:lowerLimit = -90
        float physics:upperLimit = 90
        float drive:angular:physics:stiffness = 100
        float drive:angular:physics:damping = 10
    }
}
"""
"""What a tool writes that knows UsdPhysics only, in centimetres and with y up."""


def seeds(folder: Path) -> list[Path]:
    """Valid files to damage, written into a folder."""
    import mujoco

    from flyball.robots.models.facts import facts
    from flyball.robots.models.imported import Imported
    from flyball.scenes.usd import Part, VariantSet
    from flyball.scenes.usd.composition import compose
    from flyball.scenes.usd.write import write

    model = Imported("rich", RICH, {}, facts(mujoco.MjSpec.from_string(RICH).compile()))
    out = [folder / f"rich{suffix}" for suffix in (".usda", ".usdc", ".usdz")]
    for path in out:
        write(model, path)
    (folder / "foreign.usda").write_text(FOREIGN)
    parts = [Part("one", folder / "rich.usda"), Part("two", folder / "rich.usda", pos=(0, 3, 0))]
    choice = VariantSet(
        "third", {c: [Part("three", folder / "rich.usda", pos=(x, 0, 0))] for c, x in (("a", 4), ("b", 6))}
    )
    compose(folder / "cell.usda", parts, variants=[choice])
    return [*out, folder / "foreign.usda", folder / "cell.usda"]


def damage(data: bytes, rng: random.Random) -> bytes:
    """A valid file with one to a few changes."""
    text = data.startswith(b"#usda")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        kind = rng.choice(
            ("number", "word", "line", "swap", "byte", "cut") if text else ("byte", "byte", "byte", "cut", "zero")
        )
        data = _change(data, kind, rng) or data
    return data


def _change(data: bytes, kind: str, rng: random.Random) -> bytes:
    if kind == "byte":
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == "zero":
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.choice((0, 255))]) * 8 + data[at + 8 :]
    if kind == "cut":
        a, n = rng.randrange(len(data)), rng.choice((1, 10, 1000))
        return data[:a] + data[a + n :]
    if kind in ("number", "word"):
        found = [
            *re.finditer(rb"-?\d+\.?\d*(e-?\d+)?" if kind == "number" else rb'[A-Za-z_:]+|"[^"\n]*"|<[^>\n]*>', data)
        ]
        spot = rng.choice(found)
        new = (
            rng.choice(NUMBERS)
            if kind == "number"
            else rng.choice([*WORDS, rng.choice(found).group().decode("utf-8", "replace")])
        )
        return data[: spot.start()] + new.encode() + data[spot.end() :]
    lines = data.split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    if kind == "swap":
        lines[a], lines[b] = lines[b], lines[a]
    elif rng.random() < 0.5:
        del lines[a]
    else:
        lines.insert(b, lines[a])
    return b"\n".join(lines)


def attempt(path: Path) -> tuple[str, str]:
    """Read a file in this process: outcome and what was said."""
    from flyball.base import FlyballError
    from flyball.scenes.usd import format as usd
    from flyball.scenes.usd.child import read_here

    usd.read_guarded = lambda p, v, n, r: read_here(p, v, n or None, r)  # the guard is what is left out here
    try:
        usd.look(path)
    except FlyballError as err:
        line = err.line()
        return ("uncaught", f"two lines: {line!r}") if "\n" in line or not err.what else ("refused", line)
    except (MemoryError, RecursionError) as err:
        return "refused", type(err).__name__  # the guard says so
    except Exception as err:
        import traceback

        place = traceback.extract_tb(err.__traceback__)[-1]
        return "uncaught", f"{type(err).__name__}: {err} ({Path(place.filename).name}:{place.lineno})"
    return "read", ""


def work(folder: Path, seed: int, start: int, stop: int) -> None:
    """Worker: one line per input."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    files = sorted(p for p in folder.iterdir() if not p.name.startswith("x"))
    for i in range(start, stop):
        rng = random.Random(f"{seed}/{i}")
        source = rng.choice(files)
        path = folder / f"x{i}{source.suffix}"
        path.write_bytes(damage(source.read_bytes(), rng))
        outcome, said = attempt(path)
        print(json.dumps([i, outcome, source.name, said]), flush=True)
        path.unlink()


def run(folder: Path, seed: int, inputs: int) -> Iterator[tuple[int, str, str, str]]:
    """All inputs, with a new worker whenever one dies."""
    at = 0
    while at < inputs:
        command = [
            sys.executable,
            __file__,
            "--worker",
            str(folder),
            str(at),
            "--inputs",
            str(inputs),
            "--seed",
            str(seed),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        reason = "died"
        while at < inputs:
            ready, _, _ = select.select([process.stdout], [], [], SLOW_S)
            if not ready:
                reason = "slow"
                break
            line = process.stdout.readline()
            if not line.startswith("["):
                if line:
                    continue
                break
            i, outcome, name, said = json.loads(line)
            at = i + 1
            yield i, outcome, name, said
        process.kill()
        code = process.wait()
        if at < inputs:
            yield at, reason, "", f"exit {code}"
            at += 1


def main() -> int:
    """Run the campaign, or one worker of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "START"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(Path(args.worker[0]), args.seed, int(args.worker[1]), args.inputs)
        return 0
    begun, counts = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds(folder)
        for i, outcome, source, said in run(folder, args.seed, args.inputs):
            counts[outcome] += 1
            if outcome not in ("read", "refused"):
                print(f"input {i} ({source or '?'}): {outcome}: {said}"[:400], flush=True)
    print(json.dumps({"inputs": args.inputs, "seed": args.seed, **counts, "s": round(time.monotonic() - begun)}))
    return 1 if counts["uncaught"] else 0


if __name__ == "__main__":
    sys.exit(main())
