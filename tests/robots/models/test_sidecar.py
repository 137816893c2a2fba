"""The sidecar: what it brings back, and what it refuses."""

from __future__ import annotations

import json

import pytest

from flyball.base import FlyballError, InputError
from flyball.robots.models import load
from flyball.robots.models.sidecar import checked, path_beside, summary

GOOD = {
    "flyball_sidecar": 1,
    "velocity_limits": {"j1": 2.0},
    "option": {"timestep": "0.001"},
    "set": {"joint": {"j1": {"armature": "0.1", "damping": ""}}},
    "add": [
        {"in": "body:upper", "element": "site", "attributes": {"name": "tip", "pos": "0 0 1"}},
        {"in": "body:upper", "element": "camera", "attributes": {"name": "eye", "fovy": "60"}},
        {"in": "sensor", "element": "gyro", "attributes": {"name": "gyro", "site": "tip"}},
        {"in": "actuator", "element": "general", "attributes": {"name": "u", "joint": "j1", "gainprm": "3"}},
    ],
    "keyframes": {"home": {"time": 0.5, "qpos": {"j2": [0.2], "j1": [0.1]}, "ctrl": {"u": [1.0]}}},
}


def test_it_comes_back(arm):
    path_beside(arm).write_text(json.dumps(GOOD))
    imported = load(arm)
    m = imported.model
    assert m.joints["j1"].armature == 0.1 and m.joints["j1"].damping == 0
    assert m.sensors["gyro"].object == "tip" and m.cameras["eye"].body == "upper"
    assert m.actuators["u"].gain_prm[0] == 3 and float(m.option["timestep"]) == 0.001
    home = m.keyframes["home"]
    assert (home.time, home.qpos["j1"][0], home.qpos["j2"][0], home.ctrl["u"][0]) == (0.5, 0.1, 0.2, 1.0)
    assert imported.losses == ()
    assert "joint: armature, damping" in summary(GOOD) and "in body: camera, site" in summary(GOOD)


def test_what_finds_no_place_is_said(arm):
    gone = {**GOOD, "set": {"joint": {"nowhere": {"armature": "1"}}}, "keyframes": {"k": {"qpos": {"j1": [0.0]}}}}
    gone["add"] = [{"in": "body:nowhere", "element": "site", "attributes": {"name": "x"}}]
    path_beside(arm).write_text(json.dumps(gone))
    losses = " ".join(load(arm).losses)
    assert "joint nowhere" in losses and "body nowhere" in losses and "keyframe k: qpos is not told for j2" in losses


REFUSED = [
    ({"flyball_sidecar": 2}, "sidecar schema 2; allowed: 1"),
    ({}, "sidecar schema None"),
    ([], "not a JSON object"),
    ({"flyball_sidecar": 1, "colour": "red"}, "unknown key 'colour'"),
    ({"flyball_sidecar": 1, "set": []}, "set is not of type dict"),
    ({"flyball_sidecar": 1, "set": {"plugin": {}}}, "set: 'plugin'"),
    ({"flyball_sidecar": 1, "set": {"joint": {"j1": {"armature": 1}}}}, "attribute 'armature': 1"),
    ({"flyball_sidecar": 1, "set": {"mesh": {"m": {"file": "/etc/passwd"}}}}, "attribute 'file'"),
    ({"flyball_sidecar": 1, "set": {"joint": {"j1": {"armature": "nan"}}}}, "armature='nan' is not finite"),
    ({"flyball_sidecar": 1, "add": [{"in": "body:b", "element": "include"}]}, "add[0]: element 'include'"),
    ({"flyball_sidecar": 1, "add": [{"in": "extension", "element": "site"}]}, "in 'extension'"),
    ({"flyball_sidecar": 1, "add": [3]}, "add[0]: not an element"),
    ({"flyball_sidecar": 1, "velocity_limits": {"j": -1}}, "velocity_limits: j: -1"),
    ({"flyball_sidecar": 1, "keyframes": {"k": {"qpos": {"j": [True]}}}}, "keyframes: k: qpos: j"),
    ({"flyball_sidecar": 1, "join": {"b": "c"}}, "join: b"),
]


@pytest.mark.parametrize(("data", "text"), REFUSED)
def test_what_it_is_not(data, text):
    with pytest.raises(InputError) as err:
        checked(data, "x.flyball.json")
    assert text in err.value.line() and "\n" not in err.value.line()


def test_a_file_that_is_no_json_is_one_line(arm):
    path_beside(arm).write_text('{"flyball_sidecar": 1')
    with pytest.raises(FlyballError, match=r"arm.urdf.flyball.json: not JSON"):
        load(arm)
    path_beside(arm).write_text("[" * 100_000)
    with pytest.raises(FlyballError, match="not JSON"):
        load(arm)
