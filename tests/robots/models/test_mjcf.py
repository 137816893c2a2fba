"""MJCF in and out: what the file has is what the model has."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from flyball.base import InputError
from flyball.robots.models import ReadOptions, guard, load
from flyball.robots.models.diff import diff
from flyball.robots.models.facts import facts
from flyball.robots.models.mjcf import MjcfFormat


def test_it_reads_what_mujoco_reads(rich):
    assert diff(facts(mujoco.MjModel.from_xml_path(str(rich))), load(rich).model).equal


def test_written_and_read_again_is_the_same_text(rich, tmp_path):
    first = load(rich)
    out = tmp_path / "out"
    out.mkdir()
    path, lost = MjcfFormat().write(dataclasses.replace(first, sidecar={"velocity_limits": {"j1": 2.5}}), out)
    again = load(path)
    assert lost == [] and diff(first.model, again.model).equal
    assert again.assets == first.assets and again.sidecar["velocity_limits"] == {"j1": 2.5}
    (tmp_path / "third").mkdir()
    third, _ = MjcfFormat().write(again, tmp_path / "third")
    assert third.read_text() == path.read_text()
    mujoco.MjModel.from_xml_path(str(path))  # and it stands alone


def test_the_text_compiles_in_memory(rich):
    imported = load(rich)
    model = mujoco.MjSpec.from_string(imported.mjcf, assets=dict(imported.assets)).compile()
    assert model.nbody == imported.compile().nbody == len(imported.model.bodies) + 1


def test_includes_folders_and_files_of_one_name(tmp_path, meshes):
    """Two files of the same name in two folders, one behind an include, one named after its file."""
    root = tmp_path / "robot"
    for folder, data in (("one", meshes["plain.obj"]), ("two", meshes["plain.obj"].replace(b"0.3", b"0.6"))):
        (root / folder).mkdir(parents=True)
        (root / folder / "part.obj").write_bytes(data)
    (root / "parts").mkdir()
    (root / "parts" / "inner.xml").write_text(
        '<mujocoinclude><asset><mesh name="second" file="../two/part.obj"/></asset></mujocoinclude>'
    )
    (root / "robot.xml").write_text(
        '<mujoco><compiler meshdir="one"/><include file="parts/inner.xml"/><asset><mesh file="part.obj"/></asset>'
        '<worldbody><body name="a"><joint/><geom type="mesh" mesh="part"/><geom type="mesh" mesh="second"/></body>'
        "</worldbody></mujoco>"
    )
    imported = load(root / "robot.xml")
    assert sorted(imported.assets) == ["part.obj", "part_2.obj"]
    heights = {m.name: float(np.ptp(m.vertices[:, 2])) for m in imported.model.meshes.values()}
    assert heights["part"] == pytest.approx(0.3, abs=1e-6) and heights["second"] == pytest.approx(0.6, abs=1e-6)


def test_an_attached_model_is_laid_out_flat_with_all_its_digits(tmp_path, meshes):
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "palm.obj").write_bytes(meshes["plain.obj"])
    (tmp_path / "hand" / "hand.xml").write_text(
        '<mujoco model="hand"><asset><mesh name="palm" file="palm.obj"/></asset><worldbody><body name="palm"'
        ' pos="0.12345678901234 0 0"><joint name="turn"/><geom type="mesh" mesh="palm"/></body></worldbody></mujoco>'
    )
    (tmp_path / "arm.xml").write_text(
        '<mujoco><asset><model name="hand" file="hand/hand.xml"/></asset><worldbody><body name="arm"><joint name="j"/>'
        '<geom size=".1"/><attach model="hand" body="palm" prefix="left_"/></body></worldbody></mujoco>'
    )
    imported = load(tmp_path / "arm.xml")
    assert imported.model.joints["left_turn"].body == "left_palm"
    assert imported.model.bodies["left_palm"].pos[0] == 0.12345678901234
    again = imported.compile()
    assert "<attach" not in imported.mjcf and again.njnt == 2
    assert again.body("left_palm").pos[0] == 0.12345678901234


def test_an_attached_model_whose_numbers_were_rounded_says_so(tmp_path, monkeypatch):
    """Where this MuJoCo does not offer more digits, the user is told; where it does, nothing is said."""
    (tmp_path / "hand.xml").write_text(
        '<mujoco><worldbody><body name="h"><geom size=".1"/></body></worldbody></mujoco>'
    )
    (tmp_path / "arm.xml").write_text(
        '<mujoco><asset><model name="hand" file="hand.xml"/></asset><worldbody><body name="a"><geom size=".123456789"/>'
        '<attach model="hand" body="h" prefix="x"/></body></worldbody></mujoco>'
    )
    assert not any("digits" in text for text in load(tmp_path / "arm.xml").notes)

    def here(mjcf, assets, include, where):
        head, parts = guard._compile(mujoco, mjcf, dict(assets), dict(include))
        return head, b"".join(parts)

    monkeypatch.setattr(guard, "_write_all_digits", lambda _mujoco: False)
    monkeypatch.setattr(guard._worker, "ask", here)
    assert any("six digits" in text for text in load(tmp_path / "arm.xml").notes)


def test_a_mesh_named_in_an_included_file_may_lie_beside_that_file(tmp_path, meshes):
    (tmp_path / "robot" / "parts" / "meshes").mkdir(parents=True)
    (tmp_path / "robot" / "parts" / "meshes" / "m.obj").write_bytes(meshes["plain.obj"])
    (tmp_path / "robot" / "parts" / "inner.xml").write_text(
        '<mujocoinclude><asset><mesh name="m" file="meshes/m.obj"/></asset></mujocoinclude>'
    )
    main = '<mujoco><include file="parts/inner.xml"/>{}<worldbody><geom type="mesh" mesh="m"/></worldbody></mujoco>'
    (tmp_path / "robot" / "r.xml").write_text(main.format(""))
    assert list(load(tmp_path / "robot" / "r.xml").model.meshes) == ["m"]
    # the main file's own references do not reach there
    (tmp_path / "robot" / "r.xml").write_text(main.format('<asset><mesh name="k" file="meshes/m.obj"/></asset>'))
    with pytest.raises(InputError, match=r"mesh\[k\]@file: no file 'meshes/m.obj'"):
        load(tmp_path / "robot" / "r.xml")


def test_a_flat_mesh_that_is_only_seen_is_a_shell_and_one_that_is_touched_is_refused(tmp_path):
    flat = '<asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 1 1 0" face="0 1 2 1 2 3"/></asset>'
    geom = '<geom size=".1"/><geom type="mesh" mesh="m" {}/>'
    model = f'<mujoco>{flat}<worldbody><body name="b"><joint/>{geom}</body></worldbody></mujoco>'
    (tmp_path / "r.xml").write_text(model.format('contype="0" conaffinity="0" mass="0"'))
    imported = load(tmp_path / "r.xml")
    assert any("mesh m is too small or flat" in text for text in imported.notes)
    assert imported.model.mass == pytest.approx(1000 * 4 / 3 * np.pi * 0.1**3)
    tiny = 'vertex="0 0 0 1e-5 0 0 0 1e-5 0 0 0 1e-5"'
    (tmp_path / "r.xml").write_text(model.format("").replace(flat, f'<asset><mesh name="m" {tiny}/></asset>'))
    with pytest.raises(InputError, match=r"asset/mesh\[m\]: mesh volume is too small"):
        load(tmp_path / "r.xml")


def test_the_licence_beside_a_model_is_found(rich):
    assert load(rich).licence == ""
    (rich.parent / "LICENSE").write_text("\n  Apache License\n  Version 2.0\n")
    assert load(rich).licence == "Apache-2.0 (LICENSE)"


def test_files_stay_inside_the_folder_unless_a_wider_one_is_named(tmp_path, meshes):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "m.obj").write_bytes(meshes["plain.obj"])
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for reference in ("../../../elsewhere/m.obj", str(tmp_path / "elsewhere" / "m.obj"), "link.obj"):
        (deep / "r.xml").write_text(
            f'<mujoco><asset><mesh name="m" file="{reference}"/></asset><worldbody><geom type="mesh" mesh="m"/>'
            "</worldbody></mujoco>"
        )
        (deep / "link.obj").unlink(missing_ok=True)
        (deep / "link.obj").symlink_to(tmp_path / "elsewhere" / "m.obj")
        with pytest.raises(InputError, match=r"r.xml:1 mujoco/asset/mesh\[m\]@file: .*lies outside") as err:
            load(deep / "r.xml")
        assert "--root" in err.value.run_next
        assert list(load(deep / "r.xml", ReadOptions(root=tmp_path)).model.meshes) == ["m"]
