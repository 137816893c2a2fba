"""Cameras as data. In: intrinsics, a place, how the lens bends, when frames come and how noisy they are. Out: pixels of
points, rays of pixels, capture times, noisy pictures. numpy only; engines draw what a camera sees.

Frame C is OpenCV's optical frame: x right, y down, z forward. Pixel (row i, column j) has its centre at u = j, v = i.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]

_LARGEST = 8192
"""Pixels per side; what a renderer must be able to hold."""


@dataclass(frozen=True)
class Noise:
    """Noise of a picture, in counts of 0..255: Gaussian, independent per pixel and channel.

    variance = read^2 + shot * count: the photon transfer model (EMVA Standard 1288) with Poisson noise taken as
    Gaussian. Counts are taken as they are, as if the sensor were linear.

    Attributes:
      shot: variance per count [counts].
      read: standard deviation in the dark [counts].
      depth: standard deviation of a depth z is ``depth * z^2`` [1/m], as for triangulation.
    """

    shot: float = 0.0
    read: float = 0.0
    depth: float = 0.0


@dataclass(frozen=True)
class Camera:
    """A camera.

    Attributes:
      name: unique in the scene.
      width, height: size of the picture [px].
      fx, fy: focal lengths [px].
      cx, cy: principal point [px]; the middle of the picture is ((width - 1) / 2, (height - 1) / 2).
      parent: what it is mounted on: ``body:NAME``, ``site:NAME``, ``camera:NAME`` (a camera of the model, whose own
        axes are x right, y up, z backward) or "" for the world.
      position: of C in the parent's frame [m].
      quat: orientation of C in the parent's frame, wxyz.
      distortion: OpenCV's plumb bob, (k1, k2, p1, p2, k3).
      rate_hz: pictures per second; 0: whenever asked.
      delay_s: from capture to when the picture can be read.
      noise: of what is read.
      dropout: probability that a picture is lost; the one before it stands.
    """

    name: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    parent: str = ""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    rate_hz: float = 0.0
    delay_s: float = 0.0
    noise: Noise = Noise()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        def must(ok: bool, what: str, allowed: str) -> None:
            if not ok:
                raise InputError(what, where=f"camera {self.name}", allowed=allowed)

        for key, count in (("position", 3), ("quat", 4), ("distortion", 5)):
            value = getattr(self, key)
            must(len(value) == count and bool(np.isfinite(value).all()), f"{key} = {value}", f"{count} finite numbers")
        size = f"whole pixels, 1 to {_LARGEST}"
        for key in ("width", "height"):
            x = getattr(self, key)
            must(int(x) == x and 1 <= x <= _LARGEST, f"{key} = {x}", size)
        for key in ("fx", "fy"):
            x = getattr(self, key)
            must(bool(np.isfinite(x)) and x > 0, f"{key} = {x:g}", "> 0 px")
        must(bool(np.isfinite([self.cx, self.cy]).all()), f"principal point ({self.cx}, {self.cy})", "finite, px")
        for key in ("rate_hz", "delay_s"):
            x = getattr(self, key)
            must(bool(np.isfinite(x)) and x >= 0, f"{key} = {x:g}", ">= 0")
        must(0 <= self.dropout <= 1, f"dropout = {self.dropout:g}", "[0, 1]")
        for f in fields(self.noise):
            x = getattr(self.noise, f.name)
            must(bool(np.isfinite(x)) and x >= 0, f"noise.{f.name} = {x:g}", ">= 0")
        must(float(np.linalg.norm(self.quat)) > 1e-6, f"quat = {self.quat}", "a rotation, wxyz")
        known = ("body:", "site:", "camera:")
        must(
            not self.parent or self.parent.startswith(known), f"parent {self.parent!r}", "'' or body:|site:|camera:NAME"
        )

    @classmethod
    def with_fov(cls, name: str, width: int, height: int, fovy_deg: float, **rest: Any) -> Camera:
        """A centred pinhole camera with square pixels and a vertical field of view [deg]."""
        if not 0 < fovy_deg < 180:
            raise InputError(f"field of view {fovy_deg:g}", where=f"camera {name}", allowed="0 to 180 deg, exclusive")
        f = height / 2 / float(np.tan(np.radians(fovy_deg) / 2))
        return cls(name, width, height, f, f, (width - 1) / 2, (height - 1) / 2, **rest)

    @classmethod
    def looking(
        cls,
        name: str,
        width: int,
        height: int,
        fovy_deg: float,
        at: Sequence[float],
        from_: Sequence[float],
        up: Sequence[float] = (0.0, 0.0, 1.0),
        **rest: Any,
    ) -> Camera:
        """``with_fov``, placed at ``from_`` and looking at a point, both in the parent's frame [m]."""
        z = np.subtract(at, from_)
        x = np.cross(z, up)
        if not (np.isfinite(z).all() and np.isfinite(x).all()):
            raise InputError(f"from {from_} at {at}", where=f"camera {name}", allowed="finite numbers")
        if np.linalg.norm(z) < 1e-9 or np.linalg.norm(x) < 1e-9 * np.linalg.norm(z):
            raise InputError("looks along its own up direction", where=f"camera {name}", allowed="another up or place")
        z, x = z / np.linalg.norm(z), x / np.linalg.norm(x)
        quat = _quat_of(np.stack([x, np.cross(z, x), z], axis=1))
        place = {"position": tuple(map(float, from_)), "quat": tuple(map(float, quat))}
        return cls.with_fov(name, width, height, fovy_deg, **place, **rest)

    def resized(self, width: int, height: int) -> Camera:
        """The same view in other pixels; intrinsics follow."""
        sx, sy = width / self.width, height / self.height
        changed = {
            "width": width,
            "height": height,
            "fx": self.fx * sx,
            "fy": self.fy * sy,
            "cx": (self.cx + 0.5) * sx - 0.5,
            "cy": (self.cy + 0.5) * sy - 0.5,
        }
        return Camera(**{f.name: getattr(self, f.name) for f in fields(self)} | changed)

    # geometry ---------------------------------------------------------------------------------------------

    @property
    def distorted(self) -> bool:
        """Whether straight lines bend."""
        return any(self.distortion)

    @property
    def rotation(self) -> Array:
        """R of C in the parent's frame, (3, 3)."""
        w, x, y, z = np.asarray(self.quat) / np.linalg.norm(self.quat)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )

    def project(self, points: Array) -> Array:
        """Pixels (u, v) of points in C, (..., 3) [m] -> (..., 2) [px]; NaN where a point is not in front."""
        p = np.asarray(points, float)
        z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
        xy = self._distort(p[..., :2] / z[..., None])
        return xy * (self.fx, self.fy) + (self.cx, self.cy)

    def unproject(self, pixels: Array) -> Array:
        """Rays (x, y, 1) in C through pixels (u, v), (..., 2) [px] -> (..., 3). Newton's method on the distortion.

        Raises:
          InputError: a pixel that no ray in front of the camera reaches.
        """
        uv = np.asarray(pixels, float)
        target = (uv - (self.cx, self.cy)) / (self.fx, self.fy)
        xy = target.copy()
        if self.distorted:
            for _ in range(20):
                j = self._jacobian(xy)
                error = self._distort(xy) - target
                det = j[..., 0, 0] * j[..., 1, 1] - j[..., 0, 1] * j[..., 1, 0]
                det = np.where(np.abs(det) > 1e-9, det, 1e-9)
                step = np.stack(
                    [
                        (j[..., 1, 1] * error[..., 0] - j[..., 0, 1] * error[..., 1]) / det,
                        (j[..., 0, 0] * error[..., 1] - j[..., 1, 0] * error[..., 0]) / det,
                    ],
                    axis=-1,
                )
                xy = xy - step
                if np.abs(step).max(initial=0) < 1e-13:
                    break
            # a root on a folded branch (negative determinant) is no view of the lens
            bad = (np.abs(self._distort(xy) - target).max(axis=-1) > 1e-9) | (np.linalg.det(self._jacobian(xy)) <= 0)
            if bad.any():
                at = uv.reshape(-1, 2)[np.flatnonzero(bad.ravel())[0]]
                raise InputError(
                    f"the distortion {self.distortion} has no inverse at pixel ({at[0]:g}, {at[1]:g})",
                    where=f"camera {self.name}",
                    allowed="coefficients that are monotonic over the whole picture",
                )
        return np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], axis=-1)

    def rays(self) -> Array:
        """The ray (x, y, 1) in C of every pixel, (height, width, 3)."""
        v, u = np.meshgrid(np.arange(self.height), np.arange(self.width), indexing="ij")
        return self.unproject(np.stack([u, v], axis=-1).astype(float))

    def _distort(self, xy: Array) -> Array:
        """OpenCV's plumb bob model (calib3d, "Detailed Description") on z = 1, (..., 2)."""
        k1, k2, p1, p2, k3 = self.distortion
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=-1,
        )

    def _jacobian(self, xy: Array) -> Array:
        """Of ``_distort``, (..., 2, 2)."""
        k1, k2, p1, p2, k3 = self.distortion
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        slope = 2 * (k1 + r2 * (2 * k2 + 3 * k3 * r2))  # d radial / d x = slope * x
        across = slope * x * y + 2 * p1 * x + 2 * p2 * y
        rows = (
            (radial + slope * x * x + 2 * p1 * y + 6 * p2 * x, across),
            (across, radial + slope * y * y + 6 * p1 * y + 2 * p2 * x),
        )
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    # what is read -----------------------------------------------------------------------------------------

    def newest(self, now_s: float, period_s: float, delay_s: Array | None = None) -> NDArray[np.int64]:
        """Number of the newest frame that can be read at a time [s]; frames before time 0 have negative numbers.

        Args:
          period_s: of those who read, for a camera without a rate of its own: one frame per period [s].
          delay_s: instead of the camera's own, (n,).

        Returns:
          (n,), or () where no delay is given.
        """
        delay = np.asarray(self.delay_s if delay_s is None else delay_s)
        # what is due now is there: rounding must not lose it
        frame = (
            np.floor((now_s - delay) * self.rate_hz + 1e-9) if self.rate_hz else np.rint(now_s / period_s + 0 * delay)
        )
        return np.asarray(frame.astype(np.int64))

    def taken_s(self, frame: NDArray[np.int64] | int, period_s: float, delay_s: Array | None = None) -> Array:
        """When frames are taken [s]; see ``newest``."""
        k = np.asarray(frame)
        delay = np.asarray(self.delay_s if delay_s is None else delay_s)
        return k / self.rate_hz + 0 * delay if self.rate_hz else k * period_s - delay

    def observe(
        self, pictures: Mapping[str, NDArray[Any]], rng: Sequence[np.random.Generator]
    ) -> dict[str, NDArray[Any]]:
        """Pictures as the sensor reads them: noise on ``rgb`` and ``depth``, everything else as it is.

        Args:
          pictures: kind -> (n, height, width, ...).
          rng: one generator per world, so that a world is the same alone and in a batch.
        """
        out = dict(pictures)
        noise = self.noise
        if "rgb" in out and (noise.shot or noise.read):
            clean = out["rgb"].astype(np.float32)
            spread = np.sqrt(noise.read**2 + noise.shot * clean)
            draw = np.stack([r.standard_normal(clean.shape[1:], np.float32) for r in rng])
            out["rgb"] = np.clip(np.rint(clean + spread * draw), 0, 255).astype(np.uint8)
        if "depth" in out and noise.depth:
            z = out["depth"]
            draw = np.stack([r.standard_normal(z.shape[1:], np.float32) for r in rng])
            seen = np.isfinite(z)
            near = np.where(seen, z, 0)
            out["depth"] = np.where(seen, np.maximum(near + noise.depth * near**2 * draw, 0), z).astype(np.float32)
        return out

    # as data ----------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``from_json`` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Camera:
        """A camera from plain data (a TOML table, a sidecar).

        Raises:
          InputError: naming the key.
        """
        where = f"camera {data.get('name', '?')}"
        known = {f.name: f for f in fields(cls)}
        for key in data:
            if key not in known:
                raise InputError(f"unknown key {key!r}", where=where, allowed=", ".join(known))
        try:
            plain: dict[str, Any] = {
                k: tuple(map(float, v)) if isinstance(v, (list, tuple)) else v for k, v in data.items()
            }
            if "noise" in plain:
                plain["noise"] = Noise(**{k: float(v) for k, v in dict(plain["noise"]).items()})
            return cls(**plain)
        except (TypeError, ValueError) as err:
            raise InputError(f"not a camera: {err}", where=where, allowed=", ".join(known)) from err


def _quat_of(r: Array) -> Array:
    """Unit quaternion wxyz of a rotation matrix: the dominant eigenvector of Bar-Itzhack's symmetric K (2000)."""
    (a, b, c), (d, e, f), (g, h, i) = r
    k = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    q = np.array([w, x, y, z])
    return q if w >= 0 else -q
