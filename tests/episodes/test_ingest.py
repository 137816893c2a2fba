"""Ingest: every log becomes an episode once; what is damaged is put aside and said."""

import errno
import random
import shutil
import threading

import numpy as np
import pytest

from flyball.base import Damaged, Missing, Unsupported
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.formats.mcap_log import FORMAT
from flyball.episodes.ingest import ingest, rejudge
from flyball.episodes.testing import check_format


@pytest.fixture
def w(tmp_path):
    return Workspace(tmp_path / "w")


@pytest.fixture
def drop(w, tmp_path, record):
    """``drop(seed)`` delivers an attempt into the inbox, by rename, and returns its bytes."""

    def deliver(seed, **metadata):
        path = record(tmp_path / f"attempt-{seed}.mcap", n=5, seed=seed, **metadata)
        blob = path.read_bytes()
        path.rename(w.inbox / path.name)
        return blob

    return deliver


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_logs_of_the_inbox_become_episodes_and_stay_as_evidence(w, drop):
    blobs = [drop(i) for i in range(3)]
    report = ingest(w)
    assert len(report.added) == 3 and not (report.known or report.quarantined)
    assert names(w.inbox) == []
    catalogue = Catalogue(w.store)
    for blob, row in zip(blobs, catalogue.query(), strict=True):
        assert row.digest in report.added
        (log,) = w.store.lineage(row.digest)
        assert log.kind == "log" and log.digest == row.log_digest and w.store.get(log.digest) == blob
        assert catalogue.load(row.digest).log_digest == log.digest


def test_a_second_delivery_adds_nothing_and_the_inbox_still_empties(w, drop):
    drop(1)
    first = ingest(w)
    drop(1)
    again = ingest(w)
    assert (again.added, again.known) == ((), first.added)
    assert names(w.inbox) == [] and len(Catalogue(w.store).query()) == 1


def test_the_judge_decides_outcome_group_and_labels(w, drop):
    drop(1)
    drop(2)
    report = ingest(
        w, judge=lambda e: ("failure", "slipped", {"peak": float(np.max(e.signal("gripper.force").values))})
    )
    catalogue = Catalogue(w.store)
    rows = catalogue.query("grp = 'slipped' and labels.peak > -10")
    assert len(rows) == 2 and report.unjudged == ()
    rejudge(catalogue, lambda e: ("success", "", {}), f"seed = {rows[0].seed}", reason="task v2")
    assert sorted(r.outcome for r in catalogue.query()) == ["failure", "success"]


@pytest.mark.parametrize("fault", ["missing signal", "bug"])
def test_a_judge_that_fails_loses_no_log(w, drop, fault):
    drop(1)

    def judge(episode):
        return episode.signal("object.pose") if fault == "missing signal" else 1 // 0

    report = ingest(w, judge=judge)
    ((digest, why),) = report.unjudged
    assert ("object.pose" in why) or ("ZeroDivisionError" in why)
    assert Catalogue(w.store).row(digest).outcome == "unknown"
    assert names(w.inbox) == []


def test_damaged_files_are_quarantined_with_a_reason_and_the_rest_goes_on(w, drop):
    rng = random.Random(0)
    good = drop(0)
    flipped = bytearray(drop(1))
    flipped[len(flipped) // 2] ^= 16
    (w.inbox / "attempt-1.mcap").write_bytes(flipped)
    (w.inbox / "a-truncated.mcap").write_bytes(good[: len(good) // 2])
    (w.inbox / "garbled.mcap").write_bytes(rng.randbytes(5000))
    (w.inbox / "empty.mcap").write_bytes(b"")
    (w.inbox / "holiday.jpg").write_bytes(b"\xff\xd8\xff")
    drop(2)
    report = ingest(w)
    assert len(report.added) == 2
    bad = {"a-truncated.mcap", "attempt-1.mcap", "empty.mcap", "garbled.mcap", "holiday.jpg"}
    assert {p.rpartition("/")[2] for p, _ in report.quarantined} == bad
    reasons = dict((p.rpartition("/")[2], r) for p, r in report.quarantined)
    assert "truncated" in reasons["a-truncated.mcap"] and "at byte" in reasons["a-truncated.mcap"]
    assert ".mcap" in reasons["holiday.jpg"]
    assert all("\n" not in r for r in reasons.values())
    assert names(w.inbox) == []
    kept = names(w.quarantine)
    assert len(kept) == 10 and {n.partition("-")[2] for n in kept if not n.endswith(".txt")} == bad
    for n in kept:
        if not n.endswith(".txt"):
            assert (w.quarantine / f"{n}.reason.txt").read_text().strip() == reasons[n.partition("-")[2]]
    assert ingest(w) == type(report)()


def test_files_elsewhere_are_left_where_they_are(w, tmp_path, record):
    good = record(tmp_path / "good.mcap")
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(good.read_bytes()[:-20])
    (tmp_path / "notes.txt").write_text("not a log")
    report = ingest(w, [good, bad])
    assert len(report.added) == 1 and [p for p, _ in report.quarantined] == [str(bad)]
    assert good.exists() and bad.exists() and names(w.quarantine) == []
    assert len(ingest(w, [tmp_path]).known) == 1  # a folder is searched for logs; notes.txt is none
    with pytest.raises(Missing, match=r"nowhere\.mcap"):
        ingest(w, [good, tmp_path / "nowhere.mcap"])
    ((_, why),) = ingest(w, [tmp_path / "notes.txt"]).quarantined
    assert ".mcap" in why


def test_files_still_being_written_are_left_alone(w, drop):
    for name in ("x.mcap.part", ".hidden.mcap", "y.tmp"):
        (w.inbox / name).write_bytes(b"half")
    assert ingest(w) == type(ingest(w))()
    assert len(names(w.inbox)) == 3


def test_what_the_disk_does_while_a_log_is_read_is_not_the_logs_fault(w, drop, monkeypatch):
    drop(1)
    drop(2)
    read = type(FORMAT).read

    def broken(self, path, intake):
        if "attempt-1" in path.name:
            try:
                raise OSError(errno.EIO, "Input/output error")
            except OSError as err:
                raise Damaged("cannot be read (Input/output error)", where=str(path)) from err
        return read(self, path, intake)

    monkeypatch.setattr(type(FORMAT), "read", broken)
    report = ingest(w)
    assert len(report.added) == 1 and len(report.held) == 1 and not report.quarantined
    assert names(w.inbox) == ["attempt-1.mcap"] and not names(w.quarantine)
    monkeypatch.setattr(type(FORMAT), "read", read)
    assert len(ingest(w).added) == 1 and not names(w.inbox)


def test_a_reader_that_breaks_does_not_stop_the_others(w, drop, monkeypatch):
    drop(1)
    drop(2)
    read = type(FORMAT).read

    def broken(self, path, intake):
        if "attempt-1" in path.name:
            raise IndexError("a bug")
        return read(self, path, intake)

    monkeypatch.setattr(type(FORMAT), "read", broken)
    report = ingest(w)
    assert len(report.added) == 1
    assert "IndexError" in report.quarantined[0][1]


def test_several_may_ingest_the_same_files_at_once(w, tmp_path, record):
    paths = [record(tmp_path / f"{i}.mcap", n=3, seed=i) for i in range(6)]
    for p in paths:
        shutil.copy(p, w.inbox)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(ingest(w))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(reports) == 4 and not any(r.quarantined for r in reports)
    assert sum(len(r.added) for r in reports) == 6 == len(Catalogue(w.store).query())
    assert names(w.inbox) == []


def test_progress_is_told(w, drop):
    drop(1)
    (w.inbox / "bad.mcap").write_bytes(b"")
    seen = []
    ingest(w, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


def test_servo_recordings(w, real):
    folder = real("servo_xl330")
    report = ingest(w, [folder])
    assert len(report.added) == 16 and not report.quarantined
    assert len(ingest(w, [folder]).known) == 16
    catalogue = Catalogue(w.store)
    rows = catalogue.query("embodiment = 'servo_xl330'")
    assert {(r.labels["trajectory"], r.labels["kp"]) for r in rows} == {
        (t, kp)
        for t in ("lift_and_drop", "sin_sin", "sin_time_square", "up_and_down")
        for kp in (100, 200, 400, 800)
    }  # fmt: skip
    (row,) = catalogue.query("labels.trajectory = 'sin_sin' and labels.kp = 100")
    e = catalogue.load(row.digest)
    assert e.labels["pendulum_mass_kg"] == 0.49 and e.labels["joint_states.name"] == ["servo"]
    q = e.signal("joint_states.position")
    assert q.values.shape == (1124, 1) and e.signal("joint_commands.position").values.shape == (1124, 1)
    encoder = q.values / 0.0015339807878856412  # README: the encoder's step
    np.testing.assert_allclose(encoder, np.round(encoder), atol=1e-6)
    assert set(e.signals) == {
        "joint_states.position", "joint_states.velocity", "joint_commands.position", "servo.load",
        "servo.supply_voltage", "servo.temperature", "servo.torque_enable",
    }  # fmt: skip
    assert e.signal("servo.torque_enable").values.dtype == bool
    assert 5.9 < row.duration_s < 6.1


def test_cube_recordings(w, real):
    folder = real("cube_tosses")
    some = [folder / f"toss_{i:03}.mcap" for i in (0, 12, 569)]
    report = ingest(w, some)
    assert len(report.added) == 3
    catalogue = Catalogue(w.store)
    assert [r.labels["toss"] for r in catalogue.query("embodiment = 'cube_tosses'")] == [0, 12, 569]
    e = catalogue.load(catalogue.query("labels.toss = 12")[0].digest)
    pose, twist = e.signal("cube.pose"), e.signal("cube.twist")
    assert pose.spec.frame == "table" and pose.spec.rate_hz == 148.0
    assert pose.values.shape[1:] == (7,) and twist.values.shape[1:] == (6,)
    np.testing.assert_allclose(np.linalg.norm(pose.values[:, 3:], axis=1), 1, atol=1e-6)
    # The linear velocity comes first: it is (nearly, the source smoothed it) the difference of the positions.
    steps = np.diff(pose.values[:, :3], axis=0) * 148
    assert np.median(np.abs(twist.values[1:, :3] - steps)) < 0.01 < np.median(np.abs(twist.values[1:, 3:] - steps))
    # At rest on the board, a face down: half a width high, and some axis of the body vertical if the order is wxyz.
    w, x, y, z = pose.values[-1, 3:]
    up = np.array([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])
    assert abs(pose.values[-1, 2] - 0.0524) < 0.003 and np.abs(up).max() > 0.999


def test_real_logs_keep_the_contract_of_a_format(real):
    for name in ("servo_xl330/sin_sin_kp100.mcap", "cube_tosses/toss_012.mcap"):
        path = real(name.split("/")[0]) / name.split("/")[1]
        check_format(FORMAT, path, checksummed=False)


def test_a_format_that_does_not_exist(tmp_path):
    from flyball.episodes.formats import format_for

    with pytest.raises(Unsupported, match=r"no format reads \.docx.*\.bag.*\.mcap"):
        format_for(tmp_path / "x.docx")
