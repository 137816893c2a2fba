"""The diff report finds what differs, and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flyball.robots.models import load
from flyball.robots.models.diff import diff


@pytest.fixture
def model(rich):
    return load(rich).model


def changed(model, table: str, name: str, **values):
    elements = dict(getattr(model, table))
    elements[name] = dataclasses.replace(elements[name], **values)
    return dataclasses.replace(model, **{table: elements})


def test_a_model_equals_itself(model):
    report = diff(model, model)
    assert report.equal and report.changes == ()
    assert report.counts["joint"] == {"equal": 7, "changed": 0, "lost": 0, "added": 0}
    assert report.to_json()["equal"] is True


CHANGES = [
    ("bodies", "b", {"mass": 0.70001}),
    ("bodies", "b", {"com": np.array([0.01, 0, 1e-5])}),
    ("bodies", "b", {"inertia": np.diag([0.01, 0.012, 0.0130001])}),
    ("bodies", "b", {"parent": "arm"}),
    ("joints", "j1", {"damping": 0.50001}),
    ("joints", "j1", {"armature": 0.0}),
    ("joints", "j1", {"range": np.array([-np.inf, np.inf])}),
    ("joints", "left", {"axis": np.array([0, -1.0, 0])}),
    ("geoms", "cg", {"contype": 1}),
    ("geoms", "cg", {"friction": np.array([1, 0.005, 0.00011])}),
    ("geoms", "lg", {"quat": np.array([1, 1e-5, 0, 0])}),
    ("actuators", "p1", {"bias_prm": np.array([0, -100, 0, 0, 0, 0, 0, 0, 0, 0.0])}),
    ("actuators", "p1", {"target": "jr"}),
    ("tendons", "grip", {"path": (("joint", "left", 0.5), ("joint", "right", 0.4))}),
    ("sensors", "g", {"noise": 0.0}),
    ("equalities", "joint:left|right", {"solref": np.array([0.02, 1.0])}),
    ("cameras", "wrist", {"resolution": np.array([64.0, 64.0])}),
]


@pytest.mark.parametrize(("table", "name", "values"), CHANGES)
def test_one_changed_number_is_one_change(model, table, name, values):
    report = diff(model, changed(model, table, name, **values))
    (change,) = report.changes
    assert (change.what, change.field) == ("changed", next(iter(values)))
    assert name in change.line() and "->" in change.line()


def test_a_mesh_is_compared_by_its_shape_not_its_name(model):
    renamed = changed(model, "geoms", "a/geom0", mesh="other")
    renamed = dataclasses.replace(renamed, meshes={**model.meshes, "other": model.meshes["m"]})
    assert diff(model, renamed).equal
    shape = model.meshes["m"]
    moved = dataclasses.replace(shape, vertices=shape.vertices * 1.001, digest="")
    report = diff(model, dataclasses.replace(model, meshes={**model.meshes, "m": moved}))
    assert [(c.kind, c.name, c.field) for c in report.changes] == [("geom", "a/geom0", "mesh")]


def test_order_and_the_sign_of_a_quaternion_mean_nothing(model):
    turned = changed(model, "bodies", "arm", quat=-model.bodies["arm"].quat)
    turned = dataclasses.replace(turned, joints=dict(reversed(turned.joints.items())))
    assert diff(model, turned).equal


def test_lost_and_added_are_told_apart(model):
    fewer = dataclasses.replace(model, sensors={k: v for k, v in model.sensors.items() if k != "g"})
    assert [c.line() for c in diff(model, fewer).changes] == ["sensor g: lost"]
    assert [c.line() for c in diff(fewer, model).changes] == ["sensor g: added"]
    plain = dataclasses.replace(model, option={**model.option, "integrator": "euler"})
    assert [c.line() for c in diff(model, plain).changes] == ["option integrator: value implicitfast -> euler"]
