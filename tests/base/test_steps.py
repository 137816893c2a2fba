"""The step cache: done once, whoever asks; half done is not done."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from flyball.base import InputError
from flyball.base.steps import json_of, step
from flyball.base.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def never():
    raise AssertionError("ran again")


def test_the_same_question_is_answered_from_the_store(store, tmp_path):
    a = step(store, "fit", 1, {"x": np.arange(3.0), "seed": 7}, lambda: {"mass": 0.25, "cov": [[1.0]]})
    b = step(Store(tmp_path), "fit", "1", {"seed": 7, "x": np.arange(3.0)}, never)
    assert a == b and a.kind == "fit" and a.producer == "fit@1"
    assert json_of(store, b) == {"mass": 0.25, "cov": [[1.0]]}


@pytest.mark.parametrize(
    ("name", "version", "inputs"),
    [("fit", 2, [1]), ("fit", 1, [2]), ("fot", 1, [1]), ("fit", 1, [1.0, None]), ("fit", 1, ["1"])],
)
def test_any_other_question_is_asked(store, name, version, inputs):
    step(store, "fit", 1, [1], lambda: b"old")
    assert store.get(step(store, name, version, inputs, lambda: b"new").digest) == b"new"


def test_two_questions_with_one_answer(store):
    a = step(store, "fit", 1, [1], lambda: b"same")
    b = step(store, "fit", 1, [2], lambda: b"same")
    assert a.digest == b.digest
    assert step(store, "fit", 1, [2], never).digest == a.digest


def test_artifacts_among_the_inputs_become_parents(store):
    log = store.put("log", b"l", producer="p")
    other = store.put("log", b"m", producer="p")
    a = step(store, "fit", 1, {"logs": [log.digest, {"deep": (other.digest,)}], "not": "f" * 64}, lambda: b"r")
    assert a.parents == (log.digest, other.digest)
    assert store.lineage(log.digest, "children") == [a]


def test_failing_work_leaves_nothing_and_may_be_tried_again(store):
    with pytest.raises(ZeroDivisionError):
        step(store, "fit", 1, [], lambda: 1 // 0)
    with pytest.raises(InputError, match="neither bytes nor JSON"):
        step(store, "fit", 1, [], lambda: object())
    assert store.find("fit") == []
    assert store.get(step(store, "fit", 1, [], lambda: b"ok").digest) == b"ok"


def test_a_result_that_somebody_removed_is_made_again(store):
    a = step(store, "fit", 1, [], lambda: b"ok")
    store.path(a.digest).unlink()
    assert store.get(step(store, "fit", 1, [], lambda: b"ok").digest) == b"ok"


def test_steps_may_ask_for_other_steps(store):
    a = step(store, "outer", 1, [], lambda: store.get(step(store, "inner", 1, [], lambda: b"i").digest) + b"o")
    assert store.get(a.digest) == b"io"


WORK = """
import os, sys, time
from flyball.base.steps import step
from flyball.base.store import Store
def make():
    with open(sys.argv[2], "a") as f:
        f.write("ran\\n")
    print("busy", flush=True)
    if sys.argv[3] == "hang":
        time.sleep(600)
    time.sleep(0.1)
    return b"result"
print(step(Store(sys.argv[1]), "fit", 1, [], make).digest)
"""


def start(tmp_path, how):
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(tmp_path), str(tmp_path / "runs"), how], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_ask_at_once_compute_once(tmp_path):
    runs = [start(tmp_path, "") for _ in range(4)]
    digests = {r.communicate()[0].split()[-1] for r in runs}
    assert len(digests) == 1
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_work_that_was_killed_is_invisible_and_done_by_the_next(tmp_path):
    run = start(tmp_path, "hang")
    assert run.stdout.readline() == "busy\n"
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    store = Store(tmp_path)
    assert store.find("fit") == []
    assert store.get(step(store, "fit", 1, [], lambda: b"result").digest) == b"result"
