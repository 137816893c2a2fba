"""The robot's updater: it installs a release only when everything about it is right, and keeps the one before.

In: a hub's signed repository, the name of the wanted release. Out: a loaded policy whose file was hashed this very
moment, or ``Refused`` with a line; the robot then goes on with what it has.

Two slots. A new release is fetched beside the running one, verified, tried (loaded, asked once), and only then
committed by one atomic write; until that write the old one is active. A release that fails its trial, or kills the
process in it twice, is refused for good.

    home/root.json          the root of trust, given at enrolment
    home/tuf/               metadata seen so far (what makes a rolled-back repository fail)
    home/slots/{a,b}/       release.json and its files
    home/slots/state.json   which slot is what
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, RepositoryError
from tuf.ngclient import Updater, UpdaterConfig

from flyball.base import Damaged, FlyballError, InputError, Missing, PluginTable, Refused, digest_of
from flyball.base.config import from_plain
from flyball.base.durable import make_folder, read_json, sync_folder, write_durably, write_json
from flyball.fleet.client import HubFetcher, Unreachable
from flyball.policies import Policy
from flyball.policies.supervisor import Supervisor
from flyball.releases.release import Release
from flyball.releases.signing import RELEASE_FILE
from flyball.robots import Embodiment, Observation
from flyball.tasks import Task, tasks

formats = PluginTable(
    "policy format",
    "flyball.policy_formats",
    {
        "onnx": "flyball.fleet.updater:load_learned",
        "script": "flyball.fleet.updater:load_script",
        "fake": "flyball.policies.testing:load_fake_policy",
    },
)
"""Format -> callable (path, task or None, what this robot's policy is told {name: value}) -> Policy."""

TRIALS = 2
CALIBRATIONS, ANY_ROBOT = "calibrations.json", "*"


@dataclass(frozen=True)
class Slots:
    """Which slot is what.

    Attributes:
      active: the slot that runs, "" before the first release.
      previous: the one to go back to.
      trial: the one being tried.
      trials: how often its trial was begun.
      digests: slot -> digest of the release in it, as signed.
      refused: release name -> why it will not be tried again.
    """

    active: str = ""
    previous: str = ""
    trial: str = ""
    trials: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


class ReleaseUpdater:
    """Keeps one robot's releases.

    Args:
      home: the robot's folder.
      hub: URL of the hub.
      robot: its name (whose calibration is used).
      body: its embodiment: what releases must be for.
      clock_ns: wall clock, for a release's expiry [ns].
    """

    def __init__(
        self, home: Path, hub: str, robot: str, body: Embodiment, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.home, self.hub, self.robot, self.body, self.clock_ns = home, hub, robot, body, clock_ns
        self._slots = make_folder(home / "slots")
        make_folder(home / "tuf")
        self._state = self._slots / "state.json"
        try:
            self.slots = from_plain(Slots, read_json(self._state, {}), where=str(self._state))
        except InputError:  # a damaged disk: begin anew, nothing unverified is run
            self.slots = Slots()

    def active(self) -> Release | None:
        """The release that runs, None before the first."""
        return self._release(self.slots.active)

    def load(self) -> tuple[Release, Policy] | None:
        """Load the active policy, every file hashed now; None when there is none.

        Raises:
          Refused: it is not what was installed; the slot before is active from now on (load again).
        """
        if not self.slots.active:
            return None
        try:
            return self._load(self.slots.active)
        except FlyballError as err:
            bad = self.slots.active
            self._save(active=self.slots.previous, previous="")
            now = self.active()
            raise Refused(
                f"the installed release cannot be run ({err.line()}); "
                + (f"went back to {now.name}" if now else "no other is installed"),
                where=bad,
            ) from err

    def update(self, name: str, observation: Observation) -> Release:
        """Make a release the active one, if it is not. The old one stays in the other slot.

        Args:
          name: the wanted release.
          observation: of the robot at rest: what the new policy is asked about in its trial.

        Raises:
          Refused: something is wrong with it; the active release is what it was.
          Unreachable: the hub does not answer.
        """
        active = self.active()
        if active is not None and active.name == name:
            return active
        if name in self.slots.refused:
            raise Refused(self.slots.refused[name], where=name)
        previous = self._release(self.slots.previous)
        if previous is not None and previous.name == name and not previous.mismatch(self.body):
            slot = self.slots.previous  # back to what ran before: no download
            self._save(trial=slot, trials=0)
        else:
            trial = self._release(self.slots.trial)
            slot = self.slots.trial if trial is not None and trial.name == name else self._fetch(name)
        return self._try(slot, name, observation)

    def _try(self, slot: str, name: str, observation: Observation) -> Release:
        """Load, ask once, commit."""
        try:
            if self.slots.trials >= TRIALS:
                raise Refused(f"its trial ended {TRIALS} times without an answer", where=name)
            self._save(trials=self.slots.trials + 1)
            release, policy = self._load(slot)
            supervisor = Supervisor(self.body, 1 / release.control_hz, release.envelope)
            try:
                policy.reset("", 0)
                answer = policy.act(observation)
            except Exception as err:
                raise Refused(f"the policy failed its trial: {type(err).__name__}: {err}", where=name) from err
            if why := supervisor.check_chunk(answer):
                raise Refused(f"the policy failed its trial: {why}", where=name)
        except FlyballError as err:
            refused = err if isinstance(err, Refused) else Refused(err.line(), where=name)
            before = self.slots.previous if self.slots.previous != slot else ""
            self._save(trial="", trials=0, previous=before, refused={**self.slots.refused, name: refused.what})
            raise refused from err
        self._save(active=slot, previous=self.slots.active, trial="", trials=0)
        return release

    def _fetch(self, name: str) -> str:
        """Download and verify into the free slot; returns the slot."""
        root = self.home / "root.json"
        if not root.exists():
            raise Refused("this robot has no root of trust", where=str(root), run_next="enrol it at the hub")
        incoming = self._slots / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        make_folder(incoming)
        try:
            client = Updater(
                str(self.home / "tuf"),
                f"{self.hub}/tuf/metadata/",
                str(incoming),
                f"{self.hub}/tuf/targets/",
                fetcher=HubFetcher(),
                config=UpdaterConfig(),
                bootstrap=root.read_bytes(),
            )
            client.refresh()
            release = self._verified(client, name, incoming)
            for file, digest in release.files.items():
                info = client.get_targetinfo(f"{name}/{file}")
                if info is None or info.hashes.get("sha256") != digest:
                    raise Refused(f"{file} is not signed as the release says", where=name)
                client.download_target(info, str(incoming / file))
        except DownloadLengthMismatchError as err:
            raise Refused(f"longer than signed ({err})", where=name) from err
        except DownloadHTTPError as err:
            raise Refused(f"the repository is incomplete ({err})", where=name) from err
        except DownloadError as err:
            raise Unreachable(f"no answer from the hub ({err})", where=self.hub) from err
        except RepositoryError as err:
            raise Refused(f"verification failed: {type(err).__name__}: {err}", where=name) from err
        for path in incoming.iterdir():
            with open(path, "rb") as f:
                os.fsync(f.fileno())
        sync_folder(incoming)
        slot = "b" if self.slots.active == "a" else "a"
        self._save(previous="", trial="", trials=0)  # from here on the free slot is nothing
        shutil.rmtree(self._slots / slot, ignore_errors=True)
        os.replace(incoming, self._slots / slot)
        sync_folder(self._slots)
        self._save(trial=slot, digests={**self.slots.digests, slot: release.digest})
        return slot

    def _verified(self, client: Updater, name: str, incoming: Path) -> Release:
        """The release's document, checked against what was signed and against this robot, before its files."""
        info = client.get_targetinfo(f"{name}/{RELEASE_FILE}")
        if info is None:
            raise Refused("no release of that name is signed", where=name)
        custom = info.custom if isinstance(info.custom, dict) else {}
        path = client.download_target(info, str(incoming / RELEASE_FILE))
        try:
            release = Release.from_json(json.loads(Path(path).read_bytes()), where=name)
        except (ValueError, InputError) as err:
            raise Refused(f"{RELEASE_FILE} is not a release ({err})", where=name) from err
        if release.name != name or custom.get("digest") != release.digest:
            raise Refused(f"{RELEASE_FILE} is not what was signed", where=name)
        ours = {"embodiment": release.embodiment, "spec_hash": release.spec_hash}
        if any(custom.get(k) != v for k, v in ours.items()):
            raise Refused(f"{RELEASE_FILE} names another body than was signed", where=name)
        if why := release.mismatch(self.body):
            raise Refused(why, where=name)
        if release.expires_ns and release.expires_ns < self.clock_ns():
            raise Refused("the release has expired", where=name)
        return release

    def _release(self, slot: str) -> Release | None:
        if not slot:
            return None
        try:
            return Release.from_json(read_json(self._slots / slot / RELEASE_FILE), where=slot)
        except FlyballError:
            return None

    def _load(self, slot: str) -> tuple[Release, Policy]:
        release = self._release(slot)
        if release is None or release.digest != self.slots.digests.get(slot):
            raise Damaged("no readable release, or not the one that was installed", where=f"slot {slot}")
        if why := release.mismatch(self.body):
            raise Refused(why, where=release.name)
        for file, digest in release.files.items():
            path = self._slots / slot / file
            if not path.exists() or digest_of(path.read_bytes()) != digest:
                raise Damaged(f"{file} is not what was signed (sha256)", where=release.name)
        calibrations = read_json(self._slots / slot / CALIBRATIONS, {})
        told = calibrations.get(self.robot, calibrations.get(ANY_ROBOT, {}))
        task = tasks.load(release.task) if release.task else None
        path = self._slots / slot / release.policy_file
        try:
            return release, formats.load(release.format)(path, task, told)
        except FlyballError:
            raise
        except Exception as err:  # a runtime's own errors
            raise Damaged(f"{release.policy_file} cannot be loaded ({type(err).__name__}: {err})") from err

    def _save(self, **changes: Any) -> None:
        self.slots = Slots(**{**asdict(self.slots), **changes})
        write_json(self._state, asdict(self.slots))


def load_learned(path: Path, task: Task | None, told: Mapping[str, float]) -> Policy:
    """The format ``onnx``: a learned policy with its task's features and codec, told this robot's calibration.

    What the calibration leaves out is told as somebody would who takes the robot for the nominal one.

    Raises:
      InputError: the release names no task.
      Missing: the calibration has a name that the task's policies are not told.
    """
    from flyball.policies.learned import LearnedPolicy

    if task is None:
        raise InputError("a learned policy needs the task whose features it uses", where=path.name)
    return LearnedPolicy.load(path, task, _told(task, told))


def load_script(path: Path, task: Task | None, told: Mapping[str, float]) -> Policy:
    """The format ``script``: ``{"controller": name}``, one of the task's baselines or ``expert``, which heeds ``told``.

    Raises:
      InputError: the release names no task, or the file no controller.
      Missing: the task has no such controller.
    """
    from flyball.policies.scripted import Scripted

    if task is None:
        raise InputError("a script needs the task whose controller it names", where=path.name)
    data = read_json(path)
    name = data.get("controller") if isinstance(data, dict) else None
    if not isinstance(name, str):
        raise InputError("no controller is named", where=path.name, allowed='{"controller": name}')
    if name == "expert":
        row = _told(task, told)[None]
        return Scripted(lambda: task.expert(row), 1.0 / task.control_hz)
    made = task.baselines()
    if name not in made:
        raise Missing.named("controller", name, ["expert", *made], where=path.name)
    return Scripted(lambda: made[name](1), 1.0 / task.control_hz)


def _told(task: Task, told: Mapping[str, float]) -> NDArray[np.float64]:
    """What a policy is told, (c,); what is left out, as by somebody who takes the robot for the nominal one."""
    for name in told:
        if name not in task.conditioning:
            raise Missing.named("value to tell a policy", name, task.conditioning, where=CALIBRATIONS)
    values = dict(zip(task.conditioning, task.told(task.scene.nominal(1))[0], strict=True))
    return np.array([float({**values, **told}[k]) for k in task.conditioning])


def enrol(root: bytes, home: Path) -> None:
    """Give a robot its root of trust (``Repository.root``), once; a robot that has one keeps it."""
    path = make_folder(home) / "root.json"
    if not path.exists():
        write_durably(path, root)
