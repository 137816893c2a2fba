"""Training recovers planted laws, is deterministic, exports what it trained, and goes on from where it was."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, InputError, Missing
from flyball.learning.flow import FlowConfig, load_network, train
from flyball.learning.flow.network import ChunkNetwork

SMALL = FlowConfig(steps=60, width=32, depth=2, batch=64, warm_up=10)


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A two-mode law: near the goal grip as the context says, else go there. Features (n, 6), codes (n, 4, 2)."""
    f = np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)
    grip = np.exp(0.5 * f[:, 3] - 0.3 * f[:, 4])
    near = np.abs(f[:, 0]) < 0.5
    first = np.stack([np.where(near, 0.0, np.clip(f[:, 0], -1, 1)), np.where(near, grip, -1.0)], axis=1)
    return f, (first[:, None] * np.linspace(1.0, 0.7, 4)[:, None]).astype(np.float32)


def run(policy: bytes, features: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
    session = onnxruntime.InferenceSession(policy)
    feed = {"features": features}
    if "noise" in {i.name for i in session.get_inputs()}:
        h, b = session.get_outputs()[0].shape[1:]
        feed["noise"] = np.zeros((len(features), h, b), np.float32) if noise is None else noise
    return session.run(["codes"], feed)[0]


@pytest.mark.parametrize("method", ["flow", "regression"])
def test_a_planted_conditional_law_is_recovered(method: str) -> None:
    policy = train(*planted(6000, 0), FlowConfig(method=method, steps=400), seed=1)
    f, c = planted(2000, 1)
    clear = np.abs(np.abs(f[:, 0]) - 0.5) > 0.1  # on the edge between the modes anything is excusable
    error = np.abs(run(policy.onnx, f) - c)[clear]
    spread = np.abs(c - c.mean(0))[clear].mean()
    assert error.mean() < 0.08 * spread
    near = clear & (np.abs(f[:, 0]) < 0.5)
    grip = run(policy.onnx, f)[near, 0, 1]
    assert np.corrcoef(np.log(np.maximum(grip, 0.01)), np.log(c[near, 0, 1]))[0, 1] > 0.97


def test_a_flow_keeps_two_answers_apart_where_regression_cannot() -> None:
    rng = np.random.default_rng(0)
    f = rng.standard_normal((4000, 2)).astype(np.float32)
    side = rng.choice([-1.0, 1.0], 4000)  # left or right of an obstacle, not told by the features
    c = (side[:, None, None] + 0.05 * rng.standard_normal((4000, 2, 1))).astype(np.float32)
    policy = train(f, c, FlowConfig(steps=400), seed=0)
    noise = rng.standard_normal((2000, 2, 1)).astype(np.float32)
    drawn = run(policy.onnx, f[:2000], noise)
    assert np.mean(np.abs(np.abs(drawn) - 1) < 0.3) > 0.95
    assert 0.4 < np.mean(drawn[:, 0] > 0) < 0.6
    assert np.mean(np.sign(drawn[:, 0]) == np.sign(drawn[:, 1])) > 0.95  # a chunk does not change its mind


@pytest.mark.parametrize("method", ["flow", "regression"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_file_computes_what_torch_computes(method: str, depth: int) -> None:
    f, c = planted(500, 0)
    f, c = 3 * f + 5, 10 * c - 2  # the normalisation is part of the file
    policy = train(f, c, FlowConfig(method=method, steps=40, width=48, depth=depth, batch=64), seed=2)
    rng = np.random.default_rng(3)
    x = (3 * rng.standard_normal((200, 6)) + 5).astype(np.float32)
    noise = rng.standard_normal((200, 4, 2)).astype(np.float32)
    expected = load_network(policy.state).sample(torch.from_numpy(x), torch.from_numpy(noise)).numpy()
    scale = c.std()
    np.testing.assert_allclose(run(policy.onnx, x, noise) / scale, expected / scale, atol=1e-5)
    np.testing.assert_allclose(run(policy.onnx, x[:1], noise[:1]) / scale, expected[:1] / scale, atol=1e-5)


def test_same_seed_same_bits_and_nothing_global_is_touched() -> None:
    data = planted(1000, 0)
    torch.manual_seed(11)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = train(*data, SMALL, seed=5)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    torch.rand(7)
    again, other = train(*data, SMALL, seed=5), train(*data, SMALL, seed=6)
    assert (first.onnx, first.state, first.digest) == (again.onnx, again.state, again.digest)
    x = data[0][:50]  # the file itself also names the seed: what it computes must differ
    assert np.abs(run(first.onnx, x) - run(other.onnx, x)).max() > 1e-3


def test_the_running_mean_of_the_weights_is_what_is_exported() -> None:
    f, c = planted(1000, 0)
    last, mean = (train(f, c, FlowConfig(steps=30, width=32, depth=2, ema=e), seed=0).state for e in (0.0, 0.95))
    step = [p - q for p, q in zip(load_network(last).parameters(), load_network(mean).parameters(), strict=True)]
    first = load_network(train(f, c, FlowConfig(steps=1, width=32, depth=2, ema=0.0), seed=0).state)
    way = [p - q for p, q in zip(load_network(last).parameters(), first.parameters(), strict=True)]
    # the mean lags behind the last weights, on the way they came
    assert sum((a * b).sum().item() for a, b in zip(step, way, strict=True)) > 0


def test_a_warm_start_goes_on() -> None:
    data = planted(3000, 0)
    f, c = planted(1000, 9)
    earlier = train(*data, FlowConfig(steps=250), seed=0)
    short = FlowConfig(steps=50)
    warm, cold = train(*data, short, seed=1, warm_start=earlier.state), train(*data, short, seed=1)

    def error(p: bytes) -> float:
        return float(np.abs(run(p, f) - c).mean())

    assert error(warm.onnx) < 1.05 * error(earlier.onnx)
    assert error(warm.onnx) < 0.3 * error(cold.onnx)
    assert warm.loss[0][1] < 0.3 * cold.loss[0][1]


def test_a_warm_start_accepts_inputs_that_never_varied_before() -> None:
    f, c = planted(3000, 0)
    still = f.copy()
    still[:, 5] = 0.25  # known to be constant at first, then it varies widely, and means nothing yet
    config = FlowConfig(steps=300, width=64, depth=2)
    earlier = train(still, c, config, seed=0)
    varied = f * np.array([1, 1, 1, 1, 1, 3], np.float32)
    short = FlowConfig(steps=1, width=64, depth=2, learning_rate=1e-9)
    warm = train(varied, c, short, seed=1, warm_start=earlier.state)
    assert np.abs(run(warm.onnx, varied) - run(earlier.onnx, still)).max() < 0.02 * c.std()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["flow", "regression"]))
def test_taking_over_keeps_behaviour_under_any_statistics(seed: int, method: str) -> None:
    g = torch.Generator().manual_seed(seed)
    config = FlowConfig(method=method, width=16, depth=2, integration_steps=1)
    old, new = ChunkNetwork(5, (3, 2), config), ChunkNetwork(5, (3, 2), config)
    for n in (old, new):
        n.set_statistics(
            torch.randn(50, 5, generator=g) * (0.2 + 3 * torch.rand(5, generator=g)) + torch.randn(5, generator=g),
            torch.randn(50, 3, 2, generator=g) * (0.2 + 3 * torch.rand(2, generator=g)) + torch.randn(2, generator=g),
        )
    with torch.no_grad():
        old.head.weight *= 10
    new.take_over(old)
    x = torch.randn(20, 5, generator=g)
    torch.testing.assert_close(new.sample(x), old.sample(x), rtol=1e-4, atol=1e-4)


def test_what_is_reported_and_written_into_the_file() -> None:
    calls: list[tuple[int, int, float]] = []
    f, c = planted(300, 0)
    policy = train(f, c, SMALL, seed=4, told=("mass", "gain"), spec_hash="ab", progress=lambda *a: calls.append(a))
    assert policy.steps == 60 and policy.frames == 300
    assert [s for s, _, _ in calls] == [1, 51, 60] and {n for _, n, _ in calls} == {60}
    assert calls[-1][2] < calls[0][2]
    meta = {p.key: p.value for p in onnx.load_from_string(policy.onnx).metadata_props}
    assert meta["told"] == '["mass", "gain"]' and meta["spec_hash"] == "ab"
    assert (meta["features"], meta["chunk"], meta["code"]) == ("6", "4", "2")
    assert meta["producer"].startswith("flyball.learning.flow@")


def test_fewer_frames_than_a_batch_and_constant_data_train() -> None:
    f, c = np.ones((10, 3), np.float32), np.full((10, 2, 2), 0.5, np.float32)
    out = run(train(f, c, SMALL, seed=0).onnx, f)
    np.testing.assert_allclose(out, c, atol=0.05)


@pytest.mark.parametrize(
    ("features", "codes", "says"),
    [
        (np.zeros((5, 3)), np.zeros((4, 2, 2)), "(5, 3)"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "(N, h, b)"),
        (np.zeros((1, 3)), np.zeros((1, 2, 2)), "N >= 2"),
        (np.array([[0.0], [1.0], [np.nan]]), np.zeros((3, 2, 2)), "features[2]"),
        (np.zeros((3, 1)), np.full((3, 2, 2), np.inf), "codes[0]"),
    ],
)
def test_bad_data_is_refused_in_one_line(features: np.ndarray, codes: np.ndarray, says: str) -> None:
    with pytest.raises(InputError) as caught:
        train(features, codes, SMALL, seed=0)
    assert says in caught.value.line() and "\n" not in caught.value.line()


def test_bad_warm_starts_are_refused(tmp_path) -> None:
    f, c = planted(200, 0)
    state = train(f, c, SMALL, seed=0).state
    with pytest.raises(Damaged, match="not a training state"):
        train(f, c, SMALL, seed=0, warm_start=state[: len(state) // 2])
    with pytest.raises(Missing, match=r"gone\.pt"):
        train(f, c, SMALL, seed=0, warm_start=tmp_path / "gone.pt")
    with pytest.raises(InputError, match=r"warm start: features is 6.*allowed: 5"):
        train(f[:, :5], c, SMALL, seed=0, warm_start=state)
    (tmp_path / "state.pt").write_bytes(state)
    assert train(f, c, SMALL, seed=0, warm_start=tmp_path / "state.pt").steps == 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "magic"}, "flow, regression"),
        ({"steps": 0}, "FlowConfig.steps"),
        ({"time_features": 5}, "2, 4, 6"),
        ({"ema": 1.0}, "FlowConfig.ema"),
        ({"learning_rate": float("nan")}, "FlowConfig.learning_rate"),
    ],
)
def test_a_bad_configuration_is_refused(change: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        FlowConfig(**change)


def test_a_diverging_training_says_so() -> None:
    f, c = planted(200, 0)
    with pytest.raises(InputError, match="learning_rate"):
        train(f, 1e30 * c, FlowConfig(steps=200, width=16, learning_rate=1e30), seed=0)


def test_the_package_loads_no_trainer_until_asked() -> None:
    code = "import sys, flyball.learning as l; l.recipes.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
