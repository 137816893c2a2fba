"""A simulated servo bench whose parameters are known: planted truth for tests of calibration.

In: parameter values. Out: episodes as ingest makes them of recordings of the real bench, with its irregular sampling
and the noise and steps of its encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, Timed
from flyball.calibration.problem import ReplayProblem
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.episodes import Episode

Array = NDArray[np.float64]

TRUTH = {
    "servo.gain": 0.0041,
    "servo.stall_torque": 0.62,
    "servo.back_emf": 0.022,
    "servo.damping": 0.006,
    "servo.friction": 0.021,
    "servo.armature": 0.0014,
    "servo.delay_s": 0.011,
    "servo.offset": -0.017,
}
STEP = 0.001534  # of the encoder [rad]


def servo_episode(
    name: str, kp: int, t: Array, command: Array, position: Array, enabled: NDArray[np.bool_] | None = None
) -> Episode:
    """An episode of the servo bench: t [s], command and position [rad], torque enabled, each (n,)."""
    t_ns = (np.asarray(t) * 1e9).astype(np.int64) + 1_700_000_000_000_000_000
    on = np.ones(len(t), bool) if enabled is None else enabled
    signals = {
        "joint_states.position": Timed(SignalSpec("joint_states.position", (1,), unit="rad"), t_ns, position[:, None]),
        "joint_commands.position": Timed(
            SignalSpec("joint_commands.position", (1,), unit="rad"), t_ns, command[:, None]
        ),
        "servo.torque_enable": Timed(SignalSpec("servo.torque_enable", (), "bool"), t_ns, on),
    }
    labels = {"file": name, "position_gain_kp": kp, "pendulum_mass_kg": 0.49, "pendulum_length_m": 0.1}
    return Episode("servo_xl330", signals=signals, labels=labels)


def record(
    truth: Mapping[str, float],
    *,
    gains: Sequence[int] = (100, 200, 400, 800),
    seconds: float = 3.0,
    amplitude: float = 1.0,
    seed: int = 0,
) -> list[Episode]:
    """Recordings of a bench with these parameters: two motions per gain, one of them released half-way.

    Args:
      truth: parameter path -> value.
      amplitude: scales the commands.
      seed: of phases, sampling and noise.
    """
    rig, rng, episodes = ServoPendulum(), np.random.default_rng(seed), []
    for kp in gains:
        for kind in ("sweep", "drop"):
            t = np.concatenate([[0.0], np.cumsum(rng.uniform(0.0045, 0.006, int(seconds / 0.00525)))])
            swing = 1.3 * np.sin(2.2 * t + rng.uniform(0, 1)) if kind == "sweep" else np.where(t > 0.1, 1.2, 0.0)
            command = amplitude * (swing + 0.25 * np.sin(9 * t) * (kind == "sweep"))
            on = np.ones(len(t), bool) if kind == "sweep" else t < 0.6 * seconds
            blank = servo_episode(f"{kind}_kp{kp}", kp, t, command, np.zeros(len(t)), on)
            problem = ReplayProblem(rig.scene, rig.compared, [rig.replay(blank)], list(truth), engine=rig.engine)
            track = problem.predict(np.array([list(truth.values())]))[0, :, 0]
            seen = np.round((track + rng.normal(0, 0.0005, len(t))) / STEP) * STEP
            # The replay starts where the sensor says, so the first sample must say where the simulation began.
            seen[0] = track[0]
            episodes.append(servo_episode(f"{kind}_kp{kp}", kp, t, command, seen, on))
    return episodes
