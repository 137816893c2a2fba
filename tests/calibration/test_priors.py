import math

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.calibration.priors import friction, parts, prior
from flyball.calibration.rigs.servo import PARAMETERS


def test_a_data_sheet_is_found_by_any_way_of_writing_the_part_number():
    p = prior("xl330 m288")
    assert p.part == "XL330-M288-T" and p is prior("XL330-M288-T")
    assert prior("SO-101").part == "STS3215-7.4V" and prior("sts3215").part == "STS3215-12V"
    assert [(x.volts, x.torque, x.amperes) for x in p.points] == [
        (3.7, 0.42, 1.11),
        (5.0, 0.52, 1.47),
        (6.0, 0.6, 1.74),
    ]
    assert p.points[1].speed == pytest.approx(10.786, abs=1e-3)  # 103 rev/min
    assert p.encoder_step == pytest.approx(0.001534, abs=1e-6)


def test_units_of_hobby_servos_are_converted():
    p = prior("STS3215-12V").points[0]
    assert p.torque == pytest.approx(2.942, abs=1e-3)  # 30 kgf cm
    (slow, fast) = prior("MG996R").points
    assert fast.speed == pytest.approx(6.16, abs=1e-2)  # 0.17 s for 60 degrees
    assert math.isnan(slow.speed) and fast.most > fast.torque  # what nobody says is not made up


def test_other_voltages_are_between_or_in_proportion_and_far_ones_refused():
    p = prior("XM430-W350")
    assert p.at(11.1).torque == 3.8
    assert 3.8 < p.at(11.5).torque < 4.1
    assert p.at(16.0).torque == pytest.approx(4.8 * 16 / 14.8)
    with pytest.raises(InputError, match="at 40 V"):
        p.at(40)
    with pytest.raises(InputError, match="no data sheet"):
        prior("MX-64").at(12)


def test_ranges_span_what_sources_say_and_name_them():
    r = prior("XL330-M288-T").ranges(volts=5.0)
    assert r["torque_limit"].low == 0.26 and r["torque_limit"].high == 1.04
    assert r["drive_damping"].nominal == pytest.approx(0.52 / 10.786, rel=1e-3)
    assert "bam" in r["friction"].source and "robotis" in r["torque_limit"].source
    assert set(prior("MX-64").ranges()) == {"friction", "damping", "armature"}
    assert set(prior("STS3215-7.4V").ranges()) == {"torque_limit", "friction", "damping", "armature"}


def test_the_range_of_the_real_bench_holds_what_was_fitted_to_it():
    # Armature of the XL330 bench as examples/02 fits it; published and fitted on different specimens.
    r = prior("XL330-M288-T").ranges(volts=7.4)
    stall = next(p for p in PARAMETERS if p.path == "servo.stall_torque").nominal
    assert r["torque_limit"].low < stall < r["torque_limit"].high
    assert r["armature"].low < 0.00143 < r["armature"].high


@pytest.mark.parametrize("part", parts())
def test_every_servo_has_a_source_and_plausible_numbers(part):
    p = prior(part)
    assert p.source and (p.points or p.fits)
    assert all(f.source and min(f.armature, f.friction, f.damping) > 0 for f in p.fits)
    volts = [x.volts for x in p.points]
    assert volts == sorted(volts)
    for x in p.points:
        assert 0.1 < x.torque <= x.most < 50
        if np.isfinite(x.amperes) and np.isfinite(x.speed):
            # more comes out as work at most than goes in: a quarter of stall torque times speed, of volts times amperes
            assert x.torque * x.speed / 4 < x.volts * x.amperes
    for r in p.ranges().values():
        assert 0 < r.low < r.nominal < r.high and r.source


def test_unknown_parts_are_refused_and_near_ones_named():
    with pytest.raises(Missing) as caught:
        prior("XL330-M289-T")
    assert "did you mean 'XL330-M288-T'?" in caught.value.line() and "\n" not in caught.value.line()


def test_friction_spans_the_tables_in_any_order():
    f = friction("steel", "Aluminum")
    assert f is friction("aluminium", "steel") and (f.low, f.high) == (0.47, 0.61)
    assert len(friction("steel", "steel").sources) == 3
    assert friction("Teflon", "steel").high == 0.04
    assert friction("acrylic", "board").nominal == pytest.approx(0.18)
    with pytest.raises(Missing, match="did you mean 'rubber on steel'"):
        friction("ruber", "steel")
