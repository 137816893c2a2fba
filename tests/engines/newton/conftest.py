"""Newton's tests need Newton."""

import pytest

warp = pytest.importorskip("warp")
pytest.importorskip("newton")


@pytest.fixture(scope="module")
def quickly_compiled():
    """Kernels without optimization: compiled in a third of the time, and a few hundred rigid steps are no work."""
    before = warp.config.optimization_level
    warp.config.optimization_level = 0
    yield
    warp.config.optimization_level = before
