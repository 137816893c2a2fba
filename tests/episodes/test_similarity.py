"""More like this: planted windows are found among distractors, exactly where they are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError, Missing, SignalSpec, Timed
from flyball.base.store import Store
from flyball.episodes import Episode, similarity
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.similarity import Match, like, resample

SECONDS, SPAN = 8.0, 1.2


def motif(t):
    """A damped oscillation of three joints, SPAN seconds from 0."""
    inside = (t >= 0) & (t <= SPAN)
    return (np.exp(-2 * t) * np.sin(2 * np.pi * 2.5 * t) * inside)[:, None] * np.array([0.5, -0.3, 0.2])


def wander(rng, t):
    """Smooth motion that is not the motif."""
    walk = np.cumsum(rng.normal(0, 1, (len(t) // 25 + 2, 3)), axis=0) * 0.3
    return np.column_stack([np.interp(t, np.arange(len(walk)) * 0.5, w) for w in walk.T])


def plant(i, *, hz=50.0, begin=None, scale=1.0, offset=0.0, slower=1.0, noise=5e-3, seconds=SECONDS):
    rng = np.random.default_rng(i)
    t = np.arange(0, seconds, 1 / hz) + rng.uniform(-0.1, 0.1) / hz
    q = wander(rng, t)
    if begin is not None:
        around = (t >= begin - 0.3) & (t <= begin + SPAN * slower + 0.3)
        q[around] = q[around][0]
        q += scale * motif((t - begin) / slower) + offset
    q += rng.normal(0, noise, q.shape)
    t_ns = np.round(t * 1e9).astype(np.int64) + 10**18 + i * 10**12
    return Episode("arm", signals={"q": Timed(SignalSpec("q", (3,), unit="rad"), t_ns, q)}, seed=i)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """40 distractors and 8 plants; (catalogue, digest of the first plant, {digest: when})."""
    c = Catalogue(Store(tmp_path_factory.mktemp("similar")))
    rng = np.random.default_rng(1)
    truth = {}
    with c.store.transaction():
        for i in range(48):
            begin = float(rng.uniform(0.5, SECONDS - 2)) if i % 6 == 0 else None
            e = plant(
                i, hz=(50, 83, 100)[i % 3], begin=begin, scale=rng.uniform(0.6, 1.6) if i else 1.0, offset=i * 0.1
            )
            digest = c.register(c.keep(e), e, producer="tests@1").digest
            if begin is not None:
                # The episode starts with its first sample.
                truth[digest] = begin - (int(e.signals["q"].t_ns[0]) - 10**18 - i * 10**12) * 1e-9
    return c, next(iter(truth)), truth


def hits(found, truth, tolerance=0.05):
    return [m for m in found if m.digest in truth and abs(m.start_s - truth[m.digest]) < tolerance]


def test_a_planted_motif_is_found_in_spite_of_noise_shift_scale_offset_and_rate(planted):
    catalogue, digest, truth = planted
    start = truth[digest]
    found = like(catalogue, digest, "q", start, start + SPAN, top=7)
    assert len(hits(found, truth)) == 7 and digest not in {m.digest for m in found}
    distances = [m.distance for m in found]
    assert distances == sorted(distances) and distances[-1] < 0.4
    further = like(catalogue, digest, "q", start, start + SPAN, top=20)
    assert further[:7] == found and further[7].distance > 1.5 * distances[-1]
    assert all(m.end_s - m.start_s == pytest.approx(SPAN) for m in further)


def test_one_element_is_enough(planted):
    catalogue, digest, truth = planted
    found = like(catalogue, digest, "q[0]", truth[digest], truth[digest] + SPAN, top=7)
    assert len(hits(found, truth)) >= 6


def test_motion_tells_amplitudes_apart_and_values_offsets(tmp_path):
    c = Catalogue(Store(tmp_path))
    quiet = {"noise": 1e-4, "begin": 3.0}
    made = [plant(0, **quiet), plant(1, scale=2.0, **quiet), plant(2, offset=5.0, **quiet)]
    # The same pose around the motif in the fourth.
    pose = made[0].signals["q"].values[155] - plant(3, **quiet).signals["q"].values[155]
    made.append(plant(3, offset=pose + 0.01, scale=0.9, **quiet))
    digests = [c.add(e, producer="tests@1").digest for e in made]
    start = 3.0

    def nearest(by):
        return like(c, digests[0], "q", start, start + SPAN, by=by, top=3)

    assert {m.digest for m in nearest("shape")[:3]} == set(digests[1:]) and nearest("shape")[2].distance < 0.1
    motion = nearest("motion")
    assert [m.digest for m in motion[:2]] == [digests[2], digests[3]]
    assert motion[0].distance < 4e-3 < motion[1].distance < 0.02
    values = nearest("values")
    assert values[0].digest == digests[3] and values[0].distance == pytest.approx(0.013, abs=0.007)
    assert values[1].distance > 5 * values[0].distance


def test_stretch_finds_what_is_slower(tmp_path):
    c = Catalogue(Store(tmp_path))
    first = c.add(plant(0, begin=2.0), producer="tests@1").digest
    slow = c.add(plant(1, begin=3.0, slower=1.3), producer="tests@1").digest
    for i in range(2, 12):
        c.add(plant(i), producer="tests@1")
    rigid = like(c, first, "q", 2.0, 2.0 + SPAN, top=3)
    found = like(c, first, "q", 2.0, 2.0 + SPAN, stretch=1.4, top=3)
    assert found[0].digest == slow and found[0].distance < 0.5 * rigid[0].distance
    assert found[0].end_s - found[0].start_s == pytest.approx(1.3 * SPAN, rel=0.08)
    assert abs(found[0].start_s - 3.0) < 0.1


def test_only_among_the_given_and_new_episodes_are_added_to_the_index(tmp_path):
    c = Catalogue(Store(tmp_path))
    digests = [c.add(plant(i, begin=1.0 + i), producer="tests@1").digest for i in range(3)]
    told = []

    def ask(**further):
        return like(c, digests[0], "q", 1.0, 1.0 + SPAN, progress=lambda *x: told.append(x), **further)

    assert {m.digest for m in ask(top=2)} == set(digests[1:]) and told == [(3, 3)]
    assert {m.digest for m in ask(among=[digests[2]])} == {digests[2]}
    digests.append(c.add(plant(3, begin=4.0), producer="tests@1").digest)
    assert {m.digest for m in ask(top=3)} == set(digests[1:]) and told == [(3, 3), (1, 1)]
    (file,) = (tmp_path / "index").glob("*.f32")
    file.write_bytes(file.read_bytes()[:100])  # lost: made anew
    assert {m.digest for m in ask(top=3)} == set(digests[1:]) and told[-1] == (4, 4)


def test_a_writer_killed_before_its_rows_leaves_nothing_that_counts(tmp_path):
    c = Catalogue(Store(tmp_path))
    digests = [c.add(plant(i, begin=1.0 + i), producer="tests@1").digest for i in range(3)]
    before = like(c, digests[0], "q", 1.0, 1.0 + SPAN, top=2)
    (file,) = (tmp_path / "index").glob("*.f32")
    with open(file, "ab") as f:
        f.write(b"\xff" * 1000)  # NaNs without a row
    digests.append(c.add(plant(3, begin=4.0), producer="tests@1").digest)
    found = like(c, digests[0], "q", 1.0, 1.0 + SPAN, top=3)
    assert {m.digest for m in found} == set(digests[1:]) and set(before) < set(found)


def test_nan_gaps_and_other_shapes_are_passed_over(tmp_path):
    c = Catalogue(Store(tmp_path))
    first = c.add(plant(0, begin=2.0), producer="tests@1").digest
    holed = plant(1, begin=3.0)
    holed.signals["q"].values[160:180] = np.nan  # within the motif
    c.add(holed, producer="tests@1")
    whole = plant(2, begin=4.0)
    whole.signals["q"].values[20:60, 1] = np.inf  # before it
    other = c.add(whole, producer="tests@1").digest
    narrow = Timed(SignalSpec("q", (1,)), whole.signals["q"].t_ns, np.zeros((len(whole.signals["q"].t_ns), 1)))
    c.add(Episode("arm", signals={"q": narrow}), producer="tests@1")
    c.add(Episode("arm", signals={"q": Timed(SignalSpec("q", (3,)), np.zeros(0, np.int64), np.zeros((0, 3)))}),
          producer="tests@1")  # fmt: skip
    found = like(c, first, "q", 2.0, 2.0 + SPAN, top=30)
    assert found[0].digest == other and abs(found[0].start_s - 4.0) < 0.05
    assert all(math.isfinite(m.distance) for m in found)
    assert not [m for m in found[1:] if m.distance < 0.5]


@pytest.mark.parametrize(
    ("signal", "start", "end", "further", "says"),
    [
        ("nope", 1, 2, {}, "did you mean|no signal named"),
        ("q[3]", 1, 2, {}, r"no element \[3\]"),
        ("q[0,0]", 1, 2, {}, r"no element \[0, 0\]"),
        ("q", -1, 2, {}, "within 0 to"),
        ("q", 2, 1, {}, "within 0 to"),
        ("q", 2, 99, {}, "within 0 to"),
        ("q", float("nan"), 2, {}, "within 0 to"),
        ("q", 1, 1.01, {}, "at least 4 samples"),
        ("q", 1, 2, {"by": "smell"}, "shape, motion, values"),
        ("q", 1, 2, {"stretch": 9}, "1 to 4"),
        ("q", 1, 2, {"stretch": float("nan")}, "1 to 4"),
        ("holed", 3, 4, {}, r"NaN or infinite at 3\.\d+ s"),
        ("still", 3, 4, {}, "does not move"),
        ("late", 0, 7.9, {}, "recorded only from"),
        ("picture", 0, 1, {}, "400 elements"),
    ],
)
def test_windows_that_cannot_be_looked_for(tmp_path, signal, start, end, further, says):
    c = Catalogue(Store(tmp_path))
    e = plant(0)
    t = e.signals["q"].t_ns
    holed = np.ones(len(t))
    holed[170] = np.nan
    signals = {
        **e.signals,
        "holed": Timed(SignalSpec("holed"), t, holed),
        "still": Timed(SignalSpec("still"), t, np.ones(len(t))),
        "late": Timed(SignalSpec("late"), t[300:], np.arange(len(t) - 300)),
        "picture": Timed(SignalSpec("picture", (20, 20)), t, np.zeros((len(t), 20, 20))),
    }
    digest = c.add(Episode("arm", signals=signals), producer="tests@1").digest
    with pytest.raises(InputError, match=says):
        like(c, digest, signal, start, end, **further)
    with pytest.raises(Missing):
        like(c, "0" * 64, "q")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(5, 400),
    m=st.integers(4, 80),
    by=st.sampled_from(["shape", "motion", "values"]),
    hole=st.booleans(),
)
def test_sliding_distances_are_those_of_every_window(seed, n, m, by, hole):
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.normal(0, 3, 2), 1, (n, 2)).astype(np.float32)
    if hole:
        x[n // 2] = np.nan
    pattern = rng.normal(size=(m, 2))
    (found,) = similarity._distances(x, [pattern], by)
    assert len(found) == max(0, n - m + 1)
    p = pattern - (0 if by == "values" else pattern.mean(axis=0))
    for i, distance in enumerate(found):
        w = x[i : i + m].astype(float)
        if np.isnan(w).any():
            assert np.isnan(distance)
            continue
        w = w if by == "values" else w - w.mean(axis=0)
        if by == "shape":
            scale = max(np.linalg.norm(w), similarity.QUIET * np.linalg.norm(p)) * np.linalg.norm(p)
            want = math.sqrt(max(0, 2 - 2 * (w * p).sum() / scale))
        else:
            want = math.sqrt(((w - p) ** 2).mean())
        assert distance == pytest.approx(want, abs=5e-3)


def test_blocks_and_borders_change_nothing(planted, monkeypatch):
    catalogue, digest, truth = planted
    start = truth[digest]
    whole = like(catalogue, digest, "q", start, start + SPAN, top=12)
    monkeypatch.setattr(similarity, "_BLOCK", 97)
    assert like(catalogue, digest, "q", start, start + SPAN, top=12) == whole


def test_no_window_reaches_from_one_episode_into_the_next(tmp_path, monkeypatch):
    c = Catalogue(Store(tmp_path))
    first = c.add(plant(0, begin=2.0), producer="tests@1").digest
    halves = [plant(1, begin=7.4), plant(2, begin=-0.58)]  # what one ends with, the next begins with
    digests = [c.add(e, producer="tests@1").digest for e in halves]
    seen = []
    scan = similarity._scan
    monkeypatch.setattr(similarity, "_scan", lambda *x, **y: seen.extend(scan(*x, **y)) or seen)
    like(c, first, "q", 2.0, 2.0 + SPAN, top=20)
    assert {m.digest for m in seen} >= set(digests)
    assert all(m.start_s > -0.06 and m.end_s < SECONDS + 0.06 for m in seen)


@settings(max_examples=30, deadline=None)
@given(
    rate=st.sampled_from([5.0, 20.0, 80.0]), hz=st.floats(3, 400), seconds=st.floats(0.5, 10), level=st.floats(-9, 9)
)
def test_resampling_keeps_levels_and_slopes(rate, hz, seconds, level):
    t = np.arange(0, seconds, 1 / hz)
    out = resample(t, np.column_stack([np.full(len(t), level), 2 * t]), rate)
    centre = t[0] + (np.arange(len(out)) + 0.5) / rate
    inside = centre <= t[-1]
    assert len(out) == int((t[-1] - t[0]) * rate + 1e-6) + 1
    assert out[:, 0] == pytest.approx(np.full(len(out), level))
    assert out[inside, 1] == pytest.approx(2 * centre[inside], abs=1.01 * max(1 / rate, 1 / hz))


def test_resampling_leaves_gaps_open():
    t = np.concatenate([np.arange(0, 2, 0.02), np.arange(4, 6, 0.02)])
    out = resample(t, np.ones((len(t), 1)), 20.0)[:, 0]
    assert np.isnan(out[42:78]).all() and np.isfinite(out[:39]).all() and np.isfinite(out[82:]).all()


def test_a_match_says_where():
    m = Match("d", 1.0, 2.0, 0.1)
    assert similarity._overlap(m, 1.5, 3.5) == 0.5 and similarity._overlap(m, 2.0, 3.0) == 0
