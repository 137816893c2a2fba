# ruff: noqa: E402 - imports after the library is known to be there; files as they come
"""What we write passes OpenUSD's own validators, and they are really run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pxr")
mujoco = pytest.importorskip("mujoco")

import fuzz_usd

from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.scenes.usd.validate import validate, validate_here
from flyball.scenes.usd.write import write
from flyball.tasks.zoo.lift_fragile import MODEL

SITES = """<mujoco><worldbody><body name="a"><freejoint/><geom size=".1"/><site name="s" pos=".1 .2 .3"/></body>
<body name="b"><freejoint/><geom size=".1"/><site name="t" euler="0 0 30"/></body></worldbody>
<equality><weld site1="s" site2="t"/><connect site1="s" site2="t"/></equality></mujoco>"""


@pytest.mark.parametrize("suffix", [".usda", ".usdz"])
def test_no_errors_and_no_warnings(suffix: str, tmp_path: Path) -> None:
    for name, mjcf in (("lift", MODEL), ("rich", fuzz_usd.RICH), ("sites", SITES)):
        path = tmp_path / f"{name}{suffix}"
        write(Imported(name, mjcf, {}, facts(mujoco.MjSpec.from_string(mjcf).compile())), path)
        found = validate_here({"path": str(path)})
        assert found["findings"] == [], name
        assert len(found["validators"]) >= 28 and "usdPhysicsValidators:RigidBodyChecker" in found["validators"]


def test_a_fault_under_one_choice_is_found(tmp_path: Path) -> None:
    path = tmp_path / "f.usda"
    path.write_text("""#usda 1.0
(
    defaultPrim = "R"
    metersPerUnit = 1
    upAxis = "Z"
)
def Xform "R" (
    variants = {
        string kind = "good"
    }
    prepend variantSets = "kind"
)
{
    variantSet "kind" = {
        "bad" {
            def Scope "s" (
                prepend apiSchemas = ["PhysicsRigidBodyAPI"]
            )
            {
            }
        }
        "good" {
        }
    }
}
""")
    found = validate(path)
    assert found.errors == 1 and found.warnings == 0
    (finding,) = found.findings
    assert finding.variant == "kind=bad" and finding.sites == ("/R/s",)
