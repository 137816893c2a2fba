"""The catalogue: found by what is known of them, judged reversibly, never open to a stranger's SQL."""

import numpy as np
import pytest

from flyball.base import Damaged, InputError, Missing, SignalSpec, Timed
from flyball.base.store import Store
from flyball.episodes import Episode
from flyball.episodes.catalogue import COLUMNS, Catalogue


@pytest.fixture
def catalogue(tmp_path):
    c = Catalogue(Store(tmp_path, clock_ns=lambda: 42))
    for i in range(6):
        q = Timed(SignalSpec("q"), np.arange(3) * 10**9 + i, np.full(3, float(i)))
        outcome = "success" if i % 2 else "failure"
        labels = {"kp": 100 * i, "who's": "me", "names": ["a"]}
        c.add(
            Episode("arm", robot=f"r{i % 3}", outcome=outcome, signals={"q": q}, seed=i, labels=labels),
            producer="tests@1",
            now_ns=i,
        )
    return c


def seeds(rows):
    return [r.seed for r in rows]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("outcome = 'failure'", [0, 2, 4]),
        ("robot = 'r1' and duration_s > 1.9", [1, 4]),
        ("labels.kp >= 300", [3, 4, 5]),
        ("labels.kp = 100 or seed in (2, 5)", [1, 2, 5]),
        ("robot != 'labels.kp'", [0, 1, 2, 3, 4, 5]),
        ("labels.absent is null and seed < 1", [0]),
        ("seed = 3 -- and nothing else", [3]),
        ("outcome like 'fail%' and start_ns > 2", [4]),
    ],
)
def test_conditions(catalogue, where, found):
    assert seeds(catalogue.query(where)) == found


def test_rows_say_what_the_episode_is(catalogue):
    row = catalogue.query("seed = 2")[0]
    assert (row.embodiment, row.robot, row.grp, row.start_ns, row.duration_s, row.added_ns) == (
        "arm",
        "r2",
        "",
        2,
        2.0,
        2,
    )
    assert row.labels == {"kp": 200, "who's": "me", "names": ["a"]}
    assert catalogue.row(row.digest) == row
    assert seeds(catalogue.query("", order="seed desc"))[0] == 5


@pytest.mark.parametrize(
    "where",
    [
        "bogus = 1",
        "outcome =",
        "1) or (1",
        "1; drop table episodes",
        "digest in (select digest from artifacts)",
        "1) union select * from episodes where (1",
        "exists (select 1 from sqlite_master)",
        "load_extension('x')",
        "\0",
    ],
)
def test_what_is_no_condition_is_refused_with_the_columns(catalogue, where):
    try:
        rows = catalogue.query(where)
    except InputError as err:
        assert all(c in err.line() for c in COLUMNS) and repr(where) in err.line()
    else:
        assert where.startswith("1) ") and len(rows) <= 6  # closes and reopens our bracket: still only this table
    assert len(catalogue.query()) == 6


def test_the_same_episode_is_one_row(catalogue):
    e = catalogue.load(catalogue.query("seed = 2")[0].digest)
    assert catalogue.add(e, producer="tests@2").digest == catalogue.query("seed = 2")[0].digest
    assert len(catalogue.query()) == 6


def test_what_was_added_can_be_loaded(catalogue):
    e = catalogue.load(catalogue.query("seed = 4")[0].digest)
    assert e.signal("q").values.tolist() == [4, 4, 4] and e.labels["kp"] == 400
    with pytest.raises(Missing):
        catalogue.load("0" * 64)
    digest = catalogue.query("seed = 4")[0].digest
    catalogue.store.path(digest).write_bytes(b"rotten")
    with pytest.raises(Damaged):
        catalogue.load(digest)


def test_judging_anew_changes_the_row_and_keeps_the_reason(catalogue):
    digest = catalogue.query("seed = 1")[0].digest
    catalogue.set_outcome(digest, "failure", "slipped", reason="task v2")
    catalogue.set_outcome(digest, "failure", "slipped", reason="nothing new")
    catalogue.set_verdict(digest, "rejected", reason="camera fell off")
    catalogue.set_verdict(digest, "", reason="it did not")
    e = catalogue.load(digest)
    assert (e.outcome, e.group) == ("failure", "slipped")
    assert seeds(catalogue.query("grp = 'slipped' and verdict = ''")) == [1]
    assert [(h["column"], h["was"], h["became"], h["reason"]) for h in catalogue.history(digest)] == [
        ("outcome", "success", "failure", "task v2"),
        ("grp", "", "slipped", "task v2"),
        ("verdict", "", "rejected", "camera fell off"),
        ("verdict", "rejected", "", "it did not"),
    ]
    with pytest.raises(InputError, match="success, failure"):
        catalogue.set_outcome(digest, "perfect", reason="")
    with pytest.raises(Missing):
        catalogue.set_outcome("0" * 64, "failure", reason="")


def test_verdicts_of_checks_are_rows_of_which_the_newest_holds(catalogue):
    a, b = (r.digest for r in catalogue.query("seed in (1, 2)"))
    assert catalogue.add_verdict(a, "blur", "drop", "dark", "1", inputs=["f" * 64])
    assert catalogue.add_verdict(a, "time", "keep", "even", "1")
    assert not catalogue.add_verdict(a, "blur", "drop", "dark", "1", inputs=["f" * 64])  # said already
    assert catalogue.add_verdict(a, "blur", "keep", "dark by night", "2")
    assert catalogue.add_verdict(b, "blur", "drop", "dark", "2")
    assert [(v.check, v.verdict, v.version) for v in catalogue.verdicts(a)] == [
        ("time", "keep", "1"),
        ("blur", "keep", "2"),
    ]
    assert catalogue.add_verdict(a, "blur", "", "nobody knows", "2")  # taken back, not deleted
    assert [(v.digest, v.check) for v in catalogue.verdicts()] == [(a, "time"), (b, "blur")]
    ever = catalogue.verdicts(a, current=False)
    assert [v.verdict for v in ever] == ["drop", "keep", "keep", ""]
    assert (ever[0].inputs, ever[0].reason, ever[0].at_ns) == (("f" * 64,), "dark", 42)
    with pytest.raises(Missing):
        catalogue.add_verdict("0" * 64, "blur", "drop", "", "1")
    with pytest.raises(InputError, match="name of its check"):
        catalogue.add_verdict(a, "", "drop", "", "1")


def test_verdicts_join_a_transaction_and_vanish_with_it(catalogue):
    digest = catalogue.query("seed = 1")[0].digest
    with pytest.raises(RuntimeError), catalogue.store.transaction():
        catalogue.add_verdict(digest, "blur", "drop", "dark", "1")
        raise RuntimeError
    assert catalogue.verdicts() == []


def test_the_beginning_of_a_digest_is_enough(catalogue):
    for i in range(11):  # of 17, two begin alike
        catalogue.add(Episode("arm", seed=i), producer="tests@1")
    digests = [r.digest for r in catalogue.query()]
    assert catalogue.resolve(digests[3]) == catalogue.resolve(digests[3][:8]) == digests[3]
    catalogue.store.put("log", b"x", producer="tests@1")  # no episode
    log = next(a.digest for a in catalogue.store.find("log"))
    for prefix in ("", "zz", log):
        with pytest.raises(Missing):
            catalogue.resolve(prefix)
    twin = next(d for d in digests if sum(x[0] == d[0] for x in digests) > 1)
    with pytest.raises(InputError, match=f"ambiguous.*{twin[:16]}"):
        catalogue.resolve(twin[0])


def test_a_workspace_from_before_summaries_opens(tmp_path):
    c = Catalogue(Store(tmp_path))
    q = Timed(SignalSpec("q"), np.arange(3), np.ones(3))
    c.add(Episode("arm", signals={"q": q}), producer="tests@1")
    with c.store.transaction() as db:
        for table in ("summaries", "layouts", "verdicts"):
            db.execute(f"DROP TABLE {table}")
    again = Catalogue(Store(tmp_path))
    assert len(again.unsummarised()) == 1 and again.verdicts() == [] and again.reindex() == ()
    assert again.unsummarised() == [] and len(again.query()) == 1
