# ruff: noqa: E501 - models as they come
"""Models with nearly everything in them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

RICH = (
    """
<mujoco model="rich"><option timestep="0.001" integrator="implicitfast" cone="elliptic"><flag energy="enable"/></option>
<default><default class="v"><geom contype="0" conaffinity="0" group="2"/></default><joint armature=".01"/></default>
<asset><mesh name="m" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/><mesh name="f" file="tetra.stl" scale="2 1 -1"/></asset>
<worldbody><light name="l" pos="0 0 3"/><camera name="c" pos="0 0 1" fovy="50"/>
<geom type="plane" size="1 1 1" name="floor" friction=".8 .01 .001"/>
<body name="arm" pos="0 0 .5" quat=".9 .1 .2 .3"><geom name="bb" type="box" size=".1 .1 .1" mass="2"/>
 <body name="a" pos="0 0 .1" euler="10 20 30">
  <joint name="j1" axis="0 1 0" range="-90 90" damping=".5" frictionloss=".1" stiffness="2" springref="10" ref="5"
   actuatorfrcrange="-20 30"/>
  <geom type="mesh" mesh="m" density="500"/><geom type="mesh" mesh="f" mass=".1" class="v" pos="0 .1 0" euler="0 0 90"/>
  <geom class="v" type="capsule" fromto="0 0 0 .3 0 0" size=".02"/><site name="s" pos="0 0 .05"/>
  <body name="b" pos=".3 0 0"><joint name="jx" type="slide" axis="1 0 0" range="-.1 .1"/>
   <joint name="jr" pos=".05 .01 0" axis="0 0 1" margin=".01" solreflimit=".01 1" range="-170 170"/>
   <geom type="ellipsoid" size=".05 .04 .03" condim="4" solref=".01 .9" margin=".001" rgba=".2 .3 .4 1"/>
   <inertial pos=".01 0 0" mass=".7" fullinertia=".01 .012 .013 .001 .0005 -.0003"/>
   <camera name="wrist" pos="0 0 .1" euler="0 90 0" resolution="64 48"/>
   <body name="l" pos=".1 .02 0"><joint name="left" type="slide" axis="0 1 0" range="0 .04"/>
    <geom name="lg" type="box" size=".01 .01 .03" mass=".05" friction="2 .1 .01"/></body>
   <body name="r" pos=".1 -.02 0"><joint name="right" type="slide" axis="0 -1 0" range="0 .04"/>
    <geom name="rg" type="cylinder" size=".01 .03" mass=".05" gap=".001" margin=".002"/></body>
   <body name="pend" pos="0 0 -.1"><joint name="ball" type="ball" damping=".01"/>
    <geom type="sphere" size=".02" pos="0 0 -.05"/><site name="s2"/></body>
  </body></body></body>
<body name="cube" pos="1 0 .1" gravcomp=".2"><freejoint name="cube"/>
 <geom name="cg" type="box" size=".03 .03 .03" mass=".2" contype="2" conaffinity="3" priority="1"/></body>
<body name="target" mocap="true" pos="1 1 1"><geom size=".01" contype="0" conaffinity="0" mass="0.1"/></body>
</worldbody>
<contact><exclude body1="l" body2="r"/><pair geom1="lg" geom2="cg" condim="6"/></contact>
<equality><joint joint1="left" joint2="right" solref=".005 1"/>
 <joint joint1="jx" joint2="j1" polycoef=".1 .2 .3 0 0" active="false"/>
 <weld body1="pend" body2="cube" active="false" anchor=".1 0 0"/>
 <connect name="cc" body1="cube" anchor="0 0 .1" active="false"/></equality>
<tendon><fixed name="grip" stiffness="1"><joint joint="left" coef=".5"/><joint joint="right" coef=".5"/></fixed>
 <spatial name="sp" range="0 2"><site site="s"/><geom geom="rg"/><site site="s2"/>"""
    """<pulley divisor="2"/><site site="s"/><site site="s2"/></spatial></tendon>
<actuator><position name="p1" joint="j1" kp="100" kv="5" ctrlrange="-1 1" forcerange="-15 15"/>
 <motor tendon="grip" gear="-1" ctrlrange="-40 40"/><velocity joint="jx" kv="3"/>
 <intvelocity joint="jr" kp="3" actrange="-1 1"/><muscle tendon="sp" name="mu" lengthrange="0.5 2"/>
 <general site="s" refsite="s2" gear="0 0 1 0 0 0"/></actuator>
<sensor><gyro name="g" site="s" noise=".01"/><jointpos joint="j1" cutoff="3"/>
 <framepos objtype="body" objname="b" reftype="site" refname="s2"/><touch site="s"/><tendonpos tendon="grip"/>
 <actuatorfrc actuator="p1"/><rangefinder site="s"/><subtreecom body="arm"/><clock name="t"/>
 <jointactuatorfrc joint="j1"/></sensor>
<keyframe><key name="home" time="1" qpos="0.1 .02 .3 .01 .01 1 0 0 0 1 0 .1 1 0 0 0" ctrl="1 2 3 4 5 6"/></keyframe>
</mujoco>"""
)

ARM = """<robot name="arm">
 <material name="red"><color rgba="1 0 0 1"/></material>
 <link name="base">
  <inertial><mass value="2"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
  <collision name="foot"><geometry><box size=".1 .1 .2"/></geometry></collision>
 </link>
 <link name="upper">
  <inertial><origin xyz="0 0 .1" rpy="0.1 0.2 0.3"/><mass value="1"/>
   <inertia ixx="1" iyy="1" izz="1.2" ixy="0.1" ixz="0" iyz="0"/></inertial>
  <visual><geometry><cylinder radius=".05" length=".3"/></geometry><material name="red"/></visual>
  <collision name="shell"><origin xyz="0 .1 0" rpy=".1 .2 .3"/><geometry><sphere radius=".1"/></geometry></collision>
 </link>
 <link name="fore">
  <inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>
 </link>
 <joint name="j1" type="revolute"><origin xyz="0 0 1" rpy="0 0 1.5"/><parent link="base"/><child link="upper"/>
  <axis xyz="0 0 1"/><limit lower="-1" upper="1" effort="10" velocity="3"/><dynamics damping=".3" friction=".2"/></joint>
 <joint name="j2" type="prismatic"><origin xyz="1 0 0" rpy="1 2 3"/><parent link="upper"/><child link="fore"/>
  <axis xyz="0 1 1"/><limit lower="0" upper=".5" effort="0" velocity="1"/>
  <mimic joint="j1" multiplier="2" offset=".1"/></joint>
</robot>
"""

CORNERS = ((0, 0, 0), (0.1, 0, 0), (0, 0.2, 0), (0, 0, 0.3))
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))


def binary_stl() -> bytes:
    facets = (struct.pack("<12fH", 0, 0, 0, *(x for k in face for x in CORNERS[k]), 0) for face in FACES)
    return b"\0" * 80 + struct.pack("<I", len(FACES)) + b"".join(facets)


def ascii_stl() -> bytes:
    facets = (
        "facet normal 0 0 0\nouter loop\n"
        + "".join(f"vertex {x} {y} {z}\n" for x, y, z in (CORNERS[k] for k in face))
        + "endloop\nendfacet\n"
        for face in FACES
    )
    return ("solid t\n" + "".join(facets) + "endsolid t\n").encode()


def obj() -> bytes:
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    return "\n".join(lines).encode()


def dae(meter: float = 1.0, axis: str = "Z_UP", scale: float = 1.0) -> bytes:
    numbers = " ".join(str(x * scale) for c in CORNERS for x in c)
    index = " ".join(str(k) for f in FACES for k in f)
    return f"""<?xml version="1.0"?>
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
<asset><unit name="u" meter="{meter}"/><up_axis>{axis}</up_axis></asset>
<library_effects><effect id="e"><profile_COMMON><technique sid="c"><phong><diffuse><color>0 0 1 1</color></diffuse></phong>
</technique></profile_COMMON></effect></library_effects>
<library_materials><material id="mat"><instance_effect url="#e"/></material></library_materials>
<library_geometries><geometry id="g"><mesh><source id="p"><float_array id="pa" count="12">{numbers}</float_array>
<technique_common><accessor source="#pa" count="4" stride="3"><param name="X" type="float"/>
<param name="Y" type="float"/><param name="Z" type="float"/></accessor></technique_common></source>
<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
<triangles count="4" material="M"><input semantic="VERTEX" source="#v" offset="0"/><p>{index}</p></triangles></mesh>
</geometry></library_geometries>
<library_visual_scenes><visual_scene id="s"><node id="n"><translate>1 0 0</translate><instance_geometry url="#g">
<bind_material><technique_common><instance_material symbol="M" target="#mat"/></technique_common></bind_material>
</instance_geometry></node></visual_scene></library_visual_scenes><scene><instance_visual_scene url="#s"/></scene>
</COLLADA>""".encode()


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """An MJCF model with nearly every kind of element."""
    folder = tmp_path / "rich"
    folder.mkdir()
    (folder / "tetra.stl").write_bytes(binary_stl())
    (folder / "rich.xml").write_text(RICH)
    return folder / "rich.xml"


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    """A URDF of two joints, one of which mimics the other."""
    folder = tmp_path / "arm"
    folder.mkdir()
    (folder / "arm.urdf").write_text(ARM)
    return folder / "arm.urdf"


@pytest.fixture
def meshes() -> dict[str, bytes]:
    """The same tetrahedron, its corners at 0 and 0.1, 0.2, 0.3 m along the axes, in every format."""
    return {
        "binary.stl": binary_stl(),
        "ascii.stl": ascii_stl(),
        "plain.obj": obj(),
        "inches.dae": dae(0.0254, scale=1 / 0.0254),
    }


@pytest.fixture
def collada():
    """Makes a COLLADA file of the tetrahedron, moved by one unit along x."""
    return dae
