"""A sample of the importers' fuzz campaign (``benchmarks/fuzz_models.py``)."""

from __future__ import annotations

import fuzz_models

from flyball.robots.models import load


def test_the_unchanged_inputs_load(tmp_path):
    for name, data in fuzz_models.FILES.items():
        (tmp_path / name).write_bytes(data)
    assert {load(tmp_path / name).losses for name in ("model.xml", "model.urdf")} == {()}


def test_no_uncaught_exception_in_a_sample():
    result = fuzz_models.campaign(200, seed=20261120)
    assert result["defects"] == []
    assert result["counts"]["loaded"] > 20 and result["counts"]["refused"] > 80, "the changes must bite, not only break"


def test_an_input_can_be_made_again():
    assert [fuzz_models.make(3, n) for n in range(20)] == [fuzz_models.make(3, n) for n in range(20)]
    assert fuzz_models.make(3, 0) != fuzz_models.make(4, 0)
