"""The contract of a log format, as a test: ``check_format(FORMAT, path, checksummed=...)``."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from flyball.base import InputError
from flyball.episodes.codec import encode
from flyball.episodes.episode import Episode
from flyball.episodes.formats import LogFormat
from flyball.episodes.intake import Intake


def check_format(
    log_format: LogFormat, path: Path, *, checksummed: bool, ends: bool = True, seed: int = 0
) -> list[Episode]:
    """Assert that a format keeps its promises on one sound log, which is a file.

    Reading is deterministic and gives episodes that can be stored. A truncated log is refused with an
    ``InputError`` that names the file; so is one with a flipped bit where the format is ``checksummed`` throughout.
    Anything else damaged may be refused, and never raises anything but ``InputError``.

    Args:
      log_format: the format.
      path: a sound log; its suffix must be one of the format's. It is left alone.
      checksummed: every byte of it is covered by a checksum.
      ends: the format says where a log ends. Where it does not (a CSV), one that was cut off between two rows is sound.
      seed: draws the damage.

    Returns:
      The episodes, all in memory.

    Raises:
      AssertionError: a promise is broken.
    """
    assert path.name.endswith(log_format.suffixes), f"{path.name} does not end in one of {log_format.suffixes}"
    blob = path.read_bytes()
    episodes = _read(log_format, path)
    again = _read(log_format, path)
    assert [encode(e) for e in episodes] == [encode(e) for e in again], "reading twice gives two different results"
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / path.parent.name / path.name
        damaged.parent.mkdir(parents=True)

        def error(content: bytes) -> InputError | None:
            damaged.write_bytes(content)
            try:
                _read(log_format, damaged)
            except InputError as err:
                return err
            return None

        rng = random.Random(seed)
        for _ in range(25):
            cut = rng.randrange(len(blob))
            found = error(blob[:cut])
            assert found is not None or not ends, (
                f"truncated to {cut} of {len(blob)} bytes, the log was read all the same"
            )
            assert found is None or path.name in found.line(), f"the error does not name the file: {found.line()}"
        for _ in range(100):
            at, bit = rng.randrange(len(blob)), 1 << rng.randrange(8)
            found = error(blob[:at] + bytes([blob[at] ^ bit]) + blob[at + 1 :])
            assert found is not None or not checksummed, f"bit {bit:#04x} of byte {at} flipped, and nobody noticed"
        for _ in range(25):
            at, n = rng.randrange(len(blob)), rng.randrange(1, 4096)
            error(blob[:at] + rng.randbytes(n) + blob[at + n :])
            error(blob[:at] + blob[at + n :])
    return episodes


def _read(log_format: LogFormat, path: Path) -> list[Episode]:
    with tempfile.TemporaryDirectory() as folder:
        return list(log_format.read(path, Intake(Path(folder), memory=1 << 62)))
