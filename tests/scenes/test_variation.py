"""Distributions are what they say; worlds depend on nothing but their number; what cannot be is refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flyball.base import InputError, Missing, Unsupported
from flyball.scenes import (
    Bind,
    Choice,
    Conditional,
    Constant,
    Correlated,
    Formula,
    JointSamples,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    Parameter,
    Ramp,
    Scene,
    Truncated,
    Uniform,
    Vary,
    draw_worlds,
    sample,
)
from flyball.scenes.routing import route
from flyball.scenes.targets import field_of

N = 20_000
KS = 2.7 / math.sqrt(N)
"""Largest distance of the empirical from the true distribution function: a right sampler exceeds it with probability
2 exp(-2 * 2.7^2) = 9e-7 (Kolmogorov). All tests below together: under 2e-5."""


def drawn(number, seed=11, n=N, **rest):
    return draw_worlds([Vary("x", number)], seed, range(n), **rest)["x"]


@pytest.mark.parametrize(
    ("number", "cdf"),
    [
        (Uniform(2, 5), stats.uniform(2, 3).cdf),
        (LogUniform(0.01, 10), stats.loguniform(0.01, 10).cdf),
        (Normal(1, 2), stats.norm(1, 2).cdf),
        (LogNormal(0.5, 0.3), stats.lognorm(0.3, scale=0.5).cdf),
        (Truncated(Normal(1, 2), 0, 4), stats.truncnorm(-0.5, 1.5, 1, 2).cdf),
        (Truncated(Normal(0, 1), low=3), stats.truncnorm(3, np.inf).cdf),
        (Truncated(LogUniform(0.01, 10), high=1), stats.loguniform(0.01, 1).cdf),
        (
            Mixture((Normal(0, 1), Uniform(4, 6)), (3, 1)),
            lambda x: 0.75 * stats.norm.cdf(x) + 0.25 * stats.uniform(4, 2).cdf(x),
        ),
        (3 - Uniform(0, 1) * 2, stats.uniform(1, 2).cdf),
        (Uniform(0, 1) + Uniform(0, 1), stats.triang(0.5, 0, 2).cdf),
        (Normal(0, 3) + Normal(0, 4), stats.norm(0, 5).cdf),
        (Normal(Normal(0, 3), 4), stats.norm(0, 5).cdf),
        (-LogNormal(2, 0.5) / 2, lambda x: 1 - stats.lognorm(0.5).cdf(-x)),
    ],
)
def test_a_distribution_is_what_it_says(number, cdf):
    assert stats.kstest(drawn(number), cdf).statistic < KS


@pytest.mark.parametrize(
    "number",
    [Uniform(2, 5), LogUniform(0.1, 10), Normal(1, 2), LogNormal(0.5, 0.3), Truncated(Normal(1, 2), 0, 4),
     Mixture((Normal(0, 1), Uniform(4, 6))), 3 - 2 * Uniform(0, 1), Choice((1, 2, 7), (1, 2, 3))],
)  # fmt: skip
def test_a_marginal_of_a_copula_keeps_its_distribution(number):
    tied = Correlated(("z", "x"), (Normal(0, 1), number), ((1, 0.8), (0.8, 1)))
    x = draw_worlds([tied], 5, range(N))["x"]
    assert stats.ks_2samp(x, drawn(number, seed=6)).statistic < KS * math.sqrt(2)


def test_the_copula_has_the_rank_correlation_of_its_matrix():
    paths, r = ("a", "b", "c"), ((1, 0.7, -0.3), (0.7, 1, 0.1), (-0.3, 0.1, 1))
    out = draw_worlds([Correlated(paths, (Uniform(0, 1), LogNormal(1, 0.5), Normal(0, 2)), r)], 3, range(N))
    ranks = stats.spearmanr(np.column_stack([out[p] for p in paths])).statistic
    want = 6 / np.pi * np.arcsin(np.array(r) / 2)
    # standard error of a rank correlation is at most 1.03 / sqrt(n); five of them: false alarm under 2e-6 for three
    assert np.abs(ranks - want).max() < 5 * 1.03 / math.sqrt(N)


def test_choice_follows_its_weights():
    x = drawn(Choice((10, 20, 30), (1, 0, 3)))
    assert set(x) == {10.0, 30.0}
    assert abs((x == 30).mean() - 0.75) < 5 * math.sqrt(0.75 * 0.25 / N)  # false alarm 6e-7


def test_rows_of_joint_samples_stay_together():
    rows = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    out = draw_worlds([JointSamples(("a", "b"), rows)], 0, range(3000))
    assert np.array_equal(out["b"], 10 * out["a"]) and set(out["a"]) == {1.0, 2.0, 3.0}
    spread = draw_worlds([JointSamples(("a", "b"), rows[:1], (0.1, 0.0))], 0, range(N))
    assert stats.kstest(np.log(spread["a"]), stats.norm(0, 0.1).cdf).statistic < KS and set(spread["b"]) == {10.0}


# worlds ---------------------------------------------------------------------------------------------------

EVERYTHING = (
    Vary("mass", Uniform(0.2, Ramp(0.3, 0.9))),
    Vary("friction", Conditional("kind", ((0, Uniform(0.1, 0.2)), (1, Normal(0.5, 0.1))), otherwise=0.9)),
    Vary("kind", Choice((0, 1, 2))),
    Vary("inertia", Formula("0.4 * mass ** 2") + Normal(0, 0.01)),
    Correlated(("a", "b"), (Uniform(0, 1), Mixture((Normal(0, 1), LogNormal(2, 0.2)))), ((1, -0.5), (-0.5, 1))),
    JointSamples(("c", "d"), np.arange(20.0).reshape(10, 2), (0.1, 0.1)),
    Vary("t", Truncated(Normal(0, 1), -1, 1)),
)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**64), worlds=st.lists(st.integers(0, 300), max_size=20), data=st.data())
def test_any_split_order_and_company_give_the_same_bits(seed, worlds, data):
    whole = draw_worlds(EVERYTHING, seed, range(301), progress=0.5)
    cut = data.draw(st.integers(0, len(worlds)))
    parts = [draw_worlds(EVERYTHING, seed, np.array(w, int), progress=0.5) for w in (worlds[:cut], worlds[cut:])]
    for path, x in whole.items():
        assert np.array_equal(np.concatenate([p[path] for p in parts]), x[worlds]), path
    others = data.draw(st.permutations(EVERYTHING))
    again = draw_worlds([*others, Vary("new", Uniform(0, 1))], seed, range(301), progress=0.5)
    for path, x in whole.items():
        assert np.array_equal(again[path], x), path


def test_adding_to_a_correlated_set_leaves_the_earlier_ones_alone():
    marginals = (Uniform(0, 1), Normal(0, 1), LogNormal(1, 1))
    two = draw_worlds([Correlated(("a", "b"), marginals[:2], ((1, 0.5), (0.5, 1)))], 1, range(50))
    matrix = ((1, 0.5, 0.2), (0.5, 1, 0.3), (0.2, 0.3, 1))
    three = draw_worlds([Correlated(("a", "b", "c"), marginals, matrix)], 1, range(50))
    assert np.array_equal(two["a"], three["a"]) and np.array_equal(two["b"], three["b"])


def test_a_curriculum_widens_without_reshuffling():
    levels = [draw_worlds(EVERYTHING[:1], 0, range(500), progress=p)["mass"] for p in (0.0, 0.5, 1.0)]
    assert [x.max() <= m for x, m in zip(levels, (0.3, 0.6, 0.9), strict=True)] == [True] * 3
    assert levels[2].max() > 0.85 and levels[0].max() > 0.29
    # the same quantile of a wider range
    assert np.allclose((levels[0] - 0.2) / 0.1, (levels[2] - 0.2) / 0.7)
    per_world = draw_worlds(EVERYTHING[:1], 0, range(2), progress=np.array([0.0, 1.0]))["mass"]
    assert per_world.tolist() == [levels[0][0], levels[2][1]]
    late = drawn(Ramp(1, 3, begin=0.5, finish=0.75), n=1, progress=0.5), drawn(Ramp(1, 3, 0.5, 0.75), n=1, progress=0.8)
    assert (late[0][0], late[1][0]) == (1.0, 3.0)


def test_formulas_and_conditions_follow_what_they_refer_to():
    out = draw_worlds(EVERYTHING, 0, range(2000))
    assert abs(np.std(out["inertia"] - 0.4 * out["mass"] ** 2) / 0.01 - 1) < 0.1
    assert out["friction"][out["kind"] == 0].max() <= 0.2 and set(out["friction"][out["kind"] == 2]) == {0.9}
    given_ = draw_worlds([Vary("y", Formula("2 * scene.x"))], 0, range(3), given={"scene.x": 1.5})
    assert given_ == {"y": pytest.approx([3, 3, 3])}


@settings(max_examples=60, deadline=None)
@given(a=st.floats(0.1, 9), b=st.floats(-9, 9))
def test_a_formula_is_its_arithmetic(a, b):
    text = "max(-x.y, 2) * (a - 3.5) ** 2 / 2 + where(a > x.y, sqrt(a), abs(x.y)) - 'a' ** -0.5"
    got = draw_worlds([Vary("f", Formula(text))], 0, range(1), given={"a": a, "x.y": b})["f"][0]
    assert got == pytest.approx(max(-b, 2) * (a - 3.5) ** 2 / 2 + (math.sqrt(a) if a > b else abs(b)) - a**-0.5)


def test_a_path_may_come_first():
    assert Uniform("m", 0.2, 0.4) == Vary("m", Uniform(0.2, 0.4)) and Choice("m", (1, 2)) == Vary("m", Choice((1, 2)))
    assert LogUniform("m", low=1, high=2).draw(np.random.default_rng(0), 3)["m"].shape == (3,)


def test_later_variations_override_earlier_ones():
    out = draw_worlds([Vary("x", Formula("nowhere")), Constant("x", 2.0)], 0, range(2))
    assert out["x"].tolist() == [2, 2]


def test_sequential_draws_go_on_as_they_did():
    """Calibration and the loop draw so: these bits are part of their results."""
    rows = np.arange(8.0).reshape(4, 2)
    rng, twin = np.random.default_rng(3), np.random.default_rng(3)
    out = sample([Constant("k", 1.0), JointSamples(("a", "b"), rows, (0.1, 0.2))], rng, 5)
    want = rows[twin.integers(4, size=5)]
    for j, rel in enumerate((0.1, 0.2)):
        want[:, j] *= np.exp(rel * twin.standard_normal(5))
    assert np.array_equal(np.column_stack([out["a"], out["b"]]), want) and out["k"].tolist() == [1.0] * 5
    one = Vary("x", Uniform(0, 1)).draw(np.random.default_rng(0), 4)["x"]
    assert np.array_equal(one, Vary("x", Uniform(0, 1)).draw(np.random.default_rng(0), 4)["x"]) and len(set(one)) == 4


# refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Uniform(2, 1), "low = 2 is above high = 1"),
        (lambda: Uniform(0.0, "object.mass"), "Vary"),
        (lambda: Uniform("object.mass", 2, 1), "low = 2 is above high = 1"),
        (lambda: Uniform(float("nan"), 1), "finite"),
        (lambda: LogUniform(0, 1), "low = 0"),
        (lambda: Normal(0, 0), "std = 0"),
        (lambda: LogNormal(-1, 1), "median"),
        (lambda: Choice(()), "weights"),
        (lambda: Choice((1, 2), (1,)), "weights"),
        (lambda: Mixture((Uniform(0, 1),), (-1,)), "weights"),
        (lambda: Ramp(0, 1, 0.5, 0.5), "begin"),
        (lambda: Truncated(3.0, 0, 1), "distribution"),
        (lambda: Uniform(0, 1) / 0, "divisor"),
        (lambda: Formula("__import__('os')"), "function"),
        (lambda: Formula("a.b().c"), "'a.b\\(\\).c'"),
        (lambda: Formula("[1 for x in y]"), "allowed"),
        (lambda: Formula("9 ** 9 ** 9"), "exponent"),
        (lambda: Formula("lambda: 1"), "allowed"),
        (lambda: Formula("(" * 400 + ")" * 400), "cannot read"),
        (lambda: Formula("-" * 300 + "1"), "nested"),
        (lambda: Formula("sqrt(1, 2)"), "sqrt with 2"),
        (lambda: Formula("1" * 400), "finite"),
        (lambda: Vary("a, b", Uniform(0, 1)), "commas"),
        (lambda: Vary("sensor:x.dealy", Uniform(0, 1)), "delay"),
        (lambda: Vary("gem:box.mass", Uniform(0, 1)), "geom"),
        (lambda: Vary("geom:box", Uniform(0, 1)), "geom:NAME.field"),
        (lambda: Vary("object.mass", Uniform(0, 1), "scale"), "how"),
        (lambda: Vary("geom:box.friction", Uniform(0, 1), "scael"), "scale"),
        (lambda: Correlated(("a", "b"), (Uniform(0, 1),) * 2, ((1, 2), (2, 1))), "correlation"),
        (lambda: Correlated(("a", "b"), (Uniform(0, 1),) * 2, ((1, 1), (1, 1))), "positive definite"),
        (lambda: Correlated(("a", "a"), (Uniform(0, 1),) * 2, ((1, 0), (0, 1))), "marginals"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_when_it_is_written(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("variations", "says"),
    [
        ([Vary("a", Formula("b")), Vary("b", Formula("a + 1"))], "circle: (a -> b -> a|b -> a -> b)"),
        ([Vary("a", Formula("masss")), Constant("mass", 1)], "did you mean 'mass'"),
        ([Vary("a", Uniform(Normal(0, 1), 0.0))], r"\[a\]: low = .* is above high = 0"),
        ([Vary("a", Formula("log(-0.3 * 1)"))], "gives nan"),
        ([Vary("a", Formula("1 / zero")), Constant("zero", 0)], "gives inf"),
        ([Vary("a", Truncated(Normal(0, 1), 20, 30))], "almost nothing"),
        ([Vary("a", Truncated(Choice((1, 2)), 0, 1))], "choice cannot be truncated"),
        ([Vary("a", Conditional("k", ((1, 2.0),))), Constant("k", 5)], "no case for k = 5"),
        ([Correlated(("a", "b"), (Uniform(0, 1) + Uniform(0, 1), 1.0), ((1, 0), (0, 1)))], "no quantile"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(variations, says):
    with pytest.raises(InputError, match=says):
        draw_worlds(variations, 0, range(50))


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_is_a_share(progress):
    with pytest.raises(InputError, match="progress"):
        draw_worlds([Constant("a", 1)], 0, range(2), progress=progress)


# scenes and fields ----------------------------------------------------------------------------------------

SCENE = Scene(
    "s",
    "<mujoco/>",
    (
        Parameter("mass", "kg", 0.3, 0.1, 1.0, "log", binds=(Bind("body:box.mass"),)),
        Parameter("grip", "", 1.0, 0.5, 1.5, binds=(Bind("actuator:g.gain", "scale"), Bind("sensor:p.noise", index=1))),
    ),
)
OWN = {
    "body:box.mass": np.full((4, 1), 0.3),
    "actuator:g.gain": np.full((4, 1), 40.0),
    "geom:box.friction": np.tile([0.5, 0.005, 1e-4], (4, 1)),
}


def own(field):
    if field not in OWN:
        raise Unsupported(f"cannot set {field!r}", where="engine fake")
    return OWN[field].copy()


def test_a_scene_draws_its_worlds_within_its_ranges():
    scene = Scene(
        "s", "", SCENE.parameters, (Vary("mass", Uniform(0.2, 0.4)), Vary("geom:box.size_scale", Uniform(1, 2)))
    )
    out = scene.draw_worlds(0, range(100))
    assert set(out) == {"mass", "grip", "geom:box.size_scale"} and set(out["grip"]) == {1.0}
    assert np.array_equal(out["mass"][[7, 3]], scene.draw_worlds(0, [7, 3])["mass"])
    with pytest.raises(InputError, match=r"mass = .* in world 5\d; .*Truncated"):
        Scene("s", "", SCENE.parameters, (Vary("mass", Uniform(2, 3)),)).draw_worlds(0, range(50, 60))
    with pytest.raises(Missing, match="did you mean 'mass'"):
        Scene("s", "", SCENE.parameters, (Vary("mas", Uniform(0, 1)),)).draw_worlds(0, range(2))


def test_drawn_values_go_to_whoever_acts_on_them():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    variations = (Vary("geom:box.friction", Uniform(0, 1), "scale"), Vary("geom:box.friction[1]", Uniform(0, 1), "add"))
    drawn_ = {"mass": x, "grip": x, "geom:box.friction": x, "geom:box.friction[1]": x, "sensor:p.delay": x}
    to = route(drawn_, own, variations=variations, scene=SCENE)
    assert np.array_equal(to.engine["body:box.mass"][:, 0], x)
    assert np.array_equal(to.engine["actuator:g.gain"][:, 0], 40 * x)
    want = np.column_stack([0.5 * x, 0.005 * x + x, 1e-4 * x])
    assert np.allclose(to.engine["geom:box.friction"], want)
    assert set(to.observation) == {"sensor:p.delay"} and set(to.sensors) == {"sensor:p.noise[1]"}
    assert set(to.parameters) == {"mass", "grip"} and not to.visual
    assert np.array_equal(OWN["geom:box.friction"][0], [0.5, 0.005, 1e-4]), "the engine's own values stay"


def test_what_an_engine_lacks_is_refused_by_it():
    with pytest.raises(Unsupported, match="light:lamp.diffuse"):
        route({"light:lamp.diffuse[0]": np.ones(4)}, own)
    with pytest.raises(InputError, match="no element 3"):
        route({"geom:box.friction[3]": np.ones(4)}, own)
    with pytest.raises(InputError, match="has 3 elements"):
        route({"geom:box.friction": np.ones(4)}, own)
    with pytest.raises(Missing, match="no field named"):
        route({"mass": np.ones(4)}, own)


def test_what_only_a_picture_shows_is_kept_apart_from_physics():
    given = {"light:lamp.diffuse": np.ones((4, 3)), "geom:box.rgba": np.ones((4, 4))} | OWN
    x = np.full(4, 0.5)
    to = route({"light:lamp.diffuse[1]": x, "geom:box.rgba[3]": x, "body:box.mass": x}, given.__getitem__)
    assert set(to.visual) == {"light:lamp.diffuse", "geom:box.rgba"} and set(to.engine) == {"body:box.mass"}
    assert np.array_equal(to.visual["light:lamp.diffuse"], np.tile([1, 0.5, 1], (4, 1)))


@pytest.mark.parametrize(
    "path",
    ["body:box.mass", "geom:a.b.friction[2]", "light:lamp.diffuse[0]", "material:wood.rgba[3]",
     "camera:wrist.position[1]", "world:gravity[2]", "joint:j.damping", "sensor:object.pose.dropout"],
)  # fmt: skip
def test_physics_light_material_camera_and_sensors_are_addressable(path):
    field = field_of(path)
    assert path.startswith(field.target) and field.kind == path.split(":")[0]
