"""The signed repository that robots update from: The Update Framework (TUF), under ``workspace/tuf``.

In: releases and their files. Out: signed metadata and content-addressed targets that a hub serves as static files.
Keys are ed25519: three for the root (two must sign), one each for targets, snapshot and timestamp. They lie in
``tuf/keys`` (mode 0600) so that one machine can close the loop by itself; a real fleet keeps the root keys elsewhere.

    tuf/keys/*.pem
    tuf/repository/metadata/{N.root,N.targets,N.snapshot,timestamp}.json
    tuf/repository/targets/RELEASE/SHA256.FILE

What is current follows from ``timestamp.json`` alone, which is written last: a kill before leaves the old state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from flyball.base import Conflict, Damaged, InputError, Missing, digest_of
from flyball.base.durable import make_folder, only_holder, write_durably
from flyball.releases.release import Release, check_name

RELEASE_FILE = "release.json"
ROOT_KEYS, ROOT_THRESHOLD = ("root-1", "root-2", "root-3"), 2
LIFETIME = {"root": timedelta(days=3650), "targets": timedelta(days=365), "snapshot": timedelta(days=30)}
TIMESTAMP_LIFETIME = timedelta(days=7)
SIGNED_FACTS = (
    *("name", "policy", "files", "embodiment", "spec_hash", "observation_hash", "action_hash", "task", "reports"),
    *("format", "runtime", "rollback_to", "expires_ns"),
)
"""Fields of a release that are repeated in its target's ``custom``, for a robot to check before any download."""

S = TypeVar("S", Timestamp, Snapshot, Targets)


class Repository:
    """The repository of one workspace. Opening creates what is missing; every call is safe to repeat after a kill.

    Args:
      workspace: its folder.
      now: the time of signing, for new metadata (default: the system's clock).
    """

    def __init__(self, workspace: Path, now: datetime | None = None) -> None:
        self.keys = workspace / "tuf" / "keys"
        self.served = workspace / "tuf" / "repository"
        self.metadata, self.targets = self.served / "metadata", self.served / "targets"
        self._lock = workspace / "tuf" / "lock"
        if not (self.metadata / "timestamp.json").exists():
            with only_holder(self._lock, wait_s=30):
                if not (self.metadata / "timestamp.json").exists():
                    self._create(_utc(now))

    def root(self) -> bytes:
        """The first root metadata: what a robot is given when it is enrolled."""
        return (self.metadata / "1.root.json").read_bytes()

    def releases(self) -> dict[str, dict[str, Any]]:
        """Published releases: name -> the facts signed with them."""
        targets = self._current()[2].signed.targets
        return {
            path.split("/")[0]: dict(target.custom or {})
            for path, target in targets.items()
            if path.endswith("/" + RELEASE_FILE)
        }

    def publish(self, release: Release, files: Mapping[str, bytes | Path], now: datetime | None = None) -> None:
        """Sign a release and make it available. Publishing the same again changes nothing.

        Args:
          release: what it is.
          files: contents, or where they are; exactly those that ``release.files`` names.

        Raises:
          InputError: files missing or not what the release says.
          Conflict: another release has that name.
        """
        if set(files) != set(release.files):
            raise InputError(f"files {sorted(files)} given", where=release.name, allowed=", ".join(release.files))
        contents = {k: v if isinstance(v, bytes) else Path(v).read_bytes() for k, v in files.items()}
        for name, data in contents.items():
            if digest_of(data) != release.files[name]:
                raise Damaged(f"{name} is not what the release says (sha256)", where=release.name)
        contents[RELEASE_FILE] = _document(release)
        with only_holder(self._lock, wait_s=30):
            timestamp, snapshot, targets = self._current()
            known = targets.signed.targets.get(f"{release.name}/{RELEASE_FILE}")
            if known is not None:
                if (known.custom or {}).get("digest") == release.digest:
                    return
                raise Conflict("another release of that name is published", where=release.name)
            facts = release.to_json()  # canonical JSON knows no fractions: they are in the document itself
            custom = {"digest": release.digest, **{k: v for k, v in facts.items() if k in SIGNED_FACTS}}
            for name, data in contents.items():
                path = f"{release.name}/{name}"
                target = TargetFile.from_data(path, data, ["sha256"])
                if name == RELEASE_FILE:
                    target.unrecognized_fields["custom"] = custom
                write_durably(self.targets / release.name / f"{target.hashes['sha256']}.{name}", data)
                targets.signed.targets[path] = target
            self._commit(timestamp, snapshot, targets, _utc(now))

    def withdraw(self, name: str, now: datetime | None = None) -> None:
        """Take a release out of the signed list: no robot installs it from now on. Its files stay as evidence."""
        check_name("release", name)
        with only_holder(self._lock, wait_s=30):
            timestamp, snapshot, targets = self._current()
            mine = [p for p in targets.signed.targets if p.split("/")[0] == name]
            if not mine:
                raise Missing.named("release", name, {p.split("/")[0] for p in targets.signed.targets})
            for path in mine:
                del targets.signed.targets[path]
            self._commit(timestamp, snapshot, targets, _utc(now))

    def renew(self, now: datetime | None = None) -> bool:
        """Sign again what is near its expiry (half of its lifetime gone). Returns whether anything was."""
        at = _utc(now)
        with only_holder(self._lock, wait_s=30):
            timestamp, snapshot, targets = self._current()
            if targets.signed.expires - at < LIFETIME["targets"] / 2:
                self._commit(timestamp, snapshot, targets, at)
            elif snapshot.signed.expires - at < LIFETIME["snapshot"] / 2:
                self._commit(timestamp, snapshot, None, at)
            elif timestamp.signed.expires - at < TIMESTAMP_LIFETIME / 2:
                self._commit(timestamp, None, None, at)
            else:
                return False
        return True

    def _create(self, at: datetime) -> None:
        signers = {name: self._signer(name) for name in (*ROOT_KEYS, "targets", "snapshot", "timestamp")}
        root = Root(expires=at + LIFETIME["root"], consistent_snapshot=True)
        for name, signer in signers.items():
            root.add_key(signer.public_key, name.split("-")[0])
        root.roles["root"].threshold = ROOT_THRESHOLD
        metadata = Metadata(root)
        for name in ROOT_KEYS[:ROOT_THRESHOLD]:
            metadata.sign(signers[name], append=True)
        self._write("1.root.json", metadata)
        # Version 0 of each, so that the first commit makes it 1.
        targets, snapshot, timestamp = Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp())
        for m in (targets, snapshot, timestamp):
            m.signed.version = 0
        self._commit(timestamp, snapshot, targets, at)

    def _signer(self, name: str) -> CryptoSigner:
        path = self.keys / f"{name}.pem"
        make_folder(self.keys.parent)
        make_folder(self.keys, 0o700)
        if not path.exists():
            write_durably(path, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise Damaged("not an ed25519 key", where=str(path))
        return CryptoSigner(key)

    def _current(self) -> tuple[Metadata[Timestamp], Metadata[Snapshot], Metadata[Targets]]:
        timestamp = self._read("timestamp.json", Timestamp)
        snapshot = self._read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
        targets = self._read(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        return timestamp, snapshot, targets

    def _read(self, name: str, kind: type[S]) -> Metadata[S]:
        path = self.metadata / name
        try:
            metadata: Metadata[S] = Metadata.from_file(str(path))
        except Exception as err:
            raise Damaged(f"unreadable TUF metadata ({err})", where=str(path)) from err
        if not isinstance(metadata.signed, kind):
            raise Damaged(f"expected {kind.type} metadata", where=str(path))
        return metadata

    def _commit(
        self,
        timestamp: Metadata[Timestamp],
        snapshot: Metadata[Snapshot] | None,
        targets: Metadata[Targets] | None,
        at: datetime,
    ) -> None:
        """Sign and write new versions, what is current last."""
        if targets is not None and snapshot is not None:
            self._sign(targets, "targets", at + LIFETIME["targets"])
            self._write(f"{targets.signed.version}.targets.json", targets)
            snapshot.signed.meta["targets.json"] = MetaFile(targets.signed.version)
        if snapshot is not None:
            self._sign(snapshot, "snapshot", at + LIFETIME["snapshot"])
            self._write(f"{snapshot.signed.version}.snapshot.json", snapshot)
            timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
        self._sign(timestamp, "timestamp", at + TIMESTAMP_LIFETIME)
        self._write("timestamp.json", timestamp)

    def _sign(self, metadata: Metadata[Any], role: str, expires: datetime) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = expires
        metadata.sign(self._signer(role))

    def _write(self, name: str, metadata: Metadata[Any]) -> None:
        write_durably(self.metadata / name, metadata.to_bytes())


def _document(release: Release) -> bytes:
    return json.dumps(release.to_json(), sort_keys=True, indent=1).encode()


def _utc(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)
