"""Reality files: what is accepted, what is refused and how, what is drawn."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.base import InputError
from flyball.tasks import tasks
from flyball.tasks.reality import (
    ceiling,
    draw_reality,
    list_parameters,
    load_reality,
    save_reality,
)
from flyball.tasks.world import Unmodelled

TASK = tasks.load("lift-fragile-v1")
FULL = {
    "robots": [
        {
            "name": "robot-01",
            "seed": 11,
            "parameters": {
                "object.mass": 0.42,
                "object.friction": 0.35,
                "object.crush_force": 14,
                "arm.delay_s": 0.03,
                "tracker.bias_m": [0.002, -0.001, 0.0],
            },
            "unmodelled": {"timestep": 0.001, "cone": "pyramidal", "backlash_rad": 0.005},
            "changes": [
                {"turn": 3, "parameters": {"object.friction": 0.2}},
                {"turn": 2, "parameters": {"object.friction": 0.28, "object.mass": 0.5}},
            ],
        },
        {"name": "robot-02"},
    ]
}


def write(tmp_path, content):
    path = tmp_path / "reality.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_the_file_says_holds_at_each_turn(tmp_path):
    reality = load_reality(write(tmp_path, FULL), TASK)
    at = [reality.at("robot-01", turn)[0] for turn in range(5)]
    assert [v["object.friction"] for v in at] == [0.35, 0.35, 0.28, 0.2, 0.2]
    assert [v["object.mass"] for v in at] == [0.42, 0.42, 0.5, 0.5, 0.5]
    assert [at[4][f"tracker.bias_m.{a}"] for a in "xyz"] == [0.002, -0.001, 0.0]
    assert reality.at("robot-01", 0)[1] == Unmodelled(0.001, "pyramidal", 0.005)
    assert reality.robot("robot-01").seed == 11


def test_everything_left_out_is_nominal(tmp_path):
    values, unmodelled = load_reality(write(tmp_path, FULL), TASK).at("robot-02", 7)
    assert values == {p.path: p.nominal for p in TASK.scene.parameters}
    assert unmodelled == Unmodelled()


def test_robots_without_seed_differ(tmp_path):
    a, b = load_reality(write(tmp_path, {"robots": [{"name": "a"}, {"name": "b"}]}), TASK).robots
    assert a.seed != b.seed


def test_dotted_numbers_say_the_same_as_a_list(tmp_path):
    dotted = {"tracker.bias_m.x": 0.002, "tracker.bias_m.y": -0.001, "tracker.bias_m.z": 0.0}
    listed = {"tracker.bias_m": [0.002, -0.001, 0.0]}
    a, b = (
        load_reality(write(tmp_path, {"robots": [{"name": "r", "parameters": p}]}), TASK).at("r", 0)
        for p in (dotted, listed)
    )
    assert a == b


def robot(**keys):
    return {"robots": [{"name": "r"} | keys]}


REFUSED = {
    "empty file": ("", ["line 1 column 1"]),
    "malformed": ('{"robots": [\n {"name": "r",}]}', ["line 2 column"]),
    "key twice": ('{"robots": [{"name": "r", "name": "s"}]}', ["'name' is there twice"]),
    "not a number": ('{"robots": [{"name": "r", "parameters": {"object.mass": NaN}}]}', ["NaN"]),
    "deep": ("[" * 100_000, ["malformed"]),
    "list": ([], ["robots"]),
    "no robots key": ({}, ["robots", "no robots"]),
    "empty robots": ({"robots": []}, ["robots", "at least one"]),
    "robots no list": ({"robots": {"name": "r"}}, ["robots", "list"]),
    "unknown top key": ({"robts": []}, ["robts", "did you mean 'robots'"]),
    "robot no table": ({"robots": ["r"]}, ["robots[0]", '"r"']),
    "no name": ({"robots": [{}]}, ["robots[0]: name", "missing"]),
    "bad name": ({"robots": [{"name": "../x"}]}, ["robots[0]: name", "letters"]),
    "name no text": ({"robots": [{"name": 3}]}, ["robots[0]: name", "3"]),
    "twice": ({"robots": [{"name": "r"}, {"name": "r"}]}, ["robots[1]: name", "'r'", "unique"]),
    "unknown robot key": (robot(sed=1), ["sed", "did you mean 'seed'"]),
    "seed text": (robot(seed="x"), ["seed", "whole number"]),
    "seed negative": (robot(seed=-1), ["seed", "from 0"]),
    "seed true": (robot(seed=True), ["seed", "true"]),
    "unknown parameter": (
        robot(parameters={"object.mas": 1}),
        ["robots[0] (r): parameters", "object.mas", "did you mean 'object.mass'", "--list-parameters"],
    ),
    "out of range": (robot(parameters={"object.mass": 3.0}), ["object.mass", "3.0", "[0.12, 0.9] kg"]),
    "huge": ('{"robots": [{"name": "r", "parameters": {"object.mass": 1e999}}]}', ["object.mass", "[0.12, 0.9] kg"]),
    "text": (robot(parameters={"object.mass": "heavy"}), ["object.mass", "heavy", "[0.12, 0.9] kg"]),
    "true": (robot(parameters={"object.mass": True}), ["object.mass", "true", "[0.12, 0.9] kg"]),
    "null": (robot(parameters={"object.mass": None}), ["object.mass", "null", "[0.12, 0.9] kg"]),
    "list for a number": (robot(parameters={"object.mass": [0.4]}), ["object.mass", "[0.12, 0.9] kg"]),
    "number for a list": (robot(parameters={"tracker.bias_m": 0.001}), ["tracker.bias_m", "list of 3", "x, y, z"]),
    "short list": (robot(parameters={"tracker.bias_m": [0.001]}), ["tracker.bias_m", "list of 3"]),
    "bad list element": (robot(parameters={"tracker.bias_m": [0, 0.1, 0]}), ["tracker.bias_m.y", "0.006] m"]),
    "both ways": (
        robot(parameters={"tracker.bias_m": [0, 0, 0], "tracker.bias_m.y": 0.001}),
        ["tracker.bias_m.y", "twice"],
    ),
    "parameters no table": (robot(parameters=[1]), ["parameters", "{parameter: value}"]),
    "unknown unmodelled": (robot(unmodelled={"time_step": 0.001}), ["time_step", "did you mean 'timestep'"]),
    "timestep range": (robot(unmodelled={"timestep": 0.5}), ["timestep", "0.5", "0.005"]),
    "timestep divisor": (robot(unmodelled={"timestep": 0.003}), ["timestep", "divisor", "0.04"]),
    "cone": (robot(unmodelled={"cone": "round"}), ["cone", "round", "elliptic, pyramidal"]),
    "backlash": (robot(unmodelled={"backlash_rad": -0.1}), ["backlash_rad", "[0, 0.05] rad"]),
    "changes no list": (robot(changes={}), ["changes", "list"]),
    "no turn": (robot(changes=[{"parameters": {}}]), ["changes[0]: turn", "missing"]),
    "negative turn": (robot(changes=[{"turn": -1}]), ["changes[0]: turn", "-1", "from 0"]),
    "turn fraction": (robot(changes=[{"turn": 1.5}]), ["changes[0]: turn", "1.5"]),
    "changed out of range": (
        robot(changes=[{"turn": 1, "parameters": {"object.friction": 9}}]),
        ["changes[0]: parameters: object.friction", "[0.2, 1]"],
    ),
    "changed unmodelled": (robot(changes=[{"turn": 1, "unmodelled": {}}]), ["unmodelled", "changes[0]"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_file_key_and_what_is_allowed(case, tmp_path):
    content, expected = REFUSED[case]
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load_reality(path, TASK)
    line = caught.value.line()
    assert "\n" not in line and str(path) in line and caught.value.exit_code == 2
    for text in expected:
        assert text in line, line


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("nothing.json", "binary.json", "."):
        with pytest.raises(InputError, match=str(tmp_path)):
            load_reality(tmp_path / name, TASK)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_one_value_replaced_is_accepted_or_refused_in_one_line(tmp_path, data):
    """Whatever stands in a file, the answer is a reality or one line, never a traceback."""
    content = copy.deepcopy(FULL)
    holder = content
    while True:
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans()):
            holder = holder[key]
        else:
            break
    holder[key] = data.draw(json_values)
    path = write(tmp_path, content)
    try:
        reality = load_reality(path, TASK)
    except InputError as err:
        assert str(path) in err.line() and "\n" not in err.line()
    else:
        for r in reality.robots:
            for turn in range(4):
                for p, v in reality.at(r.name, turn)[0].items():
                    TASK.scene.check(p, v)


@pytest.mark.parametrize("name", tasks.names())
def test_a_drawn_reality_survives_its_file(name, tmp_path):
    task = tasks.load(name)
    reality = draw_reality(task, 5, robots=3, turns=2)
    save_reality(reality, tmp_path / "r.json")
    assert load_reality(tmp_path / "r.json", task) == reality
    assert draw_reality(task, 5, robots=3, turns=2) == reality != draw_reality(task, 6, robots=3, turns=2)
    full = load_reality(write(tmp_path, FULL), TASK)
    save_reality(full, tmp_path / "full.json")
    assert load_reality(tmp_path / "full.json", TASK) == full


@pytest.mark.parametrize("name", tasks.names())
def test_the_drawn_change_matters_and_can_be_mastered(name):
    task = tasks.load(name)
    reality = draw_reality(task, 1, robots=4, turns=4)
    changed = [r for r in reality.robots if r.changes]
    assert 1 <= len(changed) <= 2
    for r in changed:
        assert [c.turn for c in r.changes] == [2]
        assert all(p.startswith("object.") for p in r.changes[0].parameters)
        assert ceiling(task, r, 1, 8) >= 0.75 and ceiling(task, r, 2, 8) >= 0.75
        before, after = (np.array(list(reality.at(r.name, t)[0].values())) for t in (1, 2))
        assert (before != after).any()
    assert all(not r.changes for r in draw_reality(task, 1, robots=4, turns=3).robots)


def test_ceiling_tells_an_impossible_reality(tmp_path):
    """A box that breaks before it can be held: nobody can lift it, and that is what the warning states."""
    parameters = {"object.mass": 0.8, "object.friction": 0.2, "object.crush_force": 5.0}
    reality = load_reality(write(tmp_path, robot(parameters=parameters)), TASK)
    assert ceiling(TASK, reality.robots[0], 0, 4) == 0.0
    possible = load_reality(write(tmp_path, robot()), TASK)
    assert ceiling(TASK, possible.robots[0], 0, 4) == 1.0


def test_every_parameter_is_listed_with_unit_and_range():
    rows = list_parameters(TASK)
    assert [r["path"] for r in rows] == [p.path for p in TASK.scene.parameters]
    assert {
        "path": "object.mass",
        "unit": "kg",
        "nominal": 0.35,
        "low": 0.12,
        "high": 0.9,
        "text": "mass of the box",
    } in rows
