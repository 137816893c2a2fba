# ruff: noqa: E402, E501 - imports after the library is known to be there; files as they come
"""Parts authored apart become a scene; people's layers merge; variants are chosen when read."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pxr")
mujoco = pytest.importorskip("mujoco")

from flyball.base import InputError, Missing
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.robots.models.model import Model
from flyball.scenes.usd import Part, VariantSet, read_scene
from flyball.scenes.usd.child import read_here
from flyball.scenes.usd.composition import compose, compose_here
from flyball.scenes.usd.write import write

ROBOT = """<mujoco model="robot"><option timestep="0.001"/><worldbody><body name="base"><geom type="box" size=".1 .1 .1"/>
<body name="arm" pos="0 0 .2"><joint name="turn" range="-90 90"/><geom name="arm" size=".05"/></body></body></worldbody>
<actuator><position name="turn" joint="turn" kp="10"/></actuator></mujoco>"""
PROBE = """<mujoco model="probe"><worldbody><body name="probe"><geom size=".01"/><site name="tip"/></body></worldbody>
<sensor><accelerometer name="tip" site="tip"/></sensor></mujoco>"""
PIECE = (
    '<mujoco><worldbody><body name="piece"><freejoint name="piece"/><geom size=".0{0}"/></body></worldbody></mujoco>'
)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Files of a robot, a probe and two workpieces."""
    for name, mjcf in (("robot", ROBOT), ("probe", PROBE), ("small", PIECE.format(2)), ("large", PIECE.format(4))):
        write(Imported(name, mjcf, {}, facts(mujoco.MjSpec.from_string(mjcf).compile())), tmp_path / f"{name}.usda")
    return tmp_path


def over(path: str, inside: str) -> str:
    """A layer with an opinion about one prim."""
    names = path.split("/")
    return "#usda 1.0\n" + "".join(f'over "{n}"\n{{\n' for n in names) + inside + "\n" + "}\n" * len(names)


def make(
    folder: Path, parts: list[Part], variants: list[VariantSet] | None = None, layers: list[Path] | None = None
) -> Path:
    """Compose in this process; the guarded one is tested once below."""
    out = folder / "cell.usda"
    plain = [{**vars(p), "source": str(p.source)} for p in parts]
    sets = [{"name": v.name, "choices": {c: [{**vars(p), "source": str(p.source)} for p in ps] for c, ps in v.choices.items()}}
            for v in variants or []]  # fmt: skip
    compose_here({"out": str(out), "parts": plain, "variants": sets, "layers": [str(x) for x in layers or []]})
    return out


def model_of(path: Path, **variants: str) -> Model:
    parsed = read_here(path, variants)
    return facts(mujoco.MjSpec.from_string(parsed.mjcf, assets=parsed.assets).compile())


def test_parts_combine_without_edits(parts: Path) -> None:
    before = {p.name: p.read_bytes() for p in parts.iterdir()}
    cell = make(parts, [
        Part("left", parts / "robot.usda"),
        Part("right", parts / "robot.usda", pos=(0, 1, 0), quat=(0.5**0.5, 0, 0, 0.5**0.5)),
        Part("probe", parts / "probe.usda", under="right/base/arm", pos=(0, 0, 0.1)),
        Part("piece", parts / "small.usda", pos=(1, 0, 0.5), arc="payload"),
    ])  # fmt: skip
    assert {p.name: p.read_bytes() for p in parts.iterdir() if p != cell} == before
    model = model_of(cell)
    assert set(model.bodies) == {"left/base", "left/arm", "right/base", "right/arm", "probe", "piece"}
    assert model.bodies["right/base"].pos == pytest.approx([0, 1, 0]) and model.bodies["piece"].pos[2] == 0.5
    probe = model.bodies["probe"]
    assert (probe.parent, probe.pos[2]) == ("right/arm", pytest.approx(0.1)), "it moves with the arm it hangs on"
    assert model.sensors["tip"].object == "tip" and list(model.actuators) == ["left/turn", "right/turn"]
    assert model.actuators["right/turn"].target == "right/turn"
    assert float(model.option["timestep"]) == 0.001, "the first part's settings count"


def test_variants_are_chosen_when_read(parts: Path) -> None:
    choices = {c: [Part("piece", parts / f"{c}.usda")] for c in ("small", "large")}
    cell = make(parts, [Part("robot", parts / "robot.usda")], [VariantSet("workpiece", choices)])
    sizes = [
        model_of(cell, **v).geoms["piece/geom0"].size[0] for v in ({}, {"workpiece": "large"}, {"workpiece": "small"})
    ]
    assert sizes == [0.02, 0.04, 0.02], "the first is the file's own choice"
    assert read_here(cell).variants == {"/cell.workpiece": ["small", "large", "small"]}
    with pytest.raises(Missing, match="no choice of workpiece named 'huge'.*large, small"):
        read_here(cell, {"workpiece": "huge"})
    with pytest.raises(Missing, match="did you mean 'workpiece'"):
        read_here(cell, {"workpeice": "small"})


def test_two_people_s_layers_merge_and_the_first_is_stronger(parts: Path) -> None:
    ann, bob = parts / "ann.usda", parts / "bob.usda"
    ann.write_text(over("cell/robot/base/arm", "float physics:mass = 2"))
    bob.write_text(
        over("cell/robot/base/arm", 'float physics:mass = 3\nover "turn"\n{\nfloat newton:armature = 0.5\n}')
    )
    robot = [Part("robot", parts / "robot.usda")]
    both = model_of(make(parts, robot, layers=[ann, bob]))
    assert (both.bodies["arm"].mass, both.joints["turn"].armature) == (2, 0.5)
    other = model_of(make(parts, robot, layers=[bob, ann]))
    assert (other.bodies["arm"].mass, other.joints["turn"].armature) == (3, 0.5)
    alone = model_of(make(parts, robot))
    assert alone.bodies["arm"].mass not in (2, 3) and alone.joints["turn"].armature == 0


def test_a_part_that_changes_later_changes_in_the_scene(parts: Path) -> None:
    cell = make(parts, [Part("piece", parts / "small.usda")])
    text = (parts / "small.usda").read_text()
    (parts / "small.usda").write_text(text.replace("double radius = 0.02", "double radius = 0.03"))
    assert model_of(cell).geoms["piece/geom0"].size[0] == 0.03


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Part("robot", Path("nothing.usda")), "nothing.usda: no such file"),
        (Part("a b", Path("small.usda")), "'a b' is no name for a prim.*a_b"),
        (Part("robot", Path("small.usda")), "two parts at /cell/robot"),
        (Part("p", Path("small.usda"), under="robot/nowhere"), "/cell/robot/nowhere, which does not exist"),
        (Part("p", Path("small.usda"), pos=(float("nan"), 0, 0)), "unit quaternion"),
        (Part("p", Path("inches.usda")), "different units.*try: flyball scenes import"),
        (Part("p", Path("cell.usda")), "cyclic reference"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(bad: Part, says: str, parts: Path) -> None:
    (parts / "inches.usda").write_text(
        (parts / "small.usda").read_text().replace("metersPerUnit = 1", "metersPerUnit = 0.0254")
    )
    if bad.source.name == "cell.usda":
        make(parts, [Part("robot", parts / "robot.usda")])
    old = (parts / "cell.usda").read_bytes() if (parts / "cell.usda").exists() else None
    with pytest.raises(InputError, match=says):
        make(
            parts,
            [Part("robot", parts / "robot.usda"), Part(bad.name, parts / bad.source, bad.pos, bad.quat, bad.under)],
        )
    assert ((parts / "cell.usda").read_bytes() if (parts / "cell.usda").exists() else None) == old
    assert not [p for p in parts.iterdir() if "draft" in p.name]


def test_scene_from_a_composed_file_in_a_guarded_process(parts: Path) -> None:
    cell = parts / "cell.usda"
    notes = compose(cell, [Part("robot", parts / "robot.usda"), Part("piece", parts / "small.usda", pos=(1, 0, 1))])
    assert notes == ["gravity, time step and solver are those of robot; not those of piece"]
    scene = read_scene(cell)
    assert mujoco.MjModel.from_xml_string(scene.model).nbody == 4 and scene.name == "cell"


def test_a_layer_that_does_not_compose_is_refused(parts: Path) -> None:
    layer = parts / "ann.usda"
    layer.write_text(over("cell/robot", 'over "base" (\n references = @nowhere.usda@\n)\n{\n}'))
    with pytest.raises(InputError, match=r"cell\.usda /cell/robot/base: Could not open asset @nowhere\.usda@"):
        make(parts, [Part("robot", parts / "robot.usda")], layers=[layer])
    assert not (parts / "cell.usda").exists()


def test_a_robot_s_keyframe_leaves_the_rest_of_the_scene_where_it_starts(parts: Path) -> None:
    mjcf = """<mujoco><worldbody><body name="b"><joint name="x" type="slide" ref=".3"/><joint name="y" type="slide"
    axis="0 1 0"/><geom size=".1"/></body></worldbody><keyframe><key name="home" qpos=".5 .6"/></keyframe></mujoco>"""
    for name, text in (("one", mjcf), ("two", mjcf.replace("home", "away"))):
        write(Imported(name, text, {}, facts(mujoco.MjSpec.from_string(text).compile())), parts / f"{name}.usda")
    at = {"one": (0, 0, 0), "two": (0, 2, 0), "small": (1, 2, 3)}
    cell = make(parts, [Part(n, parts / f"{n}.usda", pos=p) for n, p in at.items()])
    keys = model_of(cell).keyframes
    assert {j: [*q] for j, q in keys["home"].qpos.items()} == {
        "one/x": [0.5], "one/y": [0.6], "two/x": [0.3], "two/y": [0.0], "piece": [1, 2, 3, 1, 0, 0, 0]
    }  # fmt: skip
    assert keys["away"].qpos["two/x"] == 0.5 and keys["away"].qpos["one/x"] == 0.3
