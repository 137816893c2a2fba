"""Newton's tests need Newton, imported as Flyball does: its kernels without derivatives, in half the time."""

import pytest

from flyball.base import NotPossible
from flyball.engines.newton import runtime

try:
    warp = runtime.warp()
    runtime.newton(), runtime.mujoco_warp()
except NotPossible as err:
    pytest.skip(err.line(), allow_module_level=True)


@pytest.fixture(scope="module")
def quickly_compiled():
    """Kernels without optimization: compiled in a third of the time, and a few hundred rigid steps are no work."""
    before = warp.config.optimization_level
    warp.config.optimization_level = 0
    yield
    warp.config.optimization_level = before
