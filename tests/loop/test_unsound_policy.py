"""A policy that goes wrong in the middle of an attempt, on a real agent: held, stopped, an incident kept."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.fleet.launch import Fleet, RobotSpec
from flyball.fleet.orders import read_incidents
from flyball.loop.operate import Operator
from flyball.tasks import tasks


def gone_wrong(policy: bytes, feature: int, above: bool, limit: float, fault: float) -> bytes:
    """The policy with ``fault`` added to every code while a feature is beyond a limit."""
    model = onnx.load_from_string(policy)
    graph = model.graph
    for node in graph.node:
        for i, name in enumerate(node.output):
            if name == "codes":
                node.output[i] = "sound_codes"
    for name, value in {"its_limit": [limit], "no_fault": [0.0], "a_fault": [fault]}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    graph.initializer.append(numpy_helper.from_array(np.array([feature]), "which"))
    graph.node.extend([
        helper.make_node("Gather", ["features", "which"], ["watched"], axis=1),
        helper.make_node("Greater" if above else "Less", ["watched", "its_limit"], ["beyond"]),
        helper.make_node("Where", ["beyond", "a_fault", "no_fault"], ["which_fault"]),
        helper.make_node("Reshape", ["which_fault", "column"], ["a_column"]),
        helper.make_node("Add", ["sound_codes", "a_column"], ["codes"]),
    ])  # fmt: skip
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 1]), "column"))
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return model.SerializeToString()


@pytest.mark.parametrize("fault", [float("nan"), 1e4], ids=["nan", "out-of-limits"])
def test_the_robot_is_stopped_and_the_seconds_before_are_kept(undisturbed, tmp_path, fault):
    task = tasks.load(undisturbed.document["task"])
    store = Workspace(undisturbed.workspace).store
    sound = store.get(store.find("policy")[0].digest)
    catalogue = Catalogue(store)
    logged = catalogue.load(catalogue.query("robot = 'robot-01' AND labels.index = 0")[0].digest)
    seen = {s.name: logged.signal(s.name).values for s in task.embodiment.observations}
    steps = len(seen["joint.position"])
    told = np.tile(task.told(task.scene.nominal(1)), (steps, 1))
    features = task.features({k: np.asarray(v, float) for k, v in seen.items()}, told)
    moved = features[steps // 2] - features[0]
    which = int(np.argmax(np.abs(moved)))
    limit = float(features[0, which] + moved[which] / 2)

    w = Workspace(tmp_path)
    reality = undisturbed.workspace / "hidden" / "reality.json"
    robots = [RobotSpec("robot-01", "virtual", {"reality": str(reality), "task": task.name})]
    notes = []
    with Fleet(w.path, robots, poll_s=0.02) as fleet:
        operator = Operator(w, fleet, task, notes.append, lambda done, of: None)
        bad = gone_wrong(sound, which, moved[which] > 0, limit, fault)
        operator.publish("bad", {"policy.onnx": bad, "calibrations.json": b"{}"}, (), execute=4)
        operator.install("install-bad", "bad", 0)
        operator.order("try", {"robot-01": "bad"}, 0, 2)
        operator.wait("try", ["robot-01"])
        episodes = operator.episodes("try")

    assert [(e.outcome, e.group) for e in episodes] == [("aborted", "stopped")] * 2
    low, high = task.embodiment.action_limits()
    incidents = {i["log"]: i for i in read_incidents(w.path) if i["kind"] == "supervisor"}
    for e in episodes:
        sent = np.concatenate([e.signal(s.name).values.reshape(-1, s.size) for s in task.embodiment.actions], axis=1)
        assert 5 < len(sent) < steps, "it began well and was stopped before the end"
        assert np.isfinite(sent).all() and (sent >= low - 1e-6).all() and (sent <= high + 1e-6).all()
        assert [x.name for x in e.events if x.name.startswith("supervisor")][-1] == "supervisor.stop"
        incident = incidents[e.log_digest]
        assert w.store.has(e.log_digest) and incident["release"] == "bad"
        assert ("not finite" if np.isnan(fault) else "limits") in incident["reason"]
        recent = incident["recent"]
        period = 1 / task.control_hz
        assert recent[-1]["t_ns"] - recent[0]["t_ns"] >= 1e9 * min(2.9, (len(sent) - 1) * period)
        assert set(recent[0]) >= {s.name for s in task.embodiment.observations}
        json.dumps(incident, allow_nan=False)
