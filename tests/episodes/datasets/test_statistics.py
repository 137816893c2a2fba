"""Statistics are those of all values, not means of means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.episodes.datasets.statistics import QUANTILES, ColumnFile, PictureStats, column_stats


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 60), dtype=st.sampled_from(["float32", "int16", "bool", "float64"]))
def test_columns(seed, n, dtype):
    x = (np.random.default_rng(seed).normal(size=(n, 2, 3)) * 3).astype(dtype)
    found = column_stats(x)
    wide = x.astype(np.float64)
    assert found["count"] == [n]
    for key, q in QUANTILES.items():
        assert np.array_equal(found[key], np.quantile(wide, q, axis=0))
    for key, f in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        assert np.allclose(found[key], f(wide, axis=0), rtol=1e-12, atol=1e-15)


def test_values_that_are_not_finite_do_not_count():
    found = column_stats(np.array([[1.0, np.nan], [3.0, np.nan], [np.inf, np.nan]]))
    assert (found["mean"], found["max"], found["count"]) == ([2.0, 0.0], [3.0, 0.0], [3])


def test_quantiles_of_two_files_are_not_the_mean_of_their_quantiles(tmp_path):
    a, b = np.zeros((90, 1), np.float32), np.full((10, 1), 100, np.float32)
    file = ColumnFile(tmp_path / "c", "float32", (1,))
    file.add(a)
    file.add(b)
    found = file.stats()
    assert found["q50"] == [0.0] and found["q90"] == pytest.approx([10.0]) and not (tmp_path / "c").exists()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 5), high=st.integers(1, 256))
def test_pictures(seed, n, high):
    pictures = np.random.default_rng(seed).integers(0, high, (n, 3, 5, 3)).astype(np.uint8)
    one, other = PictureStats(), PictureStats()
    for i, p in enumerate(pictures):
        (one if i % 2 else other).add(p)
    one.merge(other)
    found, flat = one.stats(), pictures.reshape(-1, 3) / 255
    assert found["count"] == [n]
    for key, q in QUANTILES.items():
        assert np.allclose(np.ravel(found[key]), np.quantile(flat, q, axis=0), rtol=1e-12, atol=1e-12)
    for key, f in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        assert np.shape(found[key]) == (3, 1, 1)
        assert np.allclose(np.ravel(found[key]), f(flat, axis=0), rtol=1e-10, atol=1e-12)
