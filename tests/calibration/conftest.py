from pathlib import Path

import pytest

from flyball.calibration.testing import TRUTH, record


@pytest.fixture(scope="session")
def bench():
    """Recordings of the bench ``TRUTH``."""
    return record(TRUTH)


@pytest.fixture(scope="session")
def realdata():
    """Folder of recordings of real robots; skips where it is missing."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}")
    return folder
