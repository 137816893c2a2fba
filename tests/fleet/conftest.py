import pytest

from flyball.fleet.testing import Site
from flyball.robots.testing import FakeRobot


@pytest.fixture
def site(tmp_path):
    """A hub on a free port."""
    s = Site(tmp_path)
    yield s
    s.close()


@pytest.fixture
def seen():
    """An observation to try policies with."""
    return FakeRobot().observe()
