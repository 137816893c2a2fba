"""``flyball datasets`` as a user meets it: what it says, its exit codes, its one-line refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flyball.apps.cli.main import main
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.datasets.testing import planted_episode


def plant(space, count, first=0, **facts):
    """Add planted episodes, each with a log of its own."""
    catalogue = Catalogue(space.store)
    for seed in range(first, first + count):
        log = space.store.put("log", f"raw {seed}".encode(), producer="test").digest
        e = planted_episode(space.store, seed, n=10 + seed, instruction="wave", log_digest=log, **facts)
        for f in e.frames.values():
            space.store.register("frames", f.blob, producer="test", parents=(log,))
        catalogue.add(e, producer="test", parents=(log,))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A workspace with four episodes, a dataset ``mine`` and its exports; not to be changed."""
    root = tmp_path_factory.mktemp("cli")
    space = Workspace(root / "space")
    plant(space, 3, cameras=(("front", "jpeg"),))
    plant(space, 1, first=3, embodiment="other-arm")
    there = ["--workspace", str(space.path)]
    assert main(["datasets", "build", "mine", "--where", "embodiment = 'two-joints'", *there]) == 0
    assert main(["datasets", "export", "mine", str(root / "out"), *there]) == 0
    space.store.close()
    return root


@pytest.fixture
def call(planted, capsys):
    """``call(*argv)``: (exit code, stdout, stderr) of ``flyball datasets`` in the planted workspace."""

    def run(*argv, workspace=planted / "space"):
        capsys.readouterr()
        code = main(["datasets", *map(str, argv), "--workspace", str(workspace)])
        text = capsys.readouterr()
        return code, text.out, text.err

    return run


def test_the_whole_way(planted, call, tmp_path):
    code, out, _ = call("build", "whole", "--where", "seed < 3")
    assert code == 0 and out.startswith("whole@1: 3 episodes")
    assert call("build", "whole")[1] == out  # the same query, the same version
    code, out, _ = call("split", "whole", "--fractions", "train=0.5,test=0.5", "--seed", "1", "--json")
    splits = json.loads(out)["splits"]
    assert code == 0 and sum(splits.values()) == 3 and set(splits) == {"train", "test"}
    code, out, err = call("export", "whole", tmp_path / "v21", "--format", "v2.1", "--images", "png")
    assert code == 0 and "3 episodes, 33 rows at 20 Hz, v2.1" in out and "float64 is stored as float32" in out
    code, out, _ = call("verify", tmp_path / "v21")
    assert code == 0 and "33 rows of 3 episodes are bit for bit those of the store" in out
    code, out, _ = call("verify", "whole")
    assert code == 0 and "3 episodes, 3 cameras' pictures and 3 raw logs are what they were" in out
    code, out, _ = call("import", tmp_path / "v21", "back", workspace=tmp_path / "new")
    assert code == 0 and out.startswith("back@1: 3 episodes")
    code, out, _ = call("import", tmp_path / "v21", "back", workspace=tmp_path / "new")
    assert code == 0 and out.startswith("back@1: 3 episodes")  # nothing is there twice
    code, out, _ = call("show", "back", workspace=tmp_path / "new")
    assert "signal joint.position (2,) float32 [rad]" in out and "camera camera.front 32 x 32 png" in out
    code, out, _ = call(
        "export", "back", tmp_path / "again", "--format", "v2.1", "--images", "png", workspace=tmp_path / "new"
    )
    assert code == 0
    for name in ("data/chunk-000/episode_000001.parquet", "meta/tasks.jsonl", "meta/stats.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "v21" / name).read_bytes()
    code, out, _ = call("list", "--json")
    assert {(d["name"], d["number"]) for d in json.loads(out)["datasets"]} >= {("mine", 1), ("whole", 1), ("whole", 2)}


def test_differences_are_the_answer_no(call):
    call("build", "a", "--where", "seed < 2")
    call("build", "b", "--where", "seed IN (1, 2)")
    code, out, _ = call("diff", "a", "b")
    assert (
        code == 1
        and out.count("+ episode") == 1
        and out.count("- episode") == 1
        and "gripper.force: 105 samples" in out
    )
    assert call("diff", "a", "a") == (0, "no difference\n", "")
    code, out, _ = call("diff", "a", "b", "--json", "--no-statistics")
    assert code == 1 and len(json.loads(out)["added"]) == 1


def test_a_changed_folder_is_the_answer_no(planted, call, tmp_path):
    folder = shutil.copytree(planted / "out", tmp_path / "copy")
    (folder / "meta/info.json").write_text("{}")
    code, out, _ = call("verify", folder)
    assert code == 1 and out.startswith("meta/info.json: does not match its digest")
    code, out, err = call("verify", planted / "out", workspace=tmp_path / "none")
    assert code == 0 and "files are as exported" in out and "episodes were not" in err


def test_what_is_left_out_unasked_makes_exit_code_3(planted, call, tmp_path):
    space = Workspace(tmp_path / "space")
    plant(space, 1)
    plant(space, 1, first=1, cameras=(("front", "jpeg"),))
    call("build", "x", workspace=space.path)
    code, out, _ = call("export", "x", tmp_path / "a", workspace=space.path)
    assert code == 3 and "left out: camera.front: only in 1 of 2 episodes" in out
    assert call("export", "x", tmp_path / "b", "--without", "camera.front", workspace=space.path)[0] == 0


def test_the_export_has_a_place_in_the_lineage(planted):
    store = Workspace(planted / "space").store
    (made, *_) = store.find("export", name="mine@1")
    assert {a.kind for a in store.lineage(made.digest)} == {"dataset", "episode", "log"}
    assert made.labels["folder"] == str(planted / "out")


def test_help_of_every_part(capsys):
    for what in ("", "list", "show", "build", "merge", "split", "diff", "verify", "export", "import"):
        assert main(["datasets", *([what] if what else []), "--help"]) == 0
        assert "--workspace" in capsys.readouterr().out


def lerobot(name, content):
    """A LeRobot folder that is not sound."""

    def make(tmp: Path):
        (tmp / "bad/meta").mkdir(parents=True)
        (tmp / "bad" / name).write_bytes(content)
        return tmp / "bad"

    return make


class Placeholder:
    """Stands for a path that only the test knows."""

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


OUT, BAD = Placeholder("OUT"), Placeholder("BAD")
REFUSALS = [
    # arguments -> what the one line must name
    ((), "WHAT"),
    (("bild",), "invalid choice: 'bild'"),
    (("build",), "NAME"),
    (("build", "all"), "mixed embodiments: 'two-joints'"),
    (("build", "a/b"), "'a/b' is no name for a dataset; allowed: letters, digits"),
    (("build", "../up"), "'../up' is no name for a dataset"),
    (("build", "a\nb"), "is no name for a dataset"),
    (("build", "x", "--where", "seed > 99"), "no episode meets 'seed > 99'; try: flyball episodes"),
    (("build", "x", "--where", "sed > 9"), "sed"),
    (("build", "x", "--where", "seed; DROP TABLE episodes"), "not understood"),
    (("show", "mein"), "did you mean 'mine'?"),
    (("show", "mine@9"), "no dataset named 'mine@9'"),
    (("show", "0123456789"), "no dataset named '0123456789'"),
    (("merge", "x"), "DATASET"),
    (("merge", "x", "mine", "gone"), "no dataset named 'gone'"),
    (("split", "mine", "--fractions", "train=2"), "sum 1"),
    (("split", "mine", "--fractions", "half"), "'half' in 'half'; allowed: train=0.8"),
    (("split", "mine", "--by", "colour"), "no key named 'colour'"),
    (("split", "mine", "--by", "task"), "stays empty"),
    (("split", "mine", "--seed", "x"), "invalid int value"),
    (("diff", "mine", "gone"), "no dataset named 'gone'"),
    (("verify", "gone"), "no dataset named 'gone'"),
    (("verify", "/nowhere/at/all"), "/nowhere/at/all: no manifest"),
    (("export", "gone", OUT), "no dataset named 'gone'"),
    (("export", "mine", "/"), "/: exists; nothing is ever overwritten"),
    (("export", "mine", "/nowhere/at/all"), "/nowhere/at: no such folder; try: mkdir"),
    (("export", "mine", "/proc/x"), "/proc/x"),
    (("export", "mine", OUT, "--fps", "0"), "--fps: 0 frames per second; allowed: 1 to 1000"),
    (("export", "mine", OUT, "--fps", "29.97"), "invalid int value: '29.97'"),
    (("export", "mine", OUT, "--fps", "500"), "nothing was recorded at 500 Hz; allowed: at most 100"),
    (("export", "mine", OUT, "--format", "v1.0"), "--format: unknown version 'v1.0'; allowed: v3.0, v2.1"),
    (("export", "mine", OUT, "--rule", "linear"), "--rule: 'linear'; allowed: last, nearest"),
    (("export", "mine", OUT, "--codec", "mpeg"), "--codec: 'mpeg'; allowed: h264, av1"),
    (("export", "mine", OUT, "--crf", "200"), "--crf: quality 200"),
    (("export", "mine", OUT, "--images", "gif"), "--images: 'gif'; allowed: video, png, none"),
    (("export", "mine", OUT, "--state", "joint.velocity"), "did you mean 'joint.position'?"),
    (("export", "mine", OUT, "--without", "nothing"), "no signal or camera named 'nothing'"),
    (("export", "mine", OUT, "--fps", "19", "--max-age", "0.001"), "would get a sample"),
    (("import", "/nowhere/at/all"), "/nowhere/at/all: no LeRobotDataset; allowed: a folder with meta/info.json"),
    (("import", lerobot("meta/info.json", b"{")), "info.json: not JSON"),
    (("import", lerobot("meta/info.json", b"{}")), "info.json: not as LeRobot writes it (no 'codebase_version')"),
    (("import", lerobot("meta/info.json", b'{"codebase_version": "v9.9"}')), "LeRobotDataset v9.9; allowed: v2.0"),
    (("import", lerobot("meta/info.json", b"{}"), "a/b"), "'a/b' is no name"),
]


@pytest.mark.parametrize(
    "argv, names", REFUSALS, ids=lambda x: " ".join(map(str, x))[:40] if isinstance(x, tuple) else ""
)
def test_refusals_are_one_line_and_exit_code_2(call, tmp_path, argv, names):
    argv = tuple(tmp_path / "out" if a is OUT else a(tmp_path) if callable(a) else a for a in argv)
    code, out, err = call(*argv)
    lines = [x for x in err.splitlines() if not x.startswith("[")]  # progress, where stderr is no terminal
    assert (code, out) == (2, "") and len(lines) == 1 and names in lines[0], err
    assert not (tmp_path / "out").exists()


def test_a_workspace_is_made_by_import_alone(call, tmp_path):
    code, _, err = call("list", workspace=tmp_path / "none")
    assert code == 2 and "no workspace here" in err and not (tmp_path / "none").exists()
