"""The network: normalised features, a noisy chunk and flow time in, the clean chunk out."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from flyball.learning.flow.config import FlowConfig

LEAST_FEATURE_SCALE = 0.1
"""Features arrive roughly standardised; what varies less than this is treated as varying this much, not amplified."""
LEAST_CODE_SCALE = 0.01


def time_embedding(t: Tensor, size: int) -> Tensor:
    """Sines and cosines of flow time t (n,) in [0, 1] at frequencies from a quarter turn up to 7.5 turns, (n, size)."""
    frequency = 0.5 * math.pi * torch.exp(torch.linspace(0.0, math.log(30.0), size // 2))
    return torch.cat([torch.sin(t[:, None] * frequency), torch.cos(t[:, None] * frequency)], dim=1)


class ChunkNetwork(nn.Module):
    """MLP over [features, noisy chunk, time]; without the last two when it is a plain regression.

    Buffers carry the statistics that map to and from normalised units, so that they travel with the weights.

    Args:
      features: size of a feature vector, f.
      chunk: (h, b) of a coded chunk.
      config: sizes.
    """

    def __init__(self, features: int, chunk: tuple[int, int], config: FlowConfig) -> None:
        super().__init__()
        self.config, self.chunk, self.size = config, chunk, chunk[0] * chunk[1]
        extra = self.size + config.time_features if config.method == "flow" else 0
        sizes = [features + extra] + [config.width] * config.depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.head = nn.Linear(config.width, self.size)
        with torch.no_grad():  # starts near the mean chunk
            self.head.weight *= 0.1
            self.head.bias.zero_()
        for name, n in (("feature", features), ("code", self.size)):
            self.register_buffer(f"{name}_mean", torch.zeros(n))
            self.register_buffer(f"{name}_scale", torch.ones(n))

    def forward(self, features: Tensor, x: Tensor | None = None, t: Tensor | None = None) -> Tensor:
        """Normalised features (n, f), noisy chunk (n, h*b) and time (n,) to the predicted clean chunk (n, h*b)."""
        parts = [features] if x is None or t is None else [features, x, time_embedding(t, self.config.time_features)]
        h = torch.cat(parts, dim=1)
        for layer in self.layers:
            h = nn.functional.silu(layer(h))
        return self.head(h)

    @torch.no_grad()
    def sample(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Chunks (n, h, b) for features (n, f), both as the task has them; noise (n, h, b), zero by default."""
        f = (features - self.feature_mean) / self.feature_scale
        if self.config.method == "regression":
            x = self(f)
        else:
            k = self.config.integration_steps
            x = torch.zeros(len(f), self.size) if noise is None else noise.reshape(len(f), self.size)
            for i in range(k):
                end = self(f, x, torch.full((len(f),), i / k))
                x = x + (end - x) / (k - i)  # dt v = (1/k) (end - x) / (1 - i/k)
        return (x * self.code_scale + self.code_mean).reshape(-1, *self.chunk)

    @torch.no_grad()
    def set_statistics(self, features: Tensor, codes: Tensor) -> None:
        """Measure mean and scale of features (N, f) and codes (N, h, b); an action has one scale over the chunk."""
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0).clamp_min(LEAST_FEATURE_SCALE))
        self.code_mean.copy_(codes.mean(0).flatten())
        scale = codes.flatten(0, 1).std(0).clamp_min(LEAST_CODE_SCALE)
        self.code_scale.copy_(scale.repeat(self.chunk[0]))

    @torch.no_grad()
    def take_over(self, old: ChunkNetwork) -> None:
        """Take old's weights, re-expressed in this network's statistics, so that it starts with old's behaviour.

        Exact for the features and for the flow's start at zero noise. Inputs that never varied in old's data have
        weights that were never trained: they start at zero.
        """
        for mine, theirs in zip(self.parameters(), old.parameters(), strict=True):
            mine.copy_(theirs)
        first, f = self.layers[0], len(self.feature_mean)
        ratio = self.feature_scale / old.feature_scale
        ratio = torch.where(old.feature_scale <= LEAST_FEATURE_SCALE, torch.zeros(()), ratio)
        shift = (self.feature_mean - old.feature_mean) / old.feature_scale
        shift = torch.where(ratio == 0, torch.zeros(()), shift)
        first.bias += first.weight[:, :f] @ shift
        first.weight[:, :f] *= ratio
        if self.config.method == "flow":
            ratio = torch.where(old.code_scale <= LEAST_CODE_SCALE, 0.0, self.code_scale / old.code_scale)
            first.weight[:, f : f + self.size] *= ratio
        self.head.bias.copy_((self.head.bias * old.code_scale + old.code_mean - self.code_mean) / self.code_scale)
        self.head.weight *= (old.code_scale / self.code_scale)[:, None]
