"""A file of variations comes back without a bit lost; a bad one is refused by file, table and key."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.apps.cli.main import main
from flyball.base import InputError, digest_of
from flyball.scenes import (
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
    Ramp,
    Truncated,
    Uniform,
    Vary,
    draw_worlds,
    dump_variations,
    load_variations,
)
from flyball.scenes.variation_files import read_variations

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SORTED = st.tuples(FINITE, FINITE).map(sorted)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)


def numbers():
    plain = FINITE | st.builds(Ramp, FINITE, FINITE) | st.sampled_from(["a.b + 1", "'body:x.mass' * 2"]).map(Formula)
    simple = (
        SORTED.map(lambda x: Uniform(*x))
        | st.tuples(POSITIVE, POSITIVE).map(lambda x: LogUniform(*sorted(x)))
        | st.builds(Normal, plain, POSITIVE)
        | st.builds(LogNormal, POSITIVE, POSITIVE)
        | st.lists(st.tuples(FINITE, POSITIVE), min_size=1, max_size=4).map(
            lambda v: Choice(tuple(x for x, _ in v), tuple(w for _, w in v) if len(v) % 2 else ())
        )
    )
    return st.recursive(
        simple,
        lambda inner: st.one_of(
            st.builds(Mixture, st.tuples(inner, plain)),
            st.builds(lambda d, x, op: d + x if op else x - d, inner, FINITE, st.booleans()),
            st.builds(Truncated, inner, st.none() | FINITE),
            st.builds(lambda a, b, x: Conditional("k", ((1, a), (x, b)), x), inner, plain, FINITE),
        ),
        max_leaves=5,
    )


LETTERS = st.characters(exclude_categories=("C", "Z"), exclude_characters=",:")
PATHS = st.text(LETTERS, min_size=1, max_size=12) | st.sampled_from(
    ["object.mass", "sensor:object.pose.delay", "kind", 'a"b', "back\\slash", "two words"]
)


@st.composite
def variations(draw):
    names = iter(draw(st.lists(PATHS, unique=True, min_size=9, max_size=9)))
    out = [Vary(next(names), draw(numbers())), Constant(next(names), draw(FINITE)), Vary(next(names), draw(numbers()))]
    out.append(Vary("geom:box.friction[0]", draw(numbers() | FINITE), draw(st.sampled_from(["scale", "add"]))))
    r = draw(st.floats(-0.99, 0.99))
    out.append(Correlated((next(names), next(names)), (draw(numbers()), draw(numbers() | FINITE)), ((1, r), (r, 1))))
    rows = draw(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=4))
    jitter = draw(st.just(()) | st.tuples(FINITE, FINITE))
    out.append(JointSamples((next(names), next(names)), np.array(rows), jitter))
    return tuple(draw(st.permutations(out)))


@settings(max_examples=40, deadline=None)
@given(variations())
def test_the_round_trip_is_exact(given_):
    text = dump_variations(given_)
    again = read_variations(text)
    assert again == given_ and digest_of(again) == digest_of(given_) and dump_variations(again) == text


FILE = """
[object.mass]
kind = "uniform"
low = 0.2
high = { kind = "ramp", start = 0.3, end = 0.9 }

[object.inertia]
kind = "formula"
text = "0.4 * object.mass"

["geom:box.friction[0]"]
kind = "truncated"
how = "scale"
of = { kind = "normal", mean = 1, std = 0.2 }
low = 0.5

["a, b"]
kind = "correlated"
marginals = [{ kind = "uniform", low = 0, high = "object.mass" }, 3]
correlation = [[1, 0.5], [0.5, 1]]
"""


def test_a_file_reads_as_it_is_documented(tmp_path):
    (tmp_path / "v.toml").write_text(FILE)
    loaded = load_variations(tmp_path / "v.toml")
    assert loaded == (
        Vary("object.mass", Uniform(0.2, Ramp(0.3, 0.9))),
        Vary("object.inertia", Formula("0.4 * object.mass")),
        Vary("geom:box.friction[0]", Truncated(Normal(1, 0.2), low=0.5), "scale"),
        Correlated(("a", "b"), (Uniform(0, Formula("object.mass")), 3.0), ((1, 0.5), (0.5, 1))),
    )
    out = draw_worlds(loaded, 0, range(50))
    assert (out["a"] <= out["object.mass"]).all() and set(out["b"]) == {3.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[object.mass]\nkind = "uniform"\nlow = 2\nhigh = 1', "v.toml: [object.mass]: low = 2 is above high = 1"),
        ('[a]\nkind = "uniform"\nlow = 2\nhihg = 1', "v.toml: [a]: no key named 'hihg'; allowed: did you mean 'high'?"),
        ('[a]\nkind = "unifrom"', "v.toml: [a]: no kind named 'unifrom'; allowed: did you mean 'uniform'?"),
        ('[a]\nkind = "uniform"\nlow = 2', "v.toml: [a]: key 'high' is missing; allowed: low, high"),
        ("[a]\nlow = 1", "v.toml: [a]: key 'kind' is missing"),
        ("a = 1", "v.toml: a = 1 stands alone"),
        ('[a]\nkind = "uniform"\nlow = "2 *"\nhigh = 1', "v.toml: [a] low: cannot read '2 *'"),
        ('[a]\nkind="truncated"\nof={kind="normal",mean=0,std=-1}', "v.toml: [a] of: std = -1; allowed: > 0"),
        ('[a]\nkind="mixture"\nof=[1,{kind="normal",mean=0,sd=1}]', "v.toml: [a] of[1]: no key named 'sd'; allowed: "
         "did you mean 'std'?"),
        ('[a]\nkind = "choice"\nvalues = [1, true]', "v.toml: [a]: values[1] = True; allowed: a number"),
        ('[a]\nkind = "constant"\nvalue = nan', "v.toml: [a]: value = nan; allowed: a finite number"),
        ('[a]\nkind = "constant"\nvalue = 1\nhow = "scale"', "v.toml: [a]: how = 'scale'; allowed: set"),
        ('["sensor:x.dealy"]\nkind = "constant"\nvalue = 1', "did you mean 'delay'?"),
        ('["a, b"]\nkind = "joint"\nsamples = [[1]]', "v.toml: [a, b]: samples[0] has 1 numbers; allowed: 2"),
        ('["a, b"]\nkind = "joint"\nsamples = []', "v.toml: [a, b]: samples is empty"),
        ('["a, b"]\nkind="correlated"\nmarginals=[1,2]\ncorrelation=[[1,1],[1,1]]', "not positive definite"),
        ('[a]\nkind="constant"\nvalue=1\n["a, b"]\nkind="joint"\nsamples=[[1,2]]', "v.toml: [a, b]: a is varied twice"),
        ("[a", "v.toml: is not TOML: "),
        ("x = " + "[" * 5000, "v.toml: "),
        ("x = " + "9" * 5000, "v.toml: "),
        ("[a]\nkind = 'constant'\nvalue = " + "9" * 400, "v.toml: [a]: value = inf"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_that_names_file_table_and_key(text, says):
    with pytest.raises(InputError) as caught:
        read_variations(text, where="v.toml")
    assert says in caught.value.line() and "\n" not in caught.value.line()


VALUES = st.recursive(
    FINITE | st.booleans() | st.text(max_size=6) | st.integers(-9, 9),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "low", "high", "of", "values", "weights", "mean", "std", "cases", "on", "how", "text"]
            ),
            x
            | st.sampled_from(
                ["uniform", "normal", "mixture", "conditional", "joint", "correlated", "choice", "constant"]
            ),
            max_size=4,
        )
    ),
    max_leaves=8,
)


def as_toml(x):
    if isinstance(x, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in x.items()) + "}"
    return "[" + ", ".join(map(as_toml, x)) + "]" if isinstance(x, list) else json.dumps(x)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "a, b", "a.b", "geom:x.y", "kind"]), VALUES, max_size=3) | st.text())
def test_no_file_makes_anything_but_variations_or_one_line(data):
    text = data if isinstance(data, str) else "\n".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in data.items())
    try:
        found = read_variations(text)
    except InputError as err:
        assert "\n" not in err.line()
    else:
        assert read_variations(dump_variations(found)) == found


def test_the_same_path_twice_is_no_file():
    with pytest.raises(InputError, match="varied twice"):
        dump_variations([Constant("a", 1), Constant("a", 2)])


# the verb -------------------------------------------------------------------------------------------------


def test_the_verb_prints_the_worlds_that_are_drawn(tmp_path, capsys):
    path = tmp_path / "v.toml"
    path.write_text(FILE)
    assert main(["variations", str(path), "--worlds", "3", "--first", "7", "--seed", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    want = draw_worlds(load_variations(path), 2, range(7, 10))
    assert shown["values"] == {k: x.tolist() for k, x in want.items()} and shown["first"] == 7
    assert main(["variations", str(path), "--worlds", "2"]) == 0
    assert "object.mass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ('[object.mas]\nkind = "constant"\nvalue = 0.3', ["--task", "lift-fragile-v1"], "did you mean 'object.mass'?"),
        ('[object.mass]\nkind = "constant"\nvalue = 9', ["--task", "lift-fragile-v1"], "object.mass = 9 in world 0"),
        ('[a]\nkind = "constant"\nvalue = 9', ["--worlds", "0"], "--worlds 0"),
        ('[a]\nkind = "constant"\nvalue = 9', ["--seed", "-1"], "seed -1"),
        ('[a]\nkind = "constant"\nvalue = 9', ["--progress", "2"], "progress 2"),
        ('[a]\nkind = "constant"\nvalue = 9', ["--first", "-3"], "--first -3"),
    ],
)
def test_the_verb_refuses_in_one_line(tmp_path, capsys, text, arguments, says):
    (tmp_path / "v.toml").write_text(text)
    assert main(["variations", str(tmp_path / "v.toml"), *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
