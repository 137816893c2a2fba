"""Proof that a dataset is what it claims to be.

In: a dataset version, or an exported folder. Out: a list of what is wrong; empty when everything holds. Of a version:
its bytes and those of every episode, camera and raw log against their digests, and that all of it is registered. Of a
folder: every file against the digest in its manifest, and, where the episodes are in the store, every number bit by bit
and every picture within a codec's error against the episodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, FlyballError, InputError, Missing
from flyball.base.config import from_plain
from flyball.base.store import Store
from flyball.episodes.dataset import Dataset
from flyball.episodes.datasets.folder import LeRobotFolder, Span
from flyball.episodes.datasets.layout import Feature, TableOptions, plan
from flyball.episodes.datasets.lerobot import MANIFEST, order_of
from flyball.episodes.datasets.stored import open_episode, pictures
from flyball.episodes.datasets.table import Sampler, Table
from flyball.episodes.episode import Episode

PSNR_DB = 20.0
"""Least peak signal to noise of a decoded picture [dB]; coarse codecs give 25 and more, a wrong picture mostly less."""


@dataclass(frozen=True)
class Proof:
    """What was checked.

    Attributes:
      problems: one line each.
      episodes, logs, cameras, files, frames: how many were found to be as they should.
      psnr_db: of the worst picture of a video; infinite without pictures or when all are exact.
    """

    problems: tuple[str, ...] = ()
    episodes: int = 0
    logs: int = 0
    cameras: int = 0
    files: int = 0
    frames: int = 0
    psnr_db: float = float("inf")


def verify_version(store: Store, digest: str, *, progress: Callable[[int, int], None] | None = None) -> Proof:
    """Check a dataset and everything it was made from.

    Raises:
      Missing, Damaged: the dataset itself is gone or not sound.
    """
    dataset = Dataset.decode(store.get(digest), where=f"dataset {digest[:12]}")
    problems: list[str] = []
    good = {"episode": 0, "log": 0, "frames": 0}
    done: set[str] = set()

    def check(kind: str, what: str, of: str) -> None:
        if what in done:
            return
        done.add(what)
        name = f"{kind} {what[:12]}" + (f" of episode {of[:12]}" if of else "")
        if not store.read("SELECT 1 FROM artifacts WHERE digest = ? AND kind = ?", (what, kind)):
            problems.append(f"{name}: not registered")
        elif _sha256(store.path(what)) != what:
            problems.append(f"{name}: " + ("does not match its digest" if store.path(what).exists() else "is gone"))
        else:
            good[kind] += 1

    parents = set(store.artifact(digest, "dataset").parents)
    for i, e in enumerate(dataset.episodes):
        check("episode", e, "")
        if e not in parents:
            problems.append(f"episode {e[:12]}: not among the dataset's parents")
        try:
            episode = open_episode(store, e, verified=False)
        except FlyballError as err:
            problems.append(err.line())
            continue
        for f in episode.frames.values():
            check("frames", f.blob, e)
        if episode.log_digest:
            check("log", episode.log_digest, e)
        if progress is not None:
            progress(i + 1, len(dataset.episodes))
    for parent in dataset.parents:
        if not store.has(parent):
            problems.append(f"dataset {parent[:12]}, of which this one was made, is not registered")
    return Proof(tuple(problems), good["episode"], good["log"], good["frames"])


def verify_folder(folder: Path, store: Store | None, *, progress: Callable[[int, int], None] | None = None) -> Proof:
    """Check an exported folder.

    Args:
      folder: made by ``export``.
      store: where the episodes are; None to check the files alone.
      progress: told (episodes done, all).

    Raises:
      Missing: not a LeRobotDataset, or not one of ours.
      Damaged: its manifest is not sound.
    """
    if not (folder / MANIFEST).is_file():
        raise Missing("no manifest: not exported by Flyball", where=str(folder), allowed=f"a folder with {MANIFEST}")
    manifest, listed, members = _manifest(folder)
    problems: list[str] = []
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    for name in sorted(there | set(listed)):
        if name not in listed:
            problems.append(f"{name}: not in the manifest")
        elif name not in there:
            problems.append(f"{name}: is gone")
        elif _sha256(folder / name) != listed[name]:
            problems.append(f"{name}: does not match its digest")
    files = len(listed) - len(problems)
    if store is None or problems:
        return Proof(tuple(problems), files=max(files, 0))
    digest = str(manifest.get("dataset"))
    if not store.has(digest):
        raise Missing(
            f"dataset {digest[:12]} is not in this workspace, so only the files were checked; they are as exported",
            where=str(folder),
            run_next="--workspace DIR of the workspace that exported it",
        )
    dataset = Dataset.decode(store.get(digest), where=f"dataset {digest[:12]}")
    options = from_plain(TableOptions, manifest["options"], where=f"{folder / MANIFEST}: options")
    layout = plan(store, dataset, options)
    sampler = Sampler(layout)
    order, _ = order_of(dataset)
    opened = LeRobotFolder(folder)
    if [m["digest"] for m in members] != order or [e.index for e in opened.entries] != list(range(len(order))):
        return Proof((f"{folder}: its episodes are not those of the dataset",), files=files)
    wanted = [k for k, c in opened.columns.items() if c.dtype != "video"]
    if {f.key for f in layout.features} != set(opened.columns) - _RESERVED:
        return Proof((f"{folder}: its features are not those of the dataset",), files=files)
    frames, worst = 0, float("inf")
    for i, pieces in groupby(opened.rows(wanted), key=lambda piece: piece[0]):
        rows = [piece for _, piece in pieces]
        where = f"episode {i} ({order[i][:12]})"
        episode = open_episode(store, order[i])
        table = sampler.table(episode, where=where)
        if sum(len(r["episode_index"]) for r in rows) != table.length:
            problems.append(f"{where}: another number of rows than the episode gives")
            continue
        for f in layout.features:
            if f.kind == "numbers":
                got = np.concatenate([r[f.key] for r in rows])
                if got.tobytes() != table.columns[f.key].tobytes():
                    problems.append(f"{where}: {f.key} differs from the episode")
                continue
            images = [x for r in rows for x in r[f.key]] if f.kind == "image" else None
            psnr, count = _pictures(store, opened, f, episode, table, opened.entries[i].videos.get(f.key), images)
            worst = min(worst, psnr)
            if count != table.length or psnr < (PSNR_DB if f.kind == "video" else float("inf")):
                problems.append(f"{where}: {f.key} has {count} pictures, the worst at {psnr:.1f} dB")
        frames += table.length
        if progress is not None:
            progress(i + 1, len(order))
    return Proof(tuple(problems), episodes=len(order), files=files, frames=frames, psnr_db=worst)


_RESERVED = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


def _pictures(
    store: Store,
    folder: LeRobotFolder,
    f: Feature,
    episode: Episode,
    table: Table,
    span: Span | None,
    images: list[bytes | None] | None,
) -> tuple[float, int]:
    """(peak signal to noise of the worst picture [dB], how many pictures there are)."""
    source = pictures(store, episode.frames[f.signals[0].name], table.pictures[f.key])
    shown: Iterator[NDArray[np.uint8]] = folder.pictures(span) if span else folder.images(images or [])
    worst, count = float("inf"), 0
    for picture in shown:
        wanted = next(source, None)
        count += 1
        if wanted is None or wanted.shape != picture.shape:
            return 0.0, count
        error = float(np.mean((picture.astype(np.float32) - wanted) ** 2))
        worst = min(worst, 10 * np.log10(255**2 / error) if error else float("inf"))
    return worst, count


def _manifest(folder: Path) -> tuple[dict[str, Any], dict[str, str], list[dict[str, Any]]]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        listed = {str(k): str(v) for k, v in manifest["files"].items()}
        members = [{"digest": str(m["digest"]), "length": int(m["length"])} for m in manifest["episodes"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise Damaged(f"not a sound manifest ({err})", where=str(path)) from err
    for name in listed:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise Damaged(f"names a file outside of the folder: {name[:120]!r}", where=str(path))
    return manifest, listed, members


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as err:
        raise InputError(f"cannot be read ({err.strerror})", where=str(path)) from err
