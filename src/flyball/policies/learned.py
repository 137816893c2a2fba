"""A learned policy from its file, on onnxruntime alone.

In: an ONNX file, the task whose features and codes it speaks, what the robot's calibration tells it. Out: a ``Policy``.
The file is hashed at every load when its digest is known (199 of 200 flipped bits still load), and its metadata must
fit the task and the body. Whatever is not finite is refused here; the supervisor decides what happens then.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, Missing, Refused, digest_of
from flyball.policies.policy import ActionChunk
from flyball.robots import Embodiment, Observation


class Codec(Protocol):
    """What a learned policy needs to know of its task; every ``Task`` is one."""

    @property
    def embodiment(self) -> Embodiment:
        """The body: tells one observation from a batch, and a fitting file from another."""

    @property
    def control_hz(self) -> float:
        """Control rate [1/s]."""

    @property
    def conditioning(self) -> tuple[str, ...]:
        """Names of what the policy is told."""

    def features(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the policy sees, (n, f)."""

    def decode(
        self, observation: Observation, told: NDArray[np.float64], code: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Codes (n, h, b) to actions (n, h, a)."""


class LearnedPolicy:
    """A policy from an ONNX file; make one with ``load``.

    Attributes:
      told: what the policy is told, (c,) for every robot alike or (n, c) for a batch of n. May be replaced between
        attempts.
      metadata: what the file says about itself.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        metadata: dict[str, Any],
        codec: Codec,
        told: NDArray[np.float64],
        seed_noise: bool,
    ) -> None:
        self.metadata, self.told = metadata, told
        self._session, self._codec = session, codec
        self._sampled = any(i.name == "noise" for i in session.get_inputs())
        self._rng = np.random.default_rng(0) if seed_noise else None
        self._past: deque[NDArray[np.float32]] = deque(maxlen=metadata["history"] + 1)

    @classmethod
    def load(
        cls,
        path: Path | bytes,
        codec: Codec,
        told: NDArray[np.float64],
        *,
        expected_digest: str | None = None,
        seed_noise: bool = False,
    ) -> LearnedPolicy:
        """Load, verify and check a policy file.

        Args:
          path: the file, or its bytes.
          codec: the task.
          told: values of ``codec.conditioning``, (c,) or (n, c).
          expected_digest: sha256 of the file (hex); checked when given.
          seed_noise: draw the flow's start from the seed of ``reset``. Otherwise it starts from zero, which is
            deterministic and better while training is short.

        Raises:
          Missing: no such file.
          Damaged: another digest than expected, or no policy file.
          Refused: made for another body, other features or other things told.
        """
        where = "policy" if isinstance(path, bytes) else str(path)
        if isinstance(path, bytes):
            raw = path
        else:
            try:
                raw = path.read_bytes()
            except OSError as err:
                raise Missing(f"cannot be read ({err.strerror})", where=where) from err
        if expected_digest is not None and digest_of(raw) != expected_digest:
            raise Damaged(f"sha256 is {digest_of(raw)}", where=where, allowed=expected_digest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
            text = session.get_modelmeta().custom_metadata_map
            metadata: dict[str, Any] = {
                **{k: str(text[k]) for k in ("producer", "method", "spec_hash")},
                **{k: json.loads(text[k]) for k in ("features", "chunk", "code", "history", "told")},
            }
        except Exception as err:  # onnxruntime raises a kind of its own for every way a file can be wrong
            raise Damaged(f"no policy file ({type(err).__name__})", where=where) from err
        told = np.asarray(told, dtype=float)
        _check(metadata, codec, told, where)
        return cls(session, metadata, codec, told, seed_noise)

    def reset(self, instruction: str, seed: int) -> None:
        if self._rng is not None:
            self._rng = np.random.default_rng(seed)
        self._past.clear()

    def act(self, observation: Observation) -> ActionChunk:
        """The next chunk.

        Raises:
          InputError: features of another size, or an action that is not finite.
        """
        spec = next(s for s in self._codec.embodiment.observations if s.name in observation)
        batched = np.ndim(observation[spec.name]) > len(spec.shape)
        many = observation if batched else {k: np.asarray(v)[None] for k, v in observation.items()}
        n = len(many[spec.name])
        told = np.broadcast_to(self.told, (n, self.told.shape[-1]))
        features = self._stacked(np.asarray(self._codec.features(many, told), dtype=np.float32))
        if features.shape != (n, self.metadata["features"]):
            raise InputError(
                f"features have shape {features.shape}",
                where="learned policy",
                allowed=str((n, self.metadata["features"])),
            )
        feed = {"features": features}
        if self._sampled:
            shape = (n, self.metadata["chunk"], self.metadata["code"])
            start = np.zeros(shape) if self._rng is None else self._rng.standard_normal(shape)
            feed["noise"] = start.astype(np.float32)
        codes = self._session.run(["codes"], feed)[0].astype(float)
        actions = self._codec.decode(many, told, codes)
        # a NaN may also appear or vanish in decoding (a clip hides it): both stages are looked at
        if not (np.isfinite(codes).all() and np.isfinite(actions).all()):
            raise InputError("the policy's answer is not finite", where="learned policy", allowed="finite actions")
        return ActionChunk(actions if batched else actions[0], 1.0 / self._codec.control_hz)

    def _stacked(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of the last calls side by side, oldest first; the first since ``reset`` repeated before it."""
        if not self._past or self._past[-1].shape != features.shape:  # a batch of another size is another attempt
            self._past.extend([features] * (self.metadata["history"] + 1))
        else:
            self._past.append(features)
        return np.concatenate(self._past, axis=1)


def _check(metadata: dict[str, Any], codec: Codec, told: NDArray[np.float64], where: str) -> None:
    """Refuse a file that was made for something else."""
    names = list(codec.conditioning)
    if metadata["told"] != names:
        raise Refused(
            f"the policy wants to be told {', '.join(metadata['told']) or 'nothing'}",
            where=where,
            allowed=", ".join(names) or "nothing",
        )
    spec_hash = codec.embodiment.spec_hash()
    if metadata["spec_hash"] != spec_hash:
        raise Refused(
            f"made for a body with spec hash {metadata['spec_hash'][:12] or '(none)'}",
            where=where,
            allowed=spec_hash[:12],
        )
    if told.ndim not in (1, 2) or told.shape[-1] != len(names) or not np.isfinite(told).all():
        raise InputError(
            f"told has shape {told.shape}" if np.isfinite(told).all() else "told is not finite",
            where=where,
            allowed=f"{len(names)} finite numbers",
        )
