"""The contract of a log format, as a test: ``check_format(FORMAT, blob, path)``."""

from __future__ import annotations

import random
from pathlib import Path

from flyball.base import InputError
from flyball.episodes.codec import encode
from flyball.episodes.episode import Episode
from flyball.episodes.formats import LogFormat


def check_format(log_format: LogFormat, blob: bytes, path: Path, *, checksummed: bool, seed: int = 0) -> Episode:
    """Assert that a format keeps its promises on one sound log.

    Reading is deterministic and gives an episode that can be stored. A truncated log is refused with an
    ``InputError`` that names the file; so is one with a flipped bit where the format is ``checksummed`` throughout.
    Anything else damaged may be refused, and never raises anything but ``InputError``.

    Args:
      log_format: the format.
      blob: a sound log.
      path: its (possible) path; its suffix must be one of the format's.
      checksummed: every byte of ``blob`` is covered by a checksum.
      seed: draws the damage.

    Returns:
      The episode.

    Raises:
      AssertionError: a promise is broken.
    """
    assert path.suffix in log_format.suffixes, f"{path.name} does not end in one of {log_format.suffixes}"
    episode = log_format.read(blob, path)
    assert encode(episode) == encode(log_format.read(blob, path)), "reading twice gives two different episodes"
    rng = random.Random(seed)
    for _ in range(25):
        cut = rng.randrange(len(blob))
        error = _error(log_format, blob[:cut], path)
        assert error is not None, f"truncated to {cut} of {len(blob)} bytes, the log was read all the same"
        assert path.name in error.line(), f"the error does not name the file: {error.line()}"
    for _ in range(100):
        at, bit = rng.randrange(len(blob)), 1 << rng.randrange(8)
        error = _error(log_format, blob[:at] + bytes([blob[at] ^ bit]) + blob[at + 1 :], path)
        assert error is not None or not checksummed, f"bit {bit:#04x} of byte {at} flipped, and nobody noticed"
    for _ in range(25):
        at, n = rng.randrange(len(blob)), rng.randrange(1, 4096)
        _error(log_format, blob[:at] + rng.randbytes(n) + blob[at + n :], path)
        _error(log_format, blob[:at] + blob[at + n :], path)
    return episode


def _error(log_format: LogFormat, blob: bytes, path: Path) -> InputError | None:
    try:
        log_format.read(blob, path)
    except InputError as err:
        return err
    return None
