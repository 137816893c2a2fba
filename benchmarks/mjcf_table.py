# ruff: noqa: E501 - a table
"""Every element and attribute of MuJoCo's XML schema, with a value that is not its default.

In: the schema that the installed MuJoCo prints. Out: models in which every attribute stands on an element of its own,
so that what becomes of it shows alone. An attribute that a later MuJoCo adds has no value here, and the test says so.
"""

from __future__ import annotations

import re

import mujoco

WORLD = """<mujoco>{root}<asset><mesh name="tet" vertex="0 0 0 .1 0 0 0 .1 0 0 0 .1"/><texture name="tex" type="2d" builtin="checker" width="4" height="4"/>
<material name="mat" texture="tex"/>{asset}</asset><worldbody><geom name="floor" type="plane" size="1 1 .1"/>
<body name="base" pos="0 0 3"><joint name="jh" range="-1 1"/><joint name="js" type="slide"/><geom name="ga" size=".1"/><site name="sa"/><camera name="ca"/>
<body name="tip" pos=".3 0 0"><joint name="jb" type="ball"/><geom name="gb" size=".1"/><site name="sb" pos=".1 0 0"/><geom name="gm" type="mesh" mesh="tet" pos="0 0 1"/></body></body>
{body}</worldbody><tendon><spatial name="ts" range="0 9"><site site="sa"/><site site="sb"/></spatial><fixed name="tf"><joint joint="jh" coef="1"/></fixed>{tendon}</tendon>
<actuator><motor name="ma" joint="jh"/>{actuator}</actuator>{end}</mujoco>"""
"""What elements may refer to."""

UNDONE = {  # what a compiled model holds in other forms, or not at all
    "compiler": "acts while compiling", "compiler/lengthrange": "acts while compiling", "default": "resolved while compiling",
    "extension": "plug-ins need a library", "asset/mesh/plugin": "plug-ins need a library", "(world)body/geom/plugin": "plug-ins need a library",
    "(world)body/plugin": "plug-ins need a library", "actuator/plugin": "plug-ins need a library", "sensor/plugin": "plug-ins need a library",
    "asset/model": "attached while compiling", "(world)body/attach": "attached while compiling", "(world)body/composite": "made into other elements",
    "(world)body/flexcomp": "made into a flex", "sensor/tactile": "needs a mesh with its own file", "asset/skin": "an old place of deformable/skin",
}  # fmt: skip
NAMES = {"name", "class", "childclass", "file", "content_type", "content", "instance", "plugin"}
"""Attributes that name something, or where it lies."""

_SOLVER = {"solref": ".03 .9", "solimp": ".8 .9 .002 .4 3", "margin": ".01", "gap": ".005", "friction": ".5 .01 .001"}
_POSE = {
    "pos": ".1 .2 .3",
    "quat": "1 .2 0 0",
    "euler": "10 20 30",
    "axisangle": "0 1 0 30",
    "xyaxes": "0 1 0 -1 0 0",
    "zaxis": "0 1 1",
}
_JOINT = {
    "type": "slide", "axis": "1 1 0", "range": "-.5 .5", "limited": "true:range=-1 1", "actuatorfrcrange": "-2 2", "armature": ".123456789",
    "actuatorfrclimited": "true:actuatorfrcrange=-1 1", "actuatorgravcomp": "true", "damping": ".3 .01 .001", "frictionloss": ".2", "ref": ".1",
    "springref": ".2", "stiffness": "3 .1 .01", "springdamper": "1 .7", "group": "2", "margin": ".01:range=-1 1", "user": "1 2",
} | {f"{s}{k}": _SOLVER[s] for s in ("solref", "solimp") for k in ("limit", "friction")}  # fmt: skip
_ACTUATOR = {
    "gear": "2", "group": "3", "user": "1 2", "ctrlrange": "-2 2", "forcerange": "-3 3", "ctrllimited": "true:ctrlrange=-1 1", "kp": "7", "kv": "3",
    "forcelimited": "true:forcerange=-1 1", "armature": ".1", "damping": ".2 .01 .001", "delay": ".01:nsample=4", "nsample": "4:delay=.01",
    "interp": "linear:delay=.01 nsample=4", "lengthrange": ".1 .9", "dampratio": ".5:kp=3", "timeconst": ".1", "inheritrange": ".9:kp=2",
    "actrange": "-1 1:dyntype=integrator", "actlimited": "true:actrange=-1 1 dyntype=integrator", "area": "2", "bias": "1 2 3", "diameter": ".1", "cranklength": ".3:cranksite=sa slidersite=sb -joint",
    "cranksite": "sa:slidersite=sb cranklength=.3 -joint", "slidersite": "sb:cranksite=sa cranklength=.3 -joint", "joint": "js", "jointinparent": "jb:-joint",
    "tendon": "ts:-joint", "site": "sa:-joint", "refsite": "sb:site=sa -joint", "body": "tip:-joint", "input": "vel", "ki": "1", "imax": "2:ki=1", "gain": "2",
    "slewmax": "3", "posrange": "-1 1", "velrange": "-1 1", "ffrange": "-1 1", "dyntype": "integrator", "gaintype": "affine", "biastype": "affine",
    "dynprm": ".5", "gainprm": "2 3", "biasprm": "1 2 3:biastype=affine", "actdim": "2:dyntype=user", "actearly": "true:dyntype=integrator",
    "force": "5", "fpmax": "1.5", "fvmax": "1.6", "lmax": "1.7", "lmin": ".4", "vmax": "1.8", "scale": "300", "range": ".8 1.1", "tausmooth": ".1",
    "motorconst": ".2 .3", "resistance": "2", "nominal": "12 1 100", "saturation": "1 2", "inductance": ".01 .1", "cogging": ".1 2 .3",
    "controller": "1 0 0 0 0 0", "thermal": "2 3 4 5 6 20", "lugre": "1 2 3 4 5",
}  # fmt: skip
_SENSOR = {
    "cutoff": ".5", "noise": ".1", "delay": ".01:nsample=4", "nsample": "4:delay=.01", "interp": "linear:delay=.01 nsample=4", "interval": ".01 -.002:nsample=4",
    "user": "1 2", "site": "sb", "joint": "js", "tendon": "tf", "actuator": "ma", "body": "base", "objtype": "geom:objname=ga", "objname": "sb",
    "reftype": "body:refname=base", "refname": "base:reftype=body", "camera": "ca", "geom1": "ga", "geom2": "gb", "body1": "base:-geom1", "body2": "tip:-geom2",
    "num": "3", "data": "force dist", "reduce": "netforce", "subtree1": "base:-geom1", "subtree2": "base:-geom2", "enclosed": "false", "dim": "3",
    "datatype": "positive", "needstage": "vel", "mesh": "tet", "geom": "gm",
}  # fmt: skip
_EQUALITY = {
    "active": "false", "solref": _SOLVER["solref"], "solimp": _SOLVER["solimp"], "body1": "tip", "body2": "tip", "anchor": ".1 .2 .3", "site1": "sb:site2=sa -body1 -body2 -anchor",
    "site2": "sb:site1=sa -body1 -body2 -anchor", "relpose": ".1 .2 .3 1 .1 0 0", "torquescale": "2", "joint1": "js", "joint2": "js:polycoef=.1 2 .3 .4 .5",
    "polycoef": ".1 .9 .3 0 0", "tendon1": "tf", "tendon2": "tf", "flex": "fl", "cell": "1 0 0",
}  # fmt: skip

VALUES: dict[str, dict[str, str]] = {
    "": {"model": "m"},
    "option": {"timestep": ".003", "gravity": "1 2 -3", "wind": "1 2 3", "magnetic": "1 2 3", "density": "1", "viscosity": "2", "impratio": "3", "cone": "elliptic",
               "integrator": "RK4", "jacobian": "dense", "solver": "CG", "tolerance": "1e-7", "iterations": "77", "ls_iterations": "33", "ls_tolerance": ".02",
               "noslip_iterations": "3", "noslip_tolerance": "1e-5", "ccd_iterations": "31", "ccd_tolerance": "1e-5", "sdf_iterations": "11", "sdf_initpoints": "41",
               "sleep_tolerance": ".01", "o_margin": ".01", "o_solref": ".03 .9", "o_solimp": ".8 .9 .002 .4 3", "o_friction": ".9 .9 .01 .001 .001",
               "actuatorgroupdisable": "2 4"},
    "option/flag": {}, "size": {"memory": "1M", "njmax": "500", "nconmax": "200", "nstack": "90000", "nuserdata": "7", "nkey": "2", **{f"nuser_{k}": "2" for k in ("body", "jnt", "geom", "site", "cam", "tendon", "actuator", "sensor")}},
    "statistic": {"meaninertia": "1.5", "meanmass": "2.5", "meansize": ".35", "extent": "4.5", "center": "1 2 3"},
    "visual": {}, "visual/global": {"cameraid": "0", "orthographic": "true", "fovy": "61.5", "ipd": ".07", "azimuth": "33", "elevation": "-12", "linewidth": "2", "glow": ".4",
                                    "realtime": ".5", "offwidth": "800", "offheight": "600", "ellipsoidinertia": "true", "bvactive": "false"},
    "visual/quality": {"shadowsize": "1024", "offsamples": "2", "numslices": "20", "numstacks": "10", "numquads": "3"},
    "visual/headlight": {"ambient": ".2 .2 .3", "diffuse": ".5 .6 .7", "specular": ".1 .2 .3", "active": "0"},
    "asset/mesh": {"vertex": "0 0 0 .2 0 0 0 .1 0 0 0 .1", "face": "0 2 1 0 1 3 0 3 2 1 2 3", "normal": "1 0 0 1 0 0 1 0 0 0 0 1:face=0 2 1 0 1 3 0 3 2 1 2 3", "inertia": "shell",
                   "texcoord": "0 0 1 0 0 1 1 1:face=0 2 1 0 1 3 0 3 2 1 2 3", "scale": "1 2 1", "smoothnormal": "true", "maxhullvert": "5", "material": "mat", "refpos": ".1 0 0", "refquat": "1 1 0 0",
                   "builtin": "cone:params=5 1 -vertex", "params": "5 .5:builtin=cone -vertex"},
    "asset/hfield": {"nrow": "3:ncol=2 elevation=0 1 2 3 4 5", "ncol": "3:nrow=2 elevation=0 1 2 3 4 5", "size": "1 2 .3 .1:nrow=2 ncol=2", "elevation": "0 1 2 3:nrow=2 ncol=2"},
    "asset/texture": {"type": "2d", "builtin": "flat", "width": "6", "height": "6", "colorspace": "sRGB", "nchannel": "", "rgb1": "1 0 0", "rgb2": "0 1 0", "mark": "edge", "markrgb": "1 0 0",
                      "random": ".3:mark=random", "gridsize": "1 1", "gridlayout": ".U..LFRB.D..:type=cube gridsize=3 4", "hflip": "true", "vflip": "true", "embed": "true", **{f"file{k}": "" for k in ("right", "left", "up", "down", "front", "back")}},
    "asset/material": {"texture": "tex", "texrepeat": "2 3", "texuniform": "true", "emission": ".3", "specular": ".1", "shininess": ".2", "reflectance": ".4", "metallic": ".6", "roughness": ".7", "rgba": ".1 .2 .3 .4"},
    "asset/material/layer": {"role": "rgb", "texture": "tex"},
    "(world)body": {**_POSE, "gravcomp": ".5", "mocap": "", "user": "1 2", "sleep": "never", "simple": "", "fuse": ""},
    "(world)body/inertial": {**_POSE, "mass": "2", "diaginertia": ".2 .3 .4", "fullinertia": ".2 .3 .4 .01 .02 .03"},
    "(world)body/joint": {**_JOINT, "pos": ".1 .2 .3"}, "(world)body/freejoint": {"group": "3", "align": "true"},
    "(world)body/geom": {**_POSE, **_SOLVER, "type": "box:size=.1 .2 .3", "size": ".2", "contype": "2", "conaffinity": "4", "condim": "6", "group": "4", "priority": "2", "solmix": "2", "rgba": ".1 .2 .3 .4",
                         "mass": "3", "density": "50", "shellinertia": "true", "material": "mat", "mesh": "tet:type=mesh -size", "hfield": "", "fitscale": "2:type=box mesh=tet -size",
                         "fromto": "0 0 0 .1 .1 .1:type=capsule size=.02", "fluidshape": "ellipsoid", "fluidcoef": ".1 .2 .3 .4 .5:fluidshape=ellipsoid", "adhesion": ".3", "surfacevel": "1 2 3 0 0 1", "user": "1 2"},
    "(world)body/site": {**_POSE, "type": "box:size=.1 .2 .3", "size": ".2", "group": "3", "rgba": ".1 .2 .3 .4", "material": "mat", "mesh": "tet:type=mesh", "fromto": "0 0 0 .1 .1 .1:type=capsule size=.02", "user": "1 2"},
    "(world)body/camera": {**_POSE, "fovy": "33", "ipd": ".1", "mode": "track", "target": "tip:mode=targetbody", "resolution": "64 48", "output": "depth", "projection": "orthographic", "user": "1 2",
                           "sensorsize": ".02 .01:resolution=64 48 focal=.03 .03", "focal": ".03 .04:sensorsize=.02 .01 resolution=64 48", "principal": ".001 .002:focal=.03 .03 sensorsize=.02 .01 resolution=64 48",
                           "focalpixel": "50 60:sensorsize=.02 .01 resolution=64 48", "principalpixel": "1 2:focalpixel=50 50 sensorsize=.02 .01 resolution=64 48"},
    "(world)body/light": {"pos": ".1 .2 .3", "dir": "1 0 -1", "type": "point", "active": "false", "castshadow": "false", "ambient": ".1 .2 .3", "diffuse": ".1 .2 .3", "specular": ".1 .2 .4", "attenuation": ".5 .1 .2",
                          "cutoff": "30", "exponent": "5", "bulbradius": ".1", "intensity": "100", "range": "5", "softness": ".7", "mode": "track", "target": "tip:mode=targetbody", "texture": "", "directional": ""},
    "contact/pair": {**{k: v for k, v in _SOLVER.items() if k != "friction"}, "friction": ".5 .6 .01 .001 .002", "condim": "6", "solreffriction": ".04 .8", "adhesion": ".4", "geom1": "ga", "geom2": "gb"},
    "contact/exclude": {"body1": "base", "body2": "tip"},
    "tendon/spatial": {**{k: v for k, v in _JOINT.items() if k not in ("type", "axis", "actuatorgravcomp", "ref", "springref", "springdamper")}, "range": ".1 2", "limited": "true:range=.1 1", "margin": ".01:range=.1 1",
                       "springlength": ".1 .2", "width": ".01", "rgba": ".1 .2 .3 .4", "material": "mat"},
    "tendon/spatial/site": {"site": "sa"}, "tendon/spatial/geom": {"geom": "gb", "sidesite": "sb:geom=gb"}, "tendon/spatial/pulley": {"divisor": "2"}, "tendon/fixed/joint": {"joint": "js", "coef": "3"},
    "custom/numeric": {"data": "1 2", "size": "5"}, "custom/text": {"data": "words"}, "custom/tuple/element": {"objtype": "body", "objname": "tip", "prm": "2"},
    "keyframe/key": {"time": "1.5", "qpos": "", "qvel": "", "act": "", "ctrl": "1", "mpos": "", "mquat": ""},
    "deformable/flex": {}, "deformable/skin": {},
}  # fmt: skip
VALUES["tendon/fixed"] = {k: v for k, v in VALUES["tendon/spatial"].items() if k not in ("width", "rgba", "material")}
_FIXED = {"qpos", "qvel", "mpos", "mquat", "act"}


def schema() -> dict[str, list[str]]:
    """Path of an element -> its attributes, as the installed MuJoCo prints them."""
    out: dict[str, list[str]] = {}
    stack: list[str] = []
    for line in mujoco.mj_printSchema(False, False).splitlines():
        found = re.match(r"( *)(\S+) \(.\) *(.*)$", line)
        if found:
            stack = [*stack[: len(found[1]) // 3], found[2]]
            out["/".join(stack[1:])] = found[3].split()
        elif line.strip():
            out["/".join(stack[1:])] += line.split()
    return out


_INSTEAD = {  # where one element wants another value
    "equality/connect": {"body1": "base:body2=world"}, "equality/weld": {"body1": "base:body2=world"}, "actuator/general": {"inheritrange": ".9:gainprm=2 biastype=affine biasprm=0 -2"},
    "actuator/intvelocity": {"inheritrange": ".9:kp=2 -actrange", "actrange": "-1 1", "actlimited": ""}, "actuator/damper": {"ctrlrange": "0 2"}, "actuator/adhesion": {"ctrlrange": "0 2"},
    "actuator/orientation": {"forcerange": "0 3", "forcelimited": "true:forcerange=0 3", "joint": "jb", "site": "sa:refsite=sb -joint"}, "actuator/muscle": {"timeconst": ".01 .05"},
    "actuator/dcmotor": {"controller": "1 0 0 0 0 0:input=pos"}, "sensor/rangefinder": {"camera": "ca:-site", "data": "dist dir"}, "sensor/contact": {"site": "sb:-geom1"}, "sensor/user": {"objname": "sb:objtype=site"},
    **{f"sensor/{k}": {"joint": "jb", "cutoff": ""} for k in ("ballquat",)}, "sensor/ballangvel": {"joint": "jb"}, **{f"sensor/{k}": {"cutoff": ""} for k in ("framequat", "framexaxis", "frameyaxis", "framezaxis")},
    **{f"sensor/jointlimit{k}": {"joint": "jh"} for k in ("pos", "vel", "frc")}, **{f"sensor/tendonlimit{k}": {"tendon": "ts"} for k in ("pos", "vel", "frc")},
}  # fmt: skip


def values(path: str) -> dict[str, str]:
    """Attribute -> value, with ``:other=value -left_out`` where it needs company; "" where it has none."""
    return {**_values(path), **_INSTEAD.get(path, {})}


def _values(path: str) -> dict[str, str]:
    if path.startswith("sensor/"):
        return _SENSOR
    if path.startswith("actuator/"):
        return _ACTUATOR
    if path.startswith("equality/"):
        return _EQUALITY
    if path == "option/flag":
        return dict.fromkeys(schema()[path], "") | {}
    if path in ("visual/map", "visual/scale", "visual/rgba"):
        return {k: ".1 .2 .3 .4" if path.endswith("rgba") else f".{12 + i}" for i, k in enumerate(schema()[path])}
    return VALUES[path]


_AT = {  # path -> where it stands ("" is the section's own), and what one is made of; {a} are the attributes, {n} its name
    "(world)body": ("body", '<body name="{n}" {a}><freejoint/><geom size=".1"/></body>'),
    "(world)body/inertial": ("body", '<body name="{n}"><freejoint/><inertial {a}/></body>'),
    "(world)body/joint": ("body", '<body name="b{n}"><joint name="{n}" {a}/><geom size=".1" pos=".2 .3 .4"/></body>'),
    "(world)body/freejoint": ("body", '<body name="b{n}"><freejoint name="{n}" {a}/><geom size=".1" pos=".2 .3 .4"/></body>'),
    "(world)body/geom": ("body", '<body name="b{n}"><freejoint/><geom name="{n}" {a}/></body>'),
    "(world)body/site": ("body", '<site name="{n}" {a}/>'), "(world)body/camera": ("body", '<camera name="{n}" {a}/>'), "(world)body/light": ("body", '<light name="{n}" {a}/>'),
    "asset/mesh": ("asset", '<mesh name="{n}" {a}/>'), "asset/hfield": ("asset", '<hfield name="{n}" {a}/>'), "asset/texture": ("asset", '<texture name="{n}" {a}/>'),
    "asset/material": ("asset", '<material name="{n}" {a}/>'), "asset/material/layer": ("asset", '<material name="{n}"><layer {a}/></material>'),
    "tendon/spatial": ("tendon", '<spatial name="{n}" {a}><site site="sa"/><site site="sb"/></spatial>'), "tendon/fixed": ("tendon", '<fixed name="{n}" {a}><joint joint="jh" coef="1"/></fixed>'),
    "tendon/spatial/site": ("tendon", '<spatial name="{n}"><site {a}/><site site="sb"/><site site="sa"/></spatial>'), "tendon/fixed/joint": ("tendon", '<fixed name="{n}"><joint {a}/></fixed>'),
    "tendon/spatial/geom": ("tendon", '<spatial name="{n}"><site site="sa"/><geom {a}/><site site="sb"/></spatial>'),
    "tendon/spatial/pulley": ("tendon", '<spatial name="{n}"><site site="sa"/><site site="sb"/><pulley {a}/><site site="sb"/><site site="sa"/></spatial>'),
    "contact/pair": ("end", '<contact><pair name="{n}" {a}/></contact>'), "contact/exclude": ("end", '<contact><exclude name="{n}" {a}/></contact>'),
    "custom/numeric": ("end", '<custom><numeric name="{n}" {a}/></custom>'), "custom/text": ("end", '<custom><text name="{n}" {a}/></custom>'),
    "custom/tuple/element": ("end", '<custom><tuple name="{n}"><element {a}/></tuple></custom>'), "keyframe/key": ("end", '<keyframe><key name="{n}" {a}/></keyframe>'),
}  # fmt: skip
_BASE = {  # attributes that an element cannot do without
    "(world)body/inertial": "pos=0 0 0 mass=1 diaginertia=.1 .1 .1", "(world)body/geom": "size=.1", "(world)body/site": "type=sphere size=.05", "(world)body/camera": "pos=0 0 1",
    "asset/mesh": "vertex=0 0 0 .1 0 0 0 .1 0 0 0 .1", "asset/hfield": "nrow=2 ncol=2 size=1 1 .1 .1", "asset/texture": "type=2d builtin=checker width=4 height=4", "asset/material/layer": "texture=tex role=rgb",
    "tendon/spatial/site": "site=sa", "tendon/spatial/geom": "geom=ga", "tendon/spatial/pulley": "divisor=1", "tendon/fixed/joint": "joint=jh coef=1", "contact/pair": "geom1=floor geom2=gm",
    "contact/exclude": "body1=world body2=tip", "custom/numeric": "data=1", "custom/text": "data=x", "custom/tuple/element": "objtype=body objname=base", "keyframe/key": "time=1",
    "equality/connect": "body1=base body2=tip anchor=0 0 0", "equality/weld": "body1=base body2=tip", "equality/joint": "joint1=jh", "equality/tendon": "tendon1=ts",
    "actuator/adhesion": "body=base ctrlrange=0 1", "actuator/damper": "joint=jh ctrlrange=0 1", "actuator/muscle": "joint=jh lengthrange=.1 .8", "actuator/orientation": "joint=jb kp=1",
    "actuator/dcmotor": "joint=jh motorconst=.1 .1 resistance=1", "actuator/intvelocity": "joint=jh kp=1 actrange=-2 2", "actuator/pid": "joint=jh kp=1",
    "sensor/camprojection": "site=sa camera=ca", "sensor/rangefinder": "site=sa", "sensor/insidesite": "site=sa objtype=site objname=sb", "sensor/contact": "geom1=ga", "sensor/user": "dim=2",
    **{f"sensor/{k}": "geom1=ga geom2=gb" for k in ("distance", "normal", "fromto")}, **{f"sensor/{k}": "" for k in ("e_potential", "e_kinetic", "clock")},
    **{f"sensor/{k}": "body=tip" for k in ("subtreecom", "subtreelinvel", "subtreeangmom")}, **{f"sensor/{k}": "joint=jb" for k in ("ballquat", "ballangvel")},
}  # fmt: skip


def pairs(text: str) -> dict[str, str]:
    """``a=1 2 b=x`` as a table."""
    return {k: v.strip() for k, v in re.findall(r"(\w+)=([^=]*?)(?=\s\w+=|$)", text)}


def base(path: str) -> dict[str, str]:
    """Attributes that an element cannot do without."""
    if path in _BASE or not path.startswith(("actuator/", "sensor/")):
        return pairs(_BASE.get(path, ""))
    if path.startswith("actuator/"):
        return {"joint": "jh"}
    kind = path.partition("/")[2]
    if kind.startswith("frame"):
        return {"objtype": "site", "objname": "sa"}
    on = next((k for k in ("joint", "tendon", "actuator") if kind.startswith(k)), "site")
    return {on: {"joint": "jh", "tendon": "ts", "actuator": "ma", "site": "sa"}[on]}


def element(path: str, name: str, attribute: str = "", value: str = "") -> tuple[str, str]:
    """(section, text) of one element, with one attribute more than it needs."""
    attributes = base(path)
    if attribute:
        value, _, company = value.partition(":")
        drop = re.findall(r"(?:^|\s)-([a-z_0-9]+)", company)
        company = re.sub(r"(^|\s)-[a-z_0-9]+", "", company)
        attributes = {k: v for k, v in {**attributes, **pairs(company), attribute: value}.items() if k not in drop}
        if path == "(world)body/inertial" and attribute == "fullinertia":
            attributes.pop("diaginertia")
    section, tag = path.partition("/")[::2]
    own = f'<{tag} name="{{n}}" {{a}}/>'
    place, text = _AT.get(
        path, ("actuator", own) if section == "actuator" else ("end", f"<{section}>{own}</{section}>")
    )
    return place, text.format(n=name, a=" ".join(f'{k}="{v}"' for k, v in attributes.items()))


EMPTY = dict.fromkeys(("root", "asset", "body", "tendon", "actuator", "end"), "")
"""Nothing but the world."""
SETTINGS = ("option", "size", "statistic", "visual")
FURTHER = """<body name="mo" mocap="true"><geom name="hf" type="hfield" hfield="hill" contype="0"/></body><light name="li" type="image" texture="sky"/>"""
FURTHER_ASSETS = """<hfield name="hill" nrow="2" ncol="2" size="1 1 .1 .1" elevation="0 1 2 3"/><texture name="sky" type="cube" builtin="gradient" width="4" height="4"/>"""
FURTHER_END = """<keyframe><key name="k" qpos=".1 .2 1 0 0 0" qvel=".1 .2 .3 .4 .5" mpos="1 2 3" mquat="0 1 0 0"/></keyframe>
<deformable><flex name="fl" dim="1" body="base tip" vertex="0 0 0 .1 0 0" element="0 1"/><skin name="sk" vertex="0 0 0 1 0 0 0 1 0" face="0 1 2"><bone body="base" bindpos="0 0 0" bindquat="1 0 0 0" vertid="0 1 2" vertweight="1 1 1"/></skin></deformable>
<equality><flex name="fe" flex="fl"/></equality>"""
"""What stands for itself: attributes without a value above."""


def undone(path: str) -> bool:
    """Whether an element is nothing of its own in a compiled model."""
    return any(path == k or path.startswith(f"{k}/") for k in UNDONE) or "flex" in path or path.startswith("deformable")


def families() -> dict[str, list[str]]:
    """First parts of paths -> the paths whose attributes are tried."""
    out: dict[str, list[str]] = {}
    for path, attributes in schema().items():
        if attributes and path and not undone(path) and path.split("/")[0] not in SETTINGS and path != "custom/tuple":
            key = path.split("/")[0]
            out.setdefault(path if key in ("(world)body", "asset") else key, []).append(path)
    return out


def model(paths: list[str]) -> str:
    """A model with one element per attribute."""
    parts = {**EMPTY}
    for path in paths:
        for attribute in ["", *(a for a in schema()[path] if values(path).get(a))]:
            if attribute in NAMES:
                continue
            place, text = element(
                path, f"{path.rpartition('/')[2]}_{attribute}", attribute, values(path).get(attribute, "")
            )
            parts[place] += text
    return WORLD.format(**parts)


GONE = ("nstack", "nkey", "memory", "bv", "bvactive")
"""Settings that exclude others, or that MuJoCo reads and no longer uses."""


def told(path: str) -> dict[str, str]:
    """Every setting of an element that says something of its own."""
    if path == "option/flag":
        flags = [k for k in schema()[path] if k not in ("ipc", "override")]  # which want flexes, and change the rest
        return {k: "disable" if i % 2 else "enable" for i, k in enumerate(flags)}
    return {k: v for k, v in values(path).items() if v and k not in GONE and not k.startswith("nuser")}


def settings_model(path: str) -> str:
    """A model with every setting of one element."""
    tags = path.split("/")
    text = (
        "".join(f"<{t}>" for t in tags[:-1]) + f"<{tags[-1]} " + " ".join(f'{k}="{v}"' for k, v in told(path).items())
    )
    return WORLD.format(
        root=f"{text}/>" + "".join(f"</{t}>" for t in reversed(tags[:-1])),
        **{k: x for k, x in EMPTY.items() if k != "root"},
    )
