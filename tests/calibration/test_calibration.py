import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import Damaged, Refused
from flyball.calibration.calibration import Calibration, FoldError, HeldOut, describe, scene_digest
from flyball.scenes import Constant, Parameter, Scene

MASS = Parameter("mass", "kg", 0.4, 0.1, 1.0, "log")
FRICTION = Parameter("friction", "", 0.5, 0.1, 1.0, "log")
ZERO = Parameter("zero", "rad", 0.0, -1.0, 1.0)
SCENE = Scene("push", "<mujoco/>", (MASS, FRICTION, ZERO))


def calibration(samples=None):
    rng = np.random.default_rng(0)
    samples = rng.uniform([0.2, 0.3, -0.1], [0.3, 0.4, 0.1], (40, 3)) if samples is None else samples
    rows = describe(SCENE.parameters, samples)
    held = HeldOut("m", (FoldError("kp 1", 0.4, 0.1, 0.08), FoldError("kp 2", 0.2, 0.1, 0.09)), 0.3, 0.1, 0.08, 0.13,
                   0.91, 1.5, 0.0)  # fmt: skip
    return Calibration(
        "push", scene_digest(SCENE), ("mass", "friction", "zero"), samples, samples.mean(axis=0), rows, held,
        "improved", ("a note",), 3, "servo 1", 1000, ("ab", "cd"),
    )  # fmt: skip


def test_json_brings_back_the_same_calibration():
    c = calibration()
    again = Calibration.from_json(json.loads(json.dumps(c.to_json())))
    assert again.digest == c.digest
    np.testing.assert_array_equal(again.samples, c.samples)
    assert again.parameters == c.parameters and again.held_out == c.held_out and again.data == c.data


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("samples"),
        lambda d: d.update(verdict="splendid"),
        lambda d: d.update(samples=[[1.0, 2.0]]),
        lambda d: d.update(surprise=1),
        lambda d: d["held_out"].pop("after"),
    ],
)
def test_what_is_not_a_calibration_is_refused_in_one_line(spoil):
    data = json.loads(json.dumps(calibration().to_json()))
    spoil(data)
    with pytest.raises(Exception) as caught:
        Calibration.from_json(data, where="file.json")
    assert type(caught.value).__name__ in ("Damaged", "InputError", "Missing")
    assert "file.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_calibrated_scene_draws_the_samples_and_keeps_their_relation():
    mass = np.linspace(0.2, 0.4, 30)
    c = calibration(np.stack([mass, 0.1 / mass, np.zeros(30)], axis=1))
    drawn = c.apply(SCENE).draw(np.random.default_rng(1), 50)
    np.testing.assert_allclose(drawn["mass"] * drawn["friction"], 0.1)
    assert set(drawn["mass"]) <= set(mass)


def test_it_overrides_earlier_variations_and_refuses_another_scene():
    c = calibration()
    varied = replace(SCENE, variations=(Constant("mass", 0.9),))
    assert c.apply(varied).draw(np.random.default_rng(0), 10)["mass"].max() < 0.5
    with pytest.raises(Refused, match="another scene"):
        c.apply(replace(SCENE, model="<mujoco model='other'/>"))


def test_a_band_of_a_third_of_the_prior_is_the_limit_of_identified():
    n = 2001
    for width, expected in ((0.36, True), (0.38, False)):  # 90 % of it: 0.324 and 0.342 of the prior
        u = np.linspace(0.5 - width / 2, 0.5 + width / 2, n)
        (row,) = describe([MASS], np.asarray(MASS.from_unit(u))[:, None])
        assert row.identified is expected
        assert row.low == pytest.approx(float(MASS.from_unit(0.5 - 0.45 * width)))


def test_notes_say_what_is_known_only_together_and_what_is_not_excited():
    rng = np.random.default_rng(0)
    u = rng.uniform(0, 1, 200)
    samples = np.stack([MASS.from_unit(u), FRICTION.from_unit(1 - u), rng.uniform(-0.01, 0.01, 200)], axis=1)
    mass, friction, zero = describe(SCENE.parameters, samples, silent=["zero"])
    assert mass.note == "only in combination with friction" and not mass.identified
    assert friction.note == "only in combination with mass"
    assert zero.note.startswith("not excited") and not zero.identified


def test_the_report_names_verdict_errors_and_every_parameter():
    text = "\n".join(calibration().lines())
    for part in (
        "improved",
        "0.3 -> 0.1 m",
        "0.08 to 0.13",
        "kp 1: 0.4 -> 0.1",
        "91%",
        "mass",
        "friction",
        "zero",
        "a note",
    ):
        assert part in text


def test_damaged_is_what_a_reader_gets_for_a_list():
    with pytest.raises(Damaged):
        Calibration.from_json([])  # type: ignore[arg-type]
