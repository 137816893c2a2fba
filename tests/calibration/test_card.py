import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import Damaged, InputError, Unsupported
from flyball.calibration.calibration import Calibration, FoldError, HeldOut, describe, scene_digest
from flyball.calibration.card import KEY, Card, record_next
from flyball.scenes import Bind, Parameter, Scene

SCENE = Scene(
    "arm",
    "<mujoco/>",
    (
        Parameter("elbow.damping", "N m s/rad", 0.1, 0.01, 1.0, "log", binds=(Bind("joint:elbow.damping"),)),
        Parameter("elbow.gain", "N m/rad", 10.0, 1.0, 100.0, "log", binds=(Bind("actuator:elbow.gain"),)),
        Parameter("payload.mass", "kg", 0.1, 0.01, 1.0, "log", binds=(Bind("body:hand.mass", "add"),)),
        Parameter("elbow.limit", "N m", 3.0, 1.0, 9.0, "log", binds=(Bind("actuator:elbow.force_limit"),)),
    ),
)


def calibration():
    rng = np.random.default_rng(0)
    u = rng.uniform(0.1, 0.9, 60)
    ps = SCENE.parameters
    units = (rng.uniform(0.4, 0.5, 60), u, 1 - u, np.full(60, 0.5))
    samples = np.stack([p.from_unit(x) for p, x in zip(ps, units, strict=True)], axis=1)
    rows = describe(ps, samples, silent=["elbow.limit"])
    folds = (FoldError("slow", 0.2, 0.05, 0.04, 0.9), FoldError("fast", 0.3, 0.06, 0.05, 0.85))
    held = HeldOut("rad", folds, 0.25, 0.055, 0.05, 0.06, 0.88, 1.5, 0.01, 0.001)
    return Calibration("arm", scene_digest(SCENE), tuple(p.path for p in ps), samples, samples.mean(axis=0), rows, held,
                       "improved", ("a note",), 3, "mujoco 3.17.0", 99, ("ab", "cd"))  # fmt: skip


def card():
    c = calibration()
    return Card(c, "arm", record_next(c, SCENE), ("bag7: no motion",), ("command.delay = 0.01 s",))


def test_a_card_comes_back_from_its_file_as_it_was(tmp_path):
    made = card()
    made.write(tmp_path / "arm.card.json")
    again = Card.read(tmp_path / "arm.card.json")
    assert again.to_json() == made.to_json()
    assert again.calibration.digest == made.calibration.digest
    np.testing.assert_array_equal(again.calibration.samples, made.calibration.samples)


def test_it_holds_what_a_reader_needs_to_judge_it():
    data = json.loads(json.dumps(card().to_json()))
    assert data["software"]["mujoco"] == "3.17.0" and data["software"]["flyball"]
    assert data["calibration"]["seed"] == 3 and data["calibration"]["data"] == ["ab", "cd"]
    assert [(f["before"], f["after"]) for f in data["calibration"]["held_out"]["folds"]] == [(0.2, 0.05), (0.3, 0.06)]
    assert data["calibration"]["held_out"]["noise_floor"] == 0.001
    assert data["profile"]["elbow.damping"] == {"is": "identified", "with": ""}
    assert data["profile"]["elbow.gain"] == {"is": "only in combination", "with": "payload.mass"}
    assert data["profile"]["elbow.limit"] == {"is": "not excited", "with": ""}
    assert data["left_out"] == ["bag7: no motion"]
    assert "0.25 -> 0.055 rad (-78 %)" in data["sentence"] and "noise floor 0.001" in data["sentence"]


def test_a_fit_on_a_bound_is_told_from_a_model_that_explains_nothing():
    c = replace(calibration(), verdict="wrong model")
    assert "no setting of these parameters explains" in Card(c, "arm").sentence
    c = replace(c, notes=("the fit ends on a bound of elbow.gain: the range is too narrow or the model is wrong",))
    assert "outside the ranges that were allowed" in Card(c, "arm").sentence


def test_what_to_record_next_names_the_motion_and_why():
    text = "\n".join(record_next(calibration(), SCENE))
    assert "drive saturates: would tell elbow.limit (not excited)" in text
    assert "elbow.gain (known only together with payload.mass)" in text
    assert "elbow.damping" not in text


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_schema_is_refused_in_one_line(version):
    data = card().to_json() | {KEY: version}
    with pytest.raises(Unsupported) as caught:
        Card.from_json(data, where="arm.card.json")
    line = caught.value.line()
    assert line.startswith("arm.card.json: ") and "allowed: 1" in line and "\n" not in line


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop(KEY),
        lambda d: d.pop("calibration"),
        lambda d: d.pop("software"),
        lambda d: d["calibration"].update(best=[1.0, 1.0, 1.0, 1.0]),
        lambda d: d["calibration"].pop("samples"),
        lambda d: d.update(record_next=None),
    ],
)
def test_what_is_no_card_or_was_edited_is_refused(spoil):
    data = json.loads(json.dumps(card().to_json()))
    spoil(data)
    with pytest.raises(InputError) as caught:
        Card.from_json(data, where="arm.card.json")
    assert "arm.card.json" in caught.value.line()


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"x\.json"):
        Card.read(path)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Card.read(tmp_path / "none.json")
