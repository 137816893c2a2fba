"""The updater under attack: it refuses with a line and goes on with what it has."""

import dataclasses
import os
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from tuf.api.metadata import Metadata

from flyball.base import InputError, Missing, Refused
from flyball.fleet import updater as updater_module
from flyball.fleet.client import Unreachable
from flyball.fleet.testing import Site, fake_release
from flyball.releases.signing import Repository
from flyball.robots.testing import FAKE_BODY

OLD, NEW = "turn-000", "turn-001"


class Killed(BaseException):
    pass


@pytest.fixture
def settled(site, seen):
    """A robot that runs the old release, a new one published."""
    site.publish(OLD)
    updater = site.updater()
    updater.update(OLD, seen)
    site.publish(NEW, "0.5")
    return site, updater


def test_it_installs_what_is_right_and_can_go_back(settled, seen):
    site, updater = settled
    assert updater.update(NEW, seen).name == NEW
    release, policy = updater.load()
    assert release.name == NEW and policy.gain == 0.5
    site.close()  # back to the release before needs no hub
    assert updater.update(OLD, seen).name == OLD and updater.load()[1].gain == 1.0
    assert updater.update(NEW, seen).name == NEW


def served(site, name):
    return next((site.repository.targets / NEW).glob(f"*.{name}"))


def tamper_policy(site):
    path = served(site, "policy.txt")
    path.write_bytes(b"0.9")


def tamper_document(site):
    path = served(site, "release.json")
    path.write_bytes(path.read_bytes().replace(b'"execute": 4', b'"execute": 5'))


def lengthen_policy(site):
    served(site, "policy.txt").write_bytes(b"0.5" * 10_000)


def remove_policy(site):
    served(site, "policy.txt").unlink()


def tamper_metadata(site):
    path = max(site.repository.metadata.glob("*.targets.json"))
    path.write_bytes(path.read_bytes().replace(b'"length":3', b'"length":4'))


def other_keys(site):
    other = Site(site.folder / "attacker")
    other.publish(NEW, "0.9")
    other.close()
    for name in ("metadata", "targets"):
        shutil.rmtree(site.repository.served / name)
        shutil.copytree(other.repository.served / name, site.repository.served / name)


def one_signature_short(site):
    """A new root that only one of the three root keys signed."""
    root = Metadata.from_bytes(site.repository.root())
    root.signed.version = 2
    root.sign(site.repository._signer("root-1"))
    (site.repository.metadata / "2.root.json").write_bytes(root.to_bytes())


def wrong_signer(site):
    """The timestamp key signs targets."""
    path = max(site.repository.metadata.glob("*.targets.json"))
    targets = Metadata.from_file(str(path))
    targets.sign(site.repository._signer("timestamp"))
    path.write_bytes(targets.to_bytes())


def withdraw(site):
    site.repository.withdraw(NEW)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (tamper_policy, "LengthOrHashMismatch"),
        (tamper_document, "LengthOrHashMismatch"),
        (lengthen_policy, "longer than signed"),
        (remove_policy, "incomplete"),
        (tamper_metadata, "UnsignedMetadata"),
        (other_keys, "UnsignedMetadata"),
        (one_signature_short, "UnsignedMetadata"),
        (wrong_signer, "UnsignedMetadata"),
        (withdraw, "no release of that name is signed"),
    ],
)
def test_an_attack_is_refused_and_the_robot_goes_on(settled, seen, attack, words):
    site, updater = settled
    attack(site)
    with pytest.raises(Refused, match=words) as caught:
        updater.update(NEW, seen)
    assert NEW in caught.value.line() and "\n" not in caught.value.line()
    for again in (updater, site.updater()):  # also after a restart
        release, policy = again.load()
        assert release.name == OLD and policy.gain == 1.0


def test_expired_metadata_is_refused(site, seen):
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    shutil.rmtree(site.workspace / "tuf")
    site.repository = Repository(site.workspace, long_ago)
    site.publish(OLD, now=long_ago)
    with pytest.raises(Refused, match="ExpiredMetadata"):
        site.updater().update(OLD, seen)


def test_a_repository_rolled_back_to_an_older_state_is_refused(settled, seen):
    site, updater = settled
    before = site.folder / "before"
    shutil.copytree(site.repository.served, before)
    site.publish("turn-002")
    updater.update("turn-002", seen)
    shutil.rmtree(site.repository.served)
    shutil.copytree(before, site.repository.served)
    with pytest.raises(Refused, match="BadVersionNumber"):
        updater.update(NEW, seen)
    assert updater.load()[0].name == "turn-002"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "fake-9"}, "is for embodiment fake-9"),
        ({"observations": FAKE_BODY.observations[::-1]}, "other observations"),
        ({"actions": FAKE_BODY.actions[::-1]}, "other actions"),
        ({"joints": FAKE_BODY.joints[::-1]}, "other embodiment"),
    ],
)
def test_a_validly_signed_release_for_another_body_is_refused_before_its_policy_is_fetched(site, seen, change, words):
    site.publish(OLD)
    updater = site.updater()
    updater.update(OLD, seen)
    site.publish(NEW, body=dataclasses.replace(FAKE_BODY, **change))
    with pytest.raises(Refused, match=words):
        updater.update(NEW, seen)
    assert updater.load()[0].name == OLD
    assert not list((updater.home / "slots" / "incoming").glob("policy*"))


def test_an_expired_release_is_refused(site, seen):
    site.publish(OLD, expires_ns=10)
    with pytest.raises(Refused, match="expired"):
        site.updater().update(OLD, seen)
    assert site.updater(clock_ns=lambda: 9).update(OLD, seen).name == OLD


@pytest.mark.parametrize(("gain", "words"), [("nan", "not finite"), ("text", "cannot be loaded")])
def test_a_policy_that_fails_its_trial_is_refused_for_good(settled, seen, gain, words):
    site, updater = settled
    site.publish("turn-002", gain)
    for again in (updater, updater, site.updater()):
        with pytest.raises(Refused, match=words):
            again.update("turn-002", {**seen, "goal": np.ones(2)})
        assert again.load()[0].name == OLD
    site.close()
    with pytest.raises(Refused, match=words):  # without asking anybody
        updater.update("turn-002", seen)


def test_a_policy_that_kills_the_process_in_its_trial_is_given_up_after_two(settled, seen, monkeypatch):
    site, updater = settled
    starts = 0

    def deadly(path, task, told):
        nonlocal starts
        starts += 1
        raise Killed

    monkeypatch.setitem(updater_module.formats._entries, "fake", "flyball.policies.testing:deadly")
    monkeypatch.setattr("flyball.policies.testing.deadly", deadly, raising=False)
    for _ in range(2):
        with pytest.raises(Killed):
            site.updater().update(NEW, seen)
    with pytest.raises(Refused, match="without an answer"):
        site.updater().update(NEW, seen)
    assert starts == 2
    monkeypatch.undo()
    assert site.updater().load()[0].name == OLD


def test_one_flipped_bit_in_the_installed_policy_is_never_run(settled, seen):
    site, updater = settled
    updater.update(NEW, seen)
    policy = updater.home / "slots" / updater.slots.active / "policy.txt"
    for file in (policy, policy.with_name("release.json"), policy.with_name("calibrations.json")):
        updater.update(NEW, seen)
        good = (updater.home / "slots" / updater.slots.active / file.name).read_bytes()
        (updater.home / "slots" / updater.slots.active / file.name).write_bytes(bytes([good[0] ^ 1]) + good[1:])
        with pytest.raises(Refused, match="went back to turn-000"):
            updater.load()
        assert updater.load()[0].name == OLD
        assert updater.update(NEW, seen).name == NEW  # fetched anew
        updater.update(OLD, seen)
        updater.update(NEW, seen)


def test_a_changed_setting_in_an_installed_release_is_noticed(settled, seen):
    _, updater = settled
    updater.update(NEW, seen)
    document = updater.home / "slots" / updater.slots.active / "release.json"
    document.write_bytes(document.read_bytes().replace(b'"execute": 4', b'"execute": 9'))
    with pytest.raises(Refused, match="not the one that was installed"):
        updater.load()
    assert updater.load()[0].name == OLD


def test_a_damaged_only_release_leaves_the_robot_without_one(site, seen):
    site.publish(OLD)
    updater = site.updater()
    updater.update(OLD, seen)
    shutil.rmtree(updater.home / "slots" / updater.slots.active)
    with pytest.raises(Refused, match="no other is installed"):
        updater.load()
    assert updater.load() is None
    assert updater.update(OLD, seen).name == OLD


def test_a_hub_that_is_away_is_not_a_refusal(settled, seen):
    site, updater = settled
    site.close()
    with pytest.raises(Unreachable):
        updater.update(NEW, seen)
    assert updater.load()[0].name == OLD and not updater.slots.refused


def test_a_robot_that_was_never_enrolled_installs_nothing(site, seen):
    site.publish(OLD)
    updater = site.updater()
    (updater.home / "root.json").unlink()
    with pytest.raises(Refused, match="root of trust"):
        updater.update(OLD, seen)


def test_a_kill_at_any_point_of_an_update_leaves_the_old_release_or_the_new(site, seen, monkeypatch):
    site.publish(OLD)
    site.publish(NEW, "0.5")
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    names = set()
    for point in range(200):
        updater = site.updater(f"robot-{point}")
        updater.update(OLD, seen)
        count = 0

        def deadly(name, point=point):
            def call(*args, **more):
                nonlocal count
                count += 1
                if count == point + 1:
                    raise Killed
                return real[name](*args, **more)

            return call

        for name in real:
            monkeypatch.setattr(os, name, deadly(name))
        try:
            updater.update(NEW, seen)
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        again = site.updater(f"robot-{point}")
        release, policy = again.load()
        assert policy.gain == {OLD: 1.0, NEW: 0.5}[release.name]
        names.add(release.name)
        assert again.update(NEW, seen).name == NEW
        if finished:
            break
    assert point > 15 and names == {OLD, NEW}


def calibrated(site, text):
    release, files = fake_release()
    files["calibrations.json"] = text
    files_ = {**release.files, "calibrations.json": updater_module.digest_of(text)}
    site.repository.publish(dataclasses.replace(release, files=files_), files)


def test_the_release_says_what_the_robot_is_told(site, seen, monkeypatch):
    told = []
    monkeypatch.setattr("flyball.policies.testing.load_fake_policy", lambda path, task, t: told.append(t))
    calibrated(site, b'{"robot-01": {"object.mass": 0.4}, "*": {"object.mass": 0.5}}')
    for name in ("robot-01", "robot-02"):
        with pytest.raises(Refused):
            site.updater(name).update(OLD, seen)
    assert told == [{"object.mass": 0.4}, {"object.mass": 0.5}]


class ToyTask:
    """As much of a task as loading a policy asks for."""

    conditioning = ("grip", "object.mass")

    class scene:
        @staticmethod
        def nominal(n):
            return {"object.mass": np.full(n, 0.3), "object.friction": np.full(n, 0.6)}

    def told(self, values):
        return np.stack([9.81 * values["object.mass"] / values["object.friction"], values["object.mass"]], axis=1)


def test_a_learned_policy_is_told_the_calibration_and_the_nominal_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("flyball.policies.learned.LearnedPolicy.load", lambda path, task, told: told)
    load = updater_module.load_learned
    np.testing.assert_allclose(load(tmp_path, ToyTask(), {}), [9.81 * 0.5, 0.3])
    np.testing.assert_allclose(load(tmp_path, ToyTask(), {"grip": 7}), [7.0, 0.3])
    with pytest.raises(Missing, match="did you mean 'object.mass'"):
        load(tmp_path, ToyTask(), {"object.mas": 1.0})
    with pytest.raises(InputError, match="needs the task"):
        load(tmp_path, None, {})
