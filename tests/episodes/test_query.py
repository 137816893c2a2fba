"""Asking the catalogue by what episodes hold, in a DuckDB that a stranger's text cannot leave."""

import builtins
import sys

import numpy as np
import pytest

from flyball.base import InputError, NotPossible, SignalSpec, Timed
from flyball.base.store import Store
from flyball.episodes import Episode, Event, query
from flyball.episodes.catalogue import COLUMNS, Catalogue
from flyball.episodes.episode import Frames
from flyball.episodes.query import ask, columns, export, select

pytest.importorskip("duckdb", reason="DuckDB is of the extra `logs`")


def build(folder, n=6):
    """Episodes 0 to n - 1: q[1] peaks at the number, NaN throughout in the last; slips in those that are even."""
    c = Catalogue(Store(folder, clock_ns=lambda: 42))
    for i in range(n):
        t = np.arange(11, dtype=np.int64) * 10**8
        q = np.column_stack([np.full(11, -1.0), np.linspace(0, i, 11) if i < n - 1 else np.full(11, np.nan)])
        signals = {"joint.position": Timed(SignalSpec("joint.position", (2,), unit="rad"), t, q)}
        if i % 3 == 0:
            signals["grip force/N"] = Timed(SignalSpec("grip force/N"), t, np.arange(11) * i)
        frames = {}
        if i == 1:
            ones = np.arange(11)
            frames["wrist"] = Frames("wrist", "jpeg", 48, 64, "0" * 64, t, ones, ones + 7, np.ones(11, bool))
        c.add(
            Episode(
                "arm",
                robot=f"r{i % 3}",
                outcome="success" if i % 2 else "failure",
                signals=signals,
                frames=frames,
                events=(Event(10**8, "slip"), Event(3 * 10**8, "slip")) if i % 2 == 0 else (),
                seed=i,
                labels={"kp": 100 * i, "mixed": i if i % 2 else f"x{i}", "my key": 0.5 * i, "names": ["a"]},
            ),
            producer="tests@1",
            now_ns=i,
        )
    for i, row in enumerate(c.query()):
        c.add_verdict(row.digest, "blur", "drop" if i < 2 else "keep", f"{i} of them", "1")
    c.add_verdict(c.query()[0].digest, "blur", "keep", "looked again", "2")
    c.add_verdict(c.query()[1].digest, "blur", "", "never mind", "2")
    return c


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return build(tmp_path_factory.mktemp("catalogue"))


def seeds(rows):
    return [r.seed for r in rows]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("outcome = 'failure' AND robot = 'r2'", [2]),
        ("joint.position[1].max > 2.5", [3, 4]),
        ('"joint.position[1].max" > 2.5 AND joint.position[0].mean = -1', [3, 4]),
        ("JOINT.POSITION[1].MAX > 2.5", [3, 4]),
        ("joint.position[1].nan > 0", [5]),
        ("joint.position[1].max IS NULL", [5]),
        ("joint.position.max >= 3 AND joint.position.count = 11", [3, 4]),
        ("abs(joint.position[1].rate - 10) < 1e-6 AND joint.position[1].std > 1", [4]),
        ("joint.position[1].last - joint.position[1].first = 3", [3]),
        ('"grip force/N.last" > 1', [3]),
        ('"grip force/N.last" IS NULL', [1, 2, 4, 5]),
        ("event.slip.count = 2 AND event.slip.last > 0.25", [0, 2, 4]),
        ("event.slip.count = 0", [1, 3, 5]),
        ("frames.wrist.width = 64 AND frames.wrist.encoding = 'jpeg' AND frames.wrist.bytes = 77", [1]),
        ('labels.kp >= 300 AND labels."my key" < 9', None),
        ('labels.kp >= 300 AND "labels.my key" < 2.5', [3, 4]),
        ("labels.mixed = 'x2' OR labels.mixed = '3'", [2, 3]),
        ("labels.names = '[\"a\"]' AND seed < 1", [0]),
        ("verdict.blur = 'drop'", []),
        ("verdict.blur = 'keep' AND verdict.blur.version = '2'", [0]),
        ("verdict.blur IS NULL AND verdict.blur.reason IS NULL", [1]),
        ("robot != 'joint.position[1].max' -- joint.position[1].max > 3", [0, 1, 2, 3, 4, 5]),
        ("digest IN (SELECT digest FROM signals WHERE signal = 'joint.position' AND element = '[1]' AND max > 3)", [4]),
        ("digest IN (SELECT digest FROM events WHERE name = 'slip' AND first < 0.15)", [0, 2, 4]),
        ("joint.position[1].max BETWEEN 1 AND 2 /* joint.position[9].max */", [1, 2]),
    ],
)
def test_conditions(catalogue, where, found):
    if found is None:
        with pytest.raises(InputError):
            select(catalogue, where)
    else:
        assert seeds(select(catalogue, where)) == found


def test_rows_are_those_of_the_catalogue_and_can_be_ordered(catalogue):
    assert select(catalogue) == catalogue.query() == select(catalogue, "true")
    assert seeds(select(catalogue, "seed < 5", order="joint.position[1].max DESC")) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT robot, count(*) FROM episodes GROUP BY robot ORDER BY robot", [("r0", 2), ("r1", 2), ("r2", 2)]),
        ("SELECT max(joint.position[1].max) FROM episodes", [(4.0,)]),
        ("SELECT e.joint.position[1].max FROM episodes e WHERE e.seed = 3", [(3.0,)]),
        ("SELECT signal, element, unit, max(max) FROM signals WHERE min < -0.5 GROUP BY ALL",
         [("joint.position", "[0]", "rad", -1.0)]),
        ("SELECT name, sum(count) FROM events GROUP BY name", [("slip", 6)]),
        ("SELECT camera, height, count FROM frames", [("wrist", 48, 11)]),
        ("SELECT count(*), count(*) FILTER (current) FROM verdicts WHERE check_name = 'blur'", [(8, 5)]),
        ("WITH a AS (SELECT seed FROM episodes) SELECT count(*) FROM a, range(2)", [(12,)]),
    ],
)  # fmt: skip
def test_queries(catalogue, sql, rows):
    assert ask(catalogue, sql).rows == rows


def test_a_query_selects_what_it_names_and_says_when_there_is_more(catalogue):
    answer = ask(catalogue, "SELECT * FROM episodes ORDER BY joint.position[0].min, seed", most=4)
    assert answer.columns == (*COLUMNS, "joint.position[0].min")
    assert len(answer.rows) == 4 and not answer.complete
    assert ask(catalogue, "SELECT * FROM episodes").complete


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("bogus = 1", "duration_s"),
        ("joint.positon[1].max > 1", "joint.position[1].max"),
        ("outcome =", ""),
        ("1) OR (1", ""),
        ("true; DROP TABLE episodes", ""),
        ("seed = 1 ORDER BY seed", ""),
        ("seed = 1, seed = 2", ""),
        ('robot = "r1"', "single quotes: 'r1'"),
        ("robot > 3", ""),
        ("digest IN (SELECT content FROM read_text('/etc/hostname'))", "read_text() is not available"),
        ("EXISTS (FROM '/etc/passwd')", ""),
        ("\0", ""),
        ("load_extension('x')", ""),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(catalogue, text, hint):
    with pytest.raises(InputError) as err:
        select(catalogue, text)
    assert repr(text) in err.value.line() and "\n" not in err.value.line() and hint in err.value.line()


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE episodes",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '{folder}/secret.csv'",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM glob('/*')",
        "ATTACH '{folder}/x.db'",
        "COPY episodes TO '{folder}/out.csv'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA version",
        "EXPLAIN SELECT 1",
        "SELECT getenv('HOME')",
        "SELECT * FROM catalogue",
        "SELECT * FROM sqlite_scan('{folder}/flyball.db', 'artifacts')",
    ],
)
def test_a_query_reaches_nothing_outside(catalogue, tmp_path, sql):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(InputError) as err:
        ask(catalogue, sql.format(folder=tmp_path))
    assert "\n" not in err.value.line() and "Python" not in err.value.line()  # nor are its variables tables
    assert [p.name for p in tmp_path.iterdir()] == ["secret.csv"]


def test_files_stay_closed_even_if_table_functions_were_allowed(catalogue, tmp_path, monkeypatch):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    monkeypatch.setattr(query, "_FUNCTIONS", query._FUNCTIONS | {"read_csv", "read_text"})
    for sql in (f"SELECT * FROM read_csv('{secret}')", f"SELECT content FROM read_text('{secret}')"):
        with pytest.raises(InputError, match="disabled"):
            ask(catalogue, sql)


def test_what_takes_too_long_is_stopped(catalogue, monkeypatch):
    monkeypatch.setattr(query, "LIMIT_S", 0.2)
    with pytest.raises(InputError, match="longer than 0.2 s"):
        ask(catalogue, "SELECT count(*) FROM range(1000000000000) a, range(1000000) b WHERE a.range % 7 = b.range % 5")


def test_columns_are_listed_by_kind(catalogue):
    found = columns(catalogue)
    assert found["outcome"] == "catalogue" and found["labels.kp"] == "labels"
    assert found["joint.position[0].min"] == found["joint.position.max"] == found["grip force/N.mean"] == "signals"
    assert found["event.slip.count"] == "events" and found["frames.wrist.rate"] == "frames"
    assert found["verdict.blur"] == "verdicts" and "joint.position.mean" not in found


def test_the_catalogue_goes_to_parquet_with_all_columns(catalogue, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    assert export(catalogue, tmp_path / "c.parquet") == (6, len(columns(catalogue)))
    table = pq.read_table(tmp_path / "c.parquet")
    assert table["joint.position[1].max"].to_pylist() == [0, 1, 2, 3, 4, None]
    assert table["labels.kp"].to_pylist() == [0, 100, 200, 300, 400, 500]
    assert table["verdict.blur"].to_pylist() == ["keep", None, "keep", "keep", "keep", "keep"]


def test_episodes_of_before_are_summarised_when_asked_for(tmp_path):
    c = build(tmp_path)
    with c.store.transaction() as db:
        db.execute("DELETE FROM summaries WHERE digest != ?", (c.query()[0].digest,))
        db.execute("UPDATE summaries SET version = 0, stats = zeroblob(length(stats))")
    seen = []
    assert seeds(select(c, "seed >= 0", progress=lambda *x: seen.append(x))) == [0, 1, 2, 3, 4, 5] and not seen
    found = select(c, "joint.position[0].min = -1", progress=lambda *x: seen.append(x))
    assert seeds(found) == [0, 1, 2, 3, 4, 5] and seen == [(6, 6)] and not c.unsummarised()


def test_one_damaged_episode_hides_no_other(tmp_path):
    c = build(tmp_path)
    rotten = c.query("seed = 3")[0].digest
    c.store.path(rotten).write_bytes(b"rotten")
    with c.store.transaction() as db:
        db.execute("DELETE FROM summaries")
    assert seeds(select(c, "joint.position[1].max > 1.5")) == [2, 4]
    ((digest, reason),) = c.reindex()
    assert digest == rotten and "digest" in reason


def test_odd_names_and_labels_harm_nobody(tmp_path):
    c = Catalogue(Store(tmp_path))
    evil = """a"b'); DROP TABLE episodes; --"""
    t = np.arange(5, dtype=np.int64) * 10**9
    for i in range(3):
        signals = {n: Timed(SignalSpec(n), t, np.arange(5.0) * (i + (n == "Q"))) for n in (evil, "q", "Q", "event.x")}
        labels = {"x": float("nan") if i else 1.5, "inf": float("inf"), evil: i, "a.b": {"c": [1]}, "big": 2**70, "": 3}
        c.add(
            Episode("arm", seed=i, labels=labels, signals=signals, events=(Event(1, evil), Event(2, ""))),
            producer="tests@1",
        )
    for where, found in (
        ("labels.x > 1", [0]),
        ("labels.x IS NULL AND labels.inf IS NULL", [1, 2]),
        ("labels.big > 1e20 AND labels.a.b = '{\"c\": [1]}'", [0, 1, 2]),
        ('"labels." = 3', [0, 1, 2]),
        ("q.max > 6", [2]),
        ("Q.max > 6", [1, 2]),
        ('"a""b\'); DROP TABLE episodes; --.max" > 5', [2]),
        ('"event.a""b\'); DROP TABLE episodes; --.count" = 1', [0, 1, 2]),
    ):
        assert seeds(select(c, where)) == found, where
    with pytest.raises(InputError, match="differ only in case"):
        select(c, "q.max > 6 OR Q.max > 6")
    assert seeds(c.query("labels.x > 1")) == [0]
    assert export(c, tmp_path / "c.parquet") == (3, len(columns(c)))


def test_an_empty_catalogue_answers(tmp_path):
    c = Catalogue(Store(tmp_path))
    assert select(c, "outcome = 'failure'") == [] and ask(c, "SELECT count(*) FROM episodes").rows == [(0,)]
    for table in query.TABLES:
        assert ask(c, f"SELECT * FROM {table}").columns == tuple(query.TABLES[table].split(", "))


@pytest.fixture
def without_duckdb(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "duckdb":
            raise ModuleNotFoundError("No module named 'duckdb'", name="duckdb")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "duckdb", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_duckdb_the_catalogues_own_columns_still_serve(catalogue, without_duckdb):
    assert seeds(select(catalogue, "outcome = 'failure' AND labels.kp > 100", order="seed DESC")) == [4, 2]
    for where in ('"joint.position[1].max" > 1', "event.slip.count > 0", 'robot = "r1"'):
        with pytest.raises(NotPossible, match=r"pip install 'flyball\[logs\]'"):
            select(catalogue, where)
    with pytest.raises(InputError, match=r"pip install 'flyball\[logs\]'"):
        select(catalogue, "bogus = 1")
    with pytest.raises(NotPossible, match=r"pip install 'flyball\[logs\]'"):
        ask(catalogue, "SELECT 1")
