"""Every backend that works here; a test that needs one skips when it does not."""

from __future__ import annotations

import pytest

from flyball.engines.rendering.backends import tried


@pytest.fixture(params=["rays", "egl", "osmesa", "warp"], scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    found = tried(request.param)
    if not found.works:
        pytest.skip(f"{found.name}: {found.what}")
    return str(request.param)


@pytest.fixture(params=["egl", "osmesa", "warp"], scope="module")
def painter(request: pytest.FixtureRequest) -> str:
    """A backend that draws colours."""
    found = tried(request.param)
    if not found.works:
        pytest.skip(f"{found.name}: {found.what}")
    return str(request.param)


@pytest.fixture(params=["rays", "egl", "osmesa"], scope="module")
def quick(request: pytest.FixtureRequest) -> str:
    """A backend that compiles nothing; for tests of further models, each of which costs Warp a kernel of seconds."""
    found = tried(request.param)
    if not found.works:
        pytest.skip(f"{found.name}: {found.what}")
    return str(request.param)
