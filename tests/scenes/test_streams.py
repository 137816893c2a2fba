"""A draw is a function of (seed, name, world) and nothing else, and the same bits on every machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from flyball.base import InputError
from flyball.scenes import portable, streams

WORLDS = st.lists(st.integers(0, 5000), max_size=40)


def test_philox_answers_as_its_authors_published():
    """Known-answer vectors of Random123 for philox4x64-10."""
    ones = 2**64 - 1
    assert [f"{int(w):016x}" for w in streams.philox((0, 0), np.zeros((1, 4), np.uint64))[0]] == [
        "16554d9eca36314c", "db20fe9d672d0fdc", "d7e772cee186176b", "7e68b68aec7ba23b",
    ]  # fmt: skip
    assert [f"{int(w):016x}" for w in streams.philox((ones, ones), np.full((1, 4), ones, np.uint64))[0]] == [
        "87b092c3013fe90b", "438c3c67be8d0224", "9cc7d7c69cd777b6", "a09caebf594f0ba0",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**70), name=st.text(max_size=20), worlds=WORLDS, lane=st.integers(0, 2**40))
def test_any_order_and_any_split_give_the_same_words(seed, name, worlds, lane):
    whole = streams.words(seed, name, range(5001), lane)
    assert np.array_equal(streams.words(seed, name, worlds, lane), whole[worlds])
    cut = len(worlds) // 2
    parts = [streams.words(seed, name, np.array(w, np.int64), lane) for w in (worlds[:cut], worlds[cut:])]
    assert np.array_equal(np.concatenate(parts), whole[worlds])


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 500), count=st.integers(0, 60), worlds=st.lists(st.integers(0, 2**40), max_size=5))
def test_a_series_is_the_same_from_wherever_it_is_read(start, count, worlds):
    whole = streams.series(3, "s", worlds, 0, 600)
    assert np.array_equal(streams.series(3, "s", worlds, start, count), whole[:, start : start + count])


def test_seed_name_lane_and_world_all_matter():
    base = streams.words(1, "a", range(1000))
    others = [
        streams.words(2, "a", range(1000)),
        streams.words(1, "b", range(1000)),
        streams.words(1, "a", range(1000), 1),
        streams.words(1, "a", range(1, 1001)),
        streams.series(1, "a", range(1000), 0, 1)[:, 0],
    ]
    for other in others:
        assert not np.any(base == other)
    assert len(np.unique(base)) == 1000


def test_the_mapping_is_frozen():
    """These digests are what earlier runs were drawn with: a change here is a new version of the streams."""
    w = np.concatenate([streams.words(7, "object.mass", range(100)), streams.series(7, "x", [5], 3, 9)[0]])
    assert hashlib.sha256(w.astype("<u8").tobytes()).hexdigest()[:16] == "faf814be0558df69"
    x = np.concatenate([streams.normal(w), portable.exp(streams.normal(w)), *portable.sincos(9 * streams.uniform(w))])
    assert hashlib.sha256(x.astype("<f8").tobytes()).hexdigest()[:16] == "d145d2b14ffb3a84"


def test_a_processor_with_fewer_features_draws_the_same_worlds():
    """Where numpy has another exp and another log, the worlds stay what they are."""
    code = """
import hashlib, numpy as np
from flyball.scenes import portable, streams
w = streams.words(0, "x", range(4000))
x = [streams.normal(w), portable.exp(streams.normal(w)), portable.log(streams.uniform(w)), portable.normal_cdf(
    streams.normal(w)), *portable.sincos(9 * streams.uniform(w))]
print(hashlib.sha256(np.concatenate(x).tobytes()).hexdigest())"""
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V3 X86_V4"
    found = set()
    for off in ("", features):
        env = os.environ | {"NPY_DISABLE_CPU_FEATURES": off}
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_uniform_never_reaches_its_ends():
    u = streams.uniform(np.array([0, 2**64 - 1], np.uint64))
    assert 0 < u[0] < 1e-15 and 1 - 1e-15 < u[1] < 1 and np.isfinite(portable.normal_quantile(u)).all()


@pytest.mark.parametrize("seed", [-1, 1.5, True, None, "1"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match="seed"):
        streams.words(seed, "a", range(3))


@pytest.mark.parametrize("worlds", [[-1], [0.5], [[1, 2]], [2**62]])
def test_world_numbers_are_checked(worlds):
    with pytest.raises(InputError, match="world number"):
        streams.words(0, "a", worlds)


def test_portable_functions_are_as_good_as_the_library():
    """Tolerances: ten units in the last place for elementary functions, twenty for the normal tail (two of them)."""
    rng, ulp = np.random.default_rng(0), 2.0**-52
    x = rng.uniform(-700, 700, 20_000)
    np.testing.assert_allclose(portable.exp(x), np.exp(x), rtol=10 * ulp)
    np.testing.assert_allclose(portable.log(np.exp(x)), np.log(np.exp(x)), rtol=10 * ulp)
    a = rng.uniform(-1000, 1000, 20_000)
    s, c = portable.sincos(a)
    np.testing.assert_allclose(s, np.sin(a), atol=10 * ulp)
    np.testing.assert_allclose(c, np.cos(a), atol=10 * ulp)
    z = rng.uniform(-37, 8, 20_000)
    np.testing.assert_allclose(portable.normal_cdf(z), special.ndtr(z), rtol=20 * ulp)
    u = np.concatenate([rng.uniform(0, 1, 20_000), 10.0 ** rng.uniform(-300, -1, 20_000)])
    np.testing.assert_allclose(portable.normal_quantile(u), special.ndtri(u), rtol=20 * ulp, atol=20 * ulp)
    assert portable.normal_cdf(np.array([-1e300, 1e300])).tolist() == [0.0, 1.0]
    assert portable.log(np.array([0.0, np.inf])).tolist() == [-np.inf, np.inf]
    assert np.isnan(portable.log(np.array([-0.3, np.nan]))).all()
