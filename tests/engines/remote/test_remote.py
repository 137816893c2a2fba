"""An engine in a process of its own cannot be told from the engine itself, and when its process dies, it says so."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flyball.base import FlyballError, InputError, Missing, NotPossible, Unsupported
from flyball.engines import engines, traits
from flyball.engines.derivatives import jacobian
from flyball.engines.remote import RemoteEngine, RemoteSimulation
from flyball.engines.remote.host import METHODS
from flyball.engines.testing import MIXED, check_engine
from flyball.scenes import Scene

HERE = engines.in_process("mujoco")


@pytest.fixture(scope="module")
def remote():
    engine = RemoteEngine("mujoco")
    yield engine
    engine.close()


@pytest.fixture
def mortal():
    """An engine that a test may kill."""
    engine = RemoteEngine("mujoco")
    yield engine
    engine.close()


def gone(pid, within=30.0):
    """Whether a process ends; one that nobody has waited for counts as ended."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def script(path, text):
    """An interpreter that is none."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# the same ---------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contract(remote):
    check_engine(remote)


def test_it_has_every_method_of_the_interface():
    assert {name for name in METHODS if not hasattr(RemoteSimulation, name)} == set()
    assert {"step", "rollout", "save", "restore", "set", "portable"} <= METHODS and "_call" not in METHODS


def course(engine):
    """Everything a simulation can be asked, in order."""
    sim = engine.open(MIXED.scene, 5, threads=1)
    rng = np.random.default_rng(0)
    controls = rng.uniform(-1, 1, (5, 40, 1))
    reads = {"joint:arm.velocity": "all", "joint:box.position": "max", "time": "last", "actuator:arm.force": "mean",
             "contact:world|box.wrench": "last", "body:arm.velocity": "min"}  # fmt: skip
    some = np.array([0, 3])
    yield sim.n, sim.timestep, sim.layout, sim.settable(), sim.facts()
    yield sim.set({"body:box.mass": np.linspace(0.2, 0.9, 5), "geom:box.friction": np.full((5, 3), 0.3)})
    yield sim.get("body:box.mass"), sim.get("geom:box.friction"), sim.get("body:box.inertia")
    yield sim.place("box", np.array([[0.1, 0.2, 0.3, 1, 0, 0, 0]] * 2), some), sim.push("arm", np.ones((5, 1)))
    yield sim.rollout(controls, 4, reads)
    saved = sim.save()
    yield saved, sim.step(controls, reads)
    state, left = sim.portable()
    yield vars(state), left, sim.read(list(reads)[1:]), [sim.lag(name) for name in reads]
    yield sim.restore(saved), sim.step(controls, reads)
    yield sim.place_portable(state), sim.restore(saved[some], some), sim.save(), sim.reset(some), sim.save()
    controls[2, 3] = np.nan
    yield sim.step(controls, reads), sim.status()


def flat(value):
    if isinstance(value, dict):
        return [x for k, v in value.items() for x in [k, *flat(v)]]
    if isinstance(value, (list, tuple)):
        return [x for v in value for x in flat(v)]
    return [value]


def test_every_answer_has_the_bits_that_it_has_here(remote):
    for here, there in zip(course(HERE()), course(remote), strict=True):
        for a, b in zip(flat(here), flat(there), strict=True):
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype and a.shape == b.shape
                assert a.tobytes() == b.tobytes()
            else:
                assert a == b and type(a) is type(b)


def test_derivatives_are_the_engines_own(remote):
    state = HERE().open(MIXED.scene, 1).save()
    found = [jacobian(engine, MIXED.scene, state, np.full((5, 1), 0.3), "state") for engine in (HERE(), remote)]
    assert found[0].method == found[1].method == "mjd_transitionFD"
    assert found[0].values.tobytes() == found[1].values.tobytes()
    with pytest.raises(Unsupported, match="no gradient"):
        RemoteEngine("servo").open(Scene("one", ONE, ()), 1).gradient(np.zeros((1, 0)), "state", 1e-6)


def test_files_of_a_scene_go_along(remote):
    obj = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 1 4 3\n"
    model = """<mujoco><asset><mesh name="m" file="a.obj"/></asset><worldbody><body name="b"><freejoint name="b"/>
    <geom type="mesh" mesh="m" density="600"/></body></worldbody></mujoco>"""
    masses = [
        engine.open(Scene("mesh", model, (), assets={"a.obj": obj}), 1).get("body:b.mass")
        for engine in (HERE(), remote)
    ]
    assert masses[0] == masses[1] == pytest.approx(100.0)


def test_what_it_gives_is_ones_own(remote):
    """No later call changes what an earlier one gave, and no argument is kept."""
    sim = remote.open(MIXED.scene, 2, threads=1)
    first = sim.read(["joint:box.position"])["joint:box.position"]
    kept, controls = first.copy(), np.zeros((2, 50, 1))
    sim.step(controls, {"joint:box.position": "last"})
    controls[:] = 9.0
    np.testing.assert_array_equal(first, kept)
    first[:] = 1.0
    assert (sim.read(["joint:box.position"])["joint:box.position"] != 1.0).any()


def test_a_message_as_large_as_it_needs(remote):
    """Memory grows with what is passed, both ways."""
    sim = remote.open(MIXED.scene, 300, threads=1)
    for steps in (1, 200, 3):
        seen = sim.rollout(np.full((300, steps, 1), 0.1), 1, {"joint:box.position": "last"})["joint:box.position"]
        assert seen.shape == (300, steps, 7) and (seen[0] == seen[-1]).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.read(["joint:nobody.position"]),
        lambda s: s.set({"body:box.colour": np.ones(3)}),
        lambda s: s.set({"body:box.mass": np.array([1.0, np.nan, 1.0])}),
        lambda s: s.restore(np.zeros((3, 2))),
        lambda s: s.step(np.zeros((2, 5, 1))),
        lambda s: s.place("box", np.full((3, 7), np.inf)),
    ],
)
def test_errors_are_those_of_the_engine(remote, call):
    caught = []
    for engine in (HERE(), remote):
        with pytest.raises(FlyballError) as err:
            call(engine.open(MIXED.scene, 3, threads=1))
        caught.append((type(err.value), err.value.line(), err.value.allowed))
    assert caught[0] == caught[1]


def test_scenes_and_options_that_are_refused_are_refused_alike(remote):
    caught = []
    for engine in (HERE(), remote):
        with pytest.raises(InputError) as broken:
            engine.open(Scene("broken", "<mujoco><world", ()), 1)
        with pytest.raises(Unsupported) as option:
            engine.open(MIXED.scene, 1, options={"weather": "rain"})
        caught.append((broken.value.line(), option.value.line()))
    assert caught[0] == caught[1] and "weather" in caught[0][1]


def test_what_does_not_pass_is_refused_and_the_engine_goes_on(remote):
    sim = remote.open(MIXED.scene, 1, threads=1)
    with pytest.raises(InputError, match="object does not pass"):
        sim.set({"body:box.mass": object()})
    with pytest.raises(Unsupported, match="engine mujoco: no native"):
        sim._call("native", 0)
    assert sim.status().all()


def test_simulations_that_nobody_holds_are_let_go(remote):
    sim, other = (remote.open(MIXED.scene, 1, threads=1) for _ in range(2))
    key = sim._key
    del sim
    gc.collect()
    other.status()
    with pytest.raises(NotPossible, match="KeyError"):
        remote._process.ask("looking", {"do": "call", "sim": key, "method": "status", "args": [], "kwargs": {}})


def test_an_interrupted_call_does_not_confuse_the_next(mortal, monkeypatch):
    sim = mortal.open(MIXED.scene, 1, threads=1)

    class Interrupted:
        def poll(self, _):
            raise KeyboardInterrupt

    poll = mortal._process._poll
    monkeypatch.setattr(mortal._process, "_poll", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        sim.step(np.zeros((1, 10, 1)), {"joint:box.position": "last"})
    monkeypatch.setattr(mortal._process, "_poll", poll)
    assert sim.settable() == HERE().open(MIXED.scene, 1).settable()
    assert sim.read(["time"])["time"][0, 0] == pytest.approx(10 * sim.timestep)


def test_it_may_be_asked_from_several_threads(remote):
    sims = [remote.open(MIXED.scene, 1, threads=1) for _ in range(4)]
    workers = [
        threading.Thread(target=lambda s=s, k=k: s.step(np.zeros((1, 100 * k + 1, 1)))) for k, s in enumerate(sims)
    ]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    steps = [s.read(["time"])["time"][0, 0] / s.timestep for s in sims]
    np.testing.assert_allclose(steps, [1, 101, 201, 301])


# death ------------------------------------------------------------------------------------------------------------


def test_a_process_that_is_killed_is_one_line_now_and_later(mortal):
    sim = mortal.open(MIXED.scene, 1, threads=1)
    os.kill(mortal._process.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(NotPossible) as err:
            sim.step(np.zeros((1, 10, 1)))
        line = err.value.line()
        assert line.startswith("engine mujoco: its process") and "SIGKILL" in line and "\n" not in line
    with pytest.raises(NotPossible, match="SIGKILL"):
        mortal.open(MIXED.scene, 1)


def test_a_process_that_is_killed_in_the_midst_of_a_call_fails_the_call(mortal):
    sim = mortal.open(MIXED.scene, 1000, threads=1)
    killer = threading.Timer(0.3, os.kill, (mortal._process.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(NotPossible, match=r"died of SIGKILL \(rollout\)"):
        sim.rollout(np.zeros((1000, 20000, 1)), 20000, {"time": "last"})  # minutes


def test_a_process_that_hangs_fails_the_call():
    engine = RemoteEngine("mujoco", timeout_s=20.0)
    sim = engine.open(MIXED.scene, 1)
    engine._process._timeout_s = 0.5
    pid = engine._process.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(NotPossible, match="did not answer within 0.5 s"):
        sim.read(["time"])
    assert gone(pid)


def test_last_words_are_told(tmp_path):
    words = script(tmp_path / "python", "echo first >&2; echo 'GPU on fire' >&2; exit 3")
    with pytest.raises(NotPossible, match=r"ended with code 3 \(starting\); last words: GPU on fire"):
        RemoteEngine("mujoco", python=words)


def test_an_environment_without_numpy_says_so(tmp_path):
    bare = script(tmp_path / "python", f'exec {sys.executable} -S "$@"')
    with pytest.raises(NotPossible, match="last words: ModuleNotFoundError: No module named 'numpy'"):
        RemoteEngine("mujoco", python=bare)


def test_engines_and_interpreters_that_are_not_there():
    with pytest.raises(Missing, match="no engine named 'mujocko'") as err:
        RemoteEngine("mujocko")
    assert "did you mean 'mujoco'" in err.value.line()
    with pytest.raises(NotPossible, match="cannot start /no/such/python"):
        RemoteEngine("mujoco", python="/no/such/python")


ORPHAN = """
import os, sys, threading, time, numpy as np
from flyball.engines.remote import RemoteEngine
from flyball.engines.testing import MIXED
engine = RemoteEngine("mujoco")
sim = engine.open(MIXED.scene, 1000, threads=1)
print(engine._process.pid, flush=True)
if sys.argv[1] == "busy":
    sim.rollout(np.zeros((1000, 20000, 1)), 20000, {"time": "last"})
time.sleep(600)
"""


@pytest.mark.parametrize("doing", ["idle", "busy"])
def test_the_process_ends_with_its_caller(doing):
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen([sys.executable, "-c", ORPHAN, doing], stdout=subprocess.PIPE, text=True) as caller:
        pid = int(caller.stdout.readline())
        time.sleep(0.2)
        caller.kill()
    assert gone(pid)
    assert set(os.listdir("/dev/shm")) <= before


def test_closing_gives_back_process_descriptors_and_memory():
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    RemoteEngine("mujoco").close()
    gc.collect()  # what other tests have left
    before = descriptors()
    engine = RemoteEngine("mujoco")
    sim = engine.open(MIXED.scene, 10)
    sim.step(np.zeros((10, 100, 1)), {"joint:box.position": "all"})
    pid = engine._process.pid
    del engine
    gc.collect()
    assert sim.status().all()  # the process lives as long as something uses it
    del sim
    gc.collect()
    assert gone(pid) and descriptors() == before


def test_a_fork_of_the_caller_neither_uses_nor_ends_it(mortal):
    sim = mortal.open(MIXED.scene, 1)
    child = os.fork()
    if not child:
        try:
            sim.status()
        except NotPossible:
            mortal.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert sim.status().all()


# where other environments are found -------------------------------------------------------------------------------


def test_engines_of_a_file_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "env").symlink_to(sys.prefix)
    file = tmp_path / "engines.toml"
    file.write_text('[engines.other]\npython = "env/bin/python"\nengine = "mujoco"\ntimeout_s = 60\n')
    monkeypatch.setenv("FLYBALL_ENGINES", str(file))
    assert "other" in engines.names() and "mujoco" in engines.names()
    engine = engines.load("other")()
    assert engine.name == "other" and engine.version == HERE.version
    assert engine.capabilities == HERE.capabilities
    assert traits(engines.load("other")()) == traits(HERE())  # one vote with the one here
    sim = engine.open(MIXED.scene, 2)
    assert isinstance(sim, RemoteSimulation) and sim.n == 2
    monkeypatch.delenv("FLYBALL_ENGINES")
    assert "other" not in engines.names()
    monkeypatch.chdir(tmp_path)
    file.rename("flyball.toml")
    assert "other" in engines.names()
    (tmp_path / "fleet").mkdir()
    Path("flyball.toml").rename("fleet/flyball.toml")
    assert "other" not in engines.names()
    monkeypatch.setenv("FLYBALL_WORKSPACE", "fleet")
    assert "other" in engines.names()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[engines", "cannot be read"),
        ("engines = 3", "allowed: tables"),
        ("[engines.x]\n", "engines.x: key 'python' is missing"),
        ("[engines.x]\npython = 3\n", "engines.x: python: expected str, got 3"),
        ("[engines.x]\npyton = 'p'\n", "no key named 'pyton'; allowed: did you mean 'python'"),
        ("[engines.x]\npython = ''\n", "python: an interpreter"),
        ("[engines.x]\npython = 'p'\ntimeout_s = -1\n", "timeout_s: more than 0"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, monkeypatch, text, expected):
    file = tmp_path / "engines.toml"
    file.write_text(text)
    monkeypatch.setenv("FLYBALL_ENGINES", str(file))
    with pytest.raises(InputError) as err:
        engines.load("x")
    line = err.value.line()
    assert str(file) in line and expected in line and "\n" not in line


def test_a_file_that_was_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("FLYBALL_ENGINES", str(tmp_path / "nope.toml"))
    with pytest.raises(Missing, match="no such file"):
        engines.names()


ONE = '<mujoco><worldbody><body><joint name="j"/><geom size=".1"/></body></worldbody></mujoco>'
