"""A body, and attempts recorded with it, for the tests of this folder."""

from pathlib import Path

import numpy as np
import pytest

from flyball.base import SignalSpec
from flyball.episodes.recorder import Recorder
from flyball.robots import Embodiment, Joint

REAL = Path(__file__).parents[3] / "shared" / "realdata"

BODY = Embodiment(
    name="two-joints",
    joints=(Joint("a", "revolute", -1, 1, 2, 3), Joint("b", "prismatic", 0, 0.1, 0.5, 10)),
    observations=(
        SignalSpec("joint.position", (2,), unit="rad m", rate_hz=50),
        SignalSpec("gripper.force", (), dtype="float32", unit="N", rate_hz=50),
    ),
    actions=(SignalSpec("joint.target", (2,), low=(-1.0, 0.0), high=(1.0, 0.1), rate_hz=50),),
    model_digest="0" * 64,
    safe_action=(float("nan"), float("nan")),
)


def record_attempt(path, *, n=50, seed=0, **metadata):
    """An attempt of n steps; other seeds give other bytes."""
    rng = np.random.default_rng(seed)
    with Recorder(path, BODY, {"robot": "r1", "task": "wave-v1", "seed": seed, **metadata}) as r:
        for i in range(n):
            r.write("joint.position", i * 20_000_000, rng.normal(size=2))
            r.write("gripper.force", i * 20_000_000, np.float32(rng.normal()))
            r.write("joint.target", i * 20_000_000, rng.uniform(-1, 1, 2))
        r.event(n * 20_000_000, "done", f"after {n} steps")
    return path


@pytest.fixture
def body():
    """The body that ``record`` records."""
    return BODY


@pytest.fixture
def record():
    """``record(path, n=50, seed=0, **metadata)`` writes an attempt of n steps."""
    return record_attempt


@pytest.fixture
def real():
    """``real(folder)``: recordings of real hardware, which lie beside the repository where there are any."""

    def folder(name):
        path = REAL / name
        if not path.is_dir():
            pytest.skip(f"no recordings of real hardware at {path}")
        return path

    return folder
