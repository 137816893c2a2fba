"""``flyball episodes`` as a user meets it: questions, pages, similar windows, and one line for whatever is wrong."""

import json

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base import SignalSpec, Timed
from flyball.base.workspace import Workspace
from flyball.episodes import Episode, Event
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.episode import Frames

pytest.importorskip("duckdb", reason="DuckDB is of the extra `logs`")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    w = Workspace(tmp_path_factory.mktemp("w") / "w")
    c = Catalogue(w.store)
    t = np.arange(200, dtype=np.int64) * 20_000_000
    (blob,) = w.store.keep(bytes(36))
    for i in range(5):
        q = np.sin(2 * np.pi * (t * 1e-9 - 0.3 * i))[:, None] * [1.0, 0.1 * i]
        holed = np.where(np.arange(200) == 100, np.nan, 1.0 * np.arange(200))
        frames = Frames("cam", "raw:rgb8", 2, 3, blob, t[:2], np.array([0, 18]), np.array([18, 36]), np.ones(2, bool))
        e = Episode(
            "arm",
            robot=f"robot-{i % 2:02d}",
            outcome="failure" if i == 3 else "success",
            signals={
                "q": Timed(SignalSpec("q", (2,), unit="rad"), t, q),
                "holed": Timed(SignalSpec("holed"), t, holed),
            },
            frames={"cam": frames} if i == 3 else {},
            events=(Event(int(t[50]), "slip"),) if i == 3 else (),
            labels={"turn": i},
            seed=i,
        )
        digest = c.add(e, producer="tests@1").digest
        c.add_verdict(digest, "blur", "keep", "sharp", "1")
    return w


def say(capsys, space, *argv):
    code = main(["episodes", *argv, "--workspace", str(space.path)])
    return code, *capsys.readouterr()


def rows(space, where=""):
    return Catalogue(space.store).query(where)


def test_where_order_and_limit(capsys, space):
    code, out, err = say(capsys, space, "--where", "q[1].max > 0.15", "--order", "q[1].max DESC", "--limit", "2")
    assert code == 0 and "2 of 3 shown" in err
    assert [line.split()[-1] for line in out.splitlines()] == ["labels", "turn=4", "turn=3"]
    code, out, _ = say(capsys, space, "--where", "event.slip.count > 0 AND verdict.blur = 'keep'", "--json")
    assert [e["seed"] for e in json.loads(out)["episodes"]] == [3]
    code, out, _ = say(capsys, space, "--where", "q[1].max > 9")
    assert code == 0 and "no episodes meet this condition" in out


def test_sql_columns_parquet_and_reindex(capsys, space, tmp_path):
    code, out, _ = say(
        capsys, space, "--sql", "SELECT robot, count(*) AS n FROM episodes GROUP BY 1 ORDER BY 1", "--json"
    )
    assert code == 0 and json.loads(out)["rows"] == [{"robot": "robot-00", "n": 3}, {"robot": "robot-01", "n": 2}]
    code, out, _ = say(capsys, space, "--columns")
    assert code == 0 and "q[1].max" in out and "event.slip.first" in out
    code, out, _ = say(capsys, space, "--parquet", str(tmp_path / "c.parquet"))
    assert code == 0 and "5 episodes" in out and (tmp_path / "c.parquet").read_bytes()[:4] == b"PAR1"
    code, out, _ = say(capsys, space, "--reindex")
    assert code == 0 and "5 episodes summarised, 0 could not be" in out


def test_one_episode_in_text_and_as_a_page(capsys, space, tmp_path):
    digest = rows(space, "seed = 3")[0].digest
    code, out, _ = say(capsys, space, digest[:10])
    for what in ("outcome: failure", "signal q (2,) [rad]: 200 samples", "event slip at 1.000 s",
                 "check blur: keep: sharp", "camera cam 3 x 2 raw:rgb8: 2"):  # fmt: skip
        assert what in out, what
    pytest.importorskip("av", reason="av is of the extra `logs`")
    code, out, _ = say(capsys, space, "show", digest[:10])
    (page,) = space.reports.iterdir()
    assert code == 0 and str(page) in out and page.name == f"episode-{digest[:12]}.html"
    text = page.read_text()
    assert text.count("data:image/jpeg") == 2 and "slip" in text and "sharp" in text
    assert say(capsys, space, "show", digest, "--html", str(tmp_path / "x.html"))[0] == 0
    assert (tmp_path / "x.html").read_text() == text


def test_pictures_that_do_not_decode_are_listed_losses(capsys, space, tmp_path):
    digest = rows(space, "seed = 3")[0].digest
    (frames,) = Catalogue(space.store).load(digest).frames.values()
    blob = space.store.path(frames.blob)
    content = blob.read_bytes()
    blob.write_bytes(content[:20])
    try:
        code, _, err = say(capsys, space, "show", digest, "--html", str(tmp_path / "x.html"))
    finally:
        blob.write_bytes(content)
    assert code == 3 and "cam" in err and "cam" in (tmp_path / "x.html").read_text()


def test_more_like_this(capsys, space):
    digest = rows(space, "seed = 2")[0].digest
    window = ("--signal", "q", "--from", "0.5", "--to", "1.4")
    code, out, _ = say(capsys, space, "like", digest[:10], *window, "--top", "2", "--json")
    found = json.loads(out)["matches"]
    assert code == 0 and len(found) == 2
    assert not [m for m in found if m["digest"] == digest and m["start_s"] < 1.4 and m["end_s"] > 0.5]
    assert set(found[0]) == {"digest", "start_s", "end_s", "distance"} and found[0]["distance"] <= found[1]["distance"]
    code, out, _ = say(capsys, space, "like", digest, *window, "--where", "outcome = 'failure'")
    assert code == 0 and {line.split()[0] for line in out.splitlines()[1:]} == {rows(space, "seed = 3")[0].digest[:12]}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--where", "bogus = 1"), "bogus"),
        (("--where", "q[7].max > 1"), "did you mean q["),
        (("--where", "outcome ="), "outcome ="),
        (("--where", "1; DROP TABLE episodes"), "not understood"),
        (("--where", 'robot = "robot-00"'), "single quotes"),
        (("--order", "nothing"), "nothing"),
        (("--sql", "DELETE FROM episodes"), "not understood"),
        (("--sql", "SELECT * FROM read_text('/etc/hostname')"), "read_text() is not available"),
        (("--sql", "SELECT 1", "--columns"), "one at a time"),
        (("zzz",), "no episode whose digest begins with 'zzz'"),
        (("show",), "which episode?"),
        (("show", "zzz"), "no episode whose digest"),
        (("frob", "{id}"), "show ID, like ID"),
        (("show", "{id}", "--save", "x.rrd"), "--rerun --save"),
        (("show", "{id}", "--rerun", "--save", "x.txt"), "ends in .rrd"),
        (("like", "{id}"), "which signal?"),
        (("like", "{id}", "--signal", "p"), "no signal named 'p'"),
        (("like", "{id}", "--signal", "q[2]"), "no element [2]"),
        (("like", "{id}", "--signal", "q", "--from", "1", "--to", "99"), "within 0 to 3.980 s"),
        (("like", "{id}", "--signal", "q", "--from", "2", "--to", "1"), "from < to"),
        (("like", "{id}", "--signal", "q", "--from", "x"), "invalid float"),
        (("like", "{id}", "--signal", "holed", "--from", "1", "--to", "3"), "NaN or infinite at 2.000 s"),
        (("like", "{id}", "--signal", "q", "--top", "0"), "1 and more"),
        (("like", "{id}", "--signal", "q", "--where", "bogus"), "bogus"),
    ],
)
def test_bad_input_is_one_line(capsys, space, argv, says):
    id_ = rows(space)[0].digest
    code, out, err = say(capsys, space, *(a.format(id=id_) for a in argv))
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err


def test_an_ambiguous_id_names_the_candidates(capsys, space):
    digests = [r.digest for r in rows(space)]
    c = Catalogue(space.store)
    i = 0
    while len({d[0] for d in digests}) == len(digests):  # until two begin alike
        digests.append(c.add(Episode("other", seed=i), producer="tests@1").digest)
        i += 1
    twin = next(d for d in digests if sum(x[0] == d[0] for x in digests) > 1)
    code, _, err = say(capsys, space, "show", twin[0])
    assert code == 2 and "ambiguous" in err and twin[:16] in err


def test_help_teaches_the_names_of_columns(capsys):
    assert main(["episodes", "--help"]) == 0
    out = capsys.readouterr().out
    assert "SIGNAL[i].STATISTIC" in out and "event.NAME.count" in out and "show ID" in out and "like ID" in out
