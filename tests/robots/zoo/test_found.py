"""Models are found where packages and folders put them, under names that last, with their licences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError, Missing, NotPossible
from flyball.robots.zoo.found import Search, find, named, search

MJCF = '<mujoco><worldbody><body name="b"><joint name="j"/><geom size=".1"/></body></worldbody></mujoco>'
URDF = '<robot name="r"><link name="base"/></robot>'
APACHE = "Apache License\n   Version 2.0, January 2004\n"
BSD = "Redistribution and use in source and binary forms. Neither the name of X nor the names of contributors"


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def install(site: Path, distribution: str, version: str, metadata: str, files: dict[str, str]) -> None:
    info = f"{distribution.replace('-', '_')}-{version}.dist-info/METADATA"
    put(site, {info: f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\n{metadata}\n", **files})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(
        tmp_path,
        "robosuite",
        "1.5.2",
        "License-File: LICENSE",
        {
            "robosuite-1.5.2.dist-info/licenses/LICENSE": "Permission is hereby granted, free of charge, to any person",
            "robosuite/__init__.py": "raise SystemExit('nobody imports this')",
            "robosuite/models/assets/robots/panda/robot.xml": MJCF,
            "robosuite/models/assets/robots/ur5e/robot.xml": MJCF,
            "robosuite/models/assets/grippers/panda_gripper.xml": MJCF,
            "robosuite/models/assets/grippers/part.xml": "<mujocoinclude><body/></mujocoinclude>",
            "robosuite/models/assets/grippers/bare.xml": '<mujoco><body name="b"/></mujoco>',
            "robosuite/models/assets/floor.xml": "<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>",
            "robosuite/models/assets/notes.xml": MJCF.replace("mujoco", "html"),
            "robosuite/models/assets/arenas/empty_arena.xml": MJCF,
        },
    )
    top = "cmeel.prefix/share/example-robot-data"
    install(
        tmp_path,
        "example-robot-data",
        "6.0.0",
        "License-Expression: BSD-3-Clause",
        {
            f"{top}/robots/a1_description/urdf/a1.urdf": URDF,
            f"{top}/robots/panda_description/urdf/panda.urdf": URDF,
            f"{top}/robots/panda_description/LICENSE": APACHE,
            f"{top}/robots/anymal_b_simple_description/robots/anymal.urdf": URDF,
            f"{top}/robots/anymal_c_simple_description/urdf/anymal.urdf": URDF,
        },
    )
    return tmp_path


def names(where: Search) -> dict[str, str]:
    return {m.name: str(m.licence) for m in search(where)[0] if not m.mjcf}


def test_packages_are_found_without_importing_them(site: Path) -> None:
    found = {m.name: m for m in search(Search(site, environment={}))[0]}
    assert {n for n in found if n.startswith("robosuite")} == {
        "robosuite/panda",
        "robosuite/ur5e",
        "robosuite/panda_gripper",
    }
    panda = found["robosuite/panda"]
    assert (panda.format, panda.version, panda.licence.name, panda.package) == ("mjcf", "1.5.2", "MIT", "robosuite")
    assert "robosuite" not in sys.modules


def test_an_environment_s_folder_will_do(tmp_path: Path) -> None:
    files = {"gym_hil/assets/panda.xml": MJCF}
    install(tmp_path / "venv/lib/python3.12/site-packages", "gym-hil", "0.1", "License: MIT", files)
    assert names(Search(tmp_path / "venv", environment={})) == {"gym-hil/panda": "MIT"}


def test_licence_beside_the_model_goes_before_the_package_s(site: Path) -> None:
    found = {m.name: m.licence for m in search(Search(site, environment={}))[0]}
    beside, of_package = found["example-robot-data/panda"], found["example-robot-data/a1"]
    assert (beside.name, beside.source) == ("Apache-2.0", "beside the model")
    assert beside.file is not None and beside.file.parent.name == "panda_description"
    assert (of_package.name, of_package.source) == ("BSD-3-Clause", "package metadata")


def test_equal_file_names_get_the_folder_that_tells_them_apart(site: Path) -> None:
    found = names(Search(site, environment={}))
    assert "example-robot-data/anymal_b_simple_description/anymal" in found
    assert "example-robot-data/anymal_c_simple_description/anymal" in found


def test_meshes_of_a_ros_package_have_a_folder(site: Path) -> None:
    a1 = find("a1", Search(site, environment={}))
    assert a1.packages == {"example-robot-data": site / "cmeel.prefix/share/example-robot-data"}


def test_what_is_not_installed_says_how_to_get_it(site: Path) -> None:
    where = Search(site, environment={})
    assert "pip install --no-deps --target DIR gym-hil" in {m.package: m.get for m in search(where)[1]}["gym-hil"]
    with pytest.raises(NotPossible, match="gym-hil is not installed.*pip install"):
        find("gym-hil/panda", where)


def test_unknown_and_ambiguous_names_say_what_there_is(site: Path) -> None:
    where = Search(site, environment={})
    with pytest.raises(Missing, match="robosuite/panda"):
        find("robosuite/pnda", where)
    with pytest.raises(Missing, match="2 models.*example-robot-data/panda, robosuite/panda"):
        find("panda", where)


def test_a_model_file_needs_no_search(tmp_path: Path) -> None:
    file = put(tmp_path, {"mine/arm.urdf": URDF}) / "mine/arm.urdf"
    found = find(str(file), Search(tmp_path, environment={}))
    assert (found.name, found.format, found.file) == ("mine/arm", "urdf", file)


def test_names_that_look_like_files_and_files_that_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, {"set/arm.urdf": URDF, "set/arm.xml": MJCF})
    where = Search(tmp_path, (tmp_path / "set",), {})
    assert find("set/arm.urdf", where).format == "urdf"
    with pytest.raises(InputError, match="arm.usda: no such file"):
        find("arm.usda", where)
    with pytest.raises(InputError, match="a folder.*flyball robots --path"):
        find(str(tmp_path / "set"), where)


def test_folder_like_menagerie(tmp_path: Path) -> None:
    files = {
        "mujoco_menagerie/unitree_go1/go1.xml": MJCF,
        "mujoco_menagerie/unitree_go1/scene.xml": '<mujoco><include file="go1.xml"/></mujoco>',
        "mujoco_menagerie/unitree_go1/LICENSE": BSD,
        "mujoco_menagerie/ur/scene.xml": '<mujoco><include file="ur.xml"/></mujoco>',
        "mujoco_menagerie/.git/config.xml": MJCF,
    }
    top = put(tmp_path, files) / "mujoco_menagerie"
    expected = {
        "mujoco_menagerie/go1": "BSD-3-Clause",
        "mujoco_menagerie/unitree_go1/scene": "BSD-3-Clause",
        "mujoco_menagerie/ur/scene": "not stated",
    }
    empty = tmp_path / "empty"
    empty.mkdir()
    assert names(Search(empty, (top,), {})) == expected
    assert names(Search(empty, (), {"FLYBALL_ROBOTS": f"{empty}{os.pathsep}{top}"})) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, {"set/a.urdf": URDF, "set/b.urdf": URDF, "empty/x": ""})
    (tmp_path / "set/b.urdf").chmod(0)
    assert names(Search(tmp_path / "empty", (tmp_path / "set",), {})) == {"set/a": "not stated"}


def test_links_to_nowhere_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, {"set/a.urdf": URDF, "empty/x": ""})
    (tmp_path / "set/b.urdf").symlink_to(tmp_path / "gone.urdf")
    (tmp_path / "set/again").symlink_to(tmp_path / "set")
    assert names(Search(tmp_path / "empty", (tmp_path / "set",), {})) == {"set/a": "not stated"}


def test_ros_workspaces(tmp_path: Path) -> None:
    manifest = "<package><name>arm_description</name><license>BSD</license></package>"
    put(tmp_path, {"src/arm/package.xml": manifest, "src/arm/urdf/arm.urdf": URDF, "src/arm/urdf/arm.xacro": URDF})
    put(tmp_path, {"install/share/base_description/package.xml": "<package><name>base_description</name></package>"})
    put(tmp_path, {"install/share/base_description/base.urdf": URDF, "empty/x": ""})
    env = {"ROS_PACKAGE_PATH": str(tmp_path / "src"), "AMENT_PREFIX_PATH": str(tmp_path / "install")}
    found = {m.name: m for m in search(Search(tmp_path / "empty", environment=env))[0] if not m.mjcf}
    assert {n: str(m.licence) for n, m in found.items()} == {
        "arm_description/arm": "BSD",
        "base_description/base": "not stated",
    }
    assert found["arm_description/arm"].packages["base_description"] == tmp_path / "install/share/base_description"


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        search(Search(tmp_path / "gone"))


def test_texts_that_list_several_licences_are_not_interpreted(tmp_path: Path) -> None:
    put(tmp_path, {"set/a.urdf": URDF, "set/LICENSE.md": f"# Arm\n{APACHE}\n# Hand\n{BSD}\n", "empty/x": ""})
    assert names(Search(tmp_path / "empty", (tmp_path / "set",), {})) == {"set/a": "see LICENSE.md"}


words = st.sampled_from(["urdf", "arm", "panda", "robot", "xml", "hand", "left"])


@settings(deadline=None)
@given(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=12))
def test_names_are_unique_and_none_is_lost(paths: list[list[str]]) -> None:
    top = Path("/top")
    files = sorted({top.joinpath(*p).with_suffix(s) for p in paths for s in (".urdf", ".xml")})
    pairs = list(named(files, top))
    assert sorted(f for _, f in pairs) == files
    assert len({n for n, _ in pairs}) == len(files)


def test_finding_loads_no_simulator(site: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flyball.robots.zoo.found import Search, search;"
        f"print(len(search(Search(Path({str(site)!r}), environment={{}}))[0]));"
        "print(sorted({'mujoco', 'pxr', 'torch', 'robosuite'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["11", "[]"]
