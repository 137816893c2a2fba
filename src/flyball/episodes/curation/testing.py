"""The contract of a check, as a test: ``check_check(CHECK)``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from flyball.base import SignalSpec, Timed
from flyball.episodes.codec import encode
from flyball.episodes.curation.check import Check, Finding, Findings, Seen
from flyball.episodes.curation.defects import Specimen, arm
from flyball.episodes.episode import Episode


def check_check(check: Check, *, seed: int = 0) -> None:
    """Assert that a check keeps its promises.

    Its rule and the reasons of its parameters are stated. It gives the same findings twice and leaves the episode
    alone. It answers to episodes as odd as logs are: empty, of one sample, of equal samples, not finite, of integers,
    with stamps that run backwards. The order of episodes changes nothing it says of sound ones.

    Raises:
      AssertionError: a promise is broken.
    """
    assert check.name and check.version >= 1 and check.meaning in ("flag", "note"), "name, version or meaning missing"
    assert check.stated() and "{" not in check.stated(), "the rule leaves a number out"
    for name, parameter in check.parameters.items():
        assert len(parameter.why.split()) >= 3, f"why {name} = {parameter.value:g}?"
    group = list(_group(seed))
    for x in (group[0], *_odd(group[0])):
        before = encode(x.episode) if _sound(x.episode) else b""
        with np.errstate(all="ignore"):
            first, again = found(check, [x]), found(check, [x])
        assert first == again, f"two answers about {x.episode.robot}"
        for f in first[0] or ():
            assert isinstance(f, Finding) and f.what and "\n" not in f.what and f.excess == f.excess, f"odd finding {f}"
        assert not before or encode(x.episode) == before, "the check changed the episode"
    kept = [check.look_at(x.episode, x.pictures) for x in group]
    seen = [Seen(str(i), ("", ""), "success", k) for i, k in enumerate(kept) if k is not None]
    forward, backward = check.judged(seen), check.judged(seen[::-1])
    assert all(bool(forward[d]) == bool(backward[d]) for d in forward), "the order of episodes matters"


@cache
def _group(seed: int) -> tuple[Specimen, ...]:
    return tuple(arm(seed + i) for i in range(8))


def found(check: Check, group: list[Specimen]) -> list[Findings]:
    """Findings about each of some specimens of one group, compared with one another."""
    kept = [check.look_at(x.episode, x.pictures if x.images else None) for x in group]
    seen = [Seen(str(i), ("", ""), group[i].episode.outcome, k) for i, k in enumerate(kept) if k is not None]
    judged = check.judged(seen) if seen else {}
    return [judged.get(str(i)) for i in range(len(group))]


def _sound(e: Episode) -> bool:
    return all((np.diff(s.t_ns) >= 0).all() for s in e.signals.values())


def _odd(x: Specimen) -> Iterator[Specimen]:
    def with_all(t: np.ndarray, values: np.ndarray) -> Specimen:
        signals = {
            n: Timed(SignalSpec(n, values.shape[1:], str(values.dtype)), t, values) for n in ("a.state", "a.command")
        }
        return Specimen(Episode("odd", robot=f"{values.dtype} {values.shape}", signals=signals))

    yield Specimen(Episode("empty"))
    t = np.arange(50, dtype=np.int64) * 20_000_000
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 3, 8, 50):
        yield with_all(t[:n], rng.normal(size=(n, 2)))
    yield with_all(t, np.zeros((50, 3)))
    yield with_all(np.zeros(50, np.int64), rng.normal(size=(50, 2)))
    yield with_all(t[::-1].copy(), rng.normal(size=(50, 2)))
    yield with_all(t, np.full((50, 2), np.nan))
    yield with_all(t, np.full((50, 2), np.inf))
    yield with_all(t, rng.integers(0, 5, (50, 2)))
    yield with_all(t, rng.random((50, 2)) > 0.5)
    yield with_all(t, rng.normal(size=(50, 2, 3)))
    yield with_all(t, rng.normal(size=50))
    yield with_all(t, np.zeros((50, 0)))
    yield with_all(np.array([0, 2**62], np.int64), rng.normal(size=(2, 2)))
    yield with_all(t + np.where(np.arange(50) > 25, 2**61, 0), rng.normal(size=(50, 2)))
    for name, images in x.images.items():
        f = x.episode.frames[name]
        for keep in (0, 1, 3):
            short = replace(f, t_ns=f.t_ns[:keep], start=f.start[:keep], stop=f.stop[:keep], key=f.key[:keep])
            yield Specimen(replace(x.episode, frames={name: short}), {name: images[:keep]})
        yield Specimen(replace(x.episode, signals={}), x.images)
        yield replace(x, images={name: images.astype(np.uint16) * 100})
