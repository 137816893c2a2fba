"""A release: what is put on robots, for which body, and why it was allowed.

In: a policy file and what it was evaluated with. Out: a ``Release``, plain data whose digest names it for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flyball.base import InputError, SignalSpec, digest_of
from flyball.base.config import from_plain
from flyball.policies.supervisor import Envelope
from flyball.robots import Embodiment

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a release, a robot or a file of a release may be called: it becomes part of paths and addresses."""


def check_name(kind: str, name: str) -> str:
    """The name, if it is a legal one.

    Raises:
      InputError: it is not.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{kind} {name!r} is not a legal name", allowed="up to 64 of A-Z a-z 0-9 . _ -")
    return name


def specs_hash(specs: tuple[SignalSpec, ...]) -> str:
    """Digest of an interface: names, order, shapes, units, limits."""
    return digest_of([s.to_json() for s in specs])


@dataclass(frozen=True)
class Release:
    """What is put on robots.

    Attributes:
      name: unique, e.g. ``turn-003``.
      policy: digest of the policy file.
      files: file name -> sha256: ``policy.onnx`` (or as ``format`` wants it), ``calibrations.json``
        ({robot, or * for any other: {name of the task's conditioning: value}}, optional), ...
      embodiment, spec_hash: the body it is for, and the digest of everything it relies on.
      observation_hash, action_hash: digests of the two halves of the interface.
      task: plug-in name of the task whose features and codec the policy uses ("" for none).
      control_hz: control rate [1/s].
      execute: actions of a chunk that are executed before the policy is asked again.
      reports: digests of the evaluation reports that allowed it.
      format: how the policy file is loaded, see ``flyball.fleet.updater.formats``.
      runtime: Python package -> version it was tested with.
      envelope: how far the supervisor trusts it.
      rollback_to: name of the release before ("" for none).
      expires_ns: unix time after which no robot installs it [ns]; 0 for never.
    """

    name: str
    policy: str
    files: Mapping[str, str]
    embodiment: str
    spec_hash: str
    observation_hash: str
    action_hash: str
    task: str
    control_hz: float
    execute: int = 1
    reports: tuple[str, ...] = ()
    format: str = "onnx"
    runtime: Mapping[str, str] = field(default_factory=dict)
    envelope: Envelope = Envelope()  # noqa: RUF009 - frozen
    rollback_to: str = ""
    expires_ns: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "control_hz", float(self.control_hz))  # 50 and 50.0 are one digest
        check_name("release", self.name)
        for name in self.files:
            check_name("file of a release", name)
        if self.policy not in self.files.values():
            raise InputError("the policy is not among the files", where=self.name, allowed=", ".join(self.files))
        if not self.control_hz > 0 or self.execute < 1:
            raise InputError(f"control_hz {self.control_hz}, execute {self.execute} must be positive", where=self.name)

    @property
    def digest(self) -> str:
        """Identity of the release."""
        return digest_of(self.to_json())

    @property
    def policy_file(self) -> str:
        """Name of the policy file."""
        return next(name for name, digest in self.files.items() if digest == self.policy)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; ``from_json`` is its inverse."""
        return {**asdict(self), "reports": list(self.reports)}

    @classmethod
    def from_json(cls, d: Any, *, where: str = "release") -> Release:
        """Inverse of ``to_json``.

        Raises:
          InputError: naming the bad key.
        """
        release = from_plain(cls, d, where=where)
        if not all(isinstance(v, str) for v in release.files.values()):
            raise InputError("files must be name -> sha256", where=where)
        return release

    def mismatch(self, body: Embodiment) -> str:
        """Why it is not for that body, "" when it is."""
        if self.embodiment != body.name:
            return f"is for embodiment {self.embodiment}, this is {body.name}"
        for kind, ours, theirs in (
            ("observations", specs_hash(body.observations), self.observation_hash),
            ("actions", specs_hash(body.actions), self.action_hash),
            ("embodiment", body.spec_hash(), self.spec_hash),
        ):
            if ours != theirs:
                return f"was made for other {kind} (specification {theirs[:12]}, this robot has {ours[:12]})"
        return ""


def release_for(body: Embodiment, files: Mapping[str, bytes], policy_file: str, **rest: Any) -> Release:
    """Build a release for a body from the files' contents.

    Args:
      body: the embodiment.
      files: file name -> content.
      policy_file: which of them is the policy.
      rest: the remaining fields of ``Release``: at least name, task and control_hz.
    """
    if policy_file not in files:
        raise InputError(f"no file {policy_file!r}", where="release", allowed=", ".join(files))
    digests = {name: digest_of(data) for name, data in files.items()}
    return Release(
        policy=digests[policy_file],
        files=digests,
        embodiment=body.name,
        spec_hash=body.spec_hash(),
        observation_hash=specs_hash(body.observations),
        action_hash=specs_hash(body.actions),
        **rest,
    )
