"""Every example runs as its first lines say, on a small budget, and prints what it is there to show."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
REALDATA = ROOT.parent / "shared" / "realdata"


def run(name, *arguments):
    (path,) = (p for p in EXAMPLES if p.name.startswith(name))
    done = subprocess.run([sys.executable, str(path), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_are_numbered_in_the_order_of_the_loop_and_short():
    assert [p.name[:2] for p in EXAMPLES] == ["01", "02", "03", "04", "05", "06", "07", "08", "09"]
    for path in EXAMPLES:
        lines = path.read_text().splitlines()
        assert len(lines) <= 60 and lines[2].strip().startswith(f"python examples/{path.name}"), path.name


def test_01_ingest(tmp_path):
    out = run("01", "--workspace", tmp_path)
    assert "quarantined cut.mcap" in out and out.count("success") == 2 and "failure slipped" in out
    assert "the second time: 0 added, 1 known" in out
    assert len(list((tmp_path / "quarantine").glob("*.reason.txt"))) == 1


@pytest.mark.parametrize(
    ("name", "folder", "held_out", "most"),
    [
        ("02", "servo_xl330", r"held-out error .* -> ([\d.]+) rad", 0.065),
        ("03", "cube_tosses", r"position error: .* -> ([\d.]+)% of the cube's width", 13.7),
    ],
)
def test_02_and_03_calibrate_from_recordings(name, folder, held_out, most):
    if not (REALDATA / folder).is_dir():
        pytest.skip(f"no recordings of real hardware at {REALDATA / folder}")
    out = run(name, REALDATA / folder)
    assert 0 < float(re.search(held_out, out)[1]) <= most, out


def test_04_demonstrate_and_train(tmp_path):
    out = run("04", "--demonstrations", 16, "--steps", 60, "--out", tmp_path / "policy.onnx")
    before, after = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", out).groups())
    assert after < before and (tmp_path / "policy.onnx").stat().st_size > 10_000
    assert re.search(r"\d+ of 32 succeed", out)


def test_05_compare():
    out = run("05", "--pairs", 48)
    assert ": better" in out and "promote" in out


def test_06_release_and_verify(tmp_path):
    out = run("06", tmp_path / "site").splitlines()
    assert [("refused" in line) for line in out] == [False, True, True, True, True, False]
    assert all(line.endswith("still runs turn-000") for line in out[1:5]) and out[-1].endswith("runs turn-005")


def test_07_turn(tmp_path):
    out = run("07", "--workspace", tmp_path, "--robots", 1)
    assert re.search(r"turn 0: \d of 4 succeed; (promoted|rolled back|refused by the gate|nothing)", out)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_08_dataset(tmp_path):
    out = run("08", "--workspace", tmp_path / "w")
    chosen = int(re.search(r"(\d) episodes where", out)[1])
    assert 1 <= chosen < 6, "some lifts fail"
    assert f"LeRobotDataset v3.0: {90 * chosen} rows at 25 Hz" in out and "'action': (64, 8, 6)" in out
    assert (tmp_path / "w" / "reports" / "lifts" / "meta" / "info.json").is_file()


def test_09_randomize():
    out = run("09", "--worlds", 8)
    assert "world 5 alone is world 5 of 8: True" in out and "read back: True" in out and "8 of 8 placed" in out
    assert "cannot hold together: box left of can by 0.05 m; box right of can" in out
