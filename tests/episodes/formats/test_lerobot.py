"""LeRobot folders as logs: what was exported comes back; a stranger's is believed no further than it holds."""

from __future__ import annotations

import json
import random
import shutil
from itertools import permutations

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flyball.base import InputError
from flyball.base.store import Store
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.codec import encode
from flyball.episodes.datasets.layout import TableOptions, plan
from flyball.episodes.datasets.lerobot import export
from flyball.episodes.datasets.table import Sampler
from flyball.episodes.datasets.testing import START_NS, picture, planted_episode
from flyball.episodes.datasets.versions import Datasets
from flyball.episodes.formats import folder_format, formats
from flyball.episodes.formats.lerobot import FORMAT
from flyball.episodes.frames import read_frames
from flyball.episodes.intake import Intake

EPISODES = 3


class Planted:
    """Episodes and their exports."""

    def __init__(self, root):
        self.root = root
        (root / "space").mkdir()
        catalogue = Catalogue(Store(root / "space"))
        self.store = catalogue.store
        cameras = (("front", "jpeg"), ("wrist", "h264"))
        self.episodes = [
            planted_episode(self.store, i, n=10 + i, cameras=cameras, instruction=f"do {i % 2}", labels={"kp": i})
            for i in range(EPISODES)
        ]
        for e in self.episodes:
            catalogue.add(e, producer="test")
        datasets = Datasets(catalogue)
        self.dataset = datasets.load(datasets.build("planted"))
        for version in ("v3.0", "v2.1"):
            for images in ("video", "png"):
                self.write(root / f"{version}-{images}", version, images=images)
        self.write(root / "av1", "v3.0", codec="av1")

    def write(self, folder, version, **options):
        export(
            self.store, self.dataset, plan(self.store, self.dataset, TableOptions(**options)), folder, version=version
        )


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Planted episodes and their exports, not to be changed."""
    return Planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def copy(planted, tmp_path):
    """``copy(name)``: an export to be damaged."""

    def make(name="v3.0-video"):
        return shutil.copytree(planted.root / name, tmp_path / f"copy-{name}")

    return make


@pytest.fixture
def read(tmp_path):
    """``read(folder, salvage=False)``: (episodes, notes, intake)."""

    def run(folder, **options):
        intake = Intake(tmp_path / "intake", **options)
        intake.folder.mkdir(exist_ok=True)
        return list(FORMAT.read(folder, intake)), [f"{n.kind}: {n.text}" for n in intake.notes], intake

    return run


@pytest.mark.parametrize("name", ["v3.0-video", "v2.1-video", "v3.0-png", "v2.1-png", "av1"])
def test_what_was_exported_comes_back(planted, read, name):
    found, notes, intake = read(planted.root / name)
    assert notes == [] and len(found) == EPISODES
    layout = plan(planted.store, planted.dataset, TableOptions(images="none"))
    for i, (e, was) in enumerate(zip(found, planted.episodes, strict=True)):
        table = Sampler(layout).table(was, where="e")
        state = np.column_stack([e.signals["gripper.force"].values, e.signals["joint.position"].values])
        assert state.dtype == np.float32 and state.tobytes() == table.columns["observation.state"].tobytes()
        assert e.signals["command.joint"].values.tobytes() == was.signals["command.joint"].values.tobytes()
        assert (e.signals["tactile.grid"].values == was.signals["tactile.grid"].values).all()
        assert (e.signals["gripper.closed"].values == was.signals["gripper.closed"].values).all()
        for signal in e.signals.values():
            assert np.array_equal(signal.t_ns, was.signals["joint.position"].t_ns)
        assert (e.signals["joint.position"].spec.unit, e.signals["gripper.force"].spec.unit) == ("rad", "N")
        facts = ("embodiment", "robot", "task", "instruction", "origin", "outcome", "seed")
        assert [getattr(e, k) for k in facts] == [getattr(was, k) for k in facts]
        assert e.labels["kp"] == i
        for k, camera in enumerate(("camera.front", "camera.wrist")):
            f = e.frames[camera]
            assert np.array_equal(f.t_ns, was.frames[camera].t_ns) and (f.height, f.width) == (32, 32)
            pixels = read_frames(f, intake.blobs[f.blob]).astype(float)
            wanted = np.stack([picture(j, i + k) for j in range(10 + i)])
            assert 10 * np.log10(255**2 / ((pixels - wanted) ** 2).mean()) > 28


def test_pictures_come_as_they_lie_in_the_file(planted, read):
    _, _, intake = read(planted.root / "v3.0-video")
    sent = []
    path = planted.root / "v3.0-video/videos/observation.images.front/chunk-000/file-000.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        change = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            sent += [bytes(p) for p in change.filter(packet)]
    joined = (b"".join(p.read_bytes() for p in blobs) for blobs in permutations(intake.blobs.values(), EPISODES))
    assert b"".join(sent) in joined


def test_reading_is_repeatable_and_independent_of_packing(planted, read):
    first, _, _ = read(planted.root / "v3.0-video")
    again, _, _ = read(planted.root / "v3.0-video")
    other, _, _ = read(planted.root / "v2.1-video")
    assert [encode(e) for e in first] == [encode(e) for e in again] == [encode(e) for e in other]


def test_a_folder_is_claimed_by_its_name_alone(planted, tmp_path):
    assert folder_format(planted.root / "v3.0-video") is formats.load("lerobot")
    assert folder_format(tmp_path) is None


def test_a_stranger_s_features_keep_their_names(copy, read):
    folder = copy("v3.0-png")
    (folder / "meta/flyball.json").unlink()
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    ours = (
        "episode_digest",
        "outcome",
        "start_ns",
        "labels",
        "seed",
        "origin",
        "robot",
        "task_name",
        "checks",
        "log_digest",
    )
    table = table.drop(list(ours)).append_column("success", pa.array([True, False, True]))
    pq.write_table(table, path)
    found, notes, _ = read(folder)
    assert notes == []
    e = found[1]
    assert sorted(e.signals) == [
        "action",
        "observation.gripper.closed",
        "observation.state",
        "observation.tactile.grid",
    ]
    assert (e.outcome, e.origin, e.instruction, e.seed) == ("failure", "teleoperation", "do 1", -1)
    assert e.labels["episode_index"] == 1 and e.labels["names"]["action"] == ["command.joint.0", "command.joint.1"]
    assert e.signals["observation.gripper.closed"].spec.shape == ()
    assert e.signals["action"].t_ns.tolist() == [i * 50_000_000 for i in range(11)]


def test_tasks_that_change_become_events(copy, read):
    folder = copy("v2.1-png")
    path = folder / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    column = pa.array([1] * 5 + [0] * 6, pa.int64())
    table = table.set_column(table.schema.get_field_index("task_index"), "task_index", column)
    pq.write_table(table, path)
    e = read(folder)[0][1]
    assert e.instruction == "do 1" and [(x.name, x.text) for x in e.events] == [("instruction", "do 0")]
    assert e.events[0].t_ns == START_NS + 5 * 50_000_000


def test_times_that_are_not_i_over_fps_are_kept_and_told(copy, read):
    folder = copy("v2.1-png")
    path = folder / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    stamps = np.arange(10, dtype=np.float32) / 20
    stamps[5:] += 0.25
    table = table.set_column(table.schema.get_field_index("timestamp"), "timestamp", pa.array(stamps))
    pq.write_table(table, path)
    found, notes, _ = read(folder)
    assert notes == [f"clock: {folder}: time stamps are not i/fps, and were kept"]
    assert np.diff(found[0].signals["command.joint"].t_ns)[4] == pytest.approx(3 * 10**8, abs=100)


def test_a_video_with_more_pictures_than_rows_is_told(copy, read):
    folder = copy("v2.1-video")
    one, other = (folder / f"videos/chunk-000/observation.images.front/episode_00000{i}.mp4" for i in (0, 1))
    shutil.copy(other, one)
    found, notes, _ = read(folder)
    assert notes == [f"clock: {folder}: episode 0: 11 pictures of observation.images.front for 10 rows"]
    assert len(found[0].frames["camera.front"].t_ns) == 11


def test_pictures_stored_out_of_order_are_encoded_anew_and_told(copy, read):
    folder = copy("v2.1-video")
    path = folder / "videos/chunk-000/observation.images.front/episode_000000.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=20, options={"bf": "2", "g": "30", "crf": "10"})
        stream.width = stream.height = 32
        for i in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i, 0), "rgb24")))
        out.mux(stream.encode(None))
    found, notes, intake = read(folder)
    assert notes == [f"skipped: {path}: stored out of order (B-frames); encoded anew as h264"]
    f = found[0].frames["camera.front"]
    pixels = read_frames(f, intake.blobs[f.blob]).astype(float)
    assert 10 * np.log10(255**2 / ((pixels - np.stack([picture(j, 0) for j in range(10)])) ** 2).mean()) > 28
    assert np.array_equal(f.t_ns, found[0].signals["command.joint"].t_ns)


def test_rows_that_are_missing_are_an_error_or_a_note(copy, read):
    folder = copy("v3.0-png")
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    length = table.schema.get_field_index("length")
    pq.write_table(table.set_column(length, "length", pa.array([10, 99, 12], pa.int64())), path)
    with pytest.raises(InputError, match="episode 1: 11 rows where 99 were announced"):
        read(folder)
    found, notes, _ = read(folder, salvage=True)
    assert len(found) == 3 and notes == [f"salvaged: {folder}: episode 1: 11 rows where 99 were announced"]


# ---- damage


def info(**changes):
    """Change ``meta/info.json``; a value that is a function changes what is there."""

    def change(folder):
        path = folder / "meta/info.json"
        document = json.loads(path.read_text())
        for key, value in changes.items():
            document[key] = value(document[key]) if callable(value) else value
            if document[key] is None:
                del document[key]
        path.write_text(json.dumps(document))

    return change


def feature(name="action", like="action", **changes):
    """Add or change a feature."""
    return info(features=lambda d: {**d, name: {**d[like], **changes}})


def text(name, content):
    """Write a file anew; the name may be a pattern."""
    return lambda folder: next(folder.rglob(name)).write_bytes(content)


def gone(name):
    """Remove a file or folder."""
    return lambda folder: shutil.rmtree(p) if (p := next(folder.rglob(name))).is_dir() else p.unlink()


def linked(folder):
    """Make a video a link to a file outside."""
    path = next(folder.rglob("*.mp4"))
    path.symlink_to(shutil.move(path, folder.parent / "outside.mp4"))


def twice(folder):
    """Give one episode's rows to another."""
    shutil.copy(folder / "data/chunk-000/episode_000000.parquet", folder / "data/chunk-000/episode_000001.parquet")


FRONT = "observation.images.front"
DAMAGE = {
    "no version": (info(codebase_version=None), "info.json: not as LeRobot writes it .no 'codebase"),
    "another version": (info(codebase_version="v1.6"), "LeRobotDataset v1.6; allowed: v2.0"),
    "no fps": (info(fps=0), "info.json: .*fps 0"),
    "fps that is text": (info(fps="fast"), "info.json: .*could not convert"),
    "fps that is not finite": (info(fps=float("nan")), "info.json: .*fps nan"),
    "a list": (text("info.json", b"[]"), "info.json: not as LeRobot writes it"),
    "not JSON": (text("info.json", b"{"), "info.json: not JSON"),
    "not text": (text("info.json", b"\xff\xfe\x00"), "info.json: not JSON"),
    "deep JSON": (text("info.json", b"[" * 100_000), "info.json: not JSON"),
    "empty": (text("info.json", b""), "info.json: not JSON"),
    "no features": (info(features={}), "no feature 'episode_index'"),
    "a feature that leads out": (feature("../../x"), r"feature named '\.\./\.\./x'"),
    "an absurd shape": (feature(shape=[10**12]), "feature 'action' of shape"),
    "a negative shape": (feature(shape=[-1]), "feature 'action' of shape"),
    "another shape": (feature(shape=[3]), "elements in .* rows of shape"),
    "objects": (feature(dtype="object"), "'action' of type 'object'"),
    "a column that is not there": (feature("reward"), "parquet: no column 'reward'"),
    "a camera without a video": (feature("observation.images.x", FRONT), "writes it .no 'videos/observation.images.x/"),
    "videos elsewhere": (info(video_path="../../../{video_key}"), "leads outside of the folder"),
    "absolute videos": (info(video_path="/etc/passwd"), "leads outside of the folder"),
    "a template that looks inside": (info(video_path="{video_key.__class__}"), "field 'video_key.__class__'"),
    "a template that fills the memory": (info(video_path="{chunk_index:0999999999d}"), "field 'chunk_index'"),
    "no data": (gone("data"), "no data"),
    "no episodes": (gone("episodes"), "no episodes"),
    "no tasks": (gone("tasks.parquet"), "tasks.parquet: no such file"),
    "no video": (gone("*.mp4"), "mp4: no such file"),
    "a video that is none": (text("*.mp4", b"x" * 999), "mp4: not a sound video"),
    "an empty video": (text("*.mp4", b""), "mp4: not a sound video"),
    "data that are none": (text("data/*/*.parquet", b"PAR1xPAR1"), "not sound Parquet"),
    "empty data": (text("data/*/*.parquet", b""), "not sound Parquet"),
    "a link to elsewhere": (linked, "leads outside of the folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_names_the_place(copy, read, kind):
    damage, line = DAMAGE[kind]
    folder = copy()
    damage(folder)
    with pytest.raises(InputError, match=line) as caught:
        read(folder)
    assert "\n" not in caught.value.line() and "copy-v3.0" in caught.value.line()


V2_DAMAGE = {
    "a line that is cut": (text("episodes.jsonl", b'{"episode_index": 0,'), "episodes.jsonl: line 1"),
    "a row without length": (text("episodes.jsonl", b'{"episode_index": 0}'), "line 1 is not a row with"),
    "a length that is text": (text("episodes.jsonl", b'{"episode_index": 0, "length": "x"}'), "as LeRobot writes it"),
    "a negative episode": (text("episodes.jsonl", b'{"episode_index": -1, "length": 5}'), "episode -1 of 5 rows"),
    "no episode": (text("episodes.jsonl", b""), "holds no episode"),
    "a task that is a list": (text("tasks.jsonl", b"[1]"), "tasks.jsonl: line 1"),
    "a task without text": (text("tasks.jsonl", b'{"task_index": 7, "task": "x"}'), "task 0 has no text"),
    "an episode's file missing": (gone("episode_000001.parquet"), "000001.parquet: no such file"),
    "an episode twice": (twice, "rows of episode 0|rows where 10 were announced"),
}


@pytest.mark.parametrize("kind", V2_DAMAGE)
def test_damage_of_v21(copy, read, kind):
    damage, line = V2_DAMAGE[kind]
    folder = copy("v2.1-png")
    damage(folder)
    with pytest.raises(InputError, match=line) as caught:
        read(folder)
    assert "\n" not in caught.value.line()


def test_flipped_bits_in_the_data_do_not_pass_unnoticed(copy, read, planted):
    """Pages have checksums; pictures have none, their digests are in the manifest."""
    folder = copy()
    sound = [encode(e) for e in read(folder)[0]]
    path = next((folder / "data").rglob("*.parquet"))
    blob, rng = path.read_bytes(), random.Random(0)
    noticed = 0
    for _ in range(40):
        at, bit = rng.randrange(4, len(blob) - 2000), 1 << rng.randrange(8)
        path.write_bytes(blob[:at] + bytes([blob[at] ^ bit]) + blob[at + 1 :])
        try:
            found = [encode(e) for e in read(folder)[0]]
        except InputError:
            noticed += 1
            continue
        assert found == sound, f"bit {bit} of byte {at}: other data, and nobody noticed"
    assert noticed > 20


def test_any_truncation_is_refused(copy, read):
    folder = copy()
    rng = random.Random(1)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".parquet", ".mp4")):
        blob = path.read_bytes()
        for _ in range(3):
            path.write_bytes(blob[: rng.randrange(len(blob))])
            try:
                _, notes, _ = read(folder)
                assert path.suffix == ".mp4" and notes, f"{path.name} was cut, and nobody noticed"
            except InputError:
                pass
        path.write_bytes(blob)


def test_a_manifest_that_lies_changes_nothing_but_names(copy, read):
    for lie in ({}, {"features": []}, {"features": {"action": [{"name": "x"}]}}, {"features": {"action": "x"}}):
        folder = copy("v2.1-png")
        (folder / "meta/flyball.json").write_text(json.dumps(lie))
        found, _, _ = read(folder)
        assert found[0].signals["action"].values.shape == (10, 2)
        shutil.rmtree(folder)
