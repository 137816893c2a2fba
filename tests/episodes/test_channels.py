"""Channel maps: what is inferred and why, what a person changes stays, what does not fit is said."""

import tomllib
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import SignalSpec, Timed
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.channels import (
    Channel,
    ChannelMap,
    ChannelMaps,
    MapConflict,
    file_name,
    mapped,
    profile,
    read_map,
    resolve,
)
from flyball.episodes.codec import encode
from flyball.episodes.episode import Episode
from flyball.episodes.ingest import ingest
from flyball.episodes.intake import Intake
from flyball.robots import Embodiment, Joint

from .foreign import arm_log

T = np.arange(4, dtype=np.int64) * 10**7
BODY = Embodiment(
    name="pair",
    joints=(Joint("a", "revolute", -2, 2, 1, 1), Joint("b", "revolute", -2, 2, 1, 1)),
    observations=(
        SignalSpec("joint.position", (2,), unit="rad"),
        SignalSpec("joint.velocity", (2,), unit="rad/s"),
        SignalSpec("gripper.width", (1,), unit="m"),
    ),
    actions=(SignalSpec("command.joint", (2,), unit="rad", low=(-2.0, -2.0), high=(2.0, 2.0)),),
    model_digest="0" * 64,
    safe_action=(0.0, 0.0),
)
BODIES = {"pair": BODY}


def episode(labels=None, embodiment="pair", **signals):
    """Signals by name ("." as "__") -> (unit, values)."""
    timed = {}
    for key, (unit, values) in signals.items():
        name, values = key.replace("__", "."), np.asarray(values, float)
        timed[name] = Timed(SignalSpec(name, values.shape[1:], "float64", unit), T[: len(values)], values)
    return Episode(embodiment, signals=timed, labels=labels or {})


def chosen(how):
    return {c.name: c.source for c in how.used}


TWO = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])


@pytest.fixture
def intake(tmp_path):
    return Intake(tmp_path)


def test_names_sizes_and_units_tell_what_is_what(intake):
    e = episode(
        joint_states__position=("rad", TWO), joint_states__velocity=("rad/s", TWO),
        joint_commands__position=("rad", TWO),
        gripper_opening=("mm", TWO[:, :1]), battery=("V", TWO[:, 0]),
    )  # fmt: skip
    how = resolve(profile(e), {}, BODIES)
    assert chosen(how) == {
        "joint.position": "joint_states.position",
        "joint.velocity": "joint_states.velocity",
        "command.joint": "joint_commands.position",
        "gripper.width": "gripper_opening",
    }
    assert dict(how.unmapped) == {"battery": "nothing of the body fits"} and how.missing == ()
    out = mapped(e, how, BODIES, intake)
    assert set(out.signals) == {*chosen(how), "battery"}
    np.testing.assert_allclose(out.signal("gripper.width").values, TWO[:, :1] * 1e-3)
    assert out.signal("gripper.width").spec.unit == "m" and out.signal("command.joint").spec.high == (2.0, 2.0)
    assert out.signal("joint.position").values is not None
    np.testing.assert_array_equal(out.signal("battery").values, TWO[:, 0])


def test_columns_follow_the_names_of_the_joints(intake):
    e = episode({"js.name": ["b", "a"]}, js__position=("rad", TWO))
    how = resolve(profile(e), {}, BODIES)
    (entry,) = how.used
    assert entry.columns == ("a", "b")
    np.testing.assert_array_equal(mapped(e, how, BODIES, intake).signal("joint.position").values, TWO[:, ::-1])


def test_one_column_among_the_joints_may_be_another_signal(intake):
    three = np.column_stack([TWO, TWO[:, 0] / 10])
    e = episode({"js.name": ["a", "b", "gripper"]}, js__position=("", three))
    out = mapped(e, resolve(profile(e), {}, BODIES), BODIES, intake)
    np.testing.assert_array_equal(out.signal("joint.position").values, TWO)
    np.testing.assert_array_equal(out.signal("gripper.width").values, three[:, 2:])


def test_a_body_is_known_by_its_joints_when_the_log_does_not_name_it():
    e = episode({"js.name": ["b", "a"]}, embodiment="Downloads", js__position=("rad", TWO))
    assert resolve(profile(e), {}, BODIES).embodiment == "pair"
    assert resolve(profile(replace(e, labels={"js.name": ["x", "y"]})), {}, BODIES).embodiment == "Downloads"
    # ... but what a person wrote into the file comes first
    maps = {"Downloads": ChannelMap("Downloads", "other")}
    assert resolve(profile(e), maps, BODIES).embodiment == "other"


@pytest.mark.parametrize(
    "signals, reason",
    [
        ({"left__joint_position": ("rad", TWO), "right__joint_position": ("rad", TWO)}, "fit equally well"),
        ({"joint_states__position": ("rad", TWO[:, :1])}, "1 columns, 2 wanted"),
        ({"joint_states__position": ("N", TWO)}, "unit N, rad wanted"),
        ({"joint_states__position": ("", TWO * 100)}, "look like degrees"),
    ],
)
def test_what_is_in_doubt_is_not_mapped_but_listed(signals, reason, intake):
    e = episode(**signals)
    how = resolve(profile(e), {}, BODIES)
    assert "joint.position" not in chosen(how) and "joint.position" in how.missing
    assert all(reason in why for _, why in how.unmapped) and len(how.unmapped) == len(signals)
    assert any("kept under the log's name" in r for r in how.remarks)
    assert set(mapped(e, how, BODIES, intake).signals) == set(e.signals)


def test_degrees_that_say_so_become_radians(intake):
    e = episode(joint_states__position=("deg", np.degrees(TWO)))
    np.testing.assert_allclose(
        mapped(e, resolve(profile(e), {}, BODIES), BODIES, intake).signal("joint.position").values, TWO
    )


def by_hand(*entries, **more):
    return {"pair": ChannelMap("pair", "pair", signals=entries, **more)}


def test_an_entry_converts_scales_and_shifts(intake):
    e = episode(ticks=("", TWO), joint__velocity=("rad/s", TWO))
    maps = by_hand(Channel("joint.position", "ticks", unit="deg", scale=2.0, offset=1.0, clock_s=0.5, columns=(1, 0)))
    out = mapped(e, resolve(profile(e), maps, BODIES), BODIES, intake).signal("joint.position")
    np.testing.assert_allclose(out.values, np.radians(2 * TWO[:, ::-1] + 1))
    np.testing.assert_array_equal(out.t_ns, T + 500_000_000)


def test_large_arrays_are_converted_in_files(tmp_path):
    n = 200_000
    values = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", "float64", (n, 2))
    values[:] = np.arange(2 * n).reshape(n, 2)
    e = Episode("pair", signals={"p": Timed(SignalSpec("p", (2,), unit="deg"), np.arange(n), values)})
    (tmp_path / "room").mkdir()
    intake = Intake(tmp_path / "room", memory=1 << 20)
    how = resolve(profile(e), by_hand(Channel("joint.position", "p")), BODIES)
    out = mapped(e, how, BODIES, intake).signal("joint.position").values
    assert isinstance(out, np.memmap)
    np.testing.assert_allclose(out[[0, n - 1]], np.radians(values[[0, n - 1]]))


def test_a_unit_in_the_file_beats_the_logs_and_that_is_said(intake):
    e = episode(p=("rad", TWO))
    how = resolve(profile(e), by_hand(Channel("joint.position", "p", unit="deg")), BODIES)
    assert any("taken as deg" in r and "says rad" in r for r in how.remarks)
    np.testing.assert_allclose(mapped(e, how, BODIES, intake).signal("joint.position").values, np.radians(TWO))


def test_the_first_entry_that_a_log_has_is_taken_and_empty_names_leave_out(intake):
    maps = by_hand(
        Channel("joint.position", "gone"), Channel("joint.position", "p"), Channel("joint.position", "q"),
        Channel("", "noise"),
    )  # fmt: skip
    e = episode(p=("rad", TWO), q=("rad", TWO), noise=("", TWO))
    how = resolve(profile(e), maps, BODIES)
    assert any("q keeps its name" in r for r in how.remarks)
    assert set(mapped(e, how, BODIES, intake).signals) == {"joint.position", "q"}


@pytest.mark.parametrize(
    "entry, words",
    [
        (Channel("joint.position", "p", columns=("a",)), "no column 'a'"),
        (Channel("joint.position", "p", columns=(0, 7)), "no column 7"),
        (Channel("joint.position", "p", columns=(0,)), "1 columns, joint.position has 2"),
        (Channel("joint.position", "p", unit="V"), "p is in V, joint.position in rad"),
        (Channel("noise", "p"), "another signal of that name"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused_naming_the_file(entry, words):
    e = episode(p=("rad", TWO), noise=("", TWO))
    with pytest.raises(MapConflict, match=words) as err:
        resolve(profile(e), by_hand(entry), BODIES)
    assert "channels/pair.toml" in err.value.line() and "allowed" in err.value.line()


# ---- files


@pytest.mark.parametrize(
    "name", ["arm", "", "../../etc", ".hidden", 'a"b\n[x]', "für-immer", "x" * 400, "a/b\\c", "\udce4"]
)
def test_any_name_makes_a_sound_file(tmp_path, name):
    maps = ChannelMaps(tmp_path / "channels")
    maps.learn(resolve(profile(episode(embodiment=name, odd=("", TWO))), {}, {}))
    (path,) = maps.save()
    assert path.parent == tmp_path / "channels" and len(path.name) < 150
    found = read_map(path)
    assert [c.source for c in found.signals] == ["odd"]
    if name.isprintable():
        assert found.logs == name and ChannelMaps(tmp_path / "channels").maps[name] == found


def test_a_file_says_what_it_was_told(tmp_path):
    e = episode({"js.name": ["b", "a"]}, js__position=("rad", TWO), we_ird__na_me=("", TWO))
    maps = ChannelMaps(tmp_path)
    how = resolve(profile(e), maps.maps, BODIES)
    maps.learn(how)
    (path,) = maps.save()
    again = ChannelMaps(tmp_path)
    assert again.maps == maps.maps and not again.broken
    settled = resolve(profile(e), again.maps, BODIES)
    assert settled.effect == how.effect and settled.inferred == () and settled.unmapped == ()
    assert "columns have the joints' names" in path.read_text()  # the reason, for people


def test_only_what_is_new_is_appended_and_edits_stay(tmp_path):
    maps = ChannelMaps(tmp_path)
    maps.learn(resolve(profile(episode(embodiment="x", one=("", TWO))), {}, {}))
    (path,) = maps.save()
    edited = path.read_text().replace('name = "one"', 'name = "eins"  # mine') + "\n# a remark\n"
    path.write_text(edited)
    maps = ChannelMaps(tmp_path)
    assert maps.save() == []
    maps.learn(resolve(profile(episode(embodiment="x", one=("", TWO), two=("", TWO))), maps.maps, {}))
    maps.save()
    assert path.read_text().startswith(edited)
    assert [(c.name, c.source) for c in read_map(path).signals] == [("eins", "one"), ("two", "two")]


@pytest.mark.parametrize(
    "text, words",
    [
        ("logs = ", "not valid TOML"),
        ("", "'logs' is missing"),
        ('logs = "x"\nlayout = 9', "newer Flyball"),
        ('logs = "x"\nsignals = []', "did you mean 'signal'"),
        ('logs = "x"\nsignal = 3', "not a list of tables"),
        ('logs = "x"\n[[signal]]\nname = "a"', "'source' is missing"),
        ('logs = "x"\n[[signal]]\nname = "a"\nfrom = 3', "expected str"),
        ('logs = "x"\n[[signal]]\nname = "a"\nfrom = "b"\nscal = 2', "did you mean 'scale'"),
        ('logs = "x"\n[[signal]]\nname = "a"\nfrom = "b"\nscale = nan', "not a finite number"),
        ('logs = "x"\n[episodes]\nrule = "never"', "unknown rule 'never'"),
        ('logs = "x"\n[episodes]\ngap_s = -1', "gap_s = -1"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, words):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(MapConflict, match=words) as err:
        read_map(path)
    assert "\n" not in err.value.line() and "x.toml" in err.value.line()
    assert ChannelMaps(tmp_path).broken == {"x.toml": err.value.line()}


# ---- in ingest


@pytest.fixture
def w(tmp_path):
    return Workspace(tmp_path / "w")


def test_logs_of_a_known_body_come_out_as_its_signals(w, tmp_path):
    q = arm_log(tmp_path / "lab" / "run_1.mcap")
    report = ingest(w, [tmp_path / "lab"])
    (row,) = Catalogue(w.store).query()
    assert row.embodiment == "flyarm-5" and report.maps == (str(w.path / "channels" / "flyarm-5.toml"),)
    e = Catalogue(w.store).load(row.digest)
    assert set(e.signals) == {"joint.position", "joint.velocity", "command.joint", "motor.temperature"}
    np.testing.assert_allclose(e.signal("joint.position").values, q[:, [1, 2, 3, 4, 0]])
    assert e.signal("joint.position").spec.unit == "rad"
    notes = [n.text for n in report.logs[0].notes]
    assert any("motor.temperature" in t for t in notes) and any("gripper.width" in t for t in notes)
    (log,) = w.store.find("log")
    assert any("motor.temperature" in t for t in log.labels["notes"]), "what was not understood is not forgotten"


def test_what_a_person_changes_holds_for_further_logs_and_for_known_ones_read_again(w, tmp_path):
    arm_log(tmp_path / "run_1.mcap", embodiment="flyarm-5")
    first = ingest(w, [tmp_path / "run_1.mcap"])
    path = w.path / "channels" / "flyarm-5.toml"
    table = tomllib.loads(path.read_text())
    assert {s["name"]: s["from"] for s in table["signal"]}["command.joint"] == "joint_commands.position"
    assert [u["from"] for u in table["unmapped"]] == ["motor.temperature"]
    path.write_text(
        path.read_text()
        + '\n[[signal]]\nname = "temperature"\nfrom = "motor.temperature"\noffset = 273.15\nunit = "K"\n'
    )
    arm_log(tmp_path / "run_2.mcap", seed=1, embodiment="flyarm-5")
    second = ingest(w, [tmp_path / "run_1.mcap", tmp_path / "run_2.mcap"])
    assert (second.known, len(second.added)) == (first.added, 1) and second.maps == ()
    new = Catalogue(w.store).load(second.added[0])
    np.testing.assert_allclose(new.signal("temperature").values[0], 313.15)

    again = ingest(w, again=True)
    assert (len(again.added), again.superseded, again.known) == (1, first.added, second.added)
    catalogue = Catalogue(w.store)
    assert {r.digest for r in catalogue.query("verdict != 'rejected'")} == {*second.added, *again.added}
    assert "temperature" in catalogue.load(again.added[0]).signals
    assert catalogue.row(first.added[0]).verdict == "rejected"  # reversible, nothing is deleted
    # the change taken back, the first episode counts again
    path.write_text(
        path.read_text()
        .replace('name = "temperature"', 'name = "motor.temperature"')
        .replace("273.15", "0.0")
        .replace('unit = "K"\n', "")
    )
    third = ingest(w, again=True)
    assert first.added[0] in third.known and catalogue.row(first.added[0]).verdict == ""
    assert ingest(w, again=True).added == ()


def test_our_own_recordings_are_never_renamed(w, tmp_path, record):
    record(tmp_path / "own.mcap", n=5)
    report = ingest(w, [tmp_path / "own.mcap"])
    assert report.maps == () and not (w.path / "channels").exists() and report.logs[0].notes == ()
    e = Catalogue(w.store).load(report.added[0])
    assert set(e.signals) == {"joint.position", "gripper.force", "joint.target"} and report.logs[0].rule == "record"


def test_a_broken_map_holds_logs_back_and_loses_none(w, tmp_path):
    arm_log(w.inbox / "a.mcap", embodiment="flyarm-5")
    arm_log(w.inbox / "b.mcap", embodiment="other", names=("x", "y"))
    (w.path / "channels").mkdir()
    (w.path / "channels" / "flyarm-5.toml").write_text("logs = [")
    report = ingest(w)
    ((path, why),) = report.held
    assert path.endswith("a.mcap") and "flyarm-5.toml" in why and "not valid TOML" in why
    assert len(report.added) == 1 and [p.name for p in w.inbox.iterdir()] == ["a.mcap"]
    (w.path / "channels" / "flyarm-5.toml").unlink()
    assert len(ingest(w).added) == 1 and not list(w.inbox.iterdir())


def test_the_file_name_of_an_ordinary_name_is_that_name():
    assert file_name("flyarm-5") == "flyarm-5.toml"


def test_mapping_an_episode_changes_nothing_else(intake):
    e = replace(episode(joint__position=("rad", TWO)), robot="r", task="t", labels={"a": 1})
    out = mapped(e, resolve(profile(e), {}, BODIES), BODIES, intake)
    assert encode(replace(out, signals=e.signals)) == encode(e)
