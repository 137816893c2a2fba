"""A sample of the campaign in ``benchmarks/fuzz_usd.py``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("pxr")
pytest.importorskip("mujoco")

import fuzz_usd


def test_no_damaged_file_gets_past_our_errors(tmp_path: Path) -> None:
    fuzz_usd.seeds(tmp_path)
    outcomes = Counter()
    for _, outcome, _, said in fuzz_usd.run(tmp_path, seed=0, inputs=80):
        outcomes[outcome] += 1
        assert outcome != "uncaught", said
    assert outcomes.total() == 80 and outcomes["refused"] > 20 and outcomes["read"] > 5
