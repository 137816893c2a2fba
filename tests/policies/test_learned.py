"""A learned policy runs from its file alone, and refuses every file that is not the right one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flyball.base import Damaged, InputError, Missing, Refused, SignalSpec
from flyball.policies.learned import LearnedPolicy
from flyball.policies.testing import check_policy
from flyball.robots import Embodiment

pytest.importorskip("torch")
from flyball.learning.flow import FlowConfig, train


@dataclass(frozen=True)
class PushCodec:
    """Push a slider: position and a scalar force are seen, position targets relative to the position are learnt."""

    name: str = "slider"
    conditioning: tuple[str, ...] = ("mass", "gain")
    control_hz: float = 20.0
    columns: int = 6

    @property
    def embodiment(self) -> Embodiment:
        seen = (SignalSpec("position", (3,)), SignalSpec("force", ()))
        return Embodiment(self.name, (), seen, (SignalSpec("target", (3,)),), "", (0.0, 0.0, 0.0))

    def features(self, observation: Mapping[str, np.ndarray], told: np.ndarray) -> np.ndarray:
        every = np.concatenate([observation["position"], observation["force"][:, None], told], axis=1)
        return every[:, : self.columns]

    def decode(self, observation: Mapping[str, np.ndarray], told: np.ndarray, code: np.ndarray) -> np.ndarray:
        return code + observation["position"][:, None]


CODEC, TOLD = PushCodec(), np.array([0.5, 1.0])


@pytest.fixture(scope="module", params=["flow", "regression"])
def method(request) -> str:
    return request.param


def make(method: str = "flow", **changes) -> bytes:
    rng = np.random.default_rng(0)
    f = rng.standard_normal((400, 6)).astype(np.float32)
    side = rng.choice([-1.0, 1.0], (400, 1, 1))
    c = (side + f[:, None, 3:4] + np.zeros((400, 5, 3))).astype(np.float32)
    config = FlowConfig(method=method, steps=80, width=32, depth=2, batch=64)
    known = {"told": CODEC.conditioning, "spec_hash": CODEC.embodiment.spec_hash()} | changes
    return train(f, c, config, seed=0, **known).onnx


@pytest.fixture(scope="module")
def raw() -> bytes:
    return make()


def observation(n: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    lead = () if n is None else (n,)
    return {"position": rng.standard_normal((*lead, 3)), "force": rng.standard_normal(lead)}


def test_it_keeps_the_contract_of_a_policy(method: str) -> None:
    policy = LearnedPolicy.load(make(method), CODEC, TOLD)
    check_policy(policy, observation(), 3, batched=observation(7))
    chunk = policy.act(observation())
    assert chunk.actions.shape == (5, 3) and chunk.dt_s == 0.05


def test_a_batch_is_its_robots_one_by_one(raw: bytes) -> None:
    told = np.random.default_rng(1).standard_normal((4, 2))
    many = observation(4)
    batch = LearnedPolicy.load(raw, CODEC, told).act(many).actions
    for i in range(4):
        single = LearnedPolicy.load(raw, CODEC, told[i]).act({k: v[i] for k, v in many.items()})
        np.testing.assert_allclose(single.actions, batch[i], atol=1e-5)
    alike = LearnedPolicy.load(raw, CODEC, told[0]).act(many).actions
    np.testing.assert_allclose(alike[0], batch[0], atol=1e-5)
    assert np.abs(alike[1:] - batch[1:]).max() > 1e-3  # what it is told matters


def test_without_noise_the_seed_is_nothing_with_noise_it_is_everything(raw: bytes) -> None:
    def acts(policy: LearnedPolicy, seed: int) -> np.ndarray:
        policy.reset("", seed)
        return np.stack([policy.act(observation(50)).actions for _ in range(2)])

    still, drawn = (LearnedPolicy.load(raw, CODEC, TOLD, seed_noise=s) for s in (False, True))
    np.testing.assert_array_equal(acts(still, 1), acts(still, 2))
    np.testing.assert_array_equal(acts(drawn, 1), acts(drawn, 1))
    assert np.abs(acts(drawn, 1) - acts(drawn, 2)).max() > 0.1
    assert np.abs(np.diff(acts(drawn, 1), axis=0)).max() > 0.1  # another draw for every chunk


def test_the_digest_is_checked_at_every_load(tmp_path: Path, raw: bytes) -> None:
    from flyball.base import digest_of

    path, digest = tmp_path / "policy.onnx", digest_of(raw)
    path.write_bytes(raw)
    LearnedPolicy.load(path, CODEC, TOLD, expected_digest=digest)
    spoiled = bytearray(raw)
    spoiled[len(raw) // 2] ^= 1  # one bit of a weight: still a valid file
    path.write_bytes(spoiled)
    LearnedPolicy.load(path, CODEC, TOLD)
    with pytest.raises(Damaged, match=f"policy.onnx: sha256.*{digest}"):
        LearnedPolicy.load(path, CODEC, TOLD, expected_digest=digest)


@pytest.mark.parametrize("cut", [0, 10, 1000])
def test_bytes_that_are_no_policy_are_damaged(tmp_path: Path, raw: bytes, cut: int) -> None:
    path = tmp_path / "policy.onnx"
    path.write_bytes(raw[:cut])
    with pytest.raises(Damaged, match=r"policy\.onnx: no policy file"):
        LearnedPolicy.load(path, CODEC, TOLD)


def test_an_onnx_file_that_says_nothing_of_itself_is_no_policy(raw: bytes) -> None:
    import onnx

    model = onnx.load_from_string(raw)
    del model.metadata_props[:]
    with pytest.raises(Damaged, match="no policy file"):
        LearnedPolicy.load(model.SerializeToString(), CODEC, TOLD)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"gone\.onnx"):
        LearnedPolicy.load(tmp_path / "gone.onnx", CODEC, TOLD)


def test_a_policy_made_for_something_else_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused, match="told mass, gain; allowed: mass, friction"):
        LearnedPolicy.load(raw, PushCodec(conditioning=("mass", "friction")), TOLD)
    with pytest.raises(Refused, match="spec hash"):
        LearnedPolicy.load(raw, PushCodec(name="another arm"), TOLD)
    with pytest.raises(Refused, match="spec hash"):
        LearnedPolicy.load(make(spec_hash=""), CODEC, TOLD)


@pytest.mark.parametrize("told", [np.zeros(3), np.zeros((2, 1)), np.array(1.0), np.array([0.5, np.nan])])
def test_told_must_fit(raw: bytes, told: np.ndarray) -> None:
    with pytest.raises(InputError, match="2 finite numbers"):
        LearnedPolicy.load(raw, CODEC, told)


def test_other_features_than_trained_on_are_refused(raw: bytes) -> None:
    policy = LearnedPolicy.load(raw, PushCodec(columns=5), TOLD)
    with pytest.raises(InputError, match=r"\(1, 5\).*\(1, 6\)"):
        policy.act(observation())


def test_history_is_stacked_as_it_was_for_training() -> None:
    rng = np.random.default_rng(0)
    now, before = rng.standard_normal((2, 600, 6)).astype(np.float32)
    c = np.repeat((now - before)[:, None, :3], 2, axis=1)  # what to do is how things changed since the last call
    known = {"told": CODEC.conditioning, "spec_hash": CODEC.embodiment.spec_hash(), "history": 1}
    config = FlowConfig(method="regression", steps=400, width=64, depth=2)
    policy = LearnedPolicy.load(train(np.hstack([before, now]), c, config, seed=0, **known).onnx, CODEC, TOLD)

    def moved(o: dict[str, np.ndarray]) -> np.ndarray:
        return policy.act(o).actions[0] - o["position"]

    for _ in range(2):
        policy.reset("", 0)
        first, then = ({"position": np.full(3, x), "force": np.array(0.0)} for x in (0.5, -0.5))
        np.testing.assert_allclose(moved(first), 0.0, atol=0.25)
        np.testing.assert_allclose(moved(then), -1.0, atol=0.25)
        np.testing.assert_allclose(moved(then), 0.0, atol=0.25)
    with pytest.raises(InputError, match="7 features are not those of 2 calls"):
        train(np.zeros((10, 7)), np.zeros((10, 2, 2)), config, seed=0, history=1)


def test_nothing_that_is_not_finite_leaves(raw: bytes) -> None:
    policy = LearnedPolicy.load(raw, CODEC, TOLD)
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="not finite"):
            policy.act(observation() | {"force": np.array(bad)})

    class Hiding(PushCodec):
        def decode(self, observation, told, code):
            return np.nan_to_num(code)

    with pytest.raises(InputError, match="not finite"):
        LearnedPolicy.load(raw, Hiding(), TOLD).act(observation() | {"force": np.array(np.nan)})


def test_the_robot_needs_no_trainer() -> None:
    code = (
        "import sys, flyball.policies.learned; sys.exit(bool({'torch', 'mujoco', 'scipy', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
