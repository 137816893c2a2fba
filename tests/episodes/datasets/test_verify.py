"""Differences between versions, and proofs of versions and folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import Damaged, Missing
from flyball.episodes import Dataset
from flyball.episodes.datasets.compare import difference, moments
from flyball.episodes.datasets.layout import TableOptions, plan
from flyball.episodes.datasets.lerobot import export
from flyball.episodes.datasets.testing import planted_episode
from flyball.episodes.datasets.verify import verify_folder, verify_version


def test_what_came_went_and_was_made_anew(catalogue, datasets):
    def add(seed, **facts):
        return catalogue.add(planted_episode(catalogue.store, seed, **facts), producer="t").digest

    kept, gone, old = add(0), add(1), add(2, log_digest="1" * 64)
    datasets.save("a", Dataset((kept, gone, old)))
    new, came = add(3, log_digest="1" * 64), add(4)
    found = difference(catalogue, datasets.load("a"), Dataset((kept, new, came)))
    assert (found.added, found.removed, found.changed) == ((came,), (gone,), ((old, new),))
    assert not found.empty and found.specs == {}
    assert found.statistics["joint.position"]["before"]["count"] == 90
    assert difference(catalogue, datasets.load("a"), datasets.load("a")).empty


def test_judgements_splits_and_specifications_that_differ(catalogue, datasets, fill):
    a, b = fill(2)
    datasets.build("x")
    catalogue.set_outcome(a, "failure", reason="seen")
    datasets.build("x")
    found = difference(catalogue, datasets.load("x@1"), datasets.load("x@2"))
    assert list(found.rejudged) == [a] and (found.added, found.removed, found.statistics) == ((), (), {})
    assert [j.outcome for j in found.rejudged[a]] == ["success", "failure"]
    halves = Dataset((a, b), splits={"train": (a,), "test": (b,)})
    moved = difference(catalogue, halves, replace(halves, splits={"train": (b,), "test": (a,)})).moved
    assert moved == {a: ("train", "test"), b: ("test", "train")}
    (c,) = fill(1, first=2, unit="deg", cameras=(("top", "jpeg"),))
    specs = difference(catalogue, Dataset((a,)), Dataset((c,))).specs
    assert specs["joint.position"][0]["unit"] == "rad" and specs["joint.position"][1]["unit"] == "deg"
    assert specs["camera camera.top"] == (None, {"encoding": "jpeg", "height": 32, "width": 32})


def test_moments_are_those_of_all_samples(catalogue, fill):
    digests = fill(3)
    found = moments(catalogue.store, Dataset(tuple(digests)))
    for name, f in (("joint.position", 2), ("gripper.force", 1), ("tactile.grid", 6)):
        x = np.concatenate([catalogue.load(d).signals[name].values.reshape(-1, f) for d in digests]).astype(float)
        assert found[name]["count"] == len(x)
        for key, value in (("mean", x.mean(0)), ("std", x.std(0)), ("min", x.min(0)), ("max", x.max(0))):
            assert np.allclose(found[name][key], value, rtol=1e-12)


# ---- proofs


def test_a_sound_version_has_no_problem(exported):
    proof = verify_version(exported.store, exported.version.digest)
    assert (proof.problems, proof.episodes, proof.cameras) == ((), 3, 6)


def flip(path):
    """Flip a bit near the end."""
    blob = bytearray(path.read_bytes())
    blob[-5] ^= 4
    path.write_bytes(blob)


@pytest.mark.parametrize("what", ["episode", "frames", "log"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_what_does_not_match_its_digest_is_found(catalogue, datasets, what, how):
    log = catalogue.store.put("log", b"raw", producer="t").digest
    e = planted_episode(catalogue.store, 0, cameras=(("a", "jpeg"),), log_digest=log)
    catalogue.store.register("frames", e.frames["camera.a"].blob, producer="t")
    digest = catalogue.add(e, producer="t", parents=(log,)).digest
    version = datasets.build("x")
    assert verify_version(catalogue.store, version.digest).problems == ()
    broken = {"episode": digest, "frames": e.frames["camera.a"].blob, "log": log}[what]
    path = catalogue.store.path(broken)
    path.write_bytes(b"RAW") if what == "log" else flip(path)
    if how == "gone":
        path.unlink()
    (problem, *_) = verify_version(catalogue.store, version.digest).problems
    assert problem.startswith(f"{what} {broken[:12]}")
    assert ("is gone" if how == "gone" else "does not match its digest") in problem


def test_what_was_never_registered_is_found(catalogue, datasets):
    e = planted_episode(catalogue.store, 0, cameras=(("a", "jpeg"),), log_digest="2" * 64)
    catalogue.add(e, producer="t")
    problems = verify_version(catalogue.store, datasets.build("x").digest).problems
    assert [p.split(" ")[0] for p in problems] == ["frames", "log"] and all("not registered" in p for p in problems)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("images", ["video", "png"])
def test_a_sound_folder_has_no_problem(exported, version, images):
    folder, report = exported.folder(version, images=images)
    proof = verify_folder(folder, exported.store)
    assert (proof.problems, proof.episodes, proof.frames) == ((), 3, report.frames)
    assert proof.psnr_db == np.inf if images == "png" else 25 < proof.psnr_db < 60
    alone = verify_folder(folder, None)
    assert alone.problems == () and alone.files == proof.files > 4


def test_files_that_were_changed_came_or_went_are_named(exported, tmp_path):
    folder = shutil.copytree(exported.folder()[0], tmp_path / "copy")
    flip(next(folder.rglob("data/*/*.parquet")))
    (folder / "meta/stats.json").unlink()
    (folder / "new.txt").write_text("hello")
    problems = verify_folder(folder, exported.store).problems
    assert problems == (
        "data/chunk-000/file-000.parquet: does not match its digest",
        "meta/stats.json: is gone",
        "new.txt: not in the manifest",
    )


def restamped(folder):
    """Make the manifest agree with the files, as a forger would."""
    import hashlib

    path = folder / "meta/flyball.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


def test_numbers_and_pictures_that_are_not_the_episodes_are_found_whatever_the_manifest_says(exported, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = shutil.copytree(exported.folder("v2.1")[0], tmp_path / "copy")
    path = folder / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    action = np.array(table["action"].to_pylist(), np.float32)
    action[7, 1] = np.nextafter(action[7, 1], np.float32(9))
    array = pa.FixedSizeListArray.from_arrays(pa.array(action.ravel()), 2)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", array), path)
    videos = [folder / f"videos/chunk-000/observation.images.front/episode_00000{i}.mp4" for i in (0, 2)]
    shutil.copy(videos[1], videos[0])
    restamped(folder)
    problems = verify_folder(folder, exported.store).problems
    assert len(problems) == 2
    assert problems[0].startswith("episode 0") and "observation.images.front has 3" in problems[0]
    assert problems[1].startswith("episode 1") and problems[1].endswith("action differs from the episode")


def test_a_folder_of_another_workspace_or_of_nobody(exported, tmp_path, catalogue):
    folder, _ = exported.folder()
    with pytest.raises(Missing, match=r"dataset .* is not in this workspace.*try: --workspace DIR"):
        verify_folder(folder, catalogue.store)
    with pytest.raises(Missing, match="no manifest: not exported by Flyball"):
        verify_folder(tmp_path, None)
    copy = shutil.copytree(folder, tmp_path / "copy")
    for text in ("", "[]", '{"files": {"../../etc/passwd": "0"}, "episodes": []}'):
        (copy / "meta/flyball.json").write_text(text)
        with pytest.raises(Damaged, match=r"not a sound manifest|names a file outside"):
            verify_folder(copy, None)


def test_options_survive_the_manifest(exported, tmp_path):
    options = TableOptions(fps=10, rule="nearest", state=("joint.position",), without=("camera.front",), crf=10)
    layout = plan(exported.store, exported.dataset, options)
    export(exported.store, exported.dataset, layout, tmp_path / "out")
    proof = verify_folder(tmp_path / "out", exported.store)
    assert proof.problems == () and proof.frames == 15 + 16 + 16
