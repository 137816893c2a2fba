"""Worlds that differ: variations as data, objects placed by relations and let go to see that they stay.

    python examples/09_randomize.py [--worlds N] [--seed S]

Both are the same wherever they are drawn. Takes seconds. Needs pip install 'flyball[sim]'.
"""

import argparse

from flyball.engines import engines
from flyball.engines.settling import settling
from flyball.robots.zoo import flyarm
from flyball.scenes import Scene
from flyball.scenes.placement import Box, Cylinder, Object, place, reachable_by
from flyball.scenes.routing import route
from flyball.scenes.variation_files import read_variations

VARIATIONS = """
["body:box.mass"]
kind = "uniform"
low = 0.2
high = { kind = "ramp", start = 0.3, end = 0.9 }
["geom:box.friction[0]"]
kind = "formula"
text = "clip(0.2 + 0.8 * 'body:box.mass', 0.3, 1.0)"
"""
MODEL = """<mujoco><worldbody><geom type="plane" size="2 2 .1"/>
<body name="box" pos="0 0 1"><freejoint name="box"/><geom name="box" type="box" size=".03 .03 .03" mass=".3"/></body>
<body name="can" pos="1 0 1"><freejoint name="can"/><geom type="cylinder" size=".03 .05" mass=".3"/></body>
</worldbody></mujoco>"""
OBJECTS = [Object("box", Box((0.03, 0.03, 0.03))), Object("can", Cylinder(0.03, 0.05))]
RULES = ["box left of can by 5 cm", "box facing can", "box reachable by arm", "can reachable by arm"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    scene, worlds = Scene("example", MODEL, (), read_variations(VARIATIONS)), range(args.worlds)
    easy, drawn = (scene.draw_worlds(args.seed, worlds, progress=p) for p in (0.0, 1.0))
    print(f"heaviest box: {easy['body:box.mass'].max():.2f} kg at first, {drawn['body:box.mass'].max():.2f} kg at last")
    alone = scene.draw_worlds(args.seed, [5])["body:box.mass"][0]
    print(f"world 5 alone is world 5 of {len(worlds)}: {alone == drawn['body:box.mass'][5]}")
    engine, joints = engines.load("mujoco")(), flyarm.FLYARM.joints
    simulation = engine.open(scene, args.worlds)
    simulation.set(route(drawn, simulation.get, variations=scene.variations).engine)
    print(f"masses set and read back: {(simulation.get('body:box.mass')[:, 0] == drawn['body:box.mass']).all()}")
    arm = reachable_by(flyarm.inverse, flyarm.forward, [j.low for j in joints], [j.high for j in joints])
    reach, settle = {"arm": arm}, settling(engine, scene, ["box", "can"])
    checks = {"reach": reach, "settle": settle, "region": ((0.2, 0.6), (-0.4, 0.4))}
    placed = place(OBJECTS, RULES, args.seed, worlds, **checks).require()
    print(
        f"{placed.success.sum()} of {len(worlds)} placed; moved {placed.moved.max() * 1e3:.1f} mm at most when let go"
    )
    print(place(OBJECTS, [*RULES, "box right of can"], args.seed, range(4), **checks).conflicts[0])


if __name__ == "__main__":
    main()
