"""The audit of every set-up that a workspace has recordings of.

In: a workspace. Out: per set-up the audits of its recordings, and what holds for all of them together: one recording
without motion does no harm, none with motion leaves nothing to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.base.workspace import Workspace
from flyball.calibration.audit import RECORD, RECORD_FREE, Audit, Finding, audit, line
from flyball.calibration.rigs import Rig, no_recordings, rig_for, rigs
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue

Array = NDArray[np.float64]

_COMMANDS, _ENABLE, _EFFORTS = "joint_commands.position", "servo.torque_enable", ("joint_states.effort", "servo.load")
_STAYING = 10  # samples at its largest value: a drive at its limit
_COLUMNS = (
    "period", "jitter", "quantum", "motion", "peak speed", "reversals", "at rest", "saturated", "impacts",
    "response delay",
)  # fmt: skip
_ROWS = 20


@dataclass(frozen=True)
class SetupAudit:
    """What the recordings of one set-up are worth.

    Attributes:
      rig: name of the set-up.
      audits: one per recording.
      findings: about all of them together.
    """

    rig: str
    audits: tuple[Audit, ...]
    findings: tuple[Finding, ...]

    @property
    def refusals(self) -> list[str]:
        """Why not to fit, one line each."""
        everything = [(self.rig, f) for f in self.findings] + [(a.name, f) for a in self.audits for f in a.findings]
        return [line(name, f) for name, f in everything if f.level == "refuse"]

    @property
    def blocked(self) -> list[str]:
        """Why nothing can be fitted, one line each; a refused recording does not keep the others from being used."""
        general = [line(self.rig, f) for f in self.findings if f.level == "refuse"]
        return general or (self.refusals if all(a.refused for a in self.audits) else [])

    def delays(self) -> dict[str, float]:
        """Joint -> what its delay is at most: the shortest response of any recording, with its uncertainty [s]."""
        most: dict[str, float] = {}
        for a in self.audits:
            for f in a.findings:
                if f.what == "response delay" and f.level == "ok":
                    bound = max(0.0, f.number) + a.number("delay uncertainty", f.where)
                    most[f.where] = min(bound, most.get(f.where, np.inf))
        return most

    def lines(self) -> list[str]:
        """A table, then what to mind, the worst first."""
        rows: list[tuple[str, ...]] = [("recording", "joint", *_COLUMNS)]
        for a in self.audits:
            for joint in dict.fromkeys(f.where for f in a.findings if f.what in ("quantum", "left out")):
                rows.append((a.name, joint, *(_cell(a, c, joint) for c in _COLUMNS)))
        rows = list(zip(*[c for c in zip(*rows, strict=True) if any(x != "-" for x in c[1:])], strict=True))
        width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        table = ["  ".join(c.ljust(w) for c, w in zip(r, width, strict=True)).rstrip() for r in rows]
        if len(table) > _ROWS + 5:
            table = [*table[: _ROWS + 1], f"... and {len(table) - _ROWS - 1} more: --json has all"]
        groups: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
        for a in self.audits:
            for f in a.findings:
                if f.level != "ok":
                    groups.setdefault((f.level, f.what), []).append((a.name, f))
        minded = [line(self.rig, f) for f in self.findings]
        if most := self.delays():
            listed = ", ".join(f"{joint} {1e3 * d:.3g} ms" for joint, d in most.items())
            why = "a response delay holds the drive's own lag too, and only a fit tells them apart"
            minded.append(f"the delay alone is at most about: {listed}; {why}")
        for _, members in sorted(groups.items()):  # refuse, warning
            name, f = max(members, key=lambda m: abs(m[1].number))
            names = len({n for n, _ in members})
            of = f" [{names} of {len(self.audits)} recordings]" if names > 1 else ""
            minded.append(line(name, f) + of)
        refused = sum(a.refused for a in self.audits)
        verdict = "refused" if self.blocked else f"can be fitted{f' without {refused} of them' if refused else ''}"
        return [f"{self.rig}: {len(self.audits)} recordings, {verdict}", *table, *minded]

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "rig": self.rig,
            "refused": bool(self.refusals),
            "findings": [asdict(f) for f in self.findings],
            "recordings": [a.to_json() for a in self.audits],
        }


def audit_episode(episode: Episode, rig: Rig, *, effort_limit: float = 0.0) -> Audit:
    """Audit an episode of a set-up: the signal that it compares, and the commands to the joints if there are any.

    Args:
      effort_limit: the most that the drive gives, in the unit of its signal; 0: not known.

    Raises:
      InputError, Missing: the signals are not there, or not finite.
    """
    seen, size = episode.signal(rig.compared.signal), rig.compared.size
    start = seen.t_ns[0] if len(seen.t_ns) else 0
    commands = enabled = None
    if (sent := episode.signals.get(_COMMANDS)) is not None:
        commands = (sent.t_ns - start) * 1e-9, np.asarray(sent.values, float).reshape(len(sent.t_ns), -1)[:, :size]
    if (switch := episode.signals.get(_ENABLE)) is not None:
        enabled = (switch.t_ns - start) * 1e-9, np.asarray(switch.values, float).ravel()
    effort = _effort(episode)
    label = episode.labels.get("file") or episode.labels.get("toss")
    joints = tuple(map(str, episode.labels.get("joint_states.name", ()))) if commands else tuple("xyz"[:size])
    return audit(
        commands,
        ((seen.t_ns - start) * 1e-9, np.asarray(seen.values, float).reshape(len(seen.t_ns), -1)[:, :size]),
        unit=(seen.spec.unit or ("rad" if commands else "m")).split()[0],
        name=str(episode.log_digest[:12] if label is None else label),
        joints=joints if len(joints) == size else (),
        enabled=enabled,
        effort=(effort[:, :size], effort_limit) if effort_limit and effort is not None else None,
        noise=rig.compared.noise,
    )


def audit_setup(rig: str, audits: Sequence[Audit]) -> SetupAudit:
    """The audits of one set-up, and what holds for all of them."""

    def of(what: str) -> list[Finding]:
        return [f for a in audits for f in a.findings if f.what == what]

    free = not any(f.where == "commands" for f in of("period"))
    found, count = [], f"{len(audits)} recordings"
    if not any(f.level == "ok" for f in of("motion")):
        largest = max(of("motion"), key=lambda f: f.number, default=Finding("refuse", "", "", 0.0))
        record = RECORD_FREE if free else RECORD
        found.append(Finding("refuse", "no motion", count, largest.number, largest.unit, record))
    elif free and not any(f.number for f in of("impacts")):
        text = "contact is not excited: " + RECORD_FREE
        found.append(Finding("warning", "impacts", count, 0.0, "", text))
    return SetupAudit(rig, tuple(audits), tuple(found))


def audit_recordings(workspace: Workspace | Path | str, *, rig: str | None = None) -> list[SetupAudit]:
    """Audit the recordings of every set-up in a workspace, those that ``calibrate_recordings`` would fit.

    Raises:
      Missing: no such set-up, or no recordings of one.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace, create=False)
    catalogue = Catalogue(place.store)
    names = [rig] if rig is not None else rigs.names()
    episodes: dict[str, list[str]] = {}
    efforts: dict[str, list[Array]] = {}
    for row in catalogue.query("origin != 'simulation' AND verdict != 'rejected'"):
        episode = catalogue.load(row.digest)
        if name := rig_for(episode, names):
            episodes.setdefault(name, []).append(row.digest)
            if (effort := _effort(episode)) is not None:
                efforts.setdefault(name, []).append(effort)
    if not episodes:
        raise no_recordings(rig, names, place.path)
    out = []
    for name, digests in episodes.items():
        limit, audits = _effort_limit(efforts.get(name, ())), []
        for digest in digests:
            try:
                audits.append(audit_episode(catalogue.load(digest), rigs.load(name)(), effort_limit=limit))
            except InputError as err:
                audits.append(Audit(digest[:12], (Finding("warning", "left out", "-", 0.0, "", err.line()),)))
        out.append(audit_setup(name, sorted(audits, key=lambda a: a.name)))
    return out


def _effort(episode: Episode) -> Array | None:
    """What the drive gave, (k, j); None when it is not recorded."""
    for name in _EFFORTS:
        if (s := episode.signals.get(name)) is not None and len(s.t_ns) and np.isfinite(s.values).all():
            values = np.asarray(s.values, float).reshape(len(s.t_ns), -1)
            # Servos of this kind send a signed word that some drivers log as unsigned.
            return np.where(values >= 2**15, values - 2**16, values) if values.min() >= 0 else values
    return None


def _effort_limit(efforts: Sequence[Array]) -> float:
    """The largest effort, if several recordings stay at exactly that: a limit, not a peak; else 0."""
    peak = max((float(np.abs(e).max()) for e in efforts), default=0.0)
    staying = sum(int((np.abs(e) == peak).sum()) >= _STAYING for e in efforts)
    return peak if peak > 0 and staying >= 2 else 0.0


def _cell(a: Audit, what: str, joint: str) -> str:
    """A number of this joint, or of the clock, as short as can be read."""
    joint = {"period": "measured", "jitter": "measured", "impacts": "object"}.get(what, joint)
    value = a.number(what, joint)
    if not np.isfinite(value):
        return "-"
    unit = next(f.unit for f in a.findings if f.what == what and f.where == joint)
    if unit == "s":
        unsure = a.number("delay uncertainty", joint) if what == "response delay" else float("nan")
        return f"{1e3 * value:.3g}" + (f" +- {1e3 * unsure:.2g} ms" if np.isfinite(unsure) else " ms")
    return f"{value:.0%}" if what in ("at rest", "saturated") else f"{value:.3g} {unit}".strip()
