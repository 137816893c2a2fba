"""The signed repository: keys, thresholds, kills in the middle of publishing."""

import json
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Metadata

from flyball.base import Conflict, Damaged, InputError, Missing
from flyball.releases import release_for
from flyball.releases.signing import Repository
from flyball.robots.testing import FAKE_BODY

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Killed(BaseException):
    pass


def make(name="turn-000", gain=b"1.0"):
    files = {"policy.txt": gain}
    return release_for(FAKE_BODY, files, "policy.txt", name=name, task="", control_hz=50, format="fake"), files


def test_keys_are_private_and_two_of_three_root_keys_must_sign(tmp_path):
    repository = Repository(tmp_path, NOW)
    keys = sorted(p.name for p in repository.keys.iterdir())
    assert keys == [*(f"root-{i}.pem" for i in (1, 2, 3)), "snapshot.pem", "targets.pem", "timestamp.pem"]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in repository.keys.iterdir())
    assert stat.S_IMODE(repository.keys.stat().st_mode) == 0o700
    root = Metadata.from_bytes(repository.root()).signed
    assert root.roles["root"].threshold == 2 and len(root.roles["root"].keyids) == 3
    assert len({k for role in root.roles.values() for k in role.keyids}) == 6
    assert not any(p.suffix == ".pem" for p in repository.served.rglob("*"))


def test_published_facts_can_be_read_back_and_republishing_changes_nothing(tmp_path):
    repository = Repository(tmp_path, NOW)
    release, files = make()
    repository.publish(release, files, NOW)
    before = {p: p.read_bytes() for p in repository.served.rglob("*") if p.is_file()}
    Repository(tmp_path).publish(release, files)
    assert before == {p: p.read_bytes() for p in repository.served.rglob("*") if p.is_file()}
    facts = repository.releases()["turn-000"]
    assert facts["digest"] == release.digest and facts["spec_hash"] == FAKE_BODY.spec_hash()


def test_what_does_not_fit_is_not_signed(tmp_path):
    repository = Repository(tmp_path, NOW)
    release, files = make()
    with pytest.raises(Damaged, match="policy.txt"):
        repository.publish(release, {"policy.txt": b"9"})
    with pytest.raises(InputError):
        repository.publish(release, {**files, "more.txt": b""})
    repository.publish(release, files, NOW)
    with pytest.raises(Conflict):
        repository.publish(*make(gain=b"2.0"))
    with pytest.raises(Missing, match="did you mean 'turn-000'"):
        repository.withdraw("turn-00")
    repository.withdraw("turn-000")
    assert repository.releases() == {}


def test_a_kill_at_any_point_of_publishing_leaves_a_repository_that_works(tmp_path, monkeypatch):
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    outcomes = []
    for point in range(200):
        repository = Repository(tmp_path / str(point), NOW)
        repository.publish(*make(), NOW)
        count = 0

        def deadly(name, point=point):
            def call(*args):
                nonlocal count
                count += 1
                if count == point + 1:
                    raise Killed
                return real[name](*args)

            return call

        for name in real:
            monkeypatch.setattr(os, name, deadly(name))
        try:
            repository.publish(*make("turn-001", b"2.0"), NOW)
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        found = set(Repository(tmp_path / str(point)).releases())
        outcomes.append(found)
        again = Repository(tmp_path / str(point))
        again.publish(*make("turn-001", b"2.0"), NOW)
        assert set(again.releases()) == {"turn-000", "turn-001"}
        if finished:
            break
    assert point > 15 and outcomes[-1] == {"turn-000", "turn-001"}
    assert all(found in ({"turn-000"}, {"turn-000", "turn-001"}) for found in outcomes)


def test_a_kill_at_any_point_of_creation_keeps_the_keys_that_robots_may_already_trust(tmp_path, monkeypatch):
    real = os.replace
    for point in range(20):
        path = tmp_path / str(point)
        count = 0

        def deadly(*args, point=point):
            nonlocal count
            count += 1
            if count == point + 1:
                raise Killed
            return real(*args)

        monkeypatch.setattr(os, "replace", deadly)
        finished = False
        with suppress(Killed):
            Repository(path, NOW)
            finished = True
        monkeypatch.undo()
        root = path / "tuf" / "repository" / "metadata" / "1.root.json"
        trusted = set(json.loads(root.read_bytes())["signed"]["keys"]) if root.exists() else set()
        after = set(json.loads(Repository(path, NOW).root())["signed"]["keys"])
        assert trusted <= after and len(after) == 6
        if finished:
            break
    assert point == 10  # six keys, four documents


def test_metadata_is_renewed_before_it_expires(tmp_path):
    repository = Repository(tmp_path, NOW)
    repository.publish(*make(), NOW)
    assert not repository.renew(NOW + timedelta(days=1))
    at = NOW
    for _ in range(50):
        at += timedelta(days=4)
        assert repository.renew(at)
        timestamp, snapshot, targets = repository._current()
        assert min(m.signed.expires for m in (timestamp, snapshot, targets)) > at
    assert "turn-000" in repository.releases()


def test_a_garbled_repository_is_named(tmp_path):
    repository = Repository(tmp_path, NOW)
    (repository.metadata / "timestamp.json").write_bytes(b"{}")
    with pytest.raises(Damaged, match=r"timestamp\.json"):
        repository.releases()
