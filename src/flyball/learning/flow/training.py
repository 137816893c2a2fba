"""The training loop.

In: features (N, f), coded chunks (N, h, b), a ``FlowConfig``, a seed, perhaps an earlier policy's state. Out: a
``TrainedPolicy``. The same inputs give the same bits on the same machine with one thread; torch's global random state
and thread count are left as they were.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flyball.base import Damaged, InputError, Missing, digest_of
from flyball.base.config import from_plain
from flyball.learning.flow.config import FlowConfig
from flyball.learning.flow.export import to_onnx
from flyball.learning.flow.network import ChunkNetwork
from flyball.learning.recipe import Progress, TrainedPolicy

PRODUCER = "flyball.learning.flow@1"
REPORT_EVERY = 50


def train(
    features: NDArray[np.float32],
    codes: NDArray[np.float32],
    config: FlowConfig | None = None,
    *,
    seed: int,
    told: tuple[str, ...] = (),
    spec_hash: str = "",
    history: int = 0,
    warm_start: Path | bytes | None = None,
    progress: Progress | None = None,
) -> TrainedPolicy:
    """Learn chunks of coded actions from features.

    Args:
      features: what the policy sees, (N, f), roughly standardised; with a history, of several calls side by side,
        oldest first, the first call of an attempt repeated where there was none before.
      codes: what the demonstrator did next, (N, h, b), roughly standardised.
      config: every number of the method; None for the defaults.
      seed: decides initial weights, order of frames and noise.
      told: names of what the policy is told, ``Task.conditioning``; written into the file.
      spec_hash: of the embodiment; written into the file.
      history: earlier calls whose features are stacked; written into the file, so that the policy does the same.
      warm_start: ``TrainedPolicy.state`` of an earlier policy, or a file of it.
      progress: told about every 50th step.

    Raises:
      InputError: shapes that do not fit together, values that are not finite, a warm start of another shape.
      Damaged: a warm start that is not a training state.
    """
    config = config or FlowConfig()
    f, c = _checked(features, codes)
    if history < 0 or f.shape[1] % (history + 1):
        raise InputError(
            f"{f.shape[1]} features are not those of {history + 1} calls", where="history", allowed="0, 1, 2, ..."
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ChunkNetwork(f.shape[1], (c.shape[1], c.shape[2]), config)
            network.set_statistics(f, c)
            if warm_start is not None:
                old = load_network(warm_start)
                _check_shape(old, network)
                network.take_over(old)
            loss = _fit(network, f, c, config, progress)
    finally:
        torch.set_num_threads(threads)
    labels = {"producer": PRODUCER, "method": config.method, "frames": len(f), "steps": config.steps, "seed": seed}
    metadata = labels | {
        "features": f.shape[1],
        "chunk": c.shape[1],
        "code": c.shape[2],
        "history": history,
        "told": list(told),
        "spec_hash": spec_hash,
        "config": digest_of(config),
    }
    onnx = to_onnx(network, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    return TrainedPolicy(onnx, _write_state(network), config.steps, len(f), tuple(loss), labels)


def _checked(features: NDArray[np.float32], codes: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    features, codes = np.asarray(features, np.float32), np.asarray(codes, np.float32)
    if features.ndim != 2 or codes.ndim != 3 or len(features) != len(codes) or 0 in features.shape + codes.shape:
        raise InputError(
            f"features of shape {features.shape} do not go with codes of shape {codes.shape}",
            where="training data",
            allowed="(N, f) and (N, h, b), N >= 2",
        )
    if len(features) < 2:
        raise InputError("one frame is nothing to learn from", where="training data", allowed="N >= 2")
    for name, x in (("features", features), ("codes", codes)):
        if not np.isfinite(x).all():
            row = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
            raise InputError("not finite", where=f"training data: {name}[{row}]", allowed="finite numbers")
    return torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(np.ascontiguousarray(codes))


def _fit(
    network: ChunkNetwork, features: Tensor, codes: Tensor, config: FlowConfig, progress: Progress | None
) -> list[tuple[int, float]]:
    """Train in place; the network ends with the running mean of its weights. Returns the loss curve."""
    f = (features - network.feature_mean) / network.feature_scale
    c = (codes.flatten(1) - network.code_mean) / network.code_scale
    n, batch = len(f), min(config.batch, len(f))
    weights = list(network.parameters())
    mean = [w.detach().clone() for w in weights]
    peak = config.learning_rate
    optimizer = torch.optim.AdamW(weights, lr=peak, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True)
    order, at, curve, smooth = torch.empty(0, dtype=torch.long), 0, [], math.nan
    for step in range(config.steps):
        rise = min(1.0, (step + 1) / max(1, min(config.warm_up, config.steps // 5)))
        optimizer.param_groups[0]["lr"] = peak * rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        if at + batch > len(order):
            order, at = torch.randperm(n), 0
        rows = order[at : at + batch]
        at += batch
        loss = _loss(network, f[rows], c[rows], config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.clip_norm, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(mean, weights, 1 - min(config.ema, (step + 1) / (step + 10)))
        if step % REPORT_EVERY == 0 or step + 1 == config.steps:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(
                    f"the loss is {value} after {step} steps", where="training", run_next="a lower learning_rate"
                )
            smooth = value if math.isnan(smooth) else 0.7 * smooth + 0.3 * value
            curve.append((step + 1, smooth))
            if progress is not None:
                progress(step + 1, config.steps, smooth)
    with torch.no_grad():
        for w, m in zip(weights, mean, strict=True):
            w.copy_(m)
    return curve


def _loss(network: ChunkNetwork, f: Tensor, c: Tensor, config: FlowConfig) -> Tensor:
    """Pseudo-Huber error of the predicted clean chunk, mean over everything."""
    if config.feature_noise:
        f = f + config.feature_noise * torch.randn_like(f)
    if config.method == "regression":
        predicted = network(f)
    else:
        # one time per stratum of [0, 1): the same distribution, less variance of the gradient
        t = (torch.arange(len(c)) + torch.rand(len(c))) / len(c)
        x = torch.lerp(torch.randn_like(c), c, t[:, None])
        predicted = network(f, x, t)
    return config.knee**2 * (torch.sqrt(1 + ((predicted - c) / config.knee) ** 2) - 1).mean()


def _write_state(network: ChunkNetwork) -> bytes:
    out = io.BytesIO()
    sizes = {"features": len(network.feature_mean), "chunk": list(network.chunk)}
    config = dataclasses.asdict(network.config)
    torch.save({"config": config, **sizes, "weights": network.state_dict()}, out)
    return out.getvalue()


def load_network(source: Path | bytes) -> ChunkNetwork:
    """The network of an earlier training, from ``TrainedPolicy.state`` or a file of it.

    Raises:
      Damaged: not a training state.
    """
    where = "training state" if isinstance(source, bytes) else str(source)
    try:
        raw = source if isinstance(source, bytes) else source.read_bytes()
        state: dict[str, Any] = torch.load(io.BytesIO(raw), weights_only=True)
        h, b = state["chunk"]
        network = ChunkNetwork(state["features"], (h, b), from_plain(FlowConfig, state["config"], where=where))
        network.load_state_dict(state["weights"])
    except OSError as err:
        raise Missing(f"cannot be read ({err.strerror})", where=where) from err
    except Exception as err:  # torch raises many kinds on bytes that are not its own
        raise Damaged(f"not a training state ({type(err).__name__})", where=where) from err
    return network


def _check_shape(old: ChunkNetwork, new: ChunkNetwork) -> None:
    """Refuse a warm start between networks of different shape."""

    def shape(n: ChunkNetwork) -> dict[str, Any]:
        c = n.config
        sizes = {"width": c.width, "depth": c.depth, "time_features": c.time_features}
        return {"method": c.method, "features": len(n.feature_mean), "chunk": n.chunk} | sizes

    for key, wanted in shape(new).items():
        if shape(old)[key] != wanted:
            raise InputError(f"{key} is {shape(old)[key]!r}", where="warm start", allowed=repr(wanted))
